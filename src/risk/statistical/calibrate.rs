//! Where a tenant's lines lie: from nats to 0–10, by the highest scores of its own legitimate sessions.
//!
//! Constants until there is a week and 10,000 sessions to learn from. After that the step-up line is where the
//! budget of challenges per user and day is met. A quantile can be pushed by whoever makes many sessions, so a
//! subject has a few votes a day, failed and refused sessions have none, and neither line leaves its bounds.

use serde::{Deserialize, Serialize};

use super::epoch;

/// The lines of the score, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lines {
    /// At or over: a challenge (risk 5).
    pub step: f64,
    /// At or over: a refusal (risk 8), which no challenge buys off.
    pub deny: f64,
}

impl Lines {
    /// Risk from 0 to 10: 5 at the step-up line, 8 at the refusal line.
    #[must_use]
    pub fn risk(&self, score: f64) -> f64 {
        (5.0 + 3.0 * (score - self.step) / (self.deny - self.step)).clamp(0.0, 10.0)
    }
}

/// How lines are found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Lines until there is enough to learn from.
    pub initial: Lines,
    /// Challenges per user and day that are worth their trouble.
    pub challenges: f64,
    /// Refusals per user and day.
    pub refusals: f64,
    /// How far under its initial value the step-up line may be moved, and how far over it.
    pub slack: (f64, f64),
}

impl Calibration {
    /// Whether lines lie within the bounds that calibration keeps.
    #[must_use]
    pub fn allows(&self, lines: Lines) -> bool {
        let (under, over) = self.slack;
        let Lines { step, deny } = self.initial;
        let gap = (deny - step).min(APART);
        (step - under..=step + over).contains(&lines.step) && (lines.step + gap..=deny + over).contains(&lines.deny)
    }
}

/// Seconds of observation before the constants are left.
pub const OBSERVE: f64 = 7.0 * epoch::DAY;
/// Sessions before the constants are left.
pub const SESSIONS: u64 = 10_000;
/// The least distance of the two lines, in nats.
const APART: f64 = 2.5;

const BUCKETS: usize = 384;
const LOWEST: f64 = -14.0;
const WIDTH: f64 = 0.1;

/// Highest scores of sessions, as counts in buckets of 0.1 nats: sums, so replicas agree on the lines.
#[derive(Debug, Clone)]
pub struct Tops {
    counts: Vec<i64>,
    user_days: i64,
    since: f64,
    generation: u16,
}

/// [`Tops`] as they are written down: buckets in use, with their counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    counts: Vec<(u16, i64)>,
    user_days: i64,
    since: f64,
    generation: u16,
}

impl Default for Tops {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], user_days: 0, since: 0.0, generation: 0 }
    }
}

impl Tops {
    /// The bucket of a score; never 0, which stands for "not counted".
    #[must_use]
    pub fn bucket(score: f64) -> u16 {
        ((score - LOWEST) / WIDTH).clamp(1.0, (BUCKETS - 1) as f64) as u16
    }

    /// Everything.
    #[must_use]
    pub fn record(&self) -> Record {
        let counts = (0_u16..).zip(self.counts.iter().copied()).filter(|(_, count)| *count != 0).collect();
        let Self { user_days, since, generation, .. } = *self;
        Record { counts, user_days, since, generation }
    }

    /// What [`Tops::record`] told of.
    #[must_use]
    pub fn restored(record: &Record) -> Self {
        let Record { user_days, since, generation, .. } = *record;
        let mut tops = Self { user_days, since, generation, ..Self::default() };
        for (bucket, count) in &record.counts {
            if let Some(place) = tops.counts.get_mut(usize::from(*bucket)) {
                *place = *count;
            }
        }
        tops
    }

    /// Adds sessions to a bucket.
    pub fn add(&mut self, bucket: u16, amount: i32, generation: u16) {
        self.roll(generation);
        if let Some(count) = self.counts.get_mut(usize::from(bucket)) {
            *count += i64::from(amount);
        }
    }

    /// Adds days on which a user was seen.
    pub fn add_user_days(&mut self, amount: i32, generation: u16) {
        self.roll(generation);
        self.user_days += i64::from(amount);
    }

    /// Notes that somebody was seen at all: the week counts from the first time.
    pub fn observe(&mut self, now: f64) {
        if self.since == 0.0 {
            self.since = now;
        }
    }

