//! A real issuer over HTTP on loopback, and the real authenticator in front of it, with a clock that tests move.
#![allow(dead_code, unreachable_pub, reason = "shared by several test binaries, each of which uses a part")]

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use countersign::{
    clock::Clock,
    domain::{Credential, CredentialProblem, Fact, Possession, Unavailable, UnixTime},
    identity::{
        Algorithm, Authentication, Authenticator, Credentials, Detail, HeaderValues, IssuerSettings, Settings,
        mint::{SigningKey, key_set},
    },
    store::{Store, memory::Memory},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub const NOW: u64 = 1_900_000_000;
pub const AUDIENCE: &str = "api.example.com";

/// Keys are costly to make: one of each kind for the whole binary.
pub static RSA: LazyLock<SigningKey> = LazyLock::new(|| make(Algorithm::RS256, "rsa"));
pub static P256: LazyLock<SigningKey> = LazyLock::new(|| make(Algorithm::ES256, "p256"));
pub static P384: LazyLock<SigningKey> = LazyLock::new(|| make(Algorithm::ES384, "p384"));
pub static ED: LazyLock<SigningKey> = LazyLock::new(|| make(Algorithm::EdDsa, "ed"));
/// Never in any key set.
pub static FOREIGN: LazyLock<SigningKey> = LazyLock::new(|| make(Algorithm::ES256, "p256"));
pub static FOREIGN_RSA: LazyLock<SigningKey> = LazyLock::new(|| make(Algorithm::RS256, "rsa"));

pub fn make(algorithm: Algorithm, kid: &str) -> SigningKey {
    SigningKey::generate(algorithm, kid).unwrap()
}

/// What a path of the issuer answers.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub delay: Duration,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: vec![], body: body.into(), delay: Duration::ZERO }
    }

    pub fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

#[derive(Default)]
pub struct Site {
    pub answers: HashMap<String, Answer>,
    pub hits: HashMap<String, usize>,
    pub bodies: Vec<Bytes>,
    /// The header `authorization` of each request that had one.
    pub authorizations: Vec<String>,
}

pub type Shared = Arc<Mutex<Site>>;

/// An HTTP server that answers as told and counts what it was asked.
pub struct Issuer {
    pub url: String,
    pub site: Shared,
}

impl Issuer {
    pub async fn start() -> Self {
        let site = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, site }
    }

    pub fn serve(&self, path: &str, answer: Answer) {
        self.site.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    pub fn serve_keys<'k>(&self, keys: impl IntoIterator<Item = &'k SigningKey>) {
        self.serve("/jwks", Answer::ok(key_set(keys)));
    }

    pub fn hits(&self, path: &str) -> usize {
        self.site.lock().unwrap().hits.get(path).copied().unwrap_or(0)
    }

    pub fn all_hits(&self) -> usize {
        self.site.lock().unwrap().hits.values().sum()
    }

    pub fn settings(&self) -> IssuerSettings {
        let mut issuer = IssuerSettings::new(&self.url, [AUDIENCE]);
        issuer.jwks = Some(format!("{}/jwks", self.url));
        issuer.algorithms = Algorithm::ALL.to_vec();
        issuer
    }
}

async fn answer(State(site): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let answer = {
        let mut site = site.lock().unwrap();
        *site.hits.entry(parts.uri.path().to_owned()).or_default() += 1;
        site.bodies.push(body);
        site.authorizations.extend(parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()));
        site.answers.get(parts.uri.path()).cloned().unwrap_or_else(|| Answer::status(404))
    };
    tokio::time::sleep(answer.delay).await;
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body)).unwrap()
}

/// What became of one request, in a form that compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed(Option<Possession>),
    Refused(CredentialProblem, Detail),
    Nothing,
    Unavailable(Unavailable),
}

impl Outcome {
    pub fn is_refused(self) -> bool {
        matches!(self, Self::Refused(..))
    }

    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed(_))
    }

    pub fn detail(self) -> Option<Detail> {
        match self {
            Self::Refused(_, detail) => Some(detail),
            _ => None,
        }
    }
}

