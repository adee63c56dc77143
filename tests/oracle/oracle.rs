//! The decision a second time: slow, obvious, sharing nothing with the product but the words of the domain and the plain
//! `RuleSet`. Routes are found by comparing every pattern, every number is added up on the spot, nothing is shared.

use countersign::{domain::*, policy::RuleSet, policy::model::*};

/// What is compared.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) verdict: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) status: u16,
    /// Risk and trust in millionths; 0 where nobody is known.
    pub(crate) risk: i64,
    pub(crate) trust: i64,
    /// Kind of authentication and `max_age` that a step-up asks for.
    pub(crate) step_up: Option<(&'static str, Option<u64>)>,
}

const MALFORMED: u8 = 0;
const CREDENTIALS: u8 = 1;
const REVOKED: u8 = 2;
const REFUSED: u8 = 3;
const LIMITED: u8 = 4;
const UNKNOWN: u8 = 5;
const STEP_UP: u8 = 6;

type Said = (u8, &'static str);

/// What a new authentication would change.
#[derive(Clone, Default)]
struct Imagined {
    any: bool,
    methods: Vec<AuthMethod>,
    age: Option<u64>,
    in_context: bool,
}

struct Found<'r> {
    resources: Vec<&'r Resource>,
    policies: Vec<&'r Policy>,
    level: TrustLevel,
    device: DeviceMode,
    class: Option<Classification>,
    public: bool,
    problem: Option<Said>,
}

pub(crate) fn answer(facts: &Facts, rules: &RuleSet) -> Answer {
    let found = find(facts, rules);
    if found.public && found.problem.is_none() {
        return Answer { verdict: "allow", reason: "", status: 200, risk: 0, trust: 0, step_up: None };
    }
    let (identity, proof) = match &facts.credential {
        Fact::Known { value: Credential::Verified { identity, proof }, .. } => (identity.as_ref(), *proof),
        other => {
            let mut said: Vec<Said> = found.problem.into_iter().collect();
            said.push(match other {
                Fact::Absent | Fact::Known { value: Credential::Refused(CredentialProblem::Unsupported), .. } => {
                    (CREDENTIALS, "no_credentials")
                }
                Fact::Known { value: Credential::Refused(CredentialProblem::Ambiguous), .. } => {
                    (MALFORMED, "ambiguous_credentials")
                }
                Fact::Known { value: Credential::Refused(CredentialProblem::Expired), .. } => {
                    (CREDENTIALS, "token_expired")
                }
                Fact::Known { .. } => (CREDENTIALS, "token_invalid"),
                Fact::Unavailable(_) | Fact::NotAsked => (UNKNOWN, "credentials_unknown"),
            });
            return conclude(&said, None, 0, 0);
        }
    };
    let ask = |imagined: &Imagined| judge(facts, rules, &found, identity, proof, imagined);
    let (mut said, risk, trust, missing) = ask(&Imagined::default());
    let mut step_up = None;
    if said.iter().any(|one| one.0 == STEP_UP) && said.iter().all(|one| one.0 > REFUSED) {
        step_up = ladder(facts, &found, identity, &said, &missing, |imagined| {
            ask(imagined).0.iter().all(|one| one.0 == UNKNOWN || one.0 == LIMITED)
        });
        if step_up.is_none() {
            if identity.kind == SubjectKind::Service {
                said.insert(0, (REFUSED, "step_up_impossible"));
            }
            said.iter_mut().filter(|one| one.0 == STEP_UP).for_each(|one| one.0 = REFUSED);
        }
    }
    conclude(&said, step_up, (risk * 1e6).round() as i64, (trust * 1e6).round() as i64)
}

fn conclude(said: &[Said], step_up: Option<(&'static str, Option<u64>)>, risk: i64, trust: i64) -> Answer {
    for class in MALFORMED..=STEP_UP {
        if let Some((_, reason)) = said.iter().find(|one| one.0 == class) {
            let status = [400, 401, 401, 403, 429, 503, 401][class as usize];
            let verdict = if class == STEP_UP { "step-up" } else { "deny" };
            let step_up = step_up.filter(|_| class == STEP_UP);
            return Answer { verdict, reason, status, risk, trust, step_up };
        }
    }
    Answer { verdict: "allow", reason: "", status: 200, risk, trust, step_up: None }
}

// Routes: every pattern of every resource is compared, the most specific wins.

fn matches(pattern: &str, path: &str) -> Option<Vec<u8>> {
    let (mut rank, mut segments) = (Vec::new(), path[1..].split('/'));
    for part in pattern[1..].split('/') {
        if part == "**" {
            segments.next()?;
            rank.push(0);
            return Some(rank);
        }
        let segment = segments.next()?;
        if part.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            rank.push(1);
        } else if part == segment {
            rank.push(2);
        } else {
            return None;
        }
    }
    segments.next().is_none().then_some(rank)
}

