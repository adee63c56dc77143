//! Proofs of possession (RFC 9449): the twelve checks of section 4.3, in order. Replay is the caller's: it needs the store.

use aws_lc_rs::hmac;
use serde_json::Value;
use url::Url;

use super::{
    Algorithm, Detail,
    jwk::{VerifyingKey, sha256},
    jws::{self, Jws},
    settings::DpopSettings,
    text::is_clean,
};
use crate::domain::UnixTime;

/// For how long a nonce is accepted.
const NONCE_LIFE_SECS: u64 = 300;

/// The request that a proof must be for, owned, because the work is done on another thread.
#[derive(Clone, Debug)]
pub(super) struct ProvenRequest {
    pub proof: String,
    pub method: String,
    /// Scheme, authority and path as the client sees them.
    pub url: String,
    pub token_sha256: [u8; 32],
    /// `cnf.jkt` of the token.
    pub thumbprint: String,
    pub now: UnixTime,
}

/// Checks everything but replay; returns what must not have been seen before.
///
/// # Errors
///
/// The first check that fails.
pub(super) fn check(
    request: &ProvenRequest,
    settings: &DpopSettings,
    nonces: Option<&Nonces>,
) -> Result<[u8; 32], Detail> {
    let jws = Jws::parse(&request.proof).map_err(|_| Detail::ProofMalformed)?;
    jws.refuse_extensions().map_err(|_| Detail::ProofMalformed)?;
    let claims = jws.payload().map_err(|_| Detail::ProofMalformed)?;
    if jws.header.get("typ").and_then(Value::as_str).is_none_or(|typ| !typ.eq_ignore_ascii_case("dpop+jwt")) {
        return Err(Detail::ProofMalformed);
    }
    let algorithm = jws.alg().and_then(Algorithm::parse).filter(|algorithm| settings.algorithms.contains(algorithm));
    let algorithm = algorithm.ok_or(Detail::ProofSignature)?;
    let jwk = jws.header.get("jwk").ok_or(Detail::ProofMalformed)?;
    // Refuses private members, weak keys, and any `alg` or `use` that says otherwise.
    let key = VerifyingKey::from_jwk(jwk, &[algorithm]).map_err(|_| Detail::ProofSignature)?;
    if !key.verify(algorithm, jws.input.as_bytes(), &jws.signature) {
        return Err(Detail::ProofSignature);
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let id = text("jti").filter(|id| is_clean(id)).ok_or(Detail::ProofMalformed)?;
    let htu = text("htu").ok_or(Detail::ProofMalformed)?;
    let target = normalise(&request.url).ok_or(Detail::ProofOtherRequest)?;
    if text("htm") != Some(&request.method) || normalise(htu).as_ref() != Some(&target) {
        return Err(Detail::ProofOtherRequest);
    }
    check_nonce(text("nonce"), settings, nonces, request.now)?;
    check_age(claims.get("iat"), settings, request.now)?;
    if text("ath").and_then(jws::decode).as_deref() != Some(&request.token_sha256) {
        return Err(Detail::ProofOtherToken);
    }
    if jws::encode(&key.thumbprint) != request.thumbprint {
        return Err(Detail::ProofKeyMismatch);
    }
    Ok(replay_id(&key.thumbprint, &target, id))
}

fn check_age(iat: Option<&Value>, settings: &DpopSettings, now: UnixTime) -> Result<(), Detail> {
    let made = iat.and_then(Value::as_f64).filter(|made| *made > 0.0 && *made < 1e12).ok_or(Detail::ProofMalformed)?;
    let made = UnixTime::from_millis((made * 1000.0) as u64);
    let sound = made <= now.plus(settings.skew.get()) && now.since(made) <= settings.window.get();
    if sound { Ok(()) } else { Err(Detail::ProofTime) }
}

fn check_nonce(
    nonce: Option<&str>,
    settings: &DpopSettings,
    nonces: Option<&Nonces>,
    now: UnixTime,
) -> Result<(), Detail> {
    let known = match (nonce, nonces) {
        (Some(nonce), Some(nonces)) => nonces.is_ours(nonce, now),
        _ => false,
    };
    if known || !settings.nonce { Ok(()) } else { Err(Detail::ProofNonce) }
}

/// A proof's id is unique for its key and target; only the digest is kept, so its size does not matter.
fn replay_id(thumbprint: &[u8; 32], target: &str, id: &str) -> [u8; 32] {
    sha256(&[thumbprint, &(target.len() as u64).to_be_bytes()[..], target.as_bytes(), id.as_bytes()].concat())
}

/// RFC 3986 sections 6.2.2 and 6.2.3, without query and fragment: case, default port, dot segments, percent-encoding.
fn normalise(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = url.host_str()?.trim_end_matches('.');
    Some(format!("{}://{host}{port}{}", url.scheme(), normalise_path(url.path())))
}

/// Decodes what is unreserved, writes the rest of the percent-encoding in upper case, and encodes what a path cannot
/// hold: browsers send `|` and `^` as they are, and Envoy's `normalize_path` encodes them before we are asked.
fn normalise_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        match (octet == b'%').then(|| escaped(after)).flatten() {
            Some((code, after)) => {
                push(&mut out, code, is_unreserved(code));
                rest = after;
            }
            None => push(&mut out, octet, is_path_octet(octet)),
        }
    }
    out
}

