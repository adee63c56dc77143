//! The hash chain: each line names the hash of the line before it, and some lines are signed.
//!
//! A line is one JSON object. Its `hash` is the SHA-256 of the line's own octets up to (not including) `,"hash":"`; those
//! octets hold `prev`, the hash of the line before. A signed line carries, after the hash, an Ed25519 signature over
//! [`SIGNED`] and the hash. So whoever changes, drops or moves a line must make every later line anew, and cannot sign
//! them. The octets are hashed as they stand: a shipper must hand lines on as they are.

use aws_lc_rs::{digest, rand};
use serde::Serialize;

use super::key::SigningKey;

/// What a signature covers, before the hash in hexadecimal.
pub(super) const SIGNED: &str = "countersign-audit-v1:";

/// What the first line of a chain names as the hash before it.
pub(super) const GENESIS: Digest = [0; 32];

/// The text between a line's content and its hash.
pub(super) const HASH_MARK: &str = ",\"hash\":\"";

/// The text between a line's hash and its signature.
pub(super) const SIGNATURE_MARK: &str = "\",\"signature\":\"";

pub(super) type Digest = [u8; 32];

/// A digest in hexadecimal.
type HexDigest = [u8; 64];

/// One process's chain. Owned by the writer alone.
#[derive(Debug)]
pub(super) struct Chain {
    /// Sixteen hexadecimal digits, random: tells the lines of one process from those of another.
    id: String,
    /// Number of the last line; the first is 1.
    seq: u64,
    /// Its hash.
    hash: HexDigest,
    key: SigningKey,
}

/// Members that every line begins with.
#[derive(Serialize)]
struct Head<'a> {
    chain: &'a str,
    seq: u64,
    prev: &'a str,
    kind: &'a str,
    time: &'a str,
}

impl Chain {
    pub(super) fn new(key: SigningKey) -> Result<Self, super::Error> {
        let mut id = [0; 8];
        rand::fill(&mut id).map_err(|_| super::Error::Crypto)?;
        Ok(Self { id: hex::encode(id), seq: 0, hash: in_hex(&GENESIS), key })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Appends one line to `out`. `body` must be a struct with at least one member.
    ///
    /// # Errors
    ///
    /// Where `body` cannot be written as JSON; `out` and the chain are then as before.
    pub(super) fn seal<B: Serialize>(
        &mut self,
        kind: &str,
        time: &str,
        body: &B,
        signed: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        self.seal_with((kind, time), |out| serde_json::to_writer(out, body), signed, out)
    }

    /// Appends one unsigned line whose body is written already: an object with at least one member.
    ///
    /// # Errors
    ///
    /// As for [`Self::seal`].
    pub(super) fn seal_written(
        &mut self,
        kind: &str,
        time: &str,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(body);
            Ok(())
        };
        self.seal_with((kind, time), write, false, out)
    }

    fn seal_with(
        &mut self,
        (kind, time): (&str, &str),
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), serde_json::Error>,
        signed: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        let start = out.len();
        let written = self.write_content(kind, time, body, out);
        if written.is_err() {
            out.truncate(start);
            return written;
        }
        self.hash = in_hex(&hash_of(&out[start..]));
        out.extend_from_slice(HASH_MARK.as_bytes());
        out.extend_from_slice(&self.hash);
        if signed {
            out.extend_from_slice(SIGNATURE_MARK.as_bytes());
            out.extend_from_slice(self.key.sign(&signed_text(text(&self.hash))).as_bytes());
        }
        out.extend_from_slice(b"\"}\n");
        self.seq += 1;
        Ok(())
    }

    fn write_content(
        &self,
        kind: &str,
        time: &str,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), serde_json::Error>,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        let head = Head { chain: &self.id, seq: self.seq + 1, prev: text(&self.hash), kind, time };
        serde_json::to_writer(&mut *out, &head)?;
        // Two objects become one: the brace between them turns into a comma, the last one goes.
        out.pop();
        let joint = out.len();
        body(out)?;
        out[joint] = b',';
        out.pop();
        Ok(())
    }
}

pub(super) fn hash_of(content: &[u8]) -> Digest {
    let mut hash = GENESIS;
    hash.copy_from_slice(digest::digest(&digest::SHA256, content).as_ref());
    hash
}

fn in_hex(digest: &Digest) -> HexDigest {
    let mut text = [b'0'; 64];
    // Cannot fail: 64 digits are what 32 octets have.
    let _ = hex::encode_to_slice(digest, &mut text);
    text
}

fn text(hash: &HexDigest) -> &str {
    std::str::from_utf8(hash).unwrap_or_default()
}

/// What is signed for a line with this hash.
pub(super) fn signed_text(hash: &str) -> String {
    format!("{SIGNED}{hash}")
}
