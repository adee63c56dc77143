//! Sessions: what is remembered between the requests of one login, by issuer, subject and session id.
//!
//! Kept in memory; the store has what other replicas must know. A warm check is one look-up. What changes with every
//! request is written behind; a challenge, a step-up that was passed and an end are written at once and pushed, so that
//! every replica reads the record again at the next request. Must never take "could not look" or an unreadable record
//! for a new session. That a session was ended is also a notice (`crate::notice`), which no loss of the store takes back.

mod counters;
mod ends;
mod key;
mod limit;
mod list;
mod live;
mod record;
mod settings;
mod settle;
#[cfg(test)]
mod tests;
mod write;

use std::{sync::Arc, time::Duration};

use foldhash::quality::RandomState;
use moka::sync::Cache;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    counters::Counters,
    key::Context,
    live::{Live, Look},
    write::Job,
};
pub use self::{
    ends::End,
    key::{SessionKey, Slot},
    list::{Filter, Listed},
    record::Session,
    settings::{OnExcess, Settings, Switch},
    settle::Settled,
};
use crate::{
    clock::Clock,
    domain::{DeviceId, Fact, Identity, Place, SessionState, TrustLevel, Unavailable, UnixTime},
    store::{Epochs, FeedEvent, Liveness, Store, Tickets, keys},
};

/// The sessions this replica knows, and the way to the others.
#[derive(Debug)]
pub struct Sessions {
    store: Arc<dyn Store>,
    settings: Settings,
    clock: Clock,
    max_staleness: Duration,
    known: Cache<SessionKey, Arc<Live>, RandomState>,
    liveness: Liveness,
    tickets: Tickets,
    /// What was read before the last connection of the feed is read again.
    epochs: Epochs,
    behind: mpsc::Sender<Job>,
    at_once: mpsc::Sender<Job>,
    counters: Counters,
    /// Who hears of sessions that end.
    ends: std::sync::OnceLock<mpsc::Sender<End>>,
    writer: parking_lot::Mutex<Option<tokio::task::JoinHandle<()>>>,
    counted: parking_lot::Mutex<list::LastCensus>,
}

/// One request of a session: found before it is judged, settled afterwards.
#[derive(Debug)]
pub struct Visit {
    key: SessionKey,
    context: Context,
    live: Option<Arc<Live>>,
    /// That one is over, and this request begins the next of its name.
    renews: bool,
    /// It counts among those of its subject.
    placed: bool,
}

impl Sessions {
    /// Listens to the store's feed and writes behind until cancelled. `max_staleness`: how long memory answers for a
    /// store that is silent.
    pub fn start(
        store: Arc<dyn Store>,
        settings: Settings,
        clock: Clock,
        max_staleness: Duration,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let (behind, later) = mpsc::channel(settings.queue.max(1));
        let (at_once, now) = mpsc::channel(settings.queue.max(1));
        let known = Cache::builder()
            .max_capacity(settings.cache_entries)
            .time_to_idle(settings.keep.get())
            .build_with_hasher(RandomState::default());
        let sessions = Arc::new(Self {
            store,
            settings,
            clock,
            max_staleness,
            known,
            liveness: Liveness::default(),
            tickets: Tickets::default(),
            epochs: Epochs::default(),
            behind,
            at_once,
            counters: Counters::default(),
            ends: std::sync::OnceLock::new(),
            writer: parking_lot::Mutex::default(),
            counted: parking_lot::Mutex::default(),
        });
        let listener = Arc::clone(&sessions);
        let listening = cancel.clone();
        tokio::spawn(async move { listening.run_until_cancelled(listener.listen()).await });
        let writer = Arc::clone(&sessions);
        let writing = tokio::spawn(async move { writer.keep_writing(now, later, cancel).await });
        *sessions.writer.lock() = Some(writing);
        sessions
    }