fn route<'r>(request: &AccessRequest, rules: &'r RuleSet) -> Result<&'r Resource, Said> {
    let Ok(path) = &request.path else { return Err((MALFORMED, "malformed_path")) };
    let mut all: Vec<(Vec<u8>, bool, bool, &Resource)> = Vec::new();
    for resource in &rules.resources {
        for pattern in &resource.paths {
            let host_fits = resource.hosts.is_empty() || resource.hosts.contains(&request.host);
            if let Some(rank) = matches(pattern, path).filter(|_| host_fits) {
                all.push((rank, !resource.hosts.is_empty(), resource.methods.is_some(), resource));
            }
        }
    }
    let Some(best) = all.iter().map(|one| one.0.clone()).max() else { return Err((REFUSED, "no_matching_resource")) };
    let names = |resource: &Resource| match &resource.methods {
        Some(methods) => methods.contains(&request.method),
        None => !matches!(request.method, Method::Other(_)),
    };
    let mut able: Vec<_> = all.into_iter().filter(|one| one.0 == best && names(one.3)).collect();
    able.sort_by_key(|one| (one.1, one.2));
    able.last().map(|one| one.3).ok_or((REFUSED, "method_not_allowed"))
}

fn find<'r>(facts: &Facts, rules: &'r RuleSet) -> Found<'r> {
    let extensions = &facts.request.extensions;
    let mut found = Found {
        resources: Vec::new(),
        policies: Vec::new(),
        level: TrustLevel::Untrusted,
        device: DeviceMode::Never,
        class: None,
        public: true,
        problem: None,
    };
    let mut wanted = Vec::new();
    match route(&facts.request, rules) {
        Ok(resource) => wanted.push(resource),
        Err(problem) => found.problem = Some(problem),
    }
    if found.problem.is_none()
        && let Some(id) = &extensions.resource
    {
        match rules.resources.iter().find(|resource| resource.id == *id) {
            Some(resource) if resource.id != wanted[0].id => wanted.push(resource),
            Some(_) => {}
            None => found.problem = Some((REFUSED, "unknown_resource")),
        }
    }
    for resource in wanted {
        found.resources.push(resource);
        found.class = found.class.max(resource.data_classification);
        if resource.access != Access::Public {
            found.public = false;
            found.level = found.level.max(resource.min_trust_level.unwrap_or(rules.defaults.min_trust_level));
            found.device = found.device.max(resource.device.unwrap_or(rules.defaults.device));
        }
        if let Some(id) = &resource.policy {
            let policy = rules.policies.iter().find(|policy| policy.id == *id).unwrap();
            if !found.policies.contains(&policy) {
                found.policies.push(policy);
            }
        }
    }
    if found.problem.is_none() {
        found.class = found.class.max(extensions.data_classification);
        if found.public && (extensions.policy.is_some() || extensions.min_trust_level.is_some()) {
            found.public = false;
            found.level = rules.defaults.min_trust_level;
            found.device = rules.defaults.device;
        }
        if let Some(id) = &extensions.policy {
            match rules.policies.iter().find(|policy| policy.id.as_str() == &**id) {
                Some(policy) if !found.policies.contains(&policy) => found.policies.push(policy),
                Some(_) => {}
                None => found.problem = Some((REFUSED, "unknown_policy")),
            }
        }
        found.level = found.level.max(extensions.min_trust_level.unwrap_or(TrustLevel::Untrusted));
    }
    if found.policies.iter().any(|policy| !policy.conditions.device_requirements.is_empty()) {
        found.device = found.device.max(DeviceMode::WhenPresent);
    }
    found
}

// One look at a known caller.

#[derive(Clone, Copy, PartialEq, Debug)]
enum Standing {
    Ignored,
    Unknown,
    Unregistered,
    Untrusted,
    Registered,
}

fn standing(facts: &Facts, found: &Found<'_>, identity: &Identity) -> Standing {
    let sighting = match (&facts.device, found.device) {
        (_, DeviceMode::Never) | (Fact::NotAsked, DeviceMode::WhenPresent) => return Standing::Ignored,
        (Fact::NotAsked | Fact::Unavailable(_), _) => return Standing::Unknown,
        (Fact::Absent, _) if identity.device.is_some() => return Standing::Untrusted,
        (Fact::Absent, _) => return Standing::Unregistered,
        (Fact::Known { value, .. }, _) => value,
    };
    match (against(facts, identity).is_some(), sighting.record.is_some()) {
        (true, _) => Standing::Untrusted,
        (false, true) => Standing::Registered,
        (false, false) => Standing::Unregistered,
    }
}

