//! The claims of a token whose signature proved right, made into an [`Identity`]; or the reason why not.
//!
//! Everything here runs after the signature, so its refusals may be specific. Nothing is repaired: a claim of the wrong
//! type is a refusal, not an absent claim, wherever its absence would say less than it did.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    Detail,
    json::Object,
    jwk::sha256,
    jws,
    methods::methods,
    settings::IssuerSettings,
    text::{is_clean, matches_pattern},
};
use crate::domain::{
    Confirmation, DeviceId, Identity, Issuer, Permission, Role, SessionId, SubjectId, SubjectKind, TokenId, UnixTime,
};

/// Most entries of a list of roles, permissions or scopes that are read; a longer list is no list.
const MAX_LIST: usize = 1024;

/// A verified token's claims.
#[derive(Debug)]
pub(super) struct Claims {
    pub identity: Identity,
    /// `iat` as it is. What the identity says is no later than now.
    pub issued_at: UnixTime,
    /// The later of `nbf` and `iat`: before it (less the leeway) the token is not valid.
    pub not_before: UnixTime,
    /// `status.status_list`: its address and the token's index in it.
    pub status: Option<(Arc<str>, u64)>,
}

/// Whether a token with these bounds is valid at `now`.
///
/// # Errors
///
/// [`Detail::Expired`] or [`Detail::NotYetValid`].
pub(super) fn check_time(
    now: UnixTime,
    not_before: UnixTime,
    expires_at: UnixTime,
    leeway: Duration,
) -> Result<(), Detail> {
    if now >= expires_at.plus(leeway) {
        return Err(Detail::Expired);
    }
    if not_before > now.plus(leeway) { Err(Detail::NotYetValid) } else { Ok(()) }
}

/// Reads a payload's `members` by the profile of `issuer`. `token_hash` gives the id where the issuer's tokens have none.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub(super) fn read(
    members: &Object,
    typ: Option<&str>,
    issuer: &IssuerSettings,
    now: UnixTime,
    token: &str,
) -> Result<Claims, Detail> {
    refuse_other_kinds(members, typ)?;
    let claims = Reader { members };
    let audience = audience(members.get("aud"), &issuer.audiences)?;
    let expires_at = claims.date("exp")?.ok_or(Detail::Claim)?;
    let issued_at = claims.date("iat")?.ok_or(Detail::Claim)?;
    let not_before = claims.date("nbf")?.unwrap_or(issued_at).max(issued_at);
    check_time(now, not_before, expires_at, issuer.leeway.get())?;
    if expires_at.since(now) > issuer.max_lifetime.get() + issuer.leeway.get() {
        return Err(Detail::LifetimeTooLong);
    }
    let subject = claims.text("sub")?.ok_or(Detail::Claim)?;
    let token_id: Arc<str> = match issuer.claims.token_id.as_str() {
        "" => hex::encode(sha256(token.as_bytes())).into(),
        name => claims.text(name)?.ok_or(Detail::Claim)?.into(),
    };
    let client_id = claims.text("client_id")?.or(claims.text("azp")?);
    let device = claims.text(&issuer.claims.device)?;
    // A time of authentication that has not come proves nothing: `iat` counts. Within the leeway it is now, at the latest:
    // nothing that is asked for later was answered before.
    let claimed_time = claims.auth_time()?.filter(|time| *time <= now.plus(issuer.leeway.get()));
    let claimed = claims.text(&issuer.claims.session)?;
    let session: Arc<str> = match claimed {
        Some(session) => session.into(),
        None => derived_session([&issuer.issuer, subject, client_id.unwrap_or(""), device.unwrap_or("")], claimed_time),
    };
    let acr = members.get("acr").and_then(Value::as_str).filter(|acr| is_clean(acr));
    let amr = list(claims.find(&issuer.claims.methods));
    let identity = Identity {
        issuer: Issuer::from(issuer.issuer.as_str()),
        subject: SubjectId::from(subject),
        kind: kind(members, subject, client_id, issuer),
        token_id: TokenId::new(token_id),
        session: SessionId::new(session),
        session_claimed: claimed.is_some(),
        client_id: client_id.map(Into::into),
        methods: methods(&amr, acr, &issuer.acr),
        acr: acr.map(Into::into),
        auth_time: claimed_time.map(|time| time.min(now)),
        // A clock that is ahead issues nothing in the future: "every token up to now" means this one too.
        issued_at: issued_at.min(now),
        issue_unstated: false,
        expires_at,
        valid_until: Some(expires_at.plus(issuer.leeway.get())),
        roles: granted(claims.find(&issuer.claims.roles), &issuer.roles).map(Role::from).collect(),
        permissions: granted(claims.find(&issuer.claims.permissions), permission_patterns(issuer))
            .map(Permission::from)
            .collect(),
        scopes: scopes(members),
        device: device.map(DeviceId::from),
        confirmation: confirmation(members.get("cnf"))?,
        audience,
        attributes: issuer
            .attributes
            .iter()
            .filter_map(|name| claims.find(name).map(|value| (name.as_str().into(), value.clone())))
            .collect(),
    };
    Ok(Claims { identity, issued_at, not_before, status: status(members)? })
}

