//! The fleet: devices found by what is known of them, and counted.
//!
//! Never on the way of a check. Reads are bounded a page at a time, so that a million records hold nobody up.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::{Counters, Devices, seen::LAST_SEEN};
use crate::{
    domain::{
        DeviceEvidence, DeviceId, DeviceRecord, TrustScore, UnixTime,
        metric::{Page, Source},
    },
    store::{StoreError, StoreErrorKind, keys},
    trust::device::{self as trust, State},
};

/// Records that one step of a count reads at once, and the pause after it: checks go first.
const STEP: usize = 100;
const PAUSE: Duration = Duration::from_millis(4);

/// Ids and records of one page, and the cursor of the next.
pub type DevicePage = (Vec<(DeviceId, DeviceRecord)>, Option<String>);

/// What is looked for. Empty: everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub user: Option<String>,
    pub state: Option<State>,
    pub compliant: Option<bool>,
    pub id_prefix: String,
    /// Last seen before then, or never.
    pub seen_before: Option<UnixTime>,
    /// Last seen at or after then.
    pub seen_after: Option<UnixTime>,
}

/// A device with what follows from its record.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: DeviceId,
    pub record: DeviceRecord,
    pub state: State,
    pub trust: TrustScore,
    pub lines: trust::Lines,
    pub last_seen: Option<UnixTime>,
    pub posture_stale: bool,
}

/// How many devices there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Census {
    pub counted: UnixTime,
    pub devices: u64,
    pub by_state: BTreeMap<String, u64>,
    /// `compliant`, `not_compliant`, `unknown`.
    pub by_compliance: BTreeMap<String, u64>,
    pub malformed: u64,
}

