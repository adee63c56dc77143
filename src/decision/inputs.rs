//! What a caller's trust is made from, as far as the facts alone say.

use crate::{
    domain::{
        AuthMethod, AuthMethods, DeviceProof, Facts, Identity, NetworkKind, Possession, RiskScore, SubjectKind,
        TrustScore, UnixTime, Workload,
    },
    trust,
};

/// How far ahead of our clock an issuer's may run before its `auth_time` is not believed, in seconds.
const SKEW: u64 = 60;

/// What a service's certificate counts as where it stands for a device.
pub(super) const CERTIFIED: (TrustScore, DeviceProof) = (TrustScore::new(trust::device::START), DeviceProof::Key);

/// A service that shows its certificate: one that its token is bound to, or one that names it, in its time and, where it is
/// a SPIFFE id, of a trust domain that is configured.
pub(super) fn is_certified_service(facts: &Facts, identity: &Identity, proof: Option<Possession>) -> bool {
    let named = |peer: &Workload| {
        *peer.principal == *identity.subject.as_str()
            && !peer.out_of_time
            && (peer.is_trusted() || !peer.principal.starts_with("spiffe://"))
    };
    identity.kind == SubjectKind::Service
        && (proof == Some(Possession::Certificate) || facts.workload.value().is_some_and(named))
}

/// The token's methods, and those of a step-up that was passed.
pub(super) fn methods_used(facts: &Facts, identity: &Identity, certified_service: bool) -> AuthMethods {
    let passed = facts.session.value().and_then(|session| session.stepped_up);
    let own = if certified_service { AuthMethods::NONE.with(AuthMethod::Certificate) } else { AuthMethods::NONE };
    identity.methods.union(passed.map_or(AuthMethods::NONE, |(used, _)| used)).union(own)
}

/// `auth_time`, unless it lies in a future that no clock skew explains.
pub(super) fn auth_time(facts: &Facts, identity: &Identity) -> Option<UnixTime> {
    let latest = UnixTime::from_secs(facts.now.as_secs().saturating_add(SKEW));
    identity.auth_time.filter(|time| *time <= latest)
}

/// When the token was issued. Where nobody says, `issued_at` is only when it was asked about here: as long ago as its session
/// began, unless somebody has authenticated for it since.
pub(super) fn issued_at(facts: &Facts, identity: &Identity) -> UnixTime {
    match facts.session.value() {
        Some(session) if identity.issue_unstated => {
            let since = auth_time(facts, identity).map_or(session.created_at, |time| time.max(session.created_at));
            since.min(identity.issued_at)
        }
        _ => identity.issued_at,
    }
}

/// When the caller last authenticated: `auth_time`, else `iat`, or a step-up since. What decay and `max_age` count from.
pub fn authenticated_at(facts: &Facts, identity: &Identity) -> UnixTime {
    let claimed = auth_time(facts, identity).unwrap_or_else(|| issued_at(facts, identity));
    let passed = facts.session.value().and_then(|session| session.stepped_up).map_or(UnixTime::EPOCH, |(_, at)| at);
    claimed.max(passed.min(facts.now))
}

/// `age`: seconds since the authentication, of a person.
pub(super) fn trust_inputs(
    facts: &Facts,
    methods: AuthMethods,
    device: Option<(TrustScore, DeviceProof)>,
    risk: RiskScore,
    age: Option<f64>,
) -> trust::Inputs {
    let (place, past) = (facts.place.value(), facts.behavior.value());
    let assessment = past.and_then(|past| past.assessment);
    trust::Inputs {
        methods,
        device,
        network: trust::Network {
            kind: place.map_or(NetworkKind::Ordinary, |place| place.network),
            known_to_subject: place.is_some_and(|place| place.known_to_subject == Some(true)),
        },
        behavior: past.and_then(|past| past.score),
        risk,
        age,
        device_factor: assessment.map_or(1.0, |model| model.device_factor),
        network_factor: assessment.map_or(1.0, |model| model.network_factor),
    }
}