/// ID tokens, refresh tokens, security events, logout tokens and proofs are signed by the same keys as access tokens.
fn refuse_other_kinds(members: &Object, typ: Option<&str>) -> Result<(), Detail> {
    let foreign = ["events", "htm", "htu", "at_hash", "c_hash", "s_hash", "status_list"];
    let kind = |name: &str| members.get(name).map(|kind| kind.as_str().unwrap_or_default());
    // Of AWS Cognito and of Ory Hydra.
    let is_access = |usage: &str| matches!(usage, "access" | "access_token");
    let says_access = matches!(kind("typ"), Some("Bearer" | "DPoP")) || kind("token_use").is_some_and(is_access);
    // Older Keycloak copies `nonce` into access tokens; they say so in the body.
    let id_token = members.contains_key("nonce") && typ != Some("at+jwt") && !says_access;
    let other_use = kind("token_use").is_some_and(|usage| !is_access(usage));
    let other_typ = kind("typ").is_some_and(|typ| matches!(typ, "ID" | "Refresh" | "Offline" | "Logout"));
    if id_token || other_use || other_typ || foreign.iter().any(|name| members.contains_key(name)) {
        return Err(Detail::OtherTokenKind);
    }
    Ok(())
}

struct Reader<'p> {
    members: &'p Object,
}

impl<'p> Reader<'p> {
    /// A claim by its name, else by a dotted path.
    fn find(&self, name: &str) -> Option<&'p Value> {
        if name.is_empty() {
            return None;
        }
        self.members.get(name).or_else(|| {
            let (first, rest) = name.split_once('.')?;
            rest.split('.').try_fold(self.members.get(first)?, |value, part| value.get(part))
        })
    }

    /// Clean text, or absent; `null` is not absent.
    fn text(&self, name: &str) -> Result<Option<&'p str>, Detail> {
        match self.find(name) {
            None => Ok(None),
            Some(Value::String(text)) if is_clean(text) => Ok(Some(text)),
            Some(_) => Err(Detail::Claim),
        }
    }

    /// When the person authenticated. Keycloak writes 0 for a service: nobody did.
    fn auth_time(&self) -> Result<Option<UnixTime>, Detail> {
        match self.members.get("auth_time") {
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(None),
            _ => self.date("auth_time"),
        }
    }

    /// A NumericDate (RFC 7519): seconds since 1970, above 0; a fraction is legal. Older Keycloak writes `nbf` as 0: since ever.
    fn date(&self, name: &str) -> Result<Option<UnixTime>, Detail> {
        const LATEST: f64 = 1e12;
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_f64() {
                Some(seconds) if (seconds > 0.0 || seconds == 0.0 && name == "nbf") && seconds < LATEST => {
                    Ok(Some(UnixTime::from_millis((seconds * 1000.0) as u64)))
                }
                _ => Err(Detail::Claim),
            },
            Some(_) => Err(Detail::Claim),
        }
    }
}

/// The first of ours that `aud` names: a string, or an array of nothing but strings.
fn audience(aud: Option<&Value>, ours: &[String]) -> Result<Arc<str>, Detail> {
    let named: Vec<&str> = match aud {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => {
            several.iter().map(Value::as_str).collect::<Option<_>>().ok_or(Detail::WrongAudience)?
        }
        _ => return Err(Detail::WrongAudience),
    };
    ours.iter().find(|our| named.contains(&our.as_str())).map(|our| our.as_str().into()).ok_or(Detail::WrongAudience)
}

