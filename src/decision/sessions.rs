//! Rules for sessions: what becomes of one whose evidence has changed. A service is never asked for an authentication.

use super::{
    guards::{self, Holds},
    outcome::{Detail, Finding, Findings},
    posture::Sensitivity,
    reason::Reason,
    scene::{Device, Scene},
};
use crate::{
    domain::{Fact, Method, RuleId},
    policy::{
        Restrictions,
        model::{SessionOutcome, SessionRule, SessionWhen},
    },
};

/// What the rules bring besides findings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// A rule asks for an authentication, satisfied or not.
    pub(super) challenged: bool,
    /// The session is over.
    pub(super) ends: bool,
    pub(super) restrictions: Restrictions,
}

pub(super) fn apply(scene: &Scene<'_>, findings: &mut Findings) -> Outcome {
    let mut outcome = Outcome::default();
    if !matches!(scene.facts.session, Fact::Known { .. } | Fact::Absent) {
        return outcome;
    }
    for rule in scene.rules.sessions() {
        rule_outcome(scene, rule, &mut outcome, findings);
    }
    outcome
}

/// Where a rule takes something away, what cannot be told leaves it open; where it asks for more, it counts as nothing.
fn rule_outcome(scene: &Scene<'_>, rule: &SessionRule, outcome: &mut Outcome, findings: &mut Findings) {
    let sensitivity = match rule.outcome {
        SessionOutcome::EndSession | SessionOutcome::ReducePrivileges(_) => Sensitivity::Required,
        _ => Sensitivity::Weighed,
    };
    match (holds(&rule.when, scene, sensitivity), rule.outcome) {
        (Holds::No, _) => {}
        (_, SessionOutcome::ReducePrivileges(names)) => outcome.restrictions = outcome.restrictions.union(names),
        (Holds::Untold(reason), SessionOutcome::EndSession) => findings.push(finding(reason, rule, scene)),
        (Holds::Yes, SessionOutcome::EndSession) => {
            outcome.ends = true;
            findings.push(finding(Reason::SessionEnded, rule, scene));
        }
        (Holds::Untold(_), _) => {}
        (Holds::Yes, _) if scene.is_service() => {}
        (Holds::Yes, asked) => {
            outcome.challenged = true;
            let (reason, done) = match asked {
                SessionOutcome::Reauthenticate => (Reason::SessionChanged, scene.reauthenticated()),
                SessionOutcome::VerifyIdentity => (Reason::IdentityUnverified, scene.stepped_up()),
                SessionOutcome::VerifyLocation => (Reason::LocationUnverified, scene.stepped_up()),
                _ => (Reason::SessionStepUp, scene.stepped_up()),
            };
            if !done {
                findings.push(finding(reason, rule, scene));
            }
        }
    }
}

/// Refuses what a restricted session may not do, as far as that is for us to keep.
pub(super) fn keep(scene: &Scene<'_>, restrictions: Restrictions, findings: &mut Findings) {
    let reads = matches!(scene.facts.request.method, Method::Get | Method::Head | Method::Options);
    if !reads && !restrictions.common(Restrictions::READ_ONLY).is_empty() {
        let rule = restricting(scene, Restrictions::READ_ONLY);
        findings.push(Finding::new(Reason::PrivilegesReduced, rule));
    }
}

/// The first rule that lays one of `names` on sessions.
fn restricting(scene: &Scene<'_>, names: Restrictions) -> Option<RuleId> {
    let lays = |rule: &&SessionRule| matches!(rule.outcome, SessionOutcome::ReducePrivileges(own) if !own.common(names).is_empty());
    scene.rules.sessions().iter().find(lays).map(|rule| rule.id.clone())
}

fn finding(reason: Reason, rule: &SessionRule, scene: &Scene<'_>) -> Finding {
    let risky = rule.when.risk_above_ceiling || rule.when.anomaly.is_some();
    let detail = if risky { Detail::Risk(scene.risk.score.get()) } else { Detail::None };
    Finding::new(reason, Some(rule.id.clone())).with(detail)
}

fn holds(when: &SessionWhen, scene: &Scene<'_>, sensitivity: Sensitivity) -> Holds {
    let mut all = guards::holds(&when.request, scene, sensitivity);
    let session = scene.session();
    if when.risk_above_ceiling {
        let ceiling = session.and_then(|session| session.risk_ceiling);
        all = all.and(Holds::when(ceiling.is_some_and(|ceiling| scene.risk.score > ceiling)));
    }
    if let Some(name) = when.anomaly {
        all = all.and(Holds::when(scene.risk.lines.iter().any(|line| line.name == name && line.points > 0.0)));
    }
    if when.device_changed {
        all = all.and(device_changed(scene, sensitivity));
    }
    if when.place_changed {
        let began = session.and_then(|session| session.start.country.as_deref());
        all = all.and(match began {
            None => Holds::No,
            began => {
                guards::place(scene, sensitivity, |place| place.country.is_some() && place.country.as_deref() != began)
            }
        });
    }
    if when.network_changed {
        all = all.and(match session.and_then(|session| session.start.asn) {
            None => Holds::No,
            began => guards::place(scene, sensitivity, |place| place.asn.is_some() && place.asn != began),
        });
    }
    all
}

/// Another device than at the beginning, or none any more.
fn device_changed(scene: &Scene<'_>, sensitivity: Sensitivity) -> Holds {
    let Some(began) = scene.session().and_then(|session| session.start.device.as_ref()) else { return Holds::No };
    match (&scene.facts.device, scene.device) {
        (_, Device::Ignored) => Holds::No,
        (Fact::Known { value, .. }, _) => Holds::when(value.id != *began),
        (Fact::Unavailable(_), _) if sensitivity == Sensitivity::Required => Holds::Untold(Reason::DeviceUnknown),
        (Fact::Unavailable(_) | Fact::NotAsked, _) => Holds::No,
        (Fact::Absent, _) => Holds::Yes,
    }
}
