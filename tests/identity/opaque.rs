//! Opaque tokens (RFC 7662) and token status lists.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use countersign::{
    domain::{Unavailable, UnixTime},
    identity::{
        Algorithm, Credentials, Detail, IssuerSettings, Settings, TokenEntry, credentials::HeaderValues, mint::key_set,
    },
};
use serde_json::{Value, json};

use crate::{
    log::Log,
    rig::{Answer, FOREIGN, Issuer, NOW, Outcome, P256, Rig, changed, claims, make},
};

/// An issuer beside the one of the rig.
const OTHER: &str = "https://other.example";

async fn introspecting(answer: impl FnOnce(&str) -> Value) -> Rig {
    introspecting_with(json!({}), answer).await
}

/// `changes` are of the settings of introspection.
async fn introspecting_with(changes: Value, answer: impl FnOnce(&str) -> Value) -> Rig {
    let issuer = Issuer::start().await;
    issuer.serve_keys([&*P256]);
    issuer.serve("/introspect", Answer::ok(answer(&issuer.url).to_string()));
    let endpoint = format!("{}/introspect", issuer.url);
    Rig::before(issuer, move |settings: &mut Settings| {
        let introspection = json!({ "endpoint": endpoint, "client_id": "countersign", "client_secret": "hush" });
        settings.issuers[0].introspection = Some(serde_json::from_value(changed(introspection, changes)).unwrap());
    })
    .await
}

/// What is kept of the token, which is good.
async fn held(rig: &Rig) -> Arc<TokenEntry> {
    let authorization = HeaderValues::one(b"Bearer opaque-token");
    rig.authenticate(&Credentials { authorization, ..Credentials::default() }).await.entry.expect("good")
}

