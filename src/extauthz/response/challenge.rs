//! `WWW-Authenticate`: RFC 6750 (Bearer), RFC 9449 (DPoP) and RFC 9470 (step-up), in one line each may parse.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::AnswerSettings;
use crate::{
    decision::{Decision, Reason, Verdict},
    domain::{Credential, CredentialProblem, Facts, UnixTime},
    identity::Challenges,
};

/// The header's value, or `None` where the status calls for none.
///
/// Without credentials there is no error code; what a token lacks is said only after it was proven valid.
pub(super) fn value(
    decision: &Decision,
    facts: &Facts,
    by_dpop: bool,
    challenges: &Challenges,
    answer: &AnswerSettings,
) -> Option<String> {
    let tried = Tried::new(challenges, by_dpop);
    match decision.status() {
        401 if decision.verdict == Verdict::StepUp => {
            Some(step_up(decision, challenges, &tried, answer.claims_challenge.then_some(facts.now)))
        }
        401 => Some(unauthorized(problem(decision, facts), challenges, &tried)),
        400 if decision.reason == Some(Reason::AmbiguousCredentials) => Some(tried.failed("invalid_request", "")),
        400 => Some(tried.challenge("error=\"invalid_request\", error_description=\"the request is malformed\"")),
        403 => decision.scope.as_ref().map(|scope| {
            let scope = quoted(scope);
            tried.failed("insufficient_scope", &format!(", scope=\"{scope}\""))
        }),
        _ => None,
    }
}

