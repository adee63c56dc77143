//! What the status page shows of the parts. Read only; to the operator on this machine, or whoever holds the page's token.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{
    decision::Reason,
    domain::{DecisionId, Facts, TrustLevel},
    ops::Sources,
    pipeline::Pipeline,
    telemetry::{
        audit::AuditRecord,
        explain::{self, Explanation},
    },
};

/// How many refusals and reasons are listed.
const REFUSALS: usize = 50;
const REASONS: usize = 8;

/// The sections of the page, and the explanation behind a refusal.
pub(super) fn fill(sources: &mut Sources, pipeline: &Arc<Pipeline>) {
    let mut section = |name, of: fn(&Pipeline) -> Value| {
        let parts = Arc::clone(pipeline);
        sources.status.push((name, Box::new(move || of(&parts))));
    };
    section("decisions", |parts| json!(parts.counters.totals().into_iter().collect::<BTreeMap<_, _>>()));
    section("reasons", reasons);
    section(
        "feed",
        |parts| json!({ "state": parts.revocations.state().as_str(), "revocations": parts.revocations.len() }),
    );
    section("rules", rules);
    section("sessions", |parts| sessions(&parts.sessions.census()));
    section("refusals", |parts| parts.auditor.recent_refusals(REFUSALS).iter().map(|record| refusal(record)).collect());
    let (clock, started) = (pipeline.clock.clone(), pipeline.clock.now());
    sources.status.push((
        "instance",
        Box::new(move || json!({ "version": env!("CARGO_PKG_VERSION"), "up": clock.now().since(started).as_secs() })),
    ));
    let parts = Arc::clone(pipeline);
    sources.explain = Some(Box::new(move |id| {
        let record = parts.auditor.recent(DecisionId::parse(id)?)?;
        let AuditRecord { facts, decision, rules, .. } = &*record;
        Some(json!({
            "why": explain::why(facts, decision),
            "remedies": explain::remedies(facts, decision),
            "explanation": Explanation::of(facts, decision, rules),
        }))
    }));
}

fn rules(parts: &Pipeline) -> Value {
    let rules = parts.rules.load();
    let shadow = parts.auditor.shadows().version();
    json!({
        "version": &**rules.version(), "resources": rules.resources().len(), "policies": rules.policies().len(),
        "shadow": shadow.as_deref(),
    })
}

/// The least trusted first, then those that were ended.
fn sessions(census: &BTreeMap<&'static str, u64>) -> Value {
    let levels = TrustLevel::ALL.iter().map(|level| level.as_str()).chain(["ended"]);
    let counted = levels.filter_map(|name| Some(json!({ "level": name, "count": census.get(name)? })));
    counted.collect()
}

/// The commonest first, since the start.
fn reasons(parts: &Pipeline) -> Value {
    let mut counted = parts.counters.reasons();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted.truncate(REASONS);
    counted.into_iter().map(|(reason, count)| json!({ "reason": reason, "count": count })).collect()
}

fn refusal(record: &AuditRecord) -> Value {
    json!({
        "id": record.facts.request.id.to_string(),
        "time": record.facts.now.as_millis(),
        "verdict": record.decision.verdict.as_str(),
        "reason": record.decision.reason.map(Reason::code),
        "request": request(&record.facts),
        "resource": record.decision.resource.as_deref(),
    })
}

/// Cut: a path may be long, and is in the explanation.
fn request(facts: &Facts) -> String {
    const LONGEST: usize = 80;
    let path = facts.request.path.as_deref().unwrap_or("?");
    let whole = format!("{} {}{path}", facts.request.method.as_str(), facts.request.host);
    if whole.chars().count() <= LONGEST {
        return whole;
    }
    whole.chars().take(LONGEST - 1).chain(['…']).collect()
}
