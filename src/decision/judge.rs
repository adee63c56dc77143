//! The judgement itself: every rule adds its findings, the first class with a member answers.

use std::sync::Arc;

use super::{
    conditions, guards, notices,
    outcome::{Decision, Detail, Finding, Findings, Grant, PolicyLimits, QuotaWanted},
    permission,
    posture::{Lack, Posture, Sensitivity, Subject, posture},
    reason::{Class, Reason},
    scene::{Scene, WhatIf},
    sessions, step_up,
    target::{Few, Target},
    verification,
};
use crate::{
    domain::{
        Credential, CredentialProblem, Fact, Facts, Identity, Possession, Revocation, RevocationKind, RuleId, Transport,
    },
    policy::{
        RateLimit, RateScope, Rules,
        model::{Access, Policy},
    },
};

/// Judges facts by rules. Pure: equal inputs, equal decisions. Mints nothing.
pub fn decide(facts: &Facts, rules: &Rules) -> Decision {
    *decide_for(facts, &Target::of(&facts.request, rules))
}

/// As [`decide`], where the target of the facts' request is known.
pub(super) fn decide_for(facts: &Facts, target: &Target<'_>) -> Box<Decision> {
    let mut decision = if target.access == Access::Public {
        // Whoever it is, and whatever they sent: on a public resource everybody is nobody.
        let mut decision = Decision::from_findings(Findings::new());
        decision.grant = Some(Grant::Public);
        decision
    } else if facts.request.transport == Transport::Tcp {
        // Plain TCP carries no credentials that could be missing: only what there is to reach is told.
        Decision::from_findings(target.problem.iter().cloned().collect())
    } else {
        match known_caller(facts) {
            Ok(caller) => of_caller(facts, target, caller),
            Err(finding) => {
                let findings = target.problem.iter().cloned().chain([finding]).collect();
                Decision::from_findings(findings)
            }
        }
    };
    decision.resource = target.resources.first().map(|resource| resource.id.clone());
    decision.policy = target.policies.first().map(|policy| policy.id.clone());
    decision.data_classification = target.classification;
    decision.answer();
    decision
}

type Caller<'a> = (&'a Arc<Identity>, Option<Possession>);

/// Who it is, or why that is not known.
fn known_caller(facts: &Facts) -> Result<Caller<'_>, Finding> {
    match &facts.credential {
        Fact::Known { value: Credential::Verified { identity, proof }, .. } => Ok((identity, *proof)),
        Fact::Known { value: Credential::Refused(problem), .. } => Err(Finding::new(credential(*problem), None)),
        lacking => Err(lack(Subject::Credential, lacking).unwrap_or(Finding::new(Reason::CredentialsUnknown, None))),
    }
}

const fn credential(problem: CredentialProblem) -> Reason {
    match problem {
        CredentialProblem::Ambiguous => Reason::AmbiguousCredentials,
        CredentialProblem::TooLarge => Reason::TokenTooLarge,
        CredentialProblem::Unsupported => Reason::NoCredentials,
        CredentialProblem::Invalid => Reason::TokenInvalid,
        CredentialProblem::Expired => Reason::TokenExpired,
        CredentialProblem::NotYetValid => Reason::TokenNotYetValid,
        CredentialProblem::Revoked => Reason::TokenRevoked,
        CredentialProblem::ProofRequired => Reason::ProofRequired,
        CredentialProblem::ProofInvalid => Reason::ProofInvalid,
        CredentialProblem::NonceRequired => Reason::NonceRequired,
    }
}

/// The finding that a lacking fact is, where the posture table refuses for it.
fn lack<T>(subject: Subject, fact: &Fact<T>) -> Option<Finding> {
    let lack = Lack::of(fact)?;
    let detail = if let Lack::Unavailable(why) = lack { Detail::Missing(why) } else { Detail::None };
    match posture(subject, lack, Sensitivity::Weighed) {
        Posture::Refuse(reason) => Some(Finding::new(reason, None).with(detail)),
        Posture::Neutral | Posture::Nothing | Posture::Penalty => None,
    }
}

type Policies<'r> = Few<&'r Policy, 3>;

/// What one look at a scene brings.
struct Judgement {
    findings: Findings,
    grant: Option<Grant>,
    scope: Option<Arc<str>>,
    /// A step-up guard applies, satisfied or not.
    challenged: bool,
    session: sessions::Outcome,
}

fn of_caller<'a>(facts: &'a Facts, target: &'a Target<'a>, (identity, proof): Caller<'a>) -> Box<Decision> {
    let scene = |what_if| Scene::new(facts, target, (identity, proof), what_if);
    let now = scene(WhatIf::default());
    let Judgement { mut findings, grant, scope, challenged, session } = judge(&now);
    let ladder = findings.iter().any(|finding| finding.class == Class::StepUp)
        && findings.iter().all(|finding| finding.class > Class::Refused);
    let step_up =
        ladder.then(|| step_up::least(&now, &findings, |what_if| would_allow(&judge(&scene(what_if))))).flatten();
    if ladder && step_up.is_none() {
        refuse_for_good(&now, &mut findings);
    }
    let unsatisfied = findings.iter().any(conditions::is_contextual);
    let mut decision = Decision::from_findings(Findings::new());
    (decision.grant, decision.scope, decision.step_up) = (grant, scope, step_up);
    decision.restrictions = session.restrictions;
    decision.session = verification::effect(&now, session.ends, challenged, unsatisfied);
    let full = facts.quota.value().filter(|quota| !quota.allowed);
    decision.retry_after = full.map(|quota| quota.retry_after.max(1));
    decision.findings = findings;
    for policy in target.policies.iter() {
        decision.restrictions = decision.restrictions.union(policy.constraints.restrictions);
        decision.audit_required |= policy.constraints.audit_all_access;
    }
    decision.quota = quota(&target.policies, identity);
    verification::limits(&now, &mut decision);
    (decision.risk, decision.trust) = (now.risk, now.trust);
    decision
}

