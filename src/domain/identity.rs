//! Who a verified credential says is asking, and how they proved it.

use std::{collections::BTreeMap, fmt, ops::Not, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::{DeviceId, Issuer, Permission, Role, SessionId, SubjectId, TokenId, UnixTime};

/// The claims of a token that verified, in the words the rules use. Never built from anything unverified.
#[skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub issuer: Issuer,
    pub subject: SubjectId,
    pub kind: SubjectKind,
    pub token_id: TokenId,
    /// The `sid` claim, or the id derived from issuer, subject, client, device and `auth_time`.
    pub session: SessionId,
    /// Whether `session` came from the token itself.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub session_claimed: bool,
    pub client_id: Option<Arc<str>>,
    pub methods: AuthMethods,
    pub acr: Option<Arc<str>>,
    /// When the person authenticated: `auth_time`, if the token says.
    pub auth_time: Option<UnixTime>,
    pub issued_at: UnixTime,
    /// Nobody said when it was issued: it may be older than anything, whatever `issued_at` says.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub issue_unstated: bool,
    pub expires_at: UnixTime,
    /// `expires_at` and the leeway that its issuer's clock is given.
    #[serde(skip)]
    pub valid_until: Option<UnixTime>,
    pub roles: Vec<Role>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
    pub scopes: Vec<Arc<str>>,
    /// The device that the token names and therefore owes.
    pub device: Option<DeviceId>,
    pub confirmation: Option<Confirmation>,
    /// Which audience of ours the token named.
    pub audience: Arc<str>,
    /// Further claims that attribute policies may read, as the configuration lists them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<Arc<str>, serde_json::Value>,
}

impl Identity {
    /// Whether its token belongs to a new session where the one of its name ended at `end`. Only where the token names no
    /// session and no authentication: nothing but its issue then tells one login from the next.
    pub fn begins_after(&self, end: UnixTime) -> bool {
        let nameless = !self.session_claimed && self.auth_time.is_none() && !self.issue_unstated;
        nameless && self.issued_at.as_secs() > end.as_secs()
    }

    /// When what relies on it at `now` must end: at its expiry, and later only for what begins in the leeway after that.
    pub fn ends_at(&self, now: UnixTime) -> UnixTime {
        if now < self.expires_at { self.expires_at } else { self.valid_until.unwrap_or(self.expires_at) }
    }
}

/// A service cannot do MFA; a person can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    Person,
    Service,
}

/// What a token is bound to (RFC 7800): `cnf.jkt` (RFC 9449) or `cnf["x5t#S256"]` (RFC 8705).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmation {
    /// RFC 7638 thumbprint of a key, base64url.
    KeyThumbprint(Arc<str>),
    /// SHA-256 of the DER client certificate.
    CertificateSha256([u8; 32]),
}

/// A peer workload as Envoy's mTLS vouches for it.
#[skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// `source.principal`: the URI SAN (a SPIFFE id), else the DNS SAN, else the subject.
    pub principal: Arc<str>,
    /// Lower-case hexadecimal SHA-256 of the DER certificate, where Envoy sends it.
    pub cert_sha256: Option<Arc<str>>,
    /// The configured trust domain whose SPIFFE id `principal` is, while its certificate is in its time.
    #[serde(default)]
    pub trust_domain: Option<Arc<str>>,
    /// Its certificate is known to be out of its time: the connection outlives it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_time: bool,
}

impl Workload {
    /// Whether it is an identity by itself, rather than merely somebody with a certificate.
    pub const fn is_trusted(&self) -> bool {
        self.trust_domain.is_some()
    }
}

/// How somebody authenticated. Weights are those of DESIGN section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum AuthMethod {
    Password = 0,
    MfaTotp = 1,
    MfaPush = 2,
    Biometric = 3,
    Certificate = 4,
    HardwareKey = 5,
}

impl AuthMethod {
    pub const ALL: [Self; 6] =
        [Self::Password, Self::MfaTotp, Self::MfaPush, Self::Biometric, Self::Certificate, Self::HardwareKey];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::MfaTotp => "mfa_totp",
            Self::MfaPush => "mfa_push",
            Self::Biometric => "biometric",
            Self::Certificate => "certificate",
            Self::HardwareKey => "hardware_key",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == text)
    }

    /// What it adds to trust.
    pub const fn weight(self) -> f64 {
        match self {
            Self::Password => 0.10,
            Self::MfaTotp => 0.20,
            Self::MfaPush => 0.25,
            Self::Biometric | Self::Certificate => 0.30,
            Self::HardwareKey => 0.35,
        }
    }
}

/// A set of [`AuthMethod`]s, one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<AuthMethod>", into = "Vec<AuthMethod>")]
pub struct AuthMethods(u8);

impl AuthMethods {
    pub const NONE: Self = Self(0);

    pub const fn with(self, method: AuthMethod) -> Self {
        Self(self.0 | (1 << method as u8))
    }

    pub const fn contains(self, method: AuthMethod) -> bool {
        self.0 & (1 << method as u8) != 0
    }

    pub const fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// More than a password: any second factor, or one that is two by itself.
    pub const fn is_multi_factor(self) -> bool {
        self.0 & !Self::NONE.with(AuthMethod::Password).0 != 0
    }

    pub fn iter(self) -> impl Iterator<Item = AuthMethod> {
        AuthMethod::ALL.into_iter().filter(move |method| self.contains(*method))
    }
}

impl FromIterator<AuthMethod> for AuthMethods {
    fn from_iter<I: IntoIterator<Item = AuthMethod>>(methods: I) -> Self {
        methods.into_iter().fold(Self::NONE, Self::with)
    }
}

impl From<Vec<AuthMethod>> for AuthMethods {
    fn from(methods: Vec<AuthMethod>) -> Self {
        methods.into_iter().collect()
    }
}

impl From<AuthMethods> for Vec<AuthMethod> {
    fn from(methods: AuthMethods) -> Self {
        methods.iter().collect()
    }
}

impl fmt::Debug for AuthMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What was wrong with credentials that were there and could be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialProblem {
    /// Two tokens, two ways of sending one, a repeated header: 400.
    Ambiguous,
    /// The token or its proof is over a size limit: 431.
    TooLarge,
    /// Of another kind than is asked for (Basic, Negotiate): as if there were none (RFC 6750 section 3.1).
    Unsupported,
    /// Anything about the token that does not verify: one answer for all of it.
    Invalid,
    /// Its signature proved right, and its time is over.
    Expired,
    /// Its signature proved right, and its time has not come.
    NotYetValid,
    /// Its signature proved right, and its issuer's status list takes it back.
    Revoked,
    /// It is bound to a key or certificate, and the proof is not there.
    ProofRequired,
    /// There was a proof of possession, and it does not verify or is another's.
    ProofInvalid,
    /// A DPoP nonce is demanded.
    NonceRequired,
}
