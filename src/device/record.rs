//! A device's record as it stands in the store: forgiving in spelling, strict in meaning.
//!
//! Operators, MDM exporters and scripts write these. A value that says nothing clear makes the record malformed, which is
//! `Unavailable`, never "fine".

use std::sync::Arc;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::speaker::JUDGED_AT;
use crate::{
    domain::{DeviceRecord, DeviceStatus, PatchLevel, TrustScore, UnixTime},
    store::{Record, StoreError, StoreErrorKind},
};

/// Names of the fields that are read (and no others: a record may be large).
pub const FIELDS: [&str; 33] = [
    "user",
    "fingerprint",
    "cert_sha256",
    "cert_sha256_previous",
    "cert_previous_until",
    "cert_renewed_into",
    "jkt",
    "managed",
    "compliant",
    "patch_level",
    "os",
    "os_version",
    "jailbroken",
    "disk_encrypted",
    "screen_lock",
    "antivirus",
    "status",
    "status_reason",
    "trust_score",
    "enrolled_at",
    "cert_expires_at",
    "checked_at",
    "judged_at",
    "posture_compliant",
    "agent_compliant",
    "agent_jailbroken",
    "agent_disk_encrypted",
    "agent_screen_lock",
    "agent_antivirus",
    "agent_os",
    "agent_os_version",
    "agent_patch_level",
    "agent_checked_at",
];

/// What a device's own agent says has the name of what others say, after this.
const AGENT: &str = "agent_";

/// Whether a field of this name holds what the device's own agent says.
pub(super) fn is_of_agent(name: &str) -> bool {
    name.starts_with(AGENT)
}

/// The fields of what an agent says.
pub(super) fn of_agent() -> impl Iterator<Item = &'static str> {
    FIELDS.into_iter().filter(|name| is_of_agent(name))
}

/// A larger number (from the year 2514 on) is no time in seconds: milliseconds, most likely.
pub const LAST_SECOND: u64 = 1 << 34;

/// The name of a field whose value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device record's `{0}` cannot be read")]
pub struct Malformed(pub String);

impl From<Malformed> for StoreError {
    fn from(error: Malformed) -> Self {
        Self::new(StoreErrorKind::Malformed, error.to_string())
    }
}

/// Reads the fields of a record: what the agent says, what others say, and what counts of both. Empty values count as
/// absent, that is unknown.
///
/// # Errors
///
/// The first field that says nothing clear.
pub fn parse(fields: Record) -> Result<DeviceRecord, Malformed> {
    let (mut others, mut agent) = (DeviceRecord::default(), DeviceRecord::default());
    let (mut managed, mut judged, mut judged_at, mut renewed_into) = (false, false, None, None);
    for (name, value) in fields {
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        let read = match name.strip_prefix(AGENT) {
            Some(word) => set(&mut agent, word, value),
            None if name == "cert_renewed_into" => digest(value).map(|sum| renewed_into = Some(sum)),
            None if name == JUDGED_AT => time(value).map(|at| judged_at = Some(at)),
            None => set(&mut others, &name, value),
        };
        if read.is_none() {
            return Err(Malformed(name));
        }
        managed |= name == "managed";
        judged |= name == "compliant";
    }
    // Whoever wrote another certificate since, or took it away, meant the one before it, too.
    if renewed_into.is_none() || renewed_into.as_deref() != others.cert_sha256.as_deref() {
        others.previous_certificate = None;
    }
    let mut record = merged(others, agent, managed || judged);
    // Whether somebody manages it is as old as `checked_at`; a verdict may have come later.
    if judged && !managed && record.checked_at.is_some() {
        record.checked_at = record.checked_at.max(judged_at);
    }
    Ok(record)
}

/// Of a flag the worse counts; of what the system is, the later word, one without a time being the older. `vouched`: others
/// say what no agent can say, and that is as old as others say; everything else is as old as the later look at it.
fn merged(others: DeviceRecord, agent: DeviceRecord, vouched: bool) -> DeviceRecord {
    fn later<T>(agents: bool, others: Option<T>, agent: Option<T>) -> Option<T> {
        if agents { agent.or(others) } else { others.or(agent) }
    }
    let agents = agent.checked_at > others.checked_at;
    DeviceRecord {
        compliant: worse(others.compliant, agent.compliant, false),
        jailbroken: worse(others.jailbroken, agent.jailbroken, true),
        disk_encrypted: worse(others.disk_encrypted, agent.disk_encrypted, false),
        screen_lock: worse(others.screen_lock, agent.screen_lock, false),
        antivirus: worse(others.antivirus, agent.antivirus, false),
        os: later(agents, others.os, agent.os),
        os_version: later(agents, others.os_version, agent.os_version),
        patch_level: later(agents, others.patch_level, agent.patch_level),
        checked_at: later(agents && !vouched, others.checked_at, agent.checked_at),
        ..others
    }
}

