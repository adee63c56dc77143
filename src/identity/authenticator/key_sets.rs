//! How the keys of the issuers stand: whether a replica is ready, and what operators are told.

use std::time::Duration;

use super::Authenticator;
use crate::{domain::UnixTime, identity::issuer::IssuerState};

/// How long a new replica waits for the keys of every issuer. After it, one issuer that cannot be reached keeps no replica out
/// that can answer for the others.
const ALL_KEYS: Duration = Duration::from_secs(60);

/// How the keys of one issuer stand.
#[derive(Clone, Debug)]
pub struct KeySetState {
    pub issuer: String,
    /// How many keys can be used.
    pub keys: usize,
    /// When they were last known to be the issuer's; `None`: none have been had.
    pub confirmed: Option<UnixTime>,
    /// Why the last fetch brought none.
    pub failure: Option<String>,
}

impl Authenticator {
    /// Whether the keys of every issuer have been had once; a minute after the start, whether all were asked for and there is
    /// an issuer whose tokens can be judged.
    pub fn ready(&self) -> bool {
        if self.without_keys().next().is_none() {
            return true;
        }
        let waited = self.clock.instant().saturating_duration_since(self.started);
        let asked = |issuer: &IssuerState| !issuer.has_keys() || issuer.keys.ever_tried();
        waited >= ALL_KEYS
            && self.issuers.iter().all(asked)
            && self.issuers.iter().any(|issuer| !issuer.has_keys() || issuer.keys.ever_known())
    }

    /// Issuers whose keys have not been had yet: each of their tokens is answered 503.
    pub fn without_keys(&self) -> impl Iterator<Item = &str> {
        let without = self.issuers.iter().filter(|issuer| issuer.has_keys() && !issuer.keys.ever_known());
        without.map(|issuer| issuer.settings.issuer.as_str())
    }

    /// Of each issuer that signs its tokens.
    pub fn key_sets(&self) -> Vec<KeySetState> {
        let signing = self.issuers.iter().filter(|issuer| issuer.has_keys());
        let state = |IssuerState { settings, keys, .. }: &IssuerState| KeySetState {
            issuer: settings.issuer.clone(),
            keys: keys.key_count(),
            confirmed: keys.confirmed(),
            failure: keys.failure(),
        };
        signing.map(state).collect()
    }
}
