//! Token Status Lists: an issuer's own revocation list, one bit (or up to eight) for each token, signed and compressed.
//!
//! A token that names a list is only as good as the list says, so a list that cannot be had makes the token unknown
//! (503), never valid. Worst staleness: the list's `ttl`, at most five minutes.

use std::{io::Read, sync::Arc, time::Duration};

use flate2::read::ZlibDecoder;
use moka::sync::Cache;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::{
    Algorithm, Detail,
    authenticator::Miss,
    fetch::{FetchProblem, Fetcher},
    flights::Flights,
    issuer::IssuerState,
    jws::{self, Jws},
    keys::{Keys, Known},
    settings::{IssuerSettings, fetchable},
};
use crate::domain::{Unavailable, UnixTime};

/// Largest list after inflating: 32 million tokens of one bit.
const MAX_INFLATED: u64 = 4 * 1024 * 1024;
const LISTS: u64 = 256;
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);

/// Lists in memory.
#[derive(Debug)]
pub(super) struct StatusLists {
    lists: Cache<Arc<str>, Arc<List>>,
    flights: Flights<Arc<List>>,
    fetcher: Arc<Fetcher>,
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
    pub(super) fn new(fetcher: Arc<Fetcher>) -> Self {
        Self { lists: Cache::new(LISTS), flights: Flights::default(), fetcher }
    }

    /// Whether the list at `uri` says that token `index` is valid.
    pub(super) async fn check(
        &self,
        issuer: Option<&IssuerState>,
        uri: &str,
        index: u64,
        now: UnixTime,
        deadline: Instant,
    ) -> Result<(), Miss> {
        let list = match self.lists.get(uri).filter(|list| now < list.until) {
            Some(list) => list,
            None => self.fetch(issuer.ok_or(Unavailable::Internal)?, uri, now, deadline).await?,
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
        let (fetcher, lists) = (self.fetcher.clone(), self.lists.clone());
        let (settings, keys) = (issuer.settings.clone(), issuer.keys.clone());
        let list = self.flights.run(uri, deadline, move |flight| {
            tokio::spawn(async move {
                let read = read(&fetcher, &url, flight.token(), &settings, &keys, now).await;
                let result = read.map(Arc::new).map_err(|problem| {
                    tracing::warn!(issuer = %settings.issuer, "status list cannot be used: {problem}");
                    Unavailable::NotReady
                });
                if let Ok(list) = &result {
                    lists.insert(flight.token().clone(), list.clone());
                }
                flight.land(result);
            });
            true
        });
        Ok(list.await?)
    }
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
    let expires = claims.get("exp").map(|exp| exp.as_u64().map(UnixTime::from_secs).ok_or(Problem::NotAList));
    let expires = expires.transpose()?.unwrap_or(UnixTime::MAX);
    if expires <= now {
        return Err(Problem::Expired);
    }
    let ttl = claims.get("ttl").and_then(Value::as_u64).map_or(LONGEST, Duration::from_secs);
    let list = claims.get("status_list").ok_or(Problem::NotAList)?;
    let bits = list.get("bits").and_then(Value::as_u64).filter(|bits| [1, 2, 4, 8].contains(bits));
    let compressed = list.get("lst").and_then(Value::as_str).and_then(jws::decode).ok_or(Problem::NotAList)?;
    Ok(List {
        bits: bits.ok_or(Problem::NotAList)? as u8,
        octets: inflate(&compressed)?,
        until: now.plus(ttl.clamp(SHORTEST, LONGEST)).min(expires),
    })
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
        prefixes => prefixes.iter().any(|prefix| url.as_str().starts_with(prefix.as_str())),
    };
    permitted.then_some(url)
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
}
