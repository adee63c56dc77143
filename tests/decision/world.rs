//! Facts and rules to start from: a person with password and TOTP on a proven, compliant laptop, and a small shop.

use std::sync::Arc;

use countersign::{
    decision::{Decision, decide},
    domain::*,
    policy::{
        Options, RuleSet, Rules,
        model::{Access, Policy, Resource},
    },
};

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

pub(crate) fn ago(seconds: u64) -> UnixTime {
    UnixTime::from_secs(NOW.as_secs() - seconds)
}

pub(crate) fn known<T>(value: T) -> Fact<T> {
    Fact::known(value, NOW)
}

pub(crate) fn methods(list: &[AuthMethod]) -> AuthMethods {
    list.iter().copied().collect()
}

pub(crate) fn identity() -> Identity {
    Identity {
        issuer: "https://issuer.example".into(),
        subject: "ada".into(),
        kind: SubjectKind::Person,
        token_id: "t1".into(),
        session: "s1".into(),
        session_claimed: true,
        client_id: Some("web".into()),
        methods: methods(&[AuthMethod::Password, AuthMethod::MfaTotp]),
        acr: None,
        auth_time: Some(ago(60)),
        issued_at: ago(60),
        issue_unstated: false,
        expires_at: UnixTime::from_secs(NOW.as_secs() + 3540),
        valid_until: None,
        roles: vec!["clerk".into()],
        permissions: Vec::new(),
        scopes: vec!["read:data".into()],
        device: None,
        confirmation: None,
        audience: "api.example.com".into(),
        attributes: Default::default(),
    }
}

pub(crate) fn laptop() -> DeviceRecord {
    DeviceRecord {
        user: Some("ada".into()),
        managed: Some(true),
        compliant: Some(true),
        patch_level: Some(PatchLevel::Current),
        trust_score: Some(TrustScore::new(0.9)),
        ..DeviceRecord::default()
    }
}

pub(crate) fn sighting(record: DeviceRecord) -> DeviceSighting {
    DeviceSighting {
        id: "laptop".into(),
        record: Some(Arc::new(record)),
        proof: DeviceProof::Key,
        fingerprint_differs: false,
        key_differs: false,
        differs_from_token: false,
        evidence: Default::default(),
    }
}

pub(crate) fn request(method: &str, path: &str) -> AccessRequest {
    AccessRequest {
        id: DecisionId::new(1, 2),
        transport: Transport::Http,
        method: Method::parse(method),
        host: "shop.example".into(),
        path: path::canonical_path(path).map(|path| path.into_owned().into()),
        client: Some("203.0.113.7".parse().unwrap()),
        encrypted: true,
        client_kind: ClientKind::Api,
        long_lived: false,
        extensions: RouteExtensions::default(),
        justification: None,
        device_sent: true,
        destination: None,
    }
}

/// Everything in order.
pub(crate) fn facts(method: &str, path: &str) -> Facts {
    Facts {
        now: NOW,
        request: request(method, path),
        credential: known(Credential::Verified { identity: Arc::new(identity()), proof: None }),
        workload: Fact::Absent,
        revocation: known(Revocation::Clear),
        notice: Fact::NotAsked,
        device: known(sighting(laptop())),
        place: Fact::NotAsked,
        behavior: Fact::NotAsked,
        session: Fact::NotAsked,
        quota: Fact::NotAsked,
    }
}

pub(crate) fn with_identity(facts: &mut Facts, change: impl FnOnce(&mut Identity)) {
    let mut identity = facts.identity().unwrap().as_ref().clone();
    change(&mut identity);
    facts.credential = known(Credential::Verified { identity: Arc::new(identity), proof: None });
}

pub(crate) fn place() -> Place {
    Place { country: Some("DE".into()), allowed: true, ..Place::default() }
}

pub(crate) fn shop() -> RuleSet {
    let mut set = RuleSet::with_default_guards();
    set.roles.insert("clerk".into(), vec!["orders:read".into()]);
    set.resources = vec![
        Resource { access: Access::Public, ..Resource::new("static", "/public/**") },
        Resource { access: Access::Authenticated, ..Resource::new("me", "/me") },
        Resource {
            permission: Some("orders:read".into()),
            methods: Some(vec![Method::Get]),
            ..Resource::new("orders", "/orders/{id}")
        },
        Resource {
            permission: Some("orders:write".into()),
            methods: Some(vec![Method::Put]),
            ..Resource::new("orders-write", "/orders/{id}")
        },
    ];
    set
}

/// A set of one resource, `/x`, bound to a policy.
pub(crate) fn bound(policy: Policy) -> RuleSet {
    let mut set = RuleSet::with_default_guards();
    set.resources = vec![Resource { policy: Some(policy.id.clone()), ..Resource::new("x", "/x") }];
    set.policies = vec![policy];
    set
}

pub(crate) fn fixed(set: RuleSet) -> Rules {
    let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
    Rules::build("test", set, None, options).unwrap()
}

pub(crate) fn decided(facts: &Facts, set: RuleSet) -> Decision {
    decide(facts, &fixed(set))
}

/// Verdict and reason in one word: `allow`, `deny:token_revoked`, `step-up:mfa_required`.
pub(crate) fn told(decision: &Decision) -> String {
    match decision.reason {
        Some(reason) => format!("{}:{}", decision.verdict.as_str(), reason),
        None => decision.verdict.as_str().to_owned(),
    }
}
