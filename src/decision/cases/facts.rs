//! Facts as a case writes them. What is not said is ordinary: a person with password and TOTP, logged in a minute ago,
//! nothing revoked, no device, places and behaviour not asked for.

use std::{sync::Arc, time::Duration};

use serde::de::DeserializeOwned;

use super::shape::{BehaviorCase, CallerCase, DeviceCase, PlaceCase, RequestCase, SessionCase};

use crate::{
    document::{Diagnostic, Node, Problem},
    domain::{
        AccessRequest, Behavior, ClientKind, Credential, CredentialProblem, DecisionId, DeviceEvidence, DeviceProof,
        DeviceRecord, DeviceSighting, Fact, Facts, Identity, Method, Place, Possession, Quota, Revocation,
        RevocationKind, RiskScore, RouteExtensions, SessionStart, SessionState, Transport, TrustLevel, TrustScore,
        Unavailable, UnixTime, Workload, host::canonical_host, path::canonical_path, span::Span,
    },
};

/// Noon, UTC, of the day on which every case happens.
const NOON: UnixTime = UnixTime::from_secs(1_800_014_400);

/// Reads sections, collecting problems.
pub(super) struct Reader<'a> {
    pub(super) path: &'a str,
    pub(super) problems: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    pub(super) fn facts<'d>(&mut self, section: impl Fn(&str) -> Option<&'d Node>) -> Facts {
        let raw: RequestCase = self.map("request", section("request"));
        let now = raw.hour.map_or(NOON, |hour| NOON.minus(hours(12)).plus(hours(hour.min(23))));
        let device_sent = section("device").is_some_and(|node| node.text() != Some("none"));
        let request = request(raw, device_sent);
        let proof = self.word(
            "proof",
            section("proof"),
            &[("dpop", Possession::Dpop), ("certificate", Possession::Certificate)],
        );
        let credential = self.caller(section("caller"), proof, now);
        let subject = match credential.value() {
            Some(Credential::Verified { identity, .. }) => identity.subject.as_str().to_owned(),
            _ => String::new(),
        };
        let workload = section("workload").and_then(Node::text);
        Facts {
            now,
            request,
            credential,
            workload: workload.map_or(Fact::Absent, |principal| known(workload_of(principal), now)),
            revocation: self.revoked(section("revoked"), now),
            notice: Fact::NotAsked,
            device: self.device(section("device"), &subject, now),
            place: self.fact("place", section("place"), now, place),
            behavior: self.fact("behavior", section("behavior"), now, |raw| behavior(&raw)),
            session: self.fact("session", section("session"), now, |raw| session(&raw, now)),
            quota: self.quota(section("quota"), now),
        }
    }

    fn map<T: Default + DeserializeOwned>(&mut self, name: &str, node: Option<&Node>) -> T {
        node.and_then(|node| node.read_into(&format!("{}.{name}", self.path), self.problems)).unwrap_or_default()
    }

    /// One of a few words.
    fn word<T: Copy>(&mut self, name: &str, node: Option<&Node>, words: &[(&str, T)]) -> Option<T> {
        let node = node?;
        let found = node.text().and_then(|text| words.iter().find(|(word, _)| *word == text)).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let problem = Problem::error("", format!("expected one of {}", words.join(", ")));
            self.problems.push(node.diagnose(&format!("{}.{name}", self.path), problem));
        }
        found
    }

    /// A map of what is known, or one of the words `none`, `unknown`, `not_asked`.
    fn fact<T, R: Default + DeserializeOwned>(
        &mut self,
        name: &str,
        node: Option<&Node>,
        now: UnixTime,
        make: impl FnOnce(R) -> T,
    ) -> Fact<T> {
        match node {
            None => Fact::NotAsked,
            Some(node) if node.text().is_some() => {
                match self.word(name, Some(node), &LACKS).unwrap_or(Lack::NotAsked) {
                    Lack::None => Fact::Absent,
                    Lack::Unknown => Fact::Unavailable(Unavailable::Store),
                    Lack::NotAsked => Fact::NotAsked,
                }
            }
            Some(node) => known(make(self.map(name, Some(node))), now),
        }
    }

    fn caller(&mut self, node: Option<&Node>, proof: Option<Possession>, now: UnixTime) -> Fact<Credential> {
        if let Some(text) = node.and_then(Node::text) {
            let problems = [
                ("expired", CredentialProblem::Expired),
                ("invalid", CredentialProblem::Invalid),
                ("ambiguous", CredentialProblem::Ambiguous),
            ];
            return match text {
                "nobody" => Fact::Absent,
                "unknown" => Fact::Unavailable(Unavailable::NotReady),
                _ => self
                    .word("caller", node, &problems)
                    .map_or(Fact::Absent, |problem| known(Credential::Refused(problem), now)),
            };
        }
        let raw: CallerCase = self.map("caller", node);
        known(Credential::Verified { identity: Arc::new(identity(raw, now)), proof }, now)
    }

    fn revoked(&mut self, node: Option<&Node>, now: UnixTime) -> Fact<Revocation> {
        let words = [
            ("no", Some(Revocation::Clear)),
            ("token", Some(Revocation::Revoked(RevocationKind::Token))),
            ("session", Some(Revocation::Revoked(RevocationKind::Session))),
            ("subject", Some(Revocation::Revoked(RevocationKind::Subject))),
            ("device", Some(Revocation::Revoked(RevocationKind::Device))),
            ("unknown", None),
        ];
        match node.map(|node| self.word("revoked", Some(node), &words)) {
            Some(Some(None)) => Fact::Unavailable(Unavailable::Store),
            Some(Some(Some(state))) => known(state, now),
            Some(None) | None => known(Revocation::Clear, now),
        }
    }

    fn device(&mut self, node: Option<&Node>, subject: &str, now: UnixTime) -> Fact<DeviceSighting> {
        match node.and_then(Node::text) {
            Some("unregistered") => known(sighting("unregistered", None, DeviceProof::IdOnly), now),
            None if node.is_none() => Fact::Absent,
            _ => self.fact("device", node, now, |raw: DeviceCase| registered(raw, subject)),
        }
    }

    fn quota(&mut self, node: Option<&Node>, now: UnixTime) -> Fact<Quota> {
        let quota = |allowed| Quota { allowed, limit: 1, remaining: u32::from(allowed), retry_after: 30, reset: 60 };
        match self.word("quota", node, &[("left", Some(true)), ("exceeded", Some(false)), ("unknown", None)]) {
            Some(Some(allowed)) => known(quota(allowed), now),
            Some(None) => Fact::Unavailable(Unavailable::Store),
            None => Fact::NotAsked,
        }
    }
}

