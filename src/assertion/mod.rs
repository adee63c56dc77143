//! What an upstream may rely on without trusting the network between: a signed statement of who asks, for this upstream only.
//!
//! A JWT with a `typ` of its own, so that it is never taken for an access token, an `aud` of one upstream, and a life of a
//! minute. Signing costs about as much as verifying a token and happens once in most of that minute for each
//! (token, session, device, level, audience, rules); between, a check is one look-up. Never a secret, never the caller's token.

mod key;
mod ring;
mod settings;
mod shared;
mod vault;

use std::{collections::HashMap, fmt, hash, sync::Arc};

use quick_cache::sync::Cache;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::{
    settings::{Algorithm, Settings},
    shared::SharedKeys,
};
use crate::{
    clock::Clock,
    domain::{
        AuthMethods, DeviceId, Identity, PolicyId, RiskLevel, SessionId, SubjectKind, TrustLevel, UnixTime,
        metric::{Counter, Page, Source},
    },
    policy::Restrictions,
    store::Store,
};

/// The header parameter `typ` of an assertion. Upstreams must demand it.
pub const TYPE: &str = "countersign-assertion+jwt";

/// Signs assertions with the keys that all replicas share.
pub struct Assertions {
    settings: Settings,
    audiences: HashMap<String, Arc<str>>,
    keys: SharedKeys,
    cache: Cache<Subject, Signed>,
    counters: Counters,
}

/// Whom and what an assertion is about; also what it is kept under. Equal subjects get the same assertion.
#[derive(Clone, Debug)]
pub struct Subject {
    pub identity: Arc<Identity>,
    pub session: SessionId,
    pub device: Option<DeviceId>,
    pub trust_level: TrustLevel,
    pub risk_level: RiskLevel,
    /// From [`Assertions::audience`].
    pub audience: Arc<str>,
    pub policy: Option<PolicyId>,
    pub restrictions: Restrictions,
    /// Generation of the rules.
    pub rules: u64,
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.identity, &other.identity) || self.identity == other.identity)
            && self.session == other.session
            && self.device == other.device
            && (self.trust_level, self.risk_level, self.rules) == (other.trust_level, other.risk_level, other.rules)
            && self.audience == other.audience
            && self.policy == other.policy
            && self.restrictions == other.restrictions
    }
}

impl Eq for Subject {}

/// Over what tells most subjects apart; equality looks at all of it.
impl hash::Hash for Subject {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.identity.token_id.hash(state);
        self.audience.hash(state);
        self.trust_level.hash(state);
    }
}

#[derive(Clone, Debug)]
struct Signed {
    token: Arc<str>,
    from: UnixTime,
    /// Not handed out after this: what is left of its life is for the way and for clocks that differ.
    until: UnixTime,
}

#[derive(Debug, Default)]
pub struct Counters {
    pub reused: Counter,
    pub signed: Counter,
    /// Allowed requests that went on without an assertion: no key yet.
    pub missing: Counter,
    pub refresh_failures: Counter,
}

impl Counters {
    fn refreshed(&self, refreshed: bool) {
        if !refreshed {
            self.refresh_failures.increment();
        }
    }
}

/// The claims. Lists are left out where they are empty.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    /// The issuer of the caller's own token: `sub` is unique together with it only.
    sub_iss: &'a str,
    kind: SubjectKind,
    iat: u64,
    exp: u64,
    jti: String,
    sid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [crate::domain::Role],
    methods: AuthMethods,
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<u64>,
    trust_level: TrustLevel,
    risk_level: RiskLevel,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    restrictions: Restrictions,
}

/// Why assertions could not begin.
#[derive(Debug, thiserror::Error)]
#[error("assertion: the cryptographic library refused")]
pub struct Error;

impl Assertions {
    /// Nothing is fetched yet: see [`Assertions::watch`] and [`Assertions::refresh`].
    ///
    /// # Errors
    ///
    /// Where the secret cannot be made a key of.
    pub fn new(settings: Settings, store: Arc<dyn Store>) -> Result<Arc<Self>, Error> {
        let keys = SharedKeys::new(store, &settings, settings.algorithm, TYPE)?;
        let audiences = settings.audiences.iter().map(|(host, name)| (host.clone(), name.as_str().into())).collect();
        let cache = Cache::new(usize::try_from(settings.cache_entries).unwrap_or(usize::MAX));
        Ok(Arc::new(Self { settings, audiences, keys, cache, counters: Counters::default() }))
    }

