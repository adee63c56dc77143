//! Token Status Lists: an issuer's own revocation list, one bit (or up to eight) for each token, signed and compressed.
//!
//! A token that names a list is only as good as the list says, so a list that cannot be had makes the token unknown
//! (503), never valid. Worst staleness: the list's `ttl`, at most five minutes. One that could not be had is left alone for
//! a few seconds.

use std::{io::Read, sync::Arc, time::Duration};

use flate2::read::ZlibDecoder;
use moka::sync::Cache;
use serde_json::Value;
use tokio::time::Instant;
use url::{Position, Url};

use super::{
    Algorithm, Detail,
    authenticator::Miss,
    counters::Counters,
    fetch::{FetchProblem, Fetcher},
    flights::Flights,
    issuer::IssuerState,
    jws::{self, Jws},
    keys::{Keys, Known},
    settings::{IssuerSettings, fetchable},
};
use crate::{
    clock::Clock,
    domain::{Unavailable, UnixTime},
};

/// Largest list after inflating: 32 million tokens of one bit.
const MAX_INFLATED: u64 = 4 * 1024 * 1024;
const LISTS: u64 = 256;
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);

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
    Failed(UnixTime),
}

#[derive(Debug, PartialEq, Eq)]
struct List {
    /// Bits per token: 1, 2, 4 or 8.
    bits: u8,
    octets: Vec<u8>,
    until: UnixTime,
}

impl List {
    /// The status at `index`; 0 is valid.
    fn status(&self, index: u64) -> Option<u8> {
        let per_octet = u64::from(8 / self.bits);
        let octet = self.octets.get(usize::try_from(index / per_octet).ok()?)?;
        let shift = (index % per_octet) as u8 * self.bits;
        Some((octet >> shift) & (0xff >> (8 - self.bits)))
    }
}

impl StatusLists {
    pub(super) fn new(fetcher: Arc<Fetcher>, clock: Clock, counters: Arc<Counters>) -> Self {
        let kept = Arc::new(Kept { lists: Cache::new(LISTS), clock, counters });
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
        let list = match self.kept.lists.get(key(&issuer.settings.issuer, uri).as_str()) {
            Some(Held::List(list)) if now < list.until => list,
            Some(Held::Failed(until)) if now < until => return Err(Unavailable::NotReady.into()),
            _ => self.fetch(issuer, uri, now, deadline).await?,
        };
        match list.status(index) {
            Some(0) => Ok(()),
            Some(_) => Err(Detail::StatusRevoked.into()),
            None => Err(Unavailable::Malformed.into()),
        }
    }

    async fn fetch(
        &self,
        issuer: &IssuerState,
        uri: &str,
        now: UnixTime,
        deadline: Instant,
    ) -> Result<Arc<List>, Miss> {
        let url = allowed(uri, &issuer.settings).ok_or(Detail::StatusForeign)?;
        let (fetcher, kept) = (self.fetcher.clone(), self.kept.clone());
        let (settings, keys, uri) = (issuer.settings.clone(), issuer.keys.clone(), uri.to_owned());
        let key = key(&settings.issuer, &uri);
        let list = self.flights.run(&key, deadline, move |flight| {
            tokio::spawn(async move {
                let read = read(&fetcher, &url, &uri, &settings, &keys, now).await;
                let list = kept.keep(flight.token(), &settings.issuer, &uri, read);
                flight.land(list);
            });
            true
        });
        Ok(list.await?)
    }
}

impl Kept {
    /// Keeps what was read, or that nothing was. One line for each outage of a list, and one for its end; the metrics tell
    /// the rest.
    fn keep(
        &self,
        key: &Arc<str>,
        issuer: &str,
        list: &str,
        read: Result<List, Problem>,
    ) -> Result<Arc<List>, Unavailable> {
        let failed_before = matches!(self.lists.get(key), Some(Held::Failed(_)));
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
                self.lists.insert(key.clone(), Held::Failed(self.clock.now().plus(SHORTEST)));
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

/// Why a list is not used.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Fetch(#[from] FetchProblem),
    #[error("not a status list token of this issuer")]
    NotAList,
    #[error("its signature does not verify")]
    Signature,
    #[error("it is over")]
    Expired,
    #[error("inflates to more than 4 MiB, or not at all")]
    Inflate,
}

async fn read(
    fetcher: &Fetcher,
    url: &Url,
    uri: &str,
    issuer: &IssuerSettings,
    keys: &Keys,
    now: UnixTime,
) -> Result<List, Problem> {
    let fetched = fetcher.get(url, "application/statuslist+jwt").await?;
    let token = std::str::from_utf8(&fetched.body).map_err(|_| Problem::NotAList)?.trim_end();
    let jws = Jws::parse_large(token).map_err(|_| Problem::NotAList)?;
    let algorithm = jws.alg().and_then(Algorithm::parse).filter(|algorithm| issuer.algorithms.contains(algorithm));
    let (Some(algorithm), Some(kid), Ok(Some(typ)), Ok(())) =
        (algorithm, jws.kid(), jws.typ(), jws.refuse_extensions())
    else {
        return Err(Problem::NotAList);
    };
    let Known::Set(set) = keys.known(now) else { return Err(Problem::Signature) };
    let signed = set.find(kid, algorithm).is_ok_and(|key| key.verify(algorithm, jws.input.as_bytes(), &jws.signature));
    if typ != "statuslist+jwt" || !signed {
        return Err(Problem::Signature);
    }
    parse(&jws.payload().map_err(|_| Problem::NotAList)?, uri, issuer, now)
}

fn parse(claims: &Value, uri: &str, issuer: &IssuerSettings, now: UnixTime) -> Result<List, Problem> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("sub") != Some(uri) || text("iss").is_some_and(|named| named != issuer.issuer) {
        return Err(Problem::NotAList);
    }
    let expires = match claims.get("exp") {
        Some(exp) => date(exp).ok_or(Problem::NotAList)?,
        None => UnixTime::MAX,
    };
    if expires <= now {
        return Err(Problem::Expired);
    }
    let ttl = claims.get("ttl").and_then(Value::as_f64).and_then(|ttl| Duration::try_from_secs_f64(ttl).ok());
    let ttl = ttl.unwrap_or(LONGEST);
    let list = claims.get("status_list").ok_or(Problem::NotAList)?;
    let bits = list.get("bits").and_then(Value::as_u64).filter(|bits| [1, 2, 4, 8].contains(bits));
    let compressed = list.get("lst").and_then(Value::as_str).and_then(jws::decode).ok_or(Problem::NotAList)?;
    Ok(List {
        bits: bits.ok_or(Problem::NotAList)? as u8,
        octets: inflate(&compressed)?,
        until: now.plus(ttl.clamp(SHORTEST, LONGEST)).min(expires),
    })
}

