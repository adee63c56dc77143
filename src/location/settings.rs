//! The `location` section of the configuration.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Span;

/// What is known of places and networks. With nothing configured, places are not asked about and cost nobody anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `false`: places are never looked up.
    pub enabled: bool,
    /// MaxMind-format databases.
    pub databases: DatabaseSettings,
    /// Countries (ISO 3166-1 alpha-2) that requests may come from; empty: all. An address whose country is not known is not in
    /// any; corporate and private addresses are exempt. The default guards then refuse (`country_not_allowed`); guards of your
    /// own say `when: { location: not_allowed }`.
    pub allowed_countries: Vec<String>,
    /// Countries that requests usually come from; from elsewhere is an unusual location. Empty: no expectation.
    pub expected_countries: Vec<String>,
    /// Networks of your own: the place counts as corporate.
    pub corporate_networks: Networks,
    /// Networks that policies may name (`allowed_locations: [{type: known_secure_location, …}]`), by name.
    pub known_networks: BTreeMap<String, Networks>,
    /// Feeds of networks, one CIDR or address a line; `#` and `;` begin a comment. A file without any network counts as broken:
    /// leave the list out where there is to be none. Prefixes shorter than `/8` (IPv6: `/16`) are bad lines, as a download that
    /// was cut leaves them. Write a new file beside the old one and rename it: of half a feed nothing tells that it is half.
    pub lists: ListSettings,
    /// How often files are looked at for changes. A changed file is read once it has looked the same for two seconds, so that it is
    /// not read while it is written; one that cannot be read leaves the last good one in use.
    pub reload_every: Span,
    /// How many addresses' places are kept in memory.
    pub cache_entries: u64,
}

/// Paths of MaxMind-format files (`.mmdb`). Those not named are not asked; one that is named and cannot be read makes
/// every place unavailable until it can.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// A City, Country or Enterprise database.
    pub city: Option<PathBuf>,
    /// An ASN, ISP or Enterprise database.
    pub asn: Option<PathBuf>,
    /// An Anonymous-IP database.
    pub anonymous: Option<PathBuf>,
}

/// Files of plain CIDR lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListSettings {
    pub vpn: Vec<PathBuf>,
    pub hosting: Vec<PathBuf>,
    pub tor: Vec<PathBuf>,
}

/// A set of networks: by prefix, by autonomous system, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Networks {
    /// `198.51.100.0/24`, `2001:db8::/32`.
    #[schemars(with = "Vec<String>")]
    pub cidrs: Vec<IpNet>,
    /// Autonomous system numbers; needs `databases.asn`.
    pub asns: Vec<u32>,
}

impl Networks {
    pub const fn is_empty(&self) -> bool {
        self.cidrs.is_empty() && self.asns.is_empty()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            databases: DatabaseSettings::default(),
            allowed_countries: Vec::new(),
            expected_countries: Vec::new(),
            corporate_networks: Networks::default(),
            known_networks: BTreeMap::new(),
            lists: ListSettings::default(),
            reload_every: Duration::from_secs(30).into(),
            cache_entries: 100_000,
        }
    }
}

impl Settings {
    /// Whether there is anything to look an address up in.
    pub fn is_configured(&self) -> bool {
        let files = self.databases != DatabaseSettings::default() || self.lists != ListSettings::default();
        let networks = !self.corporate_networks.is_empty() || !self.known_networks.is_empty();
        self.enabled && (files || networks || !self.allowed_countries.is_empty())
    }

    /// What does not fit together, for `check-config`: name of the field and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (field, countries) in
            [("allowed_countries", &self.allowed_countries), ("expected_countries", &self.expected_countries)]
        {
            if !countries.is_empty() && self.databases.city.is_none() {
                problems.push((field, "needs `databases.city`: no address has a country without it".into()));
            }
            let bad = countries.iter().filter(|code| code.len() != 2 || !code.bytes().all(|c| c.is_ascii_uppercase()));
            problems.extend(bad.map(|code| (field, format!("`{code}` is not two capital letters such as `DE`"))));
        }
        let mut networks = self.known_networks.values().chain([&self.corporate_networks]);
        if self.databases.asn.is_none() && networks.any(|networks| !networks.asns.is_empty()) {
            problems.push(("databases.asn", "`asns` are named, and no database tells them".into()));
        }
        if self.reload_every.get() < Duration::from_secs(1) {
            problems.push(("reload_every", "must be at least 1s".into()));
        }
        problems
    }
}
