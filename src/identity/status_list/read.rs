//! A status list from its server: fetched, verified, unpacked. What takes long is done on a thread that serves no requests.

use std::{io::Read, sync::Arc, time::Duration};

use flate2::read::ZlibDecoder;
use serde_json::Value;
use tokio::{task::spawn_blocking, time::Instant};
use url::Url;

use super::super::{
    Algorithm,
    fetch::{FetchProblem, Fetcher},
    jws::{self, Jws},
    keys::{Keys, Known},
    life::{Life, Moment},
    search::Search,
    settings::IssuerSettings,
};
use crate::domain::UnixTime;

/// Largest list after inflating: of one bit each, 33 million tokens. The signed list is at most 1 MiB, which holds so many
/// while no more than about one in a hundred is revoked; where every other one is, four million.
pub(super) const MAX_INFLATED: u64 = 4 * 1024 * 1024;
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);
/// How long new keys are waited for.
const KEYS: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct List {
    /// Bits per token: 1, 2, 4 or 8.
    pub(super) bits: u8,
    pub(super) octets: Vec<u8>,
    pub(super) life: Life,
}

impl List {
    /// The status at `index`; 0 is valid.
    pub(super) fn status(&self, index: u64) -> Option<u8> {
        let per_octet = u64::from(8 / self.bits);
        let octet = self.octets.get(usize::try_from(index / per_octet).ok()?)?;
        let shift = (index % per_octet) as u8 * self.bits;
        Some((octet >> shift) & (0xff >> (8 - self.bits)))
    }
}

/// Why a list is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Fetch(#[from] FetchProblem),
    #[error("not a status list token of this issuer")]
    NotAList,
    #[error("its signature does not verify")]
    Signature,
    /// With the `kid`, where any key of the issuer has ever been had.
    #[error("it is signed with a key that the issuer's set does not hold")]
    UnknownKey(Option<Box<str>>),
    #[error("it is over")]
    Expired,
    #[error("inflates to more than 4 MiB, or not at all")]
    Inflate,
    #[error("reading it failed")]
    Internal,
}

/// One list of one issuer.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) url: Url,
    pub(super) uri: String,
    pub(super) issuer: IssuerSettings,
    pub(super) keys: Arc<Keys>,
}

impl Source {
    pub(super) async fn read(self: &Arc<Self>, fetcher: &Fetcher, asked: Moment) -> Result<List, Problem> {
        let token: Arc<[u8]> = fetcher.get(&self.url, "application/statuslist+jwt").await?.body.into();
        let (mut search, deadline) = (Search::default(), Instant::now() + KEYS);
        loop {
            let read = self.open(&token, asked).await;
            let Err(Problem::UnknownKey(kid)) = &read else { return read };
            if search.again(&self.keys, kid.as_deref(), deadline).await.is_err() {
                return read;
            }
        }
    }

    async fn open(self: &Arc<Self>, token: &Arc<[u8]>, asked: Moment) -> Result<List, Problem> {
        let (source, token) = (self.clone(), token.clone());
        spawn_blocking(move || source.verify(&token, asked)).await.map_err(|_| Problem::Internal)?
    }

    fn verify(&self, token: &[u8], asked: Moment) -> Result<List, Problem> {
        let token = std::str::from_utf8(token).map_err(|_| Problem::NotAList)?.trim_end();
        let jws = Jws::parse_large(token).map_err(|_| Problem::NotAList)?;
        let algorithm = jws.alg().and_then(Algorithm::parse).filter(|known| self.issuer.algorithms.contains(known));
        let (Some(algorithm), Some(kid), Ok(Some(typ)), Ok(())) =
            (algorithm, jws.kid(), jws.typ(), jws.refuse_extensions())
        else {
            return Err(Problem::NotAList);
        };
        if typ != "statuslist+jwt" {
            return Err(Problem::NotAList);
        }
        let set = match self.keys.known(asked.wall) {
            Known::Set(set) => set,
            Known::Never => return Err(Problem::UnknownKey(None)),
            Known::TooOld => return Err(Problem::Signature),
        };
        let key = set.find(kid, algorithm).map_err(|kid_known| match kid_known {
            true => Problem::Signature,
            false => Problem::UnknownKey(Some(kid.into())),
        })?;
        if !key.verify(algorithm, jws.input.as_bytes(), &jws.signature) {
            return Err(Problem::Signature);
        }
        parse(&jws.payload().map_err(|_| Problem::NotAList)?, &self.uri, &self.issuer, asked)
    }
}

pub(super) fn parse(claims: &Value, uri: &str, issuer: &IssuerSettings, asked: Moment) -> Result<List, Problem> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("sub") != Some(uri) || text("iss").is_some_and(|named| named != issuer.issuer) {
        return Err(Problem::NotAList);
    }
    let expires = match claims.get("exp") {
        Some(exp) => date(exp).ok_or(Problem::NotAList)?,
        None => UnixTime::MAX,
    };
    if expires <= asked.wall {
        return Err(Problem::Expired);
    }
    let ttl = claims.get("ttl").and_then(Value::as_f64).and_then(|ttl| Duration::try_from_secs_f64(ttl).ok());
    let ttl = ttl.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
    let list = claims.get("status_list").ok_or(Problem::NotAList)?;
    let bits = list.get("bits").and_then(Value::as_u64).filter(|bits| [1, 2, 4, 8].contains(bits));
    let compressed = list.get("lst").and_then(Value::as_str).and_then(jws::decode).ok_or(Problem::NotAList)?;
    Ok(List {
        bits: bits.ok_or(Problem::NotAList)? as u8,
        octets: inflate(&compressed)?,
        life: Life::new(asked, ttl.min(expires.since(asked.wall))),
    })
}

/// A NumericDate (RFC 7519): seconds since 1970; a fraction is legal.
fn date(value: &Value) -> Option<UnixTime> {
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
    Some(UnixTime::from_millis((seconds * 1000.0) as u64))
}

pub(super) fn inflate(compressed: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut octets = Vec::new();
    let read = ZlibDecoder::new(compressed).take(MAX_INFLATED + 1).read_to_end(&mut octets);
    match read {
        Ok(size) if size as u64 <= MAX_INFLATED => Ok(octets),
        _ => Err(Problem::Inflate),
    }
}
