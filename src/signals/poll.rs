//! Asking a transmitter for tokens (RFC 8936), for receivers that nobody can push to.
//!
//! A token is acknowledged with the next question, and only when its effects are durable; what could not be written is not
//! acknowledged and comes again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::{
    receiver::{Receiver, Way},
    set::{Code, Problem},
    settings::PollSettings,
};
use crate::{
    domain::{
        Secret,
        metric::{Counter, Gauge},
    },
    identity::{FetchProblem, Fetcher, MAX_BODY, Outgoing},
    store::Backoff,
    telemetry::audit::fingerprint,
};

/// Longest pause between two attempts that failed.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Largest answer that is read where a single event was asked for, and is larger than what is read otherwise, in octets.
const MAX_SINGLE: usize = 16 * 1024 * 1024;
/// Longest that a transmitter may ask us to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How the asking goes.
#[derive(Debug, Default)]
pub(super) struct Asking {
    pub(super) answered: Counter,
    pub(super) failed: Counter,
    /// Single events larger than what is read otherwise.
    pub(super) oversized: Counter,
    /// Unix seconds of the last answer.
    pub(super) last: Gauge,
}

/// One transmitter that is asked.
#[derive(Debug)]
pub(super) struct Poller {
    pub(super) receiver: Arc<Receiver>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) issuer: String,
    pub(super) url: Url,
    pub(super) settings: PollSettings,
    pub(super) asking: Arc<Asking>,
    /// The address is a stream's, and means nothing without it.
    pub(super) of_stream: bool,
}

/// Why a question brought nothing.
#[derive(Debug)]
enum Failure {
    /// There is nobody at this address.
    Gone,
    /// The answer is larger than what is read.
    TooLarge,
    /// In words, and how long the transmitter wants to be left alone.
    Other(String, Option<Duration>),
}

/// What is told with the next question.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ack: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    set_errs: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// Each is a token; what is none is no reason to lose the others.
    #[serde(default)]
    sets: BTreeMap<String, Value>,
    #[serde(default)]
    more_available: bool,
    #[serde(skip)]
    octets: usize,
}

impl Poller {
    /// Asks for ever; where the address is a stream's, until there is nobody there any more.
    pub(super) async fn run(self) {
        let (mut told, mut backoff, mut most) = (Told::default(), backoff(), self.settings.max_events);
        let mut room = MAX_BODY;
        loop {
            let asked = Instant::now();
            let pause = match self.ask(&told, most, room).await {
                Ok(answer) => {
                    backoff.worked();
                    room = MAX_BODY;
                    self.name_oversized(&answer);
                    if !answer.more_available {
                        most = self.settings.max_events;
                    }
                    self.asking.answered.increment();
                    self.asking.last.set(self.receiver.parts.clock.now().as_secs() as f64);
                    let (next, held_up) = self.take(answer.sets).await;
                    told = next;
                    match () {
                        // What could not be written is asked for again, not at once.
                        () if held_up => backoff.pause(),
                        () if answer.more_available || !told.is_empty() || self.is_long() => Duration::ZERO,
                        () => self.settings.interval.get().mul_f64(rand::random_range(0.8..1.2)),
                    }
                }
                // Nothing came in all that time: that is what long polling is.
                Err(Failure::Other(..)) if self.is_long() && asked.elapsed() >= self.settings.wait.get() => {
                    Duration::ZERO
                }
                Err(Failure::Gone) if self.of_stream => return,
                Err(Failure::TooLarge) if most > 1 => {
                    self.asking.failed.increment();
                    most /= 2;
                    tracing::warn!(
                        transmitter = self.issuer,
                        most,
                        "a transmitter's answer is too large: fewer events are asked for"
                    );
                    Duration::ZERO
                }
                // What stands behind it would never come.
                Err(Failure::TooLarge) if room < MAX_SINGLE => {
                    self.asking.failed.increment();
                    self.asking.oversized.increment();
                    room = MAX_SINGLE;
                    tracing::error!(
                        transmitter = self.issuer,
                        room,
                        "a single event of a transmitter is over 1 MiB: it is asked for once more, with room up to 16 MiB"
                    );
                    Duration::ZERO
                }
                Err(failure) => {
                    if matches!(failure, Failure::TooLarge) {
                        tracing::error!(
                            transmitter = self.issuer,
                            "a single event of a transmitter is over 16 MiB and is not read: it must take that back, \
                             nothing behind it comes before"
                        );
                    }
                    let (why, retry_after) = failure.words();
                    self.asking.failed.increment();
                    if !backoff.is_failing() {
                        tracing::warn!(transmitter = self.issuer, why, "a transmitter cannot be asked for events");
                    }
                    backoff.failed().max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
                }
            };
            // A transmitter that answers long polls at once is not hammered.
            let least = if told.is_empty() {
                Duration::from_millis(200).saturating_sub(asked.elapsed())
            } else {
                Duration::ZERO
            };
            tokio::time::sleep(pause.max(least)).await;
        }
    }

