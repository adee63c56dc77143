//! Rules as plain data: what a rules file says, before it is checked and made quick.
//!
//! Built by the loader from YAML, or by hand in tests; `Rules::build` checks it and refuses what does not fit together.

mod options;
mod restriction;
mod session;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::domain::{
    AuthMethods, Classification, DeviceProof, Method, NetworkKind, PolicyId, RiskLevel, RuleId, SubjectKind, TrustLevel,
};

pub use self::{
    options::{AcrValues, Options},
    restriction::Restrictions,
    session::{SessionOutcome, SessionRule, SessionWhen},
};
pub use super::callers::{Access, AuthenticatedBy};

/// Everything that rules consist of.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    pub defaults: Defaults,
    pub guards: Vec<Guard>,
    pub sessions: Vec<SessionRule>,
    pub resources: Vec<Resource>,
    /// Role → permissions; `orders:*` and `*` are wildcards here and nowhere else.
    pub roles: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    pub policies: Vec<Policy>,
}

impl RuleSet {
    /// An empty set with what rules without `guards:` and `sessions:` sections have.
    pub fn with_default_guards() -> Self {
        Self { guards: Guard::defaults(), sessions: SessionRule::defaults(), ..Self::default() }
    }
}

/// What holds where a resource does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    pub min_trust_level: TrustLevel,
    pub device: DeviceMode,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { min_trust_level: TrustLevel::Low, device: DeviceMode::WhenPresent }
    }
}

/// Whether a device is asked for. Ordered from lax to strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceMode {
    /// Nobody looks.
    Never,
    /// It is looked at where one is named; none costs trust and risk.
    WhenPresent,
    /// A registered, owned, compliant and proven device, or no access.
    Always,
}

/// A rule that looks at every request of a known caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    pub id: RuleId,
    pub when: When,
    pub action: GuardAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardAction {
    Deny,
    StepUp,
}

/// What a guard looks for; all that is set must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct When {
    pub risk_at_least: Option<f64>,
    /// This level or a higher one.
    pub risk_level: Option<RiskLevel>,
    pub device: Option<DeviceState>,
    pub location: Option<LocationState>,
    pub network: Option<NetworkKind>,
    pub subject: Option<SubjectKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// What is known of the device contradicts the request.
    Untrusted,
    /// None named, or one that the registry does not know.
    Unregistered,
    /// Not known to be compliant.
    NotCompliant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocationState {
    Unusual,
    NotAllowed,
    ImpossibleTravel,
}

impl Guard {
    /// The four guards of DESIGN 3.6.
    pub fn defaults() -> Vec<Self> {
        let guard = |id: &str, when, action| Self { id: id.into(), when, action };
        let risk = |at_least| When { risk_at_least: Some(at_least), ..When::default() };
        let untrusted = When { device: Some(DeviceState::Untrusted), ..When::default() };
        let unusual = When { location: Some(LocationState::Unusual), ..When::default() };
        vec![
            guard("high_risk_block", risk(8.0), GuardAction::Deny),
            guard("untrusted_device", untrusted, GuardAction::Deny),
            guard("require_mfa", risk(5.0), GuardAction::StepUp),
            guard("unusual_location", unusual, GuardAction::StepUp),
        ]
    }

    /// The fifth, where countries are named that requests may come from.
    pub fn of_countries() -> Self {
        let when = When { location: Some(LocationState::NotAllowed), ..When::default() };
        Self { id: "country_not_allowed".into(), when, action: GuardAction::Deny }
    }
}

/// A set of paths, and what it takes to reach them.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    pub id: Arc<str>,
    /// Canonical host names; empty: any host.
    pub hosts: Vec<Arc<str>>,
    /// `/literal`, `{name}` for one segment, `**` at the end.
    pub paths: Vec<Arc<str>>,
    /// `None`: the common methods.
    pub methods: Option<Vec<Method>>,
    pub access: Access,
    pub authenticated_by: AuthenticatedBy,
    pub permission: Option<Arc<str>>,
    pub policy: Option<PolicyId>,
    pub data_classification: Option<Classification>,
    pub min_trust_level: Option<TrustLevel>,
    pub device: Option<DeviceMode>,
    /// Its answers may go on for long, whatever a request says of itself: each is told when it must end.
    pub streaming: bool,
}

impl Resource {
    /// A resource of one path, everything else left to the defaults.
    pub fn new(id: &str, path: &str) -> Self {
        Self {
            id: id.into(),
            hosts: Vec::new(),
            paths: vec![path.into()],
            methods: None,
            access: Access::Authorized,
            authenticated_by: AuthenticatedBy::Any,
            permission: None,
            policy: None,
            data_classification: None,
            min_trust_level: None,
            device: None,
            streaming: false,
        }
    }
}

