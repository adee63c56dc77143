//! Who says what of a device. What its own agent says is kept beside what others say, never over it: of both the worse
//! counts, so that nobody who holds a device talks it out of what an MDM, a signal or an operator found.

use super::{
    enroll::{Issue, Posture},
    record::{self, Malformed},
};
use crate::{
    domain::{DeviceRecord, UnixTime},
    store::Record,
};

/// What an agent says goes by these names.
pub(super) const OF_AGENT: [&str; 5] =
    ["agent_compliant", "agent_jailbroken", "agent_disk_encrypted", "agent_screen_lock", "agent_antivirus"];
/// What our requirements make of what an operator says.
const OF_POSTURE: &str = "posture_compliant";

/// Who tells the state of a device. `compliant` is neither's: whoever writes that has judged already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// What runs on the device, for whoever holds it.
    Agent,
    /// An operator, or who has an operator's token.
    Operator,
}

/// Fields to write and to remove.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) set: Vec<(&'static str, String)>,
    pub(super) clear: Vec<&'static str>,
}

impl Words {
    /// Takes out whatever is not set of these.
    pub(super) fn forget(&mut self, names: &[&'static str]) {
        let unset = names.iter().filter(|name| !self.set.iter().any(|(set, _)| set == *name));
        let unset: Vec<&'static str> = unset.copied().collect();
        self.clear.extend(unset);
    }

    /// What becomes of a record that they are written to.
    pub(super) fn written(&self, mut fields: Record) -> Record {
        fields.retain(|(name, _)| !self.clear.contains(&name.as_str()) && !self.set.iter().any(|(set, _)| set == name));
        fields.extend(self.set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        fields
    }
}

impl Speaker {
    /// What a record says that this speaker's word does not replace.
    pub(super) fn others(self, fields: &Record) -> Result<DeviceRecord, Malformed> {
        let own = |name: &str| OF_AGENT.contains(&name) || (self == Self::Operator && name == OF_POSTURE);
        record::parse(fields.iter().filter(|(name, _)| !own(name)).cloned().collect())
    }

    /// What is said, once it was judged by our requirements. An operator's word takes the place of the agent's.
    pub(super) fn says(self, told: &Posture, compliant: bool, now: UnixTime) -> Words {
        let mut words = Words::default();
        let verdict = if self == Self::Agent { "agent_compliant" } else { OF_POSTURE };
        words.set.push((verdict, compliant.to_string()));
        words.set.push(("checked_at", now.as_secs().to_string()));
        words.set.extend(told.texts());
        for (others, agents, flag) in told.flags() {
            let name = if self == Self::Agent { agents } else { others };
            words.set.push((name, flag.to_string()));
            if self == Self::Operator {
                words.clear.push(agents);
            }
        }
        if self == Self::Operator {
            words.set.extend(told.managed.map(|managed| ("managed", managed.to_string())));
            if compliant {
                words.clear.push("agent_compliant");
            }
        }
        words
    }

    /// What is told, held against what others say of the device: of a flag on which they differ, the worse.
    pub(super) fn beside(self, told: &Posture, others: &DeviceRecord) -> Posture {
        let flag = |told: Option<bool>, others: Option<bool>, bad: bool| {
            if others == Some(bad) { others } else { told }
        };
        match self {
            Self::Operator => told.clone(),
            Self::Agent => Posture {
                // Whether a device is managed is not for its agent to say.
                managed: others.managed,
                disk_encrypted: flag(told.disk_encrypted, others.disk_encrypted, false),
                screen_lock: flag(told.screen_lock, others.screen_lock, false),
                antivirus: flag(told.antivirus, others.antivirus, false),
                jailbroken: flag(told.jailbroken, others.jailbroken, true),
                ..told.clone()
            },
        }
    }
}

/// What our requirements do not know of: somebody else has judged.
pub(super) fn judged_by_others() -> Issue {
    Issue {
        code: "judged_not_compliant",
        message: "an operator, the device management or a security event says that the device is not compliant".into(),
        remediation: "mend what they found, and have them say so".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &str)]) -> Record {
        fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn counts(fields: &Record) -> (Option<bool>, Option<bool>, Option<bool>) {
        let record = record::parse(fields.clone()).unwrap();
        (record.compliant, record.jailbroken, record.managed)
    }

    #[test]
    fn an_agent_lifts_its_own_word_and_nobody_elses() {
        let good = Posture { managed: Some(true), jailbroken: Some(false), ..Posture::default() };
        let bad = Posture { jailbroken: Some(true), ..Posture::default() };
        let says = |told: &Posture, compliant, before: Record| {
            Speaker::Agent.says(told, compliant, UnixTime::EPOCH).written(before)
        };
        let own = says(&bad, false, fields(&[("compliant", "true"), ("jailbroken", "false")]));
        assert_eq!(counts(&own), (Some(false), Some(true), None));
        assert_eq!(counts(&says(&good, true, own)), (Some(true), Some(false), None), "it comes back by itself");
        for said in ["compliant", "posture_compliant"] {
            let others = says(&good, true, fields(&[(said, "0"), ("jailbroken", "1"), ("managed", "no")]));
            assert_eq!(counts(&others), (Some(false), Some(true), Some(false)), "{said}");
        }
    }

    #[test]
    fn an_operators_word_takes_the_place_of_the_agents() {
        let told = Posture { jailbroken: Some(false), ..Posture::default() };
        let before = fields(&[("agent_compliant", "false"), ("agent_jailbroken", "true"), ("compliant", "true")]);
        let after = Speaker::Operator.says(&told, true, UnixTime::EPOCH).written(before);
        assert_eq!(counts(&after), (Some(true), Some(false), None));
        let judged = Speaker::Operator.says(&told, true, UnixTime::EPOCH).written(fields(&[("compliant", "false")]));
        assert_eq!(counts(&judged).0, Some(false), "who judged already stays right");
    }
}
