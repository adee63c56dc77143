//! Why a request was refused: a closed list of stable codes, safe to count and to show to anybody.
//!
//! The table below is the only place where a code meets its class, what to do about it and its public sentence; the
//! reference page is made from it. A reason never tells more than an attacker may know; details go to the audit record.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Classes of findings in the order in which they answer: the first with a member decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The request cannot be read in one way only: 400.
    Malformed,
    /// No credentials, or none that hold: 401.
    Credentials,
    /// Credentials that held once: 401.
    Revoked,
    /// A rule says no: 403.
    Refused,
    /// Too many, for now: 429.
    RateLimited,
    /// A fact that must be known is not: 503.
    Unknown,
    /// Allowed after a stronger or fresher authentication: 401.
    StepUp,
}

impl Class {
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::Credentials,
        Self::Revoked,
        Self::Refused,
        Self::RateLimited,
        Self::Unknown,
        Self::StepUp,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Credentials => "credentials",
            Self::Revoked => "revoked",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::Unknown => "unknown",
            Self::StepUp => "step_up",
        }
    }

    /// The HTTP status of an answer of this class.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Credentials | Self::Revoked | Self::StepUp => 401,
            Self::Refused => 403,
            Self::RateLimited => 429,
            Self::Unknown => 503,
        }
    }

    /// The word for `error` in the body of the answer.
    pub const fn error(self) -> &'static str {
        match self {
            Self::Malformed => "bad_request",
            Self::Credentials | Self::Revoked => "unauthorized",
            Self::Refused => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::Unknown => "unavailable",
            Self::StepUp => "step_up_required",
        }
    }
}

/// What the caller can do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionRequired {
    None,
    Authenticate,
    StepUpAuthentication,
    Reauthenticate,
    VerifyIdentity,
    VerifyLocation,
    DeviceEnrollment,
    ReducePrivileges,
    RetryLater,
    ContactAdmin,
}

