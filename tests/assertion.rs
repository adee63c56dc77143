//! Assertions as an upstream sees them: verified with nothing but the published keys.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "assertion/store.rs"]
mod store;

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign::{
    assertion::{Algorithm, Assertions, Settings, Subject, TYPE},
    clock::Clock,
    domain::{
        AuthMethod, AuthMethods, DeviceId, Identity, PolicyId, RiskLevel, Secret, SessionId, SubjectKind, TrustLevel,
        UnixTime,
    },
    policy::Restrictions,
};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::store::Shelf;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

fn identity(expires_at: UnixTime) -> Arc<Identity> {
    Arc::new(Identity {
        issuer: "https://issuer.example".into(),
        subject: "alice".into(),
        kind: SubjectKind::Person,
        token_id: "the-token-id".into(),
        session: "s-1".into(),
        session_claimed: true,
        client_id: Some("shop-app".into()),
        methods: AuthMethods::NONE.with(AuthMethod::Password).with(AuthMethod::MfaTotp),
        acr: None,
        auth_time: Some(NOW),
        issued_at: NOW,
        issue_unstated: false,
        expires_at,
        valid_until: None,
        roles: vec!["clerk".into()],
        permissions: Vec::new(),
        scopes: Vec::new(),
        device: None,
        confirmation: None,
        audience: "api.example".into(),
        attributes: Default::default(),
    })
}

fn subject(audience: &str) -> Subject {
    Subject {
        identity: identity(NOW.plus(Duration::from_secs(3600))),
        session: SessionId::from("s-1"),
        device: Some(DeviceId::from("laptop-7")),
        trust_level: TrustLevel::Medium,
        risk_level: RiskLevel::Low,
        audience: audience.into(),
        policy: Some(PolicyId::from("api-access-policy")),
        restrictions: Restrictions::default().with("monitor_usage").unwrap().with("prevent_download").unwrap(),
        rules: 1,
    }
}

async fn replica(store: &Arc<Shelf>, settings: Settings) -> Arc<Assertions> {
    let assertions = Assertions::new(settings, Arc::clone(store) as _).unwrap();
    assert!(assertions.refresh(NOW).await);
    assertions
}

fn decode(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// What an upstream does: the key by `kid`, the algorithm of the key, the signature, the type. Returns the claims.
fn verify(token: &str, jwks: &Value) -> Option<Value> {
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().ok()?;
    let (signed, octets) = (format!("{header}.{claims}"), URL_SAFE_NO_PAD.decode(signature).ok()?);
    let header = decode(header);
    let key = jwks["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?;
    assert_eq!((header["alg"].as_str(), header["typ"].as_str()), (key["alg"].as_str(), Some(TYPE)));
    let member = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let verified = match key["alg"].as_str()? {
        "EdDSA" => UnparsedPublicKey::new(&ED25519, member("x")).verify(signed.as_bytes(), &octets),
        _ => {
            let point = [vec![4], member("x"), member("y")].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &octets)
        }
    };
    verified.ok().map(|()| decode(claims))
}

fn kids(assertions: &Assertions) -> HashSet<String> {
    let jwks = assertions.jwks();
    jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_upstream_verifies_an_assertion_with_the_published_keys_alone() {
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256] {
        let assertions = replica(&Arc::default(), Settings { algorithm, ..Settings::default() }).await;
        let token = assertions.assertion(&subject("shop.example"), NOW).unwrap();
        let claims = verify(&token, &assertions.jwks()).expect("it verifies");
        for (claim, value) in [
            ("iss", "countersign"),
            ("aud", "shop.example"),
            ("sub", "alice"),
            ("sub_iss", "https://issuer.example"),
            ("sid", "s-1"),
            ("device", "laptop-7"),
            ("trust_level", "medium"),
            ("risk_level", "low"),
            ("policy", "api-access-policy"),
        ] {
            assert_eq!(claims[claim], value);
        }
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
        assert_eq!(claims["restrictions"], serde_json::json!(["monitor_usage", "prevent_download"]));
        assert!(!assertions.jwks().to_string().contains("\"d\""), "no private member is published");
        assert!(!claims.to_string().contains("the-token-id"));

        let forged = token.replacen('.', ".e30", 1);
        assert_eq!(verify(&forged, &assertions.jwks()), None);
    }
}

#[tokio::test]
async fn an_assertion_ends_with_its_token_and_never_before_it_began() {
    let assertions = replica(&Arc::default(), Settings::default()).await;
    let second = Duration::from_secs(1);
    for (expires_at, life) in [(NOW.plus(second * 5), 5), (NOW.minus(second * 10), 20)] {
        let mut identity = Identity::clone(&identity(expires_at));
        identity.valid_until = Some(expires_at.plus(second * 30));
        let subject = Subject { identity: Arc::new(identity), ..subject("shop.example") };
        let claims = verify(&assertions.assertion(&subject, NOW).unwrap(), &assertions.jwks()).unwrap();
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), life);
    }
}

