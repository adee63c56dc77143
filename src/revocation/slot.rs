//! What a token's cache entry remembers of its last revocation check.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use crate::domain::{DeviceId, UnixTime};

/// A warm check touches the slot at most this often; so a remembered time is early by as much, never late.
const GRANULARITY: Duration = Duration::from_millis(250);

/// When this token was last found not revoked: used without a device's id, and with the last one that was named. One to each
/// token; empty at first.
#[derive(Debug, Default)]
pub struct CheckedAt {
    bare: ArcSwapOption<Checked>,
    named: ArcSwapOption<Checked>,
}

#[derive(Debug)]
struct Checked {
    generation: u64,
    device: Option<DeviceId>,
    at: Instant,
    as_of: UnixTime,
}

impl CheckedAt {
    const fn of(&self, device: Option<&DeviceId>) -> &ArcSwapOption<Checked> {
        if device.is_some() { &self.named } else { &self.bare }
    }

    /// Whether the token, used from this device, was found clear in this generation. Only for a live feed.
    pub(super) fn is_clear(&self, generation: u64, device: Option<&DeviceId>) -> Option<UnixTime> {
        let checked = self.of(device).load();
        let checked = checked.as_ref()?;
        let same = checked.generation == generation && checked.device.as_ref() == device;
        // Looked at again once in a while, so that `at` is young when the store falls silent.
        (same && checked.at.elapsed() < GRANULARITY).then_some(checked.as_of)
    }

    /// Found clear: by a question that was put at `at`, or in memory, where `at` is the feed's last sign of life.
    /// INVARIANT: never later than what is known, or a token would outlive `max_staleness` by the feed's patience.
    pub(super) fn asked(&self, generation: u64, device: Option<&DeviceId>, as_of: UnixTime, at: Instant) {
        self.of(device).store(Some(Arc::new(Checked { generation, device: device.cloned(), at, as_of })));
    }

    /// When it was found clear, if that is not longer ago than `limit`.
    pub(super) fn within(&self, limit: Duration, device: Option<&DeviceId>) -> Option<UnixTime> {
        [&self.bare, &self.named].into_iter().find_map(|slot| {
            let checked = slot.load();
            let checked = checked.as_ref()?;
            // Clear with a device is clear without one.
            let same = device.is_none() || checked.device.as_ref() == device;
            (same && checked.at.elapsed() < limit).then_some(checked.as_of)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_used_in_turn_with_and_without_a_device_is_remembered_with_either() {
        let (slot, now, limit) = (CheckedAt::default(), UnixTime::from_secs(7), Duration::from_secs(60));
        let (laptop, phone) = (DeviceId::from("laptop"), DeviceId::from("phone"));
        slot.asked(1, Some(&laptop), now, Instant::now());
        assert_eq!(slot.within(limit, None), Some(now), "clear with a device is clear without one");
        assert_eq!(slot.is_clear(1, None), None);
        slot.asked(1, None, now, Instant::now());
        for device in [None, Some(&laptop)] {
            assert_eq!((slot.within(limit, device), slot.is_clear(1, device)), (Some(now), Some(now)));
            assert_eq!((slot.within(Duration::ZERO, device), slot.is_clear(2, device)), (None, None));
        }
        assert_eq!((slot.within(limit, Some(&phone)), slot.is_clear(1, Some(&phone))), (None, None));
    }
}