#[derive(Clone, Copy)]
enum Lack {
    None,
    Unknown,
    NotAsked,
}

const LACKS: [(&str, Lack); 3] = [("none", Lack::None), ("unknown", Lack::Unknown), ("not_asked", Lack::NotAsked)];

/// A SPIFFE id is one of a trust domain that is configured.
fn workload_of(principal: &str) -> Workload {
    let domain =
        principal.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map(|(domain, _)| domain.into());
    Workload { principal: principal.into(), cert_sha256: None, trust_domain: domain, out_of_time: false }
}

const fn known<T>(value: T, now: UnixTime) -> Fact<T> {
    Fact::known(value, now)
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn request(raw: RequestCase, device_sent: bool) -> AccessRequest {
    let justification = raw.justification.filter(|text| (10..=512).contains(&text.chars().count()));
    AccessRequest {
        id: DecisionId::new(0, 0),
        transport: if raw.tcp { Transport::Tcp } else { Transport::Http },
        method: Method::parse(&raw.method),
        host: canonical_host(&raw.host).unwrap_or_default().into(),
        path: canonical_path(&raw.path).map(Into::into),
        client: raw.address,
        encrypted: raw.encrypted,
        client_kind: ClientKind::Api,
        long_lived: false,
        extensions: RouteExtensions {
            policy: raw.extensions.policy.map(Into::into),
            resource: raw.extensions.resource.map(Into::into),
            data_classification: raw.extensions.data_classification,
            min_trust_level: raw.extensions.min_trust_level,
            ..RouteExtensions::default()
        },
        justification: justification.map(Into::into),
        device_sent,
        destination: None,
    }
}

fn identity(raw: CallerCase, now: UnixTime) -> Identity {
    Identity {
        issuer: raw.issuer.into(),
        subject: raw.subject.into(),
        kind: raw.kind,
        token_id: "case".into(),
        session: "case".into(),
        session_claimed: true,
        client_id: raw.client.map(Into::into),
        methods: raw.methods.into_iter().collect(),
        acr: None,
        auth_time: Some(now.minus(raw.authenticated.get())),
        issued_at: now.minus(raw.issued.get()),
        issue_unstated: false,
        expires_at: now.plus(raw.expires_in.get()),
        valid_until: None,
        roles: raw.roles.into_iter().map(Into::into).collect(),
        permissions: raw.permissions.into_iter().map(Into::into).collect(),
        scopes: raw.scopes.into_iter().map(Into::into).collect(),
        device: raw.device.map(Into::into),
        confirmation: None,
        audience: if raw.token { "case".into() } else { "".into() },
        attributes: raw.claims.into_iter().map(|(name, value)| (name.into(), value)).collect(),
    }
}

fn sighting(id: &str, record: Option<DeviceRecord>, proof: DeviceProof) -> DeviceSighting {
    let record = record.map(Arc::new);
    let (fingerprint_differs, key_differs, differs_from_token) = (false, false, false);
    let evidence = DeviceEvidence::default();
    DeviceSighting { id: id.into(), record, proof, fingerprint_differs, key_differs, differs_from_token, evidence }
}

/// A registered device; its owner is the caller unless the case says otherwise.
fn registered(raw: DeviceCase, subject: &str) -> DeviceSighting {
    let record = DeviceRecord {
        user: Some(raw.user.as_deref().unwrap_or(subject).into()),
        managed: raw.managed,
        compliant: raw.compliant,
        patch_level: raw.patch_level,
        os: raw.os.map(Into::into),
        jailbroken: raw.jailbroken,
        disk_encrypted: raw.disk_encrypted,
        status: raw.status,
        trust_score: raw.trust_score.map(TrustScore::new),
        ..DeviceRecord::default()
    };
    DeviceSighting {
        fingerprint_differs: raw.fingerprint_differs,
        key_differs: raw.key_differs,
        ..sighting(raw.id.as_deref().unwrap_or("device"), Some(record), raw.proof.unwrap_or(DeviceProof::Key))
    }
}

fn place(raw: PlaceCase) -> Place {
    Place {
        country: raw.country.map(Into::into),
        network: raw.network,
        known_networks: raw.known_networks.into_iter().map(Into::into).collect(),
        allowed: raw.allowed,
        unusual: raw.unusual,
        impossible_travel: raw.impossible_travel,
        known_to_subject: raw.known_to_subject,
        ..Place::default()
    }
}

fn behavior(raw: &BehaviorCase) -> Behavior {
    Behavior {
        unusual_time: raw.unusual_time,
        rapid_requests: raw.rapid_requests,
        new_device: raw.new_device,
        score: raw.score,
        assessment: None,
    }
}

fn session(raw: &SessionCase, now: UnixTime) -> SessionState {
    let ago = |span: Option<Span>| span.map(|span| now.minus(span.get()));
    SessionState {
        created_at: ago(raw.created).unwrap_or(now),
        verified_at: ago(raw.verified).unwrap_or(UnixTime::EPOCH),
        stepped_up: ago(raw.stepped_up).map(|at| (raw.stepped_up_by.iter().copied().collect(), at)),
        challenged_at: ago(raw.challenged),
        risk_ceiling: raw.risk_ceiling.map(RiskScore::new),
        start: SessionStart {
            device: raw.device.as_deref().map(Into::into),
            country: raw.country.as_deref().map(Into::into),
            asn: None,
        },
        ended: raw.ended,
        over_limit: raw.over_limit,
        ..SessionState::begun(now, now, raw.level.unwrap_or(TrustLevel::Privileged))
    }
}
