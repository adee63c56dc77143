//! The generic cell rate algorithm as a pure function: one number per key, the theoretical arrival time.
//!
//! Its burst is the whole limit, and what is spent comes back evenly from the first moment: from a standing start `limit`
//! pass at once, and `limit - 1` more before the window is over. No window sees more; window after window it is `limit`.
//!
//! Redis runs the same steps in a script (`redis/scripts.rs`); the contract tests hold both to one behaviour.

use std::time::Duration;

use super::{Rate, Taken, micros};

/// Takes `count` tokens at `now` from a limiter whose theoretical arrival time is `arrival` (both in microseconds).
/// Says what was found, and the new arrival time where tokens were taken.
pub(super) fn take(arrival: Option<u64>, now: u64, rate: Rate, count: u32) -> (Taken, Option<u64>) {
    let interval = rate.interval();
    let window = interval.saturating_mul(u64::from(rate.limit));
    // A clock that was set back must not lock anybody out for longer than a whole window.
    let arrival = arrival.unwrap_or(now).clamp(now, now.saturating_add(window));
    let next = arrival.saturating_add(interval.saturating_mul(u64::from(count)));
    let limit = now.saturating_add(window);
    let (allowed, spent) = if next <= limit { (true, next) } else { (false, arrival) };
    let taken = Taken {
        allowed,
        remaining: u32::try_from(limit.saturating_sub(spent) / interval).unwrap_or(u32::MAX),
        retry_after: Duration::from_micros(if allowed {
            0
        } else if rate.limit == 0 {
            micros(rate.window)
        } else {
            next - limit
        }),
        reset: Duration::from_micros(spent - now),
    };
    (taken, (allowed && count > 0).then_some(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { limit: 4, window: Duration::from_secs(2) };

    #[test]
    fn all_at_once_then_one_each_interval() {
        let (mut arrival, now) = (None, 1_000_000_000);
        for left in (0..4).rev() {
            let (taken, next) = take(arrival, now, RATE, 1);
            assert_eq!((taken.allowed, taken.remaining), (true, left));
            arrival = next;
        }
        let (taken, next) = take(arrival, now, RATE, 1);
        assert!(!taken.allowed && next.is_none());
        assert_eq!(taken.retry_after, Duration::from_millis(500));
        assert_eq!(taken.reset, Duration::from_secs(2));
        assert!(take(arrival, now + 500_000, RATE, 1).0.allowed);
        assert!(!take(arrival, now + 499_999, RATE, 1).0.allowed);
    }

    #[test]
    fn twice_the_limit_less_one_pass_in_the_first_window_and_the_limit_in_each_after_it() {
        let (mut arrival, start) = (None, 1_000_000_000);
        let mut passed = [0; 3];
        // Somebody who asks every millisecond.
        for millis in 0..6000_u64 {
            loop {
                let (taken, next) = take(arrival, start + millis * 1000, RATE, 1);
                if !taken.allowed {
                    break;
                }
                arrival = next;
                passed[(millis / 2000) as usize] += 1;
            }
        }
        assert_eq!(passed, [7, 4, 4]);
    }

    #[test]
    fn several_are_taken_together_or_not_at_all() {
        let (taken, next) = take(None, 5_000_000, RATE, 3);
        assert_eq!((taken.allowed, taken.remaining), (true, 1));
        let (taken, none) = take(next, 5_000_000, RATE, 2);
        assert_eq!((taken.allowed, taken.remaining, none), (false, 1, None));
    }

    #[test]
    fn a_limit_of_none_lets_nobody_through_and_says_when_to_ask_again() {
        let (taken, _) = take(None, 5_000_000, Rate { limit: 0, ..RATE }, 1);
        assert_eq!((taken.allowed, taken.remaining, taken.retry_after), (false, 0, Duration::from_secs(2)));
    }

    #[test]
    fn a_clock_set_back_by_a_day_costs_one_window_at_most() {
        let (_, far) = take(None, 86_400_000_000, RATE, 4);
        assert!(take(far, 2_000_000, RATE, 1).0.retry_after <= RATE.window);
    }
}