/// What cannot be true of the device, in the order in which it is told.
fn against(facts: &Facts, identity: &Identity) -> Option<&'static str> {
    let sighting = match &facts.device {
        Fact::Known { value, .. } => value,
        _ => return identity.device.as_ref().map(|_| "device_untrusted"),
    };
    if sighting.differs_from_token || identity.device.as_ref().is_some_and(|owed| *owed != sighting.id) {
        return Some("device_untrusted");
    }
    let nobody = DeviceRecord::default();
    let record = sighting.record.as_deref().unwrap_or(&nobody);
    if record.user.as_ref().is_some_and(|owner| *owner != identity.subject) {
        return Some("device_other_owner");
    }
    match record.status {
        DeviceStatus::Revoked => return Some("device_revoked"),
        DeviceStatus::Suspended => return Some("device_suspended"),
        DeviceStatus::Active => {}
    }
    if sighting.evidence.certificate_expired {
        return Some("device_certificate_expired");
    }
    if sighting.key_differs || sighting.fingerprint_differs {
        return Some("device_untrusted");
    }
    if record.jailbroken == Some(true) {
        return Some("device_jailbroken");
    }
    (record.compliant == Some(false)).then_some("device_not_compliant")
}

/// A revoked device is told as revoked things are; everything else about devices is a refusal.
fn of_device(reason: &'static str) -> Said {
    (if reason == "device_revoked" { REVOKED } else { REFUSED }, reason)
}

fn registry_trust(sighting: &DeviceSighting, now: UnixTime) -> f64 {
    let record = sighting.record.as_ref().unwrap();
    if let Some(said) = record.trust_score {
        return said.get();
    }
    let days = |time: UnixTime| now.since(time).as_secs() as f64 / 86_400.0;
    let mut trust: f64 = 0.5;
    let stale = sighting.evidence.posture_stale;
    if (record.jkt.is_some() || record.cert_sha256.is_some()) && record.enrolled_at.is_some_and(|at| days(at) >= 7.0) {
        trust += 0.15;
        trust += if record.managed == Some(true) { 0.1 } else { 0.0 };
        trust += if record.disk_encrypted == Some(true) { 0.05 } else { 0.0 };
        trust += if !stale && record.checked_at.is_some() && record.compliant == Some(true) { 0.1 } else { 0.0 };
    }
    trust -= if stale { 0.2 } else { 0.0 };
    trust -= if record.disk_encrypted == Some(false) { 0.05 } else { 0.0 };
    match record.patch_level {
        Some(PatchLevel::Days(behind)) if behind > 30 => trust -= 0.1,
        Some(PatchLevel::Since(at)) if days(at) > 30.0 => trust -= 0.1,
        _ => {}
    }
    trust.clamp(0.1, 0.9)
}

fn strong(methods: &[AuthMethod]) -> bool {
    methods.iter().any(|method| *method != AuthMethod::Password)
}

fn all_methods(facts: &Facts, identity: &Identity, certified: bool, imagined: &Imagined) -> Vec<AuthMethod> {
    let mut methods: Vec<AuthMethod> = identity.methods.iter().chain(imagined.methods.iter().copied()).collect();
    if let Some((passed, _)) = facts.session.value().and_then(|session| session.stepped_up) {
        methods.extend(passed.iter());
    }
    if certified {
        methods.push(AuthMethod::Certificate);
    }
    methods.sort_unstable();
    methods.dedup();
    methods
}

fn age(facts: &Facts, identity: &Identity, imagined: &Imagined) -> f64 {
    let now = facts.now.as_millis() as f64;
    let mut at = identity.auth_time.unwrap_or(identity.issued_at).as_millis() as f64;
    if let Some((_, passed)) = facts.session.value().and_then(|session| session.stepped_up) {
        at = at.max((passed.as_millis() as f64).min(now));
    }
    let age = ((now - at) / 1000.0).max(0.0);
    imagined.age.map_or(age, |seconds| age.min(seconds as f64))
}

fn risk_score(facts: &Facts, found: &Found<'_>, identity: &Identity, methods: &[AuthMethod]) -> f64 {
    let person = identity.kind == SubjectKind::Person;
    let record =
        facts.device.value().and_then(|seen| seen.record.as_deref()).filter(|_| found.device != DeviceMode::Never);
    let device = standing(facts, found, identity);
    let past = facts.behavior.value().copied().unwrap_or_default();
    let mut risk: f64 = 0.0;
    risk += if person && !strong(methods) { 3.0 } else { 0.0 };
    let new = match device {
        Standing::Ignored => false,
        Standing::Unknown | Standing::Unregistered => true,
        Standing::Untrusted | Standing::Registered => record.is_none() || past.new_device == Some(true),
    };
    risk += if person && new { 2.0 } else { 0.0 };
    if let Some(place) = facts.place.value() {
        risk += if place.unusual || place.impossible_travel { 3.0 } else { 0.0 };
        risk += if [NetworkKind::Vpn, NetworkKind::Tor].contains(&place.network) { 1.0 } else { 0.0 };
    }
    risk += if person && past.unusual_time { 2.0 } else { 0.0 };
    risk += if past.rapid_requests { 2.0 } else { 0.0 };
    risk += if record.is_some_and(|record| record.compliant == Some(false)) { 4.0 } else { 0.0 };
    risk += if record.is_some_and(|record| record.jailbroken == Some(true)) { 5.0 } else { 0.0 };
    risk += if facts.place.is_unavailable() { 3.0 } else { 0.0 };
    risk += if facts.behavior.is_unavailable() { 3.0 } else { 0.0 };
    risk.min(10.0)
}

