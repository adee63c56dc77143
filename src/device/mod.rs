//! The device registry as a check sees it: records by id, kept in memory, evicted by the store's feed.
//!
//! A record that cannot be read is `Unavailable`, never "not registered" and never "fine". Worst staleness: while the
//! feed is live, the time of a push; while it is not, each check reads the store; while that does not answer either,
//! `max_staleness` after the feed was last heard. `tests/feed/devices.rs` changes a device under warm caches.

mod certificate;
pub mod enroll;
mod fleet;
mod news;
mod record;
mod seen;
mod settings;
mod sighting;
mod speaker;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use foldhash::quality::FixedState;
use quick_cache::sync::Cache;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::{
    certificate::{Certificates, ClientCertificate, Error},
    fleet::{Census, DevicePage, Filter, Found},
    news::{Change, Witness},
    record::{FIELDS, LAST_SECOND, Malformed, parse as parse_record, spoken_patch_level},
    settings::Settings,
    sighting::DeviceQuery,
    speaker::said,
};
use self::{seen::Seen, sighting::At};
use crate::{
    clock::Clock,
    domain::{DeviceId, DeviceRecord, DeviceSighting, Fact, SubjectId, Unavailable, UnixTime, metric::Counter},
    store::{Epochs, FeedEvent, Liveness, Record, Store, StoreError, StoreErrorKind, keys},
};

/// How many counters tell fills apart from invalidations; keys share them by hash.
const STAMPS: usize = 4096;

/// The registry.
#[derive(Debug)]
pub struct Devices {
    store: Arc<dyn Store>,
    cache: Cache<DeviceId, Cached>,
    liveness: Liveness,
    epochs: Epochs,
    /// Grows with each change under a stamp's keys: a fill that was overtaken by one is not kept.
    stamps: Box<[AtomicU64]>,
    clock: Clock,
    max_staleness: Duration,
    posture_max_age: Duration,
    certificates: Certificates,
    requirements: enroll::Requirements,
    seen: Seen,
    /// What the last count found, by whichever replica.
    census: ArcSwapOption<Census>,
    witness: OnceLock<Arc<dyn Witness>>,
    counters: Counters,
}

/// What a look into the store found, when, and during which connection of the feed.
#[derive(Clone, Debug)]
struct Cached {
    record: Result<Option<Arc<DeviceRecord>>, Unavailable>,
    as_of: UnixTime,
    read_at: Instant,
    epoch: u64,
}

/// Plain atomics; `ops` renders them.
#[derive(Debug, Default)]
pub struct Counters {
    hits: Counter,
    misses: Counter,
    evictions: Counter,
    malformed: Counter,
    store_errors: Counter,
}

impl Devices {
    /// Listens to the store's feed until cancelled.
    pub fn start(
        store: Arc<dyn Store>,
        settings: &Settings,
        certificates: Certificates,
        clock: Clock,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let devices = Arc::new(Self {
            seen: Seen::start(Arc::clone(&store)),
            store,
            cache: Cache::new(usize::try_from(settings.cache_entries).unwrap_or(usize::MAX)),
            liveness: Liveness::default(),
            epochs: Epochs::default(),
            stamps: (0..STAMPS).map(|_| AtomicU64::new(0)).collect(),
            clock,
            max_staleness: settings.max_staleness.get(),
            posture_max_age: settings.posture_max_age.get(),
            certificates,
            requirements: settings.requirements.clone(),
            census: ArcSwapOption::empty(),
            witness: OnceLock::new(),
            counters: Counters::default(),
        });
        let (counter, interval) = (Arc::clone(&devices), settings.census_interval.get());
        let counting = cancel.clone();
        tokio::spawn(async move { counting.run_until_cancelled(counter.keep_counting(interval)).await });
        let listener = Arc::clone(&devices);
        tokio::spawn(async move { cancel.run_until_cancelled(listener.listen()).await });
        devices
    }

    /// What a client certificate says of devices: its thumbprint, and itself as Envoy sends it.
    pub fn certificate(&self, thumbprint: &str, encoded: &[u8], now: UnixTime) -> Arc<ClientCertificate> {
        self.certificates.read(thumbprint, encoded, now)
    }

    /// What the request shows of its device. `Absent`: it names none.
    pub async fn look_up(&self, query: &DeviceQuery<'_>, deadline: Instant) -> Fact<DeviceSighting> {
        match self.at_hand(query, query.named().as_ref()) {
            Ok(fact) => fact,
            Err((id, cached)) => {
                let found = Box::pin(self.asked_record(id, cached, deadline)).await;
                self.sighted(query, id, found)
            }
        }
    }

