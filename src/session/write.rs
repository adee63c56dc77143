//! Writing sessions: in the background, from two bounded queues. What others must know goes first and is tried again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Sessions, Visit, live::Live, record::Session};
use crate::{
    domain::UnixTime,
    store::{Backoff, StoreError, StoreErrorKind, keys},
};

/// Writes under way at the same time.
const AT_ONCE: usize = 64;
/// Before a failed write of what others must know is tried again: at first, and at the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// How often the end of the process waits for a store that does not take it.
const LAST_ATTEMPTS: u32 = 3;
/// How often a record is read again because another replica wrote it meanwhile.
const ROUNDS: u32 = 8;
/// How long the mark stands that tells other replicas to read again.
const MARK_LIFE: Duration = Duration::from_secs(60);
/// How long a question that was put to a subject in a context is carried over to a new session there.
const CARRIED: Duration = Duration::from_secs(900);

/// One write.
#[derive(Clone, Debug)]
pub(super) enum Job {
    Record { live: Arc<Live>, tell: bool },
    Challenge { key: String, at: UnixTime },
}

impl Sessions {
    pub(super) fn write_behind(&self, live: &Arc<Live>) {
        if self.behind.try_send(Job::Record { live: Arc::clone(live), tell: false }).is_err() {
            self.counters.dropped.increment();
        }
    }

    pub(super) fn write_at_once(&self, live: &Arc<Live>) {
        self.send(Job::Record { live: Arc::clone(live), tell: true });
    }

    /// Keeps for the subject that it was asked in this context.
    pub(super) fn carry(&self, visit: &Visit, at: UnixTime) {
        self.send(Job::Challenge { key: visit.context.challenge_key(&visit.key), at });
    }

    fn send(&self, job: Job) {
        if self.at_once.try_send(job).is_err() {
            self.counters.lost.increment();
            tracing::error!("what other replicas must know of a session found no room in the queue");
        }
    }

    /// Writes until cancelled, and then what is left.
    pub(super) async fn keep_writing(
        &self,
        mut now: mpsc::Receiver<Job>,
        mut later: mpsc::Receiver<Job>,
        cancel: CancellationToken,
    ) {
        let (mut failed, mut batch) = (VecDeque::new(), Vec::with_capacity(AT_ONCE));
        // Kept from turn to turn, and before what is new: steady traffic does not put it off.
        let (mut again, mut backoff) = (None, Backoff::between(AGAIN.0, AGAIN.1));
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = due(again) => {
                    let count = failed.len().min(AT_ONCE);
                    batch.extend(failed.drain(..count));
                    again = None;
                }
                Some(job) = now.recv() => batch.push(job),
                Some(job) = later.recv() => batch.push(job),
            }
            while batch.len() < AT_ONCE
                && let Ok(job) = now.try_recv().or_else(|_| later.try_recv())
            {
                batch.push(job);
            }
            let refused = self.write_all(&mut batch, &mut failed).await;
            if let Some(error) = refused.as_ref().filter(|_| !backoff.is_failing()) {
                tracing::warn!(%error, "what other replicas must know of sessions is not written; trying again");
            }
            if failed.is_empty() {
                backoff.worked();
            } else if again.is_none() {
                let pause = refused.map_or(Duration::ZERO, |_| backoff.failed());
                again = Some(Instant::now() + pause);
            }
        }
        while let Ok(job) = now.try_recv().or_else(|_| later.try_recv()) {
            batch.push(job);
        }
        batch.extend(failed.drain(..));
        self.write_all(&mut batch, &mut failed).await;
        for _ in 1..LAST_ATTEMPTS {
            if failed.is_empty() {
                return;
            }
            tokio::time::sleep(AGAIN.0).await;
            batch.extend(failed.drain(..));
            self.write_all(&mut batch, &mut failed).await;
        }
        if failed.is_empty() {
            return;
        }
        self.counters.lost.add(failed.len() as u64);
        tracing::error!(lost = failed.len(), "the store did not take what other replicas must know of sessions");
    }

    /// Gives why what is to be tried again has failed, if any of it has.
    async fn write_all(&self, batch: &mut Vec<Job>, failed: &mut VecDeque<Job>) -> Option<StoreError> {
        let mut results = Vec::with_capacity(batch.len());
        for some in batch.chunks(AT_ONCE) {
            results.extend(join_all(some.iter().map(|job| self.write(job))).await);
        }
        let mut refused = None;
        for (job, result) in batch.drain(..).zip(results) {
            let Err(error) = result else { continue };
            self.counters.failed.increment();
            if matches!(job, Job::Record { tell: false, .. }) {
                continue;
            }
            // Whatever a store refuses now (no room, a disk that is full) it may take later.
            if error.kind == StoreErrorKind::Malformed || failed.len() >= self.settings.queue {
                self.counters.lost.increment();
            } else {
                failed.push_back(job);
                refused = Some(error);
            }
        }
        refused
    }

    async fn write(&self, job: &Job) -> Result<(), StoreError> {
        match job {
            Job::Challenge { key, at } => {
                // From when it was asked, not from when the store took it.
                let left = CARRIED.saturating_sub(self.clock.now().since(*at));
                if left < Duration::from_secs(1) {
                    return Ok(());
                }
                let value = at.as_millis().to_string();
                self.store.create(key, value.as_bytes(), Some(left)).await.map(drop)
            }
            Job::Record { live, tell } => self.write_record(live, *tell).await,
        }
    }

    /// Reads, takes in what others wrote, and writes, unless one of them has written since: then once more. What one
    /// replica knows is never lost to another's silence, nor to its haste.
    pub(super) async fn write_record(&self, live: &Live, tell: bool) -> Result<(), StoreError> {
        let text = live.key.text();
        let key = keys::session(&text);
        let mut rounds = 0;
        while !self.write_once(live, &key).await? {
            rounds += 1;
            if rounds == ROUNDS {
                return Err(StoreError::new(StoreErrorKind::Timeout, "others write the session all the while"));
            }
        }
        self.counters.written.increment();
        if tell {
            let now = self.clock.now().as_millis().to_string();
            self.store.write(&keys::session_mark(&text), now.as_bytes(), Some(MARK_LIFE)).await?;
        }
        Ok(())
    }

    /// Says whether it was written.
    async fn write_once(&self, live: &Live, key: &str) -> Result<bool, StoreError> {
        let held = self.store.read(&[key.to_owned()]).await?.pop().transpose()?.flatten();
        let keep = self.settings.keep.get();
        let Some(held) = held else {
            let value = live.with(|held| held.session.render());
            return self.store.create(key, &value, Some(keep)).await;
        };
        let theirs = Session::parse(&held.value);
        live.merge(theirs.ok_or_else(|| StoreError::new(StoreErrorKind::Malformed, "not a session"))?);
        let value = live.with(|held| held.session.render());
        self.store.replace(key, &held.value, &value, keep).await
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
