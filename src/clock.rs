//! Where time comes from, so that tests can move it. Wall clock for `exp`, monotonic for lifetimes of caches.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::domain::UnixTime;

/// A wall clock. Cheap to clone; every part of one process shares the same one.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is moved.
    pub fn manual(start: UnixTime) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(start.as_millis()))))
    }

    /// Before 1970 counts as 1970.
    pub fn now(&self) -> UnixTime {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                UnixTime::EPOCH.plus(since)
            }
            Source::Manual(millis) => UnixTime::from_millis(millis.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock to `time`, forward or back. A system clock is left alone.
    pub fn set(&self, time: UnixTime) {
        if let Source::Manual(millis) = &self.0 {
            millis.store(time.as_millis(), Ordering::Release);
        }
    }

    /// Moves a manual clock forward.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().plus(span));
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