fn set(record: &mut DeviceRecord, name: &str, value: &str) -> Option<()> {
    match name {
        "user" => record.user = Some(value.into()),
        "fingerprint" => record.fingerprint = Some(value.into()),
        "cert_sha256" => record.cert_sha256 = Some(digest(value)?.into()),
        // Either without the other matches nothing: no certificate has an empty digest, and the epoch is over.
        "cert_sha256_previous" => previous(record).0 = digest(value)?.into(),
        "cert_previous_until" => previous(record).1 = time(value)?,
        "jkt" => record.jkt = Some(value.into()),
        "managed" => record.managed = Some(flag(value)?),
        "compliant" | "posture_compliant" => record.compliant = worse(record.compliant, Some(flag(value)?), false),
        "patch_level" => record.patch_level = Some(patch_level(value)?),
        "os" => record.os = Some(value.into()),
        "os_version" => record.os_version = Some(value.into()),
        "jailbroken" => record.jailbroken = worse(record.jailbroken, Some(flag(value)?), true),
        "disk_encrypted" => record.disk_encrypted = worse(record.disk_encrypted, Some(flag(value)?), false),
        "screen_lock" => record.screen_lock = worse(record.screen_lock, Some(flag(value)?), false),
        "antivirus" => record.antivirus = worse(record.antivirus, Some(flag(value)?), false),
        "status_reason" => record.status_reason = Some(value.into()),
        "cert_expires_at" => record.cert_expires_at = Some(time(value)?),
        "checked_at" => record.checked_at = Some(time(value)?),
        "status" => record.status = DeviceStatus::parse(&value.to_ascii_lowercase())?,
        "trust_score" => record.trust_score = Some(trust(value)?),
        "enrolled_at" => record.enrolled_at = Some(time(value)?),
        _ => {}
    }
    Some(())
}

fn previous(record: &mut DeviceRecord) -> &mut (Arc<str>, UnixTime) {
    record.previous_certificate.get_or_insert_with(|| ("".into(), UnixTime::EPOCH))
}

/// Of what several say, the worse counts.
fn worse(held: Option<bool>, said: Option<bool>, bad: bool) -> Option<bool> {
    if said == Some(bad) { said } else { held.or(said) }
}

fn flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// Sixty-four hexadecimal digits, colons between them forgiven.
fn digest(value: &str) -> Option<String> {
    let digits: String = value.chars().filter(|c| *c != ':').collect();
    (digits.len() == 64 && digits.bytes().all(|octet| octet.is_ascii_hexdigit())).then(|| digits.to_ascii_lowercase())
}

/// `current`, days or a date, as it is written.
pub fn spoken_patch_level(level: PatchLevel) -> String {
    match level {
        PatchLevel::Current => "current".to_owned(),
        PatchLevel::Days(days) => days.to_string(),
        PatchLevel::Since(time) => {
            let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            let time = Timestamp::from_second(seconds);
            time.map(|time| time.to_zoned(TimeZone::UTC).date().to_string()).unwrap_or_default()
        }
    }
}

pub(super) fn patch_level(value: &str) -> Option<PatchLevel> {
    if value.eq_ignore_ascii_case("current") {
        return Some(PatchLevel::Current);
    }
    if let Ok(days) = value.parse() {
        return Some(PatchLevel::Days(days));
    }
    let midnight = value.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?;
    u64::try_from(midnight.timestamp().as_second()).ok().map(|second| PatchLevel::Since(UnixTime::from_secs(second)))
}

fn trust(value: &str) -> Option<TrustScore> {
    let score: f64 = value.parse().ok()?;
    (0.0..=1.0).contains(&score).then(|| TrustScore::new(score))
}