/// The scheme that was tried. Errors are said under it alone: a client reads the challenge of its own scheme (RFC 9449
/// section 7.1).
enum Tried<'a> {
    Bearer { realm: &'a str },
    Dpop { algorithms: &'a str },
}

impl<'a> Tried<'a> {
    fn new(challenges: &'a Challenges, by_dpop: bool) -> Self {
        match &challenges.dpop_algorithms {
            Some(algorithms) if by_dpop => Self::Dpop { algorithms },
            _ => Self::Bearer { realm: &challenges.realm },
        }
    }

    fn challenge(&self, parameters: &str) -> String {
        match self {
            Self::Bearer { realm } => format!("Bearer realm=\"{}\", {parameters}", quoted(realm)),
            Self::Dpop { algorithms } => format!("DPoP {parameters}, algs=\"{algorithms}\""),
        }
    }

    fn failed(&self, error: &str, extra: &str) -> String {
        let description = match error {
            "invalid_token" => "the access token is invalid, expired or revoked",
            "invalid_request" => "send exactly one access token, in the Authorization header",
            "insufficient_scope" => "the access token does not allow this",
            _ => "a stronger or more recent authentication is required",
        };
        self.challenge(&format!("error=\"{error}\", error_description=\"{description}\"{extra}"))
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

fn unauthorized(problem: Option<CredentialProblem>, challenges: &Challenges, tried: &Tried<'_>) -> String {
    let challenge = match problem {
        None => format!("Bearer realm=\"{}\"", quoted(&challenges.realm)),
        Some(CredentialProblem::NonceRequired) => tried.challenge("error=\"use_dpop_nonce\""),
        Some(CredentialProblem::ProofInvalid) => tried.challenge("error=\"invalid_dpop_proof\""),
        Some(_) => tried.failed("invalid_token", ""),
    };
    match (tried, &challenges.dpop_algorithms) {
        (Tried::Bearer { .. }, Some(algorithms)) => format!("{challenge}, DPoP algs=\"{algorithms}\""),
        _ => challenge,
    }
}

/// RFC 9470: what authentication would do, in words the client can hand to its authorization server.
///
/// `claims_of`: Entra's words instead, for a token issued since then.
fn step_up(decision: &Decision, challenges: &Challenges, tried: &Tried<'_>, claims_of: Option<UnixTime>) -> String {
    let mut extra = String::new();
    if let Some(wanted) = &decision.step_up {
        if let Some(level) = wanted.level {
            let _ = write!(extra, ", acr_values=\"{}\"", quoted(challenges.acr_values(level)));
        }
        if let Some(max_age) = wanted.max_age {
            let _ = write!(extra, ", max_age=\"{max_age}\"");
        }
    }
    let Some(now) = claims_of else { return tried.failed("insufficient_user_authentication", &extra) };
    let nbf = now.as_secs();
    let demand = format!(r#"{{"access_token":{{"nbf":{{"essential":true,"value":"{nbf}"}}}}}}"#);
    tried.challenge(&format!("error=\"insufficient_claims\", claims=\"{}\"{extra}", STANDARD.encode(demand)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decision::{Class, StepUp, StepUpLevel},
        domain::{AuthMethods, Fact},
        identity::Settings,
        telemetry::audit::Recorded,
    };

    const REVOKED: &str =
        "error=\"invalid_token\", error_description=\"the access token is invalid, expired or revoked\"";

    /// The challenge of a decision on a token that verified, or was refused for `problem`.
    fn of(decision: &Decision, problem: Option<CredentialProblem>, by_dpop: bool, claims: bool) -> String {
        let mut facts = Recorded::parse(include_str!("../../../tests/audit/before.jsonl")).unwrap().unwrap().facts;
        if let Some(problem) = problem {
            facts.credential = Fact::known(Credential::Refused(problem), facts.now);
        }
        let answer = AnswerSettings { claims_challenge: claims, ..AnswerSettings::default() };
        value(decision, &facts, by_dpop, &Challenges::new(&Settings::default()), &answer).unwrap()
    }

    fn algorithms() -> String {
        Challenges::new(&Settings::default()).dpop_algorithms.unwrap()
    }

    fn step_up_to_mfa() -> Decision {
        let step_up =
            Some(StepUp { level: Some(StepUpLevel::Mfa), max_age: Some(60), methods: AuthMethods::default() });
        Decision { verdict: Verdict::StepUp, step_up, ..*Decision::refusal(Reason::TokenInvalid) }
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said_under_the_scheme_it_came_with() {
        let algs = algorithms();
        let expired = Some(CredentialProblem::Expired);
        for (reason, problem) in [(Reason::TokenRevoked, None), (Reason::TokenExpired, expired)] {
            let decision = Decision::refusal(reason);
            assert_eq!(of(&decision, problem, true, false), format!("DPoP {REVOKED}, algs=\"{algs}\""));
            let bearer = format!("Bearer realm=\"countersign\", {REVOKED}, DPoP algs=\"{algs}\"");
            assert_eq!(of(&decision, problem, false, false), bearer);
        }
        let proof = of(&Decision::refusal(Reason::ProofInvalid), Some(CredentialProblem::ProofInvalid), true, false);
        assert_eq!(proof, format!("DPoP error=\"invalid_dpop_proof\", algs=\"{algs}\""));
        let missing =
            of(&Decision::refusal(Reason::ProofRequired), Some(CredentialProblem::ProofRequired), false, false);
        assert_eq!(missing, format!("Bearer realm=\"countersign\", {REVOKED}, DPoP algs=\"{algs}\""));
    }

    #[test]
    fn what_a_token_lacks_is_said_under_the_scheme_it_came_with() {
        let end = format!(", algs=\"{}\"", algorithms());
        for claims in [false, true] {
            let [bearer, dpop] = [false, true].map(|by_dpop| of(&step_up_to_mfa(), None, by_dpop, claims));
            assert!(bearer.contains("acr_values=") && bearer.ends_with("max_age=\"60\""), "{bearer}");
            let parameters = bearer.strip_prefix("Bearer realm=\"countersign\", ").unwrap();
            assert_eq!(dpop, format!("DPoP {parameters}{end}"));
        }
        let scope = Some("orders:write".into());
        let decision = Decision { class: Some(Class::Refused), scope, ..*Decision::refusal(Reason::ScopeMissing) };
        let [bearer, dpop] = [false, true].map(|by_dpop| of(&decision, None, by_dpop, false));
        let parameters = bearer.strip_prefix("Bearer realm=\"countersign\", ").unwrap();
        assert!(parameters.starts_with("error=\"insufficient_scope\""), "{bearer}");
        assert!(parameters.ends_with("scope=\"orders:write\""), "{bearer}");
        assert_eq!(dpop, format!("DPoP {parameters}{end}"));
    }

    #[test]
    fn whatever_is_malformed_is_an_invalid_request() {
        let path = of(&Decision::refusal(Reason::MalformedPath), None, false, false);
        let malformed = "error=\"invalid_request\", error_description=\"the request is malformed\"";
        assert_eq!(path, format!("Bearer realm=\"countersign\", {malformed}"));
        let twice = of(&Decision::refusal(Reason::AmbiguousCredentials), None, false, false);
        assert!(twice.contains("invalid_request") && twice.contains("exactly one access token"), "{twice}");
    }

    #[test]
    fn credentials_of_another_kind_are_challenged_as_none() {
        let challenge =
            of(&Decision::refusal(Reason::NoCredentials), Some(CredentialProblem::Unsupported), false, false);
        assert_eq!(challenge, format!("Bearer realm=\"countersign\", DPoP algs=\"{}\"", algorithms()));
    }
}
