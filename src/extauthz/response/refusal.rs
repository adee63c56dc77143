//! What a client is told when it is not let through: status, headers, and a body it can act on.
//!
//! A stable code and a sentence; details stay in the audit record under the same decision id.

use serde::Serialize;

use super::{AnswerSettings, Outcome, STATUS, challenge};
use crate::{
    decision::{ActionRequired, Decision, Reason, Verdict},
    domain::ClientKind,
    identity::Challenges,
    wire::writer::Writer,
};

const DENIED_RESPONSE: u8 = 2;

/// What scripts of another origin may read of a refusal.
const EXPOSED: &str = "WWW-Authenticate, DPoP-Nonce, X-ZT-Decision-Id, Grpc-Status, Grpc-Message";

/// The body of a refusal, for programs.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
struct Body<'a> {
    error: &'a str,
    message: &'a str,
    reason: &'a str,
    action_required: &'a str,
    #[serde(rename = "requiresStepUp")]
    requires_step_up: bool,
    decision_id: String,
}

/// The gRPC status alone: all that plain TCP is told.
pub(super) fn status(response: &mut Writer<'_>, decision: &Decision) {
    response.nested(STATUS, |status| {
        status.number(1, grpc_code(decision.status()));
        status.bytes(2, code(decision).as_bytes());
    });
}

pub(super) fn write(response: &mut Writer<'_>, outcome: &Outcome, answer: &AnswerSettings, challenges: &Challenges) {
    let (decision, facts) = (outcome.decision(), outcome.facts());
    status(response, decision);
    response.nested(DENIED_RESPONSE, |denied| {
        denied.nested(1, |status| status.number(1, u64::from(decision.status())));
        let verdict = if decision.verdict == Verdict::StepUp { "step-up" } else { "deny" };
        denied.header(2, "x-zt-decision", verdict.as_bytes());
        denied.header(2, "x-zt-decision-id", &facts.request.id.to_hex());
        denied.header(2, "cache-control", b"no-store");
        if let Some(value) = challenge::value(decision, facts, outcome.is_by_dpop(), challenges, answer) {
            denied.header(2, "www-authenticate", value.as_bytes());
            denied.header(2, "access-control-expose-headers", EXPOSED.as_bytes());
        }
        if matches!(facts.request.client_kind, ClientKind::Grpc | ClientKind::GrpcWeb) {
            // Envoy's own table makes 400 INTERNAL and 429 UNAVAILABLE; a code that is there it leaves alone.
            denied.header(2, "grpc-status", grpc_code(decision.status()).to_string().as_bytes());
            // For gRPC proper Envoy writes this anew, from the body.
            denied.header(2, "grpc-message", sentence(decision).as_bytes());
        }
        if let Some(nonce) = outcome.dpop_nonce() {
            denied.header(2, "dpop-nonce", nonce.as_bytes());
        }
        if let Some(wait) = decision.retry_after {
            denied.header(2, "retry-after", wait.max(1).to_string().as_bytes());
        }
        if let Some(quota) = facts.quota.value().filter(|_| decision.status() == 429) {
            let value = format!("limit={}, remaining={}, reset={}", quota.limit, quota.remaining, quota.reset);
            denied.header(2, "ratelimit", value.as_bytes());
        }
        let (kind, body) = body(decision, outcome);
        denied.header(2, "content-type", kind.as_bytes());
        denied.bytes(3, body.as_bytes());
    });
}

fn body(decision: &Decision, outcome: &Outcome) -> (&'static str, String) {
    let message = decision.reason.map_or("Access is refused.", Reason::message);
    let id = outcome.facts().request.id.to_string();
    match outcome.facts().request.client_kind {
        ClientKind::Browser => return ("text/html; charset=utf-8", page(message, decision.action_required(), &id)),
        // It becomes `grpc-message`.
        ClientKind::Grpc => return ("text/plain; charset=utf-8", sentence(decision)),
        ClientKind::GrpcWeb | ClientKind::Api => {}
    }
    let body = Body {
        error: decision.error().unwrap_or("forbidden"),
        message,
        reason: code(decision),
        action_required: decision.action_required().as_str(),
        requires_step_up: decision.verdict == Verdict::StepUp,
        decision_id: id,
    };
    ("application/json", serde_json::to_string(&body).unwrap_or_default())
}

/// The stable code, then the sentence: all that a gRPC status has room for.
fn sentence(decision: &Decision) -> String {
    format!("{}: {}", code(decision), decision.reason.map_or("Access is refused.", Reason::message))
}

/// The reason's stable code. A refusal always has one.
fn code(decision: &Decision) -> &'static str {
    decision.reason.map_or("no_matching_resource", Reason::code)
}

/// A small page for a person: all of it is ours, nothing of the request is in it.
fn page(message: &str, action: ActionRequired, id: &str) -> String {
    let next = match action {
        ActionRequired::Authenticate | ActionRequired::Reauthenticate => "Sign in, then try again.",
        ActionRequired::StepUpAuthentication | ActionRequired::VerifyIdentity => {
            "Sign in with a second factor, then try again."
        }
        ActionRequired::DeviceEnrollment => "Enrol this device, then try again.",
        ActionRequired::RetryLater => "Try again in a moment.",
        _ => "If you think this is wrong, ask your administrator.",
    };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Access refused</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1.5rem;\
         color:#1d2733}}code{{color:#5a6b7d;font-size:.85em}}</style>\
         <h1>Access refused</h1><p>{message}</p><p>{next}</p><p><code>{id}</code></p></html>"
    )
}

/// The gRPC code that says what an HTTP status says.
const fn grpc_code(status: u16) -> u64 {
    match status {
        400 | 431 => 3,
        401 => 16,
        429 => 8,
        503 => 14,
        _ => 7,
    }
}
