//! Tokens that somebody else's software made are taken, and do what they say: `tests/signals/caep-dev.json` holds what the
//! builder and signer of SGNL's `caep.dev` write, oddities and all, and while others send nothing but the beginning of theirs.
//! The clock stands where they were made.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
    response::Response,
};
use countersign::{
    clock::Clock,
    device::{self, Certificates, Devices},
    domain::UnixTime,
    identity::KeySetSettings,
    notice::Notices,
    revocation::{self, Revocations},
    signals::{Parts, Settings, Signals},
    store::{Store, keys, memory::Memory},
    telemetry::audit::{self, Auditor},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

fn fixture() -> Value {
    serde_json::from_str(include_str!("signals/caep-dev.json")).unwrap()
}

/// A receiver of that transmitter's tokens over an empty store.
fn receiver(fixture: &Value, folder: &std::path::Path) -> (Arc<Signals>, Arc<dyn Store>, Arc<Devices>) {
    let key_set = folder.join("jwks.json");
    std::fs::write(&key_set, fixture["jwks"].to_string()).unwrap();
    let settings: Settings = serde_json::from_value(json!({"transmitters": [
        {"issuer": "https://caep-dev.test", "audience": "countersign", "jwks": key_set, "algorithms": ["RS256"]},
    ]}))
    .unwrap();
    let (clock, stop) =
        (Clock::manual(UnixTime::from_secs(fixture["clock"].as_u64().unwrap() + 1)), CancellationToken::new());
    let (now, patience) = (clock.clone(), Duration::from_secs(5));
    let store: Arc<dyn Store> = Arc::new(Memory::new(move || now.now()));
    let certificates = Certificates::new(&[], None, None).unwrap();
    let devices =
        Devices::start(Arc::clone(&store), &device::Settings::default(), certificates, clock.clone(), stop.clone());
    let parts = Parts {
        store: Arc::clone(&store),
        revocations: Revocations::start(
            Arc::clone(&store),
            revocation::Settings::default(),
            clock.clone(),
            stop.clone(),
        ),
        devices: Arc::clone(&devices),
        notices: Notices::start(Arc::clone(&store), clock.clone(), patience, 1000, stop.clone()),
        auditor: Auditor::start(
            &audit::Settings { sink: audit::Sink::None, ..audit::Settings::default() },
            clock.clone(),
        )
        .unwrap(),
        clock,
    };
    let issuers = vec!["https://issuer.test".to_owned()];
    let (key_sets, counters) = (KeySetSettings::default(), Arc::default());
    (Signals::start(settings, &key_sets, issuers, parts, &counters, &stop), store, devices)
}

fn push(router: &Router, body: Body) -> impl Future<Output = Result<Response, Infallible>> {
    let request = Request::post("/signals/ssf").header("content-type", "application/secevent+jwt");
    router.clone().oneshot(request.body(body).unwrap())
}

async fn accepted(router: &Router, token: &Value) {
    let push = || push(router, Body::from(token["token"].as_str().unwrap().to_owned()));
    let mut answer = push().await.unwrap();
    // The key set is a file that is read beside us.
    for _ in 0..100 {
        if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = push().await.unwrap();
    }
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
    assert_eq!(status, StatusCode::ACCEPTED, "{}: {body:?}", token["name"]);
}

#[tokio::test]
async fn bodies_that_are_on_their_way_keep_no_token_out() {
    let (fixture, folder) = (fixture(), tempfile::tempdir().unwrap());
    let (signals, ..) = receiver(&fixture, folder.path());
    let router = signals.router();
    let slow = || Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, Infallible>>());
    let mut pushes: Vec<_> = (0..100).map(|_| Box::pin(push(&router, slow()))).collect();
    for push in &mut pushes {
        assert!(futures_util::poll!(push).is_pending());
    }
    accepted(&router, &fixture["tokens"][0]).await;
}

#[tokio::test]
async fn tokens_that_caep_dev_makes_do_what_they_say() {
    let (fixture, folder) = (fixture(), tempfile::tempdir().unwrap());
    let (signals, store, devices) = receiver(&fixture, folder.path());
    devices.put(&"d1".into(), &[("compliant", "true")], &[]).await.unwrap();
    let router = signals.router();
    for token in fixture["tokens"].as_array().unwrap() {
        accepted(&router, token).await;
    }
    let there = async |key: String| store.read(&[key]).await.unwrap().remove(0).unwrap().is_some();
    assert!(there("cs:revoked:sid:s1".to_owned()).await, "the session is revoked");
    assert!(!there("cs:revoked:sub:ann".to_owned()).await, "and that session only");
    assert_eq!(devices.get(&"d1".into()).await.unwrap().unwrap().compliant, Some(false));
    // Its credential change comes under the name of an assurance level: stricter, never less.
    assert!(there(keys::notice("authentication", "sub", "ann")).await, "a newer authentication is asked for");
}
