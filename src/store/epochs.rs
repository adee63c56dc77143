//! Connections of a feed as those see them who keep what they have read: what was read during an earlier one is read again,
//! and is the last resort until then, as if that connection had only fallen silent.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Liveness;

/// Of how many it is known until when they told of changes.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub struct Epochs {
    current: AtomicU64,
    /// Earlier ones, and until when each told of every change.
    ended: Mutex<VecDeque<(u64, Instant)>>,
}

impl Epochs {
    /// The present one; 0 before the first.
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Another begins. The one before told of every change until `heard`; `None`: what was read in it is no last resort.
    pub fn turn(&self, heard: Option<Instant>) {
        let mut ended = self.ended.lock();
        let before = self.current.fetch_add(1, Ordering::AcqRel);
        ended.extend(heard.map(|heard| (before, heard)));
        if ended.len() > KEPT {
            ended.pop_front();
        }
    }

    /// Whether `epoch` told of changes until less than `limit` ago; of the present one `liveness` knows.
    pub fn heard_within(&self, epoch: u64, limit: Duration, liveness: &Liveness) -> bool {
        let ended = self.ended.lock();
        if epoch == self.current() {
            return liveness.heard_within(limit);
        }
        ended.iter().any(|(of, heard)| *of == epoch && heard.elapsed() < limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_connection_told_of_counts_from_when_it_was_heard_last() {
        let (epochs, liveness, second) = (Epochs::default(), Liveness::default(), Duration::from_secs(1));
        epochs.turn(None);
        assert!(!epochs.heard_within(0, second, &liveness) && !epochs.heard_within(1, second, &liveness));
        liveness.begin(Instant::now());
        assert!(epochs.heard_within(1, 60 * second, &liveness));
        epochs.turn(Instant::now().checked_sub(2 * second));
        assert!(epochs.current() == 2 && epochs.heard_within(2, 60 * second, &liveness));
        assert!(epochs.heard_within(1, 60 * second, &liveness) && !epochs.heard_within(1, second, &liveness));
        epochs.turn(None);
        assert!(!epochs.heard_within(2, 60 * second, &liveness), "everything was flushed");
    }
}
