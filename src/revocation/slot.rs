//! What a token's cache entry remembers of its last revocation check.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use crate::domain::{DeviceId, UnixTime};

/// A warm check touches the slot at most this often; so a remembered time is early by as much, never late.
const GRANULARITY: Duration = Duration::from_millis(250);

/// When this token was last found not revoked. One to each token; empty at first.
#[derive(Debug, Default)]
pub struct CheckedAt(ArcSwapOption<Checked>);

#[derive(Debug)]
struct Checked {
    generation: u64,
    device: Option<DeviceId>,
    at: Instant,
    as_of: UnixTime,
}

impl CheckedAt {
    /// Whether the token, used from this device, was found clear in this generation. Only for a live feed.
    pub(super) fn is_clear(&self, generation: u64, device: Option<&DeviceId>) -> Option<UnixTime> {
        let checked = self.0.load();
        let checked = checked.as_ref()?;
        let same = checked.generation == generation && checked.device.as_ref() == device;
        // Looked at again once in a while, so that `at` is young when the store falls silent.
        (same && checked.at.elapsed() < GRANULARITY).then_some(checked.as_of)
    }

    /// Found clear: by a question that was put at `at`, or in memory, where `at` is the feed's last sign of life.
    /// INVARIANT: never later than what is known, or a token would outlive `max_staleness` by the feed's patience.
    pub(super) fn asked(&self, generation: u64, device: Option<&DeviceId>, as_of: UnixTime, at: Instant) {
        self.0.store(Some(Arc::new(Checked { generation, device: device.cloned(), at, as_of })));
    }

    /// When it was found clear, if that is not longer ago than `limit`.
    pub(super) fn within(&self, limit: Duration, device: Option<&DeviceId>) -> Option<UnixTime> {
        let checked = self.0.load();
        let checked = checked.as_ref()?;
        (checked.device.as_ref() == device && checked.at.elapsed() < limit).then_some(checked.as_of)
    }
}
