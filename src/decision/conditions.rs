//! What resources and policies ask of a caller, condition by condition. Each that is not met is a finding.

use std::sync::Arc;

use super::{
    outcome::{Detail, Finding, Findings},
    posture::{Lack, Posture, Sensitivity, Subject, posture},
    reason::{Class, Reason},
    scene::{Device, Scene},
};
use crate::{
    domain::{
        Classification, DeviceProof, DeviceRecord, DeviceSighting, Fact, PatchLevel, Place, Possession, RuleId,
        TrustLevel, Workload,
    },
    policy::Restrictions,
    policy::model::{ActionKind, AllowedLocation, Conditions, DeviceMode, DeviceRequirement, PatchRequirement, Policy},
    trust,
};

/// Adds what the resource itself asks for: a token, a workload, a device, a level of trust.
pub(super) fn resource(scene: &Scene<'_>, findings: &mut Findings) {
    let rule = || scene.target.resources.first().map(|resource| RuleId::from(&*resource.id));
    // A workload known by its certificate alone has no audience: there was no token.
    if scene.target.authenticated_by.needs_token() && scene.identity.audience.is_empty() {
        findings.push(Finding::new(Reason::NoCredentials, rule()));
    }
    if scene.target.authenticated_by.needs_workload() && !scene.facts.workload.value().is_some_and(Workload::is_trusted)
    {
        findings.push(Finding::new(Reason::WorkloadRequired, rule()));
    }
    if scene.target.device == DeviceMode::Always
        && let Some((reason, detail)) = device_required(scene)
    {
        findings.push(Finding::new(reason, rule()).with(detail));
    }
    trust_level(scene, scene.target.min_trust_level, rule, findings);
}

fn trust_level(scene: &Scene<'_>, least: TrustLevel, rule: impl Fn() -> Option<RuleId>, findings: &mut Findings) {
    if scene.trust.level < least {
        findings.push(Finding::new(Reason::TrustTooLow, rule()).with(Detail::Level(least)));
    }
}

/// What keeps a device from being the active, owned, compliant and proven one that `always` asks for.
fn device_required(scene: &Scene<'_>) -> Option<(Reason, Detail)> {
    match scene.device {
        Device::Unknown(why) => required(Subject::Device, Lack::Unavailable(why)),
        Device::Ignored => required(Subject::Device, Lack::NotAsked),
        Device::Unregistered if scene.certified_service => None,
        Device::Unregistered => required(Subject::Device, Lack::Absent),
        Device::Contradicted(problem, _) => Some((problem.reason(), Detail::Device(problem))),
        Device::Registered(_, record) if record.user.is_none() => {
            Some((Reason::DeviceNotRegistered, Detail::Requirement("user")))
        }
        Device::Registered(_, record) if record.compliant != Some(true) => {
            Some((Reason::DeviceNotCompliant, Detail::None))
        }
        Device::Registered(sighting, _) if sighting.evidence.posture_stale => {
            Some((Reason::DevicePostureStale, Detail::None))
        }
        Device::Registered(sighting, _) if sighting.proof == DeviceProof::IdOnly && !scene.certified_service => {
            Some((Reason::DeviceNotProven, Detail::None))
        }
        Device::Registered(..) => None,
    }
}

fn required(subject: Subject, lack: Lack) -> Option<(Reason, Detail)> {
    let detail = if let Lack::Unavailable(why) = lack { Detail::Missing(why) } else { Detail::None };
    match posture(subject, lack, Sensitivity::Required) {
        Posture::Refuse(reason) => Some((reason, detail)),
        Posture::Neutral | Posture::Nothing | Posture::Penalty => None,
    }
}

/// Adds what one policy asks for of a session under `restrictions`. Missing scopes are named in `scope`.
pub(super) fn policy(
    scene: &Scene<'_>,
    policy: &Policy,
    restrictions: Restrictions,
    findings: &mut Findings,
    scope: &mut Option<Arc<str>>,
) {
    let mut add = |reason, detail| {
        findings.push(Finding::new(reason, Some(policy.id.as_str().into())).with(detail));
    };
    trust_and_methods(scene, &policy.conditions, &mut add);
    if let Some((reason, detail)) = locations(scene, &policy.conditions.allowed_locations) {
        add(reason, detail);
    }
    if let Some((reason, detail)) = requirements(scene, &policy.conditions.device_requirements) {
        add(reason, detail);
    }
    if let Some(class) = uncovered(scene, policy) {
        add(Reason::ClassificationNotCovered, Detail::Classification(class));
    }
    if let Some(missing) = missing_scopes(scene, &policy.conditions.api_scopes) {
        add(Reason::ScopeMissing, Detail::None);
        scope.get_or_insert(missing);
    }
    if !policy.conditions.without_restrictions.common(restrictions).is_empty() {
        add(Reason::PrivilegesReduced, Detail::None);
    }
    constraints(scene, policy, &mut add);
    if policy.actions.contains(&ActionKind::Deny) {
        add(Reason::PolicyDenied, Detail::None);
    }
    if policy.actions.contains(&ActionKind::StepUp) && !scene.stepped_up() {
        add(Reason::StepUpRequired, Detail::None);
    }
}

