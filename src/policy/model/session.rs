//! Rules for sessions as plain data.

use super::{Restrictions, When};
use crate::domain::{RuleId, SignalName};

/// What becomes of a session whose evidence has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRule {
    pub id: RuleId,
    pub when: SessionWhen,
    pub outcome: SessionOutcome,
}

/// What a rule for sessions looks for; all that is set must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SessionWhen {
    /// What guards can look for, too.
    pub request: When,
    /// The risk is above the most that a session with such a beginning may show.
    pub risk_above_ceiling: bool,
    /// Another country than at the beginning.
    pub place_changed: bool,
    /// Another autonomous system than at the beginning.
    pub network_changed: bool,
    /// Another device than at the beginning.
    pub device_changed: bool,
    /// The risk has a line of this name.
    pub anomaly: Option<SignalName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionOutcome {
    /// A new authentication, of any kind.
    Reauthenticate,
    /// A new, strong authentication; they differ in what the person is told.
    VerifyIdentity,
    StepUpAuthentication,
    VerifyLocation,
    /// These restrictions, while the rule holds.
    ReducePrivileges(Restrictions),
    /// For good, on every replica.
    EndSession,
}

impl SessionRule {
    /// A session that shows more risk than it began with must show who it is.
    pub fn defaults() -> Vec<Self> {
        let when = SessionWhen { risk_above_ceiling: true, ..SessionWhen::default() };
        vec![Self { id: "session_risk".into(), when, outcome: SessionOutcome::VerifyIdentity }]
    }
}
