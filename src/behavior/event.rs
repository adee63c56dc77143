//! Facts of a verified request as the model sees them. Unknown facts are unknown to the model, which is neutral.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;

use crate::{
    domain::{
        AuthMethod, AuthMethods, DeviceProof, DeviceSighting, Fact, Facts, Identity, Issuer, NetworkKind, Place, Role,
        SubjectId, SubjectKind, UnixTime, address,
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
    /// Of the same identity.
    pub keys: &'a TokenKeys,
    /// Methods of the token, and of a step-up that was passed in this context.
    pub methods: AuthMethods,
    pub client: Option<std::net::IpAddr>,
    pub place: &'a Fact<Place>,
    pub device: &'a Fact<DeviceSighting>,
    /// What its `User-Agent` says.
    pub agent: Agent,
    pub method: &'a str,
    /// The canonical path.
    pub path: &'a str,
    /// The pattern of the rules that it matched, where that is known.
    pub pattern: Option<&'a str>,
}

impl<'a> Observation<'a> {
    /// What the facts of a request say; `None` without a verified identity. A step-up that was passed in this context counts
    /// as a method of the token.
    pub fn of(facts: &'a Facts, keys: &'a TokenKeys, agent: Agent, pattern: Option<&'a str>) -> Option<Self> {
        let identity = facts.identity()?;
        let passed = facts.session.value().and_then(|session| session.stepped_up);
        Some(Self {
            now: facts.now,
            identity,
            keys,
            methods: passed.map_or(identity.methods, |(methods, _)| identity.methods.union(methods)),
            client: facts.request.client,
            place: &facts.place,
            device: &facts.device,
            agent,
            method: facts.request.method.as_str(),
            path: facts.request.path.as_deref().unwrap_or_default(),
            pattern,
        })
    }
}

/// The client that a token was last seen with: a header is read when it changes, not at every request.
#[derive(Debug, Default)]
pub struct LastAgent(ArcSwapOption<(Box<str>, Agent)>);

impl LastAgent {
    /// Longest header that is kept, in octets.
    const LONGEST: usize = 512;

    /// Reads a `User-Agent` header; empty when there is none.
    pub fn read(&self, header: &str) -> Agent {
        if let Some((known, agent)) = self.0.load().as_deref()
            && **known == *header
        {
            return *agent;
        }
        let agent = Agent::parse(header);
        if header.len() <= Self::LONGEST {
            self.0.store(Some(Arc::new((header.into(), agent))));
        }
        agent
    }
}

/// What the model calls the subject, the session and the roles of a token: made once.
#[derive(Debug, Default)]
pub struct TokenKeys(OnceLock<(Key, Key, u32)>);

impl TokenKeys {
    /// Sessions go by `sid`, else by the token: a token is a session of its own.
    fn of(&self, identity: &Identity) -> (Key, Key, u32) {
        *self.0.get_or_init(|| {
            let (issuer, subject) = (identity.issuer.as_str(), identity.subject.as_str());
            let (kind, session) = match identity.session_claimed {
                true => ("session", identity.session.as_str()),
                false => ("token", identity.token_id.as_str()),
            };
            let session = digested([kind, issuer, subject, session]);
            (key(&identity.issuer, &identity.subject), session, roles_key(identity.roles.iter().map(Role::as_str)))
        })
    }
}

/// The key under which a subject is remembered.
pub fn key(issuer: &Issuer, subject: &SubjectId) -> Key {
    digested(["subject", issuer.as_str(), subject.as_str()])
}

/// 64 bits of a SHA-256. Whoever may choose his own name, or a session's, must not be able to choose one that shares somebody
/// else's past, as he could with a quick hash.
fn digested<const N: usize>(parts: [&str; N]) -> Key {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let sum = context.finish();
    Key(sum.as_ref().first_chunk().map_or(0, |octets| u64::from_le_bytes(*octets)))
}

/// The event that the model scores.
pub fn event(seen: &Observation<'_>) -> Event {
    let identity = seen.identity;
    let (subject, session, roles) = seen.keys.of(identity);
    let place = seen.place.value();
    // Addresses that we know to be inside say nothing of where a person is; no database is needed to know a private one.
    let inside = match place {
        Some(place) => matches!(place.network, NetworkKind::Private | NetworkKind::Corporate),
        None => seen.client.is_some_and(|client| address::is_private(client.to_canonical())),
    };
    let outside = place.filter(|_| !inside);
    Event {
        now: seconds(seen.now),
        subject,
        session,
        ends: (!identity.session_claimed).then(|| seconds(identity.valid_until.unwrap_or(identity.expires_at))),
        strength: strength(identity.kind, seen.methods),
        address: seen.client.filter(|_| !inside),
        place: outside.and_then(position),
        asn: outside.and_then(|place| place.asn),
        anonymous: outside.is_some_and(|place| is_anonymous(place.network)),
        device: device(seen.device),
        agent: seen.agent,
        action: match seen.pattern {
            Some(pattern) => Action::matched(seen.method, seen.path, pattern),
            None => Action::of(seen.method, seen.path),
        },
        roles,
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
    let sighting = match fact {
        Fact::Known { value, .. } => value,
        Fact::Absent => return Device::default(),
        // That nobody looked says nothing of the request.
        Fact::Unavailable(_) | Fact::NotAsked => return Device { unseen: true, ..Device::default() },
    };
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
        unseen: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_anew_when_it_changes() {
        let last = LastAgent::default();
        for header in ["curl/8.7.1", "curl/8.7.1", "Mozilla/5.0 (X11; Linux x86_64) Firefox/144.0", "", "curl/8.7.1"] {
            assert_eq!(last.read(header), Agent::parse(header), "{header}");
        }
        let long = format!("curl/8 {}", "x".repeat(LastAgent::LONGEST));
        assert_eq!(last.read(&long), Agent::parse(&long));
    }
}
