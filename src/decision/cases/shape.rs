//! The shape of a case's sections, and what is ordinary where a case does not say.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::Deserialize;

use crate::domain::{
    AuthMethod, Classification, DeviceProof, DeviceStatus, NetworkKind, PatchLevel, SubjectKind, TrustLevel, span::Span,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RequestCase {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) address: Option<IpAddr>,
    pub(super) encrypted: bool,
    pub(super) justification: Option<String>,
    /// Hour of the day, UTC.
    pub(super) hour: Option<u64>,
    pub(super) tcp: bool,
    pub(super) extensions: ExtensionsCase,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExtensionsCase {
    pub(super) policy: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) data_classification: Option<Classification>,
    pub(super) min_trust_level: Option<TrustLevel>,
}

impl Default for RequestCase {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            host: "localhost".to_owned(),
            path: "/".to_owned(),
            address: None,
            encrypted: true,
            justification: None,
            hour: None,
            tcp: false,
            extensions: ExtensionsCase::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CallerCase {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) kind: SubjectKind,
    pub(super) client: Option<String>,
    pub(super) roles: Vec<String>,
    pub(super) permissions: Vec<String>,
    pub(super) scopes: Vec<String>,
    pub(super) methods: Vec<AuthMethod>,
    /// How long ago the person authenticated.
    pub(super) authenticated: Span,
    /// How long ago the token was issued.
    pub(super) issued: Span,
    pub(super) expires_in: Span,
    /// The device that the token names.
    pub(super) device: Option<String>,
    pub(super) claims: BTreeMap<String, serde_json::Value>,
    /// False: a workload known by its certificate alone.
    pub(super) token: bool,
}

impl Default for CallerCase {
    fn default() -> Self {
        let seconds = |seconds| Span::from(Duration::from_secs(seconds));
        Self {
            issuer: "https://issuer.example".to_owned(),
            subject: "somebody".to_owned(),
            kind: SubjectKind::Person,
            client: None,
            roles: Vec::new(),
            permissions: Vec::new(),
            scopes: Vec::new(),
            methods: vec![AuthMethod::Password, AuthMethod::MfaTotp],
            authenticated: seconds(60),
            issued: seconds(60),
            expires_in: seconds(3600),
            device: None,
            claims: BTreeMap::new(),
            token: true,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeviceCase {
    pub(super) id: Option<String>,
    pub(super) user: Option<String>,
    pub(super) managed: Option<bool>,
    pub(super) compliant: Option<bool>,
    pub(super) patch_level: Option<PatchLevel>,
    pub(super) os: Option<String>,
    pub(super) jailbroken: Option<bool>,
    pub(super) disk_encrypted: Option<bool>,
    pub(super) status: DeviceStatus,
    pub(super) trust_score: Option<f64>,
    pub(super) proof: Option<DeviceProof>,
    pub(super) fingerprint_differs: bool,
    pub(super) key_differs: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PlaceCase {
    pub(super) country: Option<String>,
    pub(super) network: NetworkKind,
    pub(super) known_networks: Vec<String>,
    pub(super) allowed: bool,
    pub(super) unusual: bool,
    pub(super) impossible_travel: bool,
    pub(super) known_to_subject: Option<bool>,
}

impl Default for PlaceCase {
    fn default() -> Self {
        Self {
            country: None,
            network: NetworkKind::Ordinary,
            known_networks: Vec::new(),
            allowed: true,
            unusual: false,
            impossible_travel: false,
            known_to_subject: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BehaviorCase {
    pub(super) unusual_time: bool,
    pub(super) rapid_requests: bool,
    pub(super) new_device: Option<bool>,
    pub(super) score: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SessionCase {
    /// How long ago it began, was last verified, was challenged, passed a step-up by these methods.
    pub(super) created: Option<Span>,
    pub(super) verified: Option<Span>,
    pub(super) challenged: Option<Span>,
    pub(super) stepped_up: Option<Span>,
    pub(super) stepped_up_by: Vec<AuthMethod>,
    /// The level it holds; without it none that is below what the score makes.
    pub(super) level: Option<TrustLevel>,
    pub(super) risk_ceiling: Option<f64>,
    /// Where and with what it began.
    pub(super) device: Option<String>,
    pub(super) country: Option<String>,
    pub(super) ended: bool,
    pub(super) over_limit: bool,
}
