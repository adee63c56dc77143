//! A store in memory that can be slow, late, or take no writes.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{
    domain::UnixTime,
    store::{Entry, FeedEvent, Keys, Rate, Record, Store, StoreError, StoreErrorKind, Taken, Widened, memory::Memory},
};

#[derive(Debug)]
pub(super) struct Busy {
    inner: Memory,
    /// Others go first after each reading.
    slow: AtomicBool,
    failing: AtomicBool,
    /// Takes no writes, and says so.
    refusing: AtomicBool,
    /// Readings are not answered.
    silent: AtomicBool,
    /// So many pages of scans do not come.
    late: AtomicU32,
    /// What the next readings wait for before they tell what they found.
    gates: Mutex<VecDeque<oneshot::Receiver<()>>>,
    /// Readings under way, and the most there were.
    reading: AtomicUsize,
    most: AtomicUsize,
}

impl Busy {
    pub(super) fn new(now: UnixTime) -> Arc<Self> {
        let (slow, failing, refusing, silent, late, gates, reading, most) = Default::default();
        Arc::new(Self { inner: Memory::new(move || now), slow, failing, refusing, silent, late, gates, reading, most })
    }

    /// The next reading has found what there is, and tells it when this is sent.
    pub(super) fn hold(&self) -> oneshot::Sender<()> {
        let (release, gate) = oneshot::channel();
        self.gates.lock().push_back(gate);
        release
    }

    /// The most readings at the same time.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Acquire)
    }

    pub(super) fn slow(&self) {
        self.slow.store(true, Ordering::Release);
    }

    pub(super) fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::Release);
    }

    pub(super) fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::Release);
    }

    pub(super) fn silent(&self) {
        self.silent.store(true, Ordering::Release);
    }

    pub(super) fn late(&self, pages: u32) {
        self.late.store(pages, Ordering::Release);
    }

    fn answers(&self) -> Result<(), StoreError> {
        if self.refusing.load(Ordering::Acquire) {
            return Err(StoreError::new(StoreErrorKind::Refused, "no room"));
        }
        if self.failing.load(Ordering::Acquire) { Err(no_answer()) } else { Ok(()) }
    }
}

fn no_answer() -> StoreError {
    StoreError::new(StoreErrorKind::Timeout, "no answer in time")
}

#[async_trait]
impl Store for Busy {
    async fn read(&self, keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        if self.silent.load(Ordering::Acquire) {
            return Err(no_answer());
        }
        self.most.fetch_max(self.reading.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
        let entries = self.inner.read(keys).await;
        let gate = self.gates.lock().pop_front();
        if let Some(gate) = gate {
            gate.await.unwrap();
        }
        if self.slow.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        self.reading.fetch_sub(1, Ordering::AcqRel);
        entries
    }

    async fn write(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<(), StoreError> {
        self.answers()?;
        self.inner.write(key, value, life).await
    }

    async fn create(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<bool, StoreError> {
        self.answers()?;
        self.inner.create(key, value, life).await
    }

    async fn replace(&self, key: &str, old: &[u8], new: &[u8], life: Duration) -> Result<bool, StoreError> {
        self.answers()?;
        self.inner.replace(key, old, new, life).await
    }

    async fn raise(&self, key: &str, value: &str, life: Option<Duration>) -> Result<bool, StoreError> {
        self.inner.raise(key, value, life).await
    }

    async fn widen(&self, key: &str, value: &str, life: Option<Duration>) -> Result<Widened, StoreError> {
        self.inner.widen(key, value, life).await
    }

    async fn exchange(&self, key: &str, old: &[u8], new: Option<&[u8]>) -> Result<bool, StoreError> {
        self.inner.exchange(key, old, new).await
    }

    async fn delete(&self, keys: &[String]) -> Result<u64, StoreError> {
        self.inner.delete(keys).await
    }

    async fn record(&self, key: &str, fields: &[&str]) -> Result<Option<Record>, StoreError> {
        self.inner.record(key, fields).await
    }

    async fn whole_record(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.inner.whole_record(key).await
    }

    async fn write_record(&self, key: &str, set: &[(&str, &str)], remove: &[&str]) -> Result<(), StoreError> {
        self.inner.write_record(key, set, remove).await
    }

    async fn amend_record(
        &self,
        key: &str,
        held: &[(&str, &str)],
        set: &[(&str, &str)],
        remove: &[&str],
    ) -> Result<bool, StoreError> {
        self.inner.amend_record(key, held, set, remove).await
    }

    async fn add(&self, key: &str, deltas: &[(&str, i64)], life: Option<Duration>) -> Result<Vec<i64>, StoreError> {
        self.inner.add(key, deltas, life).await
    }

    async fn enlist(
        &self,
        key: &str,
        field: &str,
        counter: &str,
        value: &str,
        life: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.inner.enlist(key, field, counter, value, life).await
    }

    async fn scan(&self, prefix: &str, cursor: &str, count: usize) -> Result<Keys, StoreError> {
        let late = self.late.fetch_update(Ordering::AcqRel, Ordering::Acquire, |pages| pages.checked_sub(1));
        if late.is_ok() {
            return Err(no_answer());
        }
        self.inner.scan(prefix, cursor, count).await
    }

    async fn take(&self, key: &str, rate: Rate, count: u32) -> Result<Taken, StoreError> {
        self.inner.take(key, rate, count).await
    }

    fn feed(&self) -> mpsc::Receiver<FeedEvent> {
        self.inner.feed()
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        self.inner.warnings().await
    }
}
