//! The door: what a request carries, answered with a fact about who asks.
//!
//! The order is that of cost. A token seen before is one look-up and a few compares and never parks. One not seen goes to
//! a verifier (in place or a thread of its own), once however many requests carry it. What could not be known in time is
//! `Unavailable`, which is answered 503; "invalid" is said only of what was looked at.

mod cold;
mod key_sets;
mod possession;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::key_sets::KeySetState;
use self::possession::{certificate_matches, nonces};
use super::{
    Detail,
    cache::TokenCache,
    challenges::Challenges,
    counters::Counters,
    credentials::{Credentials, Scheme},
    dpop::Nonces,
    entry::{Standing, TokenEntry},
    fetch::Fetcher,
    flights::Flights,
    introspection::Introspection,
    issuer::IssuerState,
    keys::{Discovery, Keeper},
    peer::{Peer, Peers},
    pool::Pool,
    settings::{Problem, Settings},
    status_list::StatusLists,
    verify::Failure,
    workload::Workloads,
};
use crate::{
    clock::Clock,
    domain::{
        Confirmation, Credential, CredentialProblem, Fact, Possession, Unavailable, UnixTime, Workload,
        metric::{Page, Source},
    },
    store::Store,
};

/// How long a start waits for keys, so that the first requests find those that are at hand.
const FIRST_FETCH: Duration = Duration::from_millis(250);

/// Verifies who asks. One for the process; cheap to share.
#[derive(Debug)]
pub struct Authenticator {
    settings: Settings,
    issuers: Arc<[IssuerState]>,
    cache: Arc<TokenCache>,
    flights: Flights<Verification>,
    pool: Pool,
    peers: Peers,
    workloads: Workloads,
    introspection: Option<Introspection>,
    status_lists: StatusLists,
    nonces: Option<Arc<Nonces>>,
    store: Arc<dyn Store>,
    clock: Clock,
    started: Instant,
    counters: Arc<Counters>,
    challenges: Arc<Challenges>,
    tasks: TaskTracker,
}

/// A token as one request carries it.
struct Presented<'a> {
    credentials: &'a Credentials<'a>,
    peer: Option<&'a Peer>,
    scheme: Scheme,
    token: &'a [u8],
    now: UnixTime,
    deadline: Instant,
}

/// A verified token, and how possession of its key was proved.
type Established = (Arc<TokenEntry>, Option<Possession>);

/// Who asks, as far as it could be established.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// `Absent`: the request carries no credentials. `Unavailable`: what is needed to judge them could not be had.
    pub credential: Fact<Credential>,
    /// The token's place in memory, where it verified.
    pub entry: Option<Arc<TokenEntry>>,
    /// The peer workload as Envoy, or a header that the configuration trusts, vouches for it.
    pub workload: Fact<Workload>,
    /// Why it was refused, for the audit record.
    pub detail: Option<Detail>,
    /// The scheme was DPoP: a challenge says under it what is wrong or missing.
    pub by_dpop: bool,
    /// For the `DPoP-Nonce` header of a refusal that demands one.
    pub nonce: Option<Arc<str>>,
    /// The key that a proof of possession was made with (RFC 7638).
    pub jkt: Option<Arc<str>>,
}

/// Why authentication cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("identity.{0}")]
    Settings(#[from] Problem),
    #[error("verifier threads cannot be started: {0}")]
    Threads(#[from] std::io::Error),
    #[error("identity.dpop: no random secret for nonces can be made")]
    Random,
}

/// What a verifier thread found. Shared by all who wait for it.
#[derive(Clone, Debug)]
pub(super) enum Verification {
    Verified(Arc<TokenEntry>),
    Failed(Failure),
}

/// Why there is no verified token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    Refused(Detail),
    Unavailable(Unavailable),
}

impl From<Detail> for Miss {
    fn from(detail: Detail) -> Self {
        Self::Refused(detail)
    }
}

