//! The paths: `POST /signals/ssf` (push, RFC 8935) and `POST /signals/logout` (OpenID Connect back-channel logout).
//!
//! Bounded in size, time and number. Answers name what is wrong with a token and nothing else.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    logout,
    receiver::{Receiver, Way},
    set::{Code, Problem, invalid},
};

/// Largest body, in octets.
const MAX_BODY: usize = 64 * 1024;
/// What is read of a larger one, so that its sender hears why it is refused.
const MAX_READ: usize = 256 * 1024;
/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(10);
/// Tokens that are worked on at the same time. Bodies that are on their way are bounded by connections.
const CONCURRENT: usize = 64;
const CROWDED: &str = "too many at a time";

#[derive(Clone)]
struct Door {
    receiver: Arc<Receiver>,
    room: Arc<Semaphore>,
}

/// The paths that the configuration gives a meaning.
pub(super) fn router(receiver: &Arc<Receiver>) -> Router {
    let door = Door { receiver: Arc::clone(receiver), room: Arc::new(Semaphore::new(CONCURRENT)) };
    let mut router = Router::new();
    if !receiver.transmitters.is_empty() {
        router = router.route("/signals/ssf", post(push));
    }
    if !receiver.settings.logout.is_empty() {
        router = router.route("/signals/logout", post(back_channel));
    }
    router.with_state(door)
}

async fn push(State(door): State<Door>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let token = match read(&parts.headers, "application/secevent+jwt", body).await {
        Ok(token) => token,
        Err(why) => {
            door.receiver.counters.refused(Code::InvalidRequest);
            return answer(&Problem::Refused(Code::InvalidRequest, why.to_owned()));
        }
    };
    // Not before: a body that drips in would keep somebody else's token out.
    let Ok(_place) = door.room.try_acquire() else { return answer(&Problem::Later(CROWDED)) };
    let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match door.receiver.take(token.trim_ascii(), Way::Push(authorization)).await {
        Ok(_) => StatusCode::ACCEPTED.into_response(),
        Err(problem) => answer(&problem),
    }
}

async fn back_channel(State(door): State<Door>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let taken = match read(&parts.headers, "application/x-www-form-urlencoded", body).await {
        Ok(form) => match door.room.try_acquire() {
            Ok(_place) => logout::take(&door.receiver, &form).await,
            Err(_) => return answer(&Problem::Later(CROWDED)),
        },
        Err(why) => invalid(why),
    };
    let no_store = [(CACHE_CONTROL, "no-store")];
    match taken {
        Ok(()) => {
            door.receiver.counters.logouts.increment();
            (StatusCode::OK, no_store).into_response()
        }
        // 400 says that the request is wrong; this one is not, and may be sent again.
        Err(Problem::Later(why)) => {
            door.receiver.counters.later.increment();
            tracing::warn!(why, "a back-channel logout could not be taken for now");
            answer(&Problem::Later(why))
        }
        Err(Problem::Refused(_, why)) => {
            door.receiver.counters.logouts_refused.increment();
            tracing::warn!(why, "a back-channel logout was refused");
            let words = json!({"error": "invalid_request", "error_description": why});
            (StatusCode::BAD_REQUEST, no_store, Json(words)).into_response()
        }
    }
}

/// A body of this type, as text.
async fn read(headers: &HeaderMap, wanted: &str, body: Body) -> Result<String, &'static str> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case(wanted) {
        return Err("`Content-Type` is not what this path takes");
    }
    match tokio::time::timeout(BODY, to_bytes(body, MAX_READ)).await {
        Ok(Ok(octets)) if octets.len() > MAX_BODY => Err("the body is over 64 KiB"),
        Ok(Ok(octets)) => String::from_utf8(octets.into()).map_err(|_| "the body is not text"),
        Ok(Err(_)) => Err("the body is over 64 KiB, or broke off"),
        Err(_) => Err("the body took too long"),
    }
}

/// RFC 8935 section 2.3.
fn answer(problem: &Problem) -> Response {
    let no_store = (CACHE_CONTROL, "no-store");
    match problem {
        Problem::Refused(code, why) => {
            let words = json!({"err": code.as_str(), "description": why});
            (StatusCode::BAD_REQUEST, [no_store, (CONTENT_LANGUAGE, "en")], Json(words)).into_response()
        }
        Problem::Later(_) => (StatusCode::SERVICE_UNAVAILABLE, [no_store, (RETRY_AFTER, "5")]).into_response(),
    }
}