fn trust_score(
    facts: &Facts,
    device: Standing,
    certified: bool,
    methods: &[AuthMethod],
    risk: f64,
    age: Option<f64>,
) -> f64 {
    let weight = |method: &AuthMethod| [0.10, 0.20, 0.25, 0.30, 0.30, 0.35][*method as usize];
    let mut trust: f64 = methods.iter().map(weight).sum();
    if device == Standing::Registered {
        let sighting = facts.device.value().unwrap();
        let proof = [0.3, 0.6, 1.0][sighting.proof as usize];
        trust += 0.3 * registry_trust(sighting, facts.now) * proof;
    } else if certified && matches!(device, Standing::Ignored | Standing::Unregistered) {
        trust += 0.3 * 0.5;
    }
    let network = facts.place.value().map_or(0.5, |place| match place.network {
        NetworkKind::Corporate => 1.0,
        NetworkKind::Vpn | NetworkKind::Hosting => 0.2,
        NetworkKind::Tor => 0.0,
        _ if place.known_to_subject == Some(true) => 0.8,
        NetworkKind::Private => 0.7,
        NetworkKind::Ordinary => 0.5,
    });
    trust += 0.2 * network;
    trust += 0.2 * facts.behavior.value().and_then(|past| past.score).unwrap_or(0.5);
    trust -= 0.3 * risk / 10.0;
    trust *= age.map_or(1.0, |seconds| (1.0 - 0.1 * seconds / 3600.0).max(0.0));
    (trust.clamp(0.0, 1.0) * 1e9).round() / 1e9
}

fn level_of(trust: f64, methods: &[AuthMethod]) -> TrustLevel {
    let hard = methods.contains(&AuthMethod::HardwareKey) || methods.contains(&AuthMethod::Certificate);
    match trust {
        t if t >= 0.8 && hard => TrustLevel::Privileged,
        t if t >= 0.6 => TrustLevel::High,
        t if t >= 0.4 => TrustLevel::Medium,
        t if t >= 0.2 => TrustLevel::Low,
        _ => TrustLevel::Untrusted,
    }
}

