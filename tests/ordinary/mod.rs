//! The everyday situations of DESIGN section 5 and their verdicts, through a real Envoy: `situations.yaml`.
//!
//! A default that changes one of them says so in CHANGELOG. Rules, guards and thresholds are those that nobody set.

mod services;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::support::{
    stack::{Builder, Stack},
    tokens::{self, Token},
};

const SITUATIONS: &str = include_str!("situations.yaml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Rules with nothing in them but the routes.
    rules: String,
    devices: Map<String, Value>,
    situations: Vec<Situation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Situation {
    name: String,
    /// `person` or `service`.
    subject: String,
    /// Claims beside or instead of the usual ones; `~` leaves one out, `now-3600` is a time.
    #[serde(default)]
    claims: Map<String, Value>,
    #[serde(default)]
    headers: Map<String, Value>,
    /// How often in a row; each time must end the same.
    #[serde(default = "once")]
    times: u32,
    verdict: String,
    #[serde(default)]
    reason: Option<String>,
}

fn once() -> u32 {
    1
}

#[test]
fn everyday_situations_end_as_people_expect() {
    for model in ["statistical", "fixed"] {
        everyday(model);
    }
}

fn everyday(model: &str) {
    let table: Table = serde_saphyr::from_str(SITUATIONS).expect("the table is well-formed");
    let stack = Builder::with_rules(&table.rules).set("/risk/model", model).start();
    for (id, record) in &table.devices {
        let mut device = record.clone();
        device["id"] = id.clone().into();
        let put = serde_json::json!({ "device": device });
        stack.countersign.admin("PutDevice", &put).unwrap_or_else(|error| panic!("{id}: {error}"));
    }
    let wrong: Vec<String> = table.situations.iter().filter_map(|situation| problem(&stack, situation)).collect();
    assert!(wrong.is_empty(), "{model}:\n{}", wrong.join("\n"));
}

/// What is wrong with how a situation ended, if anything.
fn problem(stack: &Stack, situation: &Situation) -> Option<String> {
    let token = token(situation).mint();
    (0..situation.times).find_map(|time| {
        let mut request = stack.get("/work").bearer(&token);
        for (name, value) in &situation.headers {
            request = request.header(name, plain(value));
        }
        let answer = request.send();
        let verdict = match (answer.status, answer.header("x-zt-decision")) {
            (200, _) => "allow",
            (401, Some("step-up")) => "step-up",
            _ => "deny",
        };
        let reason_differs = situation.reason.as_ref().is_some_and(|reason| *reason != answer.reason());
        (verdict != situation.verdict || reason_differs).then(|| {
            format!(
                "{} (time {time}): {verdict}, not {}: {} {}",
                situation.name, situation.verdict, answer.status, answer.body
            )
        })
    })
}

fn token(situation: &Situation) -> Token {
    let name = tokens::unique("someone");
    let start = if situation.subject == "service" { Token::service(&name) } else { Token::person(&name) };
    situation.claims.iter().fold(start, |token, (claim, value)| match value {
        Value::Null => token.without(claim),
        Value::String(text) if text.starts_with("now") => {
            let ago: i64 = text.trim_start_matches("now").parse().unwrap_or(0);
            token.claim(claim, tokens::now() + ago)
        }
        value => token.claim(claim, value.clone()),
    })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
