//! Opaque tokens, asked about at their authorization server (RFC 7662). "Active" is believed for a stated time, and of tokens
//! in use asked for again ahead of its end, so that nobody waits.
//!
//! The answer of the server is the proof, so it is fetched over https from the one configured address, with our own
//! credentials, and read by the same profile as a token's claims.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::{
    Detail,
    authenticator::Miss,
    cache::TokenCache,
    claims,
    counters::Counters,
    entry::{TokenEntry, VerifiedWith},
    fetch::{FetchProblem, Fetcher},
    flights::{Flight, Flights},
    issuer::IssuerState,
    json::{self, Object},
    jwk::sha256,
    jws::Jws,
    life::{Life, Moment},
    outage::Outage,
    settings::{IntrospectionSettings, fetchable},
    turns::Turns,
};
use crate::{
    clock::Clock,
    domain::{SessionId, Unavailable, UnixTime},
};

/// Opaque tokens and those who ask about them.
#[derive(Debug)]
pub(super) struct Introspection {
    server: Arc<Server>,
    issuers: Arc<[IssuerState]>,
    cache: Arc<TokenCache>,
    turns: Arc<Turns>,
    flights: Flights<Word>,
}

/// The server's.
type Word = Result<Arc<TokenEntry>, Detail>;

/// The authorization server that is asked.
#[derive(Debug)]
struct Server {
    issuer: usize,
    endpoint: Url,
    settings: IntrospectionSettings,
    fetcher: Arc<Fetcher>,
    counters: Arc<Counters>,
    clock: Clock,
    outage: Outage,
}

impl Introspection {
    /// `None` where no issuer has it.
    pub(super) fn new(
        issuers: &Arc<[IssuerState]>,
        cache: &Arc<TokenCache>,
        fetcher: &Arc<Fetcher>,
        counters: &Arc<Counters>,
        clock: &Clock,
    ) -> Option<Self> {
        issuers.iter().enumerate().find_map(|(issuer, state)| {
            let settings = state.settings.introspection.clone()?;
            let endpoint = fetchable(&settings.endpoint).ok()?;
            let turns = Arc::new(Turns::new(settings.concurrency));
            let (fetcher, counters, clock) = (fetcher.clone(), counters.clone(), clock.clone());
            let server = Server { issuer, endpoint, settings, fetcher, counters, clock, outage: Outage::default() };
            let (issuers, cache) = (issuers.clone(), cache.clone());
            Some(Self { server: Arc::new(server), issuers, cache, turns, flights: Flights::default() })
        })
    }

    /// Whether its server is to be asked about `token`: an opaque one, or one that names an issuer whose keys nobody has named.
    pub(super) fn is_for(&self, token: &str) -> bool {
        let is_jwt = token.bytes().filter(|octet| *octet == b'.').count() == 2;
        let Some(issuer) = self.issuers.get(self.server.issuer) else { return false };
        let names = |claims: Object| claims.get("iss").and_then(Value::as_str) == Some(&issuer.settings.issuer);
        !is_jwt || !issuer.has_keys() && Jws::parse(token).and_then(|jws| jws.claims()).is_ok_and(names)
    }

    /// Asks once for all who carry `token`. The question outlives the deadline of those who wait for it, so that the next one
    /// finds the answer.
    pub(super) async fn ask(&self, token: &str, deadline: Instant) -> Result<Arc<TokenEntry>, Miss> {
        // One that was good a moment ago is still there.
        let stranger = self.cache.get(token.as_bytes()).is_none();
        Ok(self.flights.run(token, deadline, self.asking(stranger)).await??)
    }

    /// Asks again about a token that is good and has `life` left, unless somebody does. Nobody waits.
    pub(super) fn ask_ahead(&self, token: &str, life: &Life) {
        let left = life.left(Moment::of(&self.server.clock));
        self.flights.ahead(token, Instant::now() + left, self.asking(false));
    }

    /// How a flight begins.
    fn asking(&self, stranger: bool) -> impl FnOnce(Flight<Word>) -> bool + use<> {
        let (server, issuers) = (self.server.clone(), self.issuers.clone());
        let (turns, cache) = (self.turns.clone(), self.cache.clone());
        move |flight| {
            tokio::spawn(async move {
                let turn = turns.take(stranger, || flight.deadline()).await;
                if turn.is_none() {
                    return flight.land(Err(Unavailable::Overloaded));
                }
                let before = cache.get(flight.token().as_bytes());
                let answer = server.ask(flight.token(), &issuers, before.as_deref()).await;
                match &answer {
                    Ok(Ok(entry)) => cache.insert(flight.token().clone(), entry.clone()),
                    Ok(Err(_)) => cache.remove(flight.token().as_bytes()),
                    // What was said before stands to its end.
                    Err(_) => {}
                }
                drop(turn);
                flight.land(answer);
            });
            true
        }
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
        before: Option<&TokenEntry>,
    ) -> Result<Word, Unavailable> {
        let issuer = issuers.get(self.issuer).ok_or(Unavailable::Internal)?;
        let asked = Moment::of(&self.clock);
        let answer = self.fetch(token).await;
        self.note(&answer, &issuer.settings.issuer, asked.wall);
        Ok(self.read(answer?, issuer, token, asked).map(|entry| Arc::new(entry.after(before))))
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

    fn read(&self, answer: Value, state: &IssuerState, token: &str, asked: Moment) -> Result<TokenEntry, Detail> {
        let (issuer, now) = (&state.settings, asked.wall);
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
        if issue_unstated && !claims.identity.session_claimed && claims.identity.auth_time.is_none() {
            // Nothing else tells one login from the next, and when its session began is all that says how old it is.
            claims.identity.session = SessionId::from(format!("token-{}", hex::encode(sha256(token.as_bytes()))));
        }
        let life = Life::new(asked, self.settings.life.get());
        let until = life.until();
        let with = VerifiedWith::Introspection(life);
        let mut entry = TokenEntry::new(claims.identity, self.issuer, with, claims.not_before);
        // Without keys no list can be verified: that the token is active says what the list would.
        entry.status = claims.status.filter(|_| state.has_keys());
        entry.ends_at = until;
        Ok(entry)
    }
}