/// Conditions that must hold, and what follows when they do.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub id: PolicyId,
    pub name: Option<Arc<str>>,
    pub conditions: Conditions,
    pub rate_limits: Arc<[RateLimit]>,
    pub actions: Vec<ActionKind>,
    pub constraints: Constraints,
}

impl Policy {
    /// A policy that allows, without conditions.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            name: None,
            conditions: Conditions::default(),
            rate_limits: Arc::from([]),
            actions: vec![ActionKind::Allow],
            constraints: Constraints::default(),
        }
    }
}

/// All that is set must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    pub min_trust_score: Option<f64>,
    pub min_trust_level: Option<TrustLevel>,
    /// The highest risk at which access is still had, 0 to 10.
    pub max_risk: Option<f64>,
    /// All of them.
    pub required_auth_methods: AuthMethods,
    /// Any of them; empty: everywhere.
    pub allowed_locations: Vec<AllowedLocation>,
    /// All of them.
    pub device_requirements: Vec<DeviceRequirement>,
    /// The resource's classification is one of these; empty: whatever it is.
    pub data_classification: Vec<Classification>,
    /// All of them.
    pub api_scopes: Vec<Arc<str>>,
    /// None of these restrictions lies on the session.
    pub without_restrictions: Restrictions,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AllowedLocation {
    CorporateNetwork,
    PrivateNetwork,
    /// One of the configured known networks; empty: any of them.
    KnownSecureLocation(Vec<Arc<str>>),
    Country(Vec<Arc<str>>),
    Cidr(Vec<IpNet>),
}

impl AllowedLocation {
    /// Whether it can be judged from the client's address alone.
    pub fn contains_address(&self, client: Option<IpAddr>) -> bool {
        match (self, client) {
            (Self::Cidr(nets), Some(client)) => nets.iter().any(|net| net.contains(&client)),
            _ => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum DeviceRequirement {
    Managed(bool),
    Compliant(bool),
    Jailbroken(bool),
    DiskEncrypted(bool),
    /// At most so many days behind; 0 asks for `current`.
    PatchLevel(PatchRequirement),
    /// One of these systems, compared without case.
    Os(Vec<Arc<str>>),
    /// At least this proof.
    Proof(DeviceProof),
    MinTrustScore(f64),
}

impl DeviceRequirement {
    /// Its key in a rules file.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Managed(_) => "managed",
            Self::Compliant(_) => "compliant",
            Self::Jailbroken(_) => "jailbroken",
            Self::DiskEncrypted(_) => "disk_encrypted",
            Self::PatchLevel(_) => "patch_level",
            Self::Os(_) => "os",
            Self::Proof(_) => "proof",
            Self::MinTrustScore(_) => "min_trust_score",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchRequirement {
    /// Marked current, no days behind, or patched within [`Self::CURRENT_DAYS`].
    Current,
    /// At most so many days behind or since the last patch.
    Days(u32),
}

impl PatchRequirement {
    /// A device whose last patch is this old still counts as current: systems are patched monthly.
    pub const CURRENT_DAYS: u32 = 30;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    Allow,
    ConditionalAllow,
    StepUp,
    Deny,
}

/// What an allow is tied to: enforced here, or handed on to the upstream as a restriction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Longest time since the authentication.
    pub session_duration: Option<Duration>,
    pub require_justification: bool,
    /// A valid proof of possession.
    pub require_signed_requests: bool,
    pub validate_jwt: bool,
    pub encrypt_in_transit: bool,
    /// No access without a record of it.
    pub audit_all_access: bool,
    pub restrictions: Restrictions,
}

/// `limit` requests at once and then one each `window / limit`, counted for each value of `scope`: over a long time `limit`
/// in each `window`, and up to twice as many, less one, in the one that begins after a rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    pub scope: RateScope,
    pub limit: u32,
    pub window: Duration,
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateScope {
    /// Issuer and subject.
    User,
    Session,
    Device,
    /// `client_id`; where the token has none, its subject.
    Client,
    /// The client's address; of IPv6, its /64.
    Ip,
    /// Everybody together.
    Global,
    /// Issuer and subject, and only for tokens that hold this OAuth scope.
    ApiScope(Arc<str>),
}

impl RateScope {
    /// The words for all but OAuth scopes.
    pub const WORDS: [&'static str; 6] = ["user", "session", "device", "client", "ip", "global"];

    /// What `scope:` of a rate limit means (`per_user` is `user`); what is no word of ours is an OAuth scope.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("per_").unwrap_or(text) {
            "user" | "subject" => Self::User,
            "session" => Self::Session,
            "device" => Self::Device,
            "client" | "client_id" => Self::Client,
            "ip" | "address" => Self::Ip,
            "global" => Self::Global,
            _ => Self::ApiScope(text.into()),
        }
    }
}
