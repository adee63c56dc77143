//! A token against its issuer's keys and profile. Synchronous, for whatever thread; all it leaves behind is how far the issuer's
//! clock was seen to be ahead.

use std::sync::{Arc, atomic::Ordering};

use serde_json::Value;

use super::{
    Algorithm, Detail, claims,
    entry::{TokenEntry, VerifiedWith},
    issuer::IssuerState,
    jws::Jws,
    keys::Known,
};
use crate::domain::UnixTime;

/// Why a token did not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Refused(Detail),
    /// Nothing has ever been had of this issuer's keys.
    NoKeys {
        issuer: usize,
    },
    /// The last that was had is older than may be relied on.
    KeysTooOld {
        issuer: usize,
    },
    /// The issuer's set does not hold this key: it may be new.
    UnknownKey {
        issuer: usize,
        kid: Arc<str>,
    },
}

impl From<Detail> for Failure {
    fn from(detail: Detail) -> Self {
        Self::Refused(detail)
    }
}

/// # Errors
///
/// The first thing that is wrong with `token`, or what is missing to know.
pub(super) fn verify(token: &str, issuers: &[IssuerState], now: UnixTime) -> Result<TokenEntry, Failure> {
    let jws = Jws::parse(token)?;
    jws.refuse_extensions()?;
    let algorithm = jws.alg().and_then(Algorithm::parse).ok_or(Detail::WrongAlgorithm)?;
    let kid = jws.kid().ok_or(Detail::NoKeyId)?;
    let typ = jws.typ()?;
    let payload = jws.claims()?;
    let named = payload.get("iss").and_then(Value::as_str).ok_or(Detail::UnknownIssuer)?;
    let index = issuers
        .iter()
        .position(|issuer| issuer.settings.issuer == named && issuer.has_keys())
        .ok_or(Detail::UnknownIssuer)?;
    let issuer = &issuers[index];
    if !issuer.accepts_type(typ.as_deref()) {
        return Err(Detail::WrongType.into());
    }
    if !issuer.settings.algorithms.contains(&algorithm) {
        return Err(Detail::WrongAlgorithm.into());
    }
    // Before the set, so that a set that changes meanwhile is noticed at the next look.
    let generation = issuer.keys.generation();
    let set = match issuer.keys.known(now) {
        Known::Set(set) => set,
        Known::TooOld => return Err(Failure::KeysTooOld { issuer: index }),
        Known::Never => return Err(Failure::NoKeys { issuer: index }),
    };
    let key = set.find(kid, algorithm).map_err(|kid_known| match kid_known {
        true => Failure::Refused(Detail::KeyMismatch),
        false => Failure::UnknownKey { issuer: index, kid: kid.into() },
    })?;
    if !key.verify(algorithm, jws.input.as_bytes(), &jws.signature) {
        return Err(Detail::BadSignature.into());
    }
    let mut claims = claims::read(&payload, typ.as_deref(), &issuer.settings, now, token)?;
    claims.identity.issued_at = issuer.lead.by_our_clock(claims.issued_at, now);
    let with = VerifiedWith::Key { kid: kid.into(), algorithm, thumbprint: key.thumbprint };
    let mut entry = TokenEntry::new(claims.identity, index, with, claims.not_before);
    entry.generation.store(generation, Ordering::Release);
    entry.status = claims.status;
    entry.ends_at = entry.identity.expires_at.plus(issuer.settings.leeway.get());
    Ok(entry)
}
