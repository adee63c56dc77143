//! One member of a key set, made into a key that can only verify what it is for; or left aside, with the reason.
//!
//! `alg`, `use` and `key_ops` are honoured here, once, so that a token's header chooses between algorithms that its key
//! was already bound to and nothing else.

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::{digest, signature::ParsedPublicKey};
use serde_json::Value;

use super::{
    algorithm::{Algorithm, Family},
    jws,
};

/// A public key and the algorithms it verifies.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    /// RFC 7638: which key this is, whatever its `kid`.
    pub thumbprint: [u8; 32],
    by_algorithm: Vec<(Algorithm, ParsedPublicKey)>,
}

/// Why a member of a key set is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error("not an object, a member twice, or JSON that is not read here")]
    Malformed,
    #[error("no `kid`")]
    NoKeyId,
    #[error("a kind of key that is not used here")]
    Unsupported,
    #[error("its `use` or `key_ops` is not for signatures, or its `alg` not for this kind of key")]
    OtherPurpose,
    #[error("its algorithm is not among this issuer's")]
    NotConfigured,
    #[error("holds the private key")]
    Private,
    #[error("RSA with fewer than 2048 or more than 8192 bits, or an unsound exponent")]
    WeakRsa,
    #[error("RSA made by a generator with known weakness (ROCA)")]
    Roca,
    #[error("a point of small order, or none of the curve")]
    BadPoint,
    #[error("another key has the same `kid` and algorithm: neither is used")]
    DuplicateKeyId,
}

impl KeyProblem {
    /// Whether somebody should look: not merely a key that is for something else.
    pub const fn is_alarming(self) -> bool {
        !matches!(self, Self::NoKeyId | Self::Unsupported | Self::OtherPurpose | Self::NotConfigured)
    }
}

impl VerifyingKey {
    /// The key that `jwk` holds, bound to those of `allowed` that it may verify.
    ///
    /// # Errors
    ///
    /// Why it is not used.
    pub(super) fn from_jwk(jwk: &Value, allowed: &[Algorithm]) -> Result<Self, KeyProblem> {
        if !jwk.is_object() {
            return Err(KeyProblem::Malformed);
        }
        let family = family(jwk)?;
        let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
        if private.iter().any(|member| jwk.get(*member).is_some()) {
            return Err(KeyProblem::Private);
        }
        let algorithms = purpose(jwk, family, allowed)?;
        let material = Material::read(jwk, family)?;
        let by_algorithm = algorithms
            .into_iter()
            .map(|algorithm| material.parse(algorithm).map(|key| (algorithm, key)))
            .collect::<Result<_, _>>()?;
        Ok(Self { thumbprint: material.thumbprint(jwk), by_algorithm })
    }

    pub(super) fn verifies(&self, algorithm: Algorithm) -> bool {
        self.by_algorithm.iter().any(|(known, _)| *known == algorithm)
    }

    /// Whether `signature` of `message` is this key's by exactly this algorithm.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.by_algorithm
            .iter()
            .find(|(known, _)| *known == algorithm)
            .is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.by_algorithm.iter().map(|(algorithm, _)| algorithm).collect();
        write!(f, "VerifyingKey({} {algorithms:?})", jws::encode(&self.thumbprint))
    }
}

fn family(jwk: &Value) -> Result<Family, KeyProblem> {
    let text = |member: &str| jwk.get(member).and_then(Value::as_str);
    match (text("kty"), text("crv")) {
        (Some("RSA"), None) => Ok(Family::Rsa),
        (Some("EC"), Some("P-256")) => Ok(Family::P256),
        (Some("EC"), Some("P-384")) => Ok(Family::P384),
        (Some("OKP"), Some("Ed25519")) => Ok(Family::Ed25519),
        _ => Err(KeyProblem::Unsupported),
    }
}

