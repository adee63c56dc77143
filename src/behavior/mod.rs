//! What a subject's past says of a request: profiles, sessions and shared counts, learned from verified requests only.
//!
//! The model itself is pure ([`crate::risk::statistical`]); this module holds its state for all threads of a process, and
//! keeps it for the next start and the other replicas. The pipeline observes a request, decides, and then says what came of
//! it. A past in memory is compared without waiting. One that is not is read from the store: the answer waits for that
//! [`PATIENCE`] at most, and not at all while the store is silent; what is not there by then is a fact like any other.

mod counts;
mod event;
mod ledger;
mod octets;
mod outbox;
mod profiles;
mod recall;
mod settings;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ledger::Ledger;
pub use self::{
    event::{LastAgent, Observation, TokenKeys, event, key},
    profiles::{Observed, Profiles},
    settings::Settings,
};
use crate::{
    clock::Clock,
    domain::{
        Fact, Issuer, SubjectId, Unavailable,
        metric::{self, Page},
    },
    risk::statistical::{
        Event, Outcome,
        epoch::Epoch,
        profile::{Pace, Sighting},
    },
    store::{Store, StoreError},
};

/// How long an answer waits, at most, for a past that is not in memory.
pub const PATIENCE: Duration = Duration::from_millis(60);

/// The pasts in memory and, where the store outlives the process, the ledger behind them.
#[derive(Debug)]
pub struct Behaviors {
    profiles: Arc<Profiles>,
    ledger: Option<Arc<Ledger>>,
}

/// What is remembered of a subject, for whoever asks what is kept about them. Keys are hashes: names are not kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// What is counted, its key, and how often as of now: an observation of today counts 1, one of 30 days ago half.
    pub counts: Vec<(&'static str, String, f64)>,
    pub sighting: Option<Sighting>,
    pub pace: Pace,
}

impl Behaviors {
    /// With a `store`, what is learned is written there and heard from the other replicas until cancelled.
    pub fn start(
        settings: &Settings,
        store: Option<Arc<dyn Store>>,
        clock: &Clock,
        cancel: &CancellationToken,
    ) -> Arc<Self> {
        let profiles = Arc::new(Profiles::new(settings, store.is_some()));
        let ledger = store.map(|store| Ledger::start(store, Arc::clone(&profiles), clock.clone(), cancel.clone()));
        Arc::new(Self { profiles, ledger })
    }

    /// What the past says of a verified request. Nothing is learned until [`Behaviors::settle`] says what came of it.
    pub async fn observe(&self, event: Event, deadline: Instant) -> Fact<Observed> {
        let known = |observed| Fact::known(observed, crate::domain::UnixTime::from_millis((event.now * 1000.0) as u64));
        if let Some(observed) = self.profiles.observe(event) {
            return known(observed);
        }
        let Some(ledger) = &self.ledger else { return Fact::Unavailable(Unavailable::Internal) };
        match Box::pin(ledger.recall_within(event.subject, event.session, deadline)).await {
            Ok(()) => self.profiles.observe(event).map_or(Fact::Unavailable(Unavailable::Overloaded), known),
            Err(why) => Fact::Unavailable(why),
        }
    }

    /// Learns what came of a request.
    pub fn settle(&self, observed: &Observed, outcome: Outcome) {
        let (learned, session_changed) = self.profiles.settle(observed, outcome);
        if let Some(ledger) = &self.ledger {
            let until = observed.event().ends.unwrap_or(f64::INFINITY);
            ledger.note(&learned, session_changed.then_some(until));
        }
    }

    /// Hears and writes now, what otherwise happens every second.
    ///
    /// # Errors
    ///
    /// When the store does not answer; then what was learned waits.
    pub async fn exchange(&self) -> Result<(), StoreError> {
        match &self.ledger {
            Some(ledger) => ledger.exchange().await,
            None => Ok(()),
        }
    }

    /// Writes down what waits, at the end of a process, where that takes no longer than `patience`.
    pub async fn close(&self, patience: Duration) {
        let Some(ledger) = &self.ledger else { return };
        if !matches!(tokio::time::timeout(patience, ledger.close()).await, Ok(Ok(()))) {
            tracing::warn!("what was learned of behaviour in the last second was not written down");
        }
    }

    /// Everything remembered of a subject; `None`: nothing is.
    ///
    /// # Errors
    ///
    /// When it is not in memory and the store does not say.
    pub async fn export(&self, issuer: &Issuer, subject: &SubjectId, now: f64) -> Result<Option<Export>, StoreError> {
        let key = key(issuer, subject);
        if let Some(ledger) = &self.ledger {
            ledger.recall_subject(key).await?;
        }
        Ok(self.profiles.profile(key).map(|profile| {
            let today = Epoch::of(now);
            let worth = profile.worth(today);
            let count = |delta: crate::risk::statistical::delta::Delta| {
                let (what, key) = counts::describe(delta.field);
                (what, key, f64::from(delta.units) * worth)
            };
            let sighting = Some(profile.sighting()).filter(|sighting| sighting.at > 0.0);
            Export { counts: profile.deltas().map(count).collect(), sighting, pace: profile.pace() }
        }))
    }

    /// Forgets a subject here, in the store and, within a second or so, on the other replicas. Says whether there was
    /// anything.
    ///
    /// # Errors
    ///
    /// When the store did not acknowledge it; then it is forgotten here alone.
    pub async fn forget(&self, issuer: &Issuer, subject: &SubjectId) -> Result<bool, StoreError> {
        let key = key(issuer, subject);
        let here = self.profiles.forget(key);
        match &self.ledger {
            Some(ledger) => Ok(ledger.forget(key).await? || here),
            None => Ok(here),
        }
    }
}

impl metric::Source for Behaviors {
    fn collect(&self, page: &mut Page) {
        self.profiles.collect(page);
        if let Some(ledger) = &self.ledger {
            ledger.collect(page);
        }
    }
}
