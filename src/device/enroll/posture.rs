//! What is said of the state of a device, and whether that meets the requirements. Pure.

use serde::{Deserialize, Serialize};

use super::settings::Requirements;
use crate::{
    device::record,
    domain::{DeviceRecord, UnixTime},
};

const DAY: u64 = 24 * 3600;
/// Longest text, in octets.
const MAX_TEXT: usize = 128;

/// The state of a device as an agent or an operator tells it. What is not told is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Posture {
    pub managed: Option<bool>,
    pub disk_encrypted: Option<bool>,
    pub screen_lock: Option<bool>,
    pub antivirus: Option<bool>,
    pub jailbroken: Option<bool>,
    pub os: Option<String>,
    pub os_version: Option<String>,
    /// `current`, days behind, or a date.
    pub patch_level: Option<String>,
}

/// A requirement that is not met, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// Stable.
    pub code: &'static str,
    pub message: String,
    pub remediation: String,
}

impl Posture {
    /// The first field whose value cannot be kept.
    pub fn malformed(&self) -> Option<&'static str> {
        let text = |value: &Option<String>| {
            value.as_ref().is_some_and(|text| {
                text.trim().is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control)
            })
        };
        if text(&self.os) {
            return Some("os");
        }
        if text(&self.os_version) {
            return Some("os_version");
        }
        let level = self.patch_level.as_deref();
        level.is_some_and(|level| record::patch_level(level.trim()).is_none()).then_some("patch_level")
    }

    /// What a record knows already, where this says nothing.
    #[must_use]
    pub fn or(self, record: &DeviceRecord) -> Self {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            managed: self.managed.or(record.managed),
            disk_encrypted: self.disk_encrypted.or(record.disk_encrypted),
            screen_lock: self.screen_lock.or(record.screen_lock),
            antivirus: self.antivirus.or(record.antivirus),
            jailbroken: self.jailbroken.or(record.jailbroken),
            os: self.os.or_else(|| text(&record.os)),
            os_version: self.os_version.or_else(|| text(&record.os_version)),
            patch_level: self.patch_level.or_else(|| record.patch_level.map(record::spoken_patch_level)),
        }
    }

    /// What it says of what others speak of too: their name in the record, the agent's, and what is said.
    pub(in crate::device) fn words(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
        let text = |text: &Option<String>| text.as_ref().map(|text| text.trim().to_owned());
        let words = [
            ("disk_encrypted", "agent_disk_encrypted", flag(self.disk_encrypted)),
            ("screen_lock", "agent_screen_lock", flag(self.screen_lock)),
            ("antivirus", "agent_antivirus", flag(self.antivirus)),
            ("jailbroken", "agent_jailbroken", flag(self.jailbroken)),
            ("os", "agent_os", text(&self.os)),
            ("os_version", "agent_os_version", text(&self.os_version)),
            ("patch_level", "agent_patch_level", text(&self.patch_level)),
        ];
        words.into_iter().filter_map(|(others, agents, word)| Some((others, agents, word?)))
    }

    /// Every requirement that is not met. Empty: compliant.
    pub fn issues(&self, asked: &Requirements, now: UnixTime) -> Vec<Issue> {
        let mut issues = Vec::new();
        let mut flag = |asked: bool, told: Option<bool>, wanted: bool, words: [&'static str; 3]| {
            if asked && told != Some(wanted) {
                let [code, message, remediation] = words;
                let unknown = if told.is_none() { " (nothing is known of it)" } else { "" };
                let message = format!("{message}{unknown}");
                issues.push(Issue { code, message, remediation: remediation.to_owned() });
            }
        };
        flag(asked.managed, self.managed, true, NOT_MANAGED);
        flag(asked.disk_encryption, self.disk_encrypted, true, NOT_ENCRYPTED);
        flag(asked.screen_lock, self.screen_lock, true, NO_LOCK);
        flag(asked.antivirus, self.antivirus, true, NO_ANTIVIRUS);
        flag(asked.not_jailbroken, self.jailbroken, false, JAILBROKEN);
        issues.extend(self.patches(asked, now));
        issues.extend(self.system(asked));
        issues
    }

    fn patches(&self, asked: &Requirements, now: UnixTime) -> Option<Issue> {
        let most = asked.max_patch_age?.get().as_secs() / DAY;
        let level = self.patch_level.as_deref().and_then(|level| record::patch_level(level.trim()));
        let behind = level.and_then(|level| level.age(now)).map(|age| age.as_secs() / DAY);
        if behind.is_some_and(|days| days <= most) {
            return None;
        }
        let message = match behind {
            Some(days) => format!("the last patches are {days} days old, and at most {most} are allowed"),
            None => "the age of the last patches is not known".to_owned(),
        };
        Some(Issue { code: "patches_too_old", message, remediation: "install the pending system updates".to_owned() })
    }

    fn system(&self, asked: &Requirements) -> Option<Issue> {
        if asked.os.is_empty() {
            return None;
        }
        let own = self.os.as_deref().unwrap_or_default().trim();
        let Some((name, least)) = asked.os.iter().find(|(name, _)| name.eq_ignore_ascii_case(own)) else {
            let names: Vec<&str> = asked.os.keys().map(String::as_str).collect();
            let message = if own.is_empty() {
                "the system is not known".to_owned()
            } else {
                format!("`{own}` is no system that is let in")
            };
            let remediation = format!("use one of: {}", names.join(", "));
            return Some(Issue { code: "os_not_allowed", message, remediation });
        };
        let told = self.os_version.as_deref().and_then(version);
        if told.is_some() && told >= version(least) {
            return None;
        }
        let message = match &self.os_version {
            Some(own) => format!("{name} {own} is older than {least}, or cannot be compared with it"),
            None => format!("the version of {name} is not known"),
        };
        Some(Issue { code: "os_too_old", message, remediation: format!("update {name} to {least} or newer") })
    }
}

