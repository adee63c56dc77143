//! Words that every replica must hear, said behind the answer until the store has taken them. Bounded in number; the end of the
//! process waits for what is left.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Kind, Notices, Word};
use crate::{domain::UnixTime, store::Backoff};

/// Words that may wait at the same time.
pub(super) const WAITING: usize = 4096;
/// Attempts at one, and the shortest and the longest time between two: a quarter of an hour.
const ATTEMPTS: u32 = 200;
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// What waits to be said.
#[derive(Debug)]
pub(super) struct Insistence {
    /// Of background work: a worker's ends before the word may have been taken.
    runtime: Handle,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Insistence {
    /// Within a runtime that outlives those who say something.
    pub(super) fn new(stop: CancellationToken) -> Self {
        let (runtime, tasks) = (Handle::current(), TaskTracker::new());
        Self { runtime, tasks, places: Arc::new(Semaphore::new(WAITING)), stop }
    }
}

impl Notices {
    /// As [`Self::say`], behind the caller's back and until the store has taken it: a word that only one replica knows of would
    /// be none. Where too many wait already, it is lost, and counted.
    pub fn insist(self: &Arc<Self>, (kind, id): (Kind, String), word: Word, at: UnixTime, life: Option<Duration>) {
        let Insistence { runtime, tasks, places, .. } = &self.insistence;
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            self.lose(word, "too many wait");
            return;
        };
        let notices = Arc::clone(self);
        let said = async move {
            notices.say_until_taken((kind, &id), word, at, life).await;
            drop(place);
        };
        tasks.spawn_on(said, runtime);
    }

    async fn say_until_taken(&self, of: (Kind, &str), word: Word, at: UnixTime, life: Option<Duration>) {
        let mut backoff = Backoff::between(FIRST, LONGEST);
        for _ in 0..ATTEMPTS {
            let Err(error) = self.say(of, word, at, life).await else { return };
            if !backoff.is_failing() {
                let aspect = word.aspect().as_str();
                tracing::warn!(%error, aspect, "a notice could not be told to other replicas; it is tried again");
            }
            let pause = tokio::time::sleep(backoff.failed());
            if self.insistence.stop.run_until_cancelled(pause).await.is_none() {
                // The process ends, and waits for this, but not for long.
                tokio::time::sleep(FIRST).await;
            }
        }
        self.lose(word, "tried too often");
    }

    fn lose(&self, word: Word, why: &str) {
        self.counters.lost.increment();
        tracing::error!(aspect = word.aspect().as_str(), why, "a notice was not told to other replicas");
    }

    /// Waits until nothing is left to say, after the token was cancelled. Whoever calls says how long.
    pub async fn stopped(&self) {
        self.insistence.tasks.close();
        self.insistence.tasks.wait().await;
    }
}
