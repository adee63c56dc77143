//! Who calls, and whether they may.
//!
//! A good credential is never refused because others tried bad ones: only bad ones are counted and slowed.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use tonic::{Request, Status};
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use super::{
    Role, Settings,
    token::{MIN_LENGTH, read_token},
};
use crate::domain::{
    Secret,
    metric::{self, Counter, Page},
};

/// Wrong credentials that are answered in a minute; more are answered "too many".
const FAILURES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Records in a minute of what somebody may not do, or may do as a reader: each is a line on a disk that decisions share.
const MOST_RECORDS: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// More names than this are of certificates; those of the last minute are kept.
const MOST_ACTORS: usize = 1024;

/// Name of the made token in the audit record.
const MADE: &str = "admin.token";

/// Decides who may administer.
#[derive(Debug)]
pub struct Access {
    tokens: Vec<Holder<[u8; 32]>>,
    clients: Vec<Holder<String>>,
    failures: DefaultDirectRateLimiter,
    /// Of writes that were refused.
    tally: Tally,
    /// Of what readers do that leaves a record.
    exports: Tally,
    /// Whether somebody on this machine may read without credentials. Not where others reach the port: what a proxy on this
    /// machine passes on for them (a sidecar, a tunnel) comes from here as well.
    local_reads: bool,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Holder<T> {
    name: Arc<str>,
    role: Role,
    credential: T,
}

/// How many such records there were to make in this minute, by who it was.
#[derive(Debug, Default)]
struct Tally(Mutex<HashMap<Arc<str>, (Instant, u32)>>);

impl Tally {
    /// Whether there may be one more, and how many were left out in the minute before.
    fn take(&self, actor: &Arc<str>) -> Option<u32> {
        let now = Instant::now();
        let is_over = |since: Instant| now.duration_since(since) >= MINUTE;
        let mut counted = self.0.lock();
        if counted.len() >= MOST_ACTORS {
            counted.retain(|_, (since, _)| !is_over(*since));
        }
        let (since, count) = counted.entry(Arc::clone(actor)).or_insert((now, 0));
        let mut left_out = 0;
        if is_over(*since) {
            left_out = count.saturating_sub(MOST_RECORDS);
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        (*count <= MOST_RECORDS).then_some(left_out)
    }
}

/// What became of those who called.
#[derive(Debug, Default)]
pub struct Counters {
    pub admitted: Counter,
    pub wrong_credentials: Counter,
    pub role_too_small: Counter,
}

impl metric::Source for Counters {
    fn collect(&self, page: &mut Page) {
        let (name, help) = ("countersign_admin_calls", "Calls of the admin API, by whether they were let in");
        page.counter(name, help, &[("outcome", "admitted")], &self.admitted);
        page.counter(name, help, &[("outcome", "wrong_credentials")], &self.wrong_credentials);
        page.counter(name, help, &[("outcome", "role_too_small")], &self.role_too_small);
    }
}

/// Who calls, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Actor {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    pub(super) peer: Option<IpAddr>,
}

impl Access {
    /// `made` is the token of the first start, with role admin, if one was made; `listens`, where the port does.
    ///
    /// # Errors
    ///
    /// When a token's file cannot be read, or others may read it; in words.
    pub fn new(settings: &Settings, made: Option<&Secret>, listens: IpAddr) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for token in &settings.tokens {
            let credential = match (&token.sha256, &token.file) {
                (Some(hash), _) => {
                    let mut digest = [0; 32];
                    hex::decode_to_slice(hash, &mut digest)
                        .map_err(|_| format!("admin token `{}`: `sha256` is not a hash", token.name))?;
                    digest
                }
                (None, Some(path)) => read_token(path)
                    .map_err(|error| format!("admin token `{}`: {error}", token.name))?
                    .map(|secret| hash(secret.expose()))
                    .ok_or_else(|| format!("admin token `{}`: `{}` is not there", token.name, path.display()))?,
                (None, None) => return Err(format!("admin token `{}`: neither `sha256` nor `file`", token.name)),
            };
            tokens.push(Holder { name: token.name.as_str().into(), role: token.role, credential });
        }
        if let Some(made) = made {
            tokens.push(Holder { name: MADE.into(), role: Role::Admin, credential: hash(made.expose()) });
        }
        let clients = settings.clients.iter();
        let clients = clients
            .map(|client| Holder {
                name: client.name.as_str().into(),
                role: client.role,
                credential: client.name.clone(),
            })
            .collect();
        Ok(Self {
            tokens,
            clients,
            failures: RateLimiter::direct(Quota::per_minute(FAILURES_PER_MINUTE)),
            tally: Tally::default(),
            exports: Tally::default(),
            local_reads: listens.to_canonical().is_loopback(),
            counters: Arc::default(),
        })
    }

    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Who sent `request`, if they may do what asks for `needed`.
    pub(super) fn admit<T>(&self, request: &Request<T>, needed: Role) -> Result<Actor, Denied> {
        let peer = request.remote_addr().map(|address| address.ip().to_canonical());
        let actor = match self.by_token(request, peer)? {
            Some(actor) => actor,
            None => match self.by_certificate(request, peer) {
                Some(actor) => actor,
                None => self.local(peer).ok_or_else(|| self.refuse(peer, "credentials are required"))?,
            },
        };
        if actor.role < needed {
            self.counters.role_too_small.increment();
            let message = if &*actor.name == LOCAL {
                let made = self.tokens.iter().any(|holder| &*holder.name == MADE);
                let place = if made { "; the server's log says where the one is that it made" } else { "" };
                format!("writes need a token: send `authorization: Bearer …`{place}")
            } else {
                format!("this needs role {needed}, and `{}` has {}", actor.name, actor.role)
            };
            let status = if &*actor.name == LOCAL {
                Status::unauthenticated(message)
            } else {
                Status::permission_denied(message)
            };
            let record = self.tally.take(&actor.name).map(|left_out| match left_out {
                0 => status.message().to_owned(),
                _ => format!("{}; {left_out} more a minute before were not recorded", status.message()),
            });
            return Err(Denied { actor: actor.name, peer, status, record });
        }
        self.counters.admitted.increment();
        Ok(actor)
    }