const NOT_MANAGED: [&str; 3] =
    ["not_managed", "the device is not managed", "enrol it with your organisation's device management"];
const NOT_ENCRYPTED: [&str; 3] =
    ["disk_not_encrypted", "the disk is not encrypted", "switch on FileVault, BitLocker or LUKS"];
const NO_LOCK: [&str; 3] = ["no_screen_lock", "the screen does not lock", "set a screen lock with a code or password"];
const NO_ANTIVIRUS: [&str; 3] = ["no_antivirus", "no antivirus is running", "install and start the antivirus"];
const JAILBROKEN: [&str; 3] = ["jailbroken", "the device is jailbroken or rooted", "restore the original system"];

/// The numbers of a version, up to the first that is none; trailing zeros say nothing. `None`: it begins with no number.
pub(super) fn version(text: &str) -> Option<Vec<u64>> {
    let parts = text.trim().split(['.', '-', '_', ' ', '+']);
    let mut numbers: Vec<u64> = parts.map_while(|part| part.parse().ok()).collect();
    if numbers.is_empty() {
        return None;
    }
    while numbers.last() == Some(&0) && numbers.len() > 1 {
        numbers.pop();
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_795_000_000);

    fn good() -> Posture {
        Posture {
            managed: Some(true),
            disk_encrypted: Some(true),
            screen_lock: Some(true),
            antivirus: Some(true),
            jailbroken: Some(false),
            os: Some("macOS".into()),
            os_version: Some("14.10".into()),
            patch_level: Some("30".into()),
        }
    }

    fn all() -> Requirements {
        let os = [("macos".to_owned(), "14.9.1".to_owned())].into();
        Requirements { managed: true, antivirus: true, os, ..Requirements::default() }
    }

    fn codes(posture: &Posture) -> Vec<&'static str> {
        posture.issues(&all(), NOW).into_iter().map(|issue| issue.code).collect()
    }

    #[test]
    fn a_good_device_has_no_issues() {
        assert_eq!(codes(&good()), Vec::<&str>::new());
    }

    #[test]
    fn everything_that_is_wrong_is_listed_and_what_is_unknown_is_wrong() {
        let all_wrong = [
            "not_managed",
            "disk_not_encrypted",
            "no_screen_lock",
            "no_antivirus",
            "jailbroken",
            "patches_too_old",
            "os_not_allowed",
        ];
        assert_eq!(codes(&Posture::default()), all_wrong);
        for issue in Posture::default().issues(&all(), NOW) {
            assert!(!issue.message.is_empty() && !issue.remediation.is_empty());
        }
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        let with = |version: &str| codes(&Posture { os_version: Some(version.into()), ..good() });
        assert!(with("14.9.1").is_empty() && with("15").is_empty() && with("14.9.1-beta").is_empty());
        assert_eq!(with("14.9"), ["os_too_old"]);
        assert_eq!(with("9.99"), ["os_too_old"]);
        assert_eq!(with("Sonoma"), ["os_too_old"]);
        assert_eq!(version("14.0.0"), version("14"));
    }

    #[test]
    fn patches_age_by_days_or_by_date() {
        let with = |level: &str| codes(&Posture { patch_level: Some(level.into()), ..good() });
        assert!(with("current").is_empty() && with("2026-11-10").is_empty());
        assert_eq!(with("31"), ["patches_too_old"]);
        assert_eq!(with("2026-09-01"), ["patches_too_old"]);
        assert_eq!(with("2062-11-10"), ["patches_too_old"], "a day that has not come says nothing");
    }

    #[test]
    fn a_value_that_cannot_be_kept_is_named() {
        assert_eq!(good().malformed(), None);
        assert_eq!(Posture { patch_level: Some("soon".into()), ..good() }.malformed(), Some("patch_level"));
        assert_eq!(Posture { os: Some("a\nb".into()), ..good() }.malformed(), Some("os"));
        assert_eq!(Posture { os_version: Some("x".repeat(129)), ..good() }.malformed(), Some("os_version"));
    }
}
