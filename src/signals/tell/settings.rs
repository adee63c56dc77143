//! The receivers of the `signals` section: whom we tell what was decided here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::event::EventType;
use crate::{domain::Secret, identity::check_address};

/// One receiver of security event tokens (push, RFC 8935).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiverSettings {
    /// Where tokens are posted: https, or http on loopback.
    pub url: String,
    /// The `aud` of its tokens.
    pub audience: String,
    /// What we send in `Authorization`, whole: `Bearer …`.
    #[serde(default)]
    pub authorization_header: Option<Secret>,
    /// What it is told: `session-revoked` and `device-compliance-change`, unless said otherwise.
    #[serde(default = "all")]
    pub events: Vec<EventType>,
    /// How many tokens may wait for it; what comes on top is dropped and counted.
    #[serde(default = "ten_thousand")]
    pub max_waiting: u64,
}

/// What we have to tell.
const TOLD: [EventType; 2] = [EventType::SessionRevoked, EventType::DeviceComplianceChange];

fn all() -> Vec<EventType> {
    TOLD.to_vec()
}

const fn ten_thousand() -> u64 {
    10_000
}

/// What does not fit together: name of the field, under `signals`, and why.
pub(in crate::signals) fn problems(issuer: Option<&str>, receivers: &[ReceiverSettings]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    match issuer.map(check_address) {
        None if receivers.is_empty() => {}
        None => {
            found
                .push(("issuer".into(), "is needed where there are receivers: the `iss` of what they are told".into()));
        }
        Some(Err(message)) => found.push(("issuer".into(), format!("is where receivers find our keys, and {message}"))),
        Some(Ok(_)) => {}
    }
    for (i, receiver) in receivers.iter().enumerate() {
        let at = format!("receivers[{i}]");
        if let Err(message) = check_address(&receiver.url) {
            found.push((format!("{at}.url"), message));
        }
        if receiver.audience.trim().is_empty() {
            found.push((format!("{at}.audience"), "must be the `aud` that the receiver demands".into()));
        }
        if receivers[..i].iter().any(|other| other.audience == receiver.audience) {
            found.push((format!("{at}.audience"), "stands twice".into()));
        }
        if receiver.events.is_empty() || receiver.events.iter().any(|event| !TOLD.contains(event)) {
            found.push((format!("{at}.events"), "may hold `session-revoked` and `device-compliance-change`".into()));
        }
        if receiver.max_waiting == 0 {
            found.push((format!("{at}.max_waiting"), "must be at least 1".into()));
        }
        let header = receiver.authorization_header.as_ref().map(Secret::expose);
        if header.is_some_and(|header| header.len() < 8 || header.chars().any(|c| !(' '..='~').contains(&c))) {
            let message = "must be the whole value of the header, such as `Bearer …`, of at least 8 characters";
            found.push((format!("{at}.authorization_header"), message.into()));
        }
    }
    found
}