/// A NumericDate (RFC 7519): seconds since 1970; a fraction is legal.
fn date(value: &Value) -> Option<UnixTime> {
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
    Some(UnixTime::from_millis((seconds * 1000.0) as u64))
}

fn inflate(compressed: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut octets = Vec::new();
    let read = ZlibDecoder::new(compressed).take(MAX_INFLATED + 1).read_to_end(&mut octets);
    match read {
        Ok(size) if size as u64 <= MAX_INFLATED => Ok(octets),
        _ => Err(Problem::Inflate),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn list(bits: u8, lst: &str) -> List {
        List { bits, octets: inflate(&hex::decode(lst).unwrap()).unwrap(), until: UnixTime::MAX }
    }

    #[test]
    fn the_vectors_of_the_draft_read_as_written() {
        let one = list(1, "78dadbb918000217015d");
        assert_eq!(one.octets, [0xb9, 0xa3]);
        let statuses: Vec<_> = (0..16).filter_map(|i| one.status(i)).collect();
        assert_eq!(statuses, [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]);
        assert_eq!(one.status(16), None);
        let two = list(2, "78da3be9f2130003df0207");
        let statuses: Vec<_> = (0..12).filter_map(|i| two.status(i)).collect();
        assert_eq!(statuses, [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]);
    }

    #[test]
    fn a_list_that_inflates_without_end_is_refused() {
        use std::io::Write;
        let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        bomb.write_all(&vec![0; MAX_INFLATED as usize + 1]).unwrap();
        assert!(inflate(&bomb.finish().unwrap()).is_err());
        assert!(inflate(b"not zlib").is_err());
    }

    #[test]
    fn only_the_issuers_own_lists_are_fetched() {
        let issuer = IssuerSettings::new("https://i.example/tenant", ["a"]);
        assert!(allowed("https://i.example/lists/1", &issuer).is_some());
        for foreign in ["https://evil.example/1", "http://i.example/1", "https://i.example:8443/1", "/1"] {
            assert!(allowed(foreign, &issuer).is_none(), "{foreign}");
        }
        let named = IssuerSettings { status_lists: vec!["https://cdn.example/i/".into()], ..issuer };
        assert!(allowed("https://cdn.example/i/1", &named).is_some());
        assert!(allowed("https://i.example/lists/1", &named).is_none());
    }

    #[test]
    fn a_prefix_ends_where_its_host_and_port_do_and_its_path_is_taken_as_written() {
        let allows = |prefix: &str, uri: &str| {
            let issuer =
                IssuerSettings { status_lists: vec![prefix.into()], ..IssuerSettings::new("https://i", ["a"]) };
            allowed(uri, &issuer).is_some()
        };
        for uri in ["https://cdn.example/", "https://cdn.example/1?page=2", "https://CDN.example:443/1"] {
            assert!(allows("https://cdn.example", uri), "{uri}");
        }
        for uri in [
            "https://cdn.example.evil.com/",
            "https://cdn.example:8443/",
            "https://cdn.example@evil.com/",
            "https://cdn.exampleevil.com/",
        ] {
            assert!(!allows("https://cdn.example", uri), "{uri}");
        }
        assert!(allows("https://cdn.example/i", "https://cdn.example/i/1"));
        assert!(allows("https://cdn.example/i", "https://cdn.example/issuer"), "as it is written");
        assert!(!allows("https://cdn.example/i/", "https://cdn.example/i/../other"));
        assert!(!allows("cdn.example", "https://cdn.example/1"));
    }

    #[test]
    fn the_dates_of_a_list_may_have_fractions() {
        let issuer = IssuerSettings::new("https://i.example", ["a"]);
        let until = |exp: Value, ttl: Value| {
            let list =
                serde_json::json!({ "bits": 1, "lst": jws::encode(&hex::decode("78dadbb918000217015d").unwrap()) });
            let claims = serde_json::json!({ "sub": "u", "exp": exp, "ttl": ttl, "status_list": list });
            parse(&claims, "u", &issuer, UnixTime::from_secs(1000)).map(|list| list.until.as_millis()).ok()
        };
        assert_eq!(until(1100.25.into(), 300.into()), Some(1_100_250));
        assert_eq!(until(1000.5.into(), 300.into()), Some(1_000_500));
        assert_eq!(until(2000.into(), 60.5.into()), Some(1_060_500));
        assert_eq!(until(1e300.into(), 1e300.into()), Some(1_300_000), "far away is far away");
        for bad in [Value::Null, "1100".into(), (-1).into(), 999.5.into(), 1000.into(), 0.into()] {
            assert_eq!(until(bad.clone(), 60.into()), None, "{bad}");
        }
    }
}
