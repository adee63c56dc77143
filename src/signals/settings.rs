//! The `signals` section of the configuration.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    event::{EventType, Reaction},
    tell::ReceiverSettings,
};
use crate::{
    domain::{Secret, Span},
    identity::{Algorithm, check_address, key_file},
};

/// Most tokens that are asked for at a time: a few kilobytes each, an answer of that many is within what is read.
const MAX_EVENTS: u32 = 1000;

/// What is done about an event, by its name.
pub type Reactions = BTreeMap<EventType, Reaction>;

/// Security events from identity providers and device managers (OpenID Shared Signals, CAEP, RISC), and OpenID Connect
/// back-channel logout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Who may tell, by push to `POST /signals/ssf` or asked by `poll`. None: the path does not exist.
    pub transmitters: Vec<TransmitterSettings>,
    /// OpenID providers that may end sessions by `POST /signals/logout`. None: the path does not exist.
    pub logout: Vec<LogoutSettings>,
    /// What is done about events, where it is not the default. A transmitter's own `reactions` come first.
    pub reactions: Reactions,
    /// Age of a token (`iat`) or of its event that is still taken; also how long a token is remembered as taken, and how long
    /// one of ours waits for its receiver.
    pub max_age: Span,
    /// Our own `iss` in what we tell others: the https address (or http on loopback) where they find
    /// `/.well-known/ssf-configuration` and `/.well-known/jwks.json` of this service. Needed with `receivers`.
    pub issuer: Option<String>,
    /// Who is told, by push, what was decided here: sessions ended, subjects and tokens revoked, devices lost or not compliant.
    pub receivers: Vec<ReceiverSettings>,
    /// How long raised risk and a required authentication stand, where nothing newer is told.
    pub keep: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            transmitters: Vec::new(),
            logout: Vec::new(),
            reactions: Reactions::new(),
            issuer: None,
            receivers: Vec::new(),
            max_age: Duration::from_secs(7 * 24 * 3600).into(),
            keep: Duration::from_secs(30 * 24 * 3600).into(),
        }
    }
}

/// One transmitter of security event tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransmitterSettings {
    /// The exact `iss` of its tokens.
    pub issuer: String,
    /// What `aud` must name.
    pub audience: String,
    /// Address (https, or http on loopback) or file of its key set. Without it: `/.well-known/ssf-configuration` of the issuer.
    #[serde(default)]
    pub jwks: Option<String>,
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// What pushes must carry in `Authorization`, whole: `Bearer …`. Absent: the signature alone tells who sends.
    #[serde(default)]
    pub authorization_header: Option<Secret>,
    /// Ask for tokens (RFC 8936) at this address. With `stream`, the address is the stream's.
    #[serde(default)]
    pub poll: Option<PollSettings>,
    /// Look for a stream by the transmitter's metadata (`/.well-known/ssf-configuration`), make it where there is none, and have
    /// it verified.
    #[serde(default)]
    pub stream: Option<StreamSettings>,
    #[serde(default)]
    pub subjects: SubjectSettings,
    /// What is done about this transmitter's events, where it is not what `signals.reactions` says.
    #[serde(default)]
    pub reactions: Reactions,
}

/// Asking a transmitter for tokens. Every replica asks; a token that two are given changes nothing twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PollSettings {
    /// https, or http on loopback. Empty only where `stream` tells it.
    pub url: String,
    /// What we send in `Authorization`, whole.
    pub authorization_header: Option<Secret>,
    /// Long polling: how long an answer is waited for. `0s`: short polling.
    pub wait: Span,
    /// Pause between two questions of short polling that brought nothing.
    pub interval: Span,
    /// How many tokens are asked for at a time, at most 1000; fewer where an answer would be over 1 MiB.
    pub max_events: u32,
}

impl Default for PollSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            authorization_header: None,
            wait: Duration::from_secs(30).into(),
            interval: Duration::from_secs(5).into(),
            max_events: 50,
        }
    }
}

/// A stream that is set up and verified here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// What we send in `Authorization` to the transmitter's stream management, whole.
    pub authorization_header: Secret,
    pub delivery: Delivery,
    /// How often a verification event is asked for.
    #[serde(default = "an_hour")]
    pub verify_every: Span,
}

/// How a stream's tokens come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Delivery {
    /// To an address of ours.
    Push {
        /// Where our `/signals/ssf` is, as the transmitter reaches it.
        url: String,
    },
    /// Asked for by us, where the transmitter says.
    Poll,
}

fn an_hour() -> Span {
    Duration::from_secs(3600).into()
}

/// Whom a transmitter may speak about, and by which names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubjectSettings {
    /// Issuers whose subjects it may name (`iss_sub`, `jwt_id`). Empty: every issuer of `identity.issuers`.
    pub issuers: Vec<String>,
    /// Formats of subject identifiers whose value is the `sub` of access tokens. List `email` only where `sub` is the address.
    pub formats: Vec<Format>,
    /// Members of a complex subject that must be understood: an event with another of these is refused. Known are `user`,
    /// `device` and `session`. With `stream`, what the transmitter's metadata call critical counts as well.
    pub critical: Vec<String>,
}

impl Default for SubjectSettings {
    fn default() -> Self {
        Self { issuers: Vec::new(), formats: vec![Format::IssSub, Format::Opaque], critical: Vec::new() }
    }
}

/// Formats of RFC 9493 that can name a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    IssSub,
    Opaque,
    Email,
    PhoneNumber,
    Account,
    Did,
    Uri,
}

