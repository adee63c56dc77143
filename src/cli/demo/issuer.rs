//! A demo issuer: three keys, a key set, a discovery document, and any token that is asked for.
//!
//! It asks nobody for a password. That is its purpose, and why it listens on loopback unless told otherwise.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Args;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::DemoError;
use crate::{
    clock::Clock,
    identity::{
        Algorithm,
        mint::{self, SigningKey},
    },
};

/// What tokens of the demo are for.
pub(super) const AUDIENCE: &str = "countersign-demo";

/// Seconds that a token lives when nobody says otherwise.
const LIFE: u64 = 12 * 3600;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDsa];

/// An issuer that mints whatever it is asked for: for demos and test meshes only.
#[derive(Debug, Args)]
#[command(hide = true)]
pub(in crate::cli) struct DemoIssuer {
    /// Address to listen on. Whoever reaches it gets any token; port 0 picks one and prints it.
    #[arg(long, default_value = "127.0.0.1:9195")]
    listen: SocketAddr,
    /// Folder of its keys (made when missing) and its key set, `jwks.json`.
    #[arg(long)]
    dir: PathBuf,
    /// The `iss` of its tokens; by default where it listens.
    #[arg(long)]
    issuer: Option<String>,
}

impl DemoIssuer {
    pub(in crate::cli) fn run(self) -> ExitCode {
        super::block_on(async {
            let listener = super::listen(self.listen).await?;
            let address = listener.local_addr()?;
            let name = self.issuer.unwrap_or_else(|| format!("http://{address}"));
            let issuer = Issuer::open(&self.dir, name, Clock::system())?;
            println!("listening on {address}, issuer {}", issuer.name);
            super::until_signal(async { axum::serve(listener, issuer.routes()).await }).await
        })
    }
}

/// Keys and a name.
#[derive(Debug)]
pub(super) struct Issuer {
    name: String,
    keys: Vec<SigningKey>,
    clock: Clock,
}

/// What `POST /token` may be told. Everything may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ask {
    /// RS256, ES256 (the default) or EdDSA.
    pub(super) algorithm: Option<String>,
    /// Beside or instead of the usual claims; `null` leaves one out.
    pub(super) claims: Map<String, Value>,
}

impl Issuer {
    /// Reads the keys kept in `folder`, or makes them and keeps them (mode 0600), and writes `jwks.json` beside them.
    pub(super) fn open(folder: &Path, name: String, clock: Clock) -> Result<Arc<Self>, DemoError> {
        fs::create_dir_all(folder)?;
        let keys: Vec<_> = ALGORITHMS.iter().map(|algorithm| key(folder, *algorithm)).collect::<Result<_, _>>()?;
        fs::write(folder.join("jwks.json"), mint::key_set(&keys))?;
        Ok(Arc::new(Self { name, keys, clock }))
    }

    /// A token with the usual claims, changed as `ask` says.
    pub(super) fn mint(&self, ask: &Ask) -> Result<String, DemoError> {
        let wanted = ask.algorithm.as_deref().unwrap_or(Algorithm::ES256.as_str());
        let key = self.keys.iter().find(|key| key.algorithm().as_str() == wanted);
        let key = key.ok_or_else(|| DemoError::NoSuchAlgorithm(wanted.to_owned()))?;
        Ok(key.token(&self.claims(ask))?)
    }

    /// Seconds since 1970, for claims that are times.
    pub(super) fn now(&self) -> u64 {
        self.clock.now().as_secs()
    }

    fn claims(&self, ask: &Ask) -> Value {
        let now = self.now();
        let mut claims = json!({
            "iss": self.name, "aud": AUDIENCE, "sub": "alice", "client_id": "demo-web",
            "jti": random_id(), "sid": random_id(),
            "iat": now, "auth_time": now, "exp": now + LIFE, "amr": ["pwd", "otp"],
        });
        for (name, value) in &ask.claims {
            claims[name] = value.clone();
        }
        if let Value::Object(claims) = &mut claims {
            claims.retain(|_, value| !value.is_null());
        }
        claims
    }

    pub(super) fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/jwks", get(key_set))
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/token", post(token))
            .with_state(self)
    }
}

async fn key_set(State(issuer): State<Arc<Issuer>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], mint::key_set(&issuer.keys)).into_response()
}

async fn discovery(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    let name = &issuer.name;
    Json(json!({
        "issuer": name,
        "jwks_uri": format!("{name}/jwks"),
        "token_endpoint": format!("{name}/token"),
        "id_token_signing_alg_values_supported": ALGORITHMS.map(Algorithm::as_str),
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
    }))
}

async fn token(State(issuer): State<Arc<Issuer>>, Json(ask): Json<Ask>) -> Response {
    match issuer.mint(&ask) {
        Ok(token) => Json(json!({ "access_token": token, "token_type": "Bearer" })).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({ "error": error.to_string() }))).into_response(),
    }
}

/// The key of `algorithm` kept in `folder`, or a new one.
fn key(folder: &Path, algorithm: Algorithm) -> Result<SigningKey, DemoError> {
    let kid = format!("demo-{}", algorithm.as_str().to_lowercase());
    let file = folder.join(format!("{kid}.pk8"));
    if let Ok(der) = fs::read(&file) {
        return Ok(SigningKey::from_pkcs8(algorithm, kid, &der)?);
    }
    let key = SigningKey::generate(algorithm, kid)?;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(&key.to_pkcs8()?)?;
    Ok(key)
}

pub(super) fn random_id() -> String {
    hex::encode(rand::random::<[u8; 12]>())
}