    /// Obtains keys and looks after them until cancelled.
    pub fn watch(self: &Arc<Self>, clock: Clock, cancel: CancellationToken) -> JoinHandle<()> {
        let assertions = Arc::clone(self);
        tokio::spawn(async move {
            let told = |refreshed| assertions.counters.refreshed(refreshed);
            assertions.keys.keep(&clock, &cancel, told).await;
        })
    }

    /// Obtains this period's key and the next. Says whether there is one to sign with.
    pub async fn refresh(&self, now: UnixTime) -> bool {
        self.counters.refreshed(self.keys.refresh(now).await);
        self.is_ready(now)
    }

    /// Whether there is a key to sign with.
    pub fn is_ready(&self, now: UnixTime) -> bool {
        self.keys.is_ready(now)
    }

    /// What a start has to wait for; `None`: nothing. Once that is so it stays so.
    pub fn not_ready(&self) -> Option<&'static str> {
        let waits = self.settings.enabled && !self.keys.is_settled();
        waits.then_some("the keys that assertions are signed with have not been had yet")
    }

    /// Whether upstreams get assertions at all.
    pub const fn is_enabled(&self) -> bool {
        self.settings.enabled
    }

    /// The audience of requests to a host (canonical form).
    pub fn audience(&self, host: &Arc<str>) -> Arc<str> {
        self.audiences.get(&**host).unwrap_or(host).clone()
    }

    /// An assertion about `subject`, fresh enough to travel. `None`: switched off, or there is no key yet.
    pub fn assertion(&self, subject: &Subject, now: UnixTime) -> Option<Arc<str>> {
        if !self.settings.enabled {
            return None;
        }
        if let Some(signed) = self.cache.get(subject).filter(|signed| (signed.from..signed.until).contains(&now)) {
            self.counters.reused.increment();
            return Some(signed.token);
        }
        let signed = self.sign(subject, now);
        match &signed {
            Some(signed) => {
                self.counters.signed.increment();
                self.cache.insert(subject.clone(), signed.clone());
            }
            None => self.counters.missing.increment(),
        }
        signed.map(|signed| signed.token)
    }

    fn sign(&self, subject: &Subject, now: UnixTime) -> Option<Signed> {
        let expires = now.plus(self.settings.life.get()).min(subject.identity.ends_at(now));
        let claims = serde_json::to_vec(&self.claims(subject, now, expires)).ok()?;
        let token = self.keys.sign(&claims, now)?.into();
        let until = now.plus(expires.since(now) * 3 / 4);
        Some(Signed { token, from: now, until })
    }

    fn claims<'a>(&'a self, subject: &'a Subject, now: UnixTime, expires: UnixTime) -> Claims<'a> {
        let identity = &*subject.identity;
        Claims {
            iss: &self.settings.issuer,
            aud: &subject.audience,
            sub: identity.subject.as_str(),
            sub_iss: identity.issuer.as_str(),
            kind: identity.kind,
            iat: now.as_secs(),
            exp: expires.as_secs(),
            jti: hex::encode(rand::random::<[u8; 16]>()),
            sid: subject.session.as_str(),
            client_id: identity.client_id.as_deref(),
            device: subject.device.as_ref().map(DeviceId::as_str),
            roles: &identity.roles,
            methods: identity.methods,
            acr: identity.acr.as_deref(),
            auth_time: identity.auth_time.map(UnixTime::as_secs),
            trust_level: subject.trust_level,
            risk_level: subject.risk_level,
            policy: subject.policy.as_ref().map(PolicyId::as_str),
            restrictions: subject.restrictions,
        }
    }

    /// The published keys (RFC 7517), the same on every replica.
    pub fn jwks(&self) -> serde_json::Value {
        self.keys.jwks()
    }

    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl fmt::Debug for Assertions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertions").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Source for Assertions {
    fn collect(&self, page: &mut Page) {
        let help = "Assertions for upstreams by where they came from";
        page.counter("countersign_assertions", help, &[("from", "cache")], &self.counters.reused);
        page.counter("countersign_assertions", help, &[("from", "signed")], &self.counters.signed);
        page.counter("countersign_assertions", help, &[("from", "missing")], &self.counters.missing);
        let failures = "Failed attempts to obtain signing keys";
        page.counter("countersign_assertion_key_failures", failures, &[], &self.counters.refresh_failures);
    }
}
