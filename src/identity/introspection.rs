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
    entry::{TokenEntry, VerifiedWith},
    fetch::Fetcher,
    flights::Flights,
    issuer::IssuerState,
    json,
    jwk::sha256,
    settings::{IntrospectionSettings, IssuerSettings, fetchable},
};
use crate::domain::{Unavailable, UnixTime};

/// The authorization server that is asked.
#[derive(Debug)]
pub(super) struct Introspection {
    issuer: usize,
    endpoint: Url,
    settings: IntrospectionSettings,
    fetcher: Arc<Fetcher>,
    permits: Arc<Semaphore>,
    flights: Flights<Result<Arc<TokenEntry>, Detail>>,
}

impl Introspection {
    /// `None` where no issuer has it.
    pub(super) fn new(issuers: &[IssuerState], fetcher: &Arc<Fetcher>) -> Option<Self> {
        issuers.iter().enumerate().find_map(|(issuer, state)| {
            let settings = state.settings.introspection.clone()?;
            let endpoint = fetchable(&settings.endpoint).ok()?;
            let permits = Arc::new(Semaphore::new(settings.concurrency.max(1)));
            Some(Self { issuer, endpoint, settings, fetcher: fetcher.clone(), permits, flights: Flights::default() })
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
        let question = Question {
            issuer: self.issuer,
            issuers: issuers.clone(),
            endpoint: self.endpoint.clone(),
            settings: self.settings.clone(),
            fetcher: self.fetcher.clone(),
            now,
        };
        let (permits, cache) = (self.permits.clone(), cache.clone());
        let answer = self.flights.run(token, deadline, move |flight| {
            let Ok(permit) = permits.try_acquire_owned() else { return false };
            tokio::spawn(async move {
                let answer = question.ask(flight.token()).await;
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

struct Question {
    issuer: usize,
    issuers: Arc<[IssuerState]>,
    endpoint: Url,
    settings: IntrospectionSettings,
    fetcher: Arc<Fetcher>,
    now: UnixTime,
}

impl Question {
    async fn ask(&self, token: &str) -> Result<Result<Arc<TokenEntry>, Detail>, Unavailable> {
        let issuer = self.issuers.get(self.issuer).ok_or(Unavailable::Internal)?;
        let form = [("token", token), ("token_type_hint", "access_token")];
        let (user, password) = (&self.settings.client_id, self.settings.client_secret.expose());
        let answer = self.fetcher.post_form(&self.endpoint, user, password, &form).await.map_err(|problem| {
            tracing::debug!(issuer = %issuer.settings.issuer, "introspection failed: {problem}");
            Unavailable::NotReady
        })?;
        let answer = json::parse(&answer.body).map_err(|_| Unavailable::Malformed)?;
        Ok(self.read(answer, &issuer.settings, token))
    }

    fn read(&self, answer: Value, issuer: &IssuerSettings, token: &str) -> Result<Arc<TokenEntry>, Detail> {
        if answer.get("active").and_then(Value::as_bool) != Some(true) {
            return Err(Detail::NotActive);
        }
        if answer.get("iss").is_some_and(|named| named.as_str() != Some(&issuer.issuer)) {
            return Err(Detail::UnknownIssuer);
        }
        let Value::Object(mut members) = answer else { return Err(Detail::Json) };
        // RFC 7662 leaves these to the server; the server's word that it is active stands in for them.
        let issue_unstated = !members.contains_key("iat");
        members.entry("iat").or_insert_with(|| self.now.as_secs().into());
        if !issuer.claims.token_id.is_empty() {
            let id = hex::encode(sha256(token.as_bytes()));
            members.entry(issuer.claims.token_id.clone()).or_insert_with(|| id.into());
        }
        let mut claims = claims::read(&members.into(), Some("at+jwt"), issuer, self.now, token)?;
        claims.identity.issue_unstated = issue_unstated;
        let until = self.now.plus(self.settings.life.get());
        let mut entry =
            TokenEntry::new(claims.identity, self.issuer, VerifiedWith::Introspection { until }, claims.not_before);
        entry.status = claims.status;
        entry.ends_at = until;
        Ok(Arc::new(entry))
    }
}
