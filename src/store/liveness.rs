//! Whether a feed may be believed right now. Fed with its events by a listener, asked on every check.
//!
//! Must never say "live" of a feed that has said nothing for longer than its patience: a server that hangs, a cable that
//! is cut, or a process of ours that was paused all look like nothing happening.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::FeedEvent;

/// Atomics only: reading costs two loads and a clock.
#[derive(Debug)]
pub struct Liveness {
    base: Instant,
    /// Until when the feed may be believed, in microseconds after `base`; 0: not at all.
    until: AtomicU64,
    patience: AtomicU64,
    /// The last sign of life of a live feed, in microseconds after `base`; 0: none yet. It outlives the feed's end.
    heard: AtomicU64,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            base: Instant::now(),
            until: AtomicU64::new(0),
            patience: AtomicU64::new(u64::MAX),
            heard: AtomicU64::new(0),
        }
    }
}

impl Liveness {
    /// Takes note of a connection's patience, and of its end. Being connected is not being live: the listener says
    /// when it has caught up, with [`Self::begin`].
    pub fn observe(&self, event: &FeedEvent) {
        match event {
            FeedEvent::Connected { patience, .. } => {
                self.end();
                self.patience.store(patience.map_or(u64::MAX, micros), Ordering::Release);
            }
            FeedEvent::Lost => self.end(),
            FeedEvent::Alive(as_of) => {
                let until = self.reach(*as_of);
                // Only a feed that is live is prolonged.
                let prolonged = self
                    .until
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| (old != 0).then_some(old.max(until)));
                if prolonged.is_ok() {
                    self.hear(*as_of);
                }
            }
            FeedEvent::Changed(_) | FeedEvent::Flushed => {}
        }
    }

    /// The listener knows all there was at `as_of`: live from here on.
    pub fn begin(&self, as_of: Instant) {
        self.hear(as_of);
        self.until.store(self.reach(as_of), Ordering::Release);
    }

    /// Whether all there was less than `limit` ago had been heard of. What is told after a feed's last sign of life is not.
    pub fn heard_within(&self, limit: Duration) -> bool {
        match self.heard.load(Ordering::Acquire) {
            0 => false,
            heard => self.offset(Instant::now()).saturating_sub(heard) < micros(limit),
        }
    }

    fn hear(&self, as_of: Instant) {
        self.heard.fetch_max(self.offset(as_of).max(1), Ordering::AcqRel);
    }

    /// Nothing is believed until the next [`Self::begin`].
    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// The moment that all is known for: the last sign of life, or now where the feed cannot go silent.
    pub fn as_of(&self) -> Instant {
        let (until, patience) = (self.until.load(Ordering::Acquire), self.patience.load(Ordering::Acquire));
        if until == u64::MAX || patience == u64::MAX {
            return Instant::now();
        }
        self.base + Duration::from_micros(until.saturating_sub(patience))
    }

    /// As [`Self::as_of`] of a live feed, and of one that was live; `None`: none has been.
    pub fn last_heard(&self) -> Option<Instant> {
        if self.is_live() {
            return Some(self.as_of());
        }
        let heard = self.heard.load(Ordering::Acquire);
        (heard != 0).then(|| self.base + Duration::from_micros(heard))
    }

    pub fn is_live(&self) -> bool {
        self.is_live_at(Instant::now)
    }

    fn is_live_at(&self, now: impl FnOnce() -> Instant) -> bool {
        match self.until.load(Ordering::Acquire) {
            0 => false,
            u64::MAX => true,
            until => self.offset(now()) < until,
        }
    }

    fn reach(&self, as_of: Instant) -> u64 {
        match self.patience.load(Ordering::Acquire) {
            u64::MAX => u64::MAX,
            patience => self.offset(as_of).saturating_add(patience).max(1),
        }
    }

    fn offset(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.base))
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(250);

    #[test]
    fn a_feed_that_says_nothing_is_not_believed_for_longer_than_its_patience() {
        let (liveness, start) = (Liveness::default(), Instant::now());
        liveness.observe(&FeedEvent::Connected { epoch: 1, patience: Some(PATIENCE) });
        liveness.observe(&FeedEvent::Alive(start));
        assert!(!liveness.is_live(), "connected, and not scanned");
        liveness.begin(start);
        assert!(liveness.is_live_at(|| start));
        assert!(!liveness.is_live_at(|| start + PATIENCE));
        liveness.observe(&FeedEvent::Alive(start + PATIENCE));
        assert!(liveness.is_live_at(|| start + PATIENCE), "a late answer proves that nothing was missed");
    }

    #[test]
    fn a_sign_of_life_does_not_bring_back_a_lost_feed() {
        let (liveness, start) = (Liveness::default(), Instant::now());
        liveness.observe(&FeedEvent::Connected { epoch: 1, patience: None });
        liveness.begin(start);
        assert!(liveness.is_live_at(|| start + Duration::from_secs(3600)), "a feed in this process cannot go silent");
        liveness.observe(&FeedEvent::Lost);
        liveness.observe(&FeedEvent::Alive(start));
        assert!(!liveness.is_live());
    }
}