    /// Sessions counted.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.counts.iter().map(|count| u64::try_from(*count).unwrap_or(0)).sum()
    }

    /// Sessions per bucket, with the lower edge of each bucket in nats.
    pub fn histogram(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let edge = |bucket: usize| LOWEST + WIDTH * bucket as f64;
        self.counts.iter().enumerate().map(move |(bucket, n)| (edge(bucket), u64::try_from(*n).unwrap_or(0)))
    }

    /// The lines in force.
    #[must_use]
    pub fn lines(&self, calibration: &Calibration, now: f64) -> Lines {
        let initial = calibration.initial;
        if now - self.since < OBSERVE || self.sessions() < SESSIONS {
            return initial;
        }
        let (under, over) = calibration.slack;
        let step = self.reached_by(calibration.challenges).clamp(initial.step - under, initial.step + over);
        let gap = initial.deny - initial.step;
        let deny = self.reached_by(calibration.refusals).clamp(step + gap.min(APART), initial.deny + over);
        Lines { step, deny }
    }

    /// The lowest score reached by at most `per_day` sessions per user and day.
    fn reached_by(&self, per_day: f64) -> f64 {
        let allowed = per_day * self.user_days as f64;
        let mut reached = 0.0;
        for (bucket, sessions) in self.counts.iter().enumerate().rev() {
            reached += (*sessions).max(0) as f64;
            if reached > allowed {
                return LOWEST + WIDTH * (bucket + 1) as f64;
            }
        }
        LOWEST
    }

    fn roll(&mut self, generation: u16) {
        let times = epoch::halvings(self.generation, generation);
        if times > 0 && self.generation > 0 {
            self.counts.iter_mut().for_each(|count| *count >>= times);
            self.user_days >>= times;
        }
        self.generation = self.generation.max(generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALIBRATION: Calibration =
        Calibration { initial: Lines { step: -1.0, deny: 3.0 }, challenges: 0.02, refusals: 0.001, slack: (1.0, 1.5) };
    const LATER: f64 = 1.0 + 8.0 * epoch::DAY;

    fn tops(of: impl Iterator<Item = f64>) -> Tops {
        let mut tops = Tops::default();
        tops.observe(1.0);
        for score in of {
            tops.add(Tops::bucket(score), 1, 5);
            tops.add_user_days(1, 5);
        }
        tops
    }

    #[test]
    fn the_scale_has_five_at_the_challenge_and_eight_at_the_refusal() {
        let lines = CALIBRATION.initial;
        assert_eq!((lines.risk(-1.0), lines.risk(3.0)), (5.0, 8.0));
        assert_eq!((lines.risk(-50.0), lines.risk(50.0)), (0.0, 10.0));
    }

    #[test]
    fn constants_hold_until_a_week_and_ten_thousand_sessions() {
        let many = tops((0..20_000).map(|i| f64::from(i % 100) / 50.0 - 4.0));
        assert_eq!(many.lines(&CALIBRATION, 2.0 * epoch::DAY), CALIBRATION.initial);
        assert_ne!(many.lines(&CALIBRATION, LATER), CALIBRATION.initial);
        let few = tops((0..9_000).map(|_| -4.0));
        assert_eq!(few.lines(&CALIBRATION, LATER), CALIBRATION.initial);
    }

    #[test]
    fn the_line_meets_the_budget() {
        let tops = tops((0..20_000).map(|i| if i % 100 == 0 { -0.5 } else { -5.0 }));
        let step = tops.lines(&CALIBRATION, LATER).step;
        let challenged: u64 = tops.histogram().filter(|(edge, _)| *edge >= step - 1e-9).map(|(_, n)| n).sum();
        assert!(challenged as f64 <= 0.02 * 20_000.0, "{step}: {challenged}");
    }

    #[test]
    fn no_flood_of_sessions_moves_a_line_out_of_its_bounds() {
        let high = tops((0..50_000).map(|_| 12.0)).lines(&CALIBRATION, LATER);
        assert_eq!((high.step, high.deny), (0.5, 4.5));
        let low = tops((0..50_000).map(|_| -12.0)).lines(&CALIBRATION, LATER);
        assert_eq!(low.step, -2.0);
        assert!(low.deny >= low.step + APART);
    }
}
