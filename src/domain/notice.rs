//! What others have told about a subject, a session or a device that a decision must heed: notices of security events.

use std::ops::Not;

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::{Identity, UnixTime};

/// Everything that is known of one request's subject, session and device together.
#[skip_serializing_none]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    /// The account is disabled: nothing of it is let in until it is enabled again.
    #[serde(skip_serializing_if = "Not::not")]
    pub disabled: bool,
    /// Only a strong authentication after this time counts.
    pub strong_after: Option<UnixTime>,
    pub risk: Option<ReportedRisk>,
    /// The session was ended here.
    #[serde(skip_serializing_if = "Not::not")]
    pub ended: bool,
    /// When; what does not say so counts for every token.
    pub ended_at: Option<UnixTime>,
}

impl Notice {
    /// Both together: the stricter of each.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            disabled: self.disabled || other.disabled,
            strong_after: self.strong_after.max(other.strong_after),
            risk: self.risk.max(other.risk),
            ended: self.ended || other.ended,
            ended_at: self.ended_at.max(other.ended_at),
        }
    }

    /// Whether the session of this token was ended, and the token does not begin the next one.
    pub fn ends(&self, identity: &Identity) -> bool {
        self.ended && !self.ended_at.is_some_and(|end| identity.begins_after(end))
    }
}

/// A risk that somebody else saw. Low is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportedRisk {
    Medium,
    High,
}

impl ReportedRisk {
    /// What it adds to the score: alone it makes the level of its name.
    pub const fn points(self) -> f64 {
        match self {
            Self::Medium => 3.0,
            Self::High => 5.0,
        }
    }
}