    /// As [`Self::look_up`], where memory says it; `None`: the store must be asked. `named` is what
    /// [`DeviceQuery::named`] says.
    pub fn remembered(&self, query: &DeviceQuery<'_>, named: Option<&DeviceId>) -> Option<Fact<DeviceSighting>> {
        self.at_hand(query, named).ok()
    }

    /// What memory says; else whom to ask the store for, and what memory holds as the last resort.
    fn at_hand<'d>(
        &self,
        query: &DeviceQuery<'_>,
        named: Option<&'d DeviceId>,
    ) -> Result<Fact<DeviceSighting>, (&'d DeviceId, Option<Cached>)> {
        let Some(id) = named else { return Ok(Fact::Absent) };
        if !DeviceQuery::can_be_registered(id) {
            return Ok(self.sighted(query, id, Ok((None, self.clock.now()))));
        }
        let cached = self.cache.get(id);
        match cached {
            Some(Cached { record, as_of, epoch, .. }) if self.liveness.is_live() && epoch == self.epochs.current() => {
                self.counters.hits.increment();
                Ok(self.sighted(query, id, record.map(|record| (record, as_of))))
            }
            cached => Err((id, cached)),
        }
    }

    fn sighted(
        &self,
        query: &DeviceQuery<'_>,
        id: &DeviceId,
        found: Result<(Option<Arc<DeviceRecord>>, UnixTime), Unavailable>,
    ) -> Fact<DeviceSighting> {
        let at = At { now: self.clock.now(), posture_max_age: self.posture_max_age };
        match found {
            Ok((record, as_of)) => {
                let sighting = query.sight(id.clone(), record, at);
                sighting.map_or(Fact::Absent, |sighting| Fact::known(sighting, as_of))
            }
            Err(why) => Fact::Unavailable(why),
        }
    }

    /// Notes that `subject` was let in from this device, to be written behind. Only what is the subject's own and
    /// contradicts nothing was seen.
    pub fn note_seen(&self, sighting: &DeviceSighting, subject: &SubjectId, now: UnixTime) {
        let contradicted = sighting.key_differs || sighting.fingerprint_differs || sighting.differs_from_token;
        let own =
            sighting.record.as_ref().is_some_and(|record| record.user.as_ref().is_none_or(|user| user == subject));
        if own && !contradicted {
            self.seen.note(&sighting.id, sighting.proof, now);
        }
    }

    /// The record in the store now, for administration.
    ///
    /// # Errors
    ///
    /// The store's; a record that cannot be read is malformed.
    pub async fn get(&self, id: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        Ok(self.fields(id).await?.map(record::parse).transpose()?)
    }

    /// The record as it is written: what others than its agent say, and beside it the fields that hold what is [`said`].
    ///
    /// # Errors
    ///
    /// As [`Devices::get`].
    pub async fn as_written(&self, id: &DeviceId) -> Result<Option<(DeviceRecord, Record)>, StoreError> {
        let Some(fields) = self.fields(id).await? else { return Ok(None) };
        let (beside, others) = fields.into_iter().partition(|(name, _)| said(name).is_some());
        Ok(Some((record::parse(others)?, beside)))
    }

    /// The fields of the record as they stand in the store.
    async fn fields(&self, id: &DeviceId) -> Result<Option<Record>, StoreError> {
        self.store.record(&keys::device(id.as_str()), &FIELDS).await
    }

    /// Sets and removes fields of a record that is there, in one step; says what is there then. `None`: there is none.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn write(
        &self,
        id: &DeviceId,
        set: &[(&str, &str)],
        clear: &[&str],
    ) -> Result<Option<DeviceRecord>, StoreError> {
        if self.amend(id, &[], set, clear).await? { self.get(id).await } else { Ok(None) }
    }

    /// Sets and removes fields in one step; makes a record where there is none.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn put(&self, id: &DeviceId, set: &[(&str, &str)], clear: &[&str]) -> Result<(), StoreError> {
        self.store.write_record(&keys::device(id.as_str()), set, clear).await?;
        self.forget(id.as_str());
        Ok(())
    }

    /// As [`Devices::put`], but only where there is a record in which these fields are as `held`: nobody brings back what was
    /// deleted, or writes over what was decided, since the record was read. Says whether it was so.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn amend(
        &self,
        id: &DeviceId,
        held: &[(&str, &str)],
        set: &[(&str, &str)],
        clear: &[&str],
    ) -> Result<bool, StoreError> {
        let same = self.store.amend_record(&keys::device(id.as_str()), held, set, clear).await?;
        self.forget(id.as_str());
        Ok(same)
    }

    /// What a posture lacks of the requirements. Empty: compliant.
    pub fn issues(&self, posture: &enroll::Posture) -> Vec<enroll::Issue> {
        posture.issues(&self.requirements, self.clock.now())
    }

    /// Says whether there was one.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn delete(&self, id: &DeviceId) -> Result<bool, StoreError> {
        let there = self.store.delete(&[keys::device(id.as_str())]).await? > 0;
        self.forget(id.as_str());
        Ok(there)
    }

    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether pushes are heard.
    pub fn is_live(&self) -> bool {
        self.liveness.is_live()
    }

    /// From the store; what memory holds is the last resort.
    async fn asked_record(
        &self,
        id: &DeviceId,
        cached: Option<Cached>,
        deadline: Instant,
    ) -> Result<(Option<Arc<DeviceRecord>>, UnixTime), Unavailable> {
        self.counters.misses.increment();
        match tokio::time::timeout_at(deadline, self.fill(id)).await {
            Ok(Ok(filled)) => filled.record.map(|record| (record, filled.as_of)),
            failed => {
                self.counters.store_errors.increment();
                let why = failed.map_or(Unavailable::Timeout, |_| Unavailable::Store);
                // What changed while changes were heard of is not in memory any more.
                let heard = |epoch| self.epochs.heard_within(epoch, self.max_staleness, &self.liveness);
                let recent = |cached: &Cached| cached.read_at.elapsed() < self.max_staleness || heard(cached.epoch);
                let recent = cached.filter(recent).ok_or(why)?;
                recent.record.map(|record| (record, recent.as_of))
            }
        }
    }

    /// Reads the store, and keeps what it says unless a change came in the meantime.
    async fn fill(&self, id: &DeviceId) -> Result<Cached, StoreError> {
        let stamp = self.stamp(id.as_str());
        let before = stamp.load(Ordering::Acquire);
        let (as_of, read_at, epoch) = (self.clock.now(), Instant::now(), self.epochs.current());
        let record = match self.get(id).await {
            Ok(record) => Ok(record.map(Arc::new)),
            Err(error) if error.kind == StoreErrorKind::Malformed => {
                self.counters.malformed.increment();
                tracing::warn!(%error, "a device record cannot be read");
                Err(Unavailable::Malformed)
            }
            Err(error) => return Err(error),
        };
        let filled = Cached { record, as_of, read_at, epoch };
        self.cache.insert(id.clone(), filled.clone());
        // Checked after the insertion: a change in between either sees the entry and evicts it, or is seen here.
        if stamp.load(Ordering::Acquire) != before {
            self.cache.remove(id);
        }
        Ok(filled)
    }

    fn stamp(&self, id: &str) -> &AtomicU64 {
        use std::hash::BuildHasher;
        let hash = FixedState::default().hash_one(id);
        &self.stamps[hash as usize % STAMPS]
    }

    fn forget(&self, id: &str) {
        self.stamp(id).fetch_add(1, Ordering::AcqRel);
        self.cache.remove(id);
        self.counters.evictions.increment();
    }

    fn forget_all(&self) {
        for stamp in &self.stamps {
            stamp.fetch_add(1, Ordering::AcqRel);
        }
        self.cache.clear();
    }

    async fn listen(&self) {
        loop {
            let mut feed = self.store.feed();
            while let Some(event) = feed.recv().await {
                self.hear(&event);
            }
            // The feed fell behind: nothing that was heard counts any more.
            self.liveness.end();
            self.forget_all();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn hear(&self, event: &FeedEvent) {
        self.liveness.observe(event);
        match event {
            FeedEvent::Connected { .. } => {
                self.epochs.turn(self.liveness.last_heard());
                // Nothing is known yet of this one, so nothing known can be out of date.
                self.liveness.begin(Instant::now());
            }
            FeedEvent::Flushed => self.forget_all(),
            FeedEvent::Changed(changed) => {
                for id in changed.iter().filter_map(|key| key.strip_prefix(keys::DEVICE)) {
                    self.forget(id);
                }
            }
            FeedEvent::Alive(_) | FeedEvent::Lost => {}
        }
    }
}
