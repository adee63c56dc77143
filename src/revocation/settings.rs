//! Settings of revocation, as an operator writes them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Span;

/// Revocation of tokens, sessions, subjects and devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The longest time a token can live. A revocation that was seen is remembered at least that long, whatever becomes
    /// of its key, and `revoke` without a length of time uses it. What an issuer allows (its `max_lifetime` and twice its
    /// `leeway`) counts where that is longer; for workloads with certificates, set it to the longest life of theirs.
    pub max_lifetime: Span,
    /// When the store cannot be reached at all: how long a token that was checked here may still pass.
    pub max_staleness: Span,
    /// What to do when the store comes back empty. `serve`: raise the alarm, write back what is remembered, go on.
    /// `refuse`: answer 503 until somebody has restored the data and set the key `cs:canary` again.
    pub on_loss: OnLoss,
    /// How many revocations are held in memory, and how many users, sessions and devices of which signals have said
    /// something. Beyond that this replica asks the store each time, which `countersign_revocations_full` tells.
    pub max_entries: usize,
    /// How often the time from a write to its arrival here is measured, for `revocation_lag_seconds`.
    pub canary_interval: Span,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    #[default]
    Serve,
    Refuse,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_lifetime: Duration::from_secs(24 * 3600).into(),
            max_staleness: Duration::from_secs(5).into(),
            on_loss: OnLoss::Serve,
            max_entries: 1_000_000,
            canary_interval: Duration::from_secs(1).into(),
        }
    }
}
