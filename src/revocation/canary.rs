//! Measures how long a change takes to come round, and notices a feed that claims to be alive and tells nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::store::keys;

pub(super) struct Canary {
    key: String,
    interval: Duration,
    /// When the one in the air was sent.
    sent: Option<Instant>,
    /// The store acknowledged it: if the feed does not tell of it, the feed is deaf.
    acknowledged: Arc<AtomicBool>,
    heard: Option<Instant>,
    /// The feed missed one, and has not told of a later one yet.
    deaf: bool,
    proved: bool,
}

/// A canary that came round.
pub(super) struct Heard {
    pub(super) key: String,
    pub(super) sent: Instant,
}

impl Canary {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            key: keys::lag_canary(&format!("{:016x}", rand::random::<u64>())),
            interval: interval.max(Duration::from_millis(10)),
            sent: None,
            acknowledged: Arc::default(),
            heard: None,
            deaf: false,
            proved: false,
        }
    }

    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// One more into the air: the key to write. One that has not come round yet keeps its time.
    pub(super) fn send(&mut self) -> String {
        if !(self.sent.is_some() && self.acknowledged.load(Ordering::Acquire)) {
            self.sent = Some(Instant::now());
            self.acknowledged = Arc::default();
        }
        self.key.clone()
    }

    pub(super) fn acknowledgement(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.acknowledged)
    }

    pub(super) fn hear(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.heard = Some(sent);
            self.proved = std::mem::take(&mut self.deaf);
        }
    }

    pub(super) const fn is_heard(&self) -> bool {
        self.heard.is_some()
    }

    pub(super) fn take_heard(&mut self) -> Option<Heard> {
        let key = self.key.clone();
        self.heard.take().map(|sent| Heard { key, sent })
    }

    /// The one in the air was acknowledged by the store longer than `limit` ago. True once each time.
    pub(super) fn is_deaf(&mut self, limit: Duration) -> bool {
        let late = self.acknowledged.load(Ordering::Acquire) && self.sent.is_some_and(|sent| sent.elapsed() > limit);
        if late {
            self.sent = None;
            self.deaf = true;
        }
        late
    }

    pub(super) const fn is_believed(&self) -> bool {
        !self.deaf
    }

    /// A feed that had been deaf told of a canary. True once.
    pub(super) const fn proved(&mut self) -> bool {
        std::mem::replace(&mut self.proved, false)
    }
}
