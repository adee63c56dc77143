//! The paths: `POST /signals/ssf` (push, RFC 8935) and `POST /signals/logout` (OpenID Connect back-channel logout).
//!
//! Bounded in size and number; how long a body may take is the port's business. Answers name what is wrong with a token and
//! nothing else.

use std::{error::Error as _, sync::Arc};

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
use http_body_util::LengthLimitError;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    logout,
    receiver::{Receiver, Way},
    set::{Problem, invalid},
};

/// Largest body, in octets.
const MAX_BODY: usize = 64 * 1024;
/// What is read of a larger one, so that its sender hears why it is refused.
const MAX_READ: usize = 256 * 1024;
/// Tokens that are worked on at the same time. Bodies that are on their way are bounded by connections.
const CONCURRENT: usize = 64;
const CROWDED: &str = "too many at a time";
const HALF: &str = "the body took too long, or broke off";

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
        Err(problem) => {
            match &problem {
                Problem::Refused(code, _) => door.receiver.counters.refused(*code),
                Problem::Later(_) => door.receiver.counters.later.increment(),
            }
            return answer(&problem);
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
        Err(problem) => Err(problem),
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
async fn read(headers: &HeaderMap, wanted: &str, body: Body) -> Result<String, Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case(wanted) {
        return invalid("`Content-Type` is not what this path takes");
    }
    match to_bytes(body, MAX_READ).await {
        Ok(octets) if octets.len() <= MAX_BODY => {
            String::from_utf8(octets.into()).or_else(|_| invalid("the body is not text"))
        }
        Err(error) if error.source().and_then(|source| source.downcast_ref::<LengthLimitError>()).is_none() => {
            // Nothing is known to be wrong with it: 400 would be the end of an event whose line was slow.
            Err(Problem::Later(HALF))
        }
        Ok(_) | Err(_) => invalid("the body is over 64 KiB"),
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

#[cfg(test)]
mod tests {
    use std::io;

    use axum::{body::Bytes, http::HeaderValue};
    use futures_util::stream::iter;

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_late_or_breaks_off_may_be_sent_again_and_a_wrong_one_is_refused() {
        const TYPE: &str = "application/secevent+jwt";
        let part = |octets: usize| Ok(Bytes::from(vec![b'a'; octets]));
        let late = || Err(io::Error::from(io::ErrorKind::TimedOut));
        for (name, body, kind, expected) in [
            ("late", vec![part(8), late()], TYPE, Err(503)),
            ("too large", vec![part(MAX_BODY), part(1)], TYPE, Err(400)),
            ("far too large", vec![part(MAX_READ), part(1), late()], TYPE, Err(400)),
            ("no text", vec![Ok(Bytes::from_static(b"\xff"))], TYPE, Err(400)),
            ("another type", vec![part(8)], "text/plain", Err(400)),
            ("whole", vec![part(MAX_BODY)], TYPE, Ok(MAX_BODY)),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            let read = read(&headers, TYPE, Body::from_stream(iter(body))).await;
            let told = read.map(|text| text.len()).map_err(|problem| answer(&problem).status().as_u16());
            assert_eq!(told, expected, "{name}");
        }
    }
}
