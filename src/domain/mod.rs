//! The words everything else is written in: identifiers, the request, facts and the values that decisions compare.
//!
//! Pure: no clock, no I/O, no async. Every other module may import this one; it imports none.

pub mod address;
pub mod country;
pub mod device;
pub mod fact;
pub mod facts;
pub mod host;
pub mod identity;
pub mod ids;
pub mod metric;
pub mod notice;
pub mod path;
pub mod place;
pub mod request;
pub mod score;
pub mod secret;
pub mod session;
pub mod span;
pub mod text;
pub mod time;
pub mod values;

/// For what is left out of records where it is as usual, and read back as its default.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub use device::{DeviceEvidence, DeviceProof, DeviceRecord, DeviceSighting, DeviceStatus, PatchLevel};
pub use fact::{Fact, Unavailable};
pub use facts::{Behavior, Credential, Facts, Possession, Quota, Revocation, RevocationKind};
pub use identity::{AuthMethod, AuthMethods, Confirmation, CredentialProblem, Identity, SubjectKind, Workload};
pub use ids::{DecisionId, DeviceId, Issuer, Permission, PolicyId, Role, RuleId, SessionId, SubjectId, TokenId};
pub use notice::{Notice, ReportedRisk};
pub use place::{NetworkKind, Place};
pub use request::{AccessRequest, ClientKind, Method, RouteExtensions, Transport};
pub use score::{Assessment, Evidence, Lines, Signal, SignalName};
pub use secret::Secret;
pub use session::{SessionStart, SessionState};
pub use span::Span;
pub use time::UnixTime;
pub use values::{Classification, RiskLevel, RiskModel, RiskScore, TrustLevel, TrustScore};
