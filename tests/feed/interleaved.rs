//! A reading that is overtaken by news: sent before a change, answered after the feed told of it. It must not be kept.
//!
//! The store is the embedded one; its readings can be held back, and its feed says what the test says.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use countersign::{
    clock::Clock,
    device::{self, DeviceQuery, Devices},
    domain::{DeviceSighting, Fact, Revocation, RevocationKind},
    revocation::{CheckedAt, Revocations, Settings, State},
    store::{Entry, FeedEvent, Keys, Rate, Record, Store, StoreError, StoreErrorKind, Taken, Widened, memory::Memory},
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::token;

/// A store whose answers can be held back after they were made, and whose writes can be taken in steps.
#[derive(Debug)]
pub(super) struct Held {
    inner: Arc<Memory>,
    /// Whether a write lets others go first.
    pub(super) stepping: AtomicBool,
    /// Whether what is held back of a reading is all but its first key, as of another server.
    pub(super) splitting: AtomicBool,
    /// Whether every other page of a scan is late.
    pub(super) limping: AtomicBool,
    pages: AtomicUsize,
    holding: AtomicBool,
    held: Notify,
    released: Notify,
    feed: Mutex<Option<mpsc::Sender<FeedEvent>>>,
}

impl Held {
    pub(super) fn new() -> Arc<Self> {
        Self::over(memory())
    }

    fn over(inner: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            stepping: AtomicBool::new(false),
            splitting: AtomicBool::new(false),
            limping: AtomicBool::new(false),
            pages: AtomicUsize::new(0),
            holding: AtomicBool::new(false),
            held: Notify::new(),
            released: Notify::new(),
            feed: Mutex::default(),
        })
    }

    /// The next answer is held back.
    pub(super) fn hold(&self) {
        self.holding.store(true, Ordering::Release);
    }

    /// Waits until an answer is held back.
    pub(super) async fn is_held(&self) {
        tokio::time::timeout(Duration::from_secs(5), self.held.notified()).await.expect("an answer is held back");
    }

    pub(super) fn release(&self) {
        self.released.notify_one();
    }

    async fn gate(&self) {
        if self.holding.swap(false, Ordering::AcqRel) {
            self.held.notify_one();
            self.released.notified().await;
        }
    }

    async fn step(&self) {
        if self.stepping.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn tell(&self, event: FeedEvent) {
        let feed = loop {
            let feed = self.feed.lock().unwrap().clone();
            match feed {
                Some(feed) => break feed,
                None => sleep(Duration::from_millis(5)).await,
            }
        };
        feed.send(event).await.unwrap();
    }

    pub(super) async fn changed(&self, key: &str) {
        self.tell(FeedEvent::Changed(vec![key.to_owned()])).await;
    }

    pub(super) async fn connect(&self, epoch: u64) {
        self.tell(FeedEvent::Connected { epoch, patience: None }).await;
    }
}

pub(super) fn memory() -> Arc<Memory> {
    let clock = Clock::system();
    Arc::new(Memory::new(move || clock.now()))
}

#[async_trait]
impl Store for Held {
    async fn read(&self, keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        let split = if self.splitting.load(Ordering::Acquire) { keys.len().min(1) } else { keys.len() };
        let mut answer = self.inner.read(&keys[..split]).await?;
        self.gate().await;
        answer.extend(self.inner.read(&keys[split..]).await?);
        Ok(answer)
    }