fn judge(
    facts: &Facts,
    rules: &RuleSet,
    found: &Found<'_>,
    identity: &Identity,
    proof: Option<Possession>,
    imagined: &Imagined,
) -> (Vec<Said>, f64, f64, Vec<AuthMethod>) {
    let mut said: Vec<Said> = Vec::new();
    let service = identity.kind == SubjectKind::Service;
    let same_peer = facts.workload.value().is_some_and(|peer| {
        let ours = peer.trust_domain.is_some() || !peer.principal.starts_with("spiffe://");
        *peer.principal == *identity.subject.as_str() && !peer.out_of_time && ours
    });
    let certified = service && (proof == Some(Possession::Certificate) || same_peer);
    let methods = all_methods(facts, identity, certified, imagined);
    let age = age(facts, identity, imagined);
    let device = standing(facts, found, identity);
    let risk = risk_score(facts, found, identity, &methods);
    let trust = trust_score(facts, device, certified, &methods, risk, (!service).then_some(age));
    let mut level = level_of(trust, &methods);
    if let Some(session) = facts.session.value().filter(|_| !service && !imagined.any) {
        // A session that was lower stays there until something lifts it.
        let since = |at: UnixTime| facts.now.as_millis().saturating_sub(at.as_millis());
        let authenticated = since(session.level_since) as f64 >= age * 1000.0;
        let lasted = session.rising_since.is_some_and(|at| since(at) >= 300_000);
        if level > session.level && !authenticated && !lasted {
            level = level_of((trust - 0.05).clamp(0.0, 1.0), &methods).max(session.level);
        }
    }
    let challenged_since = |session: &SessionState| {
        strong(&methods)
            && session
                .challenged_at
                .zip(identity.auth_time)
                .is_some_and(|(asked, done)| done.as_secs() >= asked.as_secs())
    };
    let in_context = imagined.in_context
        || match &facts.session {
            Fact::Known { value, .. } => {
                value.stepped_up.is_some_and(|(used, _)| used.is_multi_factor()) || challenged_since(value)
            }
            Fact::NotAsked => strong(&methods) && identity.auth_time.is_some() && age <= 300.0,
            _ => false,
        };

    match &facts.revocation {
        Fact::Known { value: Revocation::Clear, .. } => {}
        Fact::Known { value: Revocation::Revoked(kind), .. } => said
            .push((REVOKED, ["token_revoked", "session_revoked", "subject_revoked", "device_revoked"][*kind as usize])),
        _ => said.push((UNKNOWN, "revocation_unknown")),
    }
    if facts.session.value().is_some_and(|session| session.ended) {
        said.push((REVOKED, "session_ended"));
    }
    if facts.session.is_unavailable() {
        said.push((UNKNOWN, "session_unknown"));
    }
    if facts.session.value().is_some_and(|session| session.over_limit) {
        said.push((REFUSED, "too_many_sessions"));
    }
    if !service && facts.session != Fact::NotAsked {
        let life = identity.expires_at.since(identity.issued_at).as_secs().min(3600);
        let table = [300, 900, 1800, 3600, 1800][level as usize];
        let mut evidence = identity.issued_at;
        if let Some(session) = facts.session.value() {
            evidence = evidence.max(session.verified_at).max(session.stepped_up.map_or(UnixTime::EPOCH, |(_, at)| at));
        }
        let mut since = facts.now.since(evidence).as_secs_f64();
        if found.level == TrustLevel::Privileged {
            since = age;
        }
        if imagined.any {
            since = imagined.age.unwrap_or(0) as f64;
        }
        if since > table.max(life) as f64 {
            said.push((STEP_UP, "reverification_due"));
        }
    }
    if let Some(problem) = found.problem {
        said.push(problem);
        return (said, risk, trust, Vec::new());
    }

    for guard in &rules.guards {
        match (guard_holds(guard, facts, identity, device, certified, risk), guard.action) {
            (Some(true), GuardAction::Deny) => said.push(of_device(guard_reason(guard, device, facts, identity))),
            (Some(true), GuardAction::StepUp) if !in_context => said.push((STEP_UP, guard_step_up(guard))),
            (None, GuardAction::Deny) => {
                let device_open = guard.when.device.is_some() && device == Standing::Unknown;
                said.push((UNKNOWN, if device_open { "device_unknown" } else { "location_unknown" }));
            }
            _ => {}
        }
    }

    let by = |words: &[AuthenticatedBy]| found.resources.iter().any(|one| words.contains(&one.authenticated_by));
    if by(&[AuthenticatedBy::User, AuthenticatedBy::Both]) && identity.audience.is_empty() {
        said.push((CREDENTIALS, "no_credentials"));
    }
    let trusted = facts.workload.value().is_some_and(|peer| peer.trust_domain.is_some());
    if by(&[AuthenticatedBy::Workload, AuthenticatedBy::Both]) && !trusted {
        said.push((REFUSED, "workload_required"));
    }
    if found.device == DeviceMode::Always {
        let sighting = facts.device.value();
        let record = sighting.and_then(|seen| seen.record.as_deref());
        match device {
            Standing::Unknown => said.push((UNKNOWN, "device_unknown")),
            Standing::Untrusted => said.extend(against(facts, identity).map(of_device)),
            Standing::Unregistered if !certified => said.push((REFUSED, "device_not_registered")),
            Standing::Registered if record.unwrap().user.is_none() => said.push((REFUSED, "device_not_registered")),
            Standing::Registered if record.unwrap().compliant != Some(true) => {
                said.push((REFUSED, "device_not_compliant"));
            }
            Standing::Registered if sighting.unwrap().evidence.posture_stale => {
                said.push((REFUSED, "device_posture_stale"));
            }
            Standing::Registered if sighting.unwrap().proof == DeviceProof::IdOnly && !certified => {
                said.push((REFUSED, "device_not_proven"));
            }
            _ => {}
        }
    }
    if level < found.level {
        said.push((STEP_UP, "trust_too_low"));
    }
    let mut missing = Vec::new();
    for policy in &found.policies {
        conditions(&mut said, &mut missing, policy, facts, found, identity, &methods, trust, level, device, certified);
        constraints(&mut said, policy, facts, proof, imagined, age);
        if policy.actions.contains(&ActionKind::Deny) {
            said.push((REFUSED, "policy_denied"));
        }
        if policy.actions.contains(&ActionKind::StepUp) && !in_context {
            said.push((STEP_UP, "step_up_required"));
        }
    }
    for resource in &found.resources {
        if resource.access == Access::Authorized && !held(resource, identity, rules) {
            said.push((REFUSED, "permission_missing"));
        }
    }
    let limited = found.policies.iter().flat_map(|policy| policy.rate_limits.iter()).any(|limit| match &limit.scope {
        RateScope::ApiScope(scope) => identity.scopes.contains(scope),
        _ => true,
    });
    match &facts.quota {
        Fact::Known { value, .. } if limited && !value.allowed => said.push((LIMITED, "rate_limited")),
        Fact::Absent | Fact::Unavailable(_) if limited => said.push((UNKNOWN, "quota_unknown")),
        _ => {}
    }
    (said, risk, trust, missing)
}

