//! What agents on devices speak: enrol with a one-time code, renew with the key of the certificate in use. Plain HTTP and
//! JSON; an Envoy in front brings TLS.
//!
//! Tells a device everything that is wrong with it, and nobody whether a code was wrong, used or too late. Every grant and
//! every refusal leaves an audit record; of a flood of one kind, the first ones do.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    device::enroll::{AuthorityError, EnrollError, Enrolled, Enrollment, Issue, Posture, Renewal},
    domain::{Secret, UnixTime},
    store::StoreErrorKind,
    telemetry::audit::{AdminRecord, Auditor},
};

/// A request with two certificates and an RSA key of 8192 bits fits.
const MAX_BODY: usize = 64 * 1024;
/// Refusals of one kind that are written down in a minute, and as many at once.
const FAILURES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).unwrap();
/// Signatures and hashes one request may cost are bounded by how many run at once.
const AT_ONCE: usize = 16;

#[derive(Debug)]
struct Desk {
    enrollment: Arc<Enrollment>,
    auditor: Arc<Auditor>,
    clock: Clock,
    /// By kind: a flood of wrong codes, which anybody can make, hides no device that is barred.
    failures: DefaultKeyedRateLimiter<&'static str>,
    places: tokio::sync::Semaphore,
}

/// The routes under `/devices`.
pub fn router(enrollment: Arc<Enrollment>, auditor: Arc<Auditor>, clock: Clock) -> Router {
    let failures = RateLimiter::keyed(Quota::per_minute(FAILURES_PER_MINUTE));
    let desk = Desk { enrollment, auditor, clock, failures, places: tokio::sync::Semaphore::new(AT_ONCE) };
    Router::new()
        .route("/devices/enroll", post(enroll))
        .route("/devices/renew", post(renew))
        .route("/devices/ca.pem", get(authority))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(desk))
}

/// What an agent sends to enrol.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Application {
    code: Secret,
    csr: String,
    #[serde(default)]
    device: Posture,
}

/// What an agent sends to renew.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    certificate: String,
    csr: String,
    time: u64,
    signature: String,
    #[serde(default)]
    device: Posture,
}

#[derive(Debug, Serialize)]
struct Granted<'a> {
    device_id: &'a str,
    certificate: &'a str,
    authority: &'a str,
    expires_at: u64,
    renew_after: u64,
}

#[derive(Debug, Serialize)]
struct Refused {
    error: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    issues: Vec<Issue>,
}

