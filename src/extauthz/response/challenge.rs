//! `WWW-Authenticate`: RFC 6750 (Bearer), RFC 9449 (DPoP) and RFC 9470 (step-up), in one line each may parse.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::AnswerSettings;
use crate::{
    decision::{Decision, Reason, Verdict},
    domain::{Credential, CredentialProblem, Facts},
    identity::Challenges,
};

/// The header's value, or `None` where the status calls for none.
///
/// Without credentials there is no error code; what a token lacks is said only after it was proven valid.
pub(super) fn value(
    decision: &Decision,
    facts: &Facts,
    challenges: &Challenges,
    answer: &AnswerSettings,
) -> Option<String> {
    match decision.status() {
        401 if decision.verdict == Verdict::StepUp => Some(step_up(decision, facts, challenges, answer)),
        401 => Some(unauthorized(problem(decision, facts), challenges)),
        400 if decision.reason == Some(Reason::AmbiguousCredentials) => Some(bearer(challenges, "invalid_request", "")),
        403 => decision.scope.as_ref().map(|scope| {
            let scope = quoted(scope);
            bearer(challenges, "insufficient_scope", &format!(", scope=\"{scope}\""))
        }),
        _ => None,
    }
}

/// What is wrong with the credentials; `None`: there are none, or not those that are asked for.
fn problem(decision: &Decision, facts: &Facts) -> Option<CredentialProblem> {
    match facts.credential.value() {
        _ if decision.reason == Some(Reason::NoCredentials) => None,
        Some(Credential::Refused(problem)) => Some(*problem),
        Some(Credential::Verified { .. }) => Some(CredentialProblem::Invalid),
        None => None,
    }
}

fn unauthorized(problem: Option<CredentialProblem>, challenges: &Challenges) -> String {
    let Some(algs) = &challenges.dpop_algorithms else {
        return match problem {
            None => format!("Bearer realm=\"{}\"", quoted(&challenges.realm)),
            Some(_) => bearer(challenges, "invalid_token", ""),
        };
    };
    let dpop_error = match problem {
        Some(CredentialProblem::NonceRequired) => Some("use_dpop_nonce"),
        Some(CredentialProblem::ProofInvalid) => Some("invalid_dpop_proof"),
        _ => None,
    };
    match (problem, dpop_error) {
        (Some(_), Some(error)) => format!("DPoP error=\"{error}\", algs=\"{algs}\""),
        (Some(_), None) => format!("{}, DPoP algs=\"{algs}\"", bearer(challenges, "invalid_token", "")),
        (None, _) => format!("Bearer realm=\"{}\", DPoP algs=\"{algs}\"", quoted(&challenges.realm)),
    }
}

/// RFC 9470: what authentication would do, in words the client can hand to its authorization server.
fn step_up(decision: &Decision, facts: &Facts, challenges: &Challenges, answer: &AnswerSettings) -> String {
    let mut extra = String::new();
    if let Some(wanted) = &decision.step_up {
        if let Some(level) = wanted.level {
            let _ = write!(extra, ", acr_values=\"{}\"", quoted(challenges.acr_values(level)));
        }
        if let Some(max_age) = wanted.max_age {
            let _ = write!(extra, ", max_age=\"{max_age}\"");
        }
    }
    if answer.claims_challenge {
        let nbf = facts.now.as_secs();
        let demand = format!(r#"{{"access_token":{{"nbf":{{"essential":true,"value":"{nbf}"}}}}}}"#);
        let error = ", error=\"insufficient_claims\"";
        return format!(
            "Bearer realm=\"{}\"{error}, claims=\"{}\"{extra}",
            quoted(&challenges.realm),
            STANDARD.encode(demand)
        );
    }
    bearer(challenges, "insufficient_user_authentication", &extra)
}

fn bearer(challenges: &Challenges, error: &str, extra: &str) -> String {
    let description = match error {
        "invalid_token" => "the access token is invalid, expired or revoked",
        "invalid_request" => "send exactly one access token, in the Authorization header",
        "insufficient_scope" => "the access token does not allow this",
        _ => "a stronger or more recent authentication is required",
    };
    let realm = quoted(&challenges.realm);
    format!("Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{description}\"{extra}")
}

/// The inside of a quoted string.
fn quoted(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).fold(String::new(), |mut quoted, c| {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
        quoted
    })
}