/// `None`: cannot be told.
fn guard_holds(
    guard: &Guard,
    facts: &Facts,
    identity: &Identity,
    device: Standing,
    certified: bool,
    risk: f64,
) -> Option<bool> {
    let when = &guard.when;
    let mut parts: Vec<Option<bool>> = Vec::new();
    parts.push(Some(when.risk_at_least.is_none_or(|least| risk >= least)));
    parts.push(Some(when.risk_level.is_none_or(|least| RiskScore::new(risk).level() >= least)));
    parts.push(Some(when.subject.is_none_or(|kind| kind == identity.kind)));
    if let Some(wanted) = when.device {
        let record = facts.device.value().and_then(|seen| seen.record.as_deref());
        parts.push(match (device, wanted) {
            (Standing::Ignored, _) => Some(false),
            (Standing::Unknown, _) if guard.action == GuardAction::Deny => None,
            // A guard that only asks for more counts it as unregistered.
            (Standing::Unknown, DeviceState::Untrusted) => Some(false),
            (Standing::Unknown, _) => Some(!certified),
            (standing, DeviceState::Untrusted) => Some(standing == Standing::Untrusted),
            (Standing::Unregistered, _) => Some(!certified),
            (Standing::Untrusted, DeviceState::Unregistered) => Some(record.is_none()),
            (Standing::Untrusted, DeviceState::NotCompliant) => Some(true),
            (Standing::Registered, DeviceState::Unregistered) => Some(false),
            (Standing::Registered, DeviceState::NotCompliant) => {
                let stale = facts.device.value().is_some_and(|seen| seen.evidence.posture_stale);
                Some(record.unwrap().compliant != Some(true) || stale)
            }
        });
    }
    let of_place = |test: &dyn Fn(&Place) -> bool| match &facts.place {
        Fact::Known { value, .. } => Some(test(value)),
        Fact::Unavailable(_) => None,
        _ => Some(false),
    };
    if let Some(wanted) = when.location {
        parts.push(of_place(&|place| match wanted {
            LocationState::Unusual => place.unusual,
            LocationState::NotAllowed => !place.allowed,
            LocationState::ImpossibleTravel => place.impossible_travel,
        }));
    }
    if let Some(kind) = when.network {
        parts.push(of_place(&|place| place.network == kind));
    }
    if parts.contains(&Some(false)) {
        Some(false)
    } else if parts.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn guard_reason(guard: &Guard, device: Standing, facts: &Facts, identity: &Identity) -> &'static str {
    let when = &guard.when;
    let no_record = facts.device.value().is_none_or(|seen| seen.record.is_none());
    match (when.device, when.location) {
        (Some(DeviceState::Untrusted), _) => against(facts, identity).unwrap_or("device_untrusted"),
        (Some(DeviceState::Unregistered), _) => "device_not_registered",
        (Some(DeviceState::NotCompliant), _) if device == Standing::Unregistered || no_record => {
            "device_not_registered"
        }
        (Some(DeviceState::NotCompliant), _) => "device_not_compliant",
        (_, Some(LocationState::Unusual)) => "location_unusual",
        (_, Some(LocationState::NotAllowed)) => "location_not_allowed",
        (_, Some(LocationState::ImpossibleTravel)) => "impossible_travel",
        _ if when.network.is_some() => "network_not_allowed",
        _ if when.risk_at_least.is_some() || when.risk_level.is_some() => "risk_too_high",
        _ => "subject_not_allowed",
    }
}

fn guard_step_up(guard: &Guard) -> &'static str {
    match &guard.when {
        when if when.location.is_some() => "location_step_up",
        when if when.risk_at_least.is_some() || when.risk_level.is_some() => "mfa_required",
        _ => "step_up_required",
    }
}

