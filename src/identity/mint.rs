//! Makes keys and signs tokens: for the demo's issuer, the embedded identity provider and the tests.
//!
//! ```
//! use countersign::identity::{Algorithm, mint::{SigningKey, key_set}};
//! # fn main() -> Result<(), countersign::identity::mint::MintError> {
//! let key = SigningKey::generate(Algorithm::ES256, "demo-1")?;
//! let token = key.token(&serde_json::json!({ "iss": "https://issuer.example", "sub": "alice" }))?;
//! let served_at_jwks = key_set([&key]);
//! # assert_eq!(token.split('.').count(), 3);
//! # assert!(served_at_jwks.contains("demo-1"));
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;

use aws_lc_rs::{
    digest,
    encoding::AsDer,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::algorithm::{Algorithm, Family};

/// Why a key could not be made or a token not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("a {0} key could not be made")]
    Generate(&'static str),
    #[error("not a {0} private key in PKCS#8 form")]
    Key(&'static str),
    #[error("signing failed")]
    Sign,
}

/// A private key with its `kid` and algorithm. `Debug` shows neither more.
pub struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A new key. RSA keys have 2048 bits and take a moment to make.
    ///
    /// # Errors
    ///
    /// The cryptographic library could not make one.
    pub fn generate(algorithm: Algorithm, kid: impl Into<String>) -> Result<Self, MintError> {
        let failed = |_| MintError::Generate(algorithm.as_str());
        let pair = match algorithm.family() {
            Family::Rsa => Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?)),
            Family::P256 => Pair::Ecdsa(EcdsaKeyPair::generate(ec_signing(algorithm)).map_err(failed)?),
            Family::P384 => Pair::Ecdsa(EcdsaKeyPair::generate(ec_signing(algorithm)).map_err(failed)?),
            Family::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().map_err(failed)?),
        };
        Ok(Self { kid: kid.into(), algorithm, pair })
    }

    /// A key kept earlier by [`to_pkcs8`](Self::to_pkcs8).
    ///
    /// # Errors
    ///
    /// `der` is no private key of the algorithm's kind.
    pub fn from_pkcs8(algorithm: Algorithm, kid: impl Into<String>, der: &[u8]) -> Result<Self, MintError> {
        let failed = |_| MintError::Key(algorithm.as_str());
        let pair = match algorithm.family() {
            Family::Rsa => Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(der).map_err(failed)?)),
            Family::P256 | Family::P384 => {
                Pair::Ecdsa(EcdsaKeyPair::from_pkcs8(ec_signing(algorithm), der).map_err(failed)?)
            }
            Family::Ed25519 => Pair::Ed25519(Ed25519KeyPair::from_pkcs8(der).map_err(failed)?),
        };
        Ok(Self { kid: kid.into(), algorithm, pair })
    }

    /// The private key as PKCS#8 DER: a secret.
    ///
    /// # Errors
    ///
    /// The cryptographic library could not write it.
    pub fn to_pkcs8(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, MintError> {
        let failed = |_| MintError::Key(self.algorithm.as_str());
        let der = match &self.pair {
            Pair::Rsa(pair) => pair.as_der().map_err(failed)?.as_ref().to_vec(),
            Pair::Ecdsa(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
        };
        Ok(zeroize::Zeroizing::new(der))
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key as a member of a key set, with `kid`, `alg` and `use: sig`.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.public();
        jwk["kid"] = self.kid.clone().into();
        jwk["alg"] = self.algorithm.as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// Only what makes the key: as a DPoP proof carries it.
    pub fn public(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let key = pair.public_key();
                let (n, e) = (key.modulus(), key.exponent());
                json!({ "kty": "RSA", "n": encode(n.big_endian_without_leading_zero()), "e": encode(e.big_endian_without_leading_zero()) })
            }
            Pair::Ecdsa(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at((point.len() - 1) / 2);
                let crv = if self.algorithm.family() == Family::P384 { "P-384" } else { "P-256" };
                json!({ "kty": "EC", "crv": crv, "x": encode(x), "y": encode(y) })
            }
            Pair::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) }),
        }
    }

    /// RFC 7638, base64url: what `cnf.jkt` holds.
    pub fn thumbprint(&self) -> String {
        // Members in alphabetical order without white space; serde_json's own map may keep another order.
        let public = self.public();
        let sorted: BTreeMap<_, _> = public.as_object().into_iter().flatten().collect();
        let text = serde_json::to_vec(&sorted).unwrap_or_default();
        encode(digest::digest(&digest::SHA256, &text).as_ref())
    }

    /// A compact JWS over `claims` with the header `{alg, kid, typ: at+jwt}`.
    ///
    /// # Errors
    ///
    /// The cryptographic library could not sign.
    pub fn token(&self, claims: &Value) -> Result<String, MintError> {
        self.sign(&json!({ "alg": self.algorithm.as_str(), "kid": self.kid, "typ": "at+jwt" }), claims)
    }

    /// A compact JWS with any header at all: this is where hostile tokens come from.
    ///
    /// # Errors
    ///
    /// The cryptographic library could not sign.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String, MintError> {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// A compact JWS over the texts as they are.
    ///
    /// # Errors
    ///
    /// The cryptographic library could not sign.
    pub fn sign_text(&self, header: &str, payload: &str) -> Result<String, MintError> {
        let input = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        let signature = self.signature(input.as_bytes())?;
        Ok(format!("{input}.{}", encode(&signature)))
    }

    /// A DPoP proof (RFC 9449) for one request. `access_token` gives `ath`; pass `None` at a token endpoint.
    ///
    /// # Errors
    ///
    /// The cryptographic library could not sign.
    pub fn dpop(&self, mut claims: Value, access_token: Option<&str>) -> Result<String, MintError> {
        if let Some(token) = access_token {
            claims["ath"] = encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref()).into();
        }
        self.sign(&json!({ "typ": "dpop+jwt", "alg": self.algorithm.as_str(), "jwk": self.public() }), &claims)
    }

    /// The bare signature of `message`.
    ///
    /// # Errors
    ///
    /// The cryptographic library could not sign.
    pub fn signature(&self, message: &[u8]) -> Result<Vec<u8>, MintError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(rsa_signing(self.algorithm), &random, message, &mut signature)
                    .map_err(|_| MintError::Sign)?;
                Ok(signature)
            }
            Pair::Ecdsa(pair) => Ok(pair.sign(&random, message).map_err(|_| MintError::Sign)?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, {})", self.kid, self.algorithm.as_str())
    }
}

