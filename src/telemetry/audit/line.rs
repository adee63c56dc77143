//! One line of an audit file, taken apart without trusting it.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};

use super::chain::{Digest, HASH_MARK, SIGNATURE_MARK, hash_of};

/// A line that has the shape of a record. Whether it is what was written is [`super::verify`]'s business.
#[derive(Debug)]
pub(super) struct Line<'a> {
    head: Head<'a>,
    /// The hash that the line states, 64 hexadecimal digits.
    pub(super) hash: &'a str,
    /// Base64.
    pub(super) signature: Option<&'a str>,
    /// The hash that the line's content has.
    pub(super) content_hash: Digest,
}

#[derive(Debug, Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    chain: Cow<'a, str>,
    seq: u64,
    #[serde(borrow)]
    prev: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    public_key: Option<Cow<'a, str>>,
    #[serde(default)]
    checkpoint_records: Option<u64>,
    #[serde(borrow, default)]
    instance: Option<Cow<'a, str>>,
    #[serde(default)]
    follows: Option<Follows>,
    #[serde(default)]
    lost: Option<u64>,
}

/// What a chain says it follows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Follows {
    pub(super) chain: String,
    pub(super) seq: u64,
    pub(super) hash: String,
}

/// Whether this is a line of the log, or plain text beside it, which a container's runtime mixes with the records of standard
/// output: whoever makes a record into one has removed the record, and the numbers tell.
pub fn is_of_log(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Members {
        #[serde(rename = "level")]
        _level: IgnoredAny,
        chain: Option<IgnoredAny>,
        prev: Option<IgnoredAny>,
        hash: Option<IgnoredAny>,
    }
    if !text.starts_with('{') {
        return !text.contains(HASH_MARK);
    }
    serde_json::from_str(text)
        .is_ok_and(|line: Members| line.chain.is_none() && line.prev.is_none() && line.hash.is_none())
}

impl<'a> Line<'a> {
    /// `None` where this is no record: cut short, another format, not JSON.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let end = text.strip_suffix("\"}")?;
        let (content, tail) = end.split_at(end.rfind(HASH_MARK)?);
        let tail = &tail[HASH_MARK.len()..];
        let (hash, signature) = match tail.split_once(SIGNATURE_MARK) {
            Some((hash, signature)) => (hash, Some(signature)),
            None => (tail, None),
        };
        if hash.len() != 64 || !hash.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return None;
        }
        let head = serde_json::from_str(text).ok()?;
        Some(Self { head, hash, signature, content_hash: hash_of(content.as_bytes()) })
    }

    pub(super) fn chain(&self) -> &str {
        &self.head.chain
    }

    pub(super) const fn seq(&self) -> u64 {
        self.head.seq
    }

    pub(super) fn prev(&self) -> &str {
        &self.head.prev
    }

    pub(super) fn kind(&self) -> &str {
        &self.head.kind
    }

    /// Of a `start` or `file` line.
    pub(super) fn public_key(&self) -> Option<&str> {
        self.head.public_key.as_deref()
    }

    /// Of a `start` or `file` line: how many lines go unsigned at most.
    pub(super) const fn checkpoint_records(&self) -> Option<u64> {
        self.head.checkpoint_records
    }

    pub(super) fn instance(&self) -> Option<&str> {
        self.head.instance.as_deref()
    }

    pub(super) const fn follows(&self) -> Option<&Follows> {
        self.head.follows.as_ref()
    }

    /// Of a `gap` line.
    pub(super) const fn lost(&self) -> Option<u64> {
        self.head.lost
    }

    /// Whether the content has the hash that the line states.
    pub(super) fn is_whole(&self) -> bool {
        hex::encode(self.content_hash) == self.hash
    }
}