#[expect(clippy::too_many_arguments, reason = "slow and obvious: everything is handed over by hand")]
fn conditions(
    said: &mut Vec<Said>,
    missing: &mut Vec<AuthMethod>,
    policy: &Policy,
    facts: &Facts,
    found: &Found<'_>,
    identity: &Identity,
    methods: &[AuthMethod],
    trust: f64,
    level: TrustLevel,
    device: Standing,
    certified: bool,
) {
    let asked = &policy.conditions;
    if asked.min_trust_score.is_some_and(|least| trust < least)
        || asked.min_trust_level.is_some_and(|least| level < least)
    {
        said.push((STEP_UP, "trust_too_low"));
    }
    let lacking: Vec<AuthMethod> =
        asked.required_auth_methods.iter().filter(|method| !methods.contains(method)).collect();
    if !lacking.is_empty() {
        said.push((STEP_UP, "authentication_method_required"));
        missing.extend(lacking);
    }
    if !asked.allowed_locations.is_empty() {
        let client = facts.request.client;
        let by_address = asked.allowed_locations.iter().any(|one| match one {
            AllowedLocation::Cidr(nets) => client.is_some_and(|client| nets.iter().any(|net| net.contains(&client))),
            _ => false,
        });
        let only_networks = asked.allowed_locations.iter().all(|one| matches!(one, AllowedLocation::Cidr(_)));
        let by_place = facts.place.value().is_some_and(|place| {
            asked.allowed_locations.iter().any(|one| match one {
                AllowedLocation::CorporateNetwork => place.network == NetworkKind::Corporate,
                AllowedLocation::PrivateNetwork => place.network == NetworkKind::Private,
                AllowedLocation::KnownSecureLocation(names) => {
                    place.known_networks.iter().any(|name| names.is_empty() || names.contains(name))
                }
                AllowedLocation::Country(codes) => codes.iter().any(|code| place.country.as_ref() == Some(code)),
                AllowedLocation::Cidr(_) => false,
            })
        });
        if !by_address && !by_place {
            let open = facts.place.is_unavailable() && !only_networks;
            said.push(if open { (UNKNOWN, "location_unknown") } else { (REFUSED, "location_not_allowed") });
        }
    }
    if !asked.device_requirements.is_empty() {
        let only_proof = asked.device_requirements.iter().all(|one| matches!(one, DeviceRequirement::Proof(_)));
        match device {
            Standing::Ignored | Standing::Unknown => said.push((UNKNOWN, "device_unknown")),
            Standing::Untrusted => said.extend(against(facts, identity).map(of_device)),
            Standing::Unregistered if certified && only_proof => {}
            Standing::Unregistered => said.push((REFUSED, "device_not_registered")),
            Standing::Registered => {
                let sighting = facts.device.value().unwrap();
                let record = sighting.record.as_ref().unwrap();
                let stale = sighting.evidence.posture_stale;
                let unmet = asked.device_requirements.iter().find(|one| !match one {
                    DeviceRequirement::Managed(is) => record.managed == Some(*is) && !stale,
                    DeviceRequirement::Compliant(is) => record.compliant == Some(*is) && !stale,
                    DeviceRequirement::Proof(least) => sighting.proof >= *least || certified,
                    DeviceRequirement::PatchLevel(PatchRequirement::Current) => {
                        matches!(record.patch_level, Some(PatchLevel::Current | PatchLevel::Days(0))) && !stale
                    }
                    other => panic!("not generated: {other:?}"),
                });
                if let Some(unmet) = unmet {
                    let aged = stale && !matches!(unmet, DeviceRequirement::Proof(_));
                    said.push((REFUSED, if aged { "device_posture_stale" } else { "device_requirement_unmet" }));
                }
            }
        }
    }
    let covers = |class: Option<Classification>| asked.data_classification.iter().any(|one| class == Some(*one));
    let by_route = facts.request.extensions.policy.as_deref() == Some(policy.id.as_str());
    let own_uncovered = found.resources.iter().enumerate().any(|(i, resource)| {
        let bound = resource.policy.as_ref() == Some(&policy.id) || (i == 0 && by_route);
        bound && !covers(resource.data_classification)
    });
    if !asked.data_classification.is_empty() && (own_uncovered || !covers(found.class)) {
        said.push((REFUSED, "classification_not_covered"));
    }
    if asked.api_scopes.iter().any(|scope| !identity.scopes.contains(scope)) {
        said.push((REFUSED, "scope_missing"));
    }
}

fn constraints(
    said: &mut Vec<Said>,
    policy: &Policy,
    facts: &Facts,
    proof: Option<Possession>,
    imagined: &Imagined,
    age: f64,
) {
    let asked = &policy.constraints;
    let identity = facts.identity().unwrap();
    let mut check = |asked: bool, met: bool, reason| {
        if asked && !met {
            said.push((if reason == "session_too_old" { STEP_UP } else { REFUSED }, reason));
        }
    };
    check(asked.require_justification, facts.request.justification.is_some(), "justification_required");
    check(asked.require_signed_requests, proof == Some(Possession::Dpop), "signed_request_required");
    check(asked.encrypt_in_transit, facts.request.encrypted, "encryption_required");
    check(asked.validate_jwt, !identity.audience.is_empty(), "token_required");
    let mut session_age = age;
    if let Some(session) = facts.session.value().filter(|_| identity.auth_time.is_none() && imagined.age.is_none()) {
        session_age = age.max(facts.now.since(session.created_at).as_secs_f64());
    }
    let longest = asked.session_duration.map(|longest| longest.as_secs_f64());
    check(longest.is_some(), longest.is_none_or(|longest| session_age <= longest), "session_too_old");
}

