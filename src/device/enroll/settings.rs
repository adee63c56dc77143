//! The `devices.enrollment` and `devices.requirements` sections of the configuration.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Span;

/// Shortest and longest life of a device's certificate.
pub(super) const SHORTEST: Duration = Duration::from_secs(60);
pub(super) const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);

/// Enrolling devices: an authority of our own signs the certificates of devices that meet the requirements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether devices can be enrolled. Agents then find `/devices/enroll`, `/devices/renew` and `/devices/ca.pem` on
    /// `listen.http`; bring TLS to them through an Envoy.
    pub enabled: bool,
    /// PEM file: our authority's certificate and its private key. Refused when others than we may read it, as with
    /// `admin.tokens[].file`.
    pub authority: Option<PathBuf>,
    /// PEM file: the authority's private key, where it is not in `authority`.
    pub authority_key: Option<PathBuf>,
    /// Make an authority in `authority` (mode 0600) where there is none: for trying, and for one machine.
    pub generate_authority: bool,
    /// How long a device's certificate lives: from a minute to 90 days.
    pub certificate_life: Span,
    /// How long a one-time code works unless it is made with another life.
    pub code_life: Span,
    /// How long the certificate before a renewal still counts, so that requests under way are not cut off.
    pub overlap: Span,
}

/// What a device must meet to be compliant. What is not known is not met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Requirements {
    /// Managed by the organisation.
    pub managed: bool,
    pub disk_encryption: bool,
    pub screen_lock: bool,
    pub antivirus: bool,
    /// Not jailbroken or rooted.
    pub not_jailbroken: bool,
    /// Age of the last patch, at most; whole days count. Absent: patches are not asked about.
    pub max_patch_age: Option<Span>,
    /// The oldest version of each system: `{ macos: "14.4", windows: "10.0.22631" }`. With any here, other systems are
    /// refused. Names are compared without case, versions number by number.
    pub os: BTreeMap<String, String>,
}

impl Default for Requirements {
    fn default() -> Self {
        Self {
            managed: false,
            disk_encryption: true,
            screen_lock: true,
            antivirus: false,
            not_jailbroken: true,
            max_patch_age: Some(Duration::from_secs(30 * 24 * 3600).into()),
            os: BTreeMap::new(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: false,
            authority: None,
            authority_key: None,
            generate_authority: false,
            certificate_life: Duration::from_secs(24 * 3600).into(),
            code_life: Duration::from_secs(15 * 60).into(),
            overlap: Duration::from_secs(5 * 60).into(),
        }
    }
}

impl Settings {
    /// What does not fit together: name of the field and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut problem = |field: &str, why: &str| problems.push((field.to_owned(), why.to_owned()));
        if self.enabled && self.authority.is_none() {
            problem("authority", "is needed to sign certificates of devices");
        }
        if self.generate_authority && self.authority_key.is_some() {
            problem("generate_authority", "makes certificate and key in one file: take `authority_key` out");
        }
        if !(SHORTEST..=LONGEST).contains(&self.certificate_life.get()) {
            problem("certificate_life", "must be from 1m to 90d");
        }
        if self.code_life.get() < Duration::from_secs(1) || self.code_life.get() > LONGEST {
            problem("code_life", "must be from 1s to 90d");
        }
        if self.overlap.get() > self.certificate_life.get() {
            problem("overlap", "must not be longer than `certificate_life`");
        }
        problems
    }
}

impl Requirements {
    /// What cannot be asked for: name of the field and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let unreadable = self.os.iter().filter(|(_, version)| super::posture::version(version).is_none());
        unreadable.map(|(name, _)| (format!("os.{name}"), "is no version such as `14.4.1`".to_owned())).collect()
    }
}
