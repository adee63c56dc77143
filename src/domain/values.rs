//! Bounded values that decisions compare: trust, risk, classification.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Trust from 0 (none) to 1 (all there is). Not a number is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustScore(f64);

impl TrustScore {
    pub const fn new(value: f64) -> Self {
        Self(if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) })
    }

    pub const fn get(self) -> f64 {
        self.0
    }
}

/// Risk from 0 (none seen) to 10 (as bad as it gets). Not a number is 10.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RiskScore(f64);

impl RiskScore {
    pub const fn new(value: f64) -> Self {
        // The sum of no points is -0.0: adding 0.0 makes it the zero that is meant.
        Self(if value.is_nan() { 10.0 } else { value.clamp(0.0, 10.0) + 0.0 })
    }

    pub const fn get(self) -> f64 {
        self.0
    }

    pub fn level(self) -> RiskLevel {
        match self.0 {
            risk if risk < 3.0 => RiskLevel::Low,
            risk if risk < 5.0 => RiskLevel::Medium,
            risk if risk < 8.0 => RiskLevel::High,
            _ => RiskLevel::Critical,
        }
    }
}

macro_rules! scale {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

scale!(
    /// Levels of trust, lowest first. `privileged` also needs a hardware key or a certificate.
    TrustLevel {
        Untrusted = "untrusted",
        Low = "low",
        Medium = "medium",
        High = "high",
        Privileged = "privileged",
    }
);

scale!(
    /// Levels of risk, lowest first: below 3, below 5, below 8, the rest.
    RiskLevel { Low = "low", Medium = "medium", High = "high", Critical = "critical" }
);

scale!(
    /// How sensitive the data behind a resource is, least first.
    Classification {
        Public = "public",
        Internal = "internal",
        Confidential = "confidential",
        Restricted = "restricted",
        Secret = "secret",
    }
);

/// Which model gives the risk score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RiskModel {
    /// Learns what is usual for each subject.
    #[default]
    Statistical,
    /// A table of points.
    Fixed,
    /// Every score is 0.
    None,
}
