//! How long an answer is believed, and from when on it is asked for again ahead of its end.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{clock::Clock, domain::UnixTime};

/// Of an answer that was asked for at a moment. By two clocks, whichever ends it first: the wall clock alone would stretch it
/// with a step back, and the other stands still while the machine sleeps.
#[derive(Debug)]
pub(super) struct Life {
    began: Moment,
    span: Duration,
    /// When the next question ahead of the end is due, in milliseconds.
    due: AtomicU64,
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub wall: UnixTime,
    pub steady: Instant,
}

impl Moment {
    pub(super) fn of(clock: &Clock) -> Self {
        Self { wall: clock.now(), steady: clock.instant() }
    }
}

/// Where in its life an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Good,
    /// Good, and it is time to ask again.
    Due,
    Over,
}

impl Life {
    pub(super) fn new(began: Moment, span: Duration) -> Self {
        Self { began, span, due: AtomicU64::new(millis(span) / 5 * 4) }
    }

    pub(super) fn stage(&self, now: Moment) -> Stage {
        let age = now.steady.saturating_duration_since(self.began.steady);
        if age >= self.span || now.wall >= self.until() {
            Stage::Over
        } else if millis(age) >= self.due.load(Ordering::Relaxed) {
            Stage::Due
        } else {
            Stage::Good
        }
    }

    /// Says to one of those for whom it is due that it is theirs to ask; to the next a tenth of the life later.
    pub(super) fn claim(&self, now: Moment) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        let age = millis(now.steady.saturating_duration_since(self.began.steady));
        let next = age.saturating_add(millis(self.span) / 10);
        age >= due && self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Its end by the wall clock.
    pub(super) fn until(&self) -> UnixTime {
        self.began.wall.plus(self.span)
    }

    /// How much of it is left.
    pub(super) fn left(&self, now: Moment) -> Duration {
        self.span.saturating_sub(now.steady.saturating_duration_since(self.began.steady))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_four_fifths_on_one_is_to_ask_again_and_at_the_end_all_are() {
        let clock = Clock::manual(UnixTime::from_secs(1000));
        let life = Life::new(Moment::of(&clock), Duration::from_secs(10));
        let stage = || life.stage(Moment::of(&clock));
        clock.advance(Duration::from_millis(7999));
        assert_eq!(stage(), Stage::Good);
        clock.advance(Duration::from_millis(1));
        assert_eq!(stage(), Stage::Due);
        assert!(life.claim(Moment::of(&clock)));
        assert_eq!(stage(), Stage::Good, "the others need not");
        clock.advance(Duration::from_secs(1));
        assert_eq!(stage(), Stage::Due, "once more, should that have failed");
        clock.advance(Duration::from_secs(1));
        assert_eq!(stage(), Stage::Over);
    }

    #[test]
    fn a_step_of_the_clock_may_end_it_and_never_stretches_it() {
        let clock = Clock::manual(UnixTime::from_secs(1000));
        let life = Life::new(Moment::of(&clock), Duration::from_secs(10));
        let stage = || life.stage(Moment::of(&clock));
        clock.set(UnixTime::from_secs(1010));
        assert_eq!(stage(), Stage::Over);
        clock.set(UnixTime::from_secs(10));
        assert_eq!(stage(), Stage::Good);
        clock.advance(Duration::from_secs(10));
        assert_eq!(stage(), Stage::Over);
    }
}
