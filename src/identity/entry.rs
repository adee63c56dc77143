//! What is kept of a token that verified: its identity, what it was verified with, and room for facts about it.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Algorithm, Detail,
    claims::check_time,
    issuer::IssuerState,
    jwk::sha256,
    life::{Life, Moment, Stage},
};
use crate::{
    clock::Clock,
    domain::{Identity, UnixTime},
};

/// A verified token. One for each token in memory, shared by all requests that carry it.
pub struct TokenEntry {
    pub identity: Arc<Identity>,
    pub(super) issuer: usize,
    pub(super) verified_with: VerifiedWith,
    pub(super) not_before: UnixTime,
    /// From when on the entry is of no use to anybody, leeway included.
    pub(super) ends_at: UnixTime,
    /// The generation of the issuer's key set under which the key was last seen.
    pub(super) generation: AtomicU64,
    pub(super) status: Option<(Arc<str>, u64)>,
    facts: Arc<Rooms>,
    token_sha256: OnceLock<[u8; 32]>,
}

/// What stages remember, one value for each type. A list that only grows, so that a reference into it stays good.
#[derive(Default)]
struct Rooms {
    first: OnceLock<Box<Room>>,
}

struct Room {
    value: Box<dyn Any + Send + Sync>,
    next: OnceLock<Box<Self>>,
}

impl Rooms {
    fn facts<T: Default + Any + Send + Sync>(&self) -> &T {
        let mut place = &self.first;
        loop {
            let room = place.get_or_init(|| Box::new(Room { value: Box::<T>::default(), next: OnceLock::new() }));
            if let Some(value) = room.value.downcast_ref() {
                return value;
            }
            place = &room.next;
        }
    }
}

/// What stands behind an entry, and so what takes it away.
#[derive(Debug)]
pub(super) enum VerifiedWith {
    /// A key: while it is in the issuer's set.
    Key { kid: Box<str>, algorithm: Algorithm, thumbprint: [u8; 32] },
    /// The authorization server's word, for a while.
    Introspection(Life),
    /// The peer certificate that Envoy verified.
    Certificate,
}

/// What a look at an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// Good, and whose word it stands on is to be asked again soon.
    Due,
    /// The word it stood on is too old.
    Over,
    /// Verify it again from the start.
    Gone,
    Refused(Detail),
}

impl TokenEntry {
    pub(super) fn new(identity: Identity, issuer: usize, verified_with: VerifiedWith, not_before: UnixTime) -> Self {
        Self {
            ends_at: identity.expires_at,
            identity: Arc::new(identity),
            issuer,
            verified_with,
            not_before,
            generation: AtomicU64::new(0),
            status: None,
            facts: Arc::default(),
            token_sha256: OnceLock::new(),
        }
    }

    /// With what stages remember of the same token, where the answer `before` said the same.
    pub(super) fn after(self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        // Where nobody says when it was issued, it is when it was first asked about.
        let issued_at = if self.identity.issue_unstated { before.identity.issued_at } else { self.identity.issued_at };
        let identity = Identity { issued_at, ..Identity::clone(&self.identity) };
        let facts = if *before.identity == identity { before.facts.clone() } else { self.facts };
        Self { identity: Arc::new(identity), facts, ..self }
    }

    /// Room for what a stage remembers about this token, one for each type, made at first use.
    pub fn facts<T: Default + Any + Send + Sync>(&self) -> &T {
        self.facts.facts()
    }

    /// Whether the token is as good now as when it was verified: its time, and its key.
    pub(super) fn standing(&self, issuer: Option<&IssuerState>, now: UnixTime, clock: &Clock) -> Standing {
        let leeway = issuer.map(|issuer| issuer.settings.leeway.get()).unwrap_or_default();
        if let Err(detail) = check_time(now, self.not_before, self.identity.expires_at, leeway) {
            return Standing::Refused(detail);
        }
        match (&self.verified_with, issuer) {
            (VerifiedWith::Certificate, _) => Standing::Good,
            (VerifiedWith::Introspection(life), Some(_)) => {
                match life.stage(Moment { wall: now, steady: clock.instant() }) {
                    Stage::Good => Standing::Good,
                    Stage::Due => Standing::Due,
                    Stage::Over => Standing::Over,
                }
            }
            (VerifiedWith::Key { kid, algorithm, thumbprint }, Some(issuer)) => {
                let keys = &issuer.keys;
                if !keys.is_fresh(now) {
                    return Standing::Gone;
                }
                let generation = keys.generation();
                if self.generation.load(Ordering::Acquire) == generation {
                    return Standing::Good;
                }
                if !keys.holds(kid, *algorithm, thumbprint) {
                    return Standing::Gone;
                }
                self.generation.store(generation, Ordering::Release);
                Standing::Good
            }
            _ => Standing::Gone,
        }
    }

    /// SHA-256 of the token: `ath` of a proof.
    pub(super) fn token_sha256(&self, token: &[u8]) -> &[u8; 32] {
        self.token_sha256.get_or_init(|| sha256(token))
    }
}

impl fmt::Debug for TokenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEntry").field("subject", &self.identity.subject).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn each_stage_finds_its_own_facts_again() {
        let rooms = Rooms::default();
        rooms.facts::<AtomicU32>().store(7, Ordering::Relaxed);
        rooms.facts::<AtomicU64>().store(8, Ordering::Relaxed);
        assert_eq!(rooms.facts::<AtomicU32>().load(Ordering::Relaxed), 7);
        assert_eq!(rooms.facts::<AtomicU64>().load(Ordering::Relaxed), 8);
    }
}
