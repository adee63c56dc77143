//! Somebody with a token, and the facts of their requests.

use std::sync::Arc;

use super::{HOUR, START};
use crate::domain::{
    AccessRequest, AuthMethod, AuthMethods, ClientKind, Credential, DecisionId, DeviceId, DeviceProof, DeviceRecord,
    DeviceSighting, Fact, Facts, Identity, Method, Place, Revocation, RouteExtensions, SubjectKind, Transport,
    UnixTime,
};

/// A person with a token, and what their requests look like.
#[derive(Clone)]
pub(super) struct Person {
    pub(super) identity: Identity,
    pub(super) device: Option<&'static str>,
    pub(super) place: Fact<Place>,
}

impl Person {
    /// Password and one-time code at `now`, a token of an hour.
    pub(super) fn signed_in(now: UnixTime) -> Self {
        let identity = Identity {
            issuer: "https://issuer.test".into(),
            subject: "ann".into(),
            kind: SubjectKind::Person,
            token_id: "t1".into(),
            session: "s1".into(),
            session_claimed: true,
            client_id: None,
            methods: AuthMethods::NONE.with(AuthMethod::Password).with(AuthMethod::MfaTotp),
            acr: None,
            auth_time: Some(now),
            issued_at: now,
            issue_unstated: false,
            expires_at: now.plus(HOUR),
            valid_until: None,
            roles: Vec::new(),
            permissions: Vec::new(),
            scopes: Vec::new(),
            device: None,
            confirmation: None,
            audience: "api".into(),
            attributes: Default::default(),
        };
        Self { identity, device: None, place: Fact::NotAsked }
    }

    /// The same login, a newer token.
    pub(super) fn refreshed(mut self, now: UnixTime) -> Self {
        (self.identity.issued_at, self.identity.expires_at) = (now, now.plus(HOUR));
        self
    }

    pub(super) fn session(mut self, id: &str) -> Self {
        self.identity.session = id.into();
        self
    }

    pub(super) fn from(self, country: &str, asn: u32, unusual: bool) -> Self {
        let place = Place { country: Some(country.into()), asn: Some(asn), allowed: true, unusual, ..Place::default() };
        Self { place: Fact::known(place, START), ..self }
    }

    pub(super) fn facts(&self, now: UnixTime) -> Facts {
        let record = DeviceRecord { user: Some("ann".into()), compliant: Some(true), ..DeviceRecord::default() };
        let sighting = |id: &str| DeviceSighting {
            id: DeviceId::from(id),
            record: Some(Arc::new(record.clone())),
            proof: DeviceProof::Key,
            fingerprint_differs: false,
            key_differs: false,
            differs_from_token: false,
            evidence: Default::default(),
        };
        Facts {
            now,
            request: AccessRequest {
                id: DecisionId::new(0, 0),
                transport: Transport::Http,
                method: Method::Get,
                host: "".into(),
                path: Ok("/work".into()),
                client: None,
                encrypted: true,
                client_kind: ClientKind::Api,
                long_lived: false,
                extensions: RouteExtensions::default(),
                justification: None,
                device_sent: self.device.is_some(),
                destination: None,
            },
            credential: Fact::known(
                Credential::Verified { identity: Arc::new(self.identity.clone()), proof: None },
                now,
            ),
            workload: Fact::Absent,
            revocation: Fact::known(Revocation::Clear, now),
            notice: Fact::NotAsked,
            device: self.device.map_or(Fact::Absent, |id| Fact::known(sighting(id), now)),
            place: self.place.clone(),
            behavior: Fact::NotAsked,
            session: Fact::NotAsked,
            quota: Fact::NotAsked,
        }
    }
}
