//! The `behavior` section of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::risk::statistical::Capacity;

/// What is remembered of how subjects behave, for the risk models. Hashes and counts, no names; `docs/risk.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many subjects' profiles are held in memory, about 1 KiB each. Whoever was not seen for longest makes room.
    pub profiles: usize,
    /// How many sessions are held in memory, about 350 bytes each.
    pub sessions: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let Capacity { profiles, sessions } = Capacity::default();
        Self { profiles, sessions }
    }
}

impl Settings {
    pub(super) const fn capacity(&self) -> Capacity {
        Capacity { profiles: self.profiles, sessions: self.sessions }
    }
}
