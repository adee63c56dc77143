//! One signing key: made, kept as PKCS#8, published as a JWK. The private half is never shown and never logged.

use std::fmt;

use aws_lc_rs::{
    digest,
    encoding::{AsDer, Pkcs8V1Der},
    error::{KeyRejected, Unspecified},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Algorithm;

pub(super) struct Key {
    pair: Pair,
    /// RFC 7638 thumbprint.
    pub(super) kid: String,
    /// The encoded header of everything that it signs.
    header: String,
    jwk: Value,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Key {
    /// `typ`: the header parameter of what it signs.
    pub(super) fn generate(algorithm: Algorithm, typ: &str) -> Result<Self, Unspecified> {
        let pair = match algorithm {
            Algorithm::EdDSA => Pair::Ed25519(Ed25519KeyPair::generate()?),
            Algorithm::ES256 => Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?),
            Algorithm::RS256 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048)?),
        };
        Ok(Self::new(pair, typ))
    }

    pub(super) fn from_pkcs8(algorithm: Algorithm, typ: &str, pkcs8: &[u8]) -> Result<Self, KeyRejected> {
        let pair = match algorithm {
            Algorithm::EdDSA => Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)?),
            Algorithm::ES256 => Pair::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)?),
            Algorithm::RS256 => Pair::Rsa(RsaKeyPair::from_pkcs8(pkcs8)?),
        };
        Ok(Self::new(pair, typ))
    }

    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let document = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1()?,
            Pair::P256(pair) => pair.to_pkcs8v1()?,
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der()?;
                return Ok(Zeroizing::new(der.as_ref().to_vec()));
            }
        };
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    fn new(pair: Pair, typ: &str) -> Self {
        let encode = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
        // The members that the thumbprint covers, in its order (RFC 7638 section 3.2).
        let (algorithm, canonical) = match &pair {
            Pair::Ed25519(pair) => {
                let x = encode(pair.public_key().as_ref());
                ("EdDSA", format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#))
            }
            Pair::P256(pair) => {
                // An uncompressed point: 4, then both coordinates.
                let point = pair.public_key().as_ref();
                let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
                ("ES256", format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#))
            }
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let n = encode(public.modulus().big_endian_without_leading_zero());
                let e = encode(public.exponent().big_endian_without_leading_zero());
                ("RS256", format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#))
            }
        };
        let kid = encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let header = json!({"alg": algorithm, "kid": kid, "typ": typ});
        let mut jwk = serde_json::from_str::<Value>(&canonical).unwrap_or_default();
        jwk["kid"] = kid.as_str().into();
        jwk["alg"] = algorithm.into();
        jwk["use"] = "sig".into();
        Self { pair, kid, header: encode(header.to_string().as_bytes()), jwk }
    }

    pub(super) const fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// A compact JWS over `claims`.
    pub(super) fn sign(&self, claims: &[u8]) -> Result<String, Unspecified> {
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 352);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let (message, random) = (token.as_bytes(), SystemRandom::new());
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(message)?.as_ref().to_vec(),
            Pair::P256(pair) => pair.sign(&random, message)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                signature
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
        Ok(token)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.kid)
    }
}
