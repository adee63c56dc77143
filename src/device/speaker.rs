//! Who says what of a device. What its own agent says is kept wholly apart from what others say: each is judged alone, and what
//! counts of both is found when the record is read. So nobody who holds a device talks it out of what an MDM, a signal or
//! an operator found, and nobody answers for what another said.

use super::{
    Devices,
    enroll::{Issue, Posture},
    record::{self, Malformed, is_of_agent, of_agent},
};
use crate::{
    domain::{DeviceRecord, UnixTime},
    store::Record,
};

/// What our requirements make of what an operator says.
const OF_POSTURE: &str = "posture_compliant";
/// When others wrote `compliant` who say nothing else.
pub(super) const JUDGED_AT: &str = "judged_at";

/// The field of this name, where it holds what an agent or our requirements say, or when somebody else has judged.
pub fn said(name: &str) -> Option<&'static str> {
    of_agent().chain([OF_POSTURE, JUDGED_AT]).find(|known| *known == name)
}

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

    pub(super) fn set(&self) -> Vec<(&str, &str)> {
        self.set.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

/// What becomes of a record that this is written to.
pub(super) fn written(mut fields: Record, set: &[(&str, &str)], clear: &[&str]) -> Record {
    fields.retain(|(name, _)| !clear.contains(&name.as_str()) && !set.iter().any(|(set, _)| set == name));
    fields.extend(set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    fields
}

impl Devices {
    /// What `speaker` tells of a device whose record has these fields, judged by our requirements: what is written of it, and
    /// everything that is wrong with the device, whoever says so.
    pub(super) fn judged(
        &self,
        speaker: Speaker,
        told: &Posture,
        before: &Record,
    ) -> Result<(Words, Vec<Issue>), Malformed> {
        let others = speaker.others(before)?;
        let mut by_agent = false;
        let (mut issues, good) = match speaker {
            Speaker::Agent => {
                // Whether a device is managed is not for its agent to say.
                let own = Posture { managed: Some(true), ..told.clone() };
                (self.issues(&beside(told, &others)), self.issues(&own).is_empty())
            }
            Speaker::Operator => {
                let issues = self.issues(&told.clone().or(&record::parse(before.clone())?));
                let own = self.issues(&told.clone().or(&others));
                by_agent = issues.iter().any(|issue| !own.contains(issue));
                (issues.clone(), !issues.iter().any(|issue| own.contains(issue)))
            }
        };
        let mut words = speaker.says(told, good, self.clock.now());
        if by_agent {
            // What is wrong by the agent's word alone is its verdict, also where that is older, and over with its next.
            words.set.push(("agent_compliant", "false".to_owned()));
        } else if speaker == Speaker::Operator && issues.is_empty() {
            words.clear.push("agent_compliant");
        }
        if others.compliant == Some(false) {
            issues.push(judged_by_others());
        }
        Ok((words, issues))
    }
}

impl Speaker {
    /// What others say in a record. An operator's word takes the place of the agent's and of what operators said before.
    fn others(self, fields: &Record) -> Result<DeviceRecord, Malformed> {
        let own = |name: &str| is_of_agent(name) || (self == Self::Operator && name == OF_POSTURE);
        record::parse(fields.iter().filter(|(name, _)| !own(name)).cloned().collect())
    }

    /// What is said, and what our requirements make of it.
    fn says(self, told: &Posture, good: bool, now: UnixTime) -> Words {
        let mut words = Words::default();
        let (verdict, checked) = match self {
            Self::Agent => ("agent_compliant", "agent_checked_at"),
            Self::Operator => (OF_POSTURE, "checked_at"),
        };
        words.set.extend([(verdict, good.to_string()), (checked, now.as_secs().to_string())]);
        for (others, agents, word) in told.words() {
            if self == Self::Agent {
                words.set.push((agents, word));
            } else {
                words.set.push((others, word));
                words.clear.push(agents);
            }
        }
        if self == Self::Operator {
            words.set.extend(told.managed.map(|managed| ("managed", managed.to_string())));
        }
        words
    }
}

/// What an agent tells, held against what others say of the device: of a flag on which they differ, the worse.
fn beside(told: &Posture, others: &DeviceRecord) -> Posture {
    let flag = |told: Option<bool>, others: Option<bool>, bad: bool| if others == Some(bad) { others } else { told };
    Posture {
        managed: others.managed,
        disk_encrypted: flag(told.disk_encrypted, others.disk_encrypted, false),
        screen_lock: flag(told.screen_lock, others.screen_lock, false),
        antivirus: flag(told.antivirus, others.antivirus, false),
        jailbroken: flag(told.jailbroken, others.jailbroken, true),
        ..told.clone()
    }
}

/// What our requirements do not know of: somebody else has judged.
fn judged_by_others() -> Issue {
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

    fn after(words: &Words, before: Record) -> Record {
        written(before, &words.set(), &words.clear)
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
            after(&Speaker::Agent.says(told, compliant, UnixTime::EPOCH), before)
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
        let told = Posture { jailbroken: Some(false), patch_level: Some("2".into()), ..Posture::default() };
        let before = fields(&[("agent_jailbroken", "true"), ("agent_patch_level", "40"), ("agent_checked_at", "9")]);
        let says = Speaker::Operator.says(&told, true, UnixTime::EPOCH);
        assert_eq!(counts(&after(&says, before.clone())), (Some(true), Some(false), None));
        let level = record::parse(after(&says, before)).unwrap().patch_level;
        assert_eq!(level, Some(crate::domain::PatchLevel::Days(2)));
        let judged = after(&says, fields(&[("compliant", "false")]));
        assert_eq!(counts(&judged).0, Some(false), "who judged already stays right");
    }
}
