//! The receiver: a token is verified, its effects are written, it is remembered, and only then is it said to be taken.
//!
//! Must never say so of a token whose effects the store has not acknowledged, and never let an older event undo a newer one.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use super::{
    counters::Counters,
    effect::{Effect, effects},
    event::{Event, EventType, Reaction},
    logout::Provider,
    poll::Asking,
    set::{self, Claims, Code, Problem, invalid, refused},
    settings::{Settings, TransmitterSettings},
    subject::{Names, Unknown, Who},
};
use crate::{
    clock::Clock,
    device::Devices,
    domain::{RevocationKind, Secret, UnixTime, metric::Gauge},
    identity::{Signed, Signer},
    notice::{Kind, Notices, Word},
    revocation::Revocations,
    store::{Store, StoreError, StoreErrorKind, keys},
    telemetry::audit::{AdminRecord, Auditor, fingerprint},
};

/// Longest that one token may take; its transmitter tries again after that.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Of a key in the store that cannot be read: sending a token again changes nothing until somebody has mended it. Until then
/// nobody whom it names is let in.
pub(super) const UNREADABLE: &str = "a key in the store that this would change cannot be read: it must be mended first";

/// What became of a token that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Something changed.
    Done,
    /// Recorded, and nothing changes.
    Informed,
    /// Taken before.
    Repeated,
    /// A newer event of the same kind was taken before.
    Superseded,
    /// A type of event that is not known here.
    Unknown,
}

impl Outcome {
    pub(super) const ALL: [Self; 5] = [Self::Done, Self::Informed, Self::Repeated, Self::Superseded, Self::Unknown];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Informed => "informed",
            Self::Repeated => "repeated",
            Self::Superseded => "superseded",
            Self::Unknown => "unknown",
        }
    }
}

/// What effects are written to.
#[derive(Debug)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub revocations: Arc<Revocations>,
    pub devices: Arc<Devices>,
    pub notices: Arc<Notices>,
    pub auditor: Arc<Auditor>,
    pub clock: Clock,
}

/// One transmitter and its keys.
#[derive(Debug)]
pub(super) struct Transmitter {
    pub(super) settings: TransmitterSettings,
    pub(super) signer: Arc<Signer>,
    pub(super) asking: Arc<Asking>,
    pub(super) verified: Verified,
    /// Members of complex subjects that its metadata call critical, once they were read.
    pub(super) critical: OnceLock<Vec<String>>,
}

/// How the last verification of a stream went, where it reached this replica.
#[derive(Debug, Default)]
pub(super) struct Verified {
    /// Unix seconds.
    pub(super) at: Gauge,
    /// Seconds from the question to the event.
    pub(super) lag: Gauge,
    /// The stream was paused or disabled by its transmitter.
    pub(super) stopped: Gauge,
}

#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) parts: Parts,
    pub(super) settings: Settings,
    pub(super) transmitters: Vec<Transmitter>,
    pub(super) providers: Vec<Provider>,
    /// Of access tokens.
    pub(super) issuers: Vec<String>,
    pub(super) counters: Counters,
}

