//! The line of a decision, written from its record by reference. Never the token's id.

use std::io;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{
    facts::FactsBody,
    identities::with_json,
    record::{AuditRecord, Shadow},
};
use crate::{
    decision::{Class, Finding, Grant, Reason, StepUp, Verdict},
    domain::{AccessRequest, DecisionId, Lines, PolicyId, RuleId, SignalName},
    risk::statistical::{Agent, Outcome},
    telemetry::explain::in_words,
};

/// Writes what stands in a record's line, but for the head, as one object.
pub(super) fn write(record: &AuditRecord, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    match record.facts.identity() {
        Some(identity) => with_json(identity, |json| serde_json::to_writer(Octets(out), &Body::of(record, Some(json)))),
        None => serde_json::to_writer(Octets(out), &Body::of(record, None)),
    }
}

/// Most writes of JSON are one octet, a quote or a comma: it goes into the buffer where it is written, without a call. With
/// `Vec`'s own writer a record takes nearly twice as long.
struct Octets<'b>(&'b mut Vec<u8>);

#[expect(clippy::inline_always, reason = "there are hundreds of places; one call in each is what this is against")]
impl io::Write for Octets<'_> {
    #[inline(always)]
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.write_all(octets)?;
        Ok(octets.len())
    }

    #[inline(always)]
    fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        match octets {
            [octet] => self.0.push(*octet),
            octets => self.0.extend_from_slice(octets),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line of a decision, borrowed from its record. [`super::Recorded`] is what it reads back as.
#[derive(Serialize)]
struct Body<'a> {
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
    risk_agent: Option<Agent>,
    /// Key of its method and of the pattern that its path matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_action: Option<u32>,
    /// What the model learned from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_outcome: Option<Outcome>,
    facts: FactsBody<'a>,
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

impl<'a> Body<'a> {
    fn of(record: &'a AuditRecord, identity: Option<&'a RawValue>) -> Self {
        let (facts, decision) = (&record.facts, &record.decision);
        let AccessRequest { id, method, host, path, .. } = &facts.request;
        let known = facts.identity();
        let (risk, trust) = (&decision.risk, &decision.trust);
        Self {
            id: *id,
            verdict: decision.verdict,
            status: decision.status(),
            class: decision.class,
            reason: decision.reason,
            rule: decision.rule.as_ref().map(RuleId::as_str),
            detail: record.detail,
            subject: known.map(|identity| identity.subject.as_str()),
            issuer: known.map(|identity| identity.issuer.as_str()),
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
            rules: &record.rules,
            latency_us: u64::try_from(record.latency.as_micros()).unwrap_or(u64::MAX),
            trace_id: record.trace_id.map(|id| format!("{id:032x}")),
            shadow: record.shadow.as_deref(),
            risk_agent: record.risk.map(|(agent, _)| agent),
            risk_action: record.risk.map(|(_, action)| action.key),
            risk_outcome: record.risk.map(|_| decision.teaches()),
            facts: FactsBody::of(facts, identity),
        }
    }
}

impl<'a> FindingBody<'a> {
    fn of(finding: &'a Finding) -> Self {
        let rule = finding.rule.as_ref().map(RuleId::as_str);
        Self { reason: finding.reason, class: finding.class, rule, detail: in_words(&finding.detail) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        domain::{
            ClientKind, Credential, CredentialProblem, Fact, Facts, Permission, Possession, Quota, Transport,
            Unavailable, UnixTime, Workload, path::PathProblem,
        },
        telemetry::audit::{
            facts::complete,
            sample::{facts as full, refusal},
        },
    };

    /// The facts as a line is read, and those of a copy whose token's id was taken out.
    fn both_ways(facts: Facts) -> (Value, Value) {
        let record = refusal(facts);
        let mut line = Vec::new();
        write(&record, &mut line).unwrap();
        let mut line: Value = serde_json::from_slice(&line).unwrap();
        complete(&mut line);
        let mut redacted = record;
        redacted.redact();
        (line["facts"].take(), serde_json::to_value(&redacted.facts).unwrap())
    }

    #[test]
    fn facts_of_every_shape_come_back_from_a_line_as_a_redacted_copy() {
        let with = |change: fn(&mut Facts)| {
            let mut facts = full();
            change(&mut facts);
            facts
        };
        for facts in [
            full(),
            with(|facts| facts.credential = Fact::Absent),
            with(|facts| facts.credential = Fact::NotAsked),
            with(|facts| facts.credential = Fact::Unavailable(Unavailable::Stale)),
            with(|facts| {
                facts.credential = Fact::known(Credential::Refused(CredentialProblem::Expired), UnixTime::EPOCH);
            }),
            with(|facts| {
                if let Fact::Known { value: Credential::Verified { proof, .. }, .. } = &mut facts.credential {
                    *proof = Some(Possession::Dpop);
                }
            }),
            with(|facts| facts.request.path = Err(PathProblem::Unreadable)),
            with(|facts| (facts.request.transport, facts.request.path) = (Transport::Tcp, Ok("".into()))),
            with(|facts| {
                let request = &mut facts.request;
                (request.encrypted, request.long_lived, request.client_kind) = (true, true, ClientKind::Browser);
                (request.client, request.device_sent) = (None, false);
                (request.justification, request.destination) =
                    (Some("a good reason".into()), Some("spiffe://x/y".into()));
                request.extensions.policy = Some("orders".into());
            }),
            with(|facts| (facts.device, facts.place) = (Fact::Absent, Fact::Unavailable(Unavailable::Store))),
            with(|facts| {
                facts.workload = Fact::known(
                    Workload {
                        principal: "spiffe://x/y".into(),
                        cert_sha256: None,
                        trust_domain: None,
                        out_of_time: true,
                    },
                    UnixTime::EPOCH,
                );
                facts.quota = Fact::known(
                    Quota { allowed: false, limit: 1, remaining: 0, retry_after: 1, reset: 1 },
                    UnixTime::EPOCH,
                );
                (facts.behavior, facts.session, facts.notice) = (Fact::NotAsked, Fact::NotAsked, Fact::NotAsked);
            }),
        ] {
            let (line, copy) = both_ways(facts);
            assert_eq!(line, copy);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_token_says_comes_back_from_a_line_as_a_redacted_copy(
            token_id in ".{1,40}", subject in ".*", text in ".*", number in any::<f64>(), permission in ".*",
        ) {
            let mut facts = full();
            if let Fact::Known { value: Credential::Verified { identity, .. }, .. } = &mut facts.credential {
                let identity = Arc::make_mut(identity);
                (identity.token_id, identity.subject) = (token_id.as_str().into(), subject.into());
                identity.permissions = vec![Permission::new(permission)];
                identity.attributes.insert(text.as_str().into(), json!([text, number, { "deep": Value::Null }]));
            }
            let (line, copy) = both_ways(facts);
            prop_assert_eq!(line, copy);
        }
    }
}
