//! The `session` section of the configuration.

use std::{fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::domain::Span;

/// More would not be a queue, and memory would not hold it.
const MAX_QUEUE: usize = 16_000_000;

/// What is remembered between the requests of one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether sessions are verified anew as they age: a token issued or a step-up passed within 5 minutes to an hour, by
    /// level of trust.
    pub reverify: Switch,
    /// A person's session that was not used for so long is over. Absent: no limit but the token's.
    pub idle: Option<Span>,
    /// How many sessions a person may have at the same time. Absent: any number.
    pub max_concurrent: Option<u32>,
    /// What a session beyond `max_concurrent` means: the oldest is ended, or the new one is refused.
    pub on_excess: OnExcess,
    /// How long a session is remembered after its last use. A session that was ended stays ended for as long after the
    /// last attempt to use it. Never shorter than `revocation.max_lifetime`.
    pub keep: Span,
    /// How often the last use of a session is written to the store.
    pub write_interval: Span,
    /// Sessions held in memory. Beyond that, those unused for longest are read again when they come back.
    pub cache_entries: u64,
    /// Writes that may wait. Beyond that the last use of a session is not written, and counted as dropped.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reverify: Switch::On,
            idle: None,
            max_concurrent: None,
            on_excess: OnExcess::EndOldest,
            keep: Duration::from_secs(7 * 24 * 3600).into(),
            write_interval: Duration::from_secs(60).into(),
            cache_entries: 100_000,
            queue: 10_000,
        }
    }
}

impl Settings {
    /// What does not fit together, for `check-config`: the field and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.max_concurrent == Some(0) {
            problems.push(("max_concurrent", "must be at least 1: leave it out for any number".to_owned()));
        }
        if self.idle.is_some_and(|idle| idle.get() < 2 * self.write_interval.get()) {
            problems
                .push(("idle", "must be at least twice `write_interval`: other replicas would see no use".to_owned()));
        }
        if self.keep.get() < Duration::from_secs(3600) || self.idle.is_some_and(|idle| idle > self.keep) {
            problems.push(("keep", "must be at least 1h, and no shorter than `idle`".to_owned()));
        }
        if self.queue > MAX_QUEUE {
            problems.push(("queue", format!("must be at most {MAX_QUEUE}")));
        }
        problems
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExcess {
    #[default]
    EndOldest,
    Refuse,
}

/// `on` or `off`; `true` and `false` mean the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    #[default]
    On,
    Off,
}

impl Switch {
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;

        impl de::Visitor<'_> for Word {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`on` or `off`")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Switch, E> {
                Ok(if on { Switch::On } else { Switch::Off })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Switch, E> {
                match word {
                    "on" => Ok(Switch::On),
                    "off" => Ok(Switch::Off),
                    other => Err(E::unknown_variant(other, &["on", "off"])),
                }
            }
        }

        deserializer.deserialize_any(Word)
    }
}
