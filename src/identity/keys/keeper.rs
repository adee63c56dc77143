//! The task that fetches one issuer's keys: from where, how often, and what of a failure is told.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use url::Url;

use super::Keys;
use crate::{
    clock::Clock,
    identity::{
        counters::Counters,
        fetch::{FetchProblem, Fetched, Fetcher, read_file},
        jwk::KeyProblem,
        key_set::{Ignored, KeySet},
        settings::{IssuerSettings, KeyPlace, KeySetSettings, fetchable},
    },
};

/// How often a key file is looked at.
const FILE_POLL: Duration = Duration::from_secs(1);

/// What one fetch brought.
struct Outcome {
    set: KeySet,
    max_age: Option<Duration>,
}

/// What a keeper remembers of its fetches.
#[derive(Default)]
struct Past {
    /// In a row, up to the last.
    failures: u32,
    /// Of the last document that was a key set.
    ignored: Vec<Ignored>,
}

/// Where an issuer says where its keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity) enum Discovery {
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
pub(in crate::identity) struct Keeper {
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
    pub(in crate::identity) async fn run(self, cancelled: CancellationToken) {
        let mut past = Past::default();
        loop {
            self.keys.begins();
            let fetched = tokio::select! {
                fetched = self.fetch() => fetched,
                () = cancelled.cancelled() => return,
            };
            let pause = self.conclude(fetched, &mut past);
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
    fn conclude(&self, fetched: Result<Outcome, FetchProblem>, past: &mut Past) -> Duration {
        let issuer = self.issuer.issuer.as_str();
        let fetched = fetched.and_then(|outcome| self.looked_at(outcome, &mut past.ignored));
        let failures = &mut past.failures;
        *self.keys.failure.lock() = fetched.as_ref().err().map(ToString::to_string);
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
                        "its tokens cannot be verified until there is one"
                    };
                    tracing::warn!(issuer, "key set cannot be had: {problem}; {keeps}");
                }
                *failures = failures.saturating_add(1);
                self.back_off(*failures)
            }
        }
    }

    /// Tells of members that are left aside, once while they stay so: also where the rest does not change, or is not there. What
    /// has been published whole is nobody's key any more, whatever becomes of the others.
    fn looked_at(&self, mut outcome: Outcome, known: &mut Vec<Ignored>) -> Result<Outcome, FetchProblem> {
        let issuer = self.issuer.issuer.as_str();
        let ignored = std::mem::take(&mut outcome.set.ignored);
        for (kid, problem) in ignored.iter().filter(|ignored| !known.contains(ignored)) {
            let kid = kid.as_deref().unwrap_or_default();
            if problem.is_alarming() {
                self.counters.alarming_keys.increment();
                tracing::warn!(issuer, kid, "key ignored: {problem}");
            } else {
                tracing::debug!(issuer, kid, "key ignored: {problem}");
            }
        }
        *known = ignored;
        let private = known.iter().filter(|(_, problem)| *problem == KeyProblem::Private);
        let private: Vec<_> = private.filter_map(|(kid, _)| kid.as_deref()).collect();
        self.keys.drop_keys(&private);
        Ok(Outcome { set: outcome.set.without(&private).usable()?, ..outcome })
    }

    fn take_over(&self, set: KeySet) {
        let keys = set.len();
        if self.keys.take(set, self.clock.now()) {
            tracing::info!(issuer = self.issuer.issuer, keys, "key set in use");
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