impl ActionRequired {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Authenticate => "authenticate",
            Self::StepUpAuthentication => "step_up_authentication",
            Self::Reauthenticate => "reauthenticate",
            Self::VerifyIdentity => "verify_identity",
            Self::VerifyLocation => "verify_location",
            Self::DeviceEnrollment => "device_enrollment",
            Self::ReducePrivileges => "reduce_privileges",
            Self::RetryLater => "retry_later",
            Self::ContactAdmin => "contact_admin",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident $code:literal $class:ident $action:ident $message:literal)+) => {
        /// Why. Codes are stable: dashboards and clients rely on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason { $(#[doc = $message] #[serde(rename = $code)] $variant),+ }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable code, in snake case.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The class it answers in, unless a decision moved it (a step-up that nothing could satisfy is a refusal).
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class),+ }
            }

            pub const fn action_required(self) -> ActionRequired {
                match self { $(Self::$variant => ActionRequired::$action),+ }
            }

            /// A sentence for the caller.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message),+ }
            }

            pub fn parse(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    MalformedPath "malformed_path" Malformed None "The path can be read in more than one way."
    MessageTooLarge "message_too_large" Malformed None "The request is too large to be judged."
    AmbiguousCredentials "ambiguous_credentials" Malformed Authenticate "Send credentials once, and in one way."
    TokenTooLarge "token_too_large" Malformed Authenticate "The token is too large."

    NoCredentials "no_credentials" Credentials Authenticate "Credentials are required."
    TokenInvalid "token_invalid" Credentials Authenticate "The credentials are not valid."
    TokenExpired "token_expired" Credentials Authenticate "The token has expired."
    TokenNotYetValid "token_not_yet_valid" Credentials Authenticate "The token is not valid yet."
    ProofRequired "proof_required" Credentials Authenticate "The token is bound to a key: prove possession of it."
    ProofInvalid "proof_invalid" Credentials Authenticate "The proof of possession is not valid."
    NonceRequired "nonce_required" Credentials Authenticate "The proof must carry the nonce of this answer."

    TokenRevoked "token_revoked" Revoked Authenticate "The token has been revoked."
    SessionRevoked "session_revoked" Revoked Authenticate "The session has been ended."
    SubjectRevoked "subject_revoked" Revoked Authenticate "Access has been revoked: sign in again."
    DeviceRevoked "device_revoked" Revoked ContactAdmin "The device has been revoked."
    AccountDisabled "account_disabled" Revoked ContactAdmin "The account is disabled."
    SessionEnded "session_ended" Revoked Reauthenticate "The session has ended: sign in again."

    NoMatchingResource "no_matching_resource" Refused None "No rule allows this."
    MethodNotAllowed "method_not_allowed" Refused None "No rule allows this method here."
    RouteMisconfigured "route_misconfigured" Refused ContactAdmin "The route asks for something that is not understood."
    UnknownPolicy "unknown_policy" Refused ContactAdmin "The route names a policy that does not exist."
    UnknownResource "unknown_resource" Refused ContactAdmin "The route names a resource that does not exist."
    SegmentDenied "segment_denied" Refused None "These workloads may not speak to each other."
    RiskTooHigh "risk_too_high" Refused VerifyIdentity "The request looks too risky."
    DeviceUntrusted "device_untrusted" Refused DeviceEnrollment "The device is not trusted."
    DeviceNotRegistered "device_not_registered" Refused DeviceEnrollment "A registered device is required."
    DeviceNotProven "device_not_proven" Refused DeviceEnrollment "The device must prove that it is the registered one."
    DeviceOtherOwner "device_other_owner" Refused DeviceEnrollment "The device is registered to somebody else."
    DeviceSuspended "device_suspended" Refused ContactAdmin "The device is suspended."
    DeviceJailbroken "device_jailbroken" Refused DeviceEnrollment "The device's protection has been removed."
    DeviceCertificateExpired "device_certificate_expired" Refused DeviceEnrollment "The device's certificate has expired: renew it."
    DevicePostureStale "device_posture_stale" Refused DeviceEnrollment "The state of the device has not been checked for too long."
    DeviceNotCompliant "device_not_compliant" Refused DeviceEnrollment "The device is not known to be compliant."
    DeviceRequirementUnmet "device_requirement_unmet" Refused DeviceEnrollment "The device does not meet what the policy asks for."
    LocationNotAllowed "location_not_allowed" Refused VerifyLocation "Access from this place is not allowed."
    ImpossibleTravel "impossible_travel" Refused VerifyLocation "The places of recent requests are too far apart."
    LocationUnusual "location_unusual" Refused VerifyLocation "The place is unusual."
    NetworkNotAllowed "network_not_allowed" Refused VerifyLocation "Access from this kind of network is not allowed."
    SubjectNotAllowed "subject_not_allowed" Refused None "This kind of subject is not allowed here."
    ClassificationNotCovered "classification_not_covered" Refused ReducePrivileges "The policy does not cover data of this classification."
    ScopeMissing "scope_missing" Refused ReducePrivileges "The token lacks a scope."
    JustificationRequired "justification_required" Refused None "A justification is required (X-Access-Justification)."
    SignedRequestRequired "signed_request_required" Refused Authenticate "The request must prove possession of the token's key."
    EncryptionRequired "encryption_required" Refused None "The connection must be encrypted."
    TokenRequired "token_required" Refused Authenticate "A token is required here."
    WorkloadRequired "workload_required" Refused None "Only a known workload may ask for this, by its certificate."
    PolicyDenied "policy_denied" Refused ContactAdmin "The policy refuses access."
    PermissionMissing "permission_missing" Refused ReducePrivileges "The permission is missing."
    AttributePolicyForbids "attribute_policy_forbids" Refused ContactAdmin "An attribute policy forbids this."
    AttributePolicyFailed "attribute_policy_failed" Refused ContactAdmin "An attribute policy could not be evaluated."
    TooManySessions "too_many_sessions" Refused Reauthenticate "Too many sessions: end another one, then sign in again."
    PrivilegesReduced "privileges_reduced" Refused ReducePrivileges "The session may not do this while it is restricted."
    StepUpImpossible "step_up_impossible" Refused ContactAdmin "This needs a stronger authentication, which a service cannot give."

    RateLimited "rate_limited" RateLimited RetryLater "Too many requests."

    CredentialsUnknown "credentials_unknown" Unknown RetryLater "The credentials cannot be verified just now."
    RevocationUnknown "revocation_unknown" Unknown RetryLater "The standing of the token cannot be verified just now."
    SignalsUnknown "signals_unknown" Unknown RetryLater "What is known of the account cannot be verified just now."
    DeviceUnknown "device_unknown" Unknown RetryLater "The device cannot be verified just now."
    LocationUnknown "location_unknown" Unknown RetryLater "The place cannot be verified just now."
    SessionUnknown "session_unknown" Unknown RetryLater "The session cannot be verified just now."
    QuotaUnknown "quota_unknown" Unknown RetryLater "The rate limit cannot be verified just now."
    AuditUnavailable "audit_unavailable" Unknown RetryLater "Access here must be recorded, and cannot be just now."

    MfaRequired "mfa_required" StepUp StepUpAuthentication "A second factor is required."
    StepUpRequired "step_up_required" StepUp StepUpAuthentication "A fresh, strong authentication is required."
    AuthenticationMethodRequired "authentication_method_required" StepUp StepUpAuthentication "A stronger way of authentication is required."
    TrustTooLow "trust_too_low" StepUp StepUpAuthentication "More trust is required than this request has."
    UnusualLocationStepUp "location_step_up" StepUp StepUpAuthentication "The place is unusual: authenticate again."
    ReauthenticationRequired "reauthentication_required" StepUp StepUpAuthentication "Something about the account has changed: authenticate again."
    SessionChanged "session_changed" StepUp Reauthenticate "Something about the session has changed: sign in again."
    IdentityUnverified "identity_unverified" StepUp VerifyIdentity "The session looks unusual: show who you are."
    SessionStepUp "session_step_up" StepUp StepUpAuthentication "Something about the session has changed: authenticate again."
    LocationUnverified "location_unverified" StepUp VerifyLocation "The session has moved: show that it is you."
    SessionTooOld "session_too_old" StepUp Reauthenticate "The session is too old for this: sign in again."
    ReverificationDue "reverification_due" StepUp Reauthenticate "The session must be verified again."
}

