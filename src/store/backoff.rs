//! When to try again what has failed: soon at first, then seldom, and never at the same moment as other replicas.

use std::time::Duration;

use backon::ExponentialBuilder;

/// One answer that is late must not be the end of a scan over a million keys: its page is asked for again.
pub fn patience() -> ExponentialBuilder {
    let (first, longest) = (Duration::from_millis(20), Duration::from_millis(500));
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).with_max_times(5).with_jitter()
}

/// Failures in a row, and the waits between them: doubling.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    first: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::between(Duration::from_millis(50), Duration::from_secs(2))
    }
}

impl Backoff {
    pub const fn between(first: Duration, longest: Duration) -> Self {
        Self { failures: 0, first, longest }
    }

    /// It has failed: how long to wait.
    pub fn failed(&mut self) -> Duration {
        let pause = self.pause();
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// How long to wait after as many failures as there were.
    pub fn pause(&self) -> Duration {
        let ceiling = self.first.saturating_mul(1 << self.failures.min(6)).min(self.longest);
        ceiling.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// It worked. Says whether it had failed before.
    pub const fn worked(&mut self) -> bool {
        std::mem::replace(&mut self.failures, 0) > 0
    }

    pub const fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_seldom_and_no_two_replicas_keep_step() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(500));
        let mut backoff = Backoff::between(first, longest);
        let waits: Vec<Duration> = (0..100).map(|_| backoff.failed()).collect();
        assert!(waits[0] <= first && waits[20..].iter().all(|wait| *wait >= longest / 2 && *wait <= longest));
        assert!(waits[20] != waits[21] && backoff.worked() && !backoff.worked());
        assert!(backoff.failed() <= first);
    }
}