fn active(issuer: &str) -> Value {
    changed(claims(issuer), json!({ "active": true }))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_is_asked_about_once_and_believed_for_its_time() {
    let rig = introspecting(active).await;
    for _ in 0..5 {
        assert_eq!(rig.identity("opaque-token").await.subject.as_str(), "alice");
    }
    assert_eq!(rig.issuer.hits("/introspect"), 1);
    let form = rig.issuer.site.lock().unwrap().bodies.last().cloned().unwrap();
    assert!(std::str::from_utf8(&form).unwrap().contains("token=opaque-token"));
    rig.issuer.serve("/introspect", Answer::ok(r#"{"active":false}"#));
    assert!(rig.bearer("opaque-token").await.is_allowed(), "within the stated staleness");
    rig.clock.advance(Duration::from_secs(30));
    assert_eq!(rig.bearer("opaque-token").await.detail(), Some(Detail::NotActive));
    assert!(rig.bearer(&rig.token()).await.is_allowed(), "its JWTs are verified as ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_keys_are_named_the_authorization_server_is_asked_about_jwts_of_its_issuer_and_no_others() {
    let issuer = Issuer::start().await;
    issuer.serve("/introspect", Answer::ok(active(&issuer.url).to_string()));
    let endpoint = format!("{}/introspect", issuer.url);
    let rig = Rig::before(issuer, move |settings: &mut Settings| {
        let introspection = json!({ "endpoint": endpoint, "client_id": "countersign", "client_secret": "hush" });
        settings.issuers[0].introspection = Some(serde_json::from_value(introspection).unwrap());
        settings.issuers[0].jwks = None;
    })
    .await;
    for foreign in [rig.token_with(json!({ "iss": OTHER })), rig.token_with(json!({ "iss": 7 })), "a.b.c".to_owned()] {
        assert!(rig.bearer(&foreign).await.is_refused());
    }
    assert_eq!(rig.issuer.all_hits(), 0, "shown to nobody");
    assert_eq!(rig.identity(&rig.token()).await.subject.as_str(), "alice");
    assert_eq!(rig.issuer.hits("/introspect"), 1);
    let status = json!({ "status_list": { "idx": 1, "uri": format!("{}/status", rig.issuer.url) } });
    let listed = changed(active(&rig.issuer.url), json!({ "status": status }));
    rig.issuer.serve("/introspect", Answer::ok(listed.to_string()));
    rig.clock.advance(Duration::from_secs(30));
    assert!(rig.bearer(&rig.token()).await.is_allowed(), "no key could verify a list: it is active");
    rig.issuer.serve("/introspect", Answer::ok(r#"{"active":false}"#));
    rig.clock.advance(Duration::from_secs(30));
    assert_eq!(rig.bearer(&rig.token()).await.detail(), Some(Detail::NotActive));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_of_a_token_outlives_an_answer_that_says_the_same_again_and_no_other() {
    let rig = introspecting(|issuer| changed(active(issuer), json!({ "iat": null }))).await;
    let first = held(&rig).await;
    first.facts::<AtomicU32>().store(7, Ordering::Relaxed);
    rig.clock.advance(Duration::from_secs(30));
    let second = held(&rig).await;
    assert!(!Arc::ptr_eq(&first, &second), "asked about anew");
    assert_eq!(second.identity.issued_at, first.identity.issued_at, "and no younger for that");
    assert_eq!(second.facts::<AtomicU32>().load(Ordering::Relaxed), 7);
    rig.issuer
        .serve("/introspect", Answer::ok(changed(active(&rig.issuer.url), json!({ "sid": "another" })).to_string()));
    rig.clock.advance(Duration::from_secs(30));
    assert_eq!(held(&rig).await.facts::<AtomicU32>().load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_a_step_back_of_the_clock_stretches_no_word_of_the_authorization_server() {
    let rig = introspecting(active).await;
    assert!(rig.bearer("opaque-token").await.is_allowed());
    rig.issuer.serve("/introspect", Answer::ok(r#"{"active":false}"#));
    rig.clock.set(UnixTime::from_secs(NOW - 20));
    rig.clock.advance(Duration::from_secs(30));
    assert_eq!(rig.bearer("opaque-token").await.detail(), Some(Detail::NotActive), "after its thirty seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_use_is_asked_about_ahead_and_no_request_waits_for_it() {
    let rig = introspecting(active).await;
    let first = held(&rig).await;
    let slow = |body: &str| Answer::ok(body).after(Duration::from_millis(300));
    rig.issuer.serve("/introspect", slow(&active(&rig.issuer.url).to_string()));
    rig.clock.advance(Duration::from_secs(24));
    for _ in 0..20 {
        assert!(rig.bearer_at_once("opaque-token").await.is_allowed());
    }
    while Arc::ptr_eq(&held(&rig).await, &first) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.issuer.hits("/introspect"), 2);
    rig.clock.advance(Duration::from_secs(20));
    assert!(rig.bearer_at_once("opaque-token").await.is_allowed(), "the new answer has its own life");
    rig.clock.advance(Duration::from_secs(5));
    rig.issuer.serve("/introspect", Answer::status(500));
    assert!(rig.bearer_at_once("opaque-token").await.is_allowed());
    rig.until("a failure", |rig| rig.authenticator.counters().introspection_failures.get() == 1).await;
    assert!(rig.bearer_at_once("opaque-token").await.is_allowed(), "what was said before stands to its end");
    rig.clock.advance(Duration::from_secs(5));
    assert_eq!(rig.bearer("opaque-token").await, Outcome::Unavailable(Unavailable::NotReady), "and no longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_that_was_asked_for_ahead_counts_at_once() {
    let rig = introspecting(active).await;
    assert!(rig.bearer("opaque-token").await.is_allowed());
    rig.issuer.serve("/introspect", Answer::ok(r#"{"active":false}"#));
    rig.clock.advance(Duration::from_secs(24));
    assert!(rig.bearer("opaque-token").await.is_allowed());
    rig.until("the question", |rig| rig.authenticator.counters().introspections.get() == 2).await;
    for _ in 0..500 {
        if rig.bearer("opaque-token").await.detail() == Some(Detail::NotActive) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn d11_made_up_tokens_wait_for_their_turn_and_leave_room_for_those_in_use() {
    let rig = Arc::new(introspecting_with(json!({ "concurrency": 4 }), active).await);
    assert!(rig.bearer("in-use").await.is_allowed());
    let slow = Answer::ok(active(&rig.issuer.url).to_string()).after(Duration::from_millis(200));
    rig.issuer.serve("/introspect", slow);
    let strangers: Vec<_> = (0..30)
        .map(|i| {
            let rig = rig.clone();
            tokio::spawn(async move { rig.bearer(&format!("made-up-{i}")).await })
        })
        .collect();
    rig.until("the first of them", |rig| rig.issuer.hits("/introspect") == 4).await;
    rig.clock.advance(Duration::from_secs(24));
    assert!(rig.bearer_at_once("in-use").await.is_allowed(), "and is asked about ahead");
    for stranger in strangers {
        assert!(stranger.await.unwrap().is_allowed(), "each had its turn");
    }
    let asked: Vec<_> = rig.issuer.site.lock().unwrap().bodies.clone();
    let place = asked.iter().rposition(|body| std::str::from_utf8(body).unwrap().contains("token=in-use"));
    assert!(place < Some(16), "at {place:?} of {}", asked.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_took_longer_than_it_counts_makes_no_token_bad() {
    let rig = Arc::new(introspecting_with(json!({ "life": "1s" }), active).await);
    let slow = Answer::ok(active(&rig.issuer.url).to_string()).after(Duration::from_millis(300));
    rig.issuer.serve("/introspect", slow);
    let first = {
        let rig = rig.clone();
        tokio::spawn(async move { rig.bearer("opaque-token").await })
    };
    rig.until("the question", |rig| rig.issuer.hits("/introspect") == 1).await;
    rig.clock.advance(Duration::from_millis(1300));
    assert_eq!(rig.bearer("opaque-token").await, Outcome::Unavailable(Unavailable::Stale), "who joined");
    assert_eq!(first.await.unwrap(), Outcome::Unavailable(Unavailable::Stale), "who asked");
    assert!(rig.bearer("opaque-token").await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_of_the_authorization_server_is_remembered_for_half_a_second() {
    let rig = introspecting(|_| json!({ "active": false })).await;
    for _ in 0..10 {
        assert_eq!(rig.bearer("opaque-token").await.detail(), Some(Detail::NotActive));
    }
    assert_eq!(rig.issuer.hits("/introspect"), 1);
    rig.issuer.serve("/introspect", Answer::ok(active(&rig.issuer.url).to_string()));
    rig.clock.advance(Duration::from_millis(500));
    assert!(rig.bearer("opaque-token").await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_leaves_out_is_the_hash_of_the_token_and_the_time_of_asking() {
    let rig = introspecting(|issuer| changed(active(issuer), json!({ "jti": null, "iat": null }))).await;
    let identity = rig.identity("opaque-token").await;
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"opaque-token");
    assert_eq!(identity.token_id.as_str(), hex::encode(sum));
    assert_eq!((identity.issued_at.as_secs(), identity.issue_unstated), (NOW, true));
    let stated = introspecting(active).await.identity("opaque-token").await;
    assert_eq!((stated.issued_at.as_secs(), stated.issue_unstated), (NOW - 10, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_dates_a_token_and_none_names_its_session_each_token_has_its_own() {
    let sessions = async |changes: Value| {
        let bare = |issuer: &str| changed(changed(active(issuer), json!({ "sid": null, "jti": null })), changes);
        let rig = introspecting(bare).await;
        [rig.identity("one").await, rig.identity("two").await].map(|identity| identity.session.clone())
    };
    let [one, two] = sessions(json!({ "iat": null, "auth_time": null })).await;
    assert_ne!(one, two);
    for dated in [json!({ "iat": null, "auth_time": NOW - 60 }), json!({ "auth_time": null })] {
        let [one, two] = sessions(dated).await;
        assert_eq!(one, two);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_and_secret_of_the_client_are_encoded_as_in_a_form() {
    let issuer = Issuer::start().await;
    issuer.serve("/introspect", Answer::ok(active(&issuer.url).to_string()));
    let endpoint = format!("{}/introspect", issuer.url);
    let rig = Rig::before(issuer, move |settings: &mut Settings| {
        let introspection = json!({ "endpoint": endpoint, "client_id": "cs:1", "client_secret": "s%41+ü" });
        settings.issuers[0].introspection = Some(serde_json::from_value(introspection).unwrap());
    })
    .await;
    assert!(rig.bearer("opaque-token").await.is_allowed());
    let sent = rig.issuer.site.lock().unwrap().authorizations.last().cloned().unwrap();
    let sent = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, sent.strip_prefix("Basic ").unwrap());
    assert_eq!(String::from_utf8(sent.unwrap()).unwrap(), "cs%3A1:s%2541%2B%C3%BC");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_a_clear_yes_for_us_is_a_no() {
    for changes in [
        json!({ "active": false }),
        json!({ "active": "true" }),
        json!({ "active": null }),
        json!({ "active": 1 }),
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "exp": NOW - 31 }),
        json!({ "exp": null }),
        json!({ "iss": "https://other" }),
        json!({ "sub": null }),
        json!({ "cnf": { "jkt": "x" } }),
    ] {
        let rig = introspecting(|issuer| changed(active(issuer), changes.clone())).await;
        assert!(rig.bearer("opaque-token").await.is_refused(), "{changes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_server_that_does_not_answer_makes_no_token_bad() {
    let rig = introspecting(active).await;
    rig.issuer.serve("/introspect", Answer::status(500));
    assert_eq!(rig.bearer("opaque-1").await, Outcome::Unavailable(Unavailable::NotReady));
    rig.issuer.serve("/introspect", Answer::ok("<html>"));
    assert_eq!(rig.bearer("opaque-2").await, Outcome::Unavailable(Unavailable::Malformed));
}

/// On one thread, whose log lines are kept.
#[tokio::test]
async fn an_outage_of_introspection_is_told_once_counted_each_time_and_tells_no_secret() {
    let log = Log::default();
    let _guard = log.listen();
    let rig = introspecting(active).await;
    let answers = [Answer::status(401), Answer::status(500), Answer::ok("<html>"), Answer::status(302)];
    for (i, answer) in answers.into_iter().enumerate() {
        rig.issuer.serve("/introspect", answer);
        assert!(matches!(rig.bearer(&format!("opaque-{i}")).await, Outcome::Unavailable(_)), "{i}");
    }
    rig.issuer.serve("/introspect", Answer::ok(active(&rig.issuer.url).to_string()));
    rig.clock.advance(Duration::from_secs(10));
    assert!(rig.bearer("opaque-5").await.is_allowed());
    let told = log.lines("introspection");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("WARN") && told[0].contains("answered 401") && told[0].contains(&rig.issuer.url),
        "{told:?}"
    );
    assert!(told[1].contains("INFO") && told[1].contains("failures=4"), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("opaque-") || line.contains("hush")), "{told:?}");
    let counters = rig.authenticator.counters();
    assert_eq!((counters.introspections.get(), counters.introspection_failures.get()), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_introspection_an_opaque_token_is_simply_bad_and_shown_to_nobody() {
    let rig = Rig::new().await;
    let before = rig.issuer.all_hits();
    assert_eq!(rig.bearer("opaque-token").await.detail(), Some(Detail::NotCompactJws));
    assert_eq!(rig.issuer.all_hits(), before);
}

fn status_list(issuer: &str, octets: &[u8], changes: Value, key: &countersign::identity::mint::SigningKey) -> String {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(octets).unwrap();
    let lst = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, zlib.finish().unwrap());
    let claims = json!({ "iss": issuer, "sub": format!("{issuer}/status"), "iat": NOW, "exp": NOW + 3600, "ttl": 60,
        "status_list": { "bits": 1, "lst": lst } });
    let head = json!({ "alg": "ES256", "kid": key.kid(), "typ": "statuslist+jwt" });
    key.sign(&head, &changed(claims, changes)).unwrap()
}

fn listed(rig: &Rig, index: u64) -> String {
    let uri = format!("{}/status", rig.issuer.url);
    rig.token_with(json!({ "jti": format!("t-{index}"), "status": { "status_list": { "idx": index, "uri": uri } } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_its_status_list_revokes_is_refused_and_the_list_is_fetched_once() {
    let rig = Rig::new().await;
    let list = status_list(&rig.issuer.url, &[0b0000_0010], json!({}), &P256);
    rig.issuer.serve("/status", Answer::ok(list));
    for _ in 0..3 {
        assert!(rig.bearer(&listed(&rig, 0)).await.is_allowed());
        assert_eq!(rig.bearer(&listed(&rig, 1)).await.detail(), Some(Detail::StatusRevoked));
    }
    assert_eq!(rig.issuer.hits("/status"), 1);
    assert_eq!(rig.bearer(&listed(&rig, 8)).await, Outcome::Unavailable(Unavailable::Malformed), "not in the list");
    let now_revoked = status_list(&rig.issuer.url, &[0b0000_0011], json!({}), &P256);
    rig.issuer.serve("/status", Answer::ok(now_revoked));
    rig.clock.advance(Duration::from_secs(60));
    assert_eq!(rig.bearer(&listed(&rig, 0)).await.detail(), Some(Detail::StatusRevoked), "after its ttl, also warm");
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_a_step_back_of_the_clock_stretches_neither_a_list_nor_its_absence() {
    let rig = Rig::new().await;
    rig.issuer.serve("/status", Answer::ok(status_list(&rig.issuer.url, &[0], json!({}), &P256)));
    assert!(rig.bearer(&listed(&rig, 0)).await.is_allowed());
    rig.issuer.serve("/status", Answer::status(500));
    let back = || rig.clock.set(UnixTime::from_millis(rig.clock.now().as_millis() - 20_000));
    back();
    rig.clock.advance(Duration::from_secs(60));
    assert_eq!(rig.bearer(&listed(&rig, 0)).await, Outcome::Unavailable(Unavailable::NotReady), "after its ttl");
    rig.issuer.serve("/status", Answer::ok(status_list(&rig.issuer.url, &[0], json!({}), &P256)));
    back();
    rig.clock.advance(Duration::from_secs(5));
    assert!(rig.bearer(&listed(&rig, 0)).await.is_allowed(), "after five seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_use_is_fetched_ahead_and_no_request_waits_for_it() {
    let rig = Rig::new().await;
    rig.issuer.serve("/status", Answer::ok(status_list(&rig.issuer.url, &[0b00], json!({}), &P256)));
    let token = listed(&rig, 0);
    assert!(rig.bearer(&token).await.is_allowed());
    let fetches = |count| move |rig: &Rig| rig.authenticator.counters().status_list_fetches.get() == count;
    let again = Answer::ok(status_list(&rig.issuer.url, &[0b10], json!({}), &P256));
    rig.issuer.serve("/status", again.after(Duration::from_millis(300)));
    rig.clock.advance(Duration::from_secs(48));
    for _ in 0..20 {
        assert!(rig.bearer_at_once(&token).await.is_allowed());
    }
    rig.until("one fetch", fetches(2)).await;
    assert_eq!(rig.issuer.hits("/status"), 2);
    assert_eq!(rig.bearer(&listed(&rig, 1)).await.detail(), Some(Detail::StatusRevoked), "the new list counts");
    rig.issuer.serve("/status", Answer::status(500));
    rig.clock.advance(Duration::from_secs(48));
    assert!(rig.bearer_at_once(&token).await.is_allowed());
    rig.until("a failure", |rig| rig.authenticator.counters().status_list_failures.get() == 1).await;
    assert!(rig.bearer_at_once(&token).await.is_allowed(), "the old one counts to its end");
    rig.clock.advance(Duration::from_secs(12));
    assert_eq!(rig.bearer(&token).await, Outcome::Unavailable(Unavailable::NotReady), "and no longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_signed_with_a_new_key_has_the_keys_fetched_once() {
    let rig = Rig::new().await;
    let (next, other) = (make(Algorithm::ES256, "next"), make(Algorithm::ES256, "other"));
    rig.issuer.serve_keys([&*P256, &next]);
    rig.issuer.serve("/status", Answer::ok(status_list(&rig.issuer.url, &[0], json!({}), &next)));
    assert!(rig.bearer(&listed(&rig, 0)).await.is_allowed());
    let fetched = rig.issuer.hits("/jwks");
    rig.issuer.serve("/status", Answer::ok(status_list(&rig.issuer.url, &[0], json!({}), &other)));
    rig.clock.advance(Duration::from_secs(60));
    for _ in 0..5 {
        assert_eq!(rig.bearer(&listed(&rig, 0)).await, Outcome::Unavailable(Unavailable::NotReady));
        rig.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(rig.issuer.hits("/jwks"), fetched, "not within the cool-down");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_issuers_that_name_one_status_list_do_not_take_one_anothers_verdict() {
    let issuer = Issuer::start().await;
    issuer.serve_keys([&*P256]);
    issuer.serve("/other-keys", Answer::ok(key_set([&*FOREIGN])));
    let rig = Rig::before(issuer, |settings| {
        let ours = &mut settings.issuers[0];
        let at = ours.issuer.clone();
        ours.status_lists = vec![at.clone()];
        let other = IssuerSettings { issuer: OTHER.into(), jwks: Some(format!("{at}/other-keys")), ..ours.clone() };
        settings.issuers.push(other);
    })
    .await;
    rig.issuer.serve("/status", Answer::ok(status_list(&rig.issuer.url, &[0], json!({}), &P256)));
    let uri = format!("{}/status", rig.issuer.url);
    let status = json!({ "status_list": { "idx": 0, "uri": uri } });
    let others = FOREIGN.token(&changed(claims(OTHER), json!({ "status": status }))).unwrap();
    assert!(rig.bearer(&listed(&rig, 0)).await.is_allowed());
    assert_eq!(rig.bearer(&others).await, Outcome::Unavailable(Unavailable::NotReady), "not signed by its issuer");
    assert!(rig.bearer(&listed(&rig, 0)).await.is_allowed(), "the failure is the other issuer's alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_list_that_cannot_be_trusted_makes_its_tokens_unknown() {
    let rig = Rig::new().await;
    let url = rig.issuer.url.clone();
    for (what, body) in [
        ("another key", status_list(&url, &[0], json!({}), &FOREIGN)),
        ("another list's sub", status_list(&url, &[0], json!({ "sub": "https://other/status" }), &P256)),
        ("another issuer", status_list(&url, &[0], json!({ "iss": "https://other" }), &P256)),
        ("expired", status_list(&url, &[0], json!({ "exp": NOW - 1 }), &P256)),
        ("an access token", P256.token(&rig.claims()).unwrap()),
        ("nonsense", "nonsense".to_owned()),
    ] {
        rig.issuer.serve("/status", Answer::ok(body));
        rig.clock.advance(Duration::from_secs(5));
        let outcome = rig.bearer(&listed(&rig, 0)).await;
        assert_eq!(outcome, Outcome::Unavailable(Unavailable::NotReady), "{what}");
    }
    let foreign = json!({ "status": { "status_list": { "idx": 0, "uri": "http://127.0.0.1:1/status" } } });
    assert_eq!(rig.bearer(&rig.token_with(foreign)).await.detail(), Some(Detail::StatusForeign));
}

/// On one thread, whose log lines are kept.
#[tokio::test]
async fn a_status_list_that_cannot_be_had_is_left_alone_for_a_while_and_told_of_once() {
    let log = Log::default();
    let _guard = log.listen();
    let rig = Rig::new().await;
    rig.issuer.serve("/status", Answer::status(500));
    for _ in 0..50 {
        assert_eq!(rig.bearer(&listed(&rig, 0)).await, Outcome::Unavailable(Unavailable::NotReady));
    }
    assert_eq!(rig.issuer.hits("/status"), 1);
    rig.clock.advance(Duration::from_secs(5));
    assert_eq!(rig.bearer(&listed(&rig, 1)).await, Outcome::Unavailable(Unavailable::NotReady));
    assert_eq!(rig.issuer.hits("/status"), 2);
    rig.issuer.serve("/status", Answer::ok(status_list(&rig.issuer.url, &[0], json!({}), &P256)));
    rig.clock.advance(Duration::from_secs(5));
    assert!(rig.bearer(&listed(&rig, 0)).await.is_allowed());
    let told = log.lines("status list");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("WARN") && told[0].contains("answered 500") && told[0].contains(&rig.issuer.url),
        "{told:?}"
    );
    assert!(told[1].contains("INFO") && told[1].contains("again"), "{told:?}");
    let counters = rig.authenticator.counters();
    assert_eq!((counters.status_list_fetches.get(), counters.status_list_failures.get()), (1, 2));
}
