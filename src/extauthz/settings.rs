//! What an operator may set about the Check port.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::response::NAMES;
use crate::domain::Span;

/// More threads than any machine has cores.
const MAX_WORKERS: usize = 1024;

/// More than memory holds, of connections or of checks.
const MAX_AT_A_TIME: usize = 16_000_000;

/// How checks are answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a check may take. Below Envoy's `timeout` (200 ms unless set), so that our answer comes first.
    pub deadline: Span,
    /// Runtimes that answer checks, one thread each. 0: one per core.
    pub workers: usize,
    /// Connections at a time, counted by `countersign_connections`; more wait to be accepted, and the log says so.
    pub max_connections: usize,
    /// Checks at a time that wait for something: a store, a key, a signature; more are answered 503 at once.
    pub max_in_flight: usize,
    /// After SIGTERM: how long health says NOT_SERVING before connections are asked to end.
    pub drain_delay: Span,
    /// After that: how long checks under way may take to finish.
    pub drain_timeout: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Span::from(Duration::from_millis(150)),
            workers: 0,
            max_connections: 1024,
            max_in_flight: 8192,
            drain_delay: Span::from(Duration::from_secs(2)),
            drain_timeout: Span::from(Duration::from_secs(10)),
        }
    }
}

impl Settings {
    /// What does not fit together, for `check-config`: name of the field and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.deadline.get() < Duration::from_millis(5) || self.deadline.get() > Duration::from_secs(60) {
            problems.push(("deadline", "must be between 5ms and 60s".to_owned()));
        }
        for (name, value) in [("max_connections", self.max_connections), ("max_in_flight", self.max_in_flight)] {
            if !(1..=MAX_AT_A_TIME).contains(&value) {
                problems.push((name, format!("must be at least 1 and at most {MAX_AT_A_TIME}")));
            }
        }
        if self.workers > MAX_WORKERS {
            problems.push(("workers", format!("must be at most {MAX_WORKERS}")));
        }
        problems
    }
}

/// Which of the optional headers and metadata are sent; each is paid for here and again in Envoy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerSettings {
    /// Names of `x-zt-*` headers to send upstream; absent: all that have a value. `x-zt-decision` is always sent.
    pub headers: Option<Vec<String>>,
    /// The same facts as dynamic metadata.
    pub metadata: MetadataChoice,
    /// Challenge in Microsoft Entra's form (`insufficient_claims`) beside RFC 9470's.
    pub claims_challenge: bool,
}

impl AnswerSettings {
    /// What does not fit together, for `check-config`: name of the field and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let headers = self.headers.iter().flatten().enumerate();
        let unknown = headers.filter(|(_, name)| !NAMES.contains(&name.as_str()));
        unknown.map(|(i, name)| (format!("headers[{i}]"), format!("`{name}` is no header of ours"))).collect()
    }
}

/// When dynamic metadata are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetadataChoice {
    /// On allow and on refusal.
    #[default]
    Always,
    /// On refusal only.
    Refused,
    Never,
}
