//! What continuous verification remembers of a session.

use std::{ops::Not, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::{AuthMethods, DeviceId, RiskScore, TrustLevel, UnixTime, is_default};

#[skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    pub created_at: UnixTime,
    /// When its evidence was last renewed: the newest token that says it was issued in it, or a step-up passed.
    pub verified_at: UnixTime,
    /// The level that it holds: what its trust fell to, or rose to after it had lasted.
    pub level: TrustLevel,
    /// Since when it holds that level.
    #[serde(default)]
    pub level_since: UnixTime,
    /// Since when its score, at every request, would have made a higher level than the one held.
    #[serde(default)]
    pub rising_since: Option<UnixTime>,
    /// Methods of a step-up that was passed in this session's context, and when.
    pub stepped_up: Option<(AuthMethods, UnixTime)>,
    /// When a step-up guard first applied in the present context (device, network) and was not yet satisfied there.
    /// A strong authentication at or after this moment satisfies it.
    #[serde(default)]
    pub challenged_at: Option<UnixTime>,
    /// The newest authentication of the session, where it was first seen in another context than the present one, in which
    /// a challenge stands: neither it nor an older one is the answer.
    #[serde(default)]
    pub authenticated_elsewhere: Option<UnixTime>,
    /// The most risk that a session with its beginning may show.
    #[serde(default)]
    pub risk_ceiling: Option<RiskScore>,
    /// Where and with what it began.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start: SessionStart,
    #[serde(default, skip_serializing_if = "Not::not")]
    pub ended: bool,
    /// Its subject has as many sessions as are allowed, and this is not one of them.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub over_limit: bool,
}

/// Where and with what a session began; what is not known there is never "changed".
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionStart {
    pub device: Option<DeviceId>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<Arc<str>>,
    /// Autonomous system number.
    pub asn: Option<u32>,
}

impl SessionState {
    /// A session that begins now, with evidence from `verified_at`.
    pub fn begun(now: UnixTime, verified_at: UnixTime, level: TrustLevel) -> Self {
        Self {
            created_at: now,
            verified_at,
            level,
            level_since: now,
            rising_since: None,
            stepped_up: None,
            challenged_at: None,
            authenticated_elsewhere: None,
            risk_ceiling: None,
            start: SessionStart::default(),
            ended: false,
            over_limit: false,
        }
    }
}
