//! What a record says: enough to see why, and to judge the same facts again. Never a token, a token's id or a secret.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::{facts::complete, line::is_of_log};
use crate::{
    decision::{Class, Decision, Reason},
    domain::{Credential, DecisionId, Fact, Facts, UnixTime},
    risk::statistical::{Action, Agent},
    telemetry::explain::{Explanation, Scored},
};

/// One decision, as the pipeline hands it over. What its line says is [`super::body`]'s business.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    pub facts: Box<Facts>,
    pub decision: Box<Decision>,
    /// Version of the rules that decided.
    pub rules: Arc<str>,
    /// From the first octet of the request to the answer.
    pub latency: Duration,
    /// Of the trace that the check is part of: Envoy's, where it traces.
    pub trace_id: Option<u128>,
    /// What was wrong with the credentials, in a word of a closed list.
    pub detail: Option<&'static str>,
    /// The client software and the action as the risk model saw them, for `risk replay`: what the facts do not say. `None`
    /// where it did not look.
    pub risk: Option<(Agent, Action)>,
    /// What a shadow rule set would have said, where that differs.
    pub shadow: Option<Box<Shadow>>,
}

/// Another verdict on the same facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// Version of the shadow rules.
    pub rules: Arc<str>,
    pub verdict: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl AuditRecord {
    /// Takes the token's id out. Must come before anything of the record is shown; its line never holds it.
    pub(super) fn redact(&mut self) {
        if let Fact::Known { value: Credential::Verified { identity, .. }, .. } = &mut self.facts.credential {
            let identity = Arc::make_mut(identity);
            identity.token_id = fingerprint(identity.token_id.as_str()).into();
        }
    }

    /// Why, for people.
    pub fn explanation(&self) -> Explanation {
        Explanation::of(&self.facts, &self.decision, &self.rules).with_detail(self.detail)
    }
}

/// A decision as it is read back from an audit line.
#[derive(Clone, Debug, Deserialize)]
pub struct Recorded {
    pub id: DecisionId,
    pub time: String,
    /// `allow`, `deny` or `step_up`.
    pub verdict: String,
    pub status: u16,
    #[serde(default)]
    pub class: Option<Class>,
    #[serde(default)]
    pub reason: Option<Reason>,
    #[serde(default)]
    pub rule: Option<String>,
    #[serde(default)]
    pub resource: Option<String>,
    #[serde(default)]
    pub policy: Option<String>,
    /// What was wrong with the credentials, in a word.
    #[serde(default)]
    pub detail: Option<String>,
    #[serde(default)]
    pub findings: Vec<crate::telemetry::explain::Found>,
    pub risk: Scored,
    pub trust: Scored,
    pub rules: Arc<str>,
    pub latency_us: u64,
    pub facts: Facts,
}

impl Recorded {
    /// The decision in a line of an audit file; `None` where the line is of another kind, or one of the log.
    ///
    /// # Errors
    ///
    /// Where the line says that it is a decision and is not one.
    pub fn parse(line: &str) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(borrow)]
            kind: Option<std::borrow::Cow<'a, str>>,
        }
        let kind = serde_json::from_str(line).ok().and_then(|Kind { kind }| kind);
        let other = kind.map_or_else(|| is_of_log(line), |kind| kind != "decision");
        if other {
            return Ok(None);
        }
        let mut line = serde_json::from_str(line)?;
        complete(&mut line);
        serde_json::from_value(line).map(Some)
    }

    /// Why, for people; as it was decided then.
    pub fn explanation(&self) -> Explanation {
        Explanation::recorded(self)
    }
}

/// An administrative write: a revocation, a device, a reload; done or refused.
#[derive(Clone, Debug, Serialize)]
pub struct AdminRecord {
    #[serde(skip)]
    pub at: UnixTime,
    /// Who: the name of the admin token or certificate, `signals:<issuer>`, or `system`.
    pub actor: Arc<str>,
    /// Where from, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What: `revoke`, `reinstate`, `device.put`, `rules.reload`, …
    pub action: String,
    /// On what: `device:…`, a file, a token's [`fingerprint`]. Never a token, its id or a secret.
    pub target: String,
    /// `done`, `refused` or `failed`.
    pub outcome: String,
    /// In words, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What stands for a token's id in records: enough to tell whether two are the same, not enough to revoke or to guess one.
pub fn fingerprint(token_id: &str) -> String {
    let hash = digest::digest(&digest::SHA256, token_id.as_bytes());
    format!("sha256:{}", hex::encode(&hash.as_ref()[..8]))
}
