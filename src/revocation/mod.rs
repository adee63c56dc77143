//! Whether a token, its session, its subject or its device was revoked: known in memory, pushed by the store's feed.
//!
//! While the feed is live "not revoked" is known without asking. While it is not, each check asks the store; when that
//! is silent too, a token checked here a moment ago still passes, for [`Settings::max_staleness`] at most. Must never
//! take "could not look", an unreadable key or a vanished key for "not revoked".

mod canary;
mod counters;
mod follow;
mod known;
mod scan;
mod settings;
mod slot;
mod standing;
mod write;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::{
    counters::Counters,
    settings::{OnLoss, Settings},
    slot::CheckedAt,
    write::Listed,
};
use self::{
    known::{Known, Look, Seen, subjects},
    standing::{Standing, judge},
};
use crate::{
    clock::Clock,
    domain::{DeviceId, Fact, Identity, Revocation, RevocationKind, Unavailable, UnixTime},
    store::{Entry, Liveness, Store, StoreError, Ticket, keys},
};

/// The revocations this replica knows of, and the way to those it does not.
#[derive(Debug)]
pub struct Revocations {
    store: Arc<dyn Store>,
    settings: Settings,
    clock: Clock,
    known: Known,
    liveness: Liveness,
    /// The store came back empty, and the settings say to refuse.
    refusing: AtomicBool,
    /// The first scan is done.
    scanned: AtomicBool,
    /// What the store's own canary said: that it says something else, or is gone, means a loss.
    canary: Mutex<Option<Vec<u8>>>,
    /// The last question to the store was not answered.
    silent: AtomicBool,
    counters: Counters,
    follower: Mutex<Option<JoinHandle<()>>>,
}

/// How what is known here relates to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The feed tells everything: memory answers.
    Live,
    /// Connected, and still reading what there is.
    Scanning,
    /// No feed: each check asks the store.
    Lost,
    /// No feed and no answers: what was checked a moment ago passes.
    Silent,
    /// The store came back empty, and `on_loss: refuse`.
    Refusing,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Live, Self::Scanning, Self::Lost, Self::Silent, Self::Refusing];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Scanning => "scanning",
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Refusing => "refusing",
        }
    }
}

impl Revocations {
    /// Begins to follow the store's feed until `cancel`. Checks may begin at once; they ask the store until it is live.
    pub fn start(store: Arc<dyn Store>, settings: Settings, clock: Clock, cancel: CancellationToken) -> Arc<Self> {
        let revocations = Arc::new(Self {
            known: Known::new(settings.max_entries, clock.clone()),
            store,
            settings,
            clock,
            liveness: Liveness::default(),
            refusing: AtomicBool::new(false),
            scanned: AtomicBool::new(false),
            canary: Mutex::default(),
            silent: AtomicBool::new(false),
            counters: Counters::default(),
            follower: Mutex::default(),
        });
        let follower = tokio::spawn(follow::follow(Arc::clone(&revocations), cancel));
        *revocations.follower.lock() = Some(follower);
        revocations
    }

    /// Waits for the follower to end, after its token was cancelled.
    pub async fn stopped(&self) {
        let follower = self.follower.lock().take();
        if let Some(follower) = follower {
            // It ends or it panicked; either way nothing is following any more.
            let _ = follower.await;
        }
    }

    /// Whether anything about this token is revoked. `slot` belongs to the token and remembers the last answer.
    ///
    /// With a live feed and a slot that has seen this generation: two atomic loads and a compare. `Revoked` names the
    /// first of token, session, subject, device. Never [`Fact::Absent`].
    pub async fn check(
        &self,
        identity: &Identity,
        device: Option<&DeviceId>,
        slot: &CheckedAt,
        now: UnixTime,
        deadline: Instant,
    ) -> Fact<Revocation> {
        match self.at_hand(identity, device, slot, now) {
            Ok(fact) => fact,
            Err(slot) => Box::pin(self.ask(identity, device, slot, deadline)).await,
        }
    }

    /// As [`Self::check`], where memory says it; `None`: the store must be asked.
    pub fn remembered(
        &self,
        identity: &Identity,
        device: Option<&DeviceId>,
        slot: &CheckedAt,
        now: UnixTime,
    ) -> Option<Fact<Revocation>> {
        self.at_hand(identity, device, slot, now).ok()
    }

