//! Facts of a verified request as the model sees them. Unknown facts are unknown to the model, which is neutral.

use crate::{
    domain::{
        AuthMethod, AuthMethods, DeviceProof, DeviceSighting, Fact, Identity, NetworkKind, Place, Role, SubjectKind,
        UnixTime,
    },
    risk::statistical::{
        Action, Agent, Event, Key,
        event::{Device, Place as Position, Proof, Strength, roles_key},
    },
};

/// What the pipeline knows of a request when its identity has been verified.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    pub now: UnixTime,
    pub identity: &'a Identity,
    /// Methods of the token, and of a step-up that was passed in this context.
    pub methods: AuthMethods,
    pub client: Option<std::net::IpAddr>,
    pub place: &'a Fact<Place>,
    pub device: &'a Fact<DeviceSighting>,
    /// The `User-Agent` header; empty when there is none.
    pub user_agent: &'a str,
    pub method: &'a str,
    /// The canonical path, or better the template of the resource that matched.
    pub path: &'a str,
}

/// The event that the model scores. Sessions go by `sid`, else by the token: a token is a session of its own.
pub fn event(seen: &Observation<'_>) -> Event {
    let identity = seen.identity;
    let subject = Key::of(identity.issuer.as_str()).within(identity.subject.as_str());
    let session = if identity.session_claimed { identity.session.as_str() } else { identity.token_id.as_str() };
    let place = seen.place.value();
    // Addresses that we know to be inside say nothing of where a person is.
    let inside = place.is_some_and(|place| matches!(place.network, NetworkKind::Private | NetworkKind::Corporate));
    let outside = place.filter(|_| !inside);
    Event {
        now: seconds(seen.now),
        subject,
        session: subject.within(session),
        authenticated: seconds(identity.authenticated_at()),
        strength: strength(identity.kind, seen.methods),
        address: seen.client.filter(|_| !inside),
        place: outside.and_then(position),
        asn: outside.and_then(|place| place.asn),
        anonymous: outside.is_some_and(|place| is_anonymous(place.network)),
        device: device(seen.device),
        agent: Agent::parse(seen.user_agent),
        action: Action::of(seen.method, seen.path),
        roles: roles_key(identity.roles.iter().map(Role::as_str)),
    }
}

fn seconds(time: UnixTime) -> f64 {
    time.as_millis() as f64 / 1000.0
}

fn strength(kind: SubjectKind, methods: AuthMethods) -> Strength {
    let possession = [AuthMethod::HardwareKey, AuthMethod::Certificate, AuthMethod::Biometric];
    match kind {
        SubjectKind::Service => Strength::Service,
        SubjectKind::Person if methods.is_multi_factor() => Strength::Strong,
        SubjectKind::Person if possession.iter().any(|method| methods.contains(*method)) => Strength::Strong,
        SubjectKind::Person => Strength::Weak,
    }
}

fn position(place: &Place) -> Option<Position> {
    let country = place.country.as_deref().and_then(|code| <[u8; 2]>::try_from(code.as_bytes()).ok());
    if country.is_none() && place.position.is_none() {
        return None;
    }
    Some(Position {
        country: country.unwrap_or_default(),
        position: place.position.map(|(latitude, longitude)| (latitude as f32, longitude as f32)),
        radius_km: place.accuracy_km.map_or(0.0, f32::from),
    })
}

fn is_anonymous(network: NetworkKind) -> bool {
    matches!(network, NetworkKind::Vpn | NetworkKind::Hosting | NetworkKind::Tor)
}

fn device(fact: &Fact<DeviceSighting>) -> Device {
    let Some(sighting) = fact.value() else { return Device::default() };
    let proof = match sighting.proof {
        _ if sighting.key_differs => Proof::Missing,
        DeviceProof::Key => Proof::Proved,
        DeviceProof::IdOnly | DeviceProof::Fingerprint => Proof::Named,
    };
    Device {
        id: Some(Key::of(sighting.id.as_str())),
        proof,
        compliant: sighting.record.as_ref().and_then(|record| record.compliant),
        jailbroken: sighting.record.as_ref().is_some_and(|record| record.jailbroken == Some(true)),
    }
}
