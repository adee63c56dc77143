//! Workloads as identities by themselves: a SPIFFE id of a configured trust domain, proved by mutual TLS.

use std::{sync::Arc, time::Duration};

use foldhash::quality::RandomState;
use moka::sync::Cache;

use super::{
    entry::{TokenEntry, VerifiedWith},
    peer::Peer,
    settings::WorkloadSettings,
    text::{is_clean, matches_pattern},
};
use crate::domain::{
    AuthMethod, AuthMethods, Confirmation, Identity, Issuer, Role, SessionId, SubjectId, SubjectKind, TokenId, UnixTime,
};

/// How many workload identities are remembered.
const WORKLOADS: u64 = 16_384;

/// Identities of workloads, made once for each principal and certificate.
#[derive(Debug)]
pub(super) struct Workloads {
    known: Cache<Arc<Peer>, Arc<TokenEntry>, RandomState>,
    settings: WorkloadSettings,
}

impl Workloads {
    pub(super) fn new(settings: WorkloadSettings) -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            known: Cache::builder()
                .max_capacity(WORKLOADS)
                .time_to_idle(hour)
                .build_with_hasher(RandomState::default()),
            settings,
        }
    }

    /// The identity that `peer` is by itself; `None` where it is none, or its certificate's time is over.
    pub(super) fn entry(&self, peer: &Arc<Peer>, now: UnixTime) -> Option<Arc<TokenEntry>> {
        if self.settings.trust_domains.is_empty() {
            return None;
        }
        if !peer.is_in_time(now) {
            return None;
        }
        if let Some(entry) = self.known.get(peer) {
            return Some(entry);
        }
        let entry = Arc::new(self.make(peer)?);
        self.known.insert(peer.clone(), entry.clone());
        Some(entry)
    }

    fn make(&self, peer: &Peer) -> Option<TokenEntry> {
        let workload = peer.workload.as_ref()?;
        let domain = workload.trust_domain.as_deref()?;
        // Where Envoy sends no certificate, nobody says.
        let (issued_at, expires_at) = peer.life.unwrap_or((UnixTime::EPOCH, UnixTime::MAX));
        let certificate = workload.cert_sha256.as_deref().unwrap_or(&workload.principal);
        let identity = Identity {
            issuer: Issuer::from(format!("spiffe://{domain}")),
            subject: SubjectId::new(workload.principal.clone()),
            kind: SubjectKind::Service,
            token_id: TokenId::from(format!("x509-{certificate}")),
            session: SessionId::from(format!("x509-{certificate}")),
            session_claimed: false,
            client_id: None,
            methods: AuthMethods::NONE.with(AuthMethod::Certificate),
            acr: None,
            auth_time: None,
            issued_at,
            issue_unstated: peer.life.is_none(),
            expires_at,
            valid_until: None,
            roles: self.roles(&workload.principal),
            permissions: Vec::new(),
            scopes: Vec::new(),
            device: None,
            confirmation: peer.sha256.map(Confirmation::CertificateSha256),
            audience: "".into(),
            attributes: Default::default(),
        };
        Some(TokenEntry::new(identity, usize::MAX, VerifiedWith::Certificate, issued_at))
    }

    fn roles(&self, principal: &str) -> Vec<Role> {
        let matching = self.settings.roles.iter().filter(|(pattern, _)| matches_pattern(pattern, principal));
        matching
            .flat_map(|(_, roles)| roles)
            .filter(|role| is_clean(role))
            .map(|role| Role::from(role.as_str()))
            .collect()
    }
}
