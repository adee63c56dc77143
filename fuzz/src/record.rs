//! A device's record as anybody with access to Redis may have written it: `name=value` lines. Unknown is never taken for
//! known, and what is no flag is no `true`.

use countersign::{device::parse_record, domain::DeviceStatus};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let fields: Vec<(String, String)> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let last = |name: &str| {
        let mut values = fields.iter().filter(|(field, value)| field == name && !value.trim().is_empty());
        values.next_back().map(|(_, value)| value.trim().to_ascii_lowercase())
    };
    let said_yes = |name: &str| last(name).is_some_and(|value| ["true", "1", "yes"].contains(&value.as_str()));
    let Ok(record) = parse_record(fields.clone()) else { return };
    let flags = [
        ("managed", record.managed),
        ("compliant", record.compliant),
        ("jailbroken", record.jailbroken),
        ("disk_encrypted", record.disk_encrypted),
    ];
    for (name, value) in flags {
        assert_eq!(value == Some(true), said_yes(name), "{name} in {fields:?}");
        assert_eq!(value.is_none(), last(name).is_none(), "{name} in {fields:?}");
    }
    let active = last("status").is_none_or(|status| status == "active");
    assert_eq!(record.status == DeviceStatus::Active, active, "{fields:?}");
    if let Some(sum) = &record.cert_sha256 {
        assert!(sum.len() == 64 && sum.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)), "{sum}");
    }
    if let Some(score) = record.trust_score {
        assert!((0.0..=1.0).contains(&score.get()), "{score:?}");
    }
}