/// One OpenID provider whose logout tokens are taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogoutSettings {
    /// The exact `iss` of its logout tokens.
    pub issuer: String,
    /// What `aud` must name: the client that sessions belong to.
    pub audience: String,
    /// Address or file of its key set. Without it: OpenID Connect discovery.
    #[serde(default)]
    pub jwks: Option<String>,
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDsa]
}

impl Settings {
    pub fn is_empty(&self) -> bool {
        self.transmitters.is_empty() && self.logout.is_empty()
    }

    /// What does not fit together, for `check-config`: name of the field and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = reactions("reactions", &self.reactions);
        found.extend(super::tell::problems(self.issuer.as_deref(), &self.receivers));
        for (i, transmitter) in self.transmitters.iter().enumerate() {
            let at = format!("transmitters[{i}]");
            found.extend(signer(&at, &transmitter.issuer, &transmitter.audience, transmitter.jwks.as_deref()));
            found.extend(reactions(&format!("{at}.reactions"), &transmitter.reactions));
            if transmitter.algorithms.is_empty() {
                found.push((format!("{at}.algorithms"), "must name at least one algorithm".into()));
            }
            if self.transmitters[..i].iter().any(|other| other.issuer == transmitter.issuer) {
                found.push((format!("{at}.issuer"), "stands twice".into()));
            }
            found.extend(asking(&at, transmitter));
            let header = transmitter.authorization_header.as_ref().map(Secret::expose);
            if header.is_some_and(|header| header.len() < 8 || header.chars().any(|c| !(' '..='~').contains(&c))) {
                let message = "must be the whole value of the header, such as `Bearer …`, of at least 8 characters";
                found.push((format!("{at}.authorization_header"), message.into()));
            }
        }
        for (i, provider) in self.logout.iter().enumerate() {
            let at = format!("logout[{i}]");
            found.extend(signer(&at, &provider.issuer, &provider.audience, provider.jwks.as_deref()));
            if provider.algorithms.is_empty() {
                found.push((format!("{at}.algorithms"), "must name at least one algorithm".into()));
            }
            if self.logout[..i].iter().any(|other| other.issuer == provider.issuer) {
                found.push((format!("{at}.issuer"), "stands twice".into()));
            }
        }
        let days = |count: u64| Duration::from_secs(count * 24 * 3600);
        if !(Duration::from_secs(300)..=days(90)).contains(&self.max_age.get()) {
            found.push(("max_age".into(), "must be between 5m and 90d".into()));
        }
        if !(Duration::from_secs(300)..=days(400)).contains(&self.keep.get()) {
            found.push(("keep".into(), "must be between 5m and 400d".into()));
        }
        found
    }

    /// What is done about an event of a transmitter.
    pub fn reaction(&self, transmitter: &TransmitterSettings, event: EventType) -> Reaction {
        let configured = transmitter.reactions.get(&event).or_else(|| self.reactions.get(&event));
        configured.copied().unwrap_or(event.default_reaction())
    }
}

fn asking(at: &str, transmitter: &TransmitterSettings) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Some(poll) = &transmitter.poll {
        let told = transmitter.stream.as_ref().is_some_and(|stream| stream.delivery == Delivery::Poll);
        match check_address(&poll.url) {
            _ if told && poll.url.is_empty() => {}
            _ if told => found.push((format!("{at}.poll.url"), "the stream tells where to ask".into())),
            Ok(_) => {}
            Err(message) => found.push((format!("{at}.poll.url"), message)),
        }
        if !(1..=MAX_EVENTS).contains(&poll.max_events) {
            found.push((format!("{at}.poll.max_events"), format!("must be between 1 and {MAX_EVENTS}")));
        }
        if poll.interval.get() < Duration::from_millis(100) {
            found.push((format!("{at}.poll.interval"), "must be at least 100ms".into()));
        }
    }
    if let Some(stream) = &transmitter.stream {
        if let Err(message) = check_address(&transmitter.issuer) {
            found.push((format!("{at}.stream"), format!("its metadata are sought at the issuer, which {message}")));
        }
        if let Delivery::Push { url } = &stream.delivery
            && url::Url::parse(url).is_err()
        {
            found.push((format!("{at}.stream.delivery.push.url"), "is not an address".into()));
        }
        if stream.verify_every.get() < Duration::from_secs(1) {
            found.push((format!("{at}.stream.verify_every"), "must be at least 1s".into()));
        }
    }
    found
}

fn signer(at: &str, issuer: &str, audience: &str, jwks: Option<&str>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if issuer.trim().is_empty() {
        found.push((format!("{at}.issuer"), "must be the `iss` of its tokens".into()));
    }
    if audience.trim().is_empty() || audience == "*" {
        found.push((format!("{at}.audience"), "must be an exact value".into()));
    }
    match jwks {
        Some(place) => {
            if let Err(message) = key_file(place) {
                found.push((format!("{at}.jwks"), message));
            }
        }
        None => {
            if let Err(message) = check_address(issuer) {
                let message = format!("is absent, so keys are discovered from the issuer, which {message}");
                found.push((format!("{at}.jwks"), message));
            }
        }
    }
    found
}

fn reactions(at: &str, reactions: &Reactions) -> Vec<(String, String)> {
    let unfit = reactions.iter().filter(|(event, reaction)| !event.allows(**reaction));
    unfit
        .map(|(event, reaction)| {
            let message = if event.is_of_the_stream() {
                "is about the stream: there is nothing to configure".to_owned()
            } else {
                format!("`{}` means nothing for this event", reaction.as_str())
            };
            (format!("{at}.{}", event.as_str()), message)
        })
        .collect()
}
