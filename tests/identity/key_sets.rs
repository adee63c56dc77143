//! Rows J26 to J29 of the threat catalogue, discovery, files, and what a key set may hold.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign::{
    domain::Unavailable,
    identity::{
        Algorithm, Detail, Fetcher, KeySetSettings, Settings, Signed, Signer, SignerProblem, SignerSettings,
        mint::{SigningKey, key_set},
    },
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    log::Log,
    rig::{Answer, ED, FOREIGN, Issuer, NOW, Outcome, P256, P384, RSA, Rig, changed, make},
};

fn brisk(settings: &mut Settings) {
    settings.key_sets.refresh = Duration::from_secs(1).into();
    settings.key_sets.min_refresh = Duration::from_secs(1).into();
}

#[tokio::test(flavor = "multi_thread")]
async fn j26_ten_thousand_unknown_kids_cost_one_fetch() {
    let rig = Rig::with(|settings| {
        settings.key_sets.cooldown = Duration::from_secs(600).into();
        settings.queue = 20_000;
    })
    .await;
    let before = rig.issuer.hits("/jwks");
    let payload = URL_SAFE_NO_PAD.encode(rig.claims().to_string());
    let mut asked = Vec::new();
    for i in 0..10_000 {
        let head = json!({ "alg": "ES256", "kid": format!("made-up-{i}"), "typ": "at+jwt" }).to_string();
        // Nobody looks at the signature: there is no key to look with.
        let value = format!("Bearer {}.{payload}.{}", URL_SAFE_NO_PAD.encode(head), "A".repeat(86));
        let (authenticator, now) = (rig.authenticator.clone(), rig.clock.now());
        asked.push(tokio::spawn(async move {
            let credentials = countersign::identity::Credentials {
                authorization: countersign::identity::HeaderValues::one(value.as_bytes()),
                ..Default::default()
            };
            let deadline = Instant::now() + Duration::from_secs(60);
            crate::rig::outcome(&authenticator.authenticate(&credentials, now, deadline).await)
        }));
    }
    for task in asked {
        assert_eq!(task.await.unwrap().detail(), Some(Detail::UnknownKey));
    }
    assert_eq!(rig.issuer.hits("/jwks"), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kid_that_a_fresh_set_does_not_hold_is_not_fetched_for_again() {
    let rig = Rig::with(|settings| settings.key_sets.cooldown = Duration::from_secs(1).into()).await;
    let before = rig.issuer.hits("/jwks");
    let stranger = make(Algorithm::ES256, "stranger");
    for id in ["a", "b", "c"] {
        let token = stranger.token(&changed(rig.claims(), json!({ "jti": id }))).unwrap();
        assert_eq!(rig.bearer(&token).await.detail(), Some(Detail::UnknownKey));
    }
    assert_eq!(rig.issuer.hits("/jwks"), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_unknown_while_the_set_cannot_be_had_makes_no_token_bad() {
    let rig = Rig::with(|settings| settings.key_sets.cooldown = Duration::from_secs(1).into()).await;
    let new = make(Algorithm::ES256, "new");
    rig.issuer.serve("/jwks", Answer::status(500));
    // Within the cool-down too: that there was no other fetch says nothing of the key.
    for id in ["a", "b", "c"] {
        let token = new.token(&changed(rig.claims(), json!({ "jti": id }))).unwrap();
        assert_eq!(rig.bearer(&token).await, Outcome::Unavailable(Unavailable::NotReady));
    }
    rig.issuer.serve_keys([&*P256, &new]);
    eventually_allowed(&rig, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_token_names_before_it_is_published_is_looked_for_after_the_cool_down() {
    let rig = Rig::with(|settings| settings.key_sets.cooldown = Duration::from_secs(1).into()).await;
    let new = make(Algorithm::ES256, "new");
    let early = new.token(&rig.claims()).unwrap();
    assert_eq!(rig.bearer(&early).await.detail(), Some(Detail::UnknownKey));
    rig.issuer.serve_keys([&*P256, &new]);
    eventually_allowed(&rig, &new).await;
}

/// What a signer of the rig's issuer, which asks again after this long, says of a document that each key signed in turn.
async fn signer(rig: &Rig, cooldown: Duration) -> impl AsyncFn(&SigningKey) -> Result<(), SignerProblem> {
    let key_sets = KeySetSettings { cooldown: cooldown.into(), ..KeySetSettings::default() };
    let settings = SignerSettings {
        issuer: rig.issuer.url.clone(),
        jwks: Some(format!("{}/jwks", rig.issuer.url)),
        algorithms: vec![Algorithm::ES256],
        shared_signals: true,
    };
    let fetcher = std::sync::Arc::new(Fetcher::new(key_sets.timeout.get(), None));
    let (counters, cancel) = (rig.authenticator.counters(), CancellationToken::new());
    let signer = Signer::start(&settings, &key_sets, &fetcher, counters, rig.clock.clone(), cancel);
    rig.until("its keys", |rig| signer.is_ready(rig.clock.now())).await;
    let claims = rig.claims();
    async move |key| {
        let text = key.token(&claims).unwrap();
        signer.verify(&Signed::parse(&text).unwrap(), Instant::now() + Duration::from_secs(60)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_key_makes_no_document_of_a_new_key_bad_for_good() {
    let rig = Rig::with(|_| {}).await;
    let [stranger, other, new] = ["stranger", "other", "new"].map(|kid| make(Algorithm::ES256, kid));
    let long = signer(&rig, Duration::from_secs(600)).await;
    let short = signer(&rig, Duration::from_secs(1)).await;
    for verify in [&long, &short] {
        assert_eq!(verify(&stranger).await, Err(SignerProblem::Key), "the fetch that it caused does not hold it");
    }
    rig.issuer.serve_keys([&*P256, &new]);
    assert_eq!(long(&new).await, Err(SignerProblem::NotReady), "the cool-down is spent: not known yet");
    assert_eq!(long(&stranger).await, Err(SignerProblem::Key), "known not to be there");
    // The next fetch decides, for either.
    for (key, expected) in [(&new, Ok(())), (&other, Err(SignerProblem::Key))] {
        let mut said = short(key).await;
        for _ in 0..100 {
            if said != Err(SignerProblem::NotReady) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            said = short(key).await;
        }
        assert_eq!(said, expected);
    }
}

/// Waits, in real time, until a token that `key` signed is taken.
async fn eventually_allowed(rig: &Rig, key: &SigningKey) {
    for round in 0..100 {
        let token = key.token(&changed(rig.claims(), json!({ "jti": format!("round-{round}") }))).unwrap();
        if rig.bearer(&token).await.is_allowed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the new key is never taken up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_with_overlap_denies_nobody_under_load() {
    let rig = std::sync::Arc::new(Rig::with(brisk).await);
    let new = std::sync::Arc::new(make(Algorithm::ES256, "new"));
    let phase = std::sync::Arc::new(std::sync::atomic::AtomicU8::new(0));
    let mut askers = Vec::new();
    for worker in 0..4 {
        let (rig, new, phase) = (rig.clone(), new.clone(), phase.clone());
        askers.push(tokio::spawn(async move {
            for i in 0.. {
                // Every other token is one that was not seen before.
                let id = json!({ "jti": format!("t-{worker}-{}", i / 2) });
                let claims = changed(rig.claims(), id);
                let now = phase.load(std::sync::atomic::Ordering::Acquire);
                let old = rig.bearer(&P256.token(&claims).unwrap()).await;
                assert!(old.is_allowed() || phase.load(std::sync::atomic::Ordering::Acquire) >= 2, "{now}: {old:?}");
                if now >= 1 {
                    let fresh = rig.bearer(&new.token(&claims).unwrap()).await;
                    assert!(fresh.is_allowed(), "{now}: {fresh:?}");
                }
                if now == 3 {
                    assert!(old.is_refused(), "its key is gone: {old:?}");
                    return;
                }
            }
        }));
    }
    let settle = || tokio::time::sleep(Duration::from_millis(300));
    settle().await;
    let step = |to| phase.store(to, std::sync::atomic::Ordering::Release);
    for (keys, next) in [(vec![&*P256, &*new], 1), (vec![&*new], 3)] {
        let generation = rig.authenticator.generation();
        if next == 3 {
            step(2);
        }
        rig.issuer.serve_keys(keys);
        rig.until("the next set", |rig| rig.authenticator.generation() > generation).await;
        step(next);
        settle().await;
    }
    for asker in askers {
        asker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_ahead_of_what_cache_control_says() {
    let issuer = Issuer::start().await;
    issuer.serve("/jwks", Answer::ok(key_set([&*P256])).with("cache-control", "public, max-age=1"));
    let rig = Rig::before(issuer, |settings| {
        settings.key_sets.refresh = Duration::from_secs(3600).into();
        settings.key_sets.min_refresh = Duration::from_secs(1).into();
    })
    .await;
    rig.until("three fetches where the clock alone asks for one an hour", |rig| rig.issuer.hits("/jwks") >= 3).await;
    assert!(rig.bearer(&rig.token()).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_fetched_at_its_first_token_and_the_old_one_goes_on() {
    let rig = Rig::new().await;
    let new = make(Algorithm::ES256, "new");
    let old_token = rig.token();
    assert!(rig.bearer(&old_token).await.is_allowed());
    let before = rig.issuer.hits("/jwks");
    rig.issuer.serve_keys([&*P256, &new]);
    assert!(rig.bearer(&new.token(&rig.claims()).unwrap()).await.is_allowed());
    assert_eq!(rig.issuer.hits("/jwks"), before + 1);
    assert!(rig.bearer(&old_token).await.is_allowed(), "a rotation with overlap refuses nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_waits_for_a_fetch_past_its_deadline_is_not_called_invalid() {
    let rig = Rig::new().await;
    let new = make(Algorithm::ES256, "new");
    let slow = Answer::ok(key_set([&*P256, &new])).after(Duration::from_millis(300));
    rig.issuer.serve("/jwks", slow);
    let value = format!("Bearer {}", new.token(&rig.claims()).unwrap());
    let credentials = countersign::identity::Credentials {
        authorization: countersign::identity::HeaderValues::one(value.as_bytes()),
        ..Default::default()
    };
    let deadline = Instant::now() + Duration::from_millis(50);
    let answer = rig.authenticator.authenticate(&credentials, rig.clock.now(), deadline).await;
    assert_eq!(crate::rig::outcome(&answer), Outcome::Unavailable(Unavailable::NotReady));
    assert!(rig.ask(&credentials).await.is_allowed(), "and once it is there, it is good");
}

#[tokio::test(flavor = "multi_thread")]
async fn j27_an_unreachable_key_set_at_start_is_not_ready_and_recovers_by_itself() {
    let issuer = Issuer::start().await;
    issuer.serve("/jwks", Answer::status(503));
    let rig = Rig::before(issuer, |_| {}).await;
    assert!(!rig.authenticator.ready());
    assert_eq!(rig.bearer(&rig.token()).await, Outcome::Unavailable(Unavailable::NotReady));
    rig.issuer.serve_keys([&*P256]);
    rig.until("the keys", |rig| rig.authenticator.ready()).await;
    assert!(rig.bearer(&rig.token()).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn j27_one_issuer_out_of_reach_keeps_a_replica_out_for_a_minute_at_most() {
    let partner = Issuer::start().await;
    partner.serve("/jwks", Answer::status(503));
    let rig = Rig::with(|settings| settings.issuers.push(partner.settings())).await;
    rig.until("the partner's refusal", |rig| rig.authenticator.key_sets()[1].failure.is_some()).await;
    assert!(!rig.authenticator.ready(), "it may come yet");
    rig.clock.advance(Duration::from_secs(59));
    assert!(!rig.authenticator.ready());
    rig.clock.advance(Duration::from_secs(1));
    rig.until("the end of the minute", |rig| rig.authenticator.ready()).await;
    assert_eq!(rig.authenticator.without_keys().collect::<Vec<_>>(), [&partner.url]);
    assert!(rig.bearer(&rig.token()).await.is_allowed());
    let theirs = P256.token(&changed(rig.claims(), json!({ "iss": partner.url }))).unwrap();
    assert_eq!(rig.bearer(&theirs).await, Outcome::Unavailable(Unavailable::NotReady));
    partner.serve_keys([&*P256]);
    rig.until("the partner's keys", |rig| rig.authenticator.without_keys().next().is_none()).await;
    assert!(rig.bearer(&theirs).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn j27_a_replica_without_any_keys_or_that_has_not_asked_for_all_is_not_ready_however_long_it_waits() {
    let issuer = Issuer::start().await;
    issuer.serve("/jwks", Answer::status(503));
    let rig = Rig::before(issuer, |_| {}).await;
    rig.until("the refusal", |rig| rig.authenticator.key_sets()[0].failure.is_some()).await;
    rig.clock.advance(Duration::from_secs(3600));
    assert!(!rig.authenticator.ready());
    let slow = Issuer::start().await;
    slow.serve("/jwks", Answer::ok(key_set([&*P256])).after(Duration::from_secs(60)));
    let rig = Rig::with(|settings| {
        settings.issuers.push(slow.settings());
        settings.key_sets.timeout = Duration::from_secs(60).into();
    })
    .await;
    rig.clock.advance(Duration::from_secs(3600));
    assert!(!rig.authenticator.ready(), "its first answer is still to come");
}

#[tokio::test(flavor = "multi_thread")]
async fn j27_the_last_good_set_is_kept_through_an_outage_up_to_its_age() {
    let rig = Rig::with(brisk).await;
    let token = rig.token_with(json!({ "exp": NOW + 3600 }));
    assert!(rig.bearer(&token).await.is_allowed());
    rig.issuer.serve("/jwks", Answer::status(500));
    let failed = rig.issuer.hits("/jwks") + 2;
    rig.until("two failed fetches", |rig| rig.issuer.hits("/jwks") >= failed).await;
    rig.clock.advance(Duration::from_secs(600));
    assert!(rig.bearer(&token).await.is_allowed(), "warm");
    assert!(rig.bearer(&rig.token_with(json!({ "jti": "cold", "exp": NOW + 3600 }))).await.is_allowed());
    rig.clock.advance(Duration::from_secs(86_400));
    let later = json!({ "iat": NOW + 86_000, "exp": NOW + 90_000 });
    let later = rig.token_with(later);
    assert_eq!(rig.bearer(&later).await.detail(), Some(Detail::KeysTooOld), "never unverified");
    let fetched = rig.authenticator.counters().key_fetches.get();
    rig.issuer.serve_keys([&*RSA, &*P256, &*P384, &*ED]);
    rig.until("the same keys", |rig| rig.authenticator.counters().key_fetches.get() > fetched).await;
    assert!(rig.bearer(&later).await.is_allowed(), "at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_grew_too_old_in_a_sleep_are_fetched_at_the_next_token() {
    let rig = Rig::new().await;
    let before = rig.issuer.hits("/jwks");
    let day = 86_400;
    let at = |seconds: u64| json!({ "jti": seconds.to_string(), "iat": NOW + seconds, "exp": NOW + seconds + 600 });
    assert!(rig.bearer(&rig.token()).await.is_allowed());
    rig.clock.advance(Duration::from_secs(2 * day));
    assert!(rig.bearer(&rig.token_with(at(2 * day))).await.is_allowed());
    assert_eq!(rig.issuer.hits("/jwks"), before + 1);
    rig.clock.advance(Duration::from_secs(2 * day));
    let outcome = rig.bearer(&rig.token_with(at(4 * day))).await;
    assert_eq!(outcome, Outcome::Unavailable(Unavailable::NotReady), "in the cool-down: not yet, rather than bad");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_published_while_a_fetch_is_under_way_is_fetched_for_once_more() {
    let rig = Rig::with(brisk).await;
    let new = make(Algorithm::ES256, "new");
    rig.issuer.serve("/jwks", Answer::ok(key_set([&*P256])).after(Duration::from_millis(500)));
    let next = rig.issuer.hits("/jwks") + 1;
    rig.until("a fetch by the clock", |rig| rig.issuer.hits("/jwks") >= next).await;
    rig.issuer.serve_keys([&*P256, &new]);
    let outcome = rig.bearer(&new.token(&rig.claims()).unwrap()).await;
    assert!(outcome.is_allowed(), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn j28_what_is_no_key_set_never_replaces_a_good_one() {
    let rig = Rig::with(brisk).await;
    let trap = Issuer::start().await;
    trap.serve_keys([&*FOREIGN]);
    let huge = format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(1024 * 1024));
    for (what, answer) in [
        ("empty", Answer::ok(r#"{"keys":[]}"#)),
        ("HTML", Answer::ok("<html>welcome</html>")),
        ("nothing", Answer::ok("")),
        ("no keys", Answer::ok("{}")),
        ("keys of another type", Answer::ok(r#"{"keys":{}}"#)),
        ("too large", Answer::ok(huge)),
        ("a redirect", Answer::status(302).with("location", format!("{}/jwks", trap.url))),
        ("a permanent redirect", Answer::status(308).with("location", "http://169.254.169.254/jwks")),
        ("204", Answer::status(204)),
        ("an oct key alone", Answer::ok(r#"{"keys":[{"kty":"oct","kid":"p256","k":"AAAA"}]}"#)),
    ] {
        rig.issuer.serve("/jwks", answer);
        let next = rig.issuer.hits("/jwks") + 1;
        // Failures back off, so a token with an unknown kid asks again where the clock would not yet.
        rig.until(what, |rig| rig.issuer.hits("/jwks") >= next).await;
        let token = rig.token_with(json!({ "jti": what }));
        assert!(rig.bearer(&token).await.is_allowed(), "{what}");
        rig.issuer.serve_keys([&*RSA, &*P256]);
        let next = rig.issuer.hits("/jwks") + 1;
        rig.until("a good fetch between", |rig| rig.issuer.hits("/jwks") >= next).await;
    }
    assert_eq!(trap.all_hits(), 0, "no redirect is followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn j28_a_slow_drip_ends_at_the_time_limit() {
    let issuer = Issuer::start().await;
    issuer.serve("/jwks", Answer::ok(key_set([&*P256])).after(Duration::from_secs(60)));
    let rig = Rig::before(issuer, |settings| settings.key_sets.timeout = Duration::from_millis(200).into()).await;
    rig.issuer.serve_keys([&*P256]);
    rig.until("the fetch after the time limit", |rig| rig.authenticator.ready()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j28_octets_that_drip_for_ever_end_at_the_time_limit() {
    use tokio::io::AsyncWriteExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
            tokio::spawn(async move {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{";
                let mut taken = stream.write_all(head).await;
                while taken.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    taken = stream.write_all(b" ").await;
                }
            });
        }
    });
    let rig = Rig::with(|settings| {
        settings.issuers[0].jwks = Some(url);
        settings.key_sets.timeout = Duration::from_millis(300).into();
    })
    .await;
    rig.until("the next try", |_| connections.load(std::sync::atomic::Ordering::Acquire) >= 2).await;
    assert!(!rig.authenticator.ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn j29_c09_a_key_taken_out_takes_its_tokens_with_it_and_a_refusal_ends_with_a_new_key() {
    let rig = Rig::with(brisk).await;
    let (stays, goes) = (ED.token(&rig.claims()).unwrap(), rig.token());
    assert!(rig.bearer(&stays).await.is_allowed());
    assert!(rig.bearer(&goes).await.is_allowed());
    let generation = rig.authenticator.generation();
    rig.issuer.serve_keys([&*RSA, &*ED]);
    rig.until("the smaller set", |rig| rig.authenticator.generation() > generation).await;
    assert_eq!(rig.bearer(&goes).await.detail(), Some(Detail::UnknownKey), "warm, and refused");
    assert!(rig.bearer(&stays).await.is_allowed());
    let generation = rig.authenticator.generation();
    rig.issuer.serve_keys([&*RSA, &*ED, &*P256]);
    rig.until("the key again", |rig| rig.authenticator.generation() > generation).await;
    assert!(rig.bearer(&goes).await.is_allowed());
}

/// On one thread, whose log lines are kept.
#[tokio::test]
async fn j20_a_weak_or_private_key_is_told_of_once_also_where_the_good_ones_stay_as_they_are() {
    let log = Log::default();
    let _guard = log.listen();
    let rig = Rig::with(brisk).await;
    let token = rig.token();
    assert!(rig.bearer(&token).await.is_allowed());
    let alarms = |rig: &Rig| rig.authenticator.counters().alarming_keys.get();
    let (good, other) = (P256.jwk(), ED.jwk());
    let weak = json!({ "kty": "RSA", "kid": "weak", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB" });
    let mut private = good.clone();
    private["d"] = "AAAA".into();
    for (keys, told, said) in [
        (json!([RSA.jwk(), good, P384.jwk(), other, weak]), 1, "kid=\"weak\""),
        // Alone, it takes no other set's place.
        (json!([private]), 2, "holds the private key"),
    ] {
        rig.issuer.serve("/jwks", Answer::ok(json!({ "keys": keys }).to_string()));
        rig.until(said, |rig| alarms(rig) == told).await;
        let next = rig.issuer.hits("/jwks") + 2;
        rig.until("another fetch", |rig| rig.issuer.hits("/jwks") >= next).await;
        assert_eq!(alarms(&rig), told, "once");
        assert_eq!(log.lines("key ignored").len() as u64, told);
        assert_eq!(log.lines(said).len(), 1, "{said}");
    }
    assert!(!rig.bearer(&token).await.is_allowed(), "anybody may have signed it");
    assert!(rig.bearer(&ED.token(&rig.claims()).unwrap()).await.is_allowed(), "the rest of the last good set is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn j29_another_key_under_the_same_kid_is_another_key() {
    let rig = Rig::with(brisk).await;
    let token = rig.token();
    assert!(rig.bearer(&token).await.is_allowed());
    let generation = rig.authenticator.generation();
    rig.issuer.serve_keys([&*FOREIGN]);
    rig.until("the new set", |rig| rig.authenticator.generation() > generation).await;
    assert_eq!(rig.bearer(&token).await.detail(), Some(Detail::BadSignature));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_does_not_change_disturbs_nobody() {
    let rig = Rig::with(brisk).await;
    let generation = rig.authenticator.generation();
    let next = rig.issuer.hits("/jwks") + 3;
    rig.until("three refreshes", |rig| rig.issuer.hits("/jwks") >= next).await;
    assert_eq!(rig.authenticator.generation(), generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_not_understood_take_no_other_with_them() {
    let issuer = Issuer::start().await;
    let mut set: Value = serde_json::from_str(&key_set([&*P256])).unwrap();
    let keys = set["keys"].as_array_mut().unwrap();
    for odd in [
        json!({ "kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AA" }),
        json!({ "kty": "EC", "crv": "P-521", "kid": "e", "x": "AA", "y": "AA" }),
        json!({ "kty": "EC", "crv": "P-256", "kid": "off", "x": "AA", "y": "AA" }),
        json!(null),
        json!([]),
        json!({}),
        json!({ "kty": 1 }),
    ] {
        keys.insert(0, odd);
    }
    issuer.serve("/jwks", Answer::ok(set.to_string()));
    let rig = Rig::before(issuer, |_| {}).await;
    assert!(rig.bearer(&rig.token()).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn j04_alg_use_and_key_ops_of_a_key_are_honoured() {
    let issuer = Issuer::start().await;
    let with = |kid: &str, name: &str, value: Value| {
        let mut jwk = P256.public();
        jwk["kid"] = kid.into();
        jwk[name] = value;
        jwk
    };
    let mut private = with("private", "use", json!("sig"));
    private["d"] = "AAAA".into();
    let keys = json!({ "keys": [
        with("good", "use", json!("sig")), with("ops", "key_ops", json!(["verify"])),
        with("enc", "use", json!("enc")), with("no-ops", "key_ops", json!(["encrypt"])), with("odd-ops", "key_ops", json!("verify")),
        with("other-alg", "alg", json!("ES384")), with("ecdh", "alg", json!("ECDH-ES")), with("number", "alg", json!(1)), private,
        with("same", "use", json!("sig")), with("same", "use", json!("sig")),
        with("twice", "use", json!("sig")), { "kty": "EC", "kid": "twice", "crv": "P-256", "x": FOREIGN.public()["x"], "y": FOREIGN.public()["y"] },
    ] });
    issuer.serve("/jwks", Answer::ok(keys.to_string()));
    let rig = Rig::before(issuer, |_| {}).await;
    for (kid, good) in [
        ("good", true),
        ("ops", true),
        ("enc", false),
        ("no-ops", false),
        ("odd-ops", false),
        ("other-alg", false),
        ("ecdh", false),
        ("number", false),
        ("private", false),
        ("same", true),
        ("twice", false),
    ] {
        let head = json!({ "alg": "ES256", "kid": kid, "typ": "at+jwt" });
        let outcome = rig.bearer(&P256.sign(&head, &rig.claims()).unwrap()).await;
        assert_eq!(outcome.is_allowed(), good, "{kid}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_finds_the_keys_and_must_name_the_issuer_exactly() {
    let issuer = Issuer::start().await;
    issuer.serve_keys([&*P256]);
    let document = |named: &str| json!({ "issuer": named, "jwks_uri": format!("{}/jwks", issuer.url) }).to_string();
    let wrong = document(&format!("{}/", issuer.url));
    let right = document(&issuer.url);
    issuer.serve("/.well-known/openid-configuration", Answer::ok(wrong));
    let rig = Rig::before(issuer, |settings| settings.issuers[0].jwks = None).await;
    assert!(!rig.authenticator.ready());
    assert_eq!(rig.issuer.hits("/jwks"), 0);
    rig.issuer.serve("/.well-known/openid-configuration", Answer::ok(right));
    rig.until("discovery", |rig| rig.authenticator.ready()).await;
    assert!(rig.bearer(&rig.token()).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_is_read_and_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, key_set([&*P256])).unwrap();
    let place = path.to_str().unwrap().to_owned();
    let rig = Rig::with(|settings| settings.issuers[0].jwks = Some(place)).await;
    assert!(rig.bearer(&rig.token()).await.is_allowed());
    let generation = rig.authenticator.generation();
    std::fs::write(&path, "not a key set").unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(rig.bearer(&rig.token_with(json!({ "jti": "t-2" }))).await.is_allowed());
    std::fs::write(&path, key_set([&*ED])).unwrap();
    rig.until("the new file", |rig| rig.authenticator.generation() > generation).await;
    assert!(rig.bearer(&rig.token()).await.is_refused());
    assert!(rig.bearer(&ED.token(&rig.claims()).unwrap()).await.is_allowed());
    assert_eq!(rig.issuer.all_hits(), 0);
}