impl Devices {
    /// Devices whose id begins with `prefix`. Records that cannot be read are left out, and counted.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn list(&self, prefix: &str, cursor: &str, count: usize) -> Result<DevicePage, StoreError> {
        let (found, next) = self.store.scan(&keys::device(prefix), cursor, count).await?;
        let (devices, malformed) = self.records(&found).await?;
        self.counters.malformed.add(malformed);
        Ok((devices, next))
    }

    /// The records at these keys, some at a time, and how many of them cannot be read.
    async fn records(&self, keys: &[String]) -> Result<(Vec<(DeviceId, DeviceRecord)>, u64), StoreError> {
        let ids: Vec<DeviceId> = keys.iter().filter_map(|key| key.strip_prefix(keys::DEVICE)).map(Into::into).collect();
        let (mut records, mut malformed) = (Vec::with_capacity(ids.len()), 0);
        for ids in ids.chunks(STEP) {
            let read = join_all(ids.iter().map(|id| self.get(id))).await;
            for (id, record) in ids.iter().zip(read) {
                match record {
                    Ok(Some(record)) => records.push((id.clone(), record)),
                    Ok(None) => {}
                    Err(error) if error.kind == StoreErrorKind::Malformed => malformed += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((records, malformed))
    }

    /// A page of devices that match, of about `count` records looked at, and the cursor of the next.
    ///
    /// # Errors
    ///
    /// The store's. Records that cannot be read are left out, and counted.
    pub async fn search(
        &self,
        filter: &Filter,
        cursor: &str,
        count: usize,
    ) -> Result<(Vec<Found>, Option<String>), StoreError> {
        let (devices, next) = self.list(&filter.id_prefix, cursor, count).await?;
        let mut matching: Vec<Found> = devices.into_iter().filter_map(|found| self.found(found, filter)).collect();
        for found in matching.chunks_mut(STEP) {
            let seen = join_all(found.iter().map(|found| self.last_seen(&found.id))).await;
            for (found, seen) in found.iter_mut().zip(seen) {
                found.last_seen = seen?;
            }
        }
        matching.retain(|found| filter.is_of_then(found.last_seen));
        Ok((matching, next))
    }

    /// A device as the fleet view has it, but for when it was seen; `None`: it is not looked for.
    fn found(&self, (id, record): (DeviceId, DeviceRecord), filter: &Filter) -> Option<Found> {
        let now = self.clock.now();
        let evidence = self.evidence(&record, now);
        let state = trust::state(&record, evidence.posture_stale, now);
        let user = filter.user.as_deref();
        let wanted = user.is_none_or(|user| record.user.as_ref().is_some_and(|owner| owner.as_str() == user))
            && filter.state.is_none_or(|wanted| wanted == state)
            && (filter.compliant.is_none() || filter.compliant == record.compliant);
        wanted.then(|| Found {
            id,
            state,
            trust: trust::score(&record, evidence, now),
            lines: trust::lines(&record, evidence, now),
            last_seen: None,
            posture_stale: evidence.posture_stale,
            record,
        })
    }

    fn evidence(&self, record: &DeviceRecord, now: UnixTime) -> DeviceEvidence {
        let (posture_age, posture_stale) = record.posture_age(now, self.posture_max_age);
        DeviceEvidence { posture_age, posture_stale, ..DeviceEvidence::default() }
    }

    /// When a request last came from the device, as far as that was written behind. What cannot be read is not known.
    async fn last_seen(&self, id: &DeviceId) -> Result<Option<UnixTime>, StoreError> {
        match self.store.record(&keys::device_seen(id.as_str()), &[LAST_SEEN]).await {
            Ok(fields) => {
                let seconds = fields.into_iter().flatten().find_map(|(_, value)| value.trim().parse().ok());
                Ok(seconds.map(UnixTime::from_secs))
            }
            Err(error) if error.kind == StoreErrorKind::Malformed => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the last count found, here or elsewhere.
    pub fn census(&self) -> Option<Arc<Census>> {
        self.census.load_full()
    }

    /// Counts when it is this replica's turn, and takes over what others counted.
    pub(super) async fn keep_counting(&self, interval: Duration) {
        let often = (interval / 4).clamp(Duration::from_millis(500), Duration::from_secs(60));
        loop {
            if let Err(error) = self.count_in_turn(interval).await {
                tracing::debug!(%error, "the fleet could not be counted");
            }
            tokio::time::sleep(often).await;
        }
    }

    async fn count_in_turn(&self, interval: Duration) -> Result<(), StoreError> {
        if self.store.create(keys::CENSUS_TURN, b"1", Some(interval)).await? {
            let census = self.count().await?;
            if let Ok(text) = serde_json::to_vec(&census) {
                self.store.write(keys::CENSUS, &text, Some(interval * 4)).await?;
            }
        }
        let found = self.store.read(&[keys::CENSUS.to_owned()]).await?;
        if let Some(Ok(Some(held))) = found.into_iter().next()
            && let Ok(census) = serde_json::from_slice::<Census>(&held.value)
        {
            self.census.store(Some(Arc::new(census)));
        }
        Ok(())
    }

    async fn count(&self) -> Result<Census, StoreError> {
        let now = self.clock.now();
        let mut census = Census { counted: now, ..Census::default() };
        let mut cursor = String::new();
        loop {
            let (found, next) = self.store.scan(keys::DEVICE, &cursor, STEP).await?;
            let (devices, malformed) = self.records(&found).await?;
            census.malformed += malformed;
            for (_, record) in &devices {
                census.add(record, self.evidence(record, now).posture_stale, now);
            }
            match next {
                Some(next) => cursor = next,
                None => return Ok(census),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Filter {
    fn is_of_then(&self, last_seen: Option<UnixTime>) -> bool {
        self.seen_before.is_none_or(|time| last_seen.is_none_or(|seen| seen < time))
            && self.seen_after.is_none_or(|time| last_seen.is_some_and(|seen| seen >= time))
    }
}

impl Census {
    fn add(&mut self, record: &DeviceRecord, stale: bool, now: UnixTime) {
        self.devices += 1;
        let state = trust::state(record, stale, now).as_str();
        *self.by_state.entry(state.to_owned()).or_default() += 1;
        let compliance = match record.compliant {
            Some(true) => "compliant",
            Some(false) => "not_compliant",
            None => "unknown",
        };
        *self.by_compliance.entry(compliance.to_owned()).or_default() += 1;
    }
}

impl Source for Devices {
    fn collect(&self, page: &mut Page) {
        self.counters.collect(page);
        self.seen.collect(page);
        let Some(census) = self.census() else { return };
        for state in State::ALL {
            let count = census.by_state.get(state.as_str()).copied().unwrap_or_default();
            let labels = [("state", state.as_str())];
            page.gauge("countersign_devices", "Registered devices by state, as last counted", &labels, count as f64);
        }
        for compliance in ["compliant", "not_compliant", "unknown"] {
            let count = census.by_compliance.get(compliance).copied().unwrap_or_default();
            const HELP: &str = "Registered devices by compliance, as last counted";
            page.gauge("countersign_device_compliance", HELP, &[("compliance", compliance)], count as f64);
        }
        const MALFORMED: &str = "Device records that cannot be read, as last counted";
        page.gauge("countersign_devices_malformed", MALFORMED, &[], census.malformed as f64);
    }
}

impl Source for Counters {
    fn collect(&self, page: &mut Page) {
        const NAME: &str = "countersign_device_lookups";
        const HELP: &str = "Look-ups of device records, by where the answer came from";
        for (outcome, counter) in [
            ("memory", &self.hits),
            ("store", &self.misses),
            ("store_error", &self.store_errors),
            ("malformed", &self.malformed),
        ] {
            page.counter(NAME, HELP, &[("outcome", outcome)], counter);
        }
        page.counter(
            "countersign_device_evictions",
            "Device records forgotten because they changed",
            &[],
            &self.evictions,
        );
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        clock::Clock,
        device::{Certificates, Settings},
        store::{Store, memory::Memory},
    };

    #[tokio::test]
    async fn a_page_of_many_steps_is_whole_whoever_asks_for_it() {
        let store: Arc<dyn Store> = Arc::new(Memory::new(|| UnixTime::EPOCH));
        let certificates = Certificates::new(&[], None, None).unwrap();
        let (clock, cancel) = (Clock::manual(UnixTime::from_secs(1_000)), CancellationToken::new());
        let devices = Devices::start(Arc::clone(&store), &Settings::default(), certificates, clock, cancel);
        for i in 0..STEP * 2 + 1 {
            let user = if i % 2 == 0 { "alice" } else { "bob" };
            store.write_record(&keys::device(&format!("d{i}")), &[("user", user)], &[]).await.unwrap();
        }
        store.write_record(&keys::device("dx"), &[("compliant", "maybe")], &[]).await.unwrap();
        store.write_record(&keys::device_seen("d4"), &[(LAST_SEEN, "500")], &[]).await.unwrap();
        let (listed, next) = devices.list("d", "", 1000).await.unwrap();
        assert_eq!((listed.len(), next, devices.counters.malformed.get()), (STEP * 2 + 1, None, 1));
        let search = async |filter: Filter| devices.search(&filter, "", 1000).await.unwrap().0;
        let alices = Filter { user: Some("alice".into()), ..Filter::default() };
        assert_eq!(search(alices.clone()).await.len(), STEP + 1);
        let time = Some(UnixTime::from_secs(500));
        let seen = search(Filter { seen_after: time, ..alices.clone() }).await;
        assert_eq!(seen.iter().map(|found| (found.id.as_str(), found.last_seen)).collect::<Vec<_>>(), [("d4", time)]);
        assert_eq!(search(Filter { seen_before: time, ..alices }).await.len(), STEP);
    }
}
