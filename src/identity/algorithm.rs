//! The signature algorithms that are accepted. There is no `none` and no HMAC here, so neither can be configured.

use aws_lc_rs::signature::{self, EcdsaVerificationAlgorithm, EdDSAParameters, RsaParameters, VerificationAlgorithm};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

/// A JWS signature algorithm (RFC 7518, RFC 8037). `EdDSA` means Ed25519, and `Ed25519` (RFC 9864) is another name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = name_in_full)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    #[serde(rename = "EdDSA", alias = "Ed25519")]
    EdDsa,
}

const ED25519: &str = "Ed25519";

/// The derived schema knows no aliases.
fn name_in_full(schema: &mut Schema) {
    if let Some(names) = schema.get_mut("enum").and_then(serde_json::Value::as_array_mut) {
        names.push(ED25519.into());
    }
}

/// What kind of key an algorithm needs. A key of one family never verifies for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Algorithm {
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDsa,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Every name of it. RFC 9864 names an algorithm together with its curve.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let in_full = (self == Self::EdDsa).then_some(ED25519);
        std::iter::once(self.as_str()).chain(in_full)
    }

    /// Exact, as RFC 7515 demands: `rs256` is no algorithm.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.names().any(|name| name == text))
    }

    pub const fn family(self) -> Family {
        match self {
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => Family::Rsa,
            Self::ES256 => Family::P256,
            Self::ES384 => Family::P384,
            Self::EdDsa => Family::Ed25519,
        }
    }

    /// How it is verified. RSA moduli below 2048 bits are refused by the parameters themselves.
    pub fn verification(self) -> &'static dyn VerificationAlgorithm {
        const fn rsa(parameters: &'static RsaParameters) -> &'static dyn VerificationAlgorithm {
            parameters
        }
        const fn ecdsa(parameters: &'static EcdsaVerificationAlgorithm) -> &'static dyn VerificationAlgorithm {
            parameters
        }
        const fn eddsa(parameters: &'static EdDSAParameters) -> &'static dyn VerificationAlgorithm {
            parameters
        }
        match self {
            Self::RS256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::PS384 => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::PS512 => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::ES256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED),
            Self::ES384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => eddsa(&signature::ED25519),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ed25519_is_another_name_for_eddsa_and_nothing_else_is() {
        for name in ["EdDSA", "Ed25519"] {
            assert_eq!(Algorithm::parse(name), Some(Algorithm::EdDsa));
            assert_eq!(serde_json::from_value::<Algorithm>(name.into()).unwrap(), Algorithm::EdDsa);
        }
        for name in ["Ed448", "ed25519", "EDDSA", "Ed25519ph", ""] {
            assert_eq!(Algorithm::parse(name), None, "{name}");
            assert!(serde_json::from_value::<Algorithm>(name.into()).is_err(), "{name}");
        }
    }

    #[test]
    fn the_schema_has_every_name_that_is_read() {
        let schema = serde_json::to_value(schemars::schema_for!(Algorithm)).unwrap();
        let names = Algorithm::ALL.into_iter().flat_map(Algorithm::names);
        assert_eq!(schema["enum"], names.collect::<serde_json::Value>());
    }
}
