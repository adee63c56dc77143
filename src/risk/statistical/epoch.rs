//! Decay without clocks: what is learned later weighs more, so nothing has to be rewritten as time passes.
//!
//! A count is an integer in units of 1/16 whose weight grows with the day of a 30-day generation
//! (2^(day/30)). Adding commutes, so replicas may add each other's deltas in any order and agree.
//! When a generation ends every count halves: that is the half-life of 30 days.

/// Seconds in a day.
pub const DAY: f64 = 86_400.0;
/// Units of one full observation on the first day of a generation.
pub const UNITS: f64 = 16.0;
/// Days in a generation, which is also the half-life of what is learned.
pub const GENERATION_DAYS: u32 = 30;

/// A day, and the 30-day generation it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Epoch {
    /// Number of the generation since 1970.
    pub generation: u16,
    /// Day within the generation, 0 to 29.
    pub day: u8,
}

impl Epoch {
    /// The epoch of a moment in Unix seconds.
    #[must_use]
    pub fn of(now: f64) -> Self {
        let day = (now / DAY).max(0.0) as u32;
        Self { generation: (day / GENERATION_DAYS) as u16, day: (day % GENERATION_DAYS) as u8 }
    }

    /// Units that one observation of `weight` adds today.
    #[must_use]
    pub fn units(self, weight: f64) -> u32 {
        (weight * UNITS * GROWTH[usize::from(self.day) % GROWTH.len()]).round() as u32
    }

    /// What one unit is worth today, in observations.
    #[must_use]
    pub fn worth(self) -> f64 {
        1.0 / (UNITS * GROWTH[usize::from(self.day) % GROWTH.len()])
    }
}

/// Times a count is halved when `later` follows `earlier`; nothing is left after 31.
#[must_use]
pub fn halvings(earlier: u16, later: u16) -> u32 {
    u32::from(later.saturating_sub(earlier)).min(31)
}

#[expect(clippy::approx_constant, reason = "a table of powers, one of which happens to be the root of two")]
/// 2^(day/30), spelled out so that every machine uses the same bits.
const GROWTH: [f64; 30] = [
    1.0, 1.0234, 1.0473, 1.0718, 1.0968, 1.1225, 1.1487, 1.1755, 1.2030, 1.2311, 1.2599, 1.2894, 1.3195, 1.3503,
    1.3819, 1.4142, 1.4473, 1.4811, 1.5157, 1.5511, 1.5874, 1.6245, 1.6625, 1.7013, 1.7411, 1.7818, 1.8234, 1.8661,
    1.9097, 1.9543,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_worth_half_after_thirty_days() {
        let first = Epoch::of(100.0 * 30.0 * DAY);
        let later = Epoch::of(101.0 * 30.0 * DAY);
        let units = first.units(1.0) >> halvings(first.generation, later.generation);
        assert!((f64::from(units) * later.worth() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn decay_is_smooth_within_a_generation() {
        for day in 0..29 {
            let (today, tomorrow) = (Epoch { generation: 5, day }, Epoch { generation: 5, day: day + 1 });
            let kept = tomorrow.worth() / today.worth();
            assert!((kept - 0.977).abs() < 0.002, "day {day}: {kept}");
        }
    }
}
