//! The `ops` section of the configuration. (The address is `listen.http`.)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Secret;

/// More than memory holds.
const MAX_CONNECTIONS: usize = 16_000_000;

/// Health, metrics, keys and the status page over HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// With this token (`Authorization: Bearer …`) the status page answers from anywhere; without one, from loopback only.
    pub status_token: Option<Secret>,
    /// How many connections may be open at a time.
    pub max_connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { status_token: None, max_connections: 512 }
    }
}

impl Settings {
    /// What does not fit together, for `check-config`: name of the field and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.status_token.as_ref().is_some_and(|token| token.expose().len() < 16) {
            problems.push(("status_token", "must be at least 16 characters".into()));
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.max_connections) {
            problems.push(("max_connections", format!("must be at least 1 and at most {MAX_CONNECTIONS}")));
        }
        problems
    }
}