/// To its end and its record, also when the agent has hung up meanwhile.
async fn whole(work: impl Future<Output = Response> + Send + 'static) -> Response {
    tokio::spawn(work).await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn enroll(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    whole(async move { desk.enroll(&body).await }).await
}

async fn renew(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    whole(async move { desk.renew(&body).await }).await
}

async fn authority(State(desk): State<Arc<Desk>>) -> Response {
    let pem = desk.enrollment.authority().pem().to_owned();
    ([(CONTENT_TYPE, "application/pem-certificate-chain")], pem).into_response()
}

/// What cannot be read is told by its place, never by its content: it may hold a code.
fn unreadable(error: &serde_json::Error) -> Response {
    let why = match error.classify() {
        serde_json::error::Category::Data => "a field is missing, unknown or of the wrong type",
        _ => "the body is no JSON",
    };
    let message = format!("{why} (line {}, column {})", error.line(), error.column());
    refusal(StatusCode::BAD_REQUEST, Refused { error: "malformed", message, issues: Vec::new() })
}

impl Desk {
    async fn enroll(&self, body: &[u8]) -> Response {
        let Ok(_place) = self.places.try_acquire() else { return busy() };
        let application: Application = match serde_json::from_slice(body) {
            Ok(application) => application,
            Err(error) => return unreadable(&error),
        };
        let result = self.enrollment.enroll(application.code.expose(), &application.csr, &application.device).await;
        let result = result.map(|(enrolled, user)| (enrolled, Some(user)));
        self.answer("device.enroll", result)
    }

    async fn renew(&self, body: &[u8]) -> Response {
        let Ok(_place) = self.places.try_acquire() else { return busy() };
        let Wish { certificate, csr, time, signature, device } = match serde_json::from_slice(body) {
            Ok(wish) => wish,
            Err(error) => return unreadable(&error),
        };
        let renewal = Renewal { certificate, csr, time, signature };
        let result = self.enrollment.renew(&renewal, &device).await.map(|enrolled| (enrolled, None));
        self.answer("device.renew", result)
    }

    fn answer(&self, action: &str, result: Result<(Enrolled, Option<String>), EnrollError>) -> Response {
        match result {
            Ok((enrolled, user)) => {
                let target = format!("device:{}", enrolled.id);
                let user = user.or_else(|| enrolled.record.user.as_ref().map(ToString::to_string));
                let detail = user.map(|user| format!("of {user}"));
                self.record(action, "done", target, detail);
                self.granted(&enrolled)
            }
            Err(error) => {
                let (status, code) = outcome(&error);
                if self.failures.check_key(&code).is_ok() {
                    self.record(action, "refused", "device:?".to_owned(), Some(error.to_string()));
                }
                let message = error.to_string();
                let issues = if let EnrollError::NotCompliant(issues) = error { issues } else { Vec::new() };
                refusal(status, Refused { error: code, message, issues })
            }
        }
    }

    fn granted(&self, enrolled: &Enrolled) -> Response {
        let granted = Granted {
            device_id: enrolled.id.as_str(),
            certificate: &enrolled.certificate.pem,
            authority: self.enrollment.authority().pem(),
            expires_at: enrolled.certificate.expires.as_secs(),
            renew_after: enrolled.renew_after.as_secs(),
        };
        (StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(granted)).into_response()
    }

    fn record(&self, action: &str, outcome: &str, target: String, detail: Option<String>) {
        let at: UnixTime = self.clock.now();
        let (actor, action, outcome) = ("device agent".into(), action.to_owned(), outcome.to_owned());
        self.auditor.admin(AdminRecord { at, actor, peer: None, action, target, outcome, detail });
    }
}

/// Status and stable code of a refusal.
fn outcome(error: &EnrollError) -> (StatusCode, &'static str) {
    match error {
        EnrollError::Code => (StatusCode::UNAUTHORIZED, "code_invalid"),
        EnrollError::Request(_) => (StatusCode::BAD_REQUEST, "csr_refused"),
        EnrollError::Posture(_) | EnrollError::Id | EnrollError::User | EnrollError::Life => {
            (StatusCode::BAD_REQUEST, "malformed")
        }
        EnrollError::NotCompliant(_) => (StatusCode::FORBIDDEN, "not_compliant"),
        EnrollError::OtherOwner | EnrollError::Barred(_) => (StatusCode::FORBIDDEN, "device_barred"),
        EnrollError::NotEnrolled => (StatusCode::FORBIDDEN, "not_enrolled"),
        EnrollError::Certificate => (StatusCode::UNAUTHORIZED, "certificate_refused"),
        EnrollError::Expired => (StatusCode::UNAUTHORIZED, "certificate_expired"),
        EnrollError::Clock => (StatusCode::UNAUTHORIZED, "clock_skew"),
        EnrollError::Signature => (StatusCode::UNAUTHORIZED, "signature_invalid"),
        EnrollError::Replayed => (StatusCode::CONFLICT, "replayed"),
        EnrollError::Changed => (StatusCode::CONFLICT, "changed"),
        EnrollError::Store(error) if error.kind == StoreErrorKind::Malformed => {
            (StatusCode::INTERNAL_SERVER_ERROR, "record_malformed")
        }
        EnrollError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        EnrollError::Authority(AuthorityError::Over) => (StatusCode::SERVICE_UNAVAILABLE, "authority_expired"),
        EnrollError::Authority(_) | EnrollError::Random => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

fn refusal(status: StatusCode, refused: Refused) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(refused)).into_response()
}

fn busy() -> Response {
    let message = "too many at once".to_owned();
    let refused = Refused { error: "busy", message, issues: Vec::new() };
    let wait = Duration::from_secs(1).as_secs().to_string();
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, wait)], Json(refused)).into_response()
}