impl From<Unavailable> for Miss {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

impl Authenticator {
    /// Starts fetching keys and returns after a moment: an issuer that cannot be reached makes it not [`ready`](Self::ready), not
    /// an error. Must be called within a tokio runtime; tasks end with `cancelled`.
    ///
    /// # Errors
    ///
    /// Settings that would weaken verification, or no threads.
    pub async fn start(
        settings: Settings,
        clock: Clock,
        store: Arc<dyn Store>,
        cancelled: CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        if let Some(problem) = settings.problems().into_iter().next() {
            return Err(problem.into());
        }
        let counters = Arc::new(Counters::default());
        let fetcher = Arc::new(Fetcher::new(settings.key_sets.timeout.get(), settings.key_sets.ca_file.clone()));
        let issuers: Arc<[IssuerState]> =
            settings.issuers.iter().map(|issuer| IssuerState::new(issuer.clone(), &settings.key_sets)).collect();
        let tasks = TaskTracker::new();
        for issuer in issuers.iter().filter(|issuer| issuer.has_keys()) {
            let keeper = Keeper {
                discovery: Discovery::OpenId,
                issuer: issuer.settings.clone(),
                keys: issuer.keys.clone(),
                settings: settings.key_sets.clone(),
                fetcher: fetcher.clone(),
                counters: counters.clone(),
                clock: clock.clone(),
            };
            tasks.spawn(keeper.run(cancelled.clone()));
        }
        let cache = Arc::new(TokenCache::new(&settings.cache));
        tasks.spawn(cache.clone().keep_swept(clock.clone(), cancelled));
        tasks.close();
        let threads = match settings.verifiers {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
            threads => threads,
        };
        let first = issuers.iter().filter(|issuer| issuer.has_keys()).map(|issuer| issuer.keys.first_fetch());
        let _ = timeout(FIRST_FETCH, futures_util::future::join_all(first)).await;
        Ok(Arc::new(Self {
            introspection: Introspection::new(&issuers, &cache, &fetcher, &counters, &clock),
            cache,
            flights: Flights::default(),
            pool: Pool::start(threads, settings.queue)?,
            peers: Peers::new(settings.workloads.clone()),
            workloads: Workloads::new(settings.workloads.clone()),
            status_lists: StatusLists::new(fetcher, clock.clone(), counters.clone()),
            nonces: nonces(&settings)?,
            challenges: Arc::new(Challenges::new(&settings)),
            store,
            started: clock.instant(),
            clock,
            counters,
            tasks,
            issuers,
            settings,
        }))
    }

    /// Establishes who asks. `deadline` bounds all waiting; a token seen before is answered without waiting.
    pub async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: UnixTime,
        deadline: Instant,
    ) -> Authentication {
        let peer = self.peers.peer(credentials);
        let presented = |scheme, token| Presented { credentials, peer: peer.as_deref(), scheme, token, now, deadline };
        let seen_before = credentials.unread().and_then(|(scheme, token)| {
            let entry = self.remembered(token, now)?;
            Some((presented(scheme, token), entry))
        });
        let established = match seen_before {
            Some((presented, entry)) => self.by_token(&presented, entry).await.map(Some),
            None => match credentials.token() {
                Ok(Some((scheme, token))) => {
                    // Boxed, as whatever a warm check never does: what waits here is many times larger than the check itself.
                    Box::pin(self.by_new_token(presented(scheme, token.as_bytes()), token)).await.map(Some)
                }
                Ok(None) => Ok(peer.as_ref().and_then(|peer| self.by_certificate(peer, now))),
                Err(detail) => Err(self.of_a_scheme(credentials, detail).into()),
            },
        };
        let workload = match peer.and_then(|peer| peer.workload(now)) {
            Some(workload) => Fact::known(workload, now),
            None => Fact::Absent,
        };
        let nothing = Authentication { workload, ..Authentication::default() };
        match established {
            Ok(Some((entry, proof))) => nothing.verified(entry, proof, now),
            Ok(None) => Authentication { credential: Fact::Absent, ..nothing },
            Err(Miss::Unavailable(why)) => {
                self.counters.unavailable.increment();
                Authentication { credential: Fact::Unavailable(why), ..nothing }
            }
            Err(Miss::Refused(detail)) => {
                self.counters.refused.increment();
                let credential = Fact::known(Credential::Refused(detail.problem()), now);
                let demanded = detail.problem() == CredentialProblem::NonceRequired;
                let nonce = self.nonces.as_ref().filter(|_| demanded).map(|nonces| nonces.make(now).into());
                let by_dpop = credentials.scheme() == Some(Scheme::Dpop);
                Authentication { credential, detail: Some(detail), by_dpop, nonce, ..nothing }
            }
        }
    }

    /// What follows a scheme that is not offered does not matter.
    fn of_a_scheme(&self, credentials: &Credentials<'_>, detail: Detail) -> Detail {
        let dpop_is_off = || !self.settings.dpop.enabled && credentials.scheme() == Some(Scheme::Dpop);
        if detail == Detail::NotOneToken && dpop_is_off() { Detail::UnknownScheme } else { detail }
    }

    async fn by_new_token(&self, presented: Presented<'_>, token: &str) -> Result<Established, Miss> {
        if presented.scheme == Scheme::Dpop && !self.settings.dpop.enabled {
            return Err(Detail::UnknownScheme.into());
        }
        let entry = self.cold(token, presented.now, presented.deadline).await?;
        self.by_token(&presented, Ok(entry)).await
    }