#[tokio::test]
async fn an_assertion_is_for_one_upstream_and_one_state_of_things() {
    let assertions = replica(&Arc::default(), Settings::default()).await;
    let first = assertions.assertion(&subject("shop.example"), NOW).unwrap();
    assert_eq!(assertions.assertion(&subject("shop.example"), NOW), Some(Arc::clone(&first)));
    let other = |change: fn(&mut Subject)| {
        let mut subject = subject("shop.example");
        change(&mut subject);
        assertions.assertion(&subject, NOW).unwrap()
    };
    let mut seen = HashSet::from([first]);
    for change in [
        (|subject| subject.audience = "billing.example".into()) as fn(&mut Subject),
        |subject| subject.session = "s-2".into(),
        |subject| subject.device = None,
        |subject| subject.trust_level = TrustLevel::High,
        |subject| subject.risk_level = RiskLevel::Medium,
        |subject| subject.restrictions = Restrictions::default(),
        |subject| subject.policy = None,
        |subject| subject.rules = 2,
        |subject| Arc::make_mut(&mut subject.identity).roles = vec!["admin".into()],
        |subject| Arc::make_mut(&mut subject.identity).subject = "bob".into(),
    ] {
        assert!(seen.insert(other(change)), "each is its own");
    }
    assert_eq!((assertions.counters().signed.get(), assertions.counters().reused.get()), (11, 1));
}

#[tokio::test]
async fn an_assertion_is_renewed_before_it_ends_and_never_outlives_the_token() {
    let assertions = replica(&Arc::default(), Settings::default()).await;
    let at = |seconds| assertions.assertion(&subject("a"), NOW.plus(Duration::from_secs(seconds))).unwrap();
    let first = at(0);
    assert_eq!(at(44), first);
    assert_ne!(at(45), first);
    let back = assertions.assertion(&subject("a"), NOW.minus(Duration::from_secs(3600))).unwrap();
    assert_ne!(back, first, "a clock set back brings a new one, not one from the future");

    let dying = Subject { identity: identity(NOW.plus(Duration::from_secs(8))), ..subject("a") };
    let token = assertions.assertion(&dying, NOW).unwrap();
    let claims = verify(&token, &assertions.jwks()).unwrap();
    assert_eq!(claims["exp"].as_u64().unwrap(), NOW.as_secs() + 8);
}

#[tokio::test]
async fn replicas_share_keys_and_rotation_overlaps() {
    let store = Arc::<Shelf>::default();
    let (one, two) = (replica(&store, Settings::default()).await, replica(&store, Settings::default()).await);
    assert_eq!(kids(&one), kids(&two));
    let day = Settings::default().rotation.get();
    let before = one.assertion(&subject("a"), NOW).unwrap();
    let fetched = two.jwks();

    let tomorrow = NOW.plus(day);
    assert!(one.refresh(tomorrow).await);
    let after = one.assertion(&subject("a"), tomorrow).unwrap();
    assert_ne!(decode(before.split('.').next().unwrap())["kid"], decode(after.split('.').next().unwrap())["kid"]);
    assert!(verify(&after, &fetched).is_some(), "the next key was published a period ahead");
    assert!(verify(&before, &one.jwks()).is_some(), "the last key is published a period longer");
    let newcomer = Assertions::new(Settings::default(), store.clone()).unwrap();
    assert!(newcomer.refresh(tomorrow).await);
    assert!(verify(&before, &newcomer.jwks()).is_some(), "by who was not there when it signed, too");
    let later = tomorrow.plus(day);
    assert!(one.refresh(later).await);
    assert!(verify(&before, &one.jwks()).is_none(), "and then it is gone");
}

#[tokio::test]
async fn a_store_that_is_away_or_emptied_does_not_stop_signing() {
    let store = Arc::<Shelf>::default();
    let assertions = replica(&store, Settings::default()).await;
    let published = kids(&assertions);
    store.values.lock().unwrap().clear();
    assert!(assertions.refresh(NOW).await);
    assert_eq!(kids(&assertions), published, "the keys we know go back into the store");
    assert_eq!(kids(&*replica(&store, Settings::default()).await), published);

    store.away.store(true, Ordering::Relaxed);
    let in_three_days = NOW.plus(3 * Settings::default().rotation.get());
    assert!(assertions.refresh(in_three_days).await);
    let alive = Subject { identity: identity(UnixTime::MAX), ..subject("a") };
    let token = assertions.assertion(&alive, in_three_days).unwrap();
    assert!(verify(&token, &assertions.jwks()).is_some());
    assert_eq!(assertions.counters().refresh_failures.get(), 1);

    let newcomer = Assertions::new(Settings::default(), store).unwrap();
    assert!(!newcomer.refresh(NOW).await);
    assert_eq!(newcomer.assertion(&subject("a"), NOW), None);
}