/// The algorithms that a key of `family` may verify, as the key itself and the configuration both allow.
fn purpose(jwk: &Value, family: Family, allowed: &[Algorithm]) -> Result<Vec<Algorithm>, KeyProblem> {
    if jwk.get("use").is_some_and(|usage| usage.as_str() != Some("sig")) {
        return Err(KeyProblem::OtherPurpose);
    }
    if let Some(operations) = jwk.get("key_ops") {
        let operations = operations.as_array().ok_or(KeyProblem::OtherPurpose)?;
        if !operations.iter().any(|operation| operation.as_str() == Some("verify")) {
            return Err(KeyProblem::OtherPurpose);
        }
    }
    let named = match jwk.get("alg") {
        None => None,
        Some(alg) => Some(alg.as_str().and_then(Algorithm::parse).ok_or(KeyProblem::OtherPurpose)?),
    };
    if named.is_some_and(|algorithm| algorithm.family() != family) {
        return Err(KeyProblem::OtherPurpose);
    }
    let algorithms: Vec<_> = allowed
        .iter()
        .copied()
        .filter(|algorithm| algorithm.family() == family && named.is_none_or(|named| named == *algorithm))
        .collect();
    if algorithms.is_empty() { Err(KeyProblem::NotConfigured) } else { Ok(algorithms) }
}

enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point, or the 32 octets of Ed25519.
    Point(Vec<u8>),
}

impl Material {
    fn read(jwk: &Value, family: Family) -> Result<Self, KeyProblem> {
        let octets =
            |member: &str| jwk.get(member).and_then(Value::as_str).and_then(jws::decode).ok_or(KeyProblem::Malformed);
        match family {
            Family::Rsa => {
                let (n, e) = (without_leading_zeros(octets("n")?), without_leading_zeros(octets("e")?));
                check_rsa(&n, &e)?;
                Ok(Self::Rsa { n, e })
            }
            Family::P256 | Family::P384 => {
                let width = if family == Family::P256 { 32 } else { 48 };
                let (x, y) = (octets("x")?, octets("y")?);
                if x.len() != width || y.len() != width {
                    return Err(KeyProblem::BadPoint);
                }
                Ok(Self::Point([&[4], x.as_slice(), y.as_slice()].concat()))
            }
            Family::Ed25519 => {
                let x = octets("x")?;
                if x.len() != 32 || is_degenerate(&x) {
                    return Err(KeyProblem::BadPoint);
                }
                Ok(Self::Point(x))
            }
        }
    }

    fn parse(&self, algorithm: Algorithm) -> Result<ParsedPublicKey, KeyProblem> {
        match self {
            Self::Rsa { n, e } => {
                let der = rsa_der(n, e);
                ParsedPublicKey::new(algorithm.verification(), der).map_err(|_| KeyProblem::WeakRsa)
            }
            Self::Point(octets) => {
                ParsedPublicKey::new(algorithm.verification(), octets).map_err(|_| KeyProblem::BadPoint)
            }
        }
    }

    /// RFC 7638. The members are canonical already, or are made so.
    fn thumbprint(&self, jwk: &Value) -> [u8; 32] {
        let text = |member: &str| jwk.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
        let members: BTreeMap<&str, String> = match self {
            Self::Rsa { n, e } => [("kty", "RSA".into()), ("n", jws::encode(n)), ("e", jws::encode(e))].into(),
            Self::Point(_) => ["kty", "crv", "x", "y"]
                .into_iter()
                .filter(|member| jwk.get(*member).is_some() && !(*member == "y" && text("kty") == "OKP"))
                .map(|member| (member, text(member)))
                .collect(),
        };
        sha256(&serde_json::to_vec(&members).unwrap_or_default())
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sum
}

fn without_leading_zeros(mut octets: Vec<u8>) -> Vec<u8> {
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    octets.drain(..zeros);
    octets
}

/// A modulus of 2048 to 8192 bits, odd, not of the ROCA form; an exponent of 65537 or a larger odd one below 2^33.
fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), KeyProblem> {
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    let odd = |octets: &[u8]| octets.last().is_some_and(|last| last % 2 == 1);
    let exponent = e.iter().try_fold(0_u64, |sum, octet| sum.checked_mul(256).map(|sum| sum + u64::from(*octet)));
    let exponent_sound = exponent.is_some_and(|e| (65_537..1 << 33).contains(&e)) && odd(e);
    if !(2048..=8192).contains(&bits) || !odd(n) || !exponent_sound {
        return Err(KeyProblem::WeakRsa);
    }
    if is_roca(n) { Err(KeyProblem::Roca) } else { Ok(()) }
}

