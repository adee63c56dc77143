//! What rules must know of the rest of the configuration.

use std::sync::Arc;

use crate::domain::RiskModel;

/// What the configuration, not the rules, decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub risk_model: RiskModel,
    /// Evidence of sessions must be renewed as it ages.
    pub reverify: bool,
    /// Decisions are recorded: there is a sink.
    pub audit: bool,
    /// Places are looked up.
    pub location: bool,
    /// Places carry countries: there is a database.
    pub countries: bool,
    /// Requests may come from some countries only: `location.allowed_countries`.
    pub allowed_countries: bool,
    /// Names of `location.known_networks`; `None`: not known here.
    pub known_networks: Option<Arc<[Arc<str>]>>,
    /// Claims that issuers hand on to attribute policies, of whatever type their tokens give them.
    pub claims: Arc<[Arc<str>]>,
    /// Who vouches for callers: the issuers of tokens, and the trust domains of workloads as `spiffe://…`. Attribute policies
    /// name callers by subject alone. Empty: not known here.
    pub issuers: Arc<[Arc<str>]>,
    pub trust_domains: Arc<[Arc<str>]>,
    /// What challenges call the kinds of authentication: `identity.acr_values`.
    pub acr_values: AcrValues,
}

/// What challenges call the kinds of authentication, least first. Empty: not known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcrValues {
    pub mfa: Arc<str>,
    pub phishing_resistant: Arc<str>,
    pub hardware: Arc<str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            risk_model: RiskModel::Statistical,
            reverify: true,
            audit: true,
            location: true,
            countries: true,
            allowed_countries: false,
            known_networks: None,
            claims: Arc::default(),
            issuers: Arc::default(),
            trust_domains: Arc::default(),
            acr_values: AcrValues::default(),
        }
    }
}