/// Unix seconds, or RFC 3339.
fn time(value: &str) -> Option<UnixTime> {
    let second = match value.parse() {
        Ok(second) if second > LAST_SECOND => return None,
        Ok(second) => second,
        Err(_) => u64::try_from(value.parse::<Timestamp>().ok()?.as_second()).ok()?,
    };
    Some(UnixTime::from_secs(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(fields: &[(&str, &str)]) -> Result<DeviceRecord, Malformed> {
        parse(fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn spellings_are_forgiven() {
        let digest = "AB:".repeat(31) + "AB";
        let record = parsed(&[
            ("user", " alice "),
            ("managed", "YES"),
            ("compliant", "1"),
            ("jailbroken", "no"),
            ("disk_encrypted", ""),
            ("status", "Suspended"),
            ("cert_sha256", &digest),
            ("enrolled_at", "2026-11-01T00:00:00Z"),
            ("colour", "blue"),
        ])
        .unwrap();
        assert_eq!(record.user, Some("alice".into()));
        assert_eq!((record.managed, record.compliant, record.jailbroken), (Some(true), Some(true), Some(false)));
        assert_eq!((record.disk_encrypted, record.status), (None, DeviceStatus::Suspended));
        assert_eq!(record.cert_sha256.as_deref(), Some(&*"ab".repeat(32)));
        assert_eq!(record.enrolled_at, Some(UnixTime::from_secs(1_793_491_200)));
    }

    #[test]
    fn of_what_several_say_the_worse_counts_in_any_order() {
        let names = ["compliant", "posture_compliant", "agent_compliant"];
        for bad in names {
            let mut fields = names.map(|name| (name, if name == bad { "false" } else { "true" }));
            for _ in names {
                fields.rotate_left(1);
                assert_eq!(parsed(&fields).unwrap().compliant, Some(false), "{fields:?}");
            }
        }
        let jailbroken = |others, agents| parsed(&[("jailbroken", others), ("agent_jailbroken", agents)]).unwrap();
        assert_eq!(jailbroken("yes", "no").jailbroken, Some(true));
        assert_eq!(jailbroken("no", "yes").jailbroken, Some(true));
        assert_eq!(jailbroken("", "no").jailbroken, Some(false));
    }

    #[test]
    fn of_what_the_system_is_the_later_word_counts() {
        let level = |others: &str, agents: &str| {
            let fields = [
                ("patch_level", "40"),
                ("checked_at", others),
                ("agent_patch_level", "2"),
                ("agent_checked_at", agents),
            ];
            parsed(&fields).unwrap().patch_level
        };
        let [others, agents] = [40, 2].map(|days| Some(PatchLevel::Days(days)));
        assert_eq!([level("7", "6"), level("7", "7"), level("7", ""), level("", "")], [others; 4]);
        assert_eq!([level("7", "8"), level("", "8")], [agents; 2]);
    }

    #[test]
    fn what_no_agent_can_say_is_as_old_as_others_say() {
        let checked = |field: &str, others: &str, agents: &str| {
            let fields = [(field, "yes"), ("checked_at", others), ("agent_checked_at", agents)];
            parsed(&fields).unwrap().checked_at.map(UnixTime::as_secs)
        };
        for field in ["managed", "compliant"] {
            assert_eq!(
                [checked(field, "7", "8"), checked(field, "", "8"), checked(field, "7", "")],
                [Some(7), Some(8), Some(7)]
            );
        }
        for field in ["posture_compliant", "disk_encrypted", "agent_compliant"] {
            assert_eq!([checked(field, "7", "8"), checked(field, "8", "7"), checked(field, "", "8")], [Some(8); 3]);
        }
    }

    #[test]
    fn the_certificate_before_counts_beside_the_one_it_was_renewed_into() {
        let [a, b, c] = ["aa", "bb", "cc"].map(|octet| octet.repeat(32));
        let previous = |current: &str, into: &str| {
            let renewed = [("cert_sha256_previous", &*a), ("cert_previous_until", "9"), ("cert_renewed_into", into)];
            parsed(&[&renewed[..], &[("cert_sha256", current)]].concat()).unwrap().previous_certificate.is_some()
        };
        assert!(previous(&b, &b));
        assert_eq!([previous(&c, &b), previous("", &b), previous(&b, ""), previous("", "")], [false; 4]);
    }

    #[test]
    fn patch_levels_are_a_word_days_or_a_date() {
        let level = |text| parsed(&[("patch_level", text)]).map(|record| record.patch_level);
        assert_eq!(level("Current"), Ok(Some(PatchLevel::Current)));
        assert_eq!(level("12"), Ok(Some(PatchLevel::Days(12))));
        assert_eq!(level("2026-11-01"), Ok(Some(PatchLevel::Since(UnixTime::from_secs(1_793_491_200)))));
    }

    #[test]
    fn a_value_that_says_nothing_clear_makes_the_record_malformed() {
        for (name, value) in [
            ("managed", "maybe"),
            ("compliant", "2"),
            ("jailbroken", "trve"),
            ("status", "lost"),
            ("trust_score", "1.5"),
            ("trust_score", "NaN"),
            ("cert_sha256", "ab"),
            ("patch_level", "old"),
            ("patch_level", "-1"),
            ("enrolled_at", "yesterday"),
            ("agent_compliant", "maybe"),
            ("agent_patch_level", "old"),
            ("checked_at", "1793491200000"),
            ("cert_previous_until", "1793491200000"),
            ("cert_renewed_into", "ab"),
        ] {
            assert_eq!(parsed(&[(name, value)]), Err(Malformed(name.into())), "{name}: {value}");
        }
    }
}