/// An array of nothing but strings; any other shape is an empty list.
fn list(value: Option<&Value>) -> Vec<&str> {
    let strings = value.and_then(Value::as_array).filter(|items| items.len() <= MAX_LIST);
    strings.and_then(|items| items.iter().map(Value::as_str).collect()).unwrap_or_default()
}

/// Entries of a list that are clean, hold no wildcard, and that the issuer may assert.
fn granted<'v>(value: Option<&'v Value>, patterns: &'v [String]) -> impl Iterator<Item = &'v str> {
    list(value).into_iter().filter(move |entry| {
        is_clean(entry) && !entry.contains('*') && patterns.iter().any(|pattern| matches_pattern(pattern, entry))
    })
}

fn permission_patterns(issuer: &IssuerSettings) -> &[String] {
    match &issuer.permissions {
        Some(patterns) => patterns,
        None if issuer.roles.iter().any(|pattern| pattern == "*") => &issuer.roles,
        None => &[],
    }
}

/// `scope` (a list separated by spaces), or `scp` in either form.
fn scopes(members: &Object) -> Vec<Arc<str>> {
    let value = members.get("scope").or_else(|| members.get("scp"));
    let entries = match value {
        Some(Value::String(text)) => text.split(' ').collect(),
        other => list(other),
    };
    entries.into_iter().filter(|entry| is_clean(entry)).take(MAX_LIST).map(Into::into).collect()
}

/// A service cannot do MFA. Only its issuer can say that somebody is one.
fn kind(members: &Object, subject: &str, client_id: Option<&str>, issuer: &IssuerSettings) -> SubjectKind {
    let by_rule = issuer.services.iter().any(|rule| {
        let value = Reader { members }.find(&rule.claim).and_then(Value::as_str);
        value.is_some_and(|value| matches_pattern(&rule.value, value))
    });
    if client_id == Some(subject) || by_rule { SubjectKind::Service } else { SubjectKind::Person }
}

/// `cnf` with exactly one binding that can be checked here.
fn confirmation(cnf: Option<&Value>) -> Result<Option<Confirmation>, Detail> {
    let Some(cnf) = cnf else { return Ok(None) };
    let members = cnf.as_object().filter(|members| members.len() == 1).ok_or(Detail::UnknownConfirmation)?;
    let digest = |name: &str| -> Option<(&str, [u8; 32])> {
        let text = members.get(name)?.as_str()?;
        Some((text, jws::decode(text)?.try_into().ok()?))
    };
    match (digest("jkt"), digest("x5t#S256")) {
        (Some((text, _)), _) => Ok(Some(Confirmation::KeyThumbprint(text.into()))),
        (_, Some((_, sum))) => Ok(Some(Confirmation::CertificateSha256(sum))),
        (None, None) => Err(Detail::UnknownConfirmation),
    }
}

/// A `status` that names a status list; one of another kind cannot be checked and is refused.
fn status(members: &Object) -> Result<Option<(Arc<str>, u64)>, Detail> {
    let Some(status) = members.get("status") else { return Ok(None) };
    // A plain `status` of some issuers ("active") is no reference.
    let Some(status) = status.as_object() else { return Ok(None) };
    let list = status.get("status_list").ok_or(Detail::Claim)?;
    match (list.get("uri").and_then(Value::as_str), list.get("idx").and_then(Value::as_u64)) {
        (Some(uri), Some(index)) => Ok(Some((uri.into(), index))),
        _ => Err(Detail::Claim),
    }
}

/// What stands for the session of a token without `sid`: the same for all tokens of one login on one device.
fn derived_session(parts: [&str; 4], auth_time: Option<UnixTime>) -> Arc<str> {
    let mut input = Vec::new();
    for part in parts {
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(part.as_bytes());
    }
    input.extend_from_slice(&auth_time.map_or(0, UnixTime::as_secs).to_be_bytes());
    format!("derived-{}", hex::encode(&sha256(&input)[..16])).into()
}
