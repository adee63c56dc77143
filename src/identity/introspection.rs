//! Opaque tokens, asked about at their authorization server (RFC 7662). "Active" is believed for a stated time.
//!
//! The answer of the server is the proof, so it is fetched over https from the one configured address, with our own
//! credentials, and read by the same profile as a token's claims.

use std::sync::Arc;

use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};
use url::Url;

use super::{
    Detail,
    authenticator::Miss,
    cache::TokenCache,
    claims,
    counters::Counters,
    entry::{TokenEntry, VerifiedWith},
    fetch::{FetchProblem, Fetcher},
    flights::Flights,
    issuer::IssuerState,
    json,
    jwk::sha256,
    outage::Outage,
    settings::{IntrospectionSettings, IssuerSettings, fetchable},
};
use crate::domain::{Unavailable, UnixTime};

/// Opaque tokens and those who ask about them.
#[derive(Debug)]
pub(super) struct Introspection {
    server: Arc<Server>,
    permits: Arc<Semaphore>,
    flights: Flights<Result<Arc<TokenEntry>, Detail>>,
}

/// The authorization server that is asked.
#[derive(Debug)]
struct Server {
    issuer: usize,
    endpoint: Url,
    settings: IntrospectionSettings,
    fetcher: Arc<Fetcher>,
    counters: Arc<Counters>,
    outage: Outage,
}

impl Introspection {
    /// `None` where no issuer has it.
    pub(super) fn new(issuers: &[IssuerState], fetcher: &Arc<Fetcher>, counters: &Arc<Counters>) -> Option<Self> {
        issuers.iter().enumerate().find_map(|(issuer, state)| {
            let settings = state.settings.introspection.clone()?;
            let endpoint = fetchable(&settings.endpoint).ok()?;
            let permits = Arc::new(Semaphore::new(settings.concurrency));
            let (fetcher, counters) = (fetcher.clone(), counters.clone());
            let server = Server { issuer, endpoint, settings, fetcher, counters, outage: Outage::default() };
            Some(Self { server: Arc::new(server), permits, flights: Flights::default() })
        })
    }

    /// Asks once for all who carry `token`. The question outlives the deadline of whoever asked first, so that the next
    /// one finds the answer.
    pub(super) async fn ask(
        &self,
        token: &str,
        issuers: &Arc<[IssuerState]>,
        cache: &Arc<TokenCache>,
        now: UnixTime,
        deadline: Instant,
    ) -> Result<Arc<TokenEntry>, Miss> {
        let (server, issuers) = (self.server.clone(), issuers.clone());
        let (permits, cache) = (self.permits.clone(), cache.clone());
        let answer = self.flights.run(token, deadline, move |flight| {
            let Ok(permit) = permits.try_acquire_owned() else { return false };
            tokio::spawn(async move {
                let answer = server.ask(flight.token(), &issuers, now).await;
                if let Ok(Ok(entry)) = &answer {
                    cache.insert(flight.token().clone(), entry.clone());
                }
                drop(permit);
                flight.land(answer);
            });
            true
        });
        Ok(answer.await??)
    }
}

/// Why there is no answer. Worded for a log line, so nothing of a token or of our credentials.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Fetch(#[from] FetchProblem),
    #[error("answered something other than JSON")]
    NotJson,
}

impl From<Problem> for Unavailable {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Fetch(_) => Self::NotReady,
            Problem::NotJson => Self::Malformed,
        }
    }
}

impl Server {
    async fn ask(
        &self,
        token: &str,
        issuers: &[IssuerState],
        now: UnixTime,
    ) -> Result<Result<Arc<TokenEntry>, Detail>, Unavailable> {
        let issuer = &issuers.get(self.issuer).ok_or(Unavailable::Internal)?.settings;
        let answer = self.fetch(token).await;
        self.note(&answer, &issuer.issuer, now);
        Ok(self.read(answer?, issuer, token, now))
    }

    async fn fetch(&self, token: &str) -> Result<Value, Problem> {
        let form = [("token", token), ("token_type_hint", "access_token")];
        let (user, password) = (&self.settings.client_id, self.settings.client_secret.expose());
        let answer = self.fetcher.post_form(&self.endpoint, user, password, &form).await?;
        json::parse(&answer.body).map_err(|_| Problem::NotJson)
    }

    /// One line for each outage, and one for its end; the metrics tell the rest.
    fn note(&self, answer: &Result<Value, Problem>, issuer: &str, now: UnixTime) {
        match answer {
            Ok(_) => {
                self.counters.introspections.increment();
                if let Some(failures) = self.outage.answered(now) {
                    tracing::info!(issuer, failures, "introspection answers again");
                }
            }
            Err(problem) => {
                self.counters.introspection_failures.increment();
                if self.outage.failed(now) {
                    tracing::warn!(issuer, "introspection failed: {problem}; opaque tokens are answered 503");
                }
            }
        }
    }

    fn read(
        &self,
        answer: Value,
        issuer: &IssuerSettings,
        token: &str,
        now: UnixTime,
    ) -> Result<Arc<TokenEntry>, Detail> {
        if answer.get("active").and_then(Value::as_bool) != Some(true) {
            return Err(Detail::NotActive);
        }
        if answer.get("iss").is_some_and(|named| named.as_str() != Some(&issuer.issuer)) {
            return Err(Detail::UnknownIssuer);
        }
        let Value::Object(mut members) = answer else { return Err(Detail::Json) };
        // RFC 7662 leaves these to the server; the server's word that it is active stands in for them.
        let issue_unstated = !members.contains_key("iat");
        members.entry("iat").or_insert_with(|| now.as_secs().into());
        if !issuer.claims.token_id.is_empty() {
            let id = hex::encode(sha256(token.as_bytes()));
            members.entry(issuer.claims.token_id.clone()).or_insert_with(|| id.into());
        }
        let mut claims = claims::read(&members.into(), Some("at+jwt"), issuer, now, token)?;
        claims.identity.issue_unstated = issue_unstated;
        let until = now.plus(self.settings.life.get());
        let mut entry =
            TokenEntry::new(claims.identity, self.issuer, VerifiedWith::Introspection { until }, claims.not_before);
        entry.status = claims.status;
        entry.ends_at = until;
        Ok(Arc::new(entry))
    }
}
