//! A security event token: what it must be before anything of it is believed (RFC 8417, RFC 8935, SSF 1.0 section 4).

use std::time::Duration;

use serde_json::Value;

use super::event::{Event, EventType};
use crate::{
    domain::UnixTime,
    identity::{Signed, SignerProblem},
};

/// How far a transmitter's clock may run ahead of ours.
pub(super) const LEEWAY: Duration = Duration::from_secs(60);
/// Longest `jti` that is taken, in octets.
const MAX_JTI: usize = 512;
/// A NumericDate of more is in milliseconds: drafts of CAEP counted so, and transmitters still do.
const MILLIS_FROM: f64 = 1e11;

/// Error codes of RFC 8935 section 2.4, and of SSF 1.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidRequest,
    InvalidKey,
    InvalidIssuer,
    InvalidAudience,
    AuthenticationFailed,
    AccessDenied,
    InvalidState,
}

impl Code {
    pub(super) const ALL: [Self; 7] = [
        Self::InvalidRequest,
        Self::InvalidKey,
        Self::InvalidIssuer,
        Self::InvalidAudience,
        Self::AuthenticationFailed,
        Self::AccessDenied,
        Self::InvalidState,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidKey => "invalid_key",
            Self::InvalidIssuer => "invalid_issuer",
            Self::InvalidAudience => "invalid_audience",
            Self::AuthenticationFailed => "authentication_failed",
            Self::AccessDenied => "access_denied",
            Self::InvalidState => "invalid_state",
        }
    }
}

/// Why a token was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// For good: sending it again will not help.
    Refused(Code, String),
    /// For now: the store or the transmitter's keys cannot be reached.
    Later(&'static str),
}

pub(super) fn refused<T>(code: Code, why: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Refused(code, why.into()))
}

pub(super) fn invalid<T>(why: impl Into<String>) -> Result<T, Problem> {
    refused(Code::InvalidRequest, why)
}

impl From<SignerProblem> for Problem {
    fn from(problem: SignerProblem) -> Self {
        let code = match problem {
            SignerProblem::Algorithm | SignerProblem::Key => Code::InvalidKey,
            SignerProblem::Signature => Code::AuthenticationFailed,
            SignerProblem::NotReady => return Self::Later("the transmitter's keys cannot be had just now"),
        };
        Self::Refused(code, problem.to_string())
    }
}

/// The claims of a token whose signature verified and that is for us.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    pub(super) jti: &'a str,
    /// `None`: a type of event that is not known here.
    pub(super) event: Option<Event<'a>>,
    /// When what it tells of happened: `event_timestamp`, else `toe`, else `iat`.
    pub(super) at: UnixTime,
    pub(super) subject: Option<&'a Value>,
}

/// The `iss` of something that says it is a security event token. Nothing is verified.
pub(super) fn claimed_issuer<'a>(token: &'a Signed<'_>) -> Result<&'a str, Problem> {
    if token.typ() != Some("secevent+jwt") {
        return invalid("not a security event token: `typ` must be `secevent+jwt`");
    }
    match token.payload().get("iss") {
        Some(Value::String(issuer)) => Ok(issuer),
        Some(_) | None => refused(Code::InvalidIssuer, "`iss` is missing"),
    }
}

/// Reads the claims by the profile. The signature was verified before.
pub(super) fn claims<'a>(
    token: &'a Signed<'_>,
    audience: &str,
    now: UnixTime,
    max_age: Duration,
) -> Result<Claims<'a>, Problem> {
    let payload = token.payload();
    audience_is(payload, audience)?;
    if payload.get("exp").is_some() {
        return invalid("a security event token has no `exp`");
    }
    if payload.get("sub").is_some() {
        return invalid("a security event token names its subject in `sub_id`, not in `sub`");
    }
    let jti = jti(payload)?;
    let issued = issued(payload, now, max_age)?;
    let events = payload.get("events").and_then(Value::as_object);
    let Some(events) = events.filter(|events| !events.is_empty()) else { return invalid("`events` is missing") };
    if events.len() > 1 {
        return invalid("one event is allowed, and there are more");
    }
    let Some((uri, body)) = events.iter().next().filter(|(_, body)| body.is_object()) else {
        return invalid("the event is not an object");
    };
    let at = happened(body, payload, issued)?;
    if at > now.plus(LEEWAY) {
        return invalid("the event lies in the future");
    }
    if now.since(at) > max_age {
        return invalid("the event is too old");
    }
    // Nothing is refused that was issued after now, whatever the transmitter's clock says.
    let at = at.min(now);
    let event = EventType::parse(uri).map(|kind| Event { kind, claims: body });
    // Before SSF 1.0 the subject stood in the event.
    let subject = payload.get("sub_id").or_else(|| body.get("subject"));
    Ok(Claims { jti, event, at, subject })
}

/// When the event happened. A time that is there and cannot be read is no time at all.
fn happened(body: &Value, payload: &Value, issued: UnixTime) -> Result<UnixTime, Problem> {
    match body.get("event_timestamp").or_else(|| payload.get("toe")) {
        None => Ok(issued),
        Some(value) => match date(value) {
            Some(at) => Ok(at),
            None => invalid("the time of the event cannot be read"),
        },
    }
}

pub(super) fn audience_is(payload: &Value, audience: &str) -> Result<(), Problem> {
    let named = match payload.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
        Some(_) | None => false,
    };
    if named { Ok(()) } else { refused(Code::InvalidAudience, "`aud` does not name this receiver") }
}

pub(super) fn jti(payload: &Value) -> Result<&str, Problem> {
    let jti = payload.get("jti").and_then(Value::as_str);
    match jti.filter(|jti| (1..=MAX_JTI).contains(&jti.len())) {
        Some(jti) => Ok(jti),
        None => invalid("`jti` is missing, empty or too long"),
    }
}

/// When it was issued, if it may be believed now.
pub(super) fn issued(payload: &Value, now: UnixTime, max_age: Duration) -> Result<UnixTime, Problem> {
    let Some(issued) = payload.get("iat").and_then(date) else { return invalid("`iat` is missing") };
    if issued > now.plus(LEEWAY) {
        return invalid("`iat` lies in the future");
    }
    if now.since(issued) > max_age {
        return invalid("the token is too old (`iat`)");
    }
    // RFC 7519 section 4.1.5: nobody has to send it, and whoever is sent it has to heed it.
    match payload.get("nbf").map(date) {
        Some(None) => invalid("`nbf` is not a time"),
        Some(Some(begins)) if begins > now.plus(LEEWAY) => invalid("the token is not valid yet (`nbf`)"),
        Some(Some(_)) | None => Ok(issued),
    }
}

/// Seconds since 1970, or milliseconds where it is too large for that.
pub(super) fn date(value: &Value) -> Option<UnixTime> {
    let number = value.as_f64().filter(|number| (0.0..1e15).contains(number))?;
    let millis = if number >= MILLIS_FROM { number } else { number * 1000.0 };
    Some(UnixTime::from_millis(millis as u64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dates_are_seconds_with_a_fraction_or_milliseconds() {
        let millis = |value: Value| date(&value).map(UnixTime::as_millis);
        assert_eq!(millis(json!(1_790_000_000)), Some(1_790_000_000_000));
        assert_eq!(millis(json!(1_790_000_000.5)), Some(1_790_000_000_500));
        assert_eq!(millis(json!(1_790_000_000_123_u64)), Some(1_790_000_000_123));
        for none in [json!("1790000000"), json!(-1), json!(null), json!(1e20)] {
            assert_eq!(millis(none.clone()), None, "{none}");
        }
    }
}
