//! One recorded request, from a line of JSON to what the model looks at.
//!
//! Only `id`, `t` and `user` must be there: what a log does not have is unknown, and unknown is neutral.
//! Labels and outcomes that a simulated stream carries are not even parsed.

use std::{borrow::Cow, net::IpAddr};

use serde::{Deserialize, Deserializer, de};

use crate::{
    behavior::{Observation, TokenKeys, event},
    risk::statistical::{
        Action, Agent, Event, Key, Outcome,
        event::{Device, Place, Proof, Strength, roles_key},
    },
    telemetry::audit::{self, is_of_log},
};

/// The name of a request in the files: a number or a string, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(pub(super) String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            other => Err(de::Error::custom(format!("`id` must be a number or a string, not {other}"))),
        }
    }
}

/// The result of a challenge.
#[derive(Debug, Deserialize)]
pub(super) struct Feedback {
    pub(super) id: Id,
    /// `None`: nobody answered it.
    #[serde(default)]
    pub(super) stepup_ok: Option<bool>,
}

/// A recorded request as it is scored.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) id: Id,
    pub(super) event: Event,
    /// What came of it where it was recorded; `None`: what the model advises comes of it.
    pub(super) outcome: Option<Outcome>,
}

#[derive(Debug, Deserialize)]
struct Line<'a> {
    id: Id,
    /// Unix seconds.
    t: f64,
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(default)]
    ip: Option<IpAddr>,
    #[serde(borrow, default)]
    country: Option<Cow<'a, str>>,
    #[serde(default)]
    lat: Option<f32>,
    #[serde(default)]
    lon: Option<f32>,
    #[serde(default)]
    radius_km: Option<f32>,
    #[serde(default)]
    asn: Option<u32>,
    #[serde(default)]
    vpn: Option<bool>,
    #[serde(borrow, default)]
    device_id: Option<Cow<'a, str>>,
    #[serde(default)]
    device_compliant: Option<bool>,
    #[serde(default)]
    jailbroken: Option<bool>,
    #[serde(default)]
    device_proved: Option<bool>,
    #[serde(borrow, default)]
    user_agent: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    roles: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    amr: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    sid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    jti: Option<Cow<'a, str>>,
}

/// One of our own audit records: what production scored and learned, under the decision's id.
#[derive(Debug, Deserialize)]
struct AuditRecord {
    id: Id,
    /// The whole event, as older records have it.
    #[serde(default)]
    risk_event: Option<Event>,
    /// What of the event does not follow from the facts.
    #[serde(default)]
    risk_agent: Agent,
    /// `None`: a record of before patterns were looked at.
    #[serde(default)]
    risk_action: Option<u32>,
    risk_outcome: Outcome,
}

/// The kind that each line of an audit has; `None`: the line is of another log.
#[derive(Debug, Deserialize)]
struct Kind<'a> {
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
}

impl Recorded {
    /// Reads one line; the error says what is wrong with it. `None`: a line of an audit that nothing was scored for, or of our
    /// log beside it.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.contains("\"kind\"") && serde_json::from_str::<Kind<'_>>(text).is_ok_and(|line| line.kind.is_some()) {
            let scored = text.contains("\"risk_outcome\"");
            return if scored { Self::audited(text).map_err(|error| error.to_string()) } else { Ok(None) };
        }
        let line: Line<'_> = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(_) if text.starts_with('{') && is_of_log(text) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        if !line.t.is_finite() || line.t < 0.0 {
            return Err(format!("`t` must be Unix seconds, not {}", line.t));
        }
        let event = line.event();
        Ok(Some(Self { id: line.id, event, outcome: None }))
    }

    /// `None`: the record has no verified identity, so nothing was scored.
    fn audited(text: &str) -> Result<Option<Self>, serde_json::Error> {
        let AuditRecord { id, risk_event, risk_agent, risk_action, risk_outcome } = serde_json::from_str(text)?;
        let event = match risk_event {
            Some(whole) => Some(whole),
            None => audit::Recorded::parse(text)?.and_then(|record| {
                Observation::of(&record.facts, &TokenKeys::default(), risk_agent, None).map(|seen| event(&seen))
            }),
        };
        let action = |event: Event| Event { action: risk_action.map_or(event.action, |key| Action { key }), ..event };
        let event = event.map(action);
        Ok(event.map(|event| Self { id, event, outcome: Some(risk_outcome) }))
    }
}

impl Line<'_> {
    fn event(&self) -> Event {
        let subject = Key::of(&self.user);
        let session = self.sid.as_deref().or(self.jti.as_deref()).unwrap_or_default();
        Event {
            now: self.t,
            subject,
            session: subject.within(session),
            ends: None,
            strength: Strength::of_methods(self.amr.iter().map(AsRef::as_ref)),
            address: self.ip,
            place: self.place(),
            asn: self.asn,
            anonymous: self.vpn.unwrap_or(false),
            device: self.device(),
            agent: Agent::parse(self.user_agent.as_deref().unwrap_or_default()),
            action: Action::of(self.method.as_deref().unwrap_or_default(), self.path.as_deref().unwrap_or_default()),
            roles: roles_key(self.roles.iter().map(AsRef::as_ref)),
        }
    }

    fn place(&self) -> Option<Place> {
        let code = |text: &str| <[u8; 2]>::try_from(text.as_bytes()).ok();
        let country = self.country.as_deref().and_then(code);
        let position = self.lat.zip(self.lon);
        if country.is_none() && position.is_none() {
            return None;
        }
        Some(Place { country: country.unwrap_or_default(), position, radius_km: self.radius_km.unwrap_or(0.0) })
    }

    fn device(&self) -> Device {
        Device {
            id: self.device_id.as_deref().map(Key::of),
            proof: if self.device_proved == Some(true) { Proof::Proved } else { Proof::Named },
            compliant: self.device_compliant,
            jailbroken: self.jailbroken.unwrap_or(false),
            ..Device::default()
        }
    }
}
