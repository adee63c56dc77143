//! Token Status Lists: an issuer's own revocation list, one bit (or up to eight) for each token, signed and compressed.
//!
//! A token that names a list is only as good as the list says, so a list that cannot be had makes the token unknown
//! (503), never valid. Worst staleness: the list's `ttl`, at most five minutes; one in use is fetched ahead of that, so that
//! nobody waits. One that could not be had is left alone for a few seconds.

mod read;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use tokio::time::Instant;
use url::{Position, Url};

use self::read::{List, Problem, Source};
use super::{
    Detail,
    authenticator::Miss,
    counters::Counters,
    fetch::Fetcher,
    flights::{Flight, Flights},
    issuer::IssuerState,
    life::{Moment, Stage},
    settings::{IssuerSettings, fetchable},
};
use crate::{
    clock::Clock,
    domain::{Unavailable, UnixTime},
};

/// Octets of lists that are kept.
const ROOM: u64 = 64 << 20;
/// What one is counted as besides: its name and the cache's own nodes.
const OVERHEAD: usize = 1024;
/// For how long one that could not be had is left alone.
const PAUSE: Duration = Duration::from_secs(5);

/// Lists, fetched where a token names them.
#[derive(Debug)]
pub(super) struct StatusLists {
    kept: Arc<Kept>,
    flights: Flights<Arc<List>>,
    fetcher: Arc<Fetcher>,
}

/// Lists in memory.
#[derive(Debug)]
struct Kept {
    /// By issuer and address ([`key`]): a list is good, or not, for the issuer whose tokens name it.
    lists: Cache<Arc<str>, Held>,
    clock: Clock,
    counters: Arc<Counters>,
}

/// What the last fetch of a list brought.
#[derive(Clone, Debug)]
enum Held {
    List(Arc<List>),
    /// Nothing, and until when it is not fetched again.
    Failed(Instant),
}

impl StatusLists {
    pub(super) fn new(fetcher: Arc<Fetcher>, clock: Clock, counters: Arc<Counters>) -> Self {
        let weigh = |key: &Arc<str>, held: &Held| {
            let octets = match held {
                Held::List(list) => list.octets.len(),
                Held::Failed(_) => 0,
            };
            u32::try_from(octets + key.len() + OVERHEAD).unwrap_or(u32::MAX)
        };
        let lists = Cache::builder().max_capacity(ROOM).weigher(weigh).build();
        let kept = Arc::new(Kept { lists, clock, counters });
        Self { kept, flights: Flights::default(), fetcher }
    }

    /// Whether the list at `uri` says that token `index` of this issuer is valid.
    pub(super) async fn check(
        &self,
        issuer: Option<&IssuerState>,
        uri: &str,
        index: u64,
        now: UnixTime,
        deadline: Instant,
    ) -> Result<(), Miss> {
        let issuer = issuer.ok_or(Unavailable::Internal)?;
        let key = key(&issuer.settings.issuer, uri);
        let now = Moment { wall: now, steady: self.kept.clock.instant() };
        let list = match self.kept.lists.get(key.as_str()) {
            Some(Held::List(list)) => match list.life.stage(now) {
                Stage::Good => list,
                Stage::Due => {
                    if list.life.claim(now) {
                        // No list waits for a turn, so none has a time by which it must have had one.
                        self.flights.ahead(&key, Instant::now(), self.fetching(issuer, uri)?);
                    }
                    list
                }
                Stage::Over => self.fetch(&key, deadline, self.fetching(issuer, uri)?).await?,
            },
            Some(Held::Failed(until)) if now.steady < until => return Err(Unavailable::NotReady.into()),
            Some(Held::Failed(_)) | None => self.fetch(&key, deadline, self.fetching(issuer, uri)?).await?,
        };
        match list.status(index) {
            Some(0) => Ok(()),
            Some(_) => Err(Detail::StatusRevoked.into()),
            None => Err(Unavailable::Malformed.into()),
        }
    }

    async fn fetch(
        &self,
        key: &str,
        deadline: Instant,
        begin: impl FnOnce(Flight<Arc<List>>) -> bool,
    ) -> Result<Arc<List>, Unavailable> {
        let list = self.flights.run(key, deadline, begin).await?;
        // It may have been longer on its way than it counts.
        let over = list.life.stage(Moment::of(&self.kept.clock)) == Stage::Over;
        if over { Err(Unavailable::Stale) } else { Ok(list) }
    }

    /// How a flight begins.
    fn fetching(
        &self,
        issuer: &IssuerState,
        uri: &str,
    ) -> Result<impl FnOnce(Flight<Arc<List>>) -> bool + use<>, Detail> {
        let url = allowed(uri, &issuer.settings).ok_or(Detail::StatusForeign)?;
        let (settings, keys, uri) = (issuer.settings.clone(), issuer.keys.clone(), uri.to_owned());
        let source = Arc::new(Source { url, uri, issuer: settings, keys });
        let (fetcher, kept) = (self.fetcher.clone(), self.kept.clone());
        Ok(move |flight: Flight<_>| {
            tokio::spawn(async move {
                let read = source.read(&fetcher, Moment::of(&kept.clock)).await;
                let list = kept.keep(flight.token(), &source, read);
                flight.land(list);
            });
            true
        })
    }
}

impl Kept {
    /// Keeps what was read, or that nothing was. One line for each outage of a list, and one for its end; the metrics tell
    /// the rest.
    fn keep(&self, key: &Arc<str>, of: &Source, read: Result<List, Problem>) -> Result<Arc<List>, Unavailable> {
        let (issuer, list) = (of.issuer.issuer.as_str(), of.uri.as_str());
        let before = self.lists.get(key);
        let failed_before = matches!(before, Some(Held::Failed(_)));
        match read.map(Arc::new) {
            Ok(read) => {
                self.counters.status_list_fetches.increment();
                self.lists.insert(key.clone(), Held::List(read.clone()));
                if failed_before {
                    tracing::info!(issuer, list, "status list can be used again");
                }
                Ok(read)
            }
            Err(problem) => {
                self.counters.status_list_failures.increment();
                let now = Moment::of(&self.clock);
                // Asked for ahead: what there is counts to its end.
                if matches!(before, Some(Held::List(list)) if list.life.stage(now) != Stage::Over) {
                    return Err(Unavailable::NotReady);
                }
                self.lists.insert(key.clone(), Held::Failed(now.steady + PAUSE));
                if !failed_before {
                    tracing::warn!(issuer, list, "status list cannot be used: {problem}; its tokens are answered 503");
                }
                Err(Unavailable::NotReady)
            }
        }
    }
}

/// What one issuer's list at `uri` is kept under. No issuer's name holds a line break.
fn key(issuer: &str, uri: &str) -> String {
    format!("{issuer}\n{uri}")
}

/// An address under one of the configured prefixes; without any, on the issuer's own origin.
fn allowed(uri: &str, issuer: &IssuerSettings) -> Option<Url> {
    let url = fetchable(uri).ok()?;
    let permitted = match issuer.status_lists.as_slice() {
        [] => Url::parse(&issuer.issuer).is_ok_and(|own| own.origin().is_tuple() && own.origin() == url.origin()),
        prefixes => prefixes.iter().any(|prefix| fetchable(prefix).is_ok_and(|prefix| is_under(&url, &prefix))),
    };
    permitted.then_some(url)
}

/// On the same origin, by a path that begins as that of `prefix`.
fn is_under(url: &Url, prefix: &Url) -> bool {
    let rest = Position::BeforePath..;
    url.origin() == prefix.origin() && url[rest.clone()].starts_with(&prefix[rest])
}