    /// What memory says; else what the store's silence may be answered from.
    fn at_hand<'s>(
        &self,
        identity: &Identity,
        device: Option<&DeviceId>,
        slot: &'s CheckedAt,
        now: UnixTime,
    ) -> Result<Fact<Revocation>, Option<&'s CheckedAt>> {
        if self.refusing.load(Ordering::Acquire) {
            self.counters.refused.increment();
            return Ok(Fact::Unavailable(Unavailable::Stale));
        }
        let live = self.is_live();
        let generation = self.known.generation();
        if live && let Some(as_of) = slot.is_clear(generation, device) {
            return Ok(Fact::known(Revocation::Clear, as_of));
        }
        match self.known.look(identity, device) {
            Look::Revoked(kind) => Ok(Fact::known(Revocation::Revoked(kind), now)),
            Look::Clear if live => {
                slot.asked(generation, device, now, self.liveness.as_of());
                Ok(Fact::known(Revocation::Clear, now))
            }
            Look::Clear => Err(Some(slot)),
            // The feed told of a change: what was known before it does not count any more.
            Look::Ask => Err(None),
        }
    }

    /// Reads the keys of one check in one round trip.
    async fn ask(
        &self,
        identity: &Identity,
        device: Option<&DeviceId>,
        slot: Option<&CheckedAt>,
        deadline: Instant,
    ) -> Fact<Revocation> {
        self.counters.asked.increment();
        let (asked_at, generation) = (Instant::now(), self.known.generation());
        let subjects: Vec<_> = subjects(identity, device).collect();
        let tickets: Vec<_> = subjects.iter().map(|(kind, id)| self.known.ticket(*kind, id)).collect();
        let standings = match tokio::time::timeout_at(deadline, self.standings(&subjects)).await {
            Ok(Ok(standings)) => standings,
            Ok(Err(error)) => return self.unanswered(device, slot, error.unavailable()),
            Err(_) => return self.unanswered(device, slot, Unavailable::Timeout),
        };
        self.silent.store(false, Ordering::Release);
        let now = self.clock.now();
        let mut fact = Fact::known(Revocation::Clear, now);
        for (((kind, id), standing), ticket) in subjects.iter().zip(&standings).zip(tickets) {
            match standing {
                Standing::Nothing => {}
                Standing::Revoked { scope, .. } => {
                    self.known.settle(*kind, id, standing, self.seen(ticket, 0));
                    if scope.covers(identity) {
                        return Fact::known(Revocation::Revoked(*kind), now);
                    }
                }
                // The follower takes a revocation back: here one reading may be older than another.
                Standing::Reinstated(_) => {}
                Standing::Unreadable => fact = Fact::Unavailable(Unavailable::Malformed),
            }
        }
        if let Some(slot) = slot
            && !fact.is_unavailable()
        {
            slot.asked(generation, device, now, asked_at);
        }
        fact
    }

    /// The store does not answer: a token that was checked here a moment ago passes.
    fn unanswered(&self, device: Option<&DeviceId>, slot: Option<&CheckedAt>, why: Unavailable) -> Fact<Revocation> {
        self.silent.store(true, Ordering::Release);
        match slot.and_then(|slot| slot.within(*self.settings.max_staleness, device)) {
            Some(as_of) => {
                self.counters.stale.increment();
                Fact::known(Revocation::Clear, as_of)
            }
            None => {
                self.counters.unanswered.increment();
                Fact::Unavailable(why)
            }
        }
    }

    async fn standings(&self, subjects: &[(RevocationKind, &str)]) -> Result<Vec<Standing>, StoreError> {
        let entries = self.read(subjects, None).await?;
        let pairs = subjects.iter().zip(entries.chunks_exact(2));
        Ok(pairs.map(|((kind, id), pair)| judge((*kind, id), &pair[0], &pair[1])).collect())
    }

    /// Both keys of each, and `extra`, in one round trip. Where both stand, the revocation's is read once more: the store may
    /// be several servers, and only what stands when the reinstatement was read is later than that.
    async fn read(&self, subjects: &[(RevocationKind, &str)], extra: Option<&str>) -> Result<Vec<Entry>, StoreError> {
        let keys = subjects.iter().flat_map(|(kind, id)| [keys::revoked(*kind, id), keys::reinstated(*kind, id)]);
        let keys: Vec<_> = keys.chain(extra.map(str::to_owned)).collect();
        let mut entries = self.store.read(&keys).await?;
        let stands = |entry: &Entry| matches!(entry, Ok(Some(_)));
        let pairs = entries.chunks_exact(2).take(subjects.len()).enumerate();
        let both = pairs.filter(|(_, pair)| pair.iter().all(stands)).map(|(index, _)| 2 * index);
        let both: Vec<_> = both.collect();
        if !both.is_empty() {
            let again: Vec<_> = both.iter().map(|at| keys[*at].clone()).collect();
            for (at, entry) in both.into_iter().zip(self.store.read(&again).await?) {
                entries[at] = entry;
            }
        }
        Ok(entries)
    }

    fn seen(&self, ticket: Ticket, scan: u64) -> Seen {
        Seen { max_lifetime: *self.settings.max_lifetime, scan, ticket, live: self.liveness.is_live() }
    }

    fn is_live(&self) -> bool {
        self.liveness.is_live() && !self.known.is_full()
    }

    /// Grows whenever a "not revoked" that somebody remembers may have become wrong.
    pub fn generation(&self) -> u64 {
        self.known.generation()
    }

    pub fn state(&self) -> State {
        if self.refusing.load(Ordering::Acquire) {
            State::Refusing
        } else if self.is_live() {
            State::Live
        } else if self.silent.load(Ordering::Acquire) {
            State::Silent
        } else if !self.scanned.load(Ordering::Acquire) {
            State::Scanning
        } else {
            State::Lost
        }
    }

    /// How long ago the feed last told something or answered; `None`: it never has.
    pub fn heard(&self) -> Option<Duration> {
        self.liveness.last_heard().map(|at| at.elapsed())
    }

    /// Whether this replica has read the revocations once.
    pub fn ready(&self) -> bool {
        self.not_ready().is_none()
    }

    /// Why checks had better go to another replica; `None`: they need not. A full memory is no reason: it is full on all of them
    /// at once, and each answers by asking the store.
    pub fn not_ready(&self) -> Option<&'static str> {
        let read = self.scanned.load(Ordering::Acquire);
        (!read).then_some("the revocations in the store have not been read yet")
    }

    /// Memory has no room for all revocations: each check asks the store.
    pub fn is_full(&self) -> bool {
        self.known.is_full()
    }

    /// How many revocations are held in memory.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The longest that a change may go unseen while the store cannot be reached.
    pub fn max_staleness(&self) -> Duration {
        *self.settings.max_staleness
    }
}
