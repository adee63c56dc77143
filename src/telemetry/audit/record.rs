//! What a record says: enough to see why, and to judge the same facts again. Never a token, a token's id or a secret.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    decision::{Class, Decision, Finding, Grant, Reason, StepUp, Verdict},
    domain::{AccessRequest, Credential, DecisionId, Fact, Facts, Lines, PolicyId, RuleId, SignalName, UnixTime},
    risk::statistical::{Event, Key, Outcome},
    telemetry::explain::{Explanation, Scored, in_words},
};

/// One decision, as the pipeline hands it over. Formatting is the writer's business.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    pub facts: Box<Facts>,
    pub decision: Box<Decision>,
    /// Version of the rules that decided.
    pub rules: Arc<str>,
    /// From the first octet of the request to the answer.
    pub latency: Duration,
    /// Of Envoy's `traceparent`.
    pub trace_id: Option<u128>,
    /// What was wrong with the credentials, in a word of a closed list.
    pub detail: Option<&'static str>,
    /// What the risk model looked at, for `risk replay`; `None` where it did not look.
    pub risk_event: Option<Event>,
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

/// The line of a decision, borrowed from its record. [`Recorded`] is what it reads back as.
#[derive(Serialize)]
pub(super) struct Body<'a> {
    id: DecisionId,
    verdict: Verdict,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<Class>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    method: &'a str,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<&'a Grant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_up: Option<&'a StepUp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<FindingBody<'a>>,
    risk: ScoreBody<'a>,
    trust: ScoreBody<'a>,
    rules: &'a str,
    latency_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<&'a Shadow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_event: Option<&'a Event>,
    /// What the model learned from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_outcome: Option<Outcome>,
    facts: &'a Facts,
}

#[derive(Serialize)]
struct FindingBody<'a> {
    reason: Reason,
    class: Class,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// A score without the evidence of its lines, which follows from the facts ([`crate::decision::evidence`]).
#[derive(Serialize)]
struct ScoreBody<'a> {
    score: f64,
    level: &'static str,
    #[serde(serialize_with = "points")]
    lines: &'a Lines,
}

#[derive(Serialize)]
struct LineBody {
    name: SignalName,
    points: f64,
}

fn points<S: Serializer>(lines: &Lines, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lines.iter().map(|line| LineBody { name: line.name, points: round(line.points) }))
}

/// Six decimals say all that a score says. Adding nothing turns a negative zero into one that reads well.
fn round(score: f64) -> f64 {
    (score * 1e6).round() / 1e6 + 0.0
}

impl AuditRecord {
    /// Takes the token's id out. Must come before anything of the record is written or shown.
    pub(super) fn redact(&mut self) {
        if let Fact::Known { value: Credential::Verified { identity, .. }, .. } = &mut self.facts.credential {
            let identity = Arc::make_mut(identity);
            identity.token_id = fingerprint(identity.token_id.as_str()).into();
        }
        if let Some(event) = &mut self.risk_event {
            // Made from the token's id where there is no `sid`. Which requests share a session is all that replay needs.
            event.session = one_way(event.session);
        }
    }

    pub(super) fn body(&self) -> Body<'_> {
        let (facts, decision) = (&self.facts, &self.decision);
        let AccessRequest { id, method, host, path, .. } = &facts.request;
        let identity = facts.identity();
        let (risk, trust) = (&decision.risk, &decision.trust);
        Body {
            id: *id,
            verdict: decision.verdict,
            status: decision.status(),
            class: decision.class,
            reason: decision.reason,
            rule: decision.rule.as_ref().map(RuleId::as_str),
            detail: self.detail,
            subject: identity.map(|identity| identity.subject.as_str()),
            issuer: identity.map(|identity| identity.issuer.as_str()),
            method: method.as_str(),
            host,
            path: path.as_deref().ok(),
            resource: decision.resource.as_deref(),
            policy: decision.policy.as_ref().map(PolicyId::as_str),
            grant: decision.grant.as_ref(),
            step_up: decision.step_up.as_ref(),
            findings: decision.findings.iter().map(FindingBody::of).collect(),
            risk: ScoreBody { score: round(risk.score.get()), level: risk.level.as_str(), lines: &risk.lines },
            trust: ScoreBody { score: round(trust.score.get()), level: trust.level.as_str(), lines: &trust.lines },
            rules: &self.rules,
            latency_us: u64::try_from(self.latency.as_micros()).unwrap_or(u64::MAX),
            trace_id: self.trace_id.map(|id| format!("{id:032x}")),
            shadow: self.shadow.as_deref(),
            risk_event: self.risk_event.as_ref(),
            risk_outcome: self.risk_event.map(|_| decision.teaches()),
            facts,
        }
    }

    /// Why, for people.
    pub fn explanation(&self) -> Explanation {
        Explanation::of(&self.facts, &self.decision, &self.rules)
    }
}

impl<'a> FindingBody<'a> {
    fn of(finding: &'a Finding) -> Self {
        let rule = finding.rule.as_ref().map(RuleId::as_str);
        Self { reason: finding.reason, class: finding.class, rule, detail: in_words(&finding.detail) }
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
    #[serde(default)]
    pub findings: Vec<crate::telemetry::explain::Found>,
    pub risk: Scored,
    pub trust: Scored,
    pub rules: Arc<str>,
    pub latency_us: u64,
    pub facts: Facts,
}

impl Recorded {
    /// The decision in a line of an audit file; `None` where the line is of another kind.
    ///
    /// # Errors
    ///
    /// Where the line says that it is a decision and is not one.
    pub fn parse(line: &str) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        let kind: Kind<'_> = serde_json::from_str(line)?;
        if kind.kind == "decision" { serde_json::from_str(line).map(Some) } else { Ok(None) }
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

/// A key that tells whether two are the same, and not what they were made from.
fn one_way(key: Key) -> Key {
    let hash = digest::digest(&digest::SHA256, &key.0.to_le_bytes());
    Key(hash.as_ref().iter().take(8).fold(0, |sum, octet| sum << 8 | u64::from(*octet)))
}

/// What stands for a token's id in records: enough to tell whether two are the same, not enough to revoke or to guess one.
pub fn fingerprint(token_id: &str) -> String {
    let hash = digest::digest(&digest::SHA256, token_id.as_bytes());
    format!("sha256:{}", hex::encode(&hash.as_ref()[..8]))
}
