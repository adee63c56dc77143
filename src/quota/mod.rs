//! Rate limits of policies: one token from each limit, taken last, and only when a dry decision would allow.
//!
//! The store counts, so that replicas count together (generic cell rate algorithm, one atomic step a limit). What
//! cannot be counted is `Unavailable`, never "allowed".

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::{
    decision::{PolicyLimits, QuotaWanted},
    domain::{
        Fact, Facts, Quota, Unavailable,
        metric::{Counter, Page, Source},
    },
    policy::{RateLimit, RateScope},
    store::{Rate, Store, StoreError, Taken},
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

    /// Takes one token from each of the wanted limits; stops at the first that is used up, and looks for that one first.
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

    /// What [`Self::take`] would come to now. Takes and counts nothing.
    pub async fn look(&self, wanted: &QuotaWanted, facts: &Facts, deadline: Instant) -> Fact<Quota> {
        let look = async {
            let mut tightest: Option<Quota> = None;
            for limit in counted(wanted, facts) {
                let taken = self.store.take(&limit.key, limit.rate, 0).await?;
                let quota = Quota { allowed: taken.remaining > 0, ..quota(limit.rate, taken) };
                if tightest.is_none_or(|known| quota.remaining < known.remaining) {
                    tightest = Some(quota);
                }
            }
            Ok(tightest)
        };
        match tokio::time::timeout_at(deadline, look).await {
            Ok(Ok(tightest)) => tightest.map_or(Fact::Absent, |quota| Fact::known(quota, facts.now)),
            Ok(Err(error)) => uncounted(&error),
            Err(_) => Fact::Unavailable(Unavailable::Timeout),
        }
    }

    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    async fn take_all(&self, wanted: &QuotaWanted, facts: &Facts) -> Fact<Quota> {
        let taken = async {
            let mut tightest: Option<Quota> = None;
            for limit in self.emptiest_first(counted(wanted, facts)).await? {
                let taken = self.store.take(&limit.key, limit.rate, 1).await?;
                let quota = quota(limit.rate, taken);
                if tightest.is_none_or(|known| !quota.allowed || quota.remaining < known.remaining) {
                    tightest = Some(quota);
                }
                if !quota.allowed {
                    break;
                }
            }
            Ok(tightest)
        };
        match taken.await {
            Ok(tightest) => tightest.map_or(Fact::Absent, |quota| Fact::known(quota, facts.now)),
            Err(error) => uncounted(&error),
        }
    }

    /// The limits in the order of what is left of each. One that is used up then refuses before anything is taken from
    /// another: a request that is not let through uses up nothing. Only where two requests race for the last token may
    /// one of them be refused after it took from a fuller limit; more than a limit allows is never let through.
    async fn emptiest_first(&self, mut limits: Vec<Counted>) -> Result<Vec<Counted>, StoreError> {
        if limits.len() > 1 {
            let looks = limits.iter().map(|limit| self.store.take(&limit.key, limit.rate, 0));
            let left = try_join_all(looks).await?;
            for (limit, left) in limits.iter_mut().zip(left) {
                limit.left = left.remaining;
            }
            limits.sort_by_key(|limit| limit.left);
        }
        Ok(limits)
    }
}

/// A limit as the store counts it.
#[derive(Debug)]
struct Counted {
    key: String,
    rate: Rate,
    /// What a look found, where there was one.
    left: u32,
}

fn counted(wanted: &QuotaWanted, facts: &Facts) -> Vec<Counted> {
    let of = |policy: &PolicyLimits| {
        let count = |limit: &RateLimit| Counted {
            key: key(policy.policy.as_str(), limit, facts),
            rate: Rate { limit: limit.limit, window: limit.window },
            left: 0,
        };
        policy.limits.iter().map(count).collect::<Vec<_>>()
    };
    wanted.iter().flat_map(of).collect()
}

fn uncounted(error: &StoreError) -> Fact<Quota> {
    tracing::debug!(%error, "a rate limit could not be counted");
    Fact::Unavailable(error.unavailable())
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

fn quota(rate: Rate, taken: Taken) -> Quota {
    Quota {
        allowed: taken.allowed,
        limit: rate.limit,
        remaining: taken.remaining,
        retry_after: whole_seconds(taken.retry_after),
        reset: whole_seconds(taken.reset),
    }
}

fn whole_seconds(span: Duration) -> u32 {
    let up = u64::from(span.subsec_nanos() > 0);
    u32::try_from(span.as_secs() + up).unwrap_or(u32::MAX)
}

/// What one line has: an IPv4 address, the /64 of an IPv6 address. (Where somebody usually is, which sessions and the risk model
/// ask, is a /48: a site, or all that a provider gives one customer. Counted together they would pay for one another.)
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
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
        // Those who name no client are not one client.
        RateScope::Client => match identity.and_then(|identity| identity.client_id.as_deref()) {
            Some(client) => ("client", Some(client.to_owned())),
            None => ("no client", identity.map(|identity| identity.subject.to_string())),
        },
        RateScope::Ip => ("ip", facts.request.client.map(|address| neighbourhood(address).to_string())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_counted_with_its_64() {
        let of = |text: &str| neighbourhood(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:3:3:4:5:6"), "2001:db8:1:3::");
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
    }
}
