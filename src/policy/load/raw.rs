//! The shape of a rules file, as serde reads it. Nothing here judges; `convert` makes the model of it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    domain::{AuthMethod, Classification, RiskLevel, SignalName, SubjectKind, TrustLevel, span::Span},
    policy::model::{Access, ActionKind, AuthenticatedBy, DeviceMode, DeviceState, GuardAction, LocationState},
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Defaults {
    pub(super) min_trust_level: Option<TrustLevel>,
    pub(super) device: Option<DeviceMode>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Guard {
    pub(super) id: String,
    #[serde(rename = "description")]
    pub(super) _description: Option<String>,
    pub(super) when: When,
    pub(super) action: GuardAction,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    pub(super) risk_at_least: Option<f64>,
    pub(super) risk_level: Option<RiskLevel>,
    pub(super) device: Option<DeviceState>,
    pub(super) location: Option<LocationState>,
    pub(super) network: Option<GuardNetwork>,
    pub(super) subject: Option<SubjectKind>,
}

/// A rule for sessions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    pub(super) id: String,
    #[serde(rename = "description")]
    pub(super) _description: Option<String>,
    pub(super) when: SessionWhen,
    pub(super) outcome: Outcome,
}

/// As [`When`], and what only a session can show. (Serde cannot flatten where unknown keys are errors.)
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionWhen {
    pub(super) risk_at_least: Option<f64>,
    pub(super) risk_level: Option<RiskLevel>,
    pub(super) device: Option<DeviceState>,
    pub(super) location: Option<LocationState>,
    pub(super) network: Option<GuardNetwork>,
    pub(super) subject: Option<SubjectKind>,
    #[serde(default)]
    pub(super) risk_above_ceiling: bool,
    #[serde(default)]
    pub(super) place_changed: bool,
    #[serde(default)]
    pub(super) network_changed: bool,
    #[serde(default)]
    pub(super) device_changed: bool,
    pub(super) anomaly: Option<SignalName>,
}

/// `end_session`, or `reduce_privileges: [read_only]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Reauthenticate,
    VerifyIdentity,
    StepUpAuthentication,
    VerifyLocation,
    ReducePrivileges(Vec<String>),
    EndSession,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum GuardNetwork {
    Vpn,
    Hosting,
    Tor,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    pub(super) id: String,
    #[serde(rename = "description")]
    pub(super) _description: Option<String>,
    #[serde(rename = "match")]
    pub(super) matches: Match,
    #[serde(default)]
    pub(super) access: Access,
    #[serde(default)]
    pub(super) authenticated_by: AuthenticatedBy,
    pub(super) permission: Option<String>,
    pub(super) policy: Option<String>,
    pub(super) data_classification: Option<Classification>,
    pub(super) min_trust_level: Option<TrustLevel>,
    pub(super) device: Option<DeviceMode>,
    #[serde(default)]
    pub(super) streaming: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    #[serde(default)]
    pub(super) hosts: Listed<String>,
    pub(super) paths: Vec<String>,
    pub(super) methods: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) id: String,
    pub(super) name: Option<String>,
    #[serde(rename = "description")]
    pub(super) _description: Option<String>,
    #[serde(default)]
    pub(super) conditions: Conditions,
    #[serde(default)]
    pub(super) rate_limits: Vec<RateLimit>,
    pub(super) actions: Vec<Action>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Conditions {
    pub(super) min_trust_score: Option<f64>,
    pub(super) min_trust_level: Option<TrustLevel>,
    pub(super) max_risk: Option<f64>,
    pub(super) required_auth_methods: Listed<AuthMethod>,
    pub(super) allowed_locations: Listed<Location>,
    pub(super) device_requirements: Listed<BTreeMap<String, serde_json::Value>>,
    pub(super) data_classification: Listed<Classification>,
    pub(super) api_scopes: Listed<String>,
    pub(super) without_restrictions: Listed<String>,
}

/// A list that may be left out, and is then none; one that stands there empty is told apart.
#[derive(Debug)]
pub(super) struct Listed<T>(Option<Vec<T>>);

impl<T> Listed<T> {
    pub(super) fn items(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }

    pub(super) const fn is_given(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn stands_empty(&self) -> bool {
        self.0.as_ref().is_some_and(Vec::is_empty)
    }
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|items| Self(Some(items)))
    }
}

/// `{type: country, countries: [DE]}`; the singular words hold one value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Location {
    #[serde(rename = "type")]
    pub(super) kind: LocationKind,
    pub(super) value: Option<String>,
    #[serde(default)]
    pub(super) values: Listed<String>,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) names: Listed<String>,
    pub(super) country: Option<String>,
    #[serde(default)]
    pub(super) countries: Listed<String>,
    pub(super) cidr: Option<String>,
    #[serde(default)]
    pub(super) cidrs: Listed<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LocationKind {
    CorporateNetwork,
    PrivateNetwork,
    KnownSecureLocation,
    Country,
    Cidr,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimit {
    pub(super) scope: String,
    pub(super) limit: u32,
    pub(super) window: Span,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Action {
    #[serde(rename = "type")]
    pub(super) kind: ActionKind,
    #[serde(default)]
    pub(super) constraints: Constraints,
    #[serde(default)]
    pub(super) requirements: Vec<BTreeMap<String, serde_json::Value>>,
}

/// What is `false` is as if it were not there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Constraints {
    pub(super) session_duration: Option<Span>,
    pub(super) require_justification: bool,
    pub(super) require_signed_requests: bool,
    pub(super) validate_jwt: bool,
    pub(super) encrypt_in_transit: bool,
    pub(super) audit_all_access: bool,
    pub(super) enable_session_recording: bool,
    pub(super) monitor_usage: bool,
    pub(super) encrypt_at_rest: bool,
    pub(super) prevent_download: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cedar {
    /// A file or folder, relative to the rules file.
    pub(super) policies: String,
    /// Without it, the schema that comes with the program.
    pub(super) schema: Option<String>,
    pub(super) entities: Option<String>,
}
