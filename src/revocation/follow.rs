//! Follows the store's feed: what is pushed is read at once and remembered; after each connection everything is scanned.
//!
//! One task. It never waits for the store with events unheard: readings, scans and writes run beside the listening.

use std::{pin::Pin, sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    Revocations,
    canary::Canary,
    scan::{self, At, Dirty, Scanned, Told},
};
use crate::store::{Backoff, FeedEvent, StoreError, keys};

/// Before a reading that failed is tried again, with up to as much again at random.
const RETRY: Duration = Duration::from_millis(50);

/// Between two looks for what has ended, and for room where there was none.
const PURGE: Duration = Duration::from_secs(10);

/// Revocations read in one round trip.
const BATCH: usize = 512;

type Running<'a, T> = Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>;

type Scan<'a> = Pin<Box<dyn Future<Output = Result<Scanned, StoreError>> + Send + 'a>>;

pub(super) async fn follow(revocations: Arc<Revocations>, cancel: CancellationToken) {
    let mut follower = Follower {
        revocations: &revocations,
        dirty: Dirty::new(),
        canary: Canary::new(*revocations.settings.canary_interval),
        scans: 0,
        connected: false,
        alive: Instant::now(),
        backoff: Backoff::default(),
    };
    let listening = async {
        loop {
            follower.listen(revocations.store.feed()).await;
            // Too far behind: what was told is lost.
            follower.lose();
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = listening => {}
    }
    revocations.liveness.end();
}

struct Follower<'a> {
    revocations: &'a Revocations,
    dirty: Dirty,
    canary: Canary,
    /// Scans begun so far.
    scans: u64,
    /// The feed says that it listens.
    connected: bool,
    /// Up to when the feed has told everything.
    alive: Instant,
    /// Of scans that failed, or whose losses the store does not take. Only the first failure in a row is told of.
    backoff: Backoff,
}

impl<'a> Follower<'a> {
    async fn listen(&mut self, mut feed: mpsc::Receiver<FeedEvent>) {
        let (mut scanning, mut reading, mut probing): (Running<'_, _>, Running<'_, _>, Running<'_, _>) =
            (None, None, None);
        let mut purging = tokio::time::interval(PURGE);
        let mut ticking = tokio::time::interval(self.canary.interval());
        ticking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if reading.is_none() && (self.canary.is_heard() || !self.dirty.is_empty()) {
                reading = Some(self.read());
            }
            tokio::select! {
                event = feed.recv() => match event {
                    None => return,
                    Some(event) => match self.hear(event) {
                        Next::Scan => scanning = Some(self.scan(Duration::ZERO)),
                        Next::Stop => (scanning, reading) = (None, None),
                        Next::Listen => {}
                    },
                },
                left = wait(&mut reading) => {
                    reading = None;
                    if self.has_read(left) {
                        scanning = Some(self.scan(Duration::ZERO));
                    }
                }
                result = wait(&mut scanning) => scanning = self.has_scanned(result),
                _ = ticking.tick(), if probing.is_none() => {
                    if self.connected && self.canary.is_deaf(self.revocations.max_staleness()) {
                        tracing::error!("the feed says it is alive and does not tell of our own write: not believed");
                        self.lose();
                        // Others believe it as well, and have no canary.
                        self.revocations.store.doubt();
                    }
                    probing = Some(self.probe());
                }
                probed = wait(&mut probing) => {
                    probing = None;
                    if self.has_probed(&probed) {
                        scanning = Some(self.scan(Duration::ZERO));
                    }
                }
                _ = purging.tick() => {
                    self.revocations.known.purge();
                    if scanning.is_none() && self.revocations.known.room().is_back() {
                        scanning = Some(self.scan(Duration::ZERO));
                    }
                }
            }
        }
    }

    fn hear(&mut self, event: FeedEvent) -> Next {
        let revocations = self.revocations;
        revocations.liveness.observe(&event);
        match event {
            FeedEvent::Connected { .. } => {
                revocations.known.turn();
                self.canary.forget_sent();
                (self.connected, self.alive) = (true, Instant::now());
                // In which order things came while nobody listened is not known.
                self.dirty.values_mut().for_each(|told| *told = Told::Revoked);
                self.dirty.extend(revocations.known.pending().into_iter().map(|at| (at, Told::Revoked)));
                Next::Scan
            }
            FeedEvent::Changed(keys) => {
                keys.iter().for_each(|key| self.changed(key));
                Next::Listen
            }
            // What is remembered stays true; what was lost is written back.
            FeedEvent::Flushed => Next::Scan,
            FeedEvent::Alive(as_of) => {
                self.alive = as_of;
                Next::Listen
            }
            FeedEvent::Lost => {
                revocations.counters.lost.increment();
                self.connected = false;
                self.lose();
                Next::Stop
            }
        }
    }

    fn lose(&mut self) {
        self.revocations.liveness.end();
        self.revocations.known.turn();
    }

    fn changed(&mut self, key: &str) {
        if key == self.canary.key() {
            return self.canary.hear();
        }
        let revoked = keys::parse_revocation(keys::REVOKED, key).map(|at| (at, Told::Revoked));
        let told = revoked.or_else(|| keys::parse_revocation(keys::REINSTATED, key).map(|at| (at, Told::Reinstated)));
        if let Some(((kind, id), told)) = told {
            self.revocations.known.suspect(kind, id);
            self.dirty.insert((kind, id.into()), told);
        }
    }

