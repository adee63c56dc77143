//! When to try again what has failed: soon at first, then seldom, and never at the same moment as other replicas.

use std::time::Duration;

use backon::ExponentialBuilder;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// One answer that is late must not be the end of a scan over a million keys: its page is asked for again.
pub fn patience() -> ExponentialBuilder {
    let (first, longest) = (Duration::from_millis(20), Duration::from_millis(500));
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).with_max_times(5).with_jitter()
}

/// Failures in a row.
#[derive(Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// It has failed: how long to wait.
    pub fn failed(&mut self) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.0.min(6)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        ceiling.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// It worked. Says whether it had failed before.
    pub const fn worked(&mut self) -> bool {
        std::mem::replace(&mut self.0, 0) > 0
    }

    pub const fn is_failing(&self) -> bool {
        self.0 > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_seldom_and_no_two_replicas_keep_step() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..100).map(|_| backoff.failed()).collect();
        assert!(waits[0] <= FIRST && waits[20..].iter().all(|wait| *wait >= LONGEST / 2 && *wait <= LONGEST));
        assert!(waits[20] != waits[21] && backoff.worked() && !backoff.worked());
        assert!(backoff.failed() <= FIRST);
    }
}
