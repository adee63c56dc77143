//! Names of sessions and of the contexts they are used in: digests, so that no claim becomes part of a key.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::digest::{Context as Digest, SHA256};

use crate::{
    domain::{DeviceId, Identity, Place, UnixTime},
    store::keys,
};

/// Issuer and subject, then issuer, subject and session id; 128 bits of a SHA-256 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    subject: [u8; 16],
    session: [u8; 16],
}

impl SessionKey {
    pub fn of(identity: &Identity) -> Self {
        let parts = [identity.issuer.as_str(), identity.subject.as_str(), identity.session.as_str()];
        Self { subject: digest(&parts[..2]), session: digest(&parts) }
    }

    /// `<subject>:<session>` in hexadecimal: the end of its key, and its name in notices.
    pub fn text(&self) -> String {
        format!("{}:{}", self.subject_text(), hex::encode(self.session))
    }

    pub(super) fn subject_text(&self) -> String {
        hex::encode(self.subject)
    }

    pub(super) fn session_text(&self) -> String {
        hex::encode(self.session)
    }

    /// Another session of the same subject, by the second half of its text.
    pub(super) fn sibling(&self, session: &str) -> Option<Self> {
        Some(Self { session: hex::decode(session).ok()?.try_into().ok()?, ..*self })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (subject, session) = text.split_once(':')?;
        let half = |text: &str| hex::decode(text).ok()?.try_into().ok();
        Some(Self { subject: half(subject)?, session: half(session)? })
    }
}

/// What a token's cache entry remembers: the key of its session, made once.
#[derive(Debug, Default)]
pub struct Slot(OnceLock<(SessionKey, Box<str>)>);

impl Slot {
    pub(super) fn key(&self, identity: &Identity) -> SessionKey {
        self.made(identity).0
    }

    /// The key as text, for notices.
    pub fn text(&self, identity: &Identity) -> &str {
        &self.made(identity).1
    }

    fn made(&self, identity: &Identity) -> &(SessionKey, Box<str>) {
        self.0.get_or_init(|| {
            let key = SessionKey::of(identity);
            (key, key.text().into())
        })
    }
}

/// From where and with what a request comes: the device it names, and its network. The client chooses the device's
/// name, so two contexts must never be made to look alike: a digest, made only when somebody needs it.
#[derive(Debug)]
pub(super) struct Context {
    device: Option<DeviceId>,
    network: Network,
    id: OnceLock<ContextId>,
    /// When the subject was challenged in this context, in whatever session.
    pub(super) carried: Option<UnixTime>,
}

/// In hexadecimal.
pub(super) type ContextId = Arc<str>;

/// The autonomous system where it is known, else the neighbourhood of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Unknown,
    System(u32),
    /// A /24.
    Ipv4(u32),
    /// A /48.
    Ipv6(u128),
}

impl Context {
    pub(super) fn of(device: Option<&DeviceId>, place: Option<&Place>, client: Option<IpAddr>) -> Self {
        let network = match (place.and_then(|place| place.asn), client) {
            (Some(number), _) => Network::System(number),
            (None, Some(IpAddr::V4(address))) => Network::Ipv4(address.to_bits() >> 8),
            (None, Some(IpAddr::V6(address))) => Network::Ipv6(address.to_bits() >> 80),
            (None, None) => Network::Unknown,
        };
        Self { device: device.cloned(), network, id: OnceLock::new(), carried: None }
    }

    pub(super) fn id(&self) -> &ContextId {
        self.id.get_or_init(|| {
            let device = self.device.as_ref().map_or("", DeviceId::as_str);
            hex::encode(digest(&[&format!("{:?}", self.network), device])).into()
        })
    }

    /// Where it is kept that the subject was challenged here. A new login is often a new session: it answers the
    /// question that was put to the old one.
    pub(super) fn challenge_key(&self, key: &SessionKey) -> String {
        keys::session_challenge(&key.subject_text(), self.id())
    }
}

/// A time in milliseconds, as text.
pub(super) fn millis(value: &[u8]) -> Option<UnixTime> {
    std::str::from_utf8(value).ok()?.parse().ok().map(UnixTime::from_millis)
}

/// Each part with its length before it.
fn digest(parts: &[&str]) -> [u8; 16] {
    let mut digest = Digest::new(&SHA256);
    for part in parts {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let sum = digest.finish();
    let mut half = [0; 16];
    half.copy_from_slice(&sum.as_ref()[..16]);
    half
}