/// How a token came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// Pushed, with this `Authorization`.
    Push(Option<&'a str>),
    /// Asked for at this transmitter.
    Poll(&'a str),
}

impl Receiver {
    /// Takes one token, or says why not.
    pub(super) async fn take(&self, text: &str, way: Way<'_>) -> Result<Outcome, Problem> {
        let deadline = Instant::now() + PATIENCE;
        let taken = tokio::time::timeout_at(deadline, self.try_take(text, way, deadline)).await;
        let taken = taken.unwrap_or(Err(Problem::Later("too slow: try again")));
        match &taken {
            Ok(_) => self.counters.last_taken.set(self.parts.clock.now().as_secs() as f64),
            Err(Problem::Refused(code, why)) => {
                self.counters.refused(*code);
                tracing::warn!(error = code.as_str(), why, "a security event token was refused");
            }
            Err(Problem::Later(why)) => {
                self.counters.later.increment();
                tracing::warn!(why, "a security event token could not be taken for now");
            }
        }
        taken
    }

    async fn try_take(&self, text: &str, way: Way<'_>, deadline: Instant) -> Result<Outcome, Problem> {
        let Some(token) = Signed::parse(text) else { return invalid("not a signed token in compact form") };
        let transmitter = self.transmitter(&token, way)?;
        transmitter.signer.verify(&token, deadline).await?;
        let now = self.parts.clock.now();
        let claims = set::claims(&token, &transmitter.settings.audience, now, self.settings.max_age.get())?;
        let seen = self.seen_key(transmitter.signer.issuer(), claims.jti);
        if self.was_seen(&seen).await? {
            self.counters.taken(claims.event.as_ref().map(|event| event.kind), Outcome::Repeated);
            return Ok(Outcome::Repeated);
        }
        let outcome = self.apply(transmitter, &claims).await?;
        // Last: a token that is remembered has had its effects.
        let life = self.settings.max_age.get() + set::LEEWAY;
        self.parts.store.write(&seen, b"1", Some(life)).await.map_err(|error| later(&error))?;
        Ok(outcome)
    }

    fn transmitter(&self, token: &Signed<'_>, way: Way<'_>) -> Result<&Transmitter, Problem> {
        let issuer = set::claimed_issuer(token)?;
        let known = self.transmitters.iter().find(|known| known.settings.issuer == issuer);
        let Some(known) = known else { return refused(Code::InvalidIssuer, "the issuer is not a transmitter here") };
        match way {
            Way::Poll(asked) if asked != issuer => refused(Code::InvalidIssuer, "the token is of another issuer"),
            Way::Push(sent) if !is_authorized(known.settings.authorization_header.as_ref(), sent) => {
                refused(Code::AuthenticationFailed, "`Authorization` is missing or wrong")
            }
            Way::Poll(_) | Way::Push(_) => Ok(known),
        }
    }

    async fn apply(&self, transmitter: &Transmitter, claims: &Claims<'_>) -> Result<Outcome, Problem> {
        let Some(event) = &claims.event else {
            self.counters.taken(None, Outcome::Unknown);
            return Ok(Outcome::Unknown);
        };
        let (outcome, target) = if event.kind.is_of_the_stream() {
            self.stream(transmitter, event).await?;
            (Some(Outcome::Informed), "the stream".to_owned())
        } else {
            self.react(transmitter, event, claims).await?
        };
        self.record(transmitter, event, &target, outcome, claims.jti);
        let Some(outcome) = outcome else {
            self.counters.unreadable.increment();
            return invalid(UNREADABLE);
        };
        self.counters.taken(Some(event.kind), outcome);
        Ok(outcome)
    }

    /// What a transmitter tells of its stream.
    async fn stream(&self, transmitter: &Transmitter, event: &Event<'_>) -> Result<(), Problem> {
        let Parts { store, clock, .. } = &self.parts;
        let (issuer, verified) = (transmitter.signer.issuer(), &transmitter.verified);
        if event.kind == EventType::StreamUpdated {
            let status = event.text("status").unwrap_or_default();
            verified.stopped.set(f64::from(u8::from(status != "enabled")));
            tracing::warn!(transmitter = issuer, status, "the transmitter has changed its stream");
            return Ok(());
        }
        let now = clock.now();
        if let Some(state) = event.text("state") {
            let held = match is_word(state) {
                true => store.read(&[keys::signal_state(issuer, state)]).await.map_err(|error| later(&error))?.pop(),
                false => None,
            };
            let Some(held) = held.and_then(Result::ok).flatten() else {
                return refused(Code::InvalidState, "the state is none that was asked for");
            };
            let asked = String::from_utf8_lossy(&held.value).parse().map(UnixTime::from_millis).unwrap_or(now);
            verified.lag.set(now.since(asked).as_secs_f64());
        }
        verified.at.set(now.as_secs() as f64);
        verified.stopped.set(0.0);
        Ok(())
    }

    /// What became of it, and for whom. No outcome: a key cannot be read, so that not all of it is in force.
    async fn react(
        &self,
        transmitter: &Transmitter,
        event: &Event<'_>,
        claims: &Claims<'_>,
    ) -> Result<(Option<Outcome>, String), Problem> {
        let Some(subject) = claims.subject else { return invalid("`sub_id` is missing") };
        let critical = transmitter.critical.get().map(Vec::as_slice).unwrap_or_default();
        let names = Names { settings: &transmitter.settings.subjects, issuers: &self.issuers, critical };
        let reaction = self.settings.reaction(&transmitter.settings, event.kind);
        let who = match names.find(subject, event.kind) {
            Ok(who) => who,
            Err(problem @ Unknown::OtherIssuer) => return refused(Code::AccessDenied, problem.to_string()),
            Err(problem) => return invalid(problem.to_string()),
        };
        let effects = match effects(event, reaction, &who) {
            Ok(effects) => effects,
            Err(malformed) => return invalid(malformed.to_string()),
        };
        for effect in &effects {
            if let Effect::Compliance(id, _) = effect {
                self.registered(id).await?;
            }
        }
        let done = if effects.is_empty() { Reaction::Inform } else { reaction };
        let target = format!("{} ({})", target(&who), done.as_str());
        let mut outcome = Some(Outcome::Informed);
        for effect in &effects {
            match self.write(effect, claims.at).await {
                Ok(true) => outcome = outcome.and(Some(Outcome::Done)),
                Ok(false) if outcome == Some(Outcome::Informed) => outcome = Some(Outcome::Superseded),
                Ok(false) => {}
                // It stays so until somebody mends it, and checks refuse meanwhile. What else the event does is done.
                Err(error) if error.kind == StoreErrorKind::Malformed => {
                    let issuer = transmitter.signer.issuer();
                    tracing::error!(%error, transmitter = issuer, event = event.kind.as_str(), on = target, "{UNREADABLE}");
                    outcome = None;
                }
                Err(error) => return Err(later(&error)),
            }
        }
        Ok((outcome, target))
    }

    /// A signal registers no device.
    async fn registered(&self, id: &str) -> Result<(), Problem> {
        match self.parts.devices.get(&id.into()).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => invalid("the device is not registered"),
            // Malformed records can still be corrected by this very event.
            Err(error) if error.kind == StoreErrorKind::Malformed => Ok(()),
            Err(error) => Err(later(&error)),
        }
    }

    /// Makes one change durable. Says whether it was not overtaken by a newer one.
    async fn write(&self, effect: &Effect, at: UnixTime) -> Result<bool, StoreError> {
        let Parts { revocations, notices, .. } = &self.parts;
        let keep = Some(self.settings.keep.get());
        match effect {
            Effect::RevokeToken(id) => {
                revocations.revoke(RevocationKind::Token, id, "signal", None).await.map(|_| true)
            }
            Effect::RevokeSession(id) => {
                revocations.revoke(RevocationKind::Session, id, "signal", None).await.map(|_| true)
            }
            Effect::RevokeSubject(id) => revocations.revoke_until(id, at).await.map(|()| true),
            // An account stays as it was told to be, however long that is.
            Effect::Say(kind, id, word @ (Word::Disabled | Word::Enabled)) => {
                notices.say((*kind, id), *word, at, None).await
            }
            Effect::Say(kind, id, word) => notices.say((*kind, id), *word, at, keep).await,
            Effect::Compliance(id, compliant) => self.compliance(id, *compliant, at).await,
        }
    }

    /// Writes what the newest event says of a device. One that was overtaken, or is in force, writes nothing: an operator may
    /// have decided since. One that failed half-way comes again, and is written then. Whoever is overtaken meanwhile writes what
    /// the newer one says, so that events that are taken at the same time on different replicas end in the same state.
    async fn compliance(&self, id: &str, compliant: bool, at: UnixTime) -> Result<bool, StoreError> {
        let Parts { store, devices, .. } = &self.parts;
        let (device, key) = (id.into(), keys::signal_device(id));
        // Of two of the same time the stricter stands; what is in force stands above what is not yet.
        let order = at.as_millis().saturating_mul(4).saturating_add(2 * u64::from(!compliant));
        let word = |compliant: bool| if compliant { "true" } else { "false" };
        let [begun, in_force] = [order, order.saturating_add(1)].map(|order| format!("{order} {}", word(compliant)));
        let life = Some(self.settings.max_age.get() * 2);
        let newest = match store.raise(&key, &begun, life).await {
            Err(error) if error.kind == StoreErrorKind::Malformed => false,
            raised => raised?,
        };
        let mut written = None;
        loop {
            let held = store.read(std::slice::from_ref(&key)).await?.pop().and_then(Result::ok).flatten();
            let text = held.map(|held| String::from_utf8_lossy(&held.value).into_owned()).unwrap_or_default();
            if !newest && text.starts_with(|first: char| first.is_ascii_digit()) {
                return Ok(false);
            }
            // What was said before cannot be told: the stricter stands.
            let says = text.ends_with(" true");
            if written == Some(says) {
                break;
            }
            // Not read back: what else stands in the record has no say in this.
            if !devices.heard(&device, says).await? {
                return Ok(false);
            }
            written = Some(says);
        }
        if newest {
            store.raise(&key, &in_force, life).await?;
        }
        Ok(true)
    }

    /// The key that remembers a token as taken.
    pub(super) fn seen_key(&self, issuer: &str, jti: &str) -> String {
        let hash = digest(&SHA256, format!("{issuer}\n{jti}").as_bytes());
        let mut sum = [0; 32];
        sum.copy_from_slice(hash.as_ref());
        keys::signal_seen(&sum)
    }

    pub(super) async fn was_seen(&self, key: &str) -> Result<bool, Problem> {
        let entry = self.parts.store.read(&[key.to_owned()]).await.map_err(|error| later(&error))?.pop();
        // Something unreadable there is not "never seen", and no reason to forget an event either: it is applied again.
        Ok(entry.is_some_and(|entry| entry.is_ok_and(|held| held.is_some())))
    }

    /// `None`: not all of it could be put in force.
    fn record(&self, transmitter: &Transmitter, event: &Event<'_>, target: &str, outcome: Option<Outcome>, jti: &str) {
        let (done, word) = outcome.map_or(("failed", UNREADABLE), |outcome| ("done", outcome.as_str()));
        if let Some(outcome) = outcome {
            tracing::info!(
                transmitter = transmitter.signer.issuer(),
                event = event.kind.as_str(),
                outcome = outcome.as_str(),
                "a security event was taken"
            );
        }
        self.parts.auditor.admin(AdminRecord {
            at: self.parts.clock.now(),
            actor: format!("signals:{}", transmitter.signer.issuer()).into(),
            peer: None,
            action: format!("signal.{}", event.kind.as_str()),
            target: target.to_owned(),
            outcome: done.to_owned(),
            detail: Some(format!("{word}, token {}", fingerprint(jti))),
        });
    }
}

/// Compared in constant time.
fn is_authorized(wanted: Option<&Secret>, sent: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| sent.is_some_and(|sent| *wanted == Secret::new(sent)))
}

/// What was changed, for the audit. A token's id never stands there.
fn target(who: &Who) -> String {
    let cut = |id: &String| id.chars().take(200).collect::<String>();
    match who {
        Who { session: Some(session), .. } => format!("session:{}", cut(session)),
        Who { token: Some(token), .. } => format!("token:{}", fingerprint(token)),
        Who { subject: Some(subject), .. } => format!("{}:{}", Kind::Subject.as_str(), cut(subject)),
        Who { device: Some(device), .. } => format!("device:{}", cut(device)),
        Who { .. } => "nobody".to_owned(),
    }
}

/// What [`super::stream`] asks a verification event to carry.
fn is_word(state: &str) -> bool {
    state.len() == 32 && state.bytes().all(|octet| octet.is_ascii_hexdigit())
}

/// A store that does not answer may do so later.
pub(super) fn later(error: &StoreError) -> Problem {
    tracing::warn!(%error, "a security event could not be written");
    Problem::Later("the store cannot be written just now")
}
