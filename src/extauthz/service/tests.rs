//! One call after another over HTTP/2, as Envoy makes them: a check that panics, a caller that waits a short time.

use std::{collections::HashMap, sync::atomic::AtomicBool};

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse,
    attribute_context::{HttpRequest, Request as Asked},
    check_response::HttpResponse,
};
use h2::client::SendRequest;
use prost::Message as _;
use serde_json::json;
use tokio::io::duplex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::{
    assertion::Assertions,
    clock::Clock,
    config::{self, Config},
    device::{Certificates, Devices},
    domain::{
        UnixTime,
        metric::{Page, Source as _, Value},
    },
    identity::{
        Algorithm, Authenticator,
        mint::{SigningKey, key_set},
    },
    location::Locator,
    notice::Notices,
    quota::Quotas,
    revocation::Revocations,
    session::Sessions,
    store::{Store, memory::Memory},
    telemetry::{audit::Auditor, trace::Tracer},
};

const NOW: u64 = 1_900_000_000;

const RULES: &str = r#"
defaults: { min_trust_level: untrusted, device: when_present }
guards: []
resources: [{ id: all, match: { paths: [/limited] }, access: authenticated, policy: limited }]
policies: [{ id: limited, rate_limits: [{ scope: user, limit: 100, window: 1h }], actions: [{ type: allow }] }]
"#;

/// Everything that answers checks, with a store of rate limits that panics when it is told to.
pub(in crate::extauthz) struct Service {
    pub(in crate::extauthz) checks: Arc<Checks>,
    token: String,
    panics: Arc<AtomicBool>,
    _stop: DropGuard,
}

impl Service {
    pub(in crate::extauthz) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (keys, rules) = (folder.path().join("jwks.json"), folder.path().join("rules.yaml"));
        let key = SigningKey::generate(Algorithm::ES256, "key").unwrap();
        std::fs::write(&keys, key_set([&key])).unwrap();
        std::fs::write(&rules, RULES).unwrap();
        let text = json!({
            "identity": { "issuers": [{ "issuer": "https://issuer.test", "audiences": ["api.test"], "jwks": keys }] },
            "rules": [rules], "risk": { "model": "none" }, "assertion": { "enabled": false }, "audit": { "sink": "none" },
        });
        let (config, _) = config::parse("test", &text.to_string(), &Default::default()).unwrap();
        let token = json!({
            "iss": "https://issuer.test", "aud": "api.test", "sub": "alice", "jti": "t-1", "sid": "s-1",
            "iat": NOW - 10, "exp": NOW + 600, "amr": ["pwd", "otp"],
        });
        let (panics, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let pipeline = pipeline(&config, &panics, &stop).await;
        let settings = Settings { deadline: Duration::from_secs(5).into(), ..Settings::default() };
        let checks = Checks::new(pipeline, settings, AnswerSettings::default(), Default::default());
        Self { checks: Arc::new(checks), token: key.token(&token).unwrap(), panics, _stop: stop.drop_guard() }
    }

    /// One connection to it.
    async fn connect(&self) -> SendRequest<Bytes> {
        let (near, far) = duplex(1 << 20);
        let checks = Arc::clone(&self.checks);
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(near).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                let checks = Arc::clone(&checks);
                tokio::spawn(async move { checks.answer(request, respond).await });
            }
        });
        let (requests, connection) = h2::client::handshake(far).await.unwrap();
        tokio::spawn(connection);
        requests
    }

    fn question(&self) -> Vec<u8> {
        let http = HttpRequest {
            method: "GET".into(),
            scheme: "https".into(),
            host: "shop.example".into(),
            path: "/limited".into(),
            headers: HashMap::from([("authorization".into(), format!("Bearer {}", self.token))]),
            ..HttpRequest::default()
        };
        let request = Some(Asked { http: Some(http), ..Asked::default() });
        let message = CheckRequest { attributes: Some(AttributeContext { request, ..AttributeContext::default() }) };
        let message = message.encode_to_vec();
        [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
    }

    fn counted_panics(&self) -> u64 {
        let mut page = Page::default();
        self.checks.pipeline.collect(&mut page);
        let family = page.families().iter().find(|family| family.name == "countersign_panics").unwrap();
        let Value::Counter(count) = family.samples[0].value else { panic!("{family:?}") };
        count
    }
}