    fn is_long(&self) -> bool {
        !self.settings.wait.get().is_zero()
    }

    /// Says which event was read with more room only, by what the audit calls it.
    fn name_oversized(&self, answer: &Answer) {
        if answer.octets > MAX_BODY {
            let tokens: Vec<String> = answer.sets.keys().map(|jti| fingerprint(jti)).collect();
            let (tokens, octets) = (tokens.join(" "), answer.octets);
            tracing::error!(transmitter = self.issuer, tokens, octets, "this event was over 1 MiB, and has come now");
        }
    }

    async fn ask(&self, told: &Told, most: u32, room: usize) -> Result<Answer, Failure> {
        let mut body = serde_json::to_value(told).unwrap_or_else(|_| json!({}));
        body["maxEvents"] = most.into();
        // What is to be told is told at once.
        body["returnImmediately"] = (!self.is_long() || !told.is_empty()).into();
        let authorization = self.settings.authorization_header.as_ref().map(Secret::expose);
        let mut headers = vec![("content-type", "application/json"), ("accept", "application/json")];
        headers.extend(authorization.map(|value| ("authorization", value)));
        let timeout = self.is_long().then(|| self.settings.wait.get());
        let body = body.to_string().into_bytes();
        let request = Outgoing { method: ::http::Method::POST, url: &self.url, headers: &headers, body, timeout, room };
        let answer = self.fetcher.send(request).await.map_err(|error| match error {
            FetchProblem::TooLarge => Failure::TooLarge,
            other => Failure::Other(other.to_string(), None),
        })?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body)
                .map(|read| Answer { octets: answer.body.len(), ..read })
                .map_err(|_| Failure::Other("answered something else than RFC 8936 says".into(), None)),
            404 | 410 => Err(Failure::Gone),
            other => Err(Failure::Other(format!("answered {other}"), answer.retry_after)),
        }
    }

    /// Takes each; says what to tell of them, and whether any could not be written for now.
    async fn take(&self, sets: BTreeMap<String, Value>) -> (Told, bool) {
        let (mut told, mut held_up) = (Told::default(), false);
        for (jti, token) in sets {
            let Value::String(token) = token else {
                told.refuse(jti, Code::InvalidRequest.as_str(), "not a string");
                continue;
            };
            match self.receiver.take(&token, Way::Poll(&self.issuer)).await {
                Ok(_) => told.ack.push(jti),
                Err(Problem::Refused(code, why)) => {
                    told.refuse(jti, code.as_str(), &why);
                }
                Err(Problem::Later(_)) => held_up = true,
            }
        }
        (told, held_up)
    }
}

impl Failure {
    fn words(self) -> (String, Option<Duration>) {
        match self {
            Self::Gone => ("answered that there is nothing at its address (404)".to_owned(), None),
            Self::TooLarge => ("a single event is larger than 16 MiB".to_owned(), None),
            Self::Other(why, retry_after) => (why, retry_after),
        }
    }
}

impl Told {
    fn refuse(&mut self, jti: String, code: &str, why: &str) {
        self.set_errs.insert(jti, json!({"err": code, "description": why}));
    }

    fn is_empty(&self) -> bool {
        self.ack.is_empty() && self.set_errs.is_empty()
    }
}

/// Of attempts at somebody else's server.
pub(super) const fn backoff() -> Backoff {
    Backoff::between(Duration::from_secs(1), MAX_PAUSE)
}