fn judge(scene: &Scene<'_>) -> Judgement {
    let mut findings = Findings::new();
    let (mut grant, mut scope, mut challenged) = (None, None, false);
    let mut session = sessions::Outcome::default();
    revocation(scene, &mut findings);
    notices::apply(scene, &mut findings);
    verification::apply(scene, &mut findings);
    if let Some(problem) = &scene.target.problem {
        findings.push(problem.clone());
    } else {
        session = sessions::apply(scene, &mut findings);
        challenged = guards::apply(scene, &mut findings) || session.challenged;
        let mut restrictions = session.restrictions;
        for policy in scene.target.policies.iter() {
            restrictions = restrictions.union(policy.constraints.restrictions);
        }
        sessions::keep(scene, restrictions, &mut findings);
        conditions::resource(scene, &mut findings);
        for policy in scene.target.policies.iter() {
            conditions::policy(scene, policy, session.restrictions, &mut findings, &mut scope);
            challenged |= policy.actions.contains(&crate::policy::model::ActionKind::StepUp);
            challenged |= policy.conditions.max_risk.is_some_and(|most| scene.unproven_risk() > most);
        }
        grant = permission::grant(scene, &mut findings);
        quota_taken(scene, &mut findings);
    }
    Judgement { findings, grant, scope, challenged, session }
}

fn revocation(scene: &Scene<'_>, findings: &mut Findings) {
    let reason = match &scene.facts.revocation {
        Fact::Known { value: Revocation::Clear, .. } => return,
        Fact::Known { value: Revocation::Revoked(kind), .. } => match kind {
            RevocationKind::Token => Reason::TokenRevoked,
            RevocationKind::Session => Reason::SessionRevoked,
            RevocationKind::Subject => Reason::SubjectRevoked,
            RevocationKind::Device => Reason::DeviceRevoked,
        },
        lacking => {
            findings.extend(lack(Subject::Revocation, lacking));
            return;
        }
    };
    findings.push(Finding::new(reason, None));
}

fn quota_taken(scene: &Scene<'_>, findings: &mut Findings) {
    let Some(wanted) = quota(&scene.target.policies, scene.identity) else { return };
    let rule = || limiting(&wanted);
    match &scene.facts.quota {
        Fact::Known { value, .. } if value.allowed => {}
        Fact::Known { .. } => findings.push(Finding::new(Reason::RateLimited, rule())),
        lacking => findings.extend(lack(Subject::Quota, lacking).map(|finding| Finding { rule: rule(), ..finding })),
    }
}

/// The policy that is named for a limit that is reached or cannot be counted: the first that has limits.
pub(super) fn limiting(wanted: &QuotaWanted) -> Option<RuleId> {
    wanted.first().map(|first| first.policy.as_str().into())
}

/// Every limit of every policy that binds this caller.
fn quota(policies: &Policies<'_>, identity: &Identity) -> Option<QuotaWanted> {
    let wanted: QuotaWanted = policies.iter().filter_map(|policy| limits(policy, identity)).collect();
    (!wanted.is_empty()).then_some(wanted)
}

/// The limits of a policy that bind this caller; shared, not copied, where all of them do.
fn limits(policy: &Policy, identity: &Identity) -> Option<PolicyLimits> {
    let binds = |limit: &&RateLimit| match &limit.scope {
        RateScope::ApiScope(scope) => identity.scopes.contains(scope),
        _ => true,
    };
    let all = &policy.rate_limits;
    let limits: Arc<[RateLimit]> =
        if all.iter().all(|limit| binds(&limit)) { all.clone() } else { all.iter().filter(binds).cloned().collect() };
    (!limits.is_empty()).then(|| PolicyLimits { policy: policy.id.clone(), limits })
}

/// Whether nothing but missing facts and full quotas stands in the way: what an authentication cannot change.
fn would_allow(judgement: &Judgement) -> bool {
    judgement.grant.is_some()
        && judgement.findings.iter().all(|finding| matches!(finding.class, Class::Unknown | Class::RateLimited))
}

/// No authentication would help: what could have been a step-up is a refusal.
fn refuse_for_good(scene: &Scene<'_>, findings: &mut Findings) {
    if scene.is_service()
        && let Some(first) = findings.iter().find(|finding| finding.class == Class::StepUp)
    {
        let rule = first.rule.clone();
        findings.insert(0, Finding::new(Reason::StepUpImpossible, rule));
    }
    for finding in findings.iter_mut().filter(|finding| finding.class == Class::StepUp) {
        finding.class = Class::Refused;
    }
}
