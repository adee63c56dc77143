//! A token that is not in memory: asked about, or verified, in place or on another thread, once however many requests carry it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::{
        Detail,
        entry::{Standing, TokenEntry, VerifiedWith},
        flights::Flight,
        keys::Refetch,
        life::Moment,
        search::Search,
        verify::{Failure, verify},
    },
    Authenticator, Miss, Verification,
};
use crate::domain::{Unavailable, UnixTime};

impl Authenticator {
    /// A token that is not in memory: verified, or asked about.
    pub(super) async fn cold(&self, token: &str, now: UnixTime, deadline: Instant) -> Result<Arc<TokenEntry>, Miss> {
        self.counters.cache_misses.increment();
        let started = Instant::now();
        let generation = self.generation();
        if let Some(detail) = self.cache.refusal(token, generation, now) {
            self.counters.refused_again.increment();
            return Err(detail.into());
        }
        // No time left: not begun, rather than now and then answered in time after all.
        if deadline <= started {
            return Err(Unavailable::Timeout.into());
        }
        let found = match &self.introspection {
            Some(introspection) if introspection.is_for(token) => introspection.ask(token, deadline).await,
            _ => self.verify(token, now, deadline).await,
        };
        self.counters.cold.observe(started.elapsed());
        if let Err(Miss::Refused(detail)) = found {
            self.cache.refuse(token, detail, generation, now);
        }
        let entry = found?;
        match entry.standing(self.issuers.get(entry.issuer), now, &self.clock) {
            Standing::Good | Standing::Due => Ok(entry),
            Standing::Refused(detail) => Err(detail.into()),
            // The answer took longer than it may be believed, which makes no token bad.
            Standing::Over => Err(Unavailable::Stale.into()),
            // Its key left the set between the verification and now.
            Standing::Gone => Err(Detail::UnknownKey.into()),
        }
    }

    /// Of those who bring a token whose word is due, one asks; nobody waits.
    pub(super) fn ask_ahead(&self, token: &[u8], entry: &TokenEntry) {
        let (Some(introspection), VerifiedWith::Introspection(life)) = (&self.introspection, &entry.verified_with)
        else {
            return;
        };
        if let Ok(token) = std::str::from_utf8(token)
            && life.claim(Moment::of(&self.clock))
        {
            introspection.ask_ahead(token, life);
        }
    }

    async fn verify(&self, token: &str, now: UnixTime, deadline: Instant) -> Result<Arc<TokenEntry>, Miss> {
        let mut search = Search::default();
        loop {
            let (issuers, cache) = (self.issuers.clone(), self.cache.clone());
            let work = move |token: &Arc<str>| {
                // An earlier flight may have landed since this request missed the cache.
                if let Some(entry) = cache.get(token.as_bytes()) {
                    return Verification::Verified(entry);
                }
                match verify(token, &issuers, now) {
                    Ok(entry) => {
                        let entry = Arc::new(entry);
                        cache.insert(token.clone(), entry.clone());
                        Verification::Verified(entry)
                    }
                    Err(failure) => Verification::Failed(failure),
                }
            };
            let begin = |flight: Flight<_>| self.pool.run(is_short(token), move || flight.work(work));
            match self.flights.run(token, deadline, begin).await? {
                Verification::Verified(entry) => {
                    self.counters.verified.increment();
                    return Ok(entry);
                }
                Verification::Failed(Failure::Refused(detail)) => return Err(detail.into()),
                Verification::Failed(failure) => self.find_keys(&failure, &mut search, deadline).await?,
            }
        }
    }

    /// Looks for the keys that a token needs, where that may help; `Ok`: look again.
    async fn find_keys(&self, failure: &Failure, search: &mut Search, deadline: Instant) -> Result<(), Miss> {
        // Nothing known is "not yet", and so is what no fetch could confirm yet; a key that a fresh set does not hold is nobody's.
        let not_yet = Miss::Unavailable(Unavailable::NotReady);
        let (issuer, kid, refusal) = match failure {
            Failure::NoKeys { issuer } | Failure::KeysTooOld { issuer } => (issuer, None, not_yet),
            Failure::UnknownKey { issuer, kid } => (issuer, Some(&**kid), Miss::Refused(Detail::UnknownKey)),
            Failure::Refused(detail) => return Err((*detail).into()),
        };
        let held = &self.issuers.get(*issuer).ok_or(Unavailable::Internal)?.keys;
        search.again(held, kid, deadline).await.map_err(|ended| match ended {
            Refetch::Done | Refetch::Joined | Refetch::NotNow => refusal,
            // Within its age the last good set goes on; after it, nothing it holds is good.
            Refetch::Failed if matches!(failure, Failure::KeysTooOld { .. }) => Detail::KeysTooOld.into(),
            Refetch::Failed | Refetch::Late => not_yet,
        })
    }
}

/// Whether its signature has the length of RSA's with 2048 bits, which is verified in a third of the time of any other.
fn is_short(token: &str) -> bool {
    token.rsplit('.').next().is_some_and(|signature| signature.len() == 342)
}
