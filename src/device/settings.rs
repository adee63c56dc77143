//! The `devices` section of the configuration.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::enroll;
use crate::domain::Span;

/// How records of devices are kept at hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Records kept in memory. A change in the store evicts its record at once.
    pub cache_entries: u64,
    /// How long a record that is already in memory is used while the store neither pushes nor answers.
    pub max_staleness: Span,
    /// How old a check of a device's posture (`checked_at` of its record) may be; older, nothing in it is known any more.
    /// A record without `checked_at` does not age.
    pub posture_max_age: Span,
    /// PEM files: authorities that device certificates come from, beside our own. With any, a certificate proves its
    /// device only where one of them vouches for it; without, the thumbprint in the record is enough.
    pub authorities: Vec<PathBuf>,
    /// Devices are named in their certificates as `spiffe://<trust_domain>/device/<id>`. Such a name counts where an
    /// authority vouches for the certificate.
    pub trust_domain: String,
    /// What a device must meet to be compliant, wherever its posture is judged here: at enrolment, at renewal, when an
    /// operator or agent reports it. Whoever writes `compliant` itself has judged already.
    pub requirements: enroll::Requirements,
    pub enrollment: enroll::Settings,
    /// How often one replica counts the fleet for the metrics and `device summary`.
    pub census_interval: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache_entries: 200_000,
            max_staleness: Duration::from_secs(5).into(),
            posture_max_age: Duration::from_secs(30 * 24 * 3600).into(),
            authorities: Vec::new(),
            trust_domain: "devices.internal".to_owned(),
            requirements: enroll::Requirements::default(),
            enrollment: enroll::Settings::default(),
            census_interval: Duration::from_secs(15 * 60).into(),
        }
    }
}

impl Settings {
    /// What does not fit together, for `check-config`: name of the field and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let within = |section: &str, (field, why): (String, String)| (format!("{section}.{field}"), why);
        problems.extend(self.enrollment.problems().into_iter().map(|problem| within("enrollment", problem)));
        problems.extend(self.requirements.problems().into_iter().map(|problem| within("requirements", problem)));
        let plain = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"-._".contains(&octet);
        if self.trust_domain.is_empty() || self.trust_domain.len() > 255 || !self.trust_domain.bytes().all(plain) {
            problems.push(("trust_domain".into(), "must be lower-case letters, digits, `-`, `.` and `_`".into()));
        }
        if self.posture_max_age.get().is_zero() {
            problems.push(("posture_max_age".into(), "must not be zero".into()));
        }
        if self.census_interval.get() < Duration::from_secs(1) {
            problems.push(("census_interval".into(), "must be at least 1s".into()));
        }
        problems
    }
}