    /// Reads some of what the feed told of. Gives back what could not be read, or was overtaken.
    fn read(&mut self) -> Pin<Box<dyn Future<Output = Dirty> + Send + 'a>> {
        let revocations = self.revocations;
        let some: Vec<_> = self.dirty.keys().take(BATCH).cloned().collect();
        let batch: Dirty = some.into_iter().filter_map(|at| self.dirty.remove_entry(&at)).collect();
        let canary = self.canary.take_heard();
        Box::pin(async move {
            match scan::read(revocations, &batch, canary.as_ref().map(|heard| heard.key.as_str())).await {
                Ok(overtaken) => {
                    if let Some(heard) = canary {
                        let lag = heard.sent.elapsed();
                        revocations.counters.lag.observe(lag);
                        revocations.counters.last_lag.set(lag.as_secs_f64());
                    }
                    overtaken
                }
                Err(_) => {
                    tokio::time::sleep(RETRY.mul_f64(1.0 + rand::random::<f64>())).await;
                    batch
                }
            }
        })
    }

    /// After a reading. What is left of it is read again, with whatever was told meanwhile. Says whether a feed that was
    /// not believed proved right again, so that a scan is due.
    fn has_read(&mut self, left: Dirty) -> bool {
        self.look_again(left);
        self.canary.proved()
    }

    /// What was told of it meanwhile counts more.
    fn look_again(&mut self, left: impl IntoIterator<Item = (At, Told)>) {
        for (at, told) in left {
            self.dirty.entry(at).or_insert(told);
        }
    }

    fn scan(&mut self, delay: Duration) -> Scan<'a> {
        self.scans += 1;
        let (revocations, scan) = (self.revocations, self.scans);
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            scan::scan(revocations, scan).await
        })
    }

    /// Tries again to give the store what it has lost.
    fn mend(&self, delay: Duration) -> Scan<'a> {
        let (revocations, scan) = (self.revocations, self.scans);
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            scan::mend(revocations, scan).await
        })
    }

    /// Gives what there is to do next.
    fn has_scanned(&mut self, result: Result<Scanned, StoreError>) -> Running<'a, Result<Scanned, StoreError>> {
        let first = !self.backoff.is_failing();
        let scanned = match result {
            Ok(scanned) => scanned,
            Err(error) => {
                if first {
                    tracing::warn!(%error, "reading `{}…` failed; trying again", keys::REVOKED);
                }
                let delay = self.backoff.failed();
                return Some(self.scan(delay));
            }
        };
        self.look_again(scanned.by_hand.into_iter().map(|at| (at, Told::Revoked)));
        if let Some(found) = scanned.found {
            self.knows_all(found, scanned.restored);
        }
        let Some(error) = scanned.unwritten else {
            if self.backoff.worked() {
                tracing::warn!("the store can be read, and takes what it had lost, again");
            }
            return None;
        };
        self.revocations.counters.unwritten.increment();
        if first {
            tracing::error!(%error, "the store does not take back what it has lost; known here, trying again");
        }
        let delay = self.backoff.failed();
        Some(self.mend(delay))
    }

    fn knows_all(&self, found: usize, restored: usize) {
        let revocations = self.revocations;
        revocations.scanned.store(true, Ordering::Release);
        revocations.silent.store(false, Ordering::Release);
        if self.canary.is_believed() {
            revocations.known.renew();
            revocations.liveness.begin(self.alive);
        }
        tracing::info!(found, restored, state = revocations.state().as_str(), "revocations read");
    }

    /// Sends the canary, and looks whether a refusal is over.
    fn probe(&mut self) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>> {
        let (revocations, sent) = (self.revocations, self.canary.send());
        let acknowledged = self.canary.acknowledgement();
        Box::pin(async move {
            let before = revocations.store.swap(&sent.key, sent.number.to_string().as_bytes(), Some(sent.life)).await;
            if before.is_ok() {
                acknowledged.store(true, Ordering::Release);
            }
            Probed {
                acknowledged: before.is_ok(),
                lost: before.is_ok_and(|before| sent.is_lost(before.as_deref())),
                restored: revocations.refusing.load(Ordering::Acquire) && scan::is_restored(revocations).await,
            }
        })
    }

    /// Says whether everything is to be read again.
    fn has_probed(&mut self, probed: &Probed) -> bool {
        if probed.acknowledged {
            self.canary.stands();
        }
        if probed.lost {
            tracing::error!("the store does not hold what was written to it a moment ago: everything is read again");
            self.lose();
            self.revocations.store.doubt();
        }
        probed.lost || probed.restored
    }
}

/// What became of a canary that was sent.
struct Probed {
    acknowledged: bool,
    /// The one before was not there any more.
    lost: bool,
    /// A refusal is over.
    restored: bool,
}

enum Next {
    Listen,
    Scan,
    Stop,
}

/// Waits for what is running; for ever where nothing is.
async fn wait<T>(running: &mut Running<'_, T>) -> T {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}