    async fn write(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<(), StoreError> {
        self.step().await;
        self.inner.write(key, value, life).await
    }

    async fn create(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<bool, StoreError> {
        self.inner.create(key, value, life).await
    }

    async fn raise(&self, key: &str, value: &str, life: Option<Duration>) -> Result<bool, StoreError> {
        self.inner.raise(key, value, life).await
    }

    async fn widen(&self, key: &str, value: &str, life: Option<Duration>) -> Result<Widened, StoreError> {
        self.step().await;
        let widened = self.inner.widen(key, value, life).await;
        self.gate().await;
        widened
    }

    async fn exchange(&self, key: &str, old: &[u8], new: Option<&[u8]>) -> Result<bool, StoreError> {
        self.step().await;
        self.inner.exchange(key, old, new).await
    }

    async fn replace(&self, key: &str, old: &[u8], new: &[u8], life: Duration) -> Result<bool, StoreError> {
        self.step().await;
        self.inner.replace(key, old, new, life).await
    }

    async fn delete(&self, keys: &[String]) -> Result<u64, StoreError> {
        self.step().await;
        self.inner.delete(keys).await
    }

    async fn record(&self, key: &str, fields: &[&str]) -> Result<Option<Record>, StoreError> {
        let answer = self.inner.record(key, fields).await;
        self.gate().await;
        answer
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
        if self.limping.load(Ordering::Acquire) && self.pages.fetch_add(1, Ordering::AcqRel).is_multiple_of(2) {
            return Err(StoreError::new(StoreErrorKind::Timeout, "late"));
        }
        self.inner.scan(prefix, cursor, count).await
    }

    async fn take(&self, key: &str, rate: Rate, count: u32) -> Result<Taken, StoreError> {
        self.inner.take(key, rate, count).await
    }

    fn feed(&self) -> mpsc::Receiver<FeedEvent> {
        let (sender, receiver) = mpsc::channel(16);
        *self.feed.lock().unwrap() = Some(sender);
        receiver
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        self.inner.warnings().await
    }
}

const REVOKED: &str = "cs:revoked:jti:t";
const REINSTATED: &str = "cs:reinstated:jti:t";
/// Longer than the follower needs to read a key again.
const SETTLED: Duration = Duration::from_millis(300);

pub(super) struct Rig {
    pub(super) store: Arc<Held>,
    pub(super) revocations: Arc<Revocations>,
    _cancel: tokio_util::sync::DropGuard,
}

impl Rig {
    /// Settings without a canary: the feed is what the test says it is.
    fn new() -> Self {
        Self::over(memory())
    }

    pub(super) fn over(memory: Arc<Memory>) -> Self {
        let (store, cancel) = (Held::over(memory), CancellationToken::new());
        let settings = Settings { canary_interval: Duration::from_secs(3600).into(), ..Settings::default() };
        let shared: Arc<dyn Store> = Arc::clone(&store) as _;
        let revocations = Revocations::start(shared, settings, Clock::system(), cancel.clone());
        Self { store, revocations, _cancel: cancel.drop_guard() }
    }

    async fn live() -> Self {
        Self::live_over(memory()).await
    }

    pub(super) async fn live_over(memory: Arc<Memory>) -> Self {
        let rig = Self::over(memory);
        rig.store.connect(1).await;
        crate::redis::until(Duration::from_secs(5), || rig.revocations.state() == State::Live).await;
        rig
    }

    async fn check(&self, slot: &CheckedAt) -> Fact<Revocation> {
        let deadline = Instant::now() + Duration::from_secs(2);
        self.revocations.check(&token("t"), None, slot, Clock::system().now(), deadline).await
    }

    async fn is_revoked(&self) -> bool {
        matches!(self.check(&CheckedAt::default()).await, Fact::Known { value: Revocation::Revoked(_), .. })
    }
}

#[tokio::test]
async fn what_the_follower_read_before_a_revocation_does_not_hide_it() {
    let rig = Rig::live().await;
    rig.store.write(REINSTATED, b"x", None).await.unwrap();
    rig.store.hold();
    rig.store.changed(REINSTATED).await;
    rig.store.is_held().await;
    // The held answer says "reinstated". Now it is revoked again, and the feed tells of that.
    rig.store.delete(&[REINSTATED.to_owned()]).await.unwrap();
    rig.store.write(REVOKED, b"x", None).await.unwrap();
    rig.store.changed(REVOKED).await;
    sleep(SETTLED).await;
    assert!(rig.is_revoked().await, "while the old answer is held back, the check asks for itself");
    rig.store.release();
    sleep(SETTLED).await;
    assert!(rig.is_revoked().await, "the old answer was kept");
}

#[tokio::test]
async fn what_the_follower_read_before_a_reinstatement_does_not_revoke_for_good() {
    let rig = Rig::live().await;
    rig.store.write(REVOKED, b"x", None).await.unwrap();
    rig.store.hold();
    rig.store.changed(REVOKED).await;
    rig.store.is_held().await;
    rig.store.write(REINSTATED, b"x", None).await.unwrap();
    rig.store.changed(REINSTATED).await;
    rig.store.release();
    sleep(SETTLED).await;
    // It was carried out, which the feed tells of.
    rig.store.changed(REINSTATED).await;
    sleep(SETTLED).await;
    assert!(!rig.is_revoked().await);
}

#[tokio::test]
async fn what_a_check_read_before_a_revocation_is_not_remembered_with_its_token() {
    let rig = Arc::new(Rig::new());
    rig.store.connect(1).await;
    crate::redis::until(Duration::from_secs(5), || rig.revocations.state() == State::Live).await;
    rig.store.tell(FeedEvent::Lost).await;
    crate::redis::until(Duration::from_secs(5), || rig.revocations.state() != State::Live).await;
    let slot = Arc::new(CheckedAt::default());
    rig.store.hold();
    let checking = tokio::spawn({
        let (rig, slot) = (Arc::clone(&rig), Arc::clone(&slot));
        async move { rig.check(&slot).await }
    });
    rig.store.is_held().await;
    // The held answer says "not revoked". The feed comes back, and with it the news.
    rig.store.write(REVOKED, b"x", None).await.unwrap();
    rig.store.connect(2).await;
    crate::redis::until(Duration::from_secs(5), || rig.revocations.state() == State::Live).await;
    rig.store.release();
    let overtaken = checking.await.unwrap();
    assert!(!overtaken.is_unavailable(), "{overtaken:?}");
    let fact = rig.check(&slot).await;
    assert!(matches!(fact, Fact::Known { value: Revocation::Revoked(_), .. }), "the old answer was kept: {fact:?}");
}

/// Written, and the answer is on its way.
async fn revoking(rig: &Arc<Rig>) -> tokio::task::JoinHandle<()> {
    rig.store.hold();
    let writer = Arc::clone(rig);
    let revoking = tokio::spawn(async move {
        writer.revocations.revoke(RevocationKind::Token, "t", "lost", None).await.unwrap();
    });
    rig.store.is_held().await;
    revoking
}

/// The feed is faster than the answer, and nobody has read what it told of when the store fails over to one that has lost it.
#[tokio::test]
async fn what_was_acknowledged_here_outlives_a_failover_in_that_moment() {
    let rig = Arc::new(Rig::live().await);
    let revoking = revoking(&rig).await;
    rig.store.hold();
    rig.store.changed(REVOKED).await;
    rig.store.is_held().await;
    // The first that is held back.
    rig.store.release();
    revoking.await.unwrap();
    rig.store.tell(FeedEvent::Lost).await;
    rig.store.delete(&[REVOKED.to_owned()]).await.unwrap();
    rig.store.connect(2).await;
    crate::redis::until(Duration::from_secs(5), || rig.revocations.counters().restored.get() == 1).await;
    assert!(rig.is_revoked().await);
    let held = rig.store.read(&[REVOKED.to_owned()]).await.unwrap().remove(0).unwrap().unwrap();
    assert_eq!(held.value, b"lost");
}

#[tokio::test]
async fn what_is_taken_back_before_its_writer_has_the_answer_is_not_remembered() {
    let rig = Arc::new(Rig::live().await);
    let revoking = revoking(&rig).await;
    rig.store.delete(&[REVOKED.to_owned()]).await.unwrap();
    rig.store.write(REINSTATED, b"deleted 00000000000000ff", None).await.unwrap();
    rig.store.changed(REVOKED).await;
    rig.store.changed(REINSTATED).await;
    sleep(SETTLED).await;
    rig.store.release();
    revoking.await.unwrap();
    assert!(!rig.is_revoked().await);
}

/// An undoing that a later revocation has seen beside itself takes nothing back, and clears nothing.
#[tokio::test]
async fn what_is_refused_here_is_not_clear_and_what_was_just_taken_back_is() {
    let rig = Rig::live().await;
    let (revocations, kind) = (&rig.revocations, RevocationKind::Token);
    rig.store.write(REINSTATED, b"deleted 00000000000000ff", None).await.unwrap();
    rig.store.write(REVOKED, b"lost", None).await.unwrap();
    rig.store.changed(REVOKED).await;
    crate::redis::until(Duration::from_secs(5), || revocations.len() == 1).await;
    sleep(SETTLED).await;
    rig.store.delete(&[REVOKED.to_owned()]).await.unwrap();
    rig.store.changed(REVOKED).await;
    sleep(SETTLED).await;
    assert!(rig.is_revoked().await && !revocations.is_clear(kind, "t").await.unwrap());
    revocations.reinstate(kind, "t").await.unwrap();
    assert!(!rig.is_revoked().await && revocations.is_clear(kind, "t").await.unwrap());
}

const DEVICE: &str = "cs:device:laptop";

async fn devices() -> (Arc<Held>, Arc<Devices>, tokio_util::sync::DropGuard) {
    let (store, cancel) = (Held::new(), CancellationToken::new());
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let devices = super::devices::start(shared, &device::Settings::default(), &cancel);
    store.write_record(DEVICE, &[("user", "alice"), ("compliant", "true")], &[]).await.unwrap();
    store.connect(1).await;
    crate::redis::until(Duration::from_secs(5), || devices.is_live()).await;
    (store, devices, cancel.drop_guard())
}

async fn sight(devices: &Devices) -> Fact<DeviceSighting> {
    let query = DeviceQuery { id: Some("laptop"), ..DeviceQuery::default() };
    devices.look_up(&query, Instant::now() + Duration::from_secs(2)).await
}

fn compliant(fact: &Fact<DeviceSighting>) -> Option<bool> {
    fact.value().and_then(|seen| seen.record.as_ref()).and_then(|record| record.compliant)
}

#[tokio::test]
async fn a_device_read_before_its_change_is_not_kept() {
    let (store, devices, _guard) = devices().await;
    store.hold();
    let reading = tokio::spawn({
        let devices = Arc::clone(&devices);
        async move { sight(&devices).await }
    });
    store.is_held().await;
    store.write_record(DEVICE, &[("compliant", "false")], &[]).await.unwrap();
    store.changed(DEVICE).await;
    sleep(Duration::from_millis(50)).await;
    store.release();
    assert_eq!(compliant(&reading.await.unwrap()), Some(true), "the reading itself is as old as it is");
    assert_eq!(compliant(&sight(&devices).await), Some(false), "and was not kept");
}

#[tokio::test]
async fn a_device_read_before_a_reconnection_is_not_kept() {
    let (store, devices, _guard) = devices().await;
    store.hold();
    let reading = tokio::spawn({
        let devices = Arc::clone(&devices);
        async move { sight(&devices).await }
    });
    store.is_held().await;
    store.tell(FeedEvent::Lost).await;
    // Changed while nobody listened.
    store.write_record(DEVICE, &[("compliant", "false")], &[]).await.unwrap();
    store.connect(2).await;
    sleep(Duration::from_millis(50)).await;
    store.release();
    reading.await.unwrap();
    assert_eq!(compliant(&sight(&devices).await), Some(false));
}
