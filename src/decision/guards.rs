//! Guards: rules that look at every request of a known caller. All are evaluated; deny beats step-up by class.

use super::{
    outcome::{Detail, Finding, Findings},
    posture::{Lack, Posture, Sensitivity, Subject, posture},
    reason::Reason,
    scene::{Device, Scene},
};
use crate::{
    domain::Fact,
    policy::model::{DeviceState, Guard, GuardAction, LocationState, When},
};

/// True, false, or a fact is missing that could make it true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    No,
    Yes,
    /// Cannot be told, and this is the refusal if it must be.
    Untold(Reason),
}

impl Holds {
    pub(super) const fn when(seen: bool) -> Self {
        if seen { Self::Yes } else { Self::No }
    }

    /// All must hold: one that does not settles it, one that cannot be told leaves it open.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Untold(why), _) | (_, Self::Untold(why)) => Self::Untold(why),
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

/// Adds what the guards find. True where a step-up guard applies, satisfied or not.
pub(super) fn apply(scene: &Scene<'_>, findings: &mut Findings) -> bool {
    let mut challenged = false;
    for guard in scene.rules.guards() {
        // Where a guard could refuse, a missing fact leaves it open; where it asks for more, it counts as nothing there.
        let sensitivity = match guard.action {
            GuardAction::Deny => Sensitivity::Required,
            GuardAction::StepUp => Sensitivity::Weighed,
        };
        match (holds(&guard.when, scene, sensitivity), guard.action) {
            (Holds::No, _) | (Holds::Untold(_), GuardAction::StepUp) => {}
            (Holds::Untold(reason), GuardAction::Deny) => findings.push(finding(reason, guard, scene)),
            (Holds::Yes, GuardAction::Deny) => findings.push(finding(refusal(&guard.when, scene), guard, scene)),
            (Holds::Yes, GuardAction::StepUp) => {
                challenged = true;
                if !scene.stepped_up() {
                    findings.push(finding(step_up(&guard.when), guard, scene));
                }
            }
        }
    }
    challenged
}

fn finding(reason: Reason, guard: &Guard, scene: &Scene<'_>) -> Finding {
    let detail = match (&scene.device, reason) {
        (Device::Contradicted(problem, _), reason) if reason == problem.reason() => Detail::Device(*problem),
        (Device::Unknown(why), Reason::DeviceUnknown) => Detail::Missing(*why),
        (_, Reason::RiskTooHigh | Reason::MfaRequired) => Detail::Risk(scene.risk.score.get()),
        _ => Detail::None,
    };
    Finding::new(reason, Some(guard.id.clone())).with(detail)
}

pub(super) fn holds(when: &When, scene: &Scene<'_>, sensitivity: Sensitivity) -> Holds {
    let risk = &scene.risk;
    let mut all = Holds::when(when.risk_at_least.is_none_or(|least| risk.score.get() >= least))
        .and(Holds::when(when.risk_level.is_none_or(|least| risk.level >= least)))
        .and(Holds::when(when.subject.is_none_or(|kind| scene.identity.kind == kind)));
    if let Some(state) = when.device {
        all = all.and(device(state, scene, sensitivity));
    }
    if let Some(state) = when.location {
        all = all.and(location(state, scene, sensitivity));
    }
    if let Some(kind) = when.network {
        all = all.and(place(scene, sensitivity, |place| place.network == kind));
    }
    all
}

fn device(state: DeviceState, scene: &Scene<'_>, sensitivity: Sensitivity) -> Holds {
    let unregistered = !scene.certified_service;
    let seen = match scene.device {
        Device::Unknown(why) => match posture(Subject::Device, Lack::Unavailable(why), sensitivity) {
            Posture::Refuse(reason) => return Holds::Untold(reason),
            Posture::Neutral => return Holds::No,
            Posture::Nothing | Posture::Penalty => Device::Unregistered,
        },
        seen => seen,
    };
    match (seen, state) {
        (Device::Ignored | Device::Unknown(_), _) => Holds::No,
        (Device::Contradicted(..), DeviceState::Untrusted | DeviceState::NotCompliant) => Holds::Yes,
        (Device::Contradicted(_, record), DeviceState::Unregistered) => Holds::when(record.is_none()),
        (Device::Unregistered, DeviceState::Untrusted) => Holds::No,
        (Device::Unregistered, DeviceState::Unregistered | DeviceState::NotCompliant) => Holds::when(unregistered),
        (Device::Registered(..), DeviceState::Untrusted | DeviceState::Unregistered) => Holds::No,
        (Device::Registered(seen, record), DeviceState::NotCompliant) => {
            Holds::when(record.compliant != Some(true) || seen.evidence.posture_stale)
        }
    }
}

fn location(state: LocationState, scene: &Scene<'_>, sensitivity: Sensitivity) -> Holds {
    let countries = scene.rules.options().allowed_countries;
    // Where nobody can tell from where, it is from none of the countries that are allowed.
    if countries && state == LocationState::NotAllowed && matches!(scene.facts.place, Fact::Absent) {
        return Holds::Yes;
    }
    place(scene, sensitivity, |place| match state {
        LocationState::Unusual => place.unusual,
        LocationState::NotAllowed => !place.allowed,
        LocationState::ImpossibleTravel => place.impossible_travel,
    })
}

pub(super) fn place(
    scene: &Scene<'_>,
    sensitivity: Sensitivity,
    test: impl Fn(&crate::domain::Place) -> bool,
) -> Holds {
    let lack = match &scene.facts.place {
        Fact::Known { value, .. } => return Holds::when(test(value)),
        Fact::Absent => Lack::Absent,
        Fact::Unavailable(why) => Lack::Unavailable(*why),
        Fact::NotAsked => Lack::NotAsked,
    };
    match posture(Subject::Place, lack, sensitivity) {
        Posture::Refuse(reason) => Holds::Untold(reason),
        Posture::Neutral | Posture::Nothing | Posture::Penalty => Holds::No,
    }
}

/// The most telling of what a denying guard looks for.
fn refusal(when: &When, scene: &Scene<'_>) -> Reason {
    let unregistered = matches!(scene.device, Device::Unregistered | Device::Contradicted(_, None));
    if let (Some(DeviceState::Untrusted), Device::Contradicted(problem, _)) = (when.device, scene.device) {
        return problem.reason();
    }
    match (when.device, when.location) {
        (Some(DeviceState::Untrusted), _) => Reason::DeviceUntrusted,
        (Some(DeviceState::Unregistered), _) => Reason::DeviceNotRegistered,
        (Some(DeviceState::NotCompliant), _) if unregistered => Reason::DeviceNotRegistered,
        (Some(DeviceState::NotCompliant), _) => Reason::DeviceNotCompliant,
        (None, Some(LocationState::Unusual)) => Reason::LocationUnusual,
        (None, Some(LocationState::NotAllowed)) => Reason::LocationNotAllowed,
        (None, Some(LocationState::ImpossibleTravel)) => Reason::ImpossibleTravel,
        (None, None) if when.network.is_some() => Reason::NetworkNotAllowed,
        (None, None) if when.risk_at_least.is_some() || when.risk_level.is_some() => Reason::RiskTooHigh,
        // A guard without any condition is refused when rules are built: what is left reads the subject.
        (None, None) => Reason::SubjectNotAllowed,
    }
}

fn step_up(when: &When) -> Reason {
    if when.location.is_some() {
        Reason::UnusualLocationStepUp
    } else if when.risk_at_least.is_some() || when.risk_level.is_some() {
        Reason::MfaRequired
    } else {
        Reason::StepUpRequired
    }
}
