//! Device records as the admin API speaks them: strict about what is written, since what is read is forgiving.

use jiff::civil::Date;
use tonic::Status;

use super::ports::DeviceChanges;
use crate::{
    device::{LAST_SECOND, parse_record, said, spoken_patch_level},
    domain::{DeviceId, DeviceRecord, DeviceStatus, UnixTime},
    wire::admin::Device,
};

/// Longest id and text, in octets.
const MAX_ID: usize = 256;
const MAX_TEXT: usize = 512;

/// Names of the record's fields in the store.
const FIELDS: [&str; 18] = [
    "user",
    "fingerprint",
    "cert_sha256",
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
    "checked_at",
];

/// An id that can be a key and a log field.
pub(super) fn id(text: &str) -> Result<&str, Status> {
    let fine = !text.is_empty() && text.len() <= MAX_ID && text.chars().all(|c| !c.is_control() && c != '\u{FEFF}');
    if fine && text.trim() == text {
        return Ok(text);
    }
    Err(Status::invalid_argument(format!("`id` must be 1 to {MAX_ID} octets without control characters")))
}

/// What writing `device` changes.
pub(super) fn changes(device: &Device, clear: &[String]) -> Result<DeviceChanges, Status> {
    let mut changes = DeviceChanges::default();
    let texts = [
        ("user", &device.user),
        ("fingerprint", &device.fingerprint),
        ("os", &device.os),
        ("os_version", &device.os_version),
        ("status_reason", &device.status_reason),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            changes.set.push((name, text(name, value)?.to_owned()));
        }
    }
    let flags = [
        ("managed", device.managed),
        ("compliant", device.compliant),
        ("jailbroken", device.jailbroken),
        ("disk_encrypted", device.disk_encrypted),
        ("screen_lock", device.screen_lock),
        ("antivirus", device.antivirus),
    ];
    changes.set.extend(flags.iter().filter_map(|(name, flag)| flag.map(|flag| (*name, flag.to_string()))));
    type Check = fn(&str) -> Option<String>;
    let checked: [(&'static str, &Option<String>, Check, &str); 4] = [
        ("cert_sha256", &device.cert_sha256, digest, "64 hexadecimal digits"),
        ("jkt", &device.jkt, thumbprint, "a base64url SHA-256 of 43 characters"),
        ("patch_level", &device.patch_level, patch_level, "`current`, a number of days, or a date such as 2026-11-01"),
        ("status", &device.status, status, "`active`, `suspended` or `revoked`"),
    ];
    for (name, value, check, expected) in checked {
        if let Some(value) = value {
            let value = check(value).ok_or_else(|| Status::invalid_argument(format!("`{name}` must be {expected}")))?;
            changes.set.push((name, value));
        }
    }
    if let Some(score) = device.trust_score {
        if !(0.0..=1.0).contains(&score) {
            return Err(Status::invalid_argument("`trust_score` must be from 0 to 1"));
        }
        changes.set.push(("trust_score", score.to_string()));
    }
    for (name, time) in [("enrolled_at", &device.enrolled_at), ("checked_at", &device.checked_at)] {
        if let Some(time) = time {
            let second = u64::try_from(time.seconds).ok().filter(|second| *second <= LAST_SECOND);
            let second = second.ok_or_else(|| Status::invalid_argument(format!("`{name}` is no time of this age")))?;
            changes.set.push((name, second.to_string()));
        }
    }
    for (name, value) in &device.said {
        let known = said(name).ok_or_else(|| unknown(name))?;
        let value = text(name, value)?;
        let read = parse_record(vec![(name.clone(), value.to_owned())]);
        read.map_err(|error| Status::invalid_argument(error.to_string()))?;
        changes.set.push((known, value.to_owned()));
    }
    changes.clear = cleared(clear, &changes)?;
    // An operator's word on what the system is takes the place of the agent's, which may be later.
    for (name, agents) in [("os", "agent_os"), ("os_version", "agent_os_version"), ("patch_level", "agent_patch_level")]
    {
        let is_set = |name| changes.set.iter().any(|(set, _)| *set == name);
        if (is_set(name) || changes.clear.contains(&name)) && !is_set(agents) && !changes.clear.contains(&agents) {
            changes.clear.push(agents);
        }
    }
    Ok(changes)
}

fn cleared(clear: &[String], changes: &DeviceChanges) -> Result<Vec<&'static str>, Status> {
    clear
        .iter()
        .map(|name| {
            let known = FIELDS.into_iter().find(|field| field == name).or_else(|| said(name));
            let known = known.ok_or_else(|| unknown(name))?;
            if changes.set.iter().any(|(set, _)| *set == known) {
                return Err(Status::invalid_argument(format!("`{name}` is both set and cleared")));
            }
            Ok(known)
        })
        .collect()
}

fn unknown(name: &str) -> Status {
    Status::invalid_argument(format!("`{name}` is no field of a device"))
}

fn text<'t>(name: &str, text: &'t str) -> Result<&'t str, Status> {
    let fine = !text.trim().is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
    let refuse =
        || Status::invalid_argument(format!("`{name}` must be 1 to {MAX_TEXT} octets without control characters"));
    if fine { Ok(text) } else { Err(refuse()) }
}

fn digest(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| *c != ':').collect();
    (text.len() == 64 && text.bytes().all(|octet| octet.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

fn thumbprint(text: &str) -> Option<String> {
    let plain = text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_');
    (text.len() == 43 && plain).then(|| text.to_owned())
}

fn patch_level(text: &str) -> Option<String> {
    let fine = text == "current" || text.parse::<u32>().is_ok() || text.parse::<Date>().is_ok();
    fine.then(|| text.to_owned())
}

fn status(text: &str) -> Option<String> {
    DeviceStatus::parse(text).map(|status| status.as_str().to_owned())
}

/// A record as it is answered.
pub(super) fn answer(id: &DeviceId, record: &DeviceRecord) -> Device {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Device {
        id: id.as_str().to_owned(),
        user: record.user.as_ref().map(|user| user.as_str().to_owned()),
        fingerprint: owned(record.fingerprint.as_deref()),
        cert_sha256: owned(record.cert_sha256.as_deref()),
        jkt: owned(record.jkt.as_deref()),
        managed: record.managed,
        compliant: record.compliant,
        patch_level: record.patch_level.map(spoken_patch_level),
        os: owned(record.os.as_deref()),
        os_version: owned(record.os_version.as_deref()),
        jailbroken: record.jailbroken,
        disk_encrypted: record.disk_encrypted,
        status: Some(record.status.as_str().to_owned()),
        trust_score: record.trust_score.map(crate::domain::TrustScore::get),
        enrolled_at: record.enrolled_at.map(timestamp),
        screen_lock: record.screen_lock,
        antivirus: record.antivirus,
        status_reason: owned(record.status_reason.as_deref()),
        checked_at: record.checked_at.map(timestamp),
        cert_expires_at: record.cert_expires_at.map(timestamp),
        said: Default::default(),
    }
}

/// A time as protobuf has it.
pub(super) fn timestamp(time: UnixTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.as_millis() % 1000).unwrap_or_default() * 1_000_000,
    }
}