    /// Waits until what was left to write is written, after the token was cancelled.
    pub async fn stopped(&self) {
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // It ends or it panicked; either way nothing more is written.
            let _ = writer.await;
        }
    }

    /// What is known of the request's session. `Absent`: nobody has seen it.
    pub async fn check(
        &self,
        identity: &Identity,
        slot: &Slot,
        (device, place, client): (Option<&DeviceId>, Option<&Place>, Option<std::net::IpAddr>),
        now: UnixTime,
        deadline: Instant,
    ) -> (Fact<SessionState>, Visit) {
        match self.at_hand(identity, slot, (device, place, client), now) {
            (Some(known), visit) => (known, visit),
            (None, visit) => Box::pin(self.asked(identity, visit, now, deadline)).await,
        }
    }

    /// As [`Self::check`], where memory says it; `None`: the store must be asked.
    pub fn remembered(
        &self,
        identity: &Identity,
        slot: &Slot,
        context: (Option<&DeviceId>, Option<&Place>, Option<std::net::IpAddr>),
        now: UnixTime,
    ) -> Option<(Fact<SessionState>, Visit)> {
        let (known, visit) = self.at_hand(identity, slot, context, now);
        Some((known?, visit))
    }

    /// What memory says, if anything, and the visit for which the store is read otherwise.
    fn at_hand(
        &self,
        identity: &Identity,
        slot: &Slot,
        (device, place, client): (Option<&DeviceId>, Option<&Place>, Option<std::net::IpAddr>),
        now: UnixTime,
    ) -> (Option<Fact<SessionState>>, Visit) {
        let key = slot.key(identity);
        let (context, live) = (Context::of(device, place, client), self.known.get(&key));
        let mut visit = Visit { key, context, live, renews: false, placed: false };
        let fresh = self.liveness.is_live().then(|| self.epochs.current());
        let of = (identity, &visit.context);
        match visit.live.as_ref().map(|live| live.look(fresh, of, &self.settings, now)) {
            Some(Look::Known(state, placed)) => {
                visit.placed = placed;
                (Some(Fact::known(state, now)), visit)
            }
            Some(Look::Read) | None => (None, visit),
        }
    }

    /// As [`Self::check`] where memory does not say.
    async fn asked(
        &self,
        identity: &Identity,
        mut visit: Visit,
        now: UnixTime,
        deadline: Instant,
    ) -> (Fact<SessionState>, Visit) {
        let fact = match tokio::time::timeout_at(deadline, self.read(&mut visit)).await {
            Ok(Ok(())) => {
                visit.renews = self.may_renew(&visit, identity, now);
                match (visit.live.as_ref().filter(|_| !visit.renews), visit.context.carried) {
                    (Some(live), _) => Fact::known(live.state((identity, &visit.context), &self.settings, now), now),
                    // A new session, and its subject was asked here before: it may hold the answer.
                    (None, Some(asked)) => Fact::known(asked_before(identity, asked, now), now),
                    (None, None) => Fact::Absent,
                }
            }
            Ok(Err(why)) => self.unanswered(identity, &visit, why, now),
            Err(_) => self.unanswered(identity, &visit, Unavailable::Timeout, now),
        };
        visit.placed = !visit.renews && visit.live.as_ref().is_some_and(|live| live.is_placed());
        (fact, visit)
    }

    /// Whether the session that was found is over, and this token begins the next one.
    fn may_renew(&self, visit: &Visit, identity: &Identity, now: UnixTime) -> bool {
        visit.live.as_ref().is_some_and(|live| live.is_over_for(identity, &self.settings, now))
    }

    /// Reads the record, and takes it into memory unless a change was told of meanwhile.
    async fn read(&self, visit: &mut Visit) -> Result<(), Unavailable> {
        self.counters.asked.increment();
        let (epoch, read_at, ticket) = (self.epochs.current(), Instant::now(), self.tickets.ticket(visit.key));
        let wanted = [keys::session(&visit.key.text()), visit.context.challenge_key(&visit.key)];
        let entries = self.store.read(&wanted).await.map_err(|error| error.unavailable())?;
        let [record, challenge] = &entries[..] else { return Err(Unavailable::Store) };
        let found = match record {
            Ok(None) => None,
            Ok(Some(held)) => match Session::parse(&held.value) {
                Some(session) => Some(session),
                None => return Err(self.malformed()),
            },
            Err(error) if error.kind == crate::store::StoreErrorKind::Malformed => return Err(self.malformed()),
            Err(error) => return Err(error.unavailable()),
        };
        visit.context.carried =
            challenge.as_ref().ok().and_then(Option::as_ref).and_then(|held| key::millis(&held.value));
        let live = match (found, &visit.live) {
            (Some(session), None) => {
                let live = self.known.get_with(visit.key, || Arc::new(Live::new(visit.key, session.clone())));
                // Another request may have been first, with what it had read before this one.
                live.merge(session);
                Some(live)
            }
            (Some(session), Some(live)) => {
                live.merge(session);
                Some(Arc::clone(live))
            }
            // The store has lost it. This replica has not.
            (None, Some(live)) => {
                self.counters.restored.increment();
                self.write_at_once(live);
                Some(Arc::clone(live))
            }
            (None, None) => None,
        };
        if let Some(live) = &live {
            live.was_read(epoch, read_at, || self.tickets.ticket(visit.key) == ticket);
        }
        visit.live = live;
        Ok(())
    }

    fn malformed(&self) -> Unavailable {
        self.counters.malformed.increment();
        tracing::warn!("the record of a session cannot be read: answered with 503");
        Unavailable::Malformed
    }

    /// The store does not answer: what was known a moment ago counts.
    fn unanswered(&self, identity: &Identity, visit: &Visit, why: Unavailable, now: UnixTime) -> Fact<SessionState> {
        let told = |epoch| self.epochs.heard_within(epoch, self.max_staleness, &self.liveness);
        match &visit.live {
            Some(live) if live.known_within(self.max_staleness, told) => {
                self.counters.stale.increment();
                Fact::known(live.state((identity, &visit.context), &self.settings, now), now)
            }
            _ => {
                self.counters.unanswered.increment();
                Fact::Unavailable(why)
            }
        }
    }

    /// Whether sessions are limited by themselves, whatever rules read.
    pub const fn has_limits(&self) -> bool {
        self.settings.idle.is_some() || self.settings.max_concurrent.is_some()
    }

    /// How long what is remembered of a session outlives its last use.
    pub const fn keep(&self) -> Duration {
        self.settings.keep.get()
    }

    /// Whether pushes are heard.
    pub fn is_live(&self) -> bool {
        self.liveness.is_live()
    }

    async fn listen(&self) {
        loop {
            let mut feed = self.store.feed();
            while let Some(event) = feed.recv().await {
                self.hear(&event);
            }
            // The feed fell behind: nothing that was heard counts any more.
            self.liveness.end();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn hear(&self, event: &FeedEvent) {
        self.liveness.observe(event);
        match event {
            FeedEvent::Connected { .. } | FeedEvent::Flushed => {
                self.tickets.turn();
                let heard = self.liveness.last_heard().filter(|_| *event != FeedEvent::Flushed);
                self.epochs.turn(heard);
                self.liveness.begin(Instant::now());
            }
            FeedEvent::Changed(changed) => {
                let marks = changed.iter().filter_map(|key| key.strip_prefix(keys::SESSION_MARK));
                for key in marks.filter_map(SessionKey::parse) {
                    self.tickets.tell(key);
                    if let Some(live) = self.known.get(&key) {
                        live.suspect();
                    }
                }
            }
            FeedEvent::Alive(_) | FeedEvent::Lost => {}
        }
    }
}

/// A session at its first request, in a context where its subject was challenged. It holds down no level.
fn asked_before(identity: &Identity, asked: UnixTime, now: UnixTime) -> SessionState {
    let begun = SessionState::begun(now, identity.issued_at, TrustLevel::Privileged);
    SessionState { challenged_at: Some(asked), ..begun }
}
