//! What a resource wants of its caller: anybody, somebody, somebody with a permission; a user, a workload, or both.

use serde::{Deserialize, Serialize};

/// How much of a caller a resource asks for. Ordered from lax to strict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Anybody; guards and policies do not look.
    Public,
    /// Anybody with valid credentials that the guards let through.
    Authenticated,
    /// Who also holds the permission, or is let in by the policy.
    #[default]
    Authorized,
}

/// By what a caller must be known: a token, the certificate of a workload, or both; by default either will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticatedBy {
    /// A token; without one, a workload.
    #[default]
    Any,
    User,
    Workload,
    Both,
}

impl AuthenticatedBy {
    pub const fn needs_token(self) -> bool {
        matches!(self, Self::User | Self::Both)
    }

    pub const fn needs_workload(self) -> bool {
        matches!(self, Self::Workload | Self::Both)
    }

    /// What meets both demands.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self.needs_token() || other.needs_token(), self.needs_workload() || other.needs_workload()) {
            (true, true) => Self::Both,
            (true, false) => Self::User,
            (false, true) => Self::Workload,
            (false, false) => Self::Any,
        }
    }
}
