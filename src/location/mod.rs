//! Where an address is: country, city, autonomous system and kind of network, from databases and lists in memory.
//!
//! Looking up never waits, never touches a file and never fails a request: what cannot be known is a `Fact` like any other.
//! What the subject's own past says of the place (known, new, impossible travel) is not known here and left open.

mod databases;
mod lists;
mod settings;
mod sources;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use maxminddb::MaxMindDbError;
use quick_cache::sync::Cache;
use tokio::{
    task::{JoinError, JoinHandle},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

pub use self::settings::{DatabaseSettings, ListSettings, Networks, Settings};
use self::{
    databases::{AnonymousRow, AsnRow, CityRow},
    lists::NamedNetworks,
    sources::{Source, Sources},
};
use crate::domain::{
    Fact, NetworkKind, Place, Unavailable, UnixTime,
    address::{embedded, is_private},
    metric::{self, Counter, Page},
};

/// How long a changed file is to look the same before it is read, so that it is not read while it is written. Not the pause between
/// two looks: a file that is renewed as often as it is looked at would never be read.
const REST: Duration = Duration::from_secs(2);

/// Knows places. One for the process; files are looked after in the background.
#[derive(Debug)]
pub struct Locator {
    settings: Settings,
    configured: bool,
    named: NamedNetworks,
    allowed: Vec<Arc<str>>,
    expected: Vec<Arc<str>>,
    sources: ArcSwap<Sources>,
    /// Grows with each change of a file: what was cached before is not used any more.
    generation: AtomicU64,
    cache: Cache<IpAddr, Cached>,
    counters: Counters,
}

#[derive(Clone, Debug)]
struct Cached {
    generation: u64,
    /// `Err`: a database is damaged where this address is.
    place: Result<Arc<Place>, Unavailable>,
}

#[derive(Debug, Default)]
pub struct Counters {
    pub hits: Counter,
    pub misses: Counter,
    /// Look-ups that a damaged database made impossible.
    pub damaged: Counter,
    pub reloads: Counter,
    pub reload_failures: Counter,
}

impl Locator {
    /// Reads what is configured. Never fails: a file that is broken or missing makes places unavailable until it is not. Blocks
    /// while reading.
    pub fn open(settings: Settings) -> Arc<Self> {
        let mut sources = Sources::new(&settings);
        let first = sources.refresh();
        let codes = |countries: &[String]| countries.iter().map(|code| code.as_str().into()).collect();
        let locator = Self {
            configured: settings.is_configured(),
            named: NamedNetworks::new(&settings),
            allowed: codes(&settings.allowed_countries),
            expected: codes(&settings.expected_countries),
            sources: ArcSwap::from_pointee(sources),
            generation: AtomicU64::new(1),
            cache: Cache::new(usize::try_from(settings.cache_entries).unwrap_or(usize::MAX)),
            counters: Counters::default(),
            settings,
        };
        locator.count(first);
        Arc::new(locator)
    }

    /// Looks after the files until cancelled.
    pub fn watch(self: &Arc<Self>, cancel: CancellationToken) -> JoinHandle<()> {
        let locator = Arc::clone(self);
        tokio::spawn(async move {
            let often = locator.settings.reload_every.get();
            let mut pause = Duration::ZERO;
            while cancel.run_until_cancelled(sleep(pause)).await.is_some() {
                let reloading = Arc::clone(&locator);
                if let Err(error) = tokio::task::spawn_blocking(move || reloading.reload()).await {
                    tracing::error!("{}", not_read(&error));
                }
                pause = if locator.sources.load().are_changing() { often.min(REST) } else { often };
            }
        })
    }

    /// Reads the files that changed, now. Blocks. Says whether any did.
    pub fn reload(&self) -> bool {
        let mut sources = Sources::clone(&self.sources.load());
        let refresh = sources.refresh();
        self.count(refresh);
        self.sources.store(Arc::new(sources));
        if refresh.changed + refresh.failed == 0 {
            return false;
        }
        self.generation.fetch_add(1, Ordering::Release);
        refresh.changed > 0
    }

    fn count(&self, refresh: sources::Refresh) {
        self.counters.reloads.add(refresh.changed as u64);
        self.counters.reload_failures.add(refresh.failed as u64);
    }

    /// The place of a client. `None`: Envoy names no address.
    pub fn locate(&self, client: Option<IpAddr>, now: UnixTime) -> Fact<Place> {
        if !self.configured {
            return Fact::NotAsked;
        }
        let Some(address) = client.map(|address| address.to_canonical()) else { return Fact::Absent };
        let generation = self.generation();
        let cached = match self.cache.get(&address).filter(|cached| cached.generation == generation) {
            Some(cached) => {
                self.counters.hits.increment();
                cached
            }
            None => {
                self.counters.misses.increment();
                let cached = Cached { generation, place: self.look_up(address).map(Arc::new) };
                self.cache.insert(address, cached.clone());
                cached
            }
        };
        match cached.place {
            Ok(place) => Fact::known(Place::clone(&place), now),
            Err(why) => Fact::Unavailable(why),
        }
    }

    fn look_up(&self, address: IpAddr) -> Result<Place, Unavailable> {
        let sources = self.sources.load();
        let place = self.read(&sources, address).map_err(|error| {
            self.counters.damaged.increment();
            tracing::warn!(%error, "a location database is damaged");
            Unavailable::Malformed
        });
        match place {
            Ok(place) if sources.is_complete() || is_ours(place.network) => Ok(place),
            Ok(_) => Err(Unavailable::Malformed),
            Err(why) => self.without_databases(address).ok_or(why),
        }
    }

    /// An address that is ours whatever a database says of it.
    fn without_databases(&self, address: IpAddr) -> Option<Place> {
        self.read(&Sources::default(), address).ok().filter(|place| is_ours(place.network))
    }

    fn read(&self, sources: &Sources, written: IpAddr) -> Result<Place, MaxMindDbError> {
        let address = embedded(written).unwrap_or(written);
        let row = |source: &Source<databases::Database>| source.content.clone();
        let city = row(&sources.city);
        let city: CityRow<'_> = city.as_ref().map_or(Ok(None), |city| city.look_up(address))?.unwrap_or_default();
        let asn: Option<AsnRow> = row(&sources.asn).map_or(Ok(None), |asn| asn.look_up(address))?;
        let asn = asn.and_then(|row| row.number());
        let anonymous: Option<AnonymousRow> = row(&sources.anonymous).map_or(Ok(None), |rows| rows.look_up(address))?;
        let network = self.network(sources, [address, written], asn, &anonymous.unwrap_or_default());
        let ours = is_ours(network);
        let country = city.country();
        let listed = |countries: &[Arc<str>]| {
            ours || countries.is_empty() || country.as_ref().is_some_and(|country| countries.contains(country))
        };
        Ok(Place {
            city: city.city(),
            position: city.position(),
            accuracy_km: city.location.accuracy_radius,
            asn,
            network,
            known_networks: self.named.names([address, written], asn),
            allowed: listed(&self.allowed),
            unusual: !listed(&self.expected),
            impossible_travel: false,
            known_to_subject: None,
            country: country.clone(),
        })
    }

    /// The first that applies: what is ours, then what hides most. An address that stands behind another one is looked for, and
    /// so is the other.
    fn network(&self, sources: &Sources, ways: [IpAddr; 2], asn: Option<u32>, row: &AnonymousRow) -> NetworkKind {
        let within = |lists: &[Source<lists::PrefixSet>]| {
            let mut lists = lists.iter().filter_map(|list| list.content.as_ref());
            lists.any(|list| ways.iter().any(|address| list.contains(*address)))
        };
        let vpn = row.is_anonymous_vpn || row.is_public_proxy || row.is_residential_proxy;
        if self.named.is_corporate(ways, asn) {
            NetworkKind::Corporate
        } else if is_private(ways[0]) {
            NetworkKind::Private
        } else if row.is_tor_exit_node || within(&sources.tor) {
            NetworkKind::Tor
        } else if vpn || within(&sources.vpn) {
            NetworkKind::Vpn
        } else if row.is_hosting_provider || within(&sources.hosting) {
            NetworkKind::Hosting
        } else if row.is_anonymous {
            NetworkKind::Vpn
        } else {
            NetworkKind::Ordinary
        }
    }

    /// Grows with each change of what places are made from.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Configured files that cannot be used as they are now, and why; for the status page and `doctor`.
    pub fn problems(&self) -> Vec<(PathBuf, String)> {
        self.sources.load().problems()
    }

    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// The error says whether reading was cancelled, as at the end of the process, or panicked.
fn not_read(error: &JoinError) -> String {
    format!("location files were not read, those read before stay in use: {error}")
}

/// Networks whose place needs no database: they are never out of place.
const fn is_ours(network: NetworkKind) -> bool {
    matches!(network, NetworkKind::Corporate | NetworkKind::Private)
}

impl metric::Source for Locator {
    fn collect(&self, page: &mut Page) {
        let cache = "Look-ups of places by where they were answered from";
        page.counter("countersign_location_lookups", cache, &[("from", "cache")], &self.counters.hits);
        page.counter("countersign_location_lookups", cache, &[("from", "databases")], &self.counters.misses);
        page.counter("countersign_location_damaged", "Look-ups in a damaged database", &[], &self.counters.damaged);
        let reloads = "Location files read, by outcome";
        page.counter("countersign_location_reloads", reloads, &[("outcome", "read")], &self.counters.reloads);
        page.counter("countersign_location_reloads", reloads, &[("outcome", "failed")], &self.counters.reload_failures);
        let broken = self.problems().len() as f64;
        page.gauge("countersign_location_files_broken", "Configured location files of no use now", &[], broken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_stands_behind_it() {
        let settings: Settings = serde_json::from_value(serde_json::json!({
            "corporate_networks": {"cidrs": ["198.51.100.0/24"]},
            "known_networks": {"tunnels": {"cidrs": ["2002::/16"]}},
        }))
        .unwrap();
        let locator = Locator::open(settings);
        let at = |address: &str| {
            let place = locator.locate(address.parse().ok(), UnixTime::EPOCH);
            place.value().map(|place| (place.network, place.known_networks.join(","))).unwrap()
        };
        assert_eq!(at("2002:c633:6407::1"), (NetworkKind::Corporate, "tunnels".to_owned()));
        assert_eq!(at("64:ff9b::198.51.100.7"), (NetworkKind::Corporate, String::new()));
        assert_eq!(at("64:ff9b::10.0.0.1").0, NetworkKind::Ordinary, "nobody inside is written like that");
        assert_eq!(at("2002:c0a8:0001::1").0, NetworkKind::Ordinary);
    }

    #[tokio::test]
    async fn a_reading_that_was_cancelled_is_not_called_a_panic() {
        let cancelled = tokio::spawn(std::future::pending::<()>());
        cancelled.abort();
        let told = not_read(&cancelled.await.unwrap_err());
        assert!(told.contains("cancelled") && !told.contains("panicked"), "{told}");
        let panicked = tokio::task::spawn_blocking(|| -> () { panic!("no such row") });
        let told = not_read(&panicked.await.unwrap_err());
        assert!(told.contains("panicked") && told.contains("no such row"), "{told}");
    }
}
