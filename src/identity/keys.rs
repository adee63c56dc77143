//! The keys of one issuer, kept fresh: fetched ahead of their end, kept through outages up to a stated age, fetched again
//! when a token names a key nobody has heard of, at most once per cool-down however many such tokens come.
//!
//! One task per issuer does all fetching, so there is never more than one fetch under way for it.

mod keeper;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

pub(super) use self::keeper::{Discovery, Keeper};
use super::{Algorithm, key_set::KeySet, settings::KeySetSettings};
use crate::domain::UnixTime;

/// How many unknown key ids are remembered as unknown.
const MISSING_KIDS: u64 = 1024;

/// The keys of one issuer and how they are doing.
#[derive(Debug)]
pub(super) struct Keys {
    current: ArcSwapOption<KeySet>,
    /// Grows when the set of keys changes, and only then.
    generation: AtomicU64,
    /// When the current set was last known to be the issuer's, in milliseconds.
    confirmed_at: AtomicU64,
    max_age: Duration,
    fetches: watch::Sender<Fetches>,
    /// Why the last fetch was a bad one, where it was.
    failure: Mutex<Option<String>>,
    wanted: Notify,
    cooldown: Duration,
    last_demand: Mutex<Option<Instant>>,
    /// Key ids that were still unknown after a fetch, until the next may be asked for.
    missing: Cache<Box<str>, ()>,
}

/// How many fetches began, or were asked for, and how many ended, well or badly: at most one more.
#[derive(Clone, Copy, Debug)]
struct Fetches {
    begun: u64,
    ended: u64,
}

/// What is known of an issuer's keys.
#[derive(Debug)]
pub(super) enum Known {
    Set(Arc<KeySet>),
    /// None has ever been had.
    Never,
    /// The last good one is older than may be relied on.
    TooOld,
}

/// What came of asking for fresh keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refetch {
    /// The fetch that was asked for has ended well.
    Done,
    /// One that was under way has ended well. It may have begun before what is looked for was there.
    Joined,
    /// The last one is too recent.
    NotNow,
    /// The last one has ended badly: what the issuer has now is not known.
    Failed,
    /// One is under way, and the deadline came first.
    Late,
}

impl Keys {
    pub(super) fn new(settings: &KeySetSettings) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            confirmed_at: AtomicU64::new(0),
            max_age: settings.max_age.get(),
            // The first fetch is under way as soon as there is an issuer.
            fetches: watch::Sender::new(Fetches { begun: 1, ended: 0 }),
            failure: Mutex::default(),
            wanted: Notify::new(),
            cooldown: settings.cooldown.get(),
            last_demand: Mutex::new(None),
            missing: Cache::builder().max_capacity(MISSING_KIDS).time_to_live(settings.cooldown.get()).build(),
        }
    }

    pub(super) fn known(&self, now: UnixTime) -> Known {
        // Before the set: the next one is confirmed when it is there.
        let fresh = self.is_fresh(now);
        match self.current.load_full() {
            None => Known::Never,
            Some(_) if !fresh => Known::TooOld,
            Some(set) => Known::Set(set),
        }
    }

    /// Whether the current set is young enough to be relied on.
    pub(super) fn is_fresh(&self, now: UnixTime) -> bool {
        now.since(UnixTime::from_millis(self.confirmed_at.load(Ordering::Acquire))) <= self.max_age
    }

    pub(super) fn holds(&self, kid: &str, algorithm: Algorithm, thumbprint: &[u8; 32]) -> bool {
        self.current.load().as_ref().is_some_and(|set| set.holds(kid, algorithm, thumbprint))
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn ever_known(&self) -> bool {
        self.current.load().is_some()
    }

    /// Whether a fetch has ended, well or badly.
    pub(super) fn ever_tried(&self) -> bool {
        self.fetches.borrow().ended > 0
    }

    /// When the current set was last confirmed; `None`: there is none.
    pub(super) fn confirmed(&self) -> Option<UnixTime> {
        let confirmed = UnixTime::from_millis(self.confirmed_at.load(Ordering::Acquire));
        self.ever_known().then_some(confirmed)
    }

    /// Why the last fetch was a bad one.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    pub(super) fn key_count(&self) -> usize {
        self.current.load().as_ref().map_or(0, |set| set.len())
    }

    pub(super) fn is_missing(&self, kid: &str) -> bool {
        self.missing.contains_key(kid)
    }

    pub(super) fn remember_missing(&self, kid: &str) {
        self.missing.insert(kid.into(), ());
    }

    /// Waits for a fetch that is under way, or asks for one where the cool-down allows. Joining one leaves the demand unused.
    pub(super) async fn refetch(&self, deadline: Instant) -> Refetch {
        let mut fetches = self.fetches.subscribe();
        let (mut awaited, mut ended_well) = (None, Refetch::Joined);
        // In one step: whoever comes next joins this one.
        self.fetches.send_if_modified(|fetches| {
            if fetches.begun == fetches.ended && self.may_demand() {
                fetches.begun += 1;
                ended_well = Refetch::Done;
                self.wanted.notify_one();
            }
            awaited = (fetches.begun > fetches.ended).then_some(fetches.begun);
            false
        });
        let Some(awaited) = awaited else { return self.ended(Refetch::NotNow) };
        match timeout_at(deadline, fetches.wait_for(|fetches| fetches.ended >= awaited)).await {
            Ok(Ok(_)) => self.ended(ended_well),
            // The task that fetches has ended: the process is on its way out.
            Ok(Err(_)) => Refetch::NotNow,
            Err(_) => Refetch::Late,
        }
    }

    /// `well`, unless the last fetch has ended badly.
    fn ended(&self, well: Refetch) -> Refetch {
        if self.failure.lock().is_some() { Refetch::Failed } else { well }
    }

    /// Resolves when one fetch has ended, well or badly.
    pub(super) async fn first_fetch(&self) {
        let _ = self.fetches.subscribe().wait_for(|fetches| fetches.ended > 0).await;
    }

    /// A fetch begins: the one that was asked for, or one by the clock.
    fn begins(&self) {
        self.fetches.send_if_modified(|fetches| {
            fetches.begun = fetches.ended + 1;
            false
        });
    }

    fn ends(&self) {
        self.fetches.send_modify(|fetches| fetches.ended = fetches.begun);
    }

    fn may_demand(&self) -> bool {
        let mut last = self.last_demand.lock();
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < self.cooldown) {
            return false;
        }
        *last = Some(now);
        true
    }

    /// Takes `set` over. Says whether it differs from the last.
    pub(super) fn take(&self, set: KeySet, now: UnixTime) -> bool {
        let confirm = || self.confirmed_at.store(now.as_millis(), Ordering::Release);
        let changed = match &*self.current.load() {
            Some(old) => !old.same_as(&set),
            None => {
                // Nobody shall see the first set as one of 1970.
                confirm();
                true
            }
        };
        if changed {
            // INVARIANT: the set is there before its generation, so that whoever sees the new generation and looks a key
            // up finds the new set.
            self.current.store(Some(Arc::new(set)));
            self.generation.fetch_add(1, Ordering::AcqRel);
            self.missing.invalidate_all();
        }
        // INVARIANT: last, so that a set too old to be relied on is not made young by the one that takes its place.
        confirm();
        changed
    }

    /// Takes keys out of the current set, where no other takes its place.
    fn drop_keys(&self, kids: &[&str]) {
        let Some(old) = self.current.load_full() else { return };
        let left = KeySet::clone(&old).without(kids);
        if left.len() < old.len() {
            // As in `take`.
            self.current.store(Some(Arc::new(left)));
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }
}