#[tokio::test]
async fn keys_are_had_soon_after_the_store_is_and_readiness_waits_for_them() {
    // Shorter than the pause between two looks at keys that are there.
    let soon = |so: Box<dyn Fn() -> bool>| async move {
        let tries = async {
            while !so() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_millis(4500), tries).await.expect("soon");
    };
    let (store, cancel) = (Arc::<Shelf>::default(), CancellationToken::new());
    store.away.store(true, Ordering::Relaxed);
    let assertions = Assertions::new(Settings::default(), Arc::clone(&store) as _).unwrap();
    let watching = assertions.watch(Clock::manual(NOW), cancel.clone());
    let watched = Arc::clone(&assertions);
    soon(Box::new(move || watched.counters().refresh_failures.get() > 4)).await;
    assert!(assertions.not_ready().is_some(), "however often nobody answers");
    store.away.store(false, Ordering::Relaxed);
    let watched = Arc::clone(&assertions);
    soon(Box::new(move || watched.not_ready().is_none())).await;
    assert_eq!(kids(&assertions).len(), 2);
    cancel.cancel();
    watching.await.unwrap();

    store.away.store(true, Ordering::Relaxed);
    assert!(assertions.refresh(NOW).await && assertions.not_ready().is_none(), "it does not follow the store");
}

#[tokio::test]
async fn a_store_that_takes_no_keys_does_not_keep_a_replica_from_being_ready() {
    let store = Arc::<Shelf>::default();
    store.full.store(true, Ordering::Relaxed);
    let newcomer = Assertions::new(Settings::default(), Arc::clone(&store) as _).unwrap();
    assert!(!newcomer.refresh(NOW).await && newcomer.not_ready().is_some());
    for _ in 0..3 {
        newcomer.refresh(NOW).await;
    }
    assert_eq!(newcomer.not_ready(), None);

    // Where this period's key is there, it is signed with, though the next cannot be made.
    store.full.store(false, Ordering::Relaxed);
    replica(&store, Settings::default()).await;
    store.full.store(true, Ordering::Relaxed);
    let tomorrow = NOW.plus(Settings::default().rotation.get());
    let newcomer = Assertions::new(Settings::default(), store).unwrap();
    assert!(newcomer.refresh(tomorrow).await && newcomer.not_ready().is_none());
    assert_eq!(newcomer.counters().refresh_failures.get(), 1);
    let off = Settings { enabled: false, ..Settings::default() };
    assert_eq!(Assertions::new(off, Arc::<Shelf>::default()).unwrap().not_ready(), None);
}

#[tokio::test]
async fn after_a_store_was_emptied_every_replica_publishes_what_each_has_signed() {
    for secret in [None, Some(Secret::new("s".repeat(32)))] {
        let settings = Settings { secret, ..Settings::default() };
        let store = Arc::<Shelf>::default();
        let (old, idle) = (replica(&store, settings.clone()).await, replica(&store, settings.clone()).await);
        let before = old.assertion(&subject("a"), NOW).unwrap();
        store.values.lock().unwrap().clear();
        // One that knows none of the keys is quicker than those that do.
        let restarted = replica(&store, settings.clone()).await;
        let after = restarted.assertion(&subject("b"), NOW).unwrap();
        for replica in [&old, &idle, &restarted, &old] {
            assert!(replica.refresh(NOW).await);
        }
        let newcomer = replica(&store, settings.clone()).await;
        for replica in [&old, &idle, &restarted, &newcomer] {
            let published = replica.jwks();
            assert!(verify(&before, &published).is_some() && verify(&after, &published).is_some());
            assert_eq!(kids(replica), kids(&old));
        }
        let (one, two) = (old.assertion(&subject("c"), NOW).unwrap(), newcomer.assertion(&subject("c"), NOW).unwrap());
        assert_eq!(one.split('.').next(), two.split('.').next(), "all sign with the one that won");
        // Emptied once more, all of it comes back.
        store.values.lock().unwrap().clear();
        assert!(old.refresh(NOW).await && kids(&old) == kids(&newcomer));
        assert_eq!(kids(&*replica(&store, settings).await), kids(&old));
    }
}

#[tokio::test]
async fn a_key_planted_in_the_store_is_not_taken_where_there_is_a_secret() {
    let store = Arc::<Shelf>::default();
    let planted = replica(&store, Settings::default()).await;
    let settings = Settings { secret: Some(Secret::new("s".repeat(32))), ..Settings::default() };
    let assertions = replica(&store, settings.clone()).await;
    assert!(kids(&assertions).is_disjoint(&kids(&planted)));
    store.values.lock().unwrap().clear();
    let fresh = replica(&store, settings).await;
    let values = store.values.lock().unwrap();
    assert!(values.values().all(|value| String::from_utf8_lossy(value).contains("sealed")));
    assert!(kids(&fresh).is_disjoint(&kids(&planted)));
}

