//! The keys of one issuer, kept fresh: fetched ahead of their end, kept through outages up to a stated age, fetched again
//! when a token names a key nobody has heard of, at most once per cool-down however many such tokens come.
//!
//! One task per issuer does all fetching, so there is never more than one fetch under way for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    Algorithm,
    counters::Counters,
    fetch::{FetchProblem, Fetched, Fetcher, read_file},
    key_set::KeySet,
    settings::{IssuerSettings, KeyPlace, KeySetSettings, fetchable},
};
use crate::{clock::Clock, domain::UnixTime};

/// How often a key file is looked at.
const FILE_POLL: Duration = Duration::from_secs(1);
/// How many unknown key ids are remembered as unknown.
const MISSING_KIDS: u64 = 1024;

/// The keys of one issuer and how they are doing.
#[derive(Debug)]
pub(super) struct Keys {
    current: ArcSwapOption<KeySet>,
    /// Grows when the set of keys changes, and only then.
    generation: AtomicU64,
    /// When the current set was last known to be the issuer's, in milliseconds.
    confirmed_at: AtomicU64,
    max_age: Duration,
    fetches: watch::Sender<Fetches>,
    /// Whether the last fetch was a bad one.
    failing: AtomicBool,
    wanted: Notify,
    cooldown: Duration,
    last_demand: Mutex<Option<Instant>>,
    /// Key ids that were still unknown after a fetch, until the next may be asked for.
    missing: Cache<Box<str>, ()>,
}

/// How many fetches began, or were asked for, and how many ended, well or badly: at most one more.
#[derive(Clone, Copy, Debug)]
struct Fetches {
    begun: u64,
    ended: u64,
}

/// What is known of an issuer's keys.
#[derive(Debug)]
pub(super) enum Known {
    Set(Arc<KeySet>),
    /// None has ever been had.
    Never,
    /// The last good one is older than may be relied on.
    TooOld,
}

/// What came of asking for fresh keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refetch {
    /// The fetch that was asked for has ended well.
    Done,
    /// One that was under way has ended well. It may have begun before what is looked for was there.
    Joined,
    /// The last one is too recent.
    NotNow,
    /// The last one has ended badly: what the issuer has now is not known.
    Failed,
    /// One is under way, and the deadline came first.
    Late,
}

