//! Rows C2, C3, C5, C7, C8 and C10, overload, and what is remembered of a token.

use std::sync::Arc;

use countersign::{
    domain::{CredentialProblem, Unavailable, UnixTime},
    identity::{Credentials, Detail, HeaderValues},
};
use serde_json::json;
use tokio::time::Instant;

use crate::rig::{NOW, Outcome, RSA, Rig, outcome};

const EXPIRED: Outcome = Outcome::Refused(CredentialProblem::Expired, Detail::Expired);
const EARLY: Outcome = Outcome::Refused(CredentialProblem::NotYetValid, Detail::NotYetValid);

#[tokio::test(flavor = "multi_thread")]
async fn c02_a_token_that_expires_while_it_is_remembered_is_refused() {
    let rig = Rig::new().await;
    let token = rig.token();
    assert!(rig.bearer(&token).await.is_allowed());
    rig.clock.set(UnixTime::from_secs(NOW + 629));
    assert!(rig.bearer(&token).await.is_allowed(), "within the leeway");
    rig.clock.set(UnixTime::from_secs(NOW + 630));
    assert_eq!(rig.bearer(&token).await, EXPIRED);
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_steps_of_the_clock_let_nothing_expired_through_and_break_nothing() {
    let rig = Rig::new().await;
    let token = rig.token();
    for (seconds, expected) in [
        (NOW, None),
        (NOW + 86_400, Some(EXPIRED)),
        (NOW, None),
        (NOW - 3_600, Some(EARLY)),
        (NOW, None),
        (0, Some(EARLY)),
        (1, Some(EARLY)),
        (u64::MAX / 1000, Some(EXPIRED)),
        (NOW + 3_600, Some(EXPIRED)),
        (NOW, None),
    ] {
        rig.clock.set(UnixTime::from_secs(seconds));
        let outcome = rig.bearer(&token).await;
        match expected {
            None => assert!(outcome.is_allowed(), "{seconds}: {outcome:?}"),
            // A clock that has jumped far ahead also makes the keys too old to verify with.
            Some(expected) => {
                let too_old = outcome.detail() == Some(Detail::KeysTooOld);
                assert!(outcome == expected || too_old, "{seconds}: {outcome:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c03_t15_while_the_clock_jumps_under_load_nothing_is_allowed_outside_its_time() {
    let rig = Arc::new(Rig::with(|settings| settings.queue = 4096).await);
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut askers = Vec::new();
    for worker in 0..6 {
        let (rig, ended) = (rig.clone(), ended.clone());
        askers.push(tokio::spawn(async move {
            let (mut allowed, mut refused) = (0, 0);
            for i in 0.. {
                if ended.load(std::sync::atomic::Ordering::Acquire) {
                    break;
                }
                // Some known, some new; an hour of life, so that every step takes it out of its time.
                let id = json!({ "jti": format!("t-{worker}-{}", i % 40), "iat": NOW, "exp": NOW + 3600 });
                let value = format!("Bearer {}", rig.token_with(id));
                let now = rig.clock.now();
                let deadline = Instant::now() + std::time::Duration::from_secs(30);
                let outcome = outcome(&rig.authenticator.authenticate(&bearer(&value), now, deadline).await);
                let seconds = now.as_secs();
                let in_time = seconds + 30 >= NOW && seconds < NOW + 3630;
                if outcome.is_allowed() {
                    assert!(in_time, "allowed at {seconds}");
                    allowed += 1;
                } else {
                    let keys = outcome.detail() == Some(Detail::KeysTooOld);
                    assert!(!in_time || keys, "refused at {seconds}: {outcome:?}");
                    refused += 1;
                }
            }
            (allowed, refused)
        }));
    }
    let steps: [i64; 10] = [0, 3_600, -3_600, 0, 86_400, -86_400, 1_800, 3_631, -31, 0];
    for step in steps.iter().cycle().take(300) {
        rig.clock.set(UnixTime::from_secs(NOW.saturating_add_signed(*step)));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    ended.store(true, std::sync::atomic::Ordering::Release);
    let (mut allowed, mut refused) = (0, 0);
    for asker in askers {
        let (good, bad) = asker.await.unwrap();
        (allowed, refused) = (allowed + good, refused + bad);
    }
    assert!(allowed > 100 && refused > 100, "{allowed} allowed, {refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn c05_tokens_that_begin_alike_or_share_an_id_are_never_confused() {
    let rig = Rig::new().await;
    let mut tokens = Vec::new();
    for i in 0..200 {
        tokens.push((format!("user-{i}"), rig.token_with(json!({ "sub": format!("user-{i}"), "jti": "same" }))));
    }
    for _ in 0..2 {
        for (subject, token) in &tokens {
            assert_eq!(rig.identity(token).await.subject.as_str(), subject);
            assert!(rig.bearer(&token[..token.len() - 1]).await.is_refused());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c07_garbage_displaces_no_good_token() {
    let rig = Rig::with(|settings| {
        settings.cache.size_mib = 1;
        settings.cache.refused = 100;
    })
    .await;
    let good: Vec<_> = (0..50).map(|i| rig.token_with(json!({ "jti": format!("g-{i}") }))).collect();
    for token in &good {
        assert!(rig.bearer(token).await.is_allowed());
    }
    let cut = |token: &str, i: usize| format!("{}{i:04}", &token[..token.len() - 4]);
    for i in 0..5_000 {
        assert!(rig.bearer(&cut(&good[i % 50], i)).await.is_refused());
    }
    let before = rig.authenticator.counters().verified.get();
    for token in &good {
        assert!(rig.bearer(token).await.is_allowed());
    }
    assert_eq!(rig.authenticator.counters().verified.get(), before, "all were still remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_the_memory_of_tokens_is_bounded_in_octets() {
    let rig = Rig::with(|settings| settings.cache.size_mib = 1).await;
    for i in 0..2_000 {
        assert!(rig.bearer(&rig.token_with(json!({ "jti": format!("t-{i}") }))).await.is_allowed());
    }
    let mut page = countersign::domain::metric::Page::default();
    countersign::domain::metric::Source::collect(&*rig.authenticator, &mut page);
    let held = page.families().iter().find(|family| family.name == "countersign_token_cache_bytes").unwrap();
    let countersign::domain::metric::Value::Gauge(octets) = held.samples[0].value else { panic!("a gauge") };
    assert!(octets > 100_000.0 && octets <= 1.1 * 1024.0 * 1024.0, "{octets}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_a_caller_that_goes_away_leaves_nobody_waiting() {
    let rig = Arc::new(Rig::new().await);
    for i in 0..50 {
        let token = rig.token_with(json!({ "jti": format!("t-{i}") }));
        let (leader, follower) = (rig.clone(), rig.clone());
        let (first, second) = (token.clone(), token);
        let leader = tokio::spawn(async move { leader.bearer(&first).await });
        tokio::task::yield_now().await;
        leader.abort();
        assert!(follower.bearer(&second).await.is_allowed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_that_many_requests_bring_at_once_is_verified_once() {
    let rig = Arc::new(Rig::new().await);
    let token = RSA.token(&rig.claims()).unwrap();
    let asked: Vec<_> = (0..200)
        .map(|_| {
            let (rig, token) = (rig.clone(), token.clone());
            tokio::spawn(async move { rig.authenticate(&bearer(&format!("Bearer {token}"))).await.entry.unwrap() })
        })
        .collect();
    let mut entries = Vec::new();
    for task in asked {
        entries.push(task.await.unwrap());
    }
    assert!(entries.iter().all(|entry| Arc::ptr_eq(entry, &entries[0])), "all share one entry");
}

fn bearer(value: &str) -> Credentials<'_> {
    Credentials { authorization: HeaderValues::one(value.as_bytes()), ..Credentials::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn d06_a_full_queue_is_overload_never_a_bad_token() {
    let rig = Arc::new(
        Rig::with(|settings| {
            settings.verifiers = 1;
            settings.queue = 1;
        })
        .await,
    );
    let asked: Vec<_> = (0..300)
        .map(|i| {
            let rig = rig.clone();
            let token = rig.token_with(json!({ "jti": format!("t-{i}") }));
            tokio::spawn(async move { rig.bearer(&token).await })
        })
        .collect();
    let mut overloaded = 0;
    for task in asked {
        match task.await.unwrap() {
            Outcome::Unavailable(Unavailable::Overloaded) => overloaded += 1,
            outcome => assert!(outcome.is_allowed(), "{outcome:?}"),
        }
    }
    assert!(overloaded > 0, "the queue of one was full at times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_has_passed_is_a_timeout_and_a_remembered_token_needs_no_time() {
    let rig = Rig::new().await;
    let value = format!("Bearer {}", rig.token());
    let ask = || async {
        let answer = rig.authenticator.authenticate(&bearer(&value), rig.clock.now(), Instant::now()).await;
        outcome(&answer)
    };
    assert_eq!(ask().await, Outcome::Unavailable(Unavailable::Timeout));
    assert!(rig.ask(&bearer(&value)).await.is_allowed());
    assert!(ask().await.is_allowed(), "warm, it never waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_not_verified_again_and_again() {
    let rig = Rig::new().await;
    let token = rig.token();
    let bad = format!("{}AAAA", &token[..token.len() - 4]);
    for _ in 0..10 {
        assert_eq!(rig.bearer(&bad).await.detail(), Some(Detail::BadSignature));
    }
    assert_eq!(rig.authenticator.counters().refused_again.get(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_not_valid_yet_is_valid_from_its_time_on() {
    let rig = Rig::new().await;
    let token = rig.token_with(json!({ "nbf": NOW + 31 }));
    assert_eq!(rig.bearer(&token).await, EARLY);
    rig.clock.advance(std::time::Duration::from_secs(1));
    assert!(rig.bearer(&token).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_says_what_the_token_says_and_no_more() {
    let rig = Rig::with(|settings| {
        let issuer = &mut settings.issuers[0];
        issuer.roles = vec!["clerk".into(), "partner-*".into()];
        issuer.claims.roles = "realm_access.roles".into();
        issuer.attributes = vec!["department".into(), "absent".into()];
    })
    .await;
    let token = rig.token_with(json!({
        "realm_access": { "roles": ["clerk", "admin", "partner-a", "*", "partner-*", "partner-\u{202e}"] },
        "permissions": ["orders:read"], "scope": "openid orders", "department": "sales", "auth_time": NOW - 60,
        "client_id": "web", "acr": "phrh",
    }));
    let identity = rig.identity(&token).await;
    let roles: Vec<_> = identity.roles.iter().map(ToString::to_string).collect();
    assert_eq!(roles, ["clerk", "partner-a"]);
    assert!(identity.permissions.is_empty(), "an issuer with limited roles asserts no permissions unless told so");
    assert_eq!(identity.scopes.iter().map(|scope| &**scope).collect::<Vec<_>>(), ["openid", "orders"]);
    assert_eq!(identity.attributes.len(), 1);
    assert_eq!(identity.auth_time, Some(UnixTime::from_secs(NOW - 60)));
    assert!(identity.methods.contains(countersign::domain::AuthMethod::HardwareKey));
    assert_eq!(identity.kind, countersign::domain::SubjectKind::Person);
    assert_eq!(&*identity.audience, crate::rig::AUDIENCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_of_authentication_is_a_number_or_refuses_the_token() {
    let rig = Rig::new().await;
    for (i, odd) in
        [json!("1700000000"), json!([1]), json!(-5), json!(1e30), json!(null), json!(true)].iter().enumerate()
    {
        let claims = json!({ "jti": format!("odd-{i}"), "auth_time": odd });
        // `null` takes a claim out of this rig's tokens.
        let refused = rig.bearer(&rig.token_with(claims)).await.detail() == Some(Detail::Claim);
        assert_eq!(refused, !odd.is_null(), "{odd}");
    }
    let service = rig.identity(&rig.token_with(json!({ "jti": "0", "auth_time": 0 }))).await;
    assert_eq!(service.auth_time, None, "nobody authenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_authenticated_later_than_now() {
    let rig = Rig::new().await;
    let ahead = |jti: &str| json!({ "sid": null, "jti": jti, "auth_time": NOW + 20 });
    let identity = rig.identity(&rig.token_with(ahead("1"))).await;
    assert_eq!(
        identity.auth_time,
        Some(UnixTime::from_secs(NOW)),
        "an issuer's clock that is ahead by less than the leeway"
    );
    let far = rig.identity(&rig.token_with(json!({ "jti": "2", "auth_time": NOW + 4000 }))).await;
    assert_eq!(far.auth_time, None);
    rig.clock.advance(std::time::Duration::from_secs(3));
    let later = rig.identity(&rig.token_with(ahead("3"))).await;
    assert_eq!(later.session, identity.session, "one login, one session");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_of_any_other_shape_are_no_roles() {
    let rig = Rig::new().await;
    for (i, roles) in [
        json!("admin"),
        json!("admin,clerk"),
        json!({ "admin": true }),
        json!(["admin", 1]),
        json!([["admin"]]),
        json!(1),
    ]
    .into_iter()
    .enumerate()
    {
        let token = rig.token_with(json!({ "jti": format!("t-{i}"), "roles": roles }));
        assert!(rig.identity(&token).await.roles.is_empty(), "{roles}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_told_by_its_client_id_or_a_rule_and_a_session_without_sid_is_stable() {
    let rig = Rig::with(|settings| {
        let rule = json!({ "claim": "gty", "value": "client-*" });
        settings.issuers[0].services = vec![serde_json::from_value(rule).unwrap()];
    })
    .await;
    let kind = async |changes| rig.identity(&rig.token_with(changes)).await.kind;
    use countersign::domain::SubjectKind::{Person, Service};
    assert_eq!(kind(json!({ "client_id": "alice" })).await, Service);
    assert_eq!(kind(json!({ "azp": "alice" })).await, Service);
    assert_eq!(kind(json!({ "azp": "web" })).await, Person);
    assert_eq!(kind(json!({ "gty": "client-credentials" })).await, Service);
    let session = async |changes| rig.identity(&rig.token_with(changes)).await.session.to_string();
    let one = session(json!({ "sid": null, "jti": "1", "auth_time": NOW - 5 })).await;
    assert_eq!(one, session(json!({ "sid": null, "jti": "2", "auth_time": NOW - 5 })).await);
    assert_ne!(one, session(json!({ "sid": null, "jti": "3", "auth_time": NOW - 6 })).await);
    assert_ne!(one, session(json!({ "sid": null, "jti": "4", "auth_time": NOW - 5, "sub": "bob" })).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_id_claim_the_hash_of_the_token_is_its_id() {
    let rig = Rig::with(|settings| settings.issuers[0].claims.token_id = String::new()).await;
    let token = RSA.token(&crate::rig::changed(rig.claims(), json!({ "jti": null }))).unwrap();
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    assert_eq!(rig.identity(&token).await.token_id.as_str(), hex::encode(sum));
}