#[tokio::test]
async fn a_secret_that_is_set_changed_or_taken_away_stops_no_assertion() {
    let secret = |letter: &str| Some(Secret::new(letter.repeat(32)));
    let with = |secret| Settings { secret, ..Settings::default() };
    let store = Arc::<Shelf>::default();
    let mut seen = HashSet::new();
    for settings in [with(None), with(secret("a")), with(secret("b")), with(None)] {
        // Two replicas, one of which comes later: both sign, with the same keys.
        let (one, two) = (replica(&store, settings.clone()).await, replica(&store, settings).await);
        let token = one.assertion(&subject("a"), NOW).unwrap();
        assert!(verify(&token, &two.jwks()).is_some());
        seen.extend(kids(&one));
    }
    assert_eq!(seen.len(), 6, "two keys of each secret, and none is another's");
    // Replicas of all of them go on, also into the next period.
    let next = NOW.plus(Settings::default().rotation.get());
    for settings in [with(None), with(secret("a")), with(secret("b"))] {
        let replica = replica(&store, settings).await;
        assert!(replica.refresh(next).await);
        assert_eq!(replica.counters().refresh_failures.get(), 0);
    }
}

#[tokio::test]
async fn while_a_secret_changes_all_replicas_that_know_both_use_the_same_keys() {
    let secret = |letter: &str| Secret::new(letter.repeat(32));
    for before in [None, Some(secret("a"))] {
        let store = Arc::<Shelf>::default();
        let old = Settings { secret: before.clone(), ..Settings::default() };
        let ready = Settings { other_secrets: vec![secret("b")], ..old.clone() };
        let other_secrets = vec![before.unwrap_or_else(|| Secret::new(""))];
        let new = Settings { secret: Some(secret("b")), other_secrets, ..Settings::default() };
        let replicas = [
            replica(&store, old).await,
            replica(&store, ready.clone()).await,
            replica(&store, new.clone()).await,
            replica(&store, ready).await,
        ];
        assert!(replicas.iter().all(|replica| kids(replica) == kids(&replicas[0])));
        // The key of a later period, which a replica of the new secret makes, those that were made ready open.
        let next = NOW.plus(Settings::default().rotation.get());
        let [_, ready, new, later] = &replicas;
        for replica in [new, ready, later] {
            assert!(replica.refresh(next).await);
        }
        let token = new.assertion(&subject("a"), next).unwrap();
        assert!(verify(&token, &ready.jwks()).is_some() && verify(&token, &later.jwks()).is_some());
        assert!(kids(ready) == kids(new) && kids(later) == kids(new));
    }
}

#[tokio::test]
async fn a_secret_that_was_changed_outright_changes_in_steps_afterwards() {
    let secret = |letter: &str| Secret::new(letter.repeat(32));
    let with = |own: &str, other: &str| Settings {
        secret: Some(secret(own)),
        other_secrets: vec![secret(other)],
        ..Settings::default()
    };
    for first in [None, Some(secret("z"))] {
        let store = Arc::<Shelf>::default();
        replica(&store, Settings { secret: first, ..Settings::default() }).await;
        let outright = replica(&store, Settings { secret: Some(secret("a")), ..Settings::default() }).await;
        let old = replica(&store, with("a", "b")).await;
        let new = replica(&store, with("b", "a")).await;
        assert_eq!((kids(&outright), kids(&old)), (kids(&new), kids(&new)));
    }
    // Both secrets had keys of their own: whoever knows both publishes both.
    let store = Arc::<Shelf>::default();
    for settings in [None, Some(secret("a")), Some(secret("b"))] {
        replica(&store, Settings { secret: settings, ..Settings::default() }).await;
    }
    let (old, new) = (replica(&store, with("a", "b")).await, replica(&store, with("b", "a")).await);
    assert!(kids(&old).len() == 4 && kids(&old) == kids(&new));
}

/// Prints what signing and reusing cost: `cargo test --release --test assertion -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_signing_and_reuse() {
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256] {
        let assertions = replica(&Arc::default(), Settings { algorithm, ..Settings::default() }).await;
        let subjects: Vec<_> = (0..2000).map(|rules| Subject { rules, ..subject("a") }).collect();
        let begun = Instant::now();
        subjects.iter().for_each(|subject| drop(assertions.assertion(subject, NOW)));
        let signed = begun.elapsed() / 2000;
        let begun = Instant::now();
        (0..100).for_each(|_| subjects.iter().for_each(|subject| drop(assertions.assertion(subject, NOW))));
        println!("{}: signed in {signed:?}, reused in {:?}", algorithm.as_str(), begun.elapsed() / 200_000);
    }
}
