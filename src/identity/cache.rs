//! What is remembered of tokens. Two caches that never touch: verified tokens, bounded in bytes; and refusals, few and short.
//!
//! The key is the whole token under a hash with a random seed, compared in full on a hit, so no two tokens are ever
//! confused. Worst staleness: none for time and keys, which are looked at on every hit; a refusal lives for seconds and
//! dies with any change of a key set.

use std::{
    fmt, hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;
use moka::{Equivalent, Expiry, sync::Cache};

use super::{Detail, entry::TokenEntry, jwk::sha256, settings::CacheSettings};
use crate::domain::UnixTime;

/// What an entry costs besides its texts: the identity, what the pipeline keeps with it, the cache's own nodes.
const ENTRY_OVERHEAD: usize = 3 * 1024;

/// Verified tokens, and tokens lately refused.
#[derive(Debug)]
pub(super) struct TokenCache {
    verified: Cache<Token, Arc<TokenEntry>, RandomState>,
    /// By SHA-256, so that a flood of long tokens costs 32 octets each.
    refused: Cache<[u8; 32], Refusal, RandomState>,
    refused_life: Duration,
    /// Milliseconds since 1970: while nobody is refused, no token is hashed to look for it.
    last_refused: AtomicU64,
}

/// A token as a key. Never shown.
#[derive(PartialEq, Eq)]
struct Token(Arc<str>);

impl hash::Hash for Token {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        Octets(self.0.as_bytes()).hash(state);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What may be such a key: found where all of its octets are those of a token.
struct Octets<'a>(&'a [u8]);

impl hash::Hash for Octets<'_> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

impl Equivalent<Token> for Octets<'_> {
    fn equivalent(&self, token: &Token) -> bool {
        *self.0 == *token.0.as_bytes()
    }
}

#[derive(Clone, Copy, Debug)]
struct Refusal {
    detail: Detail,
    /// The generation of all key sets under which it was refused.
    generation: u64,
    at: UnixTime,
}

impl TokenCache {
    pub(super) fn new(settings: &CacheSettings) -> Self {
        let verified = Cache::builder()
            .max_capacity(settings.size_mib.saturating_mul(1024 * 1024))
            .weigher(|token: &Token, _| u32::try_from(2 * token.0.len() + ENTRY_OVERHEAD).unwrap_or(u32::MAX))
            .expire_after(AtEnd)
            .build_with_hasher(RandomState::default());
        let refused = Cache::builder()
            .max_capacity(settings.refused)
            .time_to_live(settings.refused_life.get())
            .build_with_hasher(RandomState::default());
        Self { verified, refused, refused_life: settings.refused_life.get(), last_refused: AtomicU64::new(0) }
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<Arc<TokenEntry>> {
        self.verified.get(&Octets(token))
    }

    /// INVARIANT: called only with an entry that `verify` or an authorization server vouched for.
    pub(super) fn insert(&self, token: Arc<str>, entry: Arc<TokenEntry>) {
        self.verified.insert(Token(token), entry);
    }

    pub(super) fn remove(&self, token: &[u8]) {
        self.verified.invalidate(&Octets(token));
    }

    /// Why this very token was refused a moment ago, while nothing has changed since.
    pub(super) fn refusal(&self, token: &str, generation: u64, now: UnixTime) -> Option<Detail> {
        let last = UnixTime::from_millis(self.last_refused.load(Ordering::Relaxed));
        if now.since(last) > self.refused_life {
            return None;
        }
        let refusal = self.refused.get(&sha256(token.as_bytes()))?;
        (refusal.generation == generation && refusal.at <= now).then_some(refusal.detail)
    }

    pub(super) fn refuse(&self, token: &str, detail: Detail, generation: u64, at: UnixTime) {
        self.last_refused.fetch_max(at.as_millis(), Ordering::Relaxed);
        self.refused.insert(sha256(token.as_bytes()), Refusal { detail, generation, at });
    }

    /// Octets that verified tokens are counted as.
    pub(super) fn weight(&self) -> u64 {
        self.verified.weighted_size()
    }

    pub(super) fn len(&self) -> u64 {
        self.verified.entry_count()
    }
}

/// Entries leave when their token ends. Only housekeeping: the wall clock is asked on every hit.
struct AtEnd;

impl Expiry<Token, Arc<TokenEntry>> for AtEnd {
    fn expire_after_create(&self, _: &Token, entry: &Arc<TokenEntry>, _: Instant) -> Option<Duration> {
        Some(entry.life)
    }
}
