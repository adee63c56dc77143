//! What the lines of a recorded decision's scores rest on. A record holds their points; the rest follows from its facts.

use super::{
    inputs::{CERTIFIED, authenticated_at, is_certified_service, methods_used, trust_inputs},
    scene::known_device,
};
use crate::{
    domain::{Credential, Evidence, Fact, Facts, Lines, RiskScore, Signal, SignalName, SubjectKind},
    risk::fixed,
    trust,
};

/// Every line that these facts can make whose evidence is more than its name, whichever model counted. Their points are not
/// the recorded ones. `device`: the recorded points of that line, which tell whether the rules asked for a device.
pub fn evidence(facts: &Facts, risk: RiskScore, device: f64) -> Lines {
    let mut lines = trust_lines(facts, risk, device);
    let terms = facts.behavior.value().and_then(|past| past.assessment).map(|told| told.terms).unwrap_or_default();
    lines.extend(terms.into_iter().flatten().map(|(name, nats)| Signal::new(name, nats, Evidence::Nats(nats))));
    let unknown =
        [(SignalName::LocationUnknown, lack(&facts.place)), (SignalName::BehaviorUnknown, lack(&facts.behavior))];
    lines.extend(unknown.into_iter().filter_map(|(name, why)| fixed::unknown(name, why)));
    lines
}

fn trust_lines(facts: &Facts, risk: RiskScore, device: f64) -> Lines {
    let Some(Credential::Verified { identity, proof }) = facts.credential.value() else { return Lines::new() };
    let certified = is_certified_service(facts, identity, *proof);
    let methods = methods_used(facts, identity, certified);
    let age = facts.now.since(authenticated_at(facts, identity)).as_secs_f64();
    let age = (identity.kind == SubjectKind::Person).then_some(age);
    let registered = known_device(facts).and_then(|seen| {
        let record = seen.record.as_deref()?;
        Some((trust::device::score(record, seen.evidence, facts.now), seen.proof))
    });
    let scored = |by| trust::score(&trust_inputs(facts, methods, by, risk, age)).lines;
    let off = |lines: &Lines| {
        let line = lines.iter().find(|line| line.name == SignalName::Device);
        line.map_or(f64::MAX, |line| (line.points - device).abs())
    };
    // The first of equals.
    let possible = [registered.map(Some), certified.then_some(Some(CERTIFIED)), Some(None)];
    possible.into_iter().flatten().map(scored).min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or_default()
}

fn lack<T>(fact: &Fact<T>) -> Option<crate::domain::Unavailable> {
    if let Fact::Unavailable(why) = fact { Some(*why) } else { None }
}