    /// As [`Self::admit`], for what leaves a record though it asks for no more than to read: readers may so many in a minute.
    pub(super) fn admit_and_record<T>(&self, request: &Request<T>, needed: Role) -> Result<Actor, Denied> {
        let actor = self.admit(request, needed)?;
        if actor.role > Role::Reader || self.exports.take(&actor.name).is_some() {
            return Ok(actor);
        }
        let status = Status::resource_exhausted(format!(
            "more than {MOST_RECORDS} of these in a minute need a role above reader"
        ));
        Err(Denied { actor: actor.name, peer: actor.peer, status, record: None })
    }

    fn by_token<T>(&self, request: &Request<T>, peer: Option<IpAddr>) -> Result<Option<Actor>, Denied> {
        let mut values = request.metadata().get_all("authorization").iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(self.refuse(peer, "`authorization` must be sent once"));
        }
        let token = value.to_str().ok().and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let Some(token) = token else { return Err(self.refuse(peer, "`authorization` must be `Bearer …`")) };
        if token.len() < MIN_LENGTH {
            return Err(self.refuse(peer, "a token has 16 characters or more"));
        }
        let hash = hash(token);
        // Compared with every holder, so that time does not tell which was near.
        let mut found = None;
        for holder in &self.tokens {
            if holder.credential.ct_eq(&hash).into() {
                found = Some(holder);
            }
        }
        let holder = found.ok_or_else(|| self.refuse(peer, "the token is not known"))?;
        Ok(Some(Actor { name: Arc::clone(&holder.name), role: holder.role, peer }))
    }

    /// The names in a certificate that TLS verified.
    fn by_certificate<T>(&self, request: &Request<T>, peer: Option<IpAddr>) -> Option<Actor> {
        let certificates = request.peer_certs()?;
        let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(certificates.first()?).ok()?;
        let names: Vec<&str> = leaf
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|san| &san.value.general_names)
            .into_iter()
            .flatten()
            .filter_map(|name| match name {
                GeneralName::URI(name) => Some(*name).filter(|name| is_uri(name)),
                // Authorities that look at the URIs of a request may take any DNS name: one that is spelt like a URI is none.
                GeneralName::DNSName(name) => Some(*name).filter(|name| !is_uri(name)),
                _ => None,
            })
            .collect();
        let listed = self.clients.iter().filter(|client| names.contains(&client.credential.as_str()));
        let (name, role) = listed
            .max_by_key(|client| client.role)
            .map(|client| (Arc::clone(&client.name), client.role))
            .unwrap_or_else(|| (names.first().copied().unwrap_or("certificate without a name").into(), Role::Reader));
        Some(Actor { name, role, peer })
    }

    fn local(&self, peer: Option<IpAddr>) -> Option<Actor> {
        let local = self.local_reads && peer.is_some_and(|peer| peer.is_loopback());
        local.then(|| Actor { name: LOCAL.into(), role: Role::Reader, peer })
    }

    fn refuse(&self, peer: Option<IpAddr>, message: &str) -> Denied {
        self.counters.wrong_credentials.increment();
        let (status, record) = match self.failures.check() {
            Ok(()) => (Status::unauthenticated(message), Some(message.to_owned())),
            Err(_) => (Status::resource_exhausted("too many wrong credentials"), None),
        };
        Denied { actor: "nobody".into(), peer, status, record }
    }
}

/// Name of somebody on this machine without credentials.
const LOCAL: &str = "local";

/// A call that was not admitted.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) actor: Arc<str>,
    pub(super) peer: Option<IpAddr>,
    pub(super) status: Status,
    /// What the audit record says of it; `None`: there is none, so that a flood does not fill the disk.
    pub(super) record: Option<String>,
}

fn is_uri(name: &str) -> bool {
    name.contains([':', '/'])
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}
