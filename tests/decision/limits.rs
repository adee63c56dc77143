//! Rate limits of several scopes and of several policies: each is counted apart, and who is refused uses up nothing.

use std::{sync::Arc, time::Duration};

use countersign::{
    decision::{QuotaWanted, decide},
    domain::*,
    policy::{
        RateLimit, RateScope, RuleSet,
        model::{Policy, Resource},
    },
    quota::Quotas,
    store::memory::Memory,
};
use tokio::time::Instant;

use crate::world::*;

fn limit(scope: RateScope, limit: u32) -> RateLimit {
    RateLimit { scope, limit, window: Duration::from_secs(60) }
}

fn limited(id: &str, limits: Vec<RateLimit>) -> Policy {
    Policy { rate_limits: limits.into(), ..Policy::new(id) }
}

fn wanted(facts: &Facts, set: &RuleSet) -> QuotaWanted {
    decide(facts, &fixed(set.clone())).quota.unwrap()
}

fn quotas() -> Arc<Quotas> {
    Quotas::new(Arc::new(Memory::new(|| NOW)))
}

async fn take(quotas: &Quotas, facts: &Facts, wanted: &QuotaWanted) -> Quota {
    let deadline = Instant::now() + Duration::from_secs(5);
    *quotas.take(wanted, facts, deadline).await.value().unwrap()
}

fn in_session(id: &str) -> Facts {
    let mut facts = facts("GET", "/x");
    with_identity(&mut facts, |identity| identity.session = id.into());
    facts
}

#[tokio::test]
async fn who_is_refused_by_one_limit_uses_up_no_other() {
    for order in [[0, 1], [1, 0]] {
        let limits = [limit(RateScope::User, 10), limit(RateScope::Session, 2)];
        let set = bound(limited("p", order.map(|i| limits[i].clone()).to_vec()));
        let (quotas, one) = (quotas(), in_session("one"));
        let wanted = wanted(&one, &set);
        let mut allowed = 0;
        for _ in 0..14 {
            allowed += u32::from(take(&quotas, &one, &wanted).await.allowed);
        }
        assert_eq!(allowed, 2, "{order:?}");
        // Eight are left to the person, two for each session.
        for id in ["two", "three", "four", "five"] {
            for turn in 0..3 {
                let quota = take(&quotas, &in_session(id), &wanted).await;
                assert_eq!(quota.allowed, turn < 2, "{order:?}, {id}, {turn}: {quota:?}");
            }
        }
        let last = take(&quotas, &in_session("six"), &wanted).await;
        assert!(!last.allowed && last.retry_after > 0 && last.limit == 10, "{last:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_gets_no_more_than_the_limits_allow() {
    let set = bound(limited("p", vec![limit(RateScope::User, 50), limit(RateScope::Session, 20)]));
    let (quotas, one) = (quotas(), in_session("one"));
    let wanted = wanted(&one, &set);
    let crowd = (0..200).map(|_| {
        let (quotas, one, wanted) = (Arc::clone(&quotas), one.clone(), wanted.clone());
        tokio::spawn(async move { take(&quotas, &one, &wanted).await.allowed })
    });
    let mut allowed = 0;
    for one in crowd.collect::<Vec<_>>() {
        allowed += u32::from(one.await.unwrap());
    }
    assert_eq!(allowed, 20);
}

#[tokio::test]
async fn each_policy_counts_its_own_limits() {
    let mut set = bound(limited("a", vec![limit(RateScope::User, 2)]));
    set.policies.push(limited("b", vec![limit(RateScope::User, 2)]));
    set.resources.push(Resource { policy: Some("b".into()), ..Resource::new("y", "/y") });
    let quotas = quotas();
    let by_both = || {
        let mut both = facts("GET", "/x");
        both.request.extensions.policy = Some("b".into());
        both
    };
    let (both, alone) = (wanted(&by_both(), &set), wanted(&facts("GET", "/y"), &set));
    let names: Vec<_> = both.iter().map(|one| one.policy.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(take(&quotas, &by_both(), &both).await.allowed);
    let second = take(&quotas, &by_both(), &both).await;
    assert!(second.allowed && second.remaining == 0, "one token of each, not two of one: {second:?}");
    // What was counted under `b` counts where `b` alone is asked, too.
    assert!(!take(&quotas, &facts("GET", "/y"), &alone).await.allowed);
}
