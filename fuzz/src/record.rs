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
    let is_yes = |value: &str| ["true", "1", "yes"].contains(&value);
    let Ok(record) = parse_record(fields.clone()) else { return };
    assert_eq!(record.managed, last("managed").map(|value| is_yes(&value)), "{fields:?}");
    // Of what several say, the worse.
    let flags: [(&[&str], Option<bool>, bool); 3] = [
        (&["compliant", "posture_compliant", "agent_compliant"], record.compliant, false),
        (&["jailbroken", "agent_jailbroken"], record.jailbroken, true),
        (&["disk_encrypted", "agent_disk_encrypted"], record.disk_encrypted, false),
    ];
    for (names, value, bad) in flags {
        let said = fields.iter().filter(|(field, value)| names.contains(&field.as_str()) && !value.trim().is_empty());
        let said: Vec<bool> = said.map(|(_, value)| is_yes(&value.trim().to_ascii_lowercase())).collect();
        let worst = if said.contains(&bad) { Some(bad) } else { said.last().copied() };
        assert_eq!(value, worst, "{names:?} in {fields:?}");
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