impl Reason {
    /// The status of an answer in `class` for this reason.
    pub const fn status_in(self, class: Class) -> u16 {
        match (self, class) {
            (Self::TokenTooLarge, Class::Malformed) => 431,
            (_, class) => class.status(),
        }
    }

    /// The status of an answer for this reason.
    pub const fn status(self) -> u16 {
        self.status_in(self.class())
    }

    /// The word for `error` in the body of the answer.
    pub const fn error(self) -> &'static str {
        self.class().error()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The table of the reference page, in Markdown, made from the list above.
pub fn reference_table() -> String {
    use fmt::Write as _;
    let mut table =
        String::from("| reason | status | `error` | `action_required` | message |\n|---|---|---|---|---|\n");
    for reason in Reason::ALL {
        // Writing into a `String` cannot fail.
        let _ = writeln!(
            table,
            "| `{}` | {} | `{}` | `{}` | {} |",
            reason.code(),
            reason.status(),
            reason.error(),
            reason.action_required().as_str(),
            reason.message(),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_snake_case_unique_and_read_back() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            let code = reason.code();
            assert!(code.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{code}");
            assert_eq!(Reason::parse(code), Some(*reason));
            assert!(Reason::ALL[..i].iter().all(|other| other.code() != code), "{code} twice");
            assert_eq!(serde_json::to_value(reason).unwrap(), code);
        }
    }

    #[test]
    fn every_refusal_has_a_status_of_the_contract() {
        for reason in Reason::ALL {
            assert!(matches!(reason.status(), 400 | 401 | 403 | 429 | 431 | 503), "{reason}");
        }
    }
}
