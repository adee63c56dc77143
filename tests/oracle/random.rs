//! Random rules and facts from small worlds, so that rules and facts meet.

use std::{sync::Arc, time::Duration};

use countersign::{
    domain::*,
    policy::{RateLimit, RateScope, RuleSet, model::*},
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

const PATHS: [&str; 6] = ["/a", "/a/{x}", "/a/**", "/b", "/{x}/b", "/**"];
const REQUESTED: [&str; 8] = ["/a", "/a/", "/a/1", "/a/b", "/b", "/c/b", "/a/1/2", "/"];
const HOSTS: [&str; 2] = ["one.example", "two.example"];
const METHODS: [&str; 4] = ["GET", "PUT", "DELETE", "TRACE"];
const PERMISSIONS: [&str; 4] = ["a:read", "a:write", "b:read", "b"];

fn maybe<T>(rng: &mut StdRng, chance: f64, make: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    rng.random_bool(chance).then(|| make(rng))
}

fn one<T: Clone>(rng: &mut StdRng, from: &[T]) -> T {
    from.choose(rng).unwrap().clone()
}

fn methods(rng: &mut StdRng, chance: f64) -> AuthMethods {
    AuthMethod::ALL.into_iter().filter(|_| rng.random_bool(chance)).collect()
}

pub(crate) fn rules(rng: &mut StdRng) -> RuleSet {
    let mut set = RuleSet::default();
    if rng.random_bool(0.6) {
        set.guards = Guard::defaults();
    }
    for i in 0..rng.random_range(0..3) {
        set.guards.push(guard(rng, i));
    }
    set.defaults = Defaults {
        min_trust_level: one(rng, TrustLevel::ALL),
        device: one(rng, &[DeviceMode::Never, DeviceMode::WhenPresent, DeviceMode::WhenPresent, DeviceMode::Always]),
    };
    if rng.random_bool(0.7) {
        set.defaults.min_trust_level = TrustLevel::Low;
    }
    set.policies = (0..rng.random_range(1..4)).map(|i| policy(rng, i)).collect();
    let all = ["a:read", "a:*", "*", "b:*", "b", "a:write"];
    for role in ["clerk", "admin"] {
        let held = (0..rng.random_range(0..3)).map(|_| one(rng, &all).into()).collect();
        set.roles.insert(role.into(), held);
    }
    set.resources = (0..rng.random_range(1..6)).map(|i| resource(rng, i, &set.policies)).collect();
    set
}

fn guard(rng: &mut StdRng, i: usize) -> Guard {
    let mut when = When {
        risk_at_least: maybe(rng, 0.3, |rng| f64::from(rng.random_range(1..10))),
        risk_level: maybe(rng, 0.2, |rng| one(rng, RiskLevel::ALL)),
        device: maybe(rng, 0.3, |rng| {
            one(rng, &[DeviceState::Untrusted, DeviceState::Unregistered, DeviceState::NotCompliant])
        }),
        location: maybe(rng, 0.3, |rng| {
            one(rng, &[LocationState::Unusual, LocationState::NotAllowed, LocationState::ImpossibleTravel])
        }),
        network: maybe(rng, 0.2, |rng| one(rng, &[NetworkKind::Vpn, NetworkKind::Hosting, NetworkKind::Tor])),
        subject: maybe(rng, 0.2, |rng| one(rng, &[SubjectKind::Person, SubjectKind::Service])),
    };
    if when == When::default() {
        when.risk_at_least = Some(6.0);
    }
    Guard { id: format!("guard-{i}").into(), when, action: one(rng, &[GuardAction::Deny, GuardAction::StepUp]) }
}

fn resource(rng: &mut StdRng, i: usize, policies: &[Policy]) -> Resource {
    let access = one(rng, &[Access::Public, Access::Authenticated, Access::Authorized, Access::Authorized]);
    let asks = access != Access::Public;
    let mut resource = Resource::new(&format!("resource-{i}"), one(rng, &PATHS));
    resource.access = access;
    resource.hosts = if rng.random_bool(0.3) { vec![one(rng, &HOSTS).into()] } else { Vec::new() };
    resource.methods = maybe(rng, 0.4, |rng| vec![Method::parse(one(rng, &METHODS)), Method::Get]);
    resource.data_classification = maybe(rng, 0.6, |rng| one(rng, Classification::ALL));
    if asks {
        resource.authenticated_by = maybe(rng, 0.15, |rng| {
            one(rng, &[AuthenticatedBy::User, AuthenticatedBy::Workload, AuthenticatedBy::Both])
        })
        .unwrap_or_default();
        // Where somebody known is enough, naming one is refused at load.
        resource.permission =
            maybe(rng, 0.4, |rng| one(rng, &PERMISSIONS).into()).filter(|_| access == Access::Authorized);
        resource.policy = maybe(rng, 0.6, |rng| one(rng, policies).id);
        resource.min_trust_level = maybe(rng, 0.3, |rng| one(rng, TrustLevel::ALL));
        resource.device =
            maybe(rng, 0.3, |rng| one(rng, &[DeviceMode::Never, DeviceMode::WhenPresent, DeviceMode::Always]));
    }
    resource
}

fn policy(rng: &mut StdRng, i: usize) -> Policy {
    let mut policy = Policy::new(&format!("policy-{i}"));
    policy.conditions = Conditions {
        min_trust_score: maybe(rng, 0.2, |rng| f64::from(rng.random_range(0..10)) / 10.0),
        min_trust_level: maybe(rng, 0.2, |rng| one(rng, TrustLevel::ALL)),
        max_risk: None,
        required_auth_methods: if rng.random_bool(0.2) { methods(rng, 0.2) } else { AuthMethods::NONE },
        allowed_locations: (0..rng.random_range(0..6_usize).saturating_sub(3)).map(|_| location(rng)).collect(),
        device_requirements: (0..rng.random_range(0..6_usize).saturating_sub(4)).map(|_| requirement(rng)).collect(),
        data_classification: maybe(rng, 0.15, |rng| vec![one(rng, Classification::ALL), one(rng, Classification::ALL)])
            .unwrap_or_default(),
        api_scopes: maybe(rng, 0.2, |_| vec!["read".into()]).unwrap_or_default(),
        ..Conditions::default()
    };
    if rng.random_bool(0.3) {
        let scope =
            one(rng, &[RateScope::User, RateScope::ApiScope("read".into()), RateScope::ApiScope("write".into())]);
        policy.rate_limits = vec![RateLimit { scope, limit: 1, window: Duration::from_secs(1) }].into();
    }
    policy.actions = one(
        rng,
        &[
            vec![ActionKind::Allow],
            vec![ActionKind::Allow],
            vec![ActionKind::Allow],
            vec![ActionKind::ConditionalAllow],
            vec![ActionKind::StepUp],
            vec![ActionKind::Allow, ActionKind::StepUp],
            vec![ActionKind::Deny],
        ],
    );
    policy.constraints = Constraints {
        session_duration: maybe(rng, 0.2, |rng| Duration::from_secs(one(rng, &[100, 600, 7200]))),
        require_justification: rng.random_bool(0.1),
        require_signed_requests: rng.random_bool(0.1),
        validate_jwt: rng.random_bool(0.1),
        encrypt_in_transit: rng.random_bool(0.1),
        ..Constraints::default()
    };
    policy
}

fn location(rng: &mut StdRng) -> AllowedLocation {
    one(
        rng,
        &[
            AllowedLocation::CorporateNetwork,
            AllowedLocation::PrivateNetwork,
            AllowedLocation::KnownSecureLocation(Vec::new()),
            AllowedLocation::KnownSecureLocation(vec!["hq".into()]),
            AllowedLocation::Country(vec!["DE".into()]),
            AllowedLocation::Cidr(vec!["10.0.0.0/8".parse().unwrap()]),
        ],
    )
}

fn requirement(rng: &mut StdRng) -> DeviceRequirement {
    one(
        rng,
        &[
            DeviceRequirement::Managed(true),
            DeviceRequirement::Compliant(true),
            DeviceRequirement::Proof(DeviceProof::Key),
            DeviceRequirement::Proof(DeviceProof::Fingerprint),
            DeviceRequirement::PatchLevel(PatchRequirement::Current),
        ],
    )
}

fn fact<T>(rng: &mut StdRng, known: f64, make: impl FnOnce(&mut StdRng) -> T) -> Fact<T> {
    if rng.random_bool(known) {
        return Fact::known(make(rng), NOW);
    }
    match rng.random_range(0..3) {
        0 => Fact::Absent,
        1 => Fact::Unavailable(one(rng, &[Unavailable::Timeout, Unavailable::Store, Unavailable::Stale])),
        _ => Fact::NotAsked,
    }
}

fn ago(rng: &mut StdRng) -> UnixTime {
    let seconds = one(rng, &[0_u64, 1, 20, 59, 120, 250, 400, 1000, 2000, 4000, 9000, 20_000, 40_000]);
    UnixTime::from_secs(NOW.as_secs() - seconds)
}

pub(crate) fn facts(rng: &mut StdRng) -> Facts {
    Facts {
        now: NOW,
        request: request(rng),
        credential: if rng.random_bool(0.85) { verified(rng) } else { fact(rng, 0.5, refused) },
        workload: fact(rng, 0.3, |rng| Workload {
            principal: one(rng, &["ada", "bob"]).into(),
            cert_sha256: None,
            trust_domain: maybe(rng, 0.7, |_| "td".into()),
            out_of_time: rng.random_bool(0.2),
        }),
        revocation: if rng.random_bool(0.85) { Fact::known(Revocation::Clear, NOW) } else { fact(rng, 0.5, revoked) },
        notice: Fact::NotAsked,
        device: fact(rng, 0.7, sighting),
        place: fact(rng, 0.6, place),
        behavior: fact(rng, 0.5, behavior),
        session: if rng.random_bool(0.4) { Fact::NotAsked } else { fact(rng, 0.7, session) },
        quota: if rng.random_bool(0.5) { Fact::NotAsked } else { fact(rng, 0.8, quota) },
    }
}

fn request(rng: &mut StdRng) -> AccessRequest {
    let path = one(rng, &REQUESTED);
    AccessRequest {
        id: DecisionId::new(0, 0),
        transport: Transport::Http,
        method: Method::parse(one(rng, &["GET", "GET", "GET", "PUT", "DELETE", "TRACE"])),
        host: one(rng, &HOSTS).into(),
        path: if rng.random_bool(0.02) { Err(path::PathProblem::DotSegment) } else { Ok(path.into()) },
        client: maybe(rng, 0.7, |rng| one(rng, &["10.0.0.1", "203.0.113.7"]).parse().unwrap()),
        encrypted: rng.random_bool(0.8),
        client_kind: ClientKind::Api,
        long_lived: false,
        extensions: RouteExtensions {
            policy: maybe(rng, 0.08, |rng| one(rng, &["policy-0", "policy-1", "policy-9"]).into()),
            resource: maybe(rng, 0.08, |rng| one(rng, &["resource-0", "resource-1", "resource-9"]).into()),
            data_classification: maybe(rng, 0.1, |rng| one(rng, Classification::ALL)),
            min_trust_level: maybe(rng, 0.05, |rng| one(rng, TrustLevel::ALL)),
            segment: None,
            malformed: None,
        },
        justification: maybe(rng, 0.8, |_| "a good reason".into()),
        device_sent: true,
        destination: None,
    }
}

fn verified(rng: &mut StdRng) -> Fact<Credential> {
    let issued_at = ago(rng);
    let identity = Identity {
        issuer: "https://issuer.example".into(),
        subject: "ada".into(),
        kind: if rng.random_bool(0.8) { SubjectKind::Person } else { SubjectKind::Service },
        token_id: "t".into(),
        session: "s".into(),
        session_claimed: true,
        client_id: None,
        methods: methods(rng, 0.35),
        acr: None,
        auth_time: maybe(rng, 0.8, ago),
        issued_at,
        issue_unstated: false,
        expires_at: UnixTime::from_secs(NOW.as_secs() + one(rng, &[10, 600, 7200])),
        valid_until: None,
        roles: (0..rng.random_range(0..3)).map(|_| one(rng, &["clerk", "admin", "*"]).into()).collect(),
        permissions: (0..rng.random_range(0..2)).map(|_| one(rng, &["a:read", "*", "b"]).into()).collect(),
        scopes: (0..rng.random_range(0..3)).map(|_| Arc::from(one(rng, &["read", "write"]))).collect(),
        device: maybe(rng, 0.2, |rng| one(rng, &["laptop", "phone"]).into()),
        confirmation: None,
        audience: if rng.random_bool(0.9) { "api".into() } else { "".into() },
        attributes: Default::default(),
    };
    let proof = maybe(rng, 0.4, |rng| one(rng, &[Possession::Dpop, Possession::Certificate]));
    Fact::known(Credential::Verified { identity: Arc::new(identity), proof }, NOW)
}

fn refused(rng: &mut StdRng) -> Credential {
    Credential::Refused(one(
        rng,
        &[
            CredentialProblem::Ambiguous,
            CredentialProblem::Expired,
            CredentialProblem::Invalid,
            CredentialProblem::Unsupported,
        ],
    ))
}

fn revoked(rng: &mut StdRng) -> Revocation {
    Revocation::Revoked(one(rng, &RevocationKind::ALL))
}

fn sighting(rng: &mut StdRng) -> DeviceSighting {
    let flag = |rng: &mut StdRng| one(rng, &[None, Some(true), Some(true), Some(true), Some(false)]);
    let record = maybe(rng, 0.85, |rng| {
        Arc::new(DeviceRecord {
            user: one(rng, &[None, Some("ada".into()), Some("ada".into()), Some("ada".into()), Some("eve".into())]),
            managed: flag(rng),
            compliant: flag(rng),
            patch_level: one(
                rng,
                &[None, Some(PatchLevel::Current), Some(PatchLevel::Days(0)), Some(PatchLevel::Days(40))],
            ),
            jailbroken: one(rng, &[None, Some(false), Some(false), Some(false), Some(true)]),
            status: one(
                rng,
                &[DeviceStatus::Active, DeviceStatus::Active, DeviceStatus::Active, DeviceStatus::Suspended],
            ),
            trust_score: maybe(rng, 0.7, |rng| TrustScore::new(f64::from(rng.random_range(0..=10)) / 10.0)),
            jkt: one(rng, &[None, Some("k".into())]),
            disk_encrypted: one(rng, &[None, Some(true), Some(false)]),
            enrolled_at: one(rng, &[None, Some(UnixTime::EPOCH), Some(NOW)]),
            checked_at: one(rng, &[None, Some(NOW)]),
            ..DeviceRecord::default()
        })
    });
    DeviceSighting {
        id: "laptop".into(),
        record,
        proof: one(rng, &[DeviceProof::IdOnly, DeviceProof::Fingerprint, DeviceProof::Key]),
        fingerprint_differs: rng.random_bool(0.03),
        key_differs: rng.random_bool(0.03),
        differs_from_token: rng.random_bool(0.03),
        evidence: DeviceEvidence {
            certificate_expired: rng.random_bool(0.03),
            posture_stale: rng.random_bool(0.05),
            ..DeviceEvidence::default()
        },
    }
}

fn place(rng: &mut StdRng) -> Place {
    Place {
        country: maybe(rng, 0.8, |rng| one(rng, &["DE", "FR"]).into()),
        network: one(
            rng,
            &[
                NetworkKind::Ordinary,
                NetworkKind::Ordinary,
                NetworkKind::Corporate,
                NetworkKind::Private,
                NetworkKind::Vpn,
                NetworkKind::Hosting,
                NetworkKind::Tor,
            ],
        ),
        known_networks: maybe(rng, 0.3, |rng| vec![one(rng, &["hq", "branch"]).into()]).unwrap_or_default(),
        allowed: rng.random_bool(0.9),
        unusual: rng.random_bool(0.2),
        impossible_travel: rng.random_bool(0.1),
        known_to_subject: one(rng, &[None, Some(true), Some(false)]),
        ..Place::default()
    }
}

fn behavior(rng: &mut StdRng) -> Behavior {
    Behavior {
        unusual_time: rng.random_bool(0.2),
        rapid_requests: rng.random_bool(0.2),
        new_device: one(rng, &[None, Some(false), Some(true)]),
        score: maybe(rng, 0.5, |rng| f64::from(rng.random_range(0..=10)) / 10.0),
        assessment: None,
    }
}

fn session(rng: &mut StdRng) -> SessionState {
    SessionState {
        level_since: ago(rng),
        rising_since: maybe(rng, 0.3, ago),
        over_limit: rng.random_bool(0.05),
        stepped_up: maybe(rng, 0.2, |rng| (methods(rng, 0.4), ago(rng))),
        challenged_at: maybe(rng, 0.4, ago),
        ended: rng.random_bool(0.05),
        ..SessionState::begun(ago(rng), ago(rng), one(rng, TrustLevel::ALL))
    }
}

fn quota(rng: &mut StdRng) -> Quota {
    let allowed = rng.random_bool(0.7);
    Quota { allowed, limit: 1, remaining: 0, retry_after: u32::from(!allowed), reset: 1 }
}
