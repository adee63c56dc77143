//! Whether access is held: directly, through a role, by the policy, by an attribute policy, or not at all.

use super::{
    outcome::{Detail, Finding, Findings, Grant},
    posture::{Lack, Posture, Sensitivity, Subject, posture},
    reason::Reason,
    scene::{Device, Scene},
};
use crate::{
    domain::{Classification, DeviceRecord, Fact, Possession, RuleId, Unavailable},
    policy::{
        AttributePolicies, AttributeVerdict, Question, Untold,
        model::{Access, ActionKind, Resource},
    },
};

/// How access is held. What stands against it is added to `findings`.
///
/// Several resources (the route's and one an extension names) must all be held; the first names the grant.
pub(super) fn grant(scene: &Scene<'_>, findings: &mut Findings) -> Option<Grant> {
    let mut held = None;
    let mut all = true;
    for resource in scene.target.resources.iter() {
        match one(scene, resource, findings) {
            Some(own) => {
                held.get_or_insert(own);
            }
            None => all = false,
        }
    }
    held.filter(|_| all)
}

fn one(scene: &Scene<'_>, resource: &Resource, findings: &mut Findings) -> Option<Grant> {
    // Asked always: a `forbid` bites, however access is held. Public is nothing here: the route asks for more.
    let (permit, untold) = match scene.rules.attribute_policies().map(|policies| ask(policies, scene, resource)) {
        Some(AttributeVerdict::Forbid(id)) => return refuse(findings, Reason::AttributePolicyForbids, Some(id)),
        Some(AttributeVerdict::Failed(id)) => return refuse(findings, Reason::AttributePolicyFailed, Some(id)),
        Some(AttributeVerdict::Permit(id)) => (Some(id), None),
        Some(AttributeVerdict::Untold { fact, forbid, permit }) => (permit, Some((fact, forbid))),
        Some(AttributeVerdict::Silent) | None => (None, None),
    };
    let held = match (resource.access, &resource.permission) {
        (Access::Public | Access::Authenticated, _) => Some(Grant::Authenticated),
        (Access::Authorized, Some(permission)) => permitted(scene, permission),
        (Access::Authorized, None) => by_policy(scene, resource),
    };
    // Who holds it otherwise needs no permit that cannot be told; a `forbid` that cannot be told concerns everybody.
    if let Some((fact, forbid)) = untold.filter(|(_, forbid)| forbid.is_some() || held.is_none()) {
        findings.push(unknown(fact, forbid.or_else(|| permit.clone())));
    }
    let held = held.or_else(|| permit.map(Grant::Attribute));
    held.or_else(|| refuse(findings, Reason::PermissionMissing, Some((&*resource.id).into())))
}

/// What an attribute policy reads cannot be had: as where a guard that denies reads it.
fn unknown(fact: Untold, rule: Option<RuleId>) -> Finding {
    let (subject, why) = match fact {
        Untold::Place(why) => (Subject::Place, why),
        Untold::Device(why) => (Subject::Device, why),
    };
    let reason = match posture(subject, Lack::Unavailable(why), Sensitivity::Required) {
        Posture::Refuse(reason) => reason,
        Posture::Neutral | Posture::Nothing | Posture::Penalty => Reason::AttributePolicyFailed,
    };
    Finding::new(reason, rule).with(Detail::Missing(why))
}

fn refuse(findings: &mut Findings, reason: Reason, rule: Option<RuleId>) -> Option<Grant> {
    findings.push(Finding::new(reason, rule));
    None
}

fn permitted(scene: &Scene<'_>, permission: &str) -> Option<Grant> {
    if scene.identity.permissions.iter().any(|held| held.as_str() == permission) {
        return Some(Grant::Direct);
    }
    let role = scene.identity.roles.iter().find(|role| scene.rules.role_grants(role.as_str(), permission));
    role.map(|role| Grant::Role(role.clone()))
}

/// Where no permission is named, the resource's own policy speaks for it.
fn by_policy(scene: &Scene<'_>, resource: &Resource) -> Option<Grant> {
    let policy = scene.rules.policy(resource.policy.as_ref()?.as_str())?;
    let allows = policy.actions.iter().any(|action| *action != ActionKind::Deny);
    allows.then(|| Grant::Policy(policy.id.clone()))
}

fn ask(policies: &AttributePolicies, scene: &Scene<'_>, resource: &Resource) -> AttributeVerdict {
    let request = &scene.facts.request;
    let Ok(path) = &request.path else { return AttributeVerdict::Failed("attribute-policies".into()) };
    let place = scene.place();
    let (device, record) = device(scene.device);
    policies.verdict(&Question {
        identity: scene.identity,
        multi_factor: scene.methods.is_multi_factor(),
        resource,
        classification: scene.target.classification.map(Classification::as_str),
        method: &request.method,
        host: &request.host,
        path,
        address: request.client,
        // Rounded so that it never looks better than it is.
        risk: scene.risk.score.get().ceil() as i64,
        risk_level: scene.risk.level.as_str(),
        trust: (scene.trust.score.get() * 100.0).floor() as i64,
        trust_level: scene.trust.level.as_str(),
        device,
        device_managed: record.and_then(|record| record.managed),
        device_compliant: record.and_then(|record| record.compliant),
        country: place.and_then(|place| place.country.as_deref()),
        network: match scene.facts.place {
            Fact::Unavailable(why) => Err(why),
            _ => Ok(place.map_or("unknown", |place| place.network.as_str())),
        },
        encrypted: request.encrypted,
        signed: scene.proof == Some(Possession::Dpop),
        justified: request.justification.is_some(),
        hour: i64::try_from(scene.facts.now.as_secs() / 3600 % 24).unwrap_or_default(),
    })
}

const fn device(device: Device<'_>) -> (Result<&'static str, Unavailable>, Option<&DeviceRecord>) {
    match device {
        Device::Ignored => (Ok("ignored"), None),
        Device::Unknown(why) => (Err(why), None),
        Device::Unregistered => (Ok("unregistered"), None),
        Device::Contradicted(_, record) => (Ok("untrusted"), record),
        Device::Registered(_, record) => (Ok("registered"), Some(record)),
    }
}