/// The JSON text of a key set (RFC 7517) that holds the public halves of `keys`.
pub fn key_set<'k>(keys: impl IntoIterator<Item = &'k SigningKey>) -> String {
    json!({ "keys": keys.into_iter().map(SigningKey::jwk).collect::<Vec<_>>() }).to_string()
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ec_signing(algorithm: Algorithm) -> &'static signature::EcdsaSigningAlgorithm {
    match algorithm {
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
    }
}

fn rsa_signing(algorithm: Algorithm) -> &'static dyn RsaEncoding {
    match algorithm {
        Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_SHA512,
        _ => &signature::RSA_PKCS1_SHA256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_signs_what_its_verification_accepts() {
        for algorithm in Algorithm::ALL {
            let key = SigningKey::generate(algorithm, "k").unwrap();
            let again = SigningKey::from_pkcs8(algorithm, "k", &key.to_pkcs8().unwrap()).unwrap();
            assert_eq!(key.jwk(), again.jwk());
            let signature = again.signature(b"message").unwrap();
            let public = match &key.pair {
                Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
                Pair::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
                Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            };
            let public = signature::UnparsedPublicKey::new(algorithm.verification(), public);
            assert!(public.verify(b"message", &signature).is_ok(), "{algorithm:?}");
            assert!(public.verify(b"another", &signature).is_err(), "{algorithm:?}");
        }
    }

    #[test]
    fn a_thumbprint_is_that_of_rfc_7638() {
        // The members in the order and form that RFC 7638 section 3 prescribes.
        let key = SigningKey::generate(Algorithm::EdDsa, "k").unwrap();
        let x = key.public()["x"].as_str().unwrap().to_owned();
        let text = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        assert_eq!(key.thumbprint(), encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()));
    }
}