/// The first class of data that `policy` does not cover. What a route raises is asked for besides, never instead: a
/// policy that does not cover the resource's own class does not begin to.
fn uncovered(scene: &Scene<'_>, policy: &Policy) -> Option<Option<Classification>> {
    let covered = &policy.conditions.data_classification;
    let own = scene.target.classes_under(policy, &scene.facts.request);
    let mut all = own.chain([scene.target.classification]);
    all.find(|class| !covered.is_empty() && !class.is_some_and(|class| covered.contains(&class)))
}

fn trust_and_methods(scene: &Scene<'_>, conditions: &Conditions, add: &mut impl FnMut(Reason, Detail)) {
    if let Some(least) = conditions.min_trust_score.filter(|least| scene.trust.score.get() < *least) {
        add(Reason::TrustTooLow, Detail::Score(least));
    }
    if let Some(least) = conditions.min_trust_level.filter(|least| scene.trust.level < *least) {
        add(Reason::TrustTooLow, Detail::Level(least));
    }
    if conditions.max_risk.is_some_and(|most| scene.risk.score.get() > most) {
        add(Reason::MfaRequired, Detail::Risk(scene.risk.score.get()));
    }
    if !scene.methods.contains_all(conditions.required_auth_methods) {
        let missing = conditions.required_auth_methods.iter().filter(|method| !scene.methods.contains(*method));
        add(Reason::AuthenticationMethodRequired, Detail::Methods(missing.collect()));
    }
}

fn locations(scene: &Scene<'_>, allowed: &[AllowedLocation]) -> Option<(Reason, Detail)> {
    let client = scene.facts.request.client;
    if allowed.is_empty() || allowed.iter().any(|location| location.contains_address(client)) {
        return None;
    }
    if allowed.iter().all(|location| matches!(location, AllowedLocation::Cidr(_))) {
        return Some((Reason::LocationNotAllowed, Detail::None));
    }
    match &scene.facts.place {
        Fact::Known { value, .. } if allowed.iter().any(|location| contains(location, value)) => None,
        lacking => Lack::of(lacking)
            .and_then(|lack| required(Subject::Place, lack))
            .or(Some((Reason::LocationNotAllowed, Detail::None))),
    }
}

fn contains(location: &AllowedLocation, place: &Place) -> bool {
    use crate::domain::NetworkKind::{Corporate, Private};
    match location {
        AllowedLocation::CorporateNetwork => place.network == Corporate,
        AllowedLocation::PrivateNetwork => place.network == Private,
        AllowedLocation::KnownSecureLocation(names) if names.is_empty() => !place.known_networks.is_empty(),
        AllowedLocation::KnownSecureLocation(names) => place.known_networks.iter().any(|name| names.contains(name)),
        AllowedLocation::Country(codes) => place.country.as_ref().is_some_and(|country| codes.contains(country)),
        AllowedLocation::Cidr(_) => false,
    }
}

fn requirements(scene: &Scene<'_>, asked: &[DeviceRequirement]) -> Option<(Reason, Detail)> {
    if asked.is_empty() {
        return None;
    }
    match scene.device {
        Device::Ignored => required(Subject::Device, Lack::NotAsked),
        Device::Unknown(why) => required(Subject::Device, Lack::Unavailable(why)),
        Device::Contradicted(problem, _) => Some((problem.reason(), Detail::Device(problem))),
        // A service's certificate proves a key, and nothing about compliance.
        Device::Unregistered if scene.certified_service => {
            let all_proof = asked.iter().all(|one| matches!(one, DeviceRequirement::Proof(_)));
            (!all_proof).then_some((Reason::DeviceNotRegistered, Detail::None))
        }
        Device::Unregistered => required(Subject::Device, Lack::Absent),
        Device::Registered(sighting, record) => asked
            .iter()
            .find(|one| !meets(scene, one, record, sighting))
            .map(|unmet| unmet_requirement(unmet, sighting)),
    }
}

