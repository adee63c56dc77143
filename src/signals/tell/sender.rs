//! Empties one receiver's queue: a token at a time, in order, each until the receiver has said yes or no (RFC 8935).

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use url::Url;

use super::{
    counters::{Counters, Fate},
    outbox::{Outbox, TURN, Waiting},
    settings::ReceiverSettings,
};
use crate::{
    assertion::SharedKeys,
    clock::Clock,
    domain::Secret,
    identity::{Fetcher, MAX_BODY, Outgoing},
    signals::poll::backoff,
    store::StoreError,
    telemetry::audit::{AdminRecord, Auditor, fingerprint},
};

/// How often the queue is looked at when nobody here has put anything into it.
const LOOK: Duration = Duration::from_secs(1);
/// How long a number may be without its token before it is passed over.
const HOLE: Duration = Duration::from_secs(5);
/// Longest that a receiver may have us wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Sends to one receiver.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) outbox: Arc<Outbox>,
    pub(super) settings: ReceiverSettings,
    pub(super) url: Url,
    pub(super) keys: Arc<SharedKeys>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) clock: Clock,
    pub(super) auditor: Arc<Auditor>,
    pub(super) counters: Arc<Counters>,
    /// Told when something was put into the queue here.
    pub(super) wake: Arc<Notify>,
}

/// What became of an attempt.
enum Sent {
    Accepted,
    /// For good, and why.
    Refused(String),
    /// For now: why, and how long the receiver wants to be left alone.
    Later(String, Option<Duration>),
}

impl Sender {
    /// Looks for ever.
    pub(super) async fn run(self) {
        let mut backoff = backoff();
        loop {
            let _ = timeout(LOOK.mul_f64(rand::random_range(0.8..1.2)), self.wake.notified()).await;
            match self.look().await {
                Ok(()) => {
                    backoff.worked();
                }
                Err(error) => {
                    tracing::warn!(%error, receiver = self.settings.audience, "what others are to be told cannot be read");
                    sleep(backoff.failed()).await;
                }
            }
        }
    }

    async fn extent(&self) -> Result<(u64, u64), StoreError> {
        let (done, last) = self.outbox.extent().await?;
        self.counters.waiting.set((last - done) as f64);
        Ok((done, last))
    }

    async fn look(&self) -> Result<(), StoreError> {
        let (done, last) = self.extent().await?;
        if last > done && self.outbox.take_turn().await? {
            let emptied = self.empty().await;
            // Should it fail, the turn ends by itself.
            let _ = self.outbox.leave_turn().await;
            emptied?;
        }
        Ok(())
    }

    /// Sends until nothing waits, or until the turn is another's.
    async fn empty(&self) -> Result<(), StoreError> {
        let (mut backoff, mut hole) = (backoff(), None);
        loop {
            let (done, last) = self.extent().await?;
            if last == done || !self.outbox.keep_turn().await? {
                return Ok(());
            }
            let number = done + 1;
            let Some(waiting) = self.outbox.get(number).await? else {
                let since: Instant = *hole.get_or_insert_with(Instant::now);
                if since.elapsed() < HOLE {
                    sleep(HOLE / 20).await;
                } else {
                    self.counters.count(Fate::Lost);
                    self.outbox.done(number).await?;
                    hole = None;
                }
                continue;
            };
            hole = None;
            match self.send(&waiting).await {
                Sent::Accepted => self.finish(number, &waiting, Fate::Accepted, None).await?,
                Sent::Refused(why) => self.finish(number, &waiting, Fate::Refused, Some(why)).await?,
                Sent::Later(why, wanted) => {
                    self.counters.attempts_failed.increment();
                    if !backoff.is_failing() {
                        tracing::warn!(
                            receiver = self.settings.audience,
                            why,
                            "a receiver of security events is not heard from"
                        );
                    }
                    if !self.pause(backoff.failed().max(wanted.unwrap_or_default().min(MAX_RETRY_AFTER))).await? {
                        return Ok(());
                    }
                    continue;
                }
            }
            backoff.worked();
        }
    }

    async fn finish(&self, number: u64, waiting: &Waiting, fate: Fate, why: Option<String>) -> Result<(), StoreError> {
        self.outbox.done(number).await?;
        self.counters.count(fate);
        self.counters.last.set(self.clock.now().as_secs() as f64);
        let jti = waiting.claims.get("jti").and_then(Value::as_str).unwrap_or_default();
        if let Some(why) = &why {
            tracing::warn!(
                receiver = self.settings.audience,
                event = waiting.event,
                why,
                "a receiver refused a security event"
            );
        }
        self.auditor.admin(AdminRecord {
            at: self.clock.now(),
            actor: format!("signals:{}", self.settings.audience).into(),
            peer: None,
            action: format!("signal.sent.{}", waiting.event),
            target: waiting.target.clone(),
            outcome: fate.as_str().to_owned(),
            detail: Some(format!(
                "{}token {}",
                why.map(|why| format!("{why}, ")).unwrap_or_default(),
                fingerprint(jti)
            )),
        });
        Ok(())
    }

    /// Waits and keeps the turn meanwhile. Says whether it is still ours.
    async fn pause(&self, wanted: Duration) -> Result<bool, StoreError> {
        let until = Instant::now() + wanted;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.outbox.keep_turn().await;
            }
            sleep(left.min(TURN / 3)).await;
            self.extent().await?;
            if !self.outbox.keep_turn().await? {
                return Ok(false);
            }
        }
    }

    async fn send(&self, waiting: &Waiting) -> Sent {
        let now = self.clock.now();
        let Some(token) = self.keys.sign(waiting.claims.to_string().as_bytes(), now) else {
            return Sent::Later("there is no key to sign with yet".into(), None);
        };
        let mut headers = vec![("content-type", "application/secevent+jwt"), ("accept", "application/json")];
        headers.extend(
            self.settings.authorization_header.as_ref().map(Secret::expose).map(|value| ("authorization", value)),
        );
        let (method, body) = (::http::Method::POST, token.into_bytes());
        // Well within a turn, so that nobody else begins while an answer is waited for.
        let timeout = Some(TURN / 2);
        let request = Outgoing { method, url: &self.url, headers: &headers, body, timeout, room: MAX_BODY };
        match self.fetcher.send(request).await {
            Ok(answer) => match answer.status {
                200 | 202 | 204 => Sent::Accepted,
                400 => Sent::Refused(error_code(&answer.body)),
                // Redirects, wrong credentials, a wrong path: somebody may put it right.
                other => Sent::Later(format!("answered {other}"), answer.retry_after),
            },
            Err(error) => Sent::Later(error.to_string(), None),
        }
    }
}

/// The `err` of RFC 8935, where it is a word.
fn error_code(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let word = answer.get("err").and_then(Value::as_str).unwrap_or_default();
    let is_word =
        (1..=64).contains(&word.len()) && word.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c));
    if is_word { word.to_owned() } else { "no error code".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_of_the_receiver_is_repeated() {
        assert_eq!(error_code(br#"{"err": "invalid_issuer", "description": "x"}"#), "invalid_issuer");
        for other in [&b"<html>"[..], br#"{"err": 7}"#, br#"{"err": "two words"}"#, br#"{"err": ""}"#, b"[]"] {
            assert_eq!(error_code(other), "no error code");
        }
    }
}