fn held(resource: &Resource, identity: &Identity, rules: &RuleSet) -> bool {
    let Some(permission) = &resource.permission else {
        let policy = resource.policy.as_ref().and_then(|id| rules.policies.iter().find(|policy| policy.id == *id));
        return policy.is_some_and(|policy| policy.actions.iter().any(|action| *action != ActionKind::Deny));
    };
    let direct = identity.permissions.iter().any(|own| own.as_str() == &**permission);
    let covers = |pattern: &str| match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => permission.starts_with(prefix) && permission.len() > prefix.len(),
        None => pattern == &**permission,
    };
    let of_role = |role: &Role| rules.roles.get(role.as_str()).is_some_and(|all| all.iter().any(|one| covers(one)));
    direct || identity.roles.iter().any(of_role)
}

// The ladder: the least that would do.

fn ladder(
    facts: &Facts,
    found: &Found<'_>,
    identity: &Identity,
    said: &[Said],
    missing: &[AuthMethod],
    allows: impl Fn(&Imagined) -> bool,
) -> Option<(&'static str, Option<u64>)> {
    if identity.kind == SubjectKind::Service {
        return None;
    }
    let methods = all_methods(facts, identity, false, &Imagined::default());
    let timed = ["session_too_old", "reverification_due"];
    let contextual = ["mfa_required", "location_step_up", "step_up_required", "reverification_due"];
    let only_time = said.iter().filter(|one| one.0 == STEP_UP).all(|one| timed.contains(&one.1));
    let now_age = age(facts, identity, &Imagined::default()) as u64;
    let longest = found.policies.iter().filter_map(|policy| policy.constraints.session_duration).min();
    let limit = longest.map_or(300, |longest| longest.as_secs().min(300));
    // A token that came after the challenge and tells no time: the next one will not tell it either.
    let asked_before = match &facts.session {
        Fact::NotAsked => now_age <= 300,
        Fact::Known { value, .. } => {
            value.challenged_at.is_some_and(|asked| identity.issued_at.as_secs() > asked.as_secs())
        }
        _ => false,
    };
    let in_this_context = |one: &Said| one.0 == STEP_UP && contextual[..3].contains(&one.1);
    let silent = identity.auth_time.is_none() && strong(&methods) && asked_before && said.iter().any(in_this_context);
    let max_age = if now_age > limit {
        Some(limit)
    } else if !silent && said.iter().any(|one| one.0 == STEP_UP && contextual.contains(&one.1)) {
        Some(now_age.saturating_sub(1))
    } else {
        None
    };
    let mut rungs = vec![("mfa", false), ("fresh", true)];
    if only_time {
        rungs.reverse();
    }
    rungs.extend([
        ("mfa", true),
        ("phishing-resistant", false),
        ("phishing-resistant", true),
        ("hardware", false),
        ("hardware", true),
    ]);
    let height = |method: &AuthMethod| match method {
        AuthMethod::Password | AuthMethod::MfaTotp | AuthMethod::MfaPush => 1,
        AuthMethod::Biometric => 2,
        AuthMethod::Certificate | AuthMethod::HardwareKey => 3,
    };
    for (kind, fresh) in rungs {
        if fresh && max_age.is_none() {
            continue;
        }
        let mut imagined = Imagined { any: true, age: max_age.filter(|_| fresh), ..Imagined::default() };
        if kind != "fresh" {
            let (rung, own) = match kind {
                "mfa" => (1, AuthMethod::MfaTotp),
                "phishing-resistant" => (2, AuthMethod::Biometric),
                _ => (3, AuthMethod::HardwareKey),
            };
            let shown = |rung: i32| {
                if rung == 1 { strong(&methods) } else { methods.iter().any(|method| height(method) >= rung) }
            };
            imagined.methods = missing
                .iter()
                .copied()
                .filter(|method| height(method) <= rung && (fresh || !shown(height(method))))
                .collect();
            let named = !imagined.methods.is_empty();
            let together: Vec<AuthMethod> = methods.iter().chain(&imagined.methods).copied().collect();
            let there =
                if rung == 1 { strong(&together) } else { together.iter().any(|method| height(method) >= rung) };
            if there && !named {
                continue;
            }
            if !there {
                imagined.methods.push(own);
            }
        }
        let together: Vec<AuthMethod> = methods.iter().chain(&imagined.methods).copied().collect();
        imagined.in_context = strong(&together) && !silent;
        if allows(&imagined) {
            return Some((kind, imagined.age));
        }
    }
    None
}