impl Keys {
    pub(super) fn new(settings: &KeySetSettings) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            confirmed_at: AtomicU64::new(0),
            max_age: settings.max_age.get(),
            // The first fetch is under way as soon as there is an issuer.
            fetches: watch::Sender::new(Fetches { begun: 1, ended: 0 }),
            failing: AtomicBool::new(false),
            wanted: Notify::new(),
            cooldown: settings.cooldown.get(),
            last_demand: Mutex::new(None),
            missing: Cache::builder().max_capacity(MISSING_KIDS).time_to_live(settings.cooldown.get()).build(),
        }
    }

    pub(super) fn known(&self, now: UnixTime) -> Known {
        // Before the set: the next one is confirmed when it is there.
        let fresh = self.is_fresh(now);
        match self.current.load_full() {
            None => Known::Never,
            Some(_) if !fresh => Known::TooOld,
            Some(set) => Known::Set(set),
        }
    }

    /// Whether the current set is young enough to be relied on.
    pub(super) fn is_fresh(&self, now: UnixTime) -> bool {
        now.since(UnixTime::from_millis(self.confirmed_at.load(Ordering::Acquire))) <= self.max_age
    }

    pub(super) fn holds(&self, kid: &str, algorithm: Algorithm, thumbprint: &[u8; 32]) -> bool {
        self.current.load().as_ref().is_some_and(|set| set.holds(kid, algorithm, thumbprint))
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn ever_known(&self) -> bool {
        self.current.load().is_some()
    }

    pub(super) fn key_count(&self) -> usize {
        self.current.load().as_ref().map_or(0, |set| set.len())
    }

    /// Seconds since the current set was last confirmed.
    pub(super) fn age(&self, now: UnixTime) -> Duration {
        now.since(UnixTime::from_millis(self.confirmed_at.load(Ordering::Acquire)))
    }

    pub(super) fn is_missing(&self, kid: &str) -> bool {
        self.missing.contains_key(kid)
    }

    pub(super) fn remember_missing(&self, kid: &str) {
        self.missing.insert(kid.into(), ());
    }

    /// Waits for a fetch that is under way, or asks for one where the cool-down allows. Joining one leaves the demand unused.
    pub(super) async fn refetch(&self, deadline: Instant) -> Refetch {
        let mut fetches = self.fetches.subscribe();
        let (mut awaited, mut ended_well) = (None, Refetch::Joined);
        // In one step: whoever comes next joins this one.
        self.fetches.send_if_modified(|fetches| {
            if fetches.begun == fetches.ended && self.may_demand() {
                fetches.begun += 1;
                ended_well = Refetch::Done;
                self.wanted.notify_one();
            }
            awaited = (fetches.begun > fetches.ended).then_some(fetches.begun);
            false
        });
        let Some(awaited) = awaited else { return self.ended(Refetch::NotNow) };
        match timeout_at(deadline, fetches.wait_for(|fetches| fetches.ended >= awaited)).await {
            Ok(Ok(_)) => self.ended(ended_well),
            // The task that fetches has ended: the process is on its way out.
            Ok(Err(_)) => Refetch::NotNow,
            Err(_) => Refetch::Late,
        }
    }

    /// `well`, unless the last fetch has ended badly.
    fn ended(&self, well: Refetch) -> Refetch {
        if self.failing.load(Ordering::Acquire) { Refetch::Failed } else { well }
    }

    /// Resolves when one fetch has ended, well or badly.
    pub(super) async fn first_fetch(&self) {
        let _ = self.fetches.subscribe().wait_for(|fetches| fetches.ended > 0).await;
    }

    /// A fetch begins: the one that was asked for, or one by the clock.
    fn begins(&self) {
        self.fetches.send_if_modified(|fetches| {
            fetches.begun = fetches.ended + 1;
            false
        });
    }

    fn ends(&self) {
        self.fetches.send_modify(|fetches| fetches.ended = fetches.begun);
    }

    fn may_demand(&self) -> bool {
        let mut last = self.last_demand.lock();
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < self.cooldown) {
            return false;
        }
        *last = Some(now);
        true
    }

    /// Takes `set` over. Says whether it differs from the last.
    pub(super) fn take(&self, set: KeySet, now: UnixTime) -> bool {
        let confirm = || self.confirmed_at.store(now.as_millis(), Ordering::Release);
        let changed = match &*self.current.load() {
            Some(old) => !old.same_as(&set),
            None => {
                // Nobody shall see the first set as one of 1970.
                confirm();
                true
            }
        };
        if changed {
            // INVARIANT: the set is there before its generation, so that whoever sees the new generation and looks a key
            // up finds the new set.
            self.current.store(Some(Arc::new(set)));
            self.generation.fetch_add(1, Ordering::AcqRel);
            self.missing.invalidate_all();
        }
        // INVARIANT: last, so that a set too old to be relied on is not made young by the one that takes its place.
        confirm();
        changed
    }
}

/// What one fetch brought.
struct Outcome {
    set: KeySet,
    max_age: Option<Duration>,
}

/// Where an issuer says where its keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discovery {
    /// OpenID Connect Discovery 1.0: after the issuer's path.
    OpenId,
    /// OpenID Shared Signals Framework 1.0, section 7.2: between host and path.
    SharedSignals,
}

impl Discovery {
    fn address(self, issuer: &str) -> Option<Url> {
        let base = fetchable(issuer.trim_end_matches('/')).ok()?;
        let path = base.path().trim_end_matches('/').to_owned();
        let mut address = base;
        address.set_path(&match self {
            Self::OpenId => format!("{path}/.well-known/openid-configuration"),
            Self::SharedSignals => format!("/.well-known/ssf-configuration{path}"),
        });
        Some(address)
    }
}

/// The task that keeps one issuer's keys.
pub(super) struct Keeper {
    pub discovery: Discovery,
    pub issuer: IssuerSettings,
    pub keys: Arc<Keys>,
    pub settings: KeySetSettings,
    pub fetcher: Arc<Fetcher>,
    pub counters: Arc<Counters>,
    pub clock: Clock,
}

