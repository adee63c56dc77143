//! Where a request comes from, as far as its address tells.

use std::{ops::Not, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::is_default;

/// What the databases and lists say of a client address.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<Arc<str>>,
    pub city: Option<Arc<str>>,
    /// Degrees north and east.
    pub position: Option<(f64, f64)>,
    /// Radius around `position` that holds the client with some confidence, in kilometres.
    pub accuracy_km: Option<u16>,
    /// Autonomous system number.
    pub asn: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: NetworkKind,
    /// Names of the configured networks (`known_networks`) that hold the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_networks: Vec<Arc<str>>,
    /// The country is on the list of allowed ones, or there is no such list.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub allowed: bool,
    /// The country is not among the expected ones, or is new to a subject with a history.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub unusual: bool,
    /// Two verified sightings of the subject are too far apart for the time between them.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub impossible_travel: bool,
    /// The subject was seen on this network before; `None`: no history.
    pub known_to_subject: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// Nothing special is known of it.
    #[default]
    Ordinary,
    /// In a configured corporate network.
    Corporate,
    /// A private, loopback or link-local address.
    Private,
    Vpn,
    Hosting,
    Tor,
}

impl NetworkKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Corporate => "corporate",
            Self::Private => "private",
            Self::Vpn => "vpn",
            Self::Hosting => "hosting",
            Self::Tor => "tor",
        }
    }
}
