//! What operators and machines ask over HTTP: is it alive, is it ready, what are its numbers, which keys does it sign with.
//!
//! Everything here but the status page is for anybody who can reach the port: aggregates only, no subject, path or address.
//! It changes nothing. What it shows comes from [`Sources`], which `app` fills; it knows no store and no stage by itself.

mod metrics;
mod serve;
mod settings;
mod status;
mod taken;

use std::{fmt, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;
use serde_json::Value;

use self::metrics::Metrics;
pub use self::{
    serve::{Listener, Peer, serve},
    settings::Settings,
};
use crate::domain::metric;

/// One thing that must hold before requests are sent here. `Err`: what is missing, in words.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What this process is worse for though it is ready, in words.
pub type Wanting = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// Something that is asked anew each time and answers in JSON.
pub type Ask = Box<dyn Fn() -> Value + Send + Sync>;

/// Explains a decision that is still remembered, by its id.
pub type Explain = Box<dyn Fn(&str) -> Option<Value> + Send + Sync>;

/// Where the answers come from.
#[derive(Default)]
pub struct Sources {
    pub metrics: Vec<Arc<dyn metric::Source>>,
    /// By name: `keys`, `rules`, `store`, `draining`, …
    pub ready: Vec<(&'static str, Check)>,
    pub wanting: Option<Wanting>,
    /// The key set that upstreams verify assertions with: `{"keys": […]}`.
    pub keys: Option<Ask>,
    /// Sections of the status page, by name.
    pub status: Vec<(&'static str, Ask)>,
    /// What the status page shows of one decision.
    pub explain: Option<Explain>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready: Vec<_> = self.ready.iter().map(|(name, _)| name).collect();
        f.debug_struct("Sources").field("metrics", &self.metrics.len()).field("ready", &ready).finish_non_exhaustive()
    }
}

struct Ops {
    metrics: Metrics,
    ready: Vec<(&'static str, Check)>,
    wanting: Option<Wanting>,
    keys: Option<Ask>,
    status: Vec<(&'static str, Ask)>,
    explain: Option<Explain>,
    settings: Settings,
}

impl Ops {
    fn missing(&self) -> Vec<Missing> {
        self.ready.iter().filter_map(|(what, check)| Some(Missing { what, why: check().err()? })).collect()
    }
}

/// The routes. Requests must carry a [`Peer`] for the status page to answer; [`serve`] adds it.
pub fn router(sources: Sources, settings: Settings) -> Router {
    let Sources { metrics, ready, wanting, keys, status, explain } = sources;
    let ops = Arc::new(Ops { metrics: Metrics::new(metrics), ready, wanting, keys, status, explain, settings });
    Router::new()
        .route("/healthz", get(|| async { Json(Health { status: "ok" }) }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(scrape))
        .route("/.well-known/jwks.json", get(keys_of))
        .merge(status::routes())
        .with_state(ops)
}

/// The process lives and answers. Nothing else: a liveness check that follows dependencies restarts what is not broken.
#[derive(Serialize)]
struct Health {
    status: &'static str,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    missing: Vec<Missing>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wanting: Vec<String>,
}

#[derive(Serialize)]
struct Missing {
    what: &'static str,
    why: String,
}

async fn readiness(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    let missing = ops.missing();
    let wanting = ops.wanting.as_ref().map_or_else(Vec::new, |wanting| wanting());
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CACHE_CONTROL, "no-store")], Json(Readiness { ready: missing.is_empty(), missing, wanting }))
}

async fn scrape(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    ops.metrics
        .render()
        .map(|text| ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// A new key is here before anything is signed with it, longer than answers may be cached.
async fn keys_of(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    let keys = ops.keys.as_ref().map_or_else(|| serde_json::json!({"keys": []}), |keys| keys());
    ([(CACHE_CONTROL, "public, max-age=60")], Json(keys))
}