impl Keeper {
    /// Fetches until cancelled.
    pub(super) async fn run(self, cancelled: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            self.keys.begins();
            let fetched = tokio::select! {
                fetched = self.fetch() => fetched,
                () = cancelled.cancelled() => return,
            };
            let pause = self.conclude(fetched, &mut failures);
            self.keys.ends();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.keys.wanted.notified() => {}
                () = cancelled.cancelled() => return,
            }
        }
    }

    async fn fetch(&self) -> Result<Outcome, FetchProblem> {
        let fetched = match self.issuer.jwks.as_deref().map(KeyPlace::parse) {
            Some(Ok(KeyPlace::File(path))) => Fetched { body: read_file(&path).await?, max_age: None },
            Some(Ok(KeyPlace::Url(url))) => {
                self.fetcher.get(&url, "application/jwk-set+json, application/json").await?
            }
            Some(Err(_)) => return Err(FetchProblem::NoKeySet),
            None => self.discover().await?,
        };
        let set = KeySet::parse(&fetched.body, &self.issuer.algorithms)?;
        Ok(Outcome { set, max_age: fetched.max_age })
    }

    /// The discovery document must name exactly this issuer.
    async fn discover(&self) -> Result<Fetched, FetchProblem> {
        let url = self.discovery.address(&self.issuer.issuer).ok_or(FetchProblem::NoKeySet)?;
        let document = self.fetcher.get(&url, "application/json").await?;
        let document: serde_json::Value = serde_json::from_slice(&document.body).map_err(|_| FetchProblem::NoKeySet)?;
        let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        if text("issuer") != self.issuer.issuer {
            return Err(FetchProblem::OtherIssuer(text("issuer").chars().take(200).collect()));
        }
        let url = fetchable(text("jwks_uri")).map_err(|_| FetchProblem::NoKeySet)?;
        self.fetcher.get(&url, "application/jwk-set+json, application/json").await
    }

    /// Takes over what was fetched, or says what went wrong; returns how long to wait.
    fn conclude(&self, fetched: Result<Outcome, FetchProblem>, failures: &mut u32) -> Duration {
        let issuer = self.issuer.issuer.as_str();
        self.keys.failing.store(fetched.is_err(), Ordering::Release);
        match fetched {
            Ok(Outcome { set, max_age }) => {
                if *failures > 0 {
                    tracing::info!(issuer, failures = *failures, "key set fetched again");
                }
                *failures = 0;
                self.counters.key_fetches.increment();
                self.take_over(set);
                self.pause(max_age)
            }
            Err(problem) => {
                self.counters.key_fetch_failures.increment();
                // Once for each outage; the metrics tell the rest.
                if *failures == 0 {
                    let keeps = if self.keys.ever_known() {
                        "the last good one is kept"
                    } else {
                        "not ready until there is one"
                    };
                    tracing::warn!(issuer, "key set cannot be had: {problem}; {keeps}");
                }
                *failures = failures.saturating_add(1);
                self.back_off(*failures)
            }
        }
    }

    fn take_over(&self, mut set: KeySet) {
        let issuer = self.issuer.issuer.as_str();
        let ignored = std::mem::take(&mut set.ignored);
        let keys = set.len();
        if !self.keys.take(set, self.clock.now()) {
            return;
        }
        tracing::info!(issuer, keys, "key set in use");
        for (kid, problem) in ignored {
            if problem.is_alarming() {
                self.counters.alarming_keys.increment();
                tracing::warn!(issuer, kid = kid.as_deref().unwrap_or_default(), "key ignored: {problem}");
            } else {
                tracing::debug!(issuer, kid = kid.as_deref().unwrap_or_default(), "key ignored: {problem}");
            }
        }
    }

    /// Ahead of the end by a tenth to a fifth, so that replicas do not fetch together.
    fn pause(&self, max_age: Option<Duration>) -> Duration {
        if matches!(self.issuer.jwks.as_deref().map(KeyPlace::parse), Some(Ok(KeyPlace::File(_)))) {
            return FILE_POLL;
        }
        let longest = self.settings.refresh.get();
        let wanted = max_age.unwrap_or(longest).min(longest);
        wanted.mul_f64(rand::random_range(0.8..0.9)).max(self.settings.min_refresh.get().min(longest))
    }

    /// Doubling from half a second; while nothing is known, never more than five.
    fn back_off(&self, failures: u32) -> Duration {
        let longest = if self.keys.ever_known() { 30.0 } else { 5.0 };
        let seconds = 0.5 * f64::from(2_u32.saturating_pow(failures.saturating_sub(1).min(10)));
        Duration::from_secs_f64(seconds.min(longest) * rand::random_range(0.8..1.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_is_where_each_specification_puts_it() {
        let address = |discovery: Discovery, issuer| discovery.address(issuer).map(|url| url.to_string());
        for (discovery, issuer, expected) in [
            (Discovery::OpenId, "https://a.test", "https://a.test/.well-known/openid-configuration"),
            (Discovery::OpenId, "https://a.test/t/1/", "https://a.test/t/1/.well-known/openid-configuration"),
            (Discovery::SharedSignals, "https://a.test/", "https://a.test/.well-known/ssf-configuration"),
            (Discovery::SharedSignals, "https://a.test/t/1", "https://a.test/.well-known/ssf-configuration/t/1"),
        ] {
            assert_eq!(address(discovery, issuer).as_deref(), Some(expected));
        }
        assert_eq!(address(Discovery::SharedSignals, "http://a.test"), None);
    }
}
