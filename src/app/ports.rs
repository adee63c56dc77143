//! The parts as the admin API wants them.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use prost_types::{Duration as Span, Timestamp};
use tokio::time::Instant;

use super::{news::NewsDesk, readiness::Readiness};
use crate::{
    admin::{
        counts,
        ports::{self, DeviceChanges, Page, RevocationEntry},
    },
    clock::Clock,
    config::reload,
    decision::Decision,
    device::Devices,
    domain::{DecisionId, DeviceId, DeviceRecord, Facts, RevocationKind, UnixTime},
    identity::KeySetState,
    pipeline::Pipeline,
    revocation::{Listed, Revocations},
    store::{StoreError, Watch},
    telemetry::{
        audit::AuditRecord,
        explain::{self, Explanation},
    },
    wire::admin::{self as wire, Overview, StatusResponse, overview, status_response},
};

/// Refusals that are shown to who watches.
const RECENT: usize = 10;

/// Time an explanation may take: no Envoy waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct RevocationPort {
    pub(super) revocations: Arc<Revocations>,
    pub(super) clock: Clock,
    pub(super) news: NewsDesk,
}

#[async_trait]
impl ports::Revocations for RevocationPort {
    async fn revoke(
        &self,
        kind: RevocationKind,
        id: &str,
        reason: &str,
        life: Option<Duration>,
    ) -> Result<RevocationEntry, StoreError> {
        let in_force = entry(self.revocations.revoke(kind, id, reason, life).await?, self.clock.now());
        self.news.revoked(kind, id, reason).await;
        Ok(in_force)
    }

    async fn reinstate(&self, kind: RevocationKind, id: &str, reason: &str) -> Result<bool, StoreError> {
        let was_revoked = self.revocations.reinstate(kind, id).await?;
        self.news.reinstated(kind, id, reason).await;
        Ok(was_revoked)
    }

    async fn list(
        &self,
        kind: Option<RevocationKind>,
        contains: &str,
        after: &str,
        count: usize,
    ) -> Result<Page<RevocationEntry>, StoreError> {
        let now = self.clock.now();
        let (listed, next) = self.revocations.list(kind, after, count).await?;
        let entries = listed.into_iter().filter(|listed| listed.id.contains(contains));
        Ok((entries.map(|listed| entry(listed, now)).collect(), next))
    }
}

fn entry(listed: Listed, now: UnixTime) -> RevocationEntry {
    let Listed { kind, id, reason, issued_until, life, unreadable } = listed;
    let reason = if unreadable { "(the key cannot be read: refused with 503)".to_owned() } else { reason };
    RevocationEntry { kind, id, reason, issued_until, expires: life.map(|life| now.plus(life)) }
}

#[derive(Debug)]
pub(super) struct DevicePort {
    pub(super) devices: Arc<Devices>,
}

#[async_trait]
impl ports::Devices for DevicePort {
    async fn get(&self, id: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        self.devices.get(id).await
    }

    async fn write(&self, id: &DeviceId, changes: &DeviceChanges) -> Result<DeviceRecord, StoreError> {
        let set: Vec<(&str, &str)> = changes.set.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.devices.change(id, &set, &changes.clear).await
    }

    async fn delete(&self, id: &DeviceId) -> Result<bool, StoreError> {
        self.devices.delete(id).await
    }

    async fn list(
        &self,
        prefix: &str,
        cursor: &str,
        count: usize,
    ) -> Result<Page<(DeviceId, DeviceRecord)>, StoreError> {
        self.devices.list(prefix, cursor, count).await
    }
}

#[derive(Debug)]
pub(super) struct ExplainPort(pub(super) Arc<Pipeline>);

#[async_trait]
impl ports::Explainer for ExplainPort {
    async fn explain(&self, request: &[u8], client: Option<IpAddr>) -> wire::Explanation {
        let (facts, decision, rules, detail) = self.0.explain(request, client, Instant::now() + PATIENCE).await;
        let why = Explanation::of(&facts, &decision, &rules).with_detail(detail);
        explanation(&why, &facts, &decision, false)
    }

