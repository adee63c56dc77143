//! Rate limits of policies: one token from each limit, taken last, and only when a dry decision would allow.
//!
//! The store counts, so that replicas count together (generic cell rate algorithm, one atomic step a limit). What
//! cannot be counted is `Unavailable`, never "allowed".

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::time::Instant;

use crate::{
    decision::QuotaWanted,
    domain::{
        Fact, Facts, Quota, Unavailable,
        metric::{Counter, Page, Source},
    },
    policy::{RateLimit, RateScope},
    store::{Rate, Store, StoreErrorKind, Taken},
};

/// Takes tokens from the limits that policies set.
#[derive(Debug)]
pub struct Quotas {
    store: Arc<dyn Store>,
    counters: Counters,
}

/// Plain atomics; `ops` renders them.
#[derive(Debug, Default)]
pub struct Counters {
    taken: Counter,
    refused: Counter,
    unavailable: Counter,
}

impl Quotas {
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, counters: Counters::default() })
    }

    /// Takes one token from each of the wanted limits, in their order; stops at the first that is used up.
    pub async fn take(&self, wanted: &QuotaWanted, facts: &Facts, deadline: Instant) -> Fact<Quota> {
        let quota = match tokio::time::timeout_at(deadline, self.take_all(wanted, facts)).await {
            Ok(quota) => quota,
            Err(_) => Fact::Unavailable(Unavailable::Timeout),
        };
        match &quota {
            Fact::Known { value, .. } if value.allowed => self.counters.taken.increment(),
            Fact::Known { .. } => self.counters.refused.increment(),
            Fact::Absent | Fact::Unavailable(_) | Fact::NotAsked => self.counters.unavailable.increment(),
        }
        quota
    }

    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    async fn take_all(&self, wanted: &QuotaWanted, facts: &Facts) -> Fact<Quota> {
        let mut tightest: Option<Quota> = None;
        for limit in wanted.limits.iter() {
            let key = key(wanted.policy.as_str(), limit, facts);
            let rate = Rate { limit: limit.limit, window: limit.window };
            let quota = match self.store.take(&key, rate, 1).await {
                Ok(taken) => quota(limit, taken),
                Err(error) => {
                    tracing::debug!(%error, "a rate limit could not be counted");
                    return Fact::Unavailable(match error.kind {
                        StoreErrorKind::Malformed => Unavailable::Malformed,
                        StoreErrorKind::Timeout => Unavailable::Timeout,
                        StoreErrorKind::Unreachable | StoreErrorKind::Refused | StoreErrorKind::Cursor => {
                            Unavailable::Store
                        }
                    });
                }
            };
            if tightest.is_none_or(|known| !quota.allowed || quota.remaining < known.remaining) {
                tightest = Some(quota);
            }
            if !quota.allowed {
                break;
            }
        }
        tightest.map_or(Fact::Absent, |quota| Fact::known(quota, facts.now))
    }
}

impl Source for Counters {
    fn collect(&self, page: &mut Page) {
        const NAME: &str = "countersign_quota";
        const HELP: &str = "Tokens asked of rate limits, by outcome";
        for (outcome, counter) in
            [("taken", &self.taken), ("refused", &self.refused), ("unavailable", &self.unavailable)]
        {
            page.counter(NAME, HELP, &[("outcome", outcome)], counter);
        }
    }
}

fn quota(limit: &RateLimit, taken: Taken) -> Quota {
    Quota {
        allowed: taken.allowed,
        limit: limit.limit,
        remaining: taken.remaining,
        retry_after: whole_seconds(taken.retry_after),
        reset: whole_seconds(taken.reset),
    }
}

fn whole_seconds(span: Duration) -> u32 {
    let up = u64::from(span.subsec_nanos() > 0);
    u32::try_from(span.as_secs() + up).unwrap_or(u32::MAX)
}

/// `cs:rate:<policy>:<digest>`: who is counted stays unreadable in the store.
fn key(policy: &str, limit: &RateLimit, facts: &Facts) -> String {
    let identity = facts.identity();
    let (scope, whose) = match &limit.scope {
        RateScope::User => ("user", identity.map(|identity| identity.subject.to_string())),
        RateScope::ApiScope(scope) => (&**scope, identity.map(|identity| identity.subject.to_string())),
        RateScope::Session => ("session", identity.map(|identity| identity.session.to_string())),
        // An id that nobody registered is whatever the caller makes up: then the person is counted.
        RateScope::Device => match facts.device.value().filter(|device| device.record.is_some()) {
            Some(device) => ("device", Some(device.id.to_string())),
            None => ("no device", identity.map(|identity| identity.subject.to_string())),
        },
        RateScope::Client => ("client", identity.and_then(|identity| identity.client_id.as_deref()).map(str::to_owned)),
        RateScope::Ip => ("ip", facts.request.client.map(|address| address.to_string())),
        RateScope::Global => ("global", None),
    };
    let anywhere = matches!(limit.scope, RateScope::Ip | RateScope::Global);
    let issuer = identity.filter(|_| !anywhere).map(|identity| identity.issuer.as_str());
    let mut digest = Context::new(&SHA256);
    // Each part with its length before it, and "nobody" apart from an empty name.
    for part in [Some(scope), issuer, whose.as_deref()] {
        digest.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        digest.update(part.unwrap_or_default().as_bytes());
    }
    digest.update(&limit.limit.to_be_bytes());
    digest.update(&limit.window.as_millis().to_be_bytes());
    format!("cs:rate:{policy}:{}", hex::encode(&digest.finish().as_ref()[..16]))
}
