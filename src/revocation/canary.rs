//! Measures how long a change takes to come round, and notices a feed that claims to be alive and tells nothing, and a
//! store that does not hold the last one any more: a copy of its data was put in its place (`SWAPDB`), or older data.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::store::keys;

/// How long one stays in the store at least.
const LIFE: Duration = Duration::from_secs(60);

pub(super) struct Canary {
    key: String,
    interval: Duration,
    /// Counts them. Each says its number.
    number: u64,
    /// The last that the store acknowledged, and when: it or a later one has to stand there.
    stands: Option<(u64, Instant)>,
    /// When the one in the air was sent.
    sent: Option<Instant>,
    /// The store acknowledged it: if the feed does not tell of it, the feed is deaf.
    acknowledged: Arc<AtomicBool>,
    heard: Option<Instant>,
    /// The feed missed one, and has not told of a later one yet.
    deaf: bool,
    proved: bool,
}

/// What to write.
pub(super) struct Sent {
    pub(super) key: String,
    pub(super) number: u64,
    pub(super) life: Duration,
    /// What stands there has to be this or more. `None`: nobody knows.
    stands: Option<u64>,
}

impl Sent {
    /// Whether the store does not hold what it held.
    pub(super) fn is_lost(&self, before: Option<&[u8]>) -> bool {
        let before = before.and_then(|before| std::str::from_utf8(before).ok()?.parse::<u64>().ok());
        self.stands.is_some_and(|stands| before.is_none_or(|before| before < stands))
    }
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
            number: 0,
            stands: None,
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

    /// One more into the air. One that has not come round yet keeps its time.
    pub(super) fn send(&mut self) -> Sent {
        if !(self.sent.is_some() && self.acknowledged.load(Ordering::Acquire)) {
            self.sent = Some(Instant::now());
            self.acknowledged = Arc::default();
        }
        self.number += 1;
        let life = LIFE.max(self.interval.saturating_mul(3));
        // One that could have ended by now says nothing.
        let stands = self.stands.filter(|(_, at)| at.elapsed() < life / 2).map(|(number, _)| number);
        Sent { key: self.key.clone(), number: self.number, life, stands }
    }

    /// The store acknowledged the last one.
    pub(super) fn stands(&mut self) {
        self.stands = Some((self.number, Instant::now()));
    }

    pub(super) fn acknowledgement(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.acknowledged)
    }

    /// Of what was sent before the feed's connection, it need not tell.
    pub(super) const fn forget_sent(&mut self) {
        self.sent = None;
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