    async fn recorded(&self, id: DecisionId) -> Option<wire::Explanation> {
        let record = self.0.auditor.recent(id)?;
        Some(explanation(&record.explanation(), &record.facts, &record.decision, true))
    }
}

fn explanation(why: &Explanation, facts: &Facts, decision: &Decision, recorded: bool) -> wire::Explanation {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let scored = |scored: &explain::Scored| {
        let line = |line: &explain::ScoreLine| wire::Line {
            name: line.name.clone(),
            points: line.points,
            evidence: line.evidence.clone(),
        };
        scored.lines.iter().map(line).collect()
    };
    wire::Explanation {
        decision_id: facts.request.id.to_string(),
        time: Some(timestamp(facts.now)),
        verdict: decision.verdict.as_str().to_owned(),
        status: u32::from(decision.status()),
        reason: text(decision.reason.map(crate::decision::Reason::code)),
        why: explain::why(facts, decision),
        remedies: explain::remedies(facts, decision),
        action_required: decision.action_required().as_str().to_owned(),
        subject: why.subject.clone(),
        method: facts.request.method.as_str().to_owned(),
        host: facts.request.host.to_string(),
        path: facts.request.path.as_deref().unwrap_or_default().to_owned(),
        resource: text(decision.resource.as_deref()),
        policy: text(decision.policy.as_ref().map(crate::domain::PolicyId::as_str)),
        factors: factors(why, decision),
        findings: findings(why),
        risk: decision.risk.score.get(),
        risk_level: decision.risk.level.to_string(),
        risk_lines: scored(&why.risk),
        trust: decision.trust.score.get(),
        trust_level: decision.trust.level.to_string(),
        trust_lines: scored(&why.trust),
        grant: decision.grant.as_ref().and_then(|grant| serde_json::to_string(grant).ok()).unwrap_or_default(),
        restrictions: decision.restrictions.iter().map(str::to_owned).collect(),
        rules_version: why.rules.clone(),
        recorded,
        facts_json: serde_json::to_string(facts).unwrap_or_default(),
        decision_json: serde_json::to_string(decision).unwrap_or_default(),
    }
}

/// What a factor held and who said so; of what is lacking, why.
fn value(why: &Explanation, name: &str, factor: &explain::Factor) -> String {
    let source = factor.source.unwrap_or_default();
    let held = why.factor_values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
    match (factor.state, held, factor.why) {
        (explain::FactorState::Known, Some(held), _) => format!("{held} [{source}]"),
        (explain::FactorState::Unavailable, _, Some(missing)) => format!("{} [{source}]", missing.as_str()),
        (explain::FactorState::NotAsked, ..) => String::new(),
        _ => format!("[{source}]"),
    }
}

fn findings(why: &Explanation) -> Vec<wire::Finding> {
    why.findings
        .iter()
        .map(|found| wire::Finding {
            reason: found.reason.code().to_owned(),
            class: found.class.as_str().to_owned(),
            rule: found.rule.clone().unwrap_or_default(),
            message: found.reason.message().to_owned(),
            detail: found.detail.clone().unwrap_or_default(),
        })
        .collect()
}

fn factors(why: &Explanation, decision: &Decision) -> Vec<wire::Factor> {
    let factors = why.factors.all();
    let against: Vec<_> = decision.findings.iter().filter_map(|finding| explain::factor(finding.reason)).collect();
    factors
        .into_iter()
        .map(|(name, factor)| wire::Factor {
            name: name.to_owned(),
            state: state(factor.state).to_owned(),
            value: value(why, name, factor),
            age: factor.age_ms.map(|millis| span(Duration::from_millis(millis))),
            counted_against: against.contains(&name),
        })
        .collect()
}