    /// By a token whose entry is at hand.
    async fn by_token(
        &self,
        presented: &Presented<'_>,
        entry: Result<Arc<TokenEntry>, Detail>,
    ) -> Result<Established, Miss> {
        let Presented { scheme, now, deadline, .. } = *presented;
        if scheme == Scheme::Dpop && !self.settings.dpop.enabled {
            return Err(Detail::UnknownScheme.into());
        }
        let entry = entry?;
        if let Some((uri, index)) = &entry.status {
            let issuer = self.issuers.get(entry.issuer);
            Box::pin(self.status_lists.check(issuer, uri, *index, now, deadline)).await?;
        }
        let proof = match (scheme, &entry.identity.confirmation) {
            (Scheme::Bearer, None) => None,
            (Scheme::Bearer, Some(Confirmation::KeyThumbprint(_))) => return Err(Detail::ProofMissing.into()),
            (Scheme::Bearer, Some(Confirmation::CertificateSha256(sum))) => {
                certificate_matches(presented.peer, sum, now)?
            }
            (Scheme::Dpop, Some(Confirmation::KeyThumbprint(thumbprint))) => {
                let request = self.proven_request(presented, &entry, thumbprint)?;
                Some(Box::pin(self.prove(request, presented.credentials.only_look, deadline)).await?)
            }
            (Scheme::Dpop, _) => return Err(Detail::ProofKeyMismatch.into()),
        };
        Ok((entry, proof))
    }

    /// The peer workload as an identity by itself, whoever's token the request carries.
    pub fn workload(&self, credentials: &Credentials<'_>, now: UnixTime) -> Option<Arc<TokenEntry>> {
        self.workloads.entry(&self.peers.peer(credentials)?, now)
    }

    /// The certificate of the peer workload as Envoy sends it; empty: none, or another's.
    pub const fn certificate<'a>(&self, credentials: &Credentials<'a>) -> &'a [u8] {
        self.peers.certificate(credentials)
    }

    /// Grows whenever a key of any issuer comes or goes.
    pub fn generation(&self) -> u64 {
        self.issuers.iter().map(|issuer| issuer.keys.generation()).sum()
    }

    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What a refusal offers the client.
    pub const fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// Resolves when every task has ended, after `cancelled`.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }

    /// A token that is in memory, as good now as it was; or why it no longer is.
    fn remembered(&self, token: &[u8], now: UnixTime) -> Option<Result<Arc<TokenEntry>, Detail>> {
        let entry = self.cache.get(token)?;
        let standing = entry.standing(self.issuers.get(entry.issuer), now, &self.clock);
        if standing == Standing::Due {
            self.ask_ahead(token, &entry);
        }
        match standing {
            Standing::Good | Standing::Due => {
                self.counters.cache_hits.increment();
                Some(Ok(entry))
            }
            Standing::Refused(detail) => Some(Err(detail)),
            // It stays where it is until there is an answer: it was good a moment ago.
            Standing::Over => None,
            Standing::Gone => {
                self.cache.remove(token);
                None
            }
        }
    }

    /// No token: a workload may be an identity by itself.
    fn by_certificate(&self, peer: &Arc<Peer>, now: UnixTime) -> Option<Established> {
        self.workloads.entry(peer, now).map(|entry| (entry, Some(Possession::Certificate)))
    }
}

/// Nothing of a subject or a token in a label.
impl Source for Authenticator {
    fn collect(&self, page: &mut Page) {
        self.counters.collect(page);
        page.gauge(
            "countersign_token_cache_bytes",
            "Octets that verified tokens are counted as",
            &[],
            self.cache.weight() as f64,
        );
        page.gauge("countersign_token_cache_entries", "Verified tokens in memory", &[], self.cache.len() as f64);
        let now = self.clock.now();
        for issuer in self.issuers.iter().filter(|issuer| issuer.has_keys()) {
            let labels = [("issuer", issuer.settings.issuer.as_str())];
            page.gauge("countersign_key_set_keys", "Usable keys of an issuer", &labels, issuer.keys.key_count() as f64);
            if let Some(confirmed) = issuer.keys.confirmed() {
                let (name, help) = ("countersign_key_set_age_seconds", "Since an issuer's keys were last confirmed");
                page.gauge(name, help, &labels, now.since(confirmed).as_secs_f64());
            }
        }
    }
}

impl Authentication {
    fn verified(self, entry: Arc<TokenEntry>, proof: Option<Possession>, now: UnixTime) -> Self {
        let jkt = match (&proof, &entry.identity.confirmation) {
            (Some(Possession::Dpop), Some(Confirmation::KeyThumbprint(thumbprint))) => Some(thumbprint.clone()),
            _ => None,
        };
        let credential = Credential::Verified { identity: entry.identity.clone(), proof };
        let by_dpop = proof == Some(Possession::Dpop);
        Self { credential: Fact::known(credential, now), entry: Some(entry), by_dpop, jkt, ..self }
    }
}
