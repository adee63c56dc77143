//! The `telemetry` section of the configuration: logs and traces. (`audit` is a section of its own.)

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Span;

/// Logs and traces. Metrics are always there, on the HTTP port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub log: LogSettings,
    pub traces: TraceSettings,
}

/// JSON lines on standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or directives such as `info,countersign::identity=debug`.
    /// The variable `RUST_LOG` speaks over it.
    pub level: String,
    /// Longest text of one field, in characters; the rest is cut off and the cut is marked.
    pub max_field: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".into(), max_field: 2048 }
    }
}

/// OpenTelemetry traces over OTLP/gRPC. Off unless an endpoint is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// `http://collector:4317`, or `https://` with `ca`.
    pub endpoint: Option<String>,
    /// PEM certificates of the authorities that the collector's certificate may come from.
    pub ca: Option<PathBuf>,
    pub service_name: String,
    /// Share of checks without a `traceparent` that are traced: 0 to 1.
    pub ratio: f64,
    /// Whether a `traceparent` that says "sampled" is followed, so that Envoy's trace holds our part. An Envoy that traces tells
    /// its own with each question. Where it does not, the request's counts, which is the client's unless a proxy before has
    /// replaced it: `max_per_second` bounds what that costs.
    pub follow_parent: bool,
    /// At most so many checks are traced each second.
    pub max_per_second: u32,
    /// How long an export may take.
    pub timeout: Span,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            ca: None,
            service_name: "countersign".into(),
            ratio: 0.01,
            follow_parent: true,
            max_per_second: 200,
            timeout: Duration::from_secs(5).into(),
        }
    }
}

impl Settings {
    /// What does not fit together, for `check-config`: name of the field and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Err(error) = super::log::filter(&self.log) {
            problems.push(("log.level", error.to_string()));
        }
        if !(0.0..=1.0).contains(&self.traces.ratio) {
            problems.push(("traces.ratio", "must be between 0 and 1".into()));
        }
        if let Some(endpoint) = &self.traces.endpoint {
            let scheme = url::Url::parse(endpoint).map(|url| url.scheme().to_owned());
            match scheme.as_deref() {
                Ok("http") => {}
                Ok("https") if self.traces.ca.is_some() => {}
                Ok("https") => problems.push(("traces.ca", "an `https` endpoint needs `ca`".into())),
                _ => problems.push(("traces.endpoint", format!("`{endpoint}` is not an http or https URL"))),
            }
        }
        problems
    }
}