const fn state(state: explain::FactorState) -> &'static str {
    match state {
        explain::FactorState::Known => "known",
        explain::FactorState::Absent => "absent",
        explain::FactorState::Unavailable => "unavailable",
        explain::FactorState::NotAsked => "not_asked",
    }
}

/// How this process stands, gathered when asked.
#[derive(Debug)]
pub(super) struct InstancePort {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) readiness: Readiness,
    pub(super) reloads: Arc<reload::Counters>,
    /// When the rules in force were taken up, in milliseconds.
    pub(super) rules_since: Arc<AtomicU64>,
    pub(super) watch: Arc<Watch>,
    pub(super) store: &'static str,
    pub(super) started: UnixTime,
}

#[async_trait]
impl ports::Instance for InstancePort {
    async fn status(&self) -> StatusResponse {
        let Pipeline { clock, authenticator, revocations, rules, counters, auditor, .. } = &*self.pipeline;
        let (now, rules, not_ready) = (clock.now(), rules.load(), self.readiness.missing());
        StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: Some(timestamp(now)),
            started: Some(timestamp(self.started)),
            ready: not_ready.is_empty(),
            not_ready,
            rules: Some(status_response::Rules {
                version: rules.version().to_string(),
                loaded: Some(timestamp(UnixTime::from_millis(self.rules_since.load(Ordering::Relaxed)))),
                resources: rules.resources().len() as u32,
                policies: rules.policies().len() as u32,
                error: if self.reloads.current.get() < 1.0 {
                    "the files hold rules that cannot be used: see the log".to_owned()
                } else {
                    String::new()
                },
            }),
            feed: Some(status_response::Feed {
                state: revocations.state().as_str().to_owned(),
                revocations: revocations.len() as u64,
                age: revocations.heard().map(span),
            }),
            key_sets: authenticator.key_sets().into_iter().map(key_set).collect(),
            store: self.store.to_owned(),
            warnings: self.watch.warnings().into_iter().map(|warning| format!("store: {warning}")).collect(),
            decisions: counters.totals().into_iter().map(|(verdict, count)| (verdict.to_owned(), count)).collect(),
            last_check: auditor.last_decision().map(|last| span(now.since(last))),
        }
    }

    async fn overview(&self) -> Overview {
        let Pipeline { clock, revocations, sessions, counters, .. } = &*self.pipeline;
        Overview {
            now: Some(timestamp(clock.now())),
            decisions: counts(counters.totals()),
            reasons: counts(counters.reasons()),
            sessions: counts(sessions.census()),
            feed: revocations.state().as_str().to_owned(),
            revocations: revocations.len() as u64,
            refusals: refusals(&self.pipeline),
        }
    }
}

fn key_set(state: KeySetState) -> status_response::KeySet {
    let KeySetState { issuer, keys, confirmed, failure } = state;
    status_response::KeySet {
        issuer,
        keys: u32::try_from(keys).unwrap_or(u32::MAX),
        fetched: confirmed.map(timestamp),
        error: failure.unwrap_or_default(),
    }
}

/// The last refusals of this replica, as people who watch see them.
fn refusals(pipeline: &Pipeline) -> Vec<overview::Refusal> {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let refusal = |record: &Arc<AuditRecord>| overview::Refusal {
        time: Some(timestamp(record.facts.now)),
        decision_id: record.facts.request.id.to_string(),
        verdict: record.decision.verdict.as_str().to_owned(),
        reason: text(record.decision.reason.map(crate::decision::Reason::code)),
        subject: text(record.facts.identity().map(|identity| identity.subject.as_str())),
        resource: text(record.decision.resource.as_deref()),
    };
    pipeline.auditor.recent_refusals(RECENT).iter().map(refusal).collect()
}

fn timestamp(time: UnixTime) -> Timestamp {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: (time.as_millis() % 1000 * 1_000_000) as i32 }
}

fn span(duration: Duration) -> Span {
    Span { seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), nanos: duration.subsec_nanos() as i32 }
}