pub fn outcome(authentication: &Authentication) -> Outcome {
    match (&authentication.credential, authentication.detail) {
        (Fact::Known { value: Credential::Verified { proof, .. }, .. }, None) => Outcome::Allowed(*proof),
        (Fact::Known { value: Credential::Refused(problem), .. }, Some(detail)) => Outcome::Refused(*problem, detail),
        (Fact::Absent, None) => Outcome::Nothing,
        (Fact::Unavailable(why), None) => Outcome::Unavailable(*why),
        other => panic!("a fact and a detail that do not fit: {other:?}"),
    }
}

/// An issuer with one key of each kind, and an authenticator that trusts it.
pub struct Rig {
    pub issuer: Issuer,
    pub authenticator: Arc<Authenticator>,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub cancelled: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// `change` sees the settings before the start.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let issuer = Issuer::start().await;
        issuer.serve_keys([&*RSA, &*P256, &*P384, &*ED]);
        Self::before(issuer, change).await
    }

    /// The authenticator alone, before an issuer that is set up already.
    pub async fn before(issuer: Issuer, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { issuers: vec![issuer.settings()], ..Settings::default() };
        change(&mut settings);
        let clock = Clock::manual(UnixTime::from_secs(NOW));
        let ticking = clock.clone();
        let store: Arc<dyn Store> = Arc::new(Memory::new(move || ticking.now()));
        let cancelled = CancellationToken::new();
        let authenticator =
            Authenticator::start(settings, clock.clone(), store.clone(), cancelled.clone()).await.unwrap();
        Self { issuer, authenticator, clock, store, cancelled }
    }

    /// Claims of a good token.
    pub fn claims(&self) -> Value {
        claims(&self.issuer.url)
    }

    pub fn token(&self) -> String {
        P256.token(&self.claims()).unwrap()
    }

    /// A good token with some claims changed; `null` removes one.
    pub fn token_with(&self, changes: Value) -> String {
        P256.token(&changed(self.claims(), changes)).unwrap()
    }

    pub async fn bearer(&self, token: &str) -> Outcome {
        self.authorization(&format!("Bearer {token}")).await
    }

    /// With no time to wait.
    pub async fn bearer_at_once(&self, token: &str) -> Outcome {
        let value = format!("Bearer {token}");
        let credentials = Credentials { authorization: HeaderValues::one(value.as_bytes()), ..Credentials::default() };
        outcome(&self.authenticator.authenticate(&credentials, self.clock.now(), Instant::now()).await)
    }

    pub async fn authorization(&self, value: &str) -> Outcome {
        self.ask(&Credentials { authorization: HeaderValues::one(value.as_bytes()), ..Credentials::default() }).await
    }

    pub async fn ask(&self, credentials: &Credentials<'_>) -> Outcome {
        outcome(&self.authenticate(credentials).await)
    }

    pub async fn authenticate(&self, credentials: &Credentials<'_>) -> Authentication {
        let deadline = Instant::now() + Duration::from_secs(5);
        self.authenticator.authenticate(credentials, self.clock.now(), deadline).await
    }

    pub async fn identity(&self, token: &str) -> Arc<countersign::domain::Identity> {
        let value = format!("Bearer {token}");
        let credentials = Credentials { authorization: HeaderValues::one(value.as_bytes()), ..Credentials::default() };
        let answer = self.authenticate(&credentials).await;
        answer.entry.unwrap_or_else(|| panic!("not verified: {:?}", answer.detail)).identity.clone()
    }

    /// Waits, in real time, until `done`.
    pub async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("did not come: {what}");
    }
}

pub fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "sub": "alice", "aud": AUDIENCE, "jti": "t-1", "iat": NOW - 10, "exp": NOW + 600,
        "sid": "s-1", "roles": ["clerk"], "amr": ["pwd", "otp"],
    })
}

/// `null` removes a claim; to send a null, write it as text.
#[expect(clippy::needless_pass_by_value, reason = "callers write the changes in place")]
pub fn changed(mut claims: Value, changes: Value) -> Value {
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap().clone() {
        match value {
            Value::Null => drop(members.remove(&name)),
            value => drop(members.insert(name, value)),
        }
    }
    claims
}