/// CVE-2017-15361: the modulus is a power of 65537 modulo each of the first odd primes.
fn is_roca(n: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107,
        109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|prime| {
        let residue = n.iter().fold(0, |rest, octet| (rest * 256 + u32::from(*octet)) % prime);
        let mut power = 1;
        (0..*prime).any(|_| {
            power = power * 65_537 % prime;
            power == residue
        })
    })
}

/// Ed25519 keys that verify what nobody signed: points of small order, in every spelling, and spellings that are not canonical.
fn is_degenerate(key: &[u8]) -> bool {
    const ORDER_8: [&str; 2] = [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ];
    let mut y = key.to_vec();
    let Some(last) = y.last_mut() else { return true };
    *last &= 0x7f;
    let (first, middle, last) = (y[0], &y[1..31], y[31]);
    let zero_or_one = first <= 1 && middle.iter().all(|octet| *octet == 0) && last == 0;
    // 2^255 - 20 (that is -1) and everything from 2^255 - 19 on, which has a shorter spelling.
    let minus_one_or_more = first >= 0xec && middle.iter().all(|octet| *octet == 0xff) && last == 0x7f;
    zero_or_one || minus_one_or_more || ORDER_8.iter().any(|known| hex::decode(known).is_ok_and(|known| known == y))
}

/// PKCS#1 `RSAPublicKey`.
fn rsa_der(n: &[u8], e: &[u8]) -> Vec<u8> {
    let body = [integer(n), integer(e)].concat();
    [&[0x30], length(body.len()).as_slice(), body.as_slice()].concat()
}

fn integer(octets: &[u8]) -> Vec<u8> {
    let pad: &[u8] = if octets.first().is_some_and(|first| first & 0x80 != 0) { &[0] } else { &[] };
    [&[0x02], length(pad.len() + octets.len()).as_slice(), pad, octets].concat()
}

fn length(octets: usize) -> Vec<u8> {
    match octets {
        0..=0x7f => vec![octets as u8],
        0x80..=0xff => vec![0x81, octets as u8],
        _ => vec![0x82, (octets >> 8) as u8, octets as u8],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::mint::SigningKey;

    #[test]
    fn a_key_of_ed25519_verifies_that_alone_under_either_name() {
        let key = SigningKey::generate(Algorithm::EdDsa, "k").unwrap();
        let with = |member: &str, value: Value| {
            let mut jwk = key.public();
            jwk[member] = value;
            VerifyingKey::from_jwk(&jwk, &Algorithm::ALL)
        };
        for alg in ["EdDSA", "Ed25519"] {
            let read = with("alg", alg.into()).unwrap();
            let verified: Vec<_> = Algorithm::ALL.into_iter().filter(|algorithm| read.verifies(*algorithm)).collect();
            assert_eq!(verified, [Algorithm::EdDsa], "{alg}");
        }
        for alg in [json!("Ed448"), json!("ES256"), json!("HS256"), json!("ed25519"), json!(null)] {
            assert_eq!(with("alg", alg.clone()).unwrap_err(), KeyProblem::OtherPurpose, "{alg}");
        }
        assert_eq!(with("crv", "Ed448".into()).unwrap_err(), KeyProblem::Unsupported);
        let jwk = SigningKey::generate(Algorithm::ES256, "k").unwrap().public();
        let named = json!({ "kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"], "alg": "Ed25519" });
        assert_eq!(VerifyingKey::from_jwk(&named, &Algorithm::ALL).unwrap_err(), KeyProblem::OtherPurpose);
    }

    #[test]
    fn a_point_whose_halves_are_parted_elsewhere_is_none() {
        let jwk = SigningKey::generate(Algorithm::ES256, "k").unwrap().public();
        let half = |member: &str| jws::decode(jwk[member].as_str().unwrap()).unwrap();
        let point = [half("x"), half("y")].concat();
        let parted = |at: usize| {
            let mut jwk = jwk.clone();
            (jwk["x"], jwk["y"]) = (jws::encode(&point[..at]).into(), jws::encode(&point[at..]).into());
            VerifyingKey::from_jwk(&jwk, &Algorithm::ALL).map(|_| ())
        };
        assert_eq!(parted(32), Ok(()));
        for elsewhere in [0, 31, 33, 64] {
            assert_eq!(parted(elsewhere), Err(KeyProblem::BadPoint), "{elsewhere}");
        }
    }
}