/// A posture that is too old has a reason of its own: checking again mends it.
fn unmet_requirement(unmet: &DeviceRequirement, sighting: &DeviceSighting) -> (Reason, Detail) {
    let stale = sighting.evidence.posture_stale && is_posture(unmet);
    let reason = if stale { Reason::DevicePostureStale } else { Reason::DeviceRequirementUnmet };
    (reason, Detail::Requirement(unmet.key()))
}

/// Whether it is about what a check of the device's posture finds, and ages with it.
const fn is_posture(asked: &DeviceRequirement) -> bool {
    !matches!(asked, DeviceRequirement::Proof(_) | DeviceRequirement::MinTrustScore(_))
}

/// What is unknown meets nothing, and neither does what was checked too long ago.
fn meets(scene: &Scene<'_>, asked: &DeviceRequirement, record: &DeviceRecord, sighting: &DeviceSighting) -> bool {
    if sighting.evidence.posture_stale && is_posture(asked) {
        return false;
    }
    match asked {
        DeviceRequirement::Managed(is) => record.managed == Some(*is),
        DeviceRequirement::Compliant(is) => record.compliant == Some(*is),
        DeviceRequirement::Jailbroken(is) => record.jailbroken == Some(*is),
        DeviceRequirement::DiskEncrypted(is) => record.disk_encrypted == Some(*is),
        DeviceRequirement::PatchLevel(asked) => record.patch_level.is_some_and(|level| patched(scene, *asked, level)),
        DeviceRequirement::Os(names) => {
            record.os.as_ref().is_some_and(|os| names.iter().any(|name| name.eq_ignore_ascii_case(os)))
        }
        DeviceRequirement::Proof(least) => sighting.proof >= *least || scene.certified_service,
        DeviceRequirement::MinTrustScore(least) => {
            trust::device::score(record, sighting.evidence, scene.facts.now).get() >= *least
        }
    }
}

fn patched(scene: &Scene<'_>, asked: PatchRequirement, level: PatchLevel) -> bool {
    let (behind, since) = match asked {
        PatchRequirement::Current => (0, PatchRequirement::CURRENT_DAYS),
        PatchRequirement::Days(days) => (days, days),
    };
    match level {
        PatchLevel::Current => true,
        PatchLevel::Days(days) => days <= behind,
        PatchLevel::Since(_) => {
            level.age(scene.facts.now).is_some_and(|age| age.as_secs() <= u64::from(since) * 24 * 3600)
        }
    }
}

/// The scopes that are asked for and not held, separated by spaces.
fn missing_scopes(scene: &Scene<'_>, asked: &[Arc<str>]) -> Option<Arc<str>> {
    let missing: Vec<&str> =
        asked.iter().filter(|scope| !scene.identity.scopes.contains(scope)).map(|scope| &**scope).collect();
    (!missing.is_empty()).then(|| missing.join(" ").into())
}

fn constraints(scene: &Scene<'_>, policy: &Policy, add: &mut impl FnMut(Reason, Detail)) {
    let constraints = &policy.constraints;
    let request = &scene.facts.request;
    if constraints.require_justification && request.justification.is_none() {
        add(Reason::JustificationRequired, Detail::None);
    }
    if constraints.require_signed_requests && scene.proof != Some(Possession::Dpop) {
        add(Reason::SignedRequestRequired, Detail::None);
    }
    if constraints.encrypt_in_transit && !request.encrypted {
        add(Reason::EncryptionRequired, Detail::None);
    }
    // A workload known by its certificate alone has no audience: there was no token.
    if constraints.validate_jwt && scene.identity.audience.is_empty() {
        add(Reason::TokenRequired, Detail::None);
    }
    if constraints.session_duration.is_some_and(|longest| scene.session_age() > longest.as_secs_f64()) {
        add(Reason::SessionTooOld, Detail::Age(scene.session_age() as u64));
    }
}

/// Whether a finding is one that only an authentication in this very context mends.
pub(super) fn is_contextual(finding: &Finding) -> bool {
    finding.class == Class::StepUp
        && matches!(
            finding.reason,
            Reason::MfaRequired
                | Reason::UnusualLocationStepUp
                | Reason::StepUpRequired
                | Reason::SessionChanged
                | Reason::IdentityUnverified
                | Reason::SessionStepUp
                | Reason::LocationUnverified
        )
}
