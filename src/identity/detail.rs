//! Why credentials were refused, for the audit record: a closed set, never a piece of the token.

use serde::{Deserialize, Serialize};

use crate::domain::CredentialProblem;

macro_rules! details {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $problem:ident),+ $(,)?) => {
        /// Why credentials were refused. Goes to the audit record; a client is told only the [`CredentialProblem`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Detail { $($(#[$doc])* $name),+ }

        impl Detail {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The class of answer it belongs to.
            pub const fn problem(self) -> CredentialProblem {
                match self { $(Self::$name => CredentialProblem::$problem),+ }
            }
        }
    };
}

details! {
    /// Several Authorization headers, a comma list, or a second way of sending a token.
    SeveralCredentials = "several_credentials" => Ambiguous,
    /// Over 16 KiB.
    TooLarge = "too_large" => TooLarge,
    /// Not Bearer or DPoP, DPoP where it is off, or no scheme at all.
    UnknownScheme = "unknown_scheme" => Unsupported,
    /// Bearer or DPoP, and not one token after it.
    NotOneToken = "not_one_token" => Invalid,
    NotCompactJws = "not_compact_jws" => Invalid,
    /// Not canonical base64url.
    Encoding = "encoding" => Invalid,
    /// Not a JSON object, a member twice, or too deep.
    Json = "json" => Invalid,
    /// `crit`, `b64` or `cty`.
    HeaderExtension = "header_extension" => Invalid,
    /// A `typ` that this issuer's access tokens do not have.
    WrongType = "wrong_type" => Invalid,
    /// `alg` missing, not a known signature, or not one this issuer uses.
    WrongAlgorithm = "wrong_algorithm" => Invalid,
    /// `kid` missing or no string.
    NoKeyId = "no_key_id" => Invalid,
    UnknownIssuer = "unknown_issuer" => Invalid,
    UnknownKey = "unknown_key" => Invalid,
    /// The key set is older than it may be relied on.
    KeysTooOld = "keys_too_old" => Invalid,
    /// The key is there, and is not for this algorithm.
    KeyMismatch = "key_mismatch" => Invalid,
    BadSignature = "bad_signature" => Invalid,
    WrongAudience = "wrong_audience" => Invalid,
    /// A required claim is missing, of a wrong type, or not clean text.
    Claim = "claim" => Invalid,
    /// An ID token, a refresh token, a security event, a logout token or a proof.
    OtherTokenKind = "other_token_kind" => Invalid,
    /// Lives longer than this issuer's tokens may.
    LifetimeTooLong = "lifetime_too_long" => Invalid,
    /// A `cnf` that this service cannot check.
    UnknownConfirmation = "unknown_confirmation" => Invalid,
    Expired = "expired" => Expired,
    NotYetValid = "not_yet_valid" => NotYetValid,
    /// Bound to a key, sent as a bearer token.
    ProofMissing = "proof_missing" => ProofRequired,
    /// Bound to a certificate, sent without one.
    CertificateMissing = "certificate_missing" => ProofRequired,
    CertificateMismatch = "certificate_mismatch" => ProofRequired,
    /// The scheme is DPoP and the token is bound to no key, or the proof is of another key.
    ProofKeyMismatch = "proof_key_mismatch" => ProofInvalid,
    /// Several proofs, or none that can be read.
    ProofMalformed = "proof_malformed" => ProofInvalid,
    ProofSignature = "proof_signature" => ProofInvalid,
    /// `htm` or `htu` of another request.
    ProofOtherRequest = "proof_other_request" => ProofInvalid,
    /// `ath` of another token.
    ProofOtherToken = "proof_other_token" => ProofInvalid,
    ProofTime = "proof_time" => ProofInvalid,
    ProofReplayed = "proof_replayed" => ProofInvalid,
    ProofNonce = "proof_nonce" => NonceRequired,
    /// The authorization server says that the opaque token is not active.
    NotActive = "not_active" => Invalid,
    /// The issuer's status list says so.
    StatusRevoked = "status_revoked" => Revoked,
    /// A status list that is not the issuer's.
    StatusForeign = "status_foreign" => Invalid,
}
