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
    time::Duration,
};

use foldhash::quality::RandomState;
use moka::sync::Cache;
use quick_cache::{Equivalent, Weighter, sync::DefaultLifecycle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Detail, entry::TokenEntry, jwk::sha256, settings::CacheSettings};
use crate::{clock::Clock, domain::UnixTime};

/// What most entries weigh at least.
const SMALLEST: u64 = 4 * 1024;

/// How often tokens that have ended are let go of.
const SWEEP: Duration = Duration::from_secs(60);

/// For how long "not active" is remembered at most, so that a flood of one token is not a flood of questions.
const NOT_ACTIVE: Duration = Duration::from_millis(500);

/// What an entry costs besides its texts: the identity, what the pipeline keeps with it, the cache's own nodes.
const ENTRY_OVERHEAD: usize = 3 * 1024;

/// Verified tokens, and tokens lately refused.
#[derive(Debug)]
pub(super) struct TokenCache {
    verified: quick_cache::sync::Cache<Token, Arc<TokenEntry>, Weight, RandomState>,
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
    life: Duration,
    /// The generation of all key sets under which it was refused.
    generation: u64,
    at: UnixTime,
}

impl TokenCache {
    pub(super) fn new(settings: &CacheSettings) -> Self {
        let octets = settings.size_mib.saturating_mul(1024 * 1024);
        let entries = usize::try_from(octets / SMALLEST).unwrap_or(usize::MAX);
        let verified = quick_cache::sync::Cache::with(
            entries,
            octets,
            Weight,
            RandomState::default(),
            DefaultLifecycle::default(),
        );
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
        self.verified.remove(&Octets(token));
    }

    /// Why this very token was refused a moment ago, while nothing has changed since.
    pub(super) fn refusal(&self, token: &str, generation: u64, now: UnixTime) -> Option<Detail> {
        let last = UnixTime::from_millis(self.last_refused.load(Ordering::Relaxed));
        if now.since(last) > self.refused_life {
            return None;
        }
        let refusal = self.refused.get(&sha256(token.as_bytes()))?;
        let holds = refusal.at <= now && now.since(refusal.at) < refusal.life;
        (refusal.generation == generation && holds).then_some(refusal.detail)
    }

    /// Remembers why it was refused, unless that heals by itself.
    pub(super) fn refuse(&self, token: &str, detail: Detail, generation: u64, at: UnixTime) {
        let life = match detail {
            Detail::NotYetValid | Detail::KeysTooOld => return,
            // Where servers copy from one another, a token may be older than what one of them knows.
            Detail::NotActive => NOT_ACTIVE,
            _ => Duration::MAX,
        };
        self.last_refused.fetch_max(at.as_millis(), Ordering::Relaxed);
        self.refused.insert(sha256(token.as_bytes()), Refusal { detail, life, generation, at });
    }

    /// Octets that verified tokens are counted as.
    pub(super) fn weight(&self) -> u64 {
        self.verified.weight()
    }

    pub(super) fn len(&self) -> usize {
        self.verified.len()
    }

    /// Lets go of tokens that have ended, now and then. Only housekeeping: the wall clock is asked on every hit.
    pub(super) async fn keep_swept(self: Arc<Self>, clock: Clock, cancelled: CancellationToken) {
        while cancelled.run_until_cancelled(sleep(SWEEP)).await.is_some() {
            self.sweep(clock.now());
        }
    }

    fn sweep(&self, now: UnixTime) {
        self.verified.retain(|_, entry| entry.ends_at > now);
    }
}

/// Octets that an entry is counted as.
#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Token, Arc<TokenEntry>> for Weight {
    fn weight(&self, token: &Token, _: &Arc<TokenEntry>) -> u64 {
        (2 * token.0.len() + ENTRY_OVERHEAD) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::entry::VerifiedWith;

    fn entry(ends_at: UnixTime) -> Arc<TokenEntry> {
        let record: serde_json::Value = serde_json::from_str(include_str!("../../tests/audit/before.jsonl")).unwrap();
        let identity = record.pointer("/facts/credential/known/value/verified/identity").unwrap();
        let identity = serde_json::from_value(identity.clone()).unwrap();
        let mut entry = TokenEntry::new(identity, 0, VerifiedWith::Certificate, UnixTime::EPOCH);
        entry.ends_at = ends_at;
        Arc::new(entry)
    }

    #[test]
    fn tokens_that_have_ended_are_let_go_of_and_no_others() {
        let cache = TokenCache::new(&CacheSettings::default());
        cache.insert("ended".into(), entry(UnixTime::from_secs(100)));
        cache.insert("lives".into(), entry(UnixTime::from_secs(101)));
        cache.sweep(UnixTime::from_secs(100));
        assert!(cache.get(b"ended").is_none() && cache.get(b"lives").is_some());
        assert_eq!((cache.len(), cache.weight()), (1, (2 * 5 + ENTRY_OVERHEAD) as u64));
    }

    #[test]
    fn what_is_remembered_stays_within_its_bound_and_what_is_used_stays_in_memory() {
        let settings = CacheSettings { size_mib: 4, ..CacheSettings::default() };
        let cache = TokenCache::new(&settings);
        let shared = entry(UnixTime::from_secs(100));
        for number in 0..10_000 {
            cache.insert(format!("token-{number}").into(), shared.clone());
            assert!(cache.get(b"token-0").is_some(), "displaced by token {number}");
        }
        assert!(cache.weight() <= 4 * 1024 * 1024, "{}", cache.weight());
        assert!(cache.len() > 500, "{}", cache.len());
    }
}
