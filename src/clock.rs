//! Where time comes from, so that tests can move it. Wall clock for `exp` and for what is kept on a disk, monotonic for lives
//! in memory: the wall clock may step, and what was to live for an hour must neither end with a step nor outlive it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::domain::UnixTime;

/// A wall clock and a monotonic one. Cheap to clone; every part of one process shares the same one.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<Hands>),
}

/// Of a manual clock.
struct Hands {
    wall: AtomicU64,
    began: Instant,
    /// Milliseconds that have passed since.
    passed: AtomicU64,
}

impl Clock {
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is moved.
    pub fn manual(start: UnixTime) -> Self {
        let (wall, passed) = (AtomicU64::new(start.as_millis()), AtomicU64::new(0));
        Self(Source::Manual(Arc::new(Hands { wall, began: Instant::now(), passed })))
    }

    /// Before 1970 counts as 1970.
    pub fn now(&self) -> UnixTime {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                UnixTime::EPOCH.plus(since)
            }
            Source::Manual(hands) => UnixTime::from_millis(hands.wall.load(Ordering::Acquire)),
        }
    }

    /// The monotonic clock: for lives in memory.
    pub fn instant(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual(hands) => hands.began + Duration::from_millis(hands.passed.load(Ordering::Acquire)),
        }
    }

    /// What the wall clock would say, had it not stepped since this was called.
    pub fn steady(&self) -> impl Fn() -> UnixTime + Send + Sync + use<> {
        let (clock, began, base) = (self.clone(), self.instant(), self.now());
        move || base.plus(clock.instant().saturating_duration_since(began))
    }

    /// A manual clock's wall clock steps to `time`, forward or back: nothing lives longer or shorter for it. A system clock
    /// is left alone.
    pub fn set(&self, time: UnixTime) {
        if let Source::Manual(hands) = &self.0 {
            hands.wall.store(time.as_millis(), Ordering::Release);
        }
    }

    /// Lets time pass on a manual clock.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().plus(span));
        if let Source::Manual(hands) = &self.0 {
            let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            hands.passed.fetch_add(millis, Ordering::AcqRel);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Source::System => f.write_str("Clock::system"),
            Source::Manual(_) => write!(f, "Clock::manual({})", self.now().as_millis()),
        }
    }
}
