//! OpenID Connect Back-Channel Logout 1.0: a provider ends the sessions of one of its users.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{
    receiver::{PATIENCE, Receiver, UNREADABLE, later},
    set::{self, LEEWAY, Problem},
    settings::LogoutSettings,
};
use crate::{
    domain::{RevocationKind, UnixTime},
    identity::{Signed, Signer},
    store::StoreErrorKind,
    telemetry::audit::{AdminRecord, fingerprint},
};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// How long a token without `exp` is good for: the longest that section 4 advises for one with it.
const LIFE: Duration = Duration::from_secs(120);
/// Longest `sid` or `sub`, in octets.
const MAX_ID: usize = 1024;

/// One provider and its keys.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) settings: LogoutSettings,
    pub(super) signer: std::sync::Arc<Signer>,
}

/// Takes the logout token of a form.
///
/// # Errors
///
/// What is wrong with it, or that it cannot be taken now.
pub(super) async fn take(receiver: &Receiver, form: &str) -> Result<(), Problem> {
    let mut tokens = url::form_urlencoded::parse(form.as_bytes()).filter(|(name, _)| name == "logout_token");
    let (Some((_, token)), None) = (tokens.next(), tokens.next()) else {
        return set::invalid("`logout_token` must be there once");
    };
    let deadline = Instant::now() + PATIENCE;
    let taken = tokio::time::timeout_at(deadline, apply(receiver, &token, deadline)).await;
    taken.unwrap_or(Err(Problem::Later("too slow: try again")))
}

async fn apply(receiver: &Receiver, text: &str, deadline: Instant) -> Result<(), Problem> {
    let Some(token) = Signed::parse(text) else { return set::invalid("not a signed token in compact form") };
    // Providers from before `logout+jwt` was named send `JWT` or nothing.
    if !matches!(token.typ(), None | Some("logout+jwt" | "jwt")) {
        return set::invalid("not a logout token (`typ`)");
    }
    let issuer = token.payload().get("iss").and_then(Value::as_str).unwrap_or_default();
    let known = receiver.providers.iter().find(|known| known.settings.issuer == issuer);
    let Some(provider) = known else { return set::invalid("the issuer may not log out here") };
    provider.signer.verify(&token, deadline).await?;
    let now = receiver.parts.clock.now();
    let (claims, issued) = claims(receiver, provider, token.payload(), now)?;
    let seen = receiver.seen_key(issuer, claims.jti);
    if receiver.was_seen(&seen).await? {
        return Ok(());
    }
    let revocations = &receiver.parts.revocations;
    let (written, target) = match (claims.session, claims.subject) {
        // The session alone, whoever's it is.
        (Some(session), _) => {
            let revoked = revocations.revoke(RevocationKind::Session, session, "logout", None).await;
            (revoked.map(drop), format!("session:{session}"))
        }
        // As with events: nothing is refused that was issued after now, whatever the provider's clock says.
        (None, Some(subject)) => (revocations.revoke_until(subject, issued.min(now)).await, format!("sub:{subject}")),
        (None, None) => return set::invalid("neither `sid` nor `sub`"),
    };
    let record = |target: String, outcome: &str, why: &str| {
        receiver.parts.auditor.admin(AdminRecord {
            at: now,
            actor: format!("signals:{issuer}").into(),
            peer: None,
            action: "signal.logout".to_owned(),
            target,
            outcome: outcome.to_owned(),
            detail: Some(format!("{why}token {}", fingerprint(claims.jti))),
        });
    };
    match written {
        Ok(()) => record(target, "done", ""),
        Err(error) if error.kind == StoreErrorKind::Malformed => {
            tracing::error!(%error, provider = issuer, on = target, "{UNREADABLE}");
            receiver.counters.unreadable.increment();
            record(target, "failed", &format!("{UNREADABLE}, "));
            return set::invalid(UNREADABLE);
        }
        Err(error) => return Err(later(&error)),
    }
    // Last: what is remembered is in force, and in the audit.
    let life = receiver.settings.max_age.get() + LEEWAY;
    receiver.parts.store.write(&seen, b"1", Some(life)).await.map_err(|error| later(&error))
}

struct Claims<'a> {
    jti: &'a str,
    session: Option<&'a str>,
    subject: Option<&'a str>,
}

/// Section 2.6 of the specification.
fn claims<'a>(
    receiver: &Receiver,
    provider: &Provider,
    payload: &'a Value,
    now: UnixTime,
) -> Result<(Claims<'a>, UnixTime), Problem> {
    set::audience_is(payload, &provider.settings.audience)?;
    let issued = set::issued(payload, now, receiver.settings.max_age.get())?;
    // Drafts and the first final text did not name it; errata set 1 demands it. Who knows the older text sends none.
    match payload.get("exp").map(set::date) {
        Some(None) => return set::invalid("`exp` is not a time"),
        Some(Some(expires)) if expires.plus(LEEWAY) <= now => return set::invalid("the token has expired"),
        None if issued.plus(LIFE + LEEWAY) <= now => {
            return set::invalid("without `exp`, the token is too old (`iat`)");
        }
        Some(Some(_)) | None => {}
    }
    if payload.get("nonce").is_some() {
        return set::invalid("a logout token has no `nonce`");
    }
    if !payload.get("events").and_then(|events| events.get(EVENT)).is_some_and(Value::is_object) {
        return set::invalid("`events` does not hold a back-channel logout");
    }
    let id = |name: &str| match payload.get(name) {
        None => Ok(None),
        Some(Value::String(id)) if (1..=MAX_ID).contains(&id.len()) => Ok(Some(id.as_str())),
        Some(_) => set::invalid(format!("`{name}` cannot be read")),
    };
    Ok((Claims { jti: set::jti(payload)?, session: id("sid")?, subject: id("sub")? }, issued))
}