/// The octet that two hexadecimal digits after a `%` stand for, and what follows them.
fn escaped(digits: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], rest) = digits.split_first_chunk::<2>()?;
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let code = digit(*high)? * 16 + digit(*low)?;
    Some((u8::try_from(code).ok()?, rest))
}

fn push(out: &mut String, octet: u8, plain: bool) {
    if plain {
        out.push(octet.into());
    } else {
        out.push_str(&format!("%{octet:02X}"));
    }
}

/// RFC 3986: `unreserved`.
const fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986: `pchar` but for percent-encoding, or the `/` between segments.
fn is_path_octet(octet: u8) -> bool {
    is_unreserved(octet) || b"!$&'()*+,;=:@/".contains(&octet)
}

/// Nonces that carry their own time: nothing is stored, and any replica with the secret knows them.
pub(super) struct Nonces(hmac::Key);

impl Nonces {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    pub(super) fn make(&self, now: UnixTime) -> String {
        let time = now.as_secs().to_be_bytes();
        let tag = hmac::sign(&self.0, &time);
        jws::encode(&[&time, tag.as_ref()].concat())
    }

    fn is_ours(&self, nonce: &str, now: UnixTime) -> bool {
        let Some(octets) = jws::decode(nonce) else { return false };
        let Some((time, tag)) = octets.split_first_chunk::<8>() else { return false };
        let made = u64::from_be_bytes(*time);
        hmac::verify(&self.0, time, tag).is_ok()
            && made <= now.as_secs().saturating_add(5)
            && now.as_secs().saturating_sub(made) <= NONCE_LIFE_SECS
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_compare_after_normalisation_and_without_query() {
        for (a, b) in [
            ("https://API.example:443/a?x=1#f", "https://api.example/a"),
            ("https://api.example", "https://api.example/"),
            ("https://api.example/%7Ea/%2f", "https://api.example/~a/%2F"),
            ("http://api.example:80/a", "http://api.example/a"),
            ("https://api.example/q|r^s[t]", "https://api.example/q%7Cr%5Es%5bt%5D"),
            ("https://api.example/<\"{`}>é", "https://api.example/%3C%22%7B%60%7D%3E%C3%A9"),
            ("https://api.example/a\\b", "https://api.example/a/b"),
        ] {
            assert_eq!(normalise(a), normalise(b));
        }
        for (a, b) in [
            ("https://api.example/a", "http://api.example/a"),
            ("https://api.example/a", "https://api.example/A"),
            ("https://api.example/a", "https://api.example:8443/a"),
            ("https://api.example/a%2Fb", "https://api.example/a/b"),
            ("https://api.example/a%7Cb", "https://api.example/a%257Cb"),
            ("https://api.example/a%3Bb", "https://api.example/a;b"),
            ("https://api.example/a%+1", "https://api.example/a%01"),
        ] {
            assert_ne!(normalise(a), normalise(b));
        }
        for bad in ["https://u@api.example/", "ftp://api.example/", "/a", ""] {
            assert_eq!(normalise(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_nonce_is_known_by_whoever_has_the_secret_and_for_five_minutes() {
        let now = UnixTime::from_secs(1_000_000);
        let nonce = Nonces::new(b"secret").make(now);
        assert!(Nonces::new(b"secret").is_ours(&nonce, UnixTime::from_secs(1_000_300)));
        assert!(!Nonces::new(b"secret").is_ours(&nonce, UnixTime::from_secs(1_000_301)));
        assert!(!Nonces::new(b"another").is_ours(&nonce, now));
        assert!(!Nonces::new(b"secret").is_ours("AAAA", now));
    }
}
