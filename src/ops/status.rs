//! The status page: what this replica does just now, for a person, and why it refused what it refused. Loopback only, or with a
//! token. It shows what `explain` shows, never a token or a secret, and changes nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Map, Value};

use super::{Ops, Peer};
use crate::domain::Secret;

const PAGE: &str = include_str!("status.html");
const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Arc<Ops>> {
    Router::new()
        .route("/status", get(page))
        .route("/status.json", get(sections))
        .route("/status/explain/{id}", get(explain))
        .route("/status.css", get(|| text("text/css; charset=utf-8", STYLE)))
        .route("/status.js", get(|| text("text/javascript; charset=utf-8", SCRIPT)))
}

/// The empty forms of the page: nothing in them to protect.
async fn text(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

async fn page(State(ops): State<Arc<Ops>>, peer: Option<Extension<Peer>>, headers: HeaderMap) -> Response {
    if !may_see(&ops, peer, &headers) {
        return refused();
    }
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)], PAGE).into_response()
}

async fn sections(State(ops): State<Arc<Ops>>, peer: Option<Extension<Peer>>, headers: HeaderMap) -> Response {
    if !may_see(&ops, peer, &headers) {
        return refused();
    }
    let mut sections: Map<String, Value> = ops.status.iter().map(|(name, ask)| ((*name).to_owned(), ask())).collect();
    sections.insert("readiness".to_owned(), serde_json::to_value(ops.missing()).unwrap_or_default());
    ([(CACHE_CONTROL, "no-store")], Json(sections)).into_response()
}

async fn explain(
    State(ops): State<Arc<Ops>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    if !may_see(&ops, peer, &headers) {
        return refused();
    }
    match ops.explain.as_ref().and_then(|explain| explain(&id)) {
        Some(explanation) => ([(CACHE_CONTROL, "no-store")], Json(explanation)).into_response(),
        None => (StatusCode::NOT_FOUND, [(CACHE_CONTROL, "no-store")], "no such decision is remembered here\n")
            .into_response(),
    }
}

fn refused() -> Response {
    let words = "The status page answers on loopback, or with `Authorization: Bearer <ops.status_token>`.\n";
    (StatusCode::FORBIDDEN, [(CACHE_CONTROL, "no-store")], words).into_response()
}

fn may_see(ops: &Ops, peer: Option<Extension<Peer>>, headers: &HeaderMap) -> bool {
    (peer.is_some_and(|Extension(peer)| is_local(peer)) && was_meant_locally(headers))
        || ops.settings.status_token.as_ref().is_some_and(|token| sent(token, headers))
}

/// Whether somebody on this machine dialled its loopback. An injected sidecar passes others' calls on without a word: from
/// 127.0.0.6, or to the address that they dialled.
fn is_local(peer: Peer) -> bool {
    const HERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    HERE.contains(&peer.address.ip().to_canonical())
        && peer.dialled.is_some_and(|dialled| dialled.ip().to_canonical().is_loopback())
}

/// A proxy on this machine makes everybody local, and a page elsewhere may point a name of its own at this address: neither
/// counts as loopback.
fn was_meant_locally(headers: &HeaderMap) -> bool {
    let proxied = ["x-forwarded-for", "forwarded", "via", "x-envoy-external-address"];
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(name, _)| name);
    let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
    let local = name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
    local && !proxied.iter().any(|name| headers.contains_key(*name))
}

fn sent(token: &Secret, headers: &HeaderMap) -> bool {
    let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    sent.and_then(|value| value.split_once(' '))
        .is_some_and(|(scheme, value)| scheme.eq_ignore_ascii_case("bearer") && Secret::new(value.trim()) == *token)
}