async fn pipeline(config: &Config, panics: &Arc<AtomicBool>, stop: &CancellationToken) -> Arc<Pipeline> {
    let clock = Clock::manual(UnixTime::from_secs(NOW));
    let store: Arc<dyn Store> = Arc::new(Memory::new(clock.steady()));
    let (told, time) = (Arc::clone(panics), clock.clone());
    let limits = Memory::new(move || {
        assert!(!told.swap(false, Ordering::Relaxed), "on purpose");
        time.now()
    });
    let age = config.revocation.max_staleness.get();
    let identity = config.identity.clone();
    let certificates = Certificates::new(&[], None, None).unwrap();
    Arc::new(Pipeline {
        authenticator: Authenticator::start(identity, clock.clone(), store.clone(), stop.clone()).await.unwrap(),
        revocations: Revocations::start(store.clone(), config.revocation.clone(), clock.clone(), stop.clone()),
        notices: Notices::start(store.clone(), clock.clone(), age, 100, stop.clone()),
        sessions: Sessions::start(store.clone(), config.session.clone(), clock.clone(), age, stop.clone()),
        devices: Devices::start(store.clone(), &config.devices, certificates, clock.clone(), stop.clone()),
        locator: Locator::open(config.location.clone()),
        behaviors: None,
        quotas: Quotas::new(Arc::new(limits)),
        rules: Arc::new(ArcSwap::from_pointee(config.load_rules().unwrap().0.rules)),
        assertions: Assertions::new(config.assertion.clone(), store).unwrap(),
        auditor: Auditor::start(&config.audit, clock.clone()).unwrap(),
        tracer: Arc::new(Tracer::start(&config.telemetry.traces, clock.clone()).unwrap()),
        counters: Arc::default(),
        trusted_hops: None,
        clock,
    })
}

/// Asks with this message, or with one that never comes, and waits for the answer: its gRPC status and what it says.
async fn ask(
    requests: &SendRequest<Bytes>,
    message: Option<Vec<u8>>,
    timeout: &str,
) -> Result<(String, HttpResponse), h2::Error> {
    let request = Request::post(format!("http://localhost{CHECK}")).header(TIMEOUT, timeout).body(()).unwrap();
    let (answer, mut body) = requests.clone().ready().await?.send_request(request, false)?;
    if let Some(message) = message {
        body.send_data(message.into(), true)?;
    }
    let mut answer = answer.await?.into_body();
    let mut octets = Vec::new();
    while let Some(data) = answer.data().await {
        octets.extend_from_slice(&data?);
    }
    let status = answer.trailers().await?.unwrap()[STATUS].to_str().unwrap().to_owned();
    Ok((status, CheckResponse::decode(&octets[5..]).unwrap().http_response.unwrap()))
}

fn denied((status, answer): (String, HttpResponse)) -> DeniedHttpResponse {
    let HttpResponse::DeniedResponse(denied) = answer else { panic!("{answer:?}") };
    assert_eq!(status, "0", "an answer, not a gRPC error: {denied:?}");
    let id = |header: &envoy_types::pb::envoy::config::core::v3::HeaderValue| header.key == "x-zt-decision-id";
    assert!(denied.headers.iter().any(|option| option.header.as_ref().is_some_and(id)), "{denied:?}");
    denied
}

fn is_allowed((status, answer): &(String, HttpResponse)) -> bool {
    status == "0" && matches!(answer, HttpResponse::OkResponse(_))
}

#[tokio::test]
async fn a_check_that_panics_is_answered_503_counted_and_ends_nothing_else() {
    let service = Service::start().await;
    let requests = service.connect().await;
    // The first time after its token has been waited for, then at once.
    for panicked in 1..=2 {
        service.panics.store(true, Ordering::Relaxed);
        let answer = ask(&requests, Some(service.question()), "10S").await.expect("the stream lives");
        assert_eq!(denied(answer).status.unwrap().code, 503);
        assert_eq!(service.counted_panics(), panicked);
        let next = ask(&requests, Some(service.question()), "10S").await.expect("the connection lives");
        assert!(is_allowed(&next), "{next:?}");
    }
    assert_eq!(service.counted_panics(), 2);
    assert_eq!(service.checks.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_answer_is_there_before_its_caller_gives_up() {
    let service = Service::start().await;
    let requests = service.connect().await;
    let asked = Instant::now();
    let answer = ask(&requests, None, "1S").await.expect("answered");
    assert_eq!(denied(answer).status.unwrap().code, 503);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let shipped = Settings::default().deadline.get();
    assert!(shipped < Duration::from_millis(200), "{shipped:?}: Envoy's own patience where nobody has set it");
}

#[test]
fn grpc_timeouts_are_read_in_every_unit() {
    assert_eq!(grpc_timeout(b"200m"), Some(Duration::from_millis(200)));
    assert_eq!(grpc_timeout(b"1S"), Some(Duration::from_secs(1)));
    assert_eq!(grpc_timeout(b"99999999u"), Some(Duration::from_micros(99_999_999)));
    for broken in [&b""[..], b"m", b"123456789m", b"12x", b"-1m"] {
        assert_eq!(grpc_timeout(broken), None);
    }
}

#[test]
fn a_refusal_that_panics_is_a_refusal_all_the_same() {
    assert_eq!(whatever_happens(|| Bytes::from_static(b"refused")), "refused");
    let answer = whatever_happens(|| panic!("on purpose"));
    let (prefix, message) = answer.split_at(5);
    assert_eq!(prefix, [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..]].concat());
    let answer = CheckResponse::decode(message).unwrap();
    assert_eq!(answer.status.unwrap().code, 14);
    let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else { panic!("not a refusal") };
    assert_eq!(denied.status.unwrap().code, 503);
}
