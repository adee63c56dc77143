//! How far the registry trusts a device, 0 to 1, with a line for everything that raises or lowers it. Pure.
//!
//! Begins at one half. A record that says `trust_score` itself is taken at its word: whoever wrote it decided. How a
//! request proves that it comes from the device is weighed afterwards, by the trust of the request.

use smallvec::SmallVec;

use crate::domain::{DeviceEvidence, DeviceRecord, DeviceStatus, PatchLevel, TrustScore, UnixTime};

/// Trust at enrolment.
pub const START: f64 = 0.5;
/// What evidence can make of it, at least and at most.
const LEAST: f64 = 0.1;
const MOST: f64 = 0.9;
/// How long a device bound to a key must be enrolled to count as established, in seconds: a week.
pub const ESTABLISHED_AFTER: u64 = 7 * DAY;
/// Patches older than this count against a device, in days.
const PATCH_DAYS: u64 = 30;
const DAY: u64 = 24 * 3600;

/// What raised or lowered the score, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub name: &'static str,
    pub points: f64,
}

/// Lines of one score.
pub type Lines = SmallVec<[Line; 6]>;

/// How well the registry knows a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Registered; nothing speaks for it yet but that.
    Provisional,
    /// Bound to a key, enrolled for a week, known to be compliant by a check that is not too old.
    Trusted,
    Suspended,
    Revoked,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Provisional, Self::Trusted, Self::Suspended, Self::Revoked];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisional => "provisional",
            Self::Trusted => "trusted",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// The state of a device at `now`. `stale`: its posture was checked too long ago.
pub fn state(record: &DeviceRecord, stale: bool, now: UnixTime) -> State {
    match record.status {
        DeviceStatus::Suspended => State::Suspended,
        DeviceStatus::Revoked => State::Revoked,
        DeviceStatus::Active => {
            let sound = record.compliant == Some(true) && record.jailbroken != Some(true) && !stale;
            if sound && is_established(record, now) { State::Trusted } else { State::Provisional }
        }
    }
}

/// The sum of the lines on top of [`START`], bounded; or what the record says itself.
pub fn score(record: &DeviceRecord, evidence: DeviceEvidence, now: UnixTime) -> TrustScore {
    if let Some(pinned) = record.trust_score {
        return pinned;
    }
    let sum: f64 = parts(record, evidence, now).into_iter().map(|(_, points)| points).sum();
    // Sums of decimal weights end in binary crumbs.
    TrustScore::new((((START + sum) * 1e9).round() / 1e9).clamp(LEAST, MOST))
}

/// What the score is made of beside [`START`]; nothing where the record says its score itself.
pub fn lines(record: &DeviceRecord, evidence: DeviceEvidence, now: UnixTime) -> Lines {
    if record.trust_score.is_some() {
        return Lines::new();
    }
    let parts = parts(record, evidence, now).into_iter();
    parts.filter(|(_, points)| *points != 0.0).map(|(name, points)| Line { name, points }).collect()
}

fn parts(record: &DeviceRecord, evidence: DeviceEvidence, now: UnixTime) -> [(&'static str, f64); 6] {
    // Nothing speaks for a device before it is established: what an agent says at enrolment is cheap to say.
    let established = is_established(record, now);
    let when = |seen: bool, points: f64| if seen && (established || points < 0.0) { points } else { 0.0 };
    let checked = record.checked_at.is_some() && !evidence.posture_stale && record.compliant == Some(true);
    let encrypted = record.disk_encrypted.map_or(0.0, |is| when(true, if is { 0.05 } else { -0.05 }));
    [
        ("established", when(true, 0.15)),
        ("managed", when(record.managed == Some(true), 0.10)),
        ("recently_checked", when(checked, 0.10)),
        ("disk", encrypted),
        ("patches_old", when(patches_are_old(record, now), -0.10)),
        ("posture_stale", when(evidence.posture_stale, -0.20)),
    ]
}

fn is_established(record: &DeviceRecord, now: UnixTime) -> bool {
    let since = record.enrolled_at.map(|enrolled| now.since(enrolled).as_secs());
    record.is_bound_to_a_key() && since.is_some_and(|seconds| seconds >= ESTABLISHED_AFTER)
}

fn patches_are_old(record: &DeviceRecord, now: UnixTime) -> bool {
    let age = |level: PatchLevel| level.age(now).map(|age| age.as_secs());
    record.patch_level.is_some_and(|level| age(level).is_none_or(|seconds| seconds > PATCH_DAYS * DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(100 * DAY);

    fn enrolled(days_ago: u64) -> DeviceRecord {
        DeviceRecord {
            jkt: Some("k".into()),
            compliant: Some(true),
            enrolled_at: Some(UnixTime::from_secs((100 - days_ago) * DAY)),
            checked_at: Some(NOW),
            ..DeviceRecord::default()
        }
    }

    fn of(record: &DeviceRecord) -> f64 {
        score(record, DeviceEvidence::default(), NOW).get()
    }

    #[test]
    fn trust_begins_at_a_half_and_grows_with_evidence() {
        assert_eq!(of(&DeviceRecord::default()), 0.5);
        assert_eq!(of(&DeviceRecord { managed: Some(true), disk_encrypted: Some(true), ..enrolled(6) }), 0.5);
        assert_eq!(of(&enrolled(7)), 0.75);
        let all = DeviceRecord { managed: Some(true), disk_encrypted: Some(true), ..enrolled(7) };
        assert_eq!(of(&all), 0.9);
        assert_eq!(lines(&all, DeviceEvidence::default(), NOW).len(), 4);
    }

    #[test]
    fn it_falls_with_age_and_neglect_and_never_out_of_its_bounds() {
        let stale = DeviceEvidence { posture_stale: true, ..DeviceEvidence::default() };
        assert_eq!(score(&enrolled(7), stale, NOW).get(), 0.45);
        let neglected =
            DeviceRecord { disk_encrypted: Some(false), patch_level: Some(PatchLevel::Days(31)), ..enrolled(0) };
        assert_eq!(score(&neglected, stale, NOW).get(), 0.15);
        let sum: f64 = lines(&neglected, stale, NOW).iter().map(|line| line.points).sum();
        assert!((START + sum - 0.15).abs() < 1e-9, "{sum}");
        let patched = |day| {
            of(&DeviceRecord {
                patch_level: Some(PatchLevel::Since(UnixTime::from_secs(day * DAY))),
                ..DeviceRecord::default()
            })
        };
        assert_eq!([patched(70), patched(101), patched(69), patched(102)], [0.5, 0.5, 0.4, 0.4]);
    }

    #[test]
    fn what_the_record_says_itself_is_taken_at_its_word() {
        let pinned = DeviceRecord { trust_score: Some(TrustScore::new(0.95)), ..enrolled(0) };
        assert_eq!(of(&pinned), 0.95);
        assert!(lines(&pinned, DeviceEvidence::default(), NOW).is_empty());
    }

    #[test]
    fn a_device_is_provisional_for_a_week() {
        assert_eq!(state(&enrolled(6), false, NOW), State::Provisional);
        assert_eq!(state(&enrolled(7), false, NOW), State::Trusted);
        assert_eq!(state(&enrolled(7), true, NOW), State::Provisional);
        let headers_only = DeviceRecord { jkt: None, ..enrolled(30) };
        assert_eq!(state(&headers_only, false, NOW), State::Provisional);
        let suspended = DeviceRecord { status: DeviceStatus::Suspended, ..enrolled(30) };
        assert_eq!(state(&suspended, false, NOW), State::Suspended);
    }
}
