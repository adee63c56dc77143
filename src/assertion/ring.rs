//! The keys of all replicas: one for each period of time, made by whichever replica needs it first.
//!
//! Periods are counted from the epoch, so that replicas agree on them without talking. The store's "create where there is
//! none" decides whose key a period has. At any time the period before, this one and the next are published: an upstream that
//! fetched the key set within a period knows every key it can meet. A store that is away costs nothing until a period
//! ends that nobody could prepare; then the last key goes on signing, and stays published.
//!
//! A key that cannot be opened, since it was sealed with a secret that is not known here, belongs to others: beside it stands
//! ours, under a name that says which secret. So a secret that was just set, changed or taken away stops nobody.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{Algorithm, Settings, key::Key, vault::Vault};
use crate::{
    domain::UnixTime,
    store::{Store, StoreError, keys},
};

pub(super) struct Keeper {
    store: Arc<dyn Store>,
    vault: Vault,
    algorithm: Algorithm,
    /// The header parameter of what is signed.
    typ: &'static str,
    period: Duration,
}

/// Keys by period. Swapped whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    keys: BTreeMap<u64, Arc<Key>>,
    /// Keys that another replaced in the store (it was emptied meanwhile): no longer signed with, published until their time is over.
    replaced: Vec<(u64, Arc<Key>)>,
}

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the key in the store cannot be opened: another `assertion.secret`, or somebody else's value")]
    Sealed,
    #[error("the cryptographic library refused")]
    Crypto,
}

impl Keeper {
    pub(super) fn new(
        store: Arc<dyn Store>,
        settings: &Settings,
        algorithm: Algorithm,
        typ: &'static str,
    ) -> Result<Self, Error> {
        let vault = Vault::new(settings.secret.as_ref(), &settings.other_secrets).map_err(|_| Error::Crypto)?;
        Ok(Self { store, vault, algorithm, typ, period: settings.rotation.get() })
    }

    pub(super) fn period_at(&self, now: UnixTime) -> u64 {
        let period = u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX).max(1);
        now.as_millis() / period
    }

    /// A ring with the keys of this period and the next, as the store has them; makes those it has not.
    pub(super) async fn refresh(&self, ring: &Ring, now: UnixTime) -> Result<Ring, Error> {
        let period = self.period_at(now);
        let mut next = ring.clone();
        for wanted in [period, period + 1] {
            let key = self.obtain(wanted, ring.keys.get(&wanted)).await?;
            if let Some(before) = next.keys.insert(wanted, Arc::clone(&key))
                && before.kid != key.kid
            {
                next.replaced.push((wanted, before));
            }
        }
        let oldest = period.saturating_sub(1);
        next.keys.retain(|period, _| *period >= oldest);
        next.replaced.retain(|(period, _)| *period >= oldest);
        Ok(next)
    }

    /// The store's key of a period; the one we know, or a new one, where it has none.
    async fn obtain(&self, period: u64, known: Option<&Arc<Key>>) -> Result<Arc<Key>, Error> {
        let name = keys::assertion_key(self.algorithm.as_str(), period);
        let obtained = self.obtain_at(&name, known).await;
        if !matches!(obtained, Err(Error::Sealed)) {
            return obtained;
        }
        let own = self.obtain_at(&format!("{name}:{}", self.vault.mark()), known).await?;
        if known.is_none_or(|known| known.kid != own.kid) {
            tracing::warn!(
                key = name,
                "this key was sealed with a secret that is not known here: another of ours stands beside it. Replicas with \
                 different secrets do not publish each other's keys"
            );
        }
        Ok(own)
    }

    async fn obtain_at(&self, name: &str, known: Option<&Arc<Key>>) -> Result<Arc<Key>, Error> {
        if let Some(key) = self.read(name, known).await? {
            return Ok(key);
        }
        let key = match known {
            Some(known) => Arc::clone(known),
            None => Arc::new(self.generate().await?),
        };
        let pkcs8 = key.to_pkcs8().map_err(|_| Error::Crypto)?;
        let value = self.vault.close(name, &pkcs8).ok_or(Error::Crypto)?;
        if self.store.create(name, &value, Some(4 * self.period)).await? {
            return Ok(key);
        }
        // Another replica was quicker.
        self.read(name, None).await?.ok_or(Error::Sealed)
    }

    /// An RSA key takes its time: not on a thread that others wait for.
    async fn generate(&self) -> Result<Key, Error> {
        let (algorithm, typ) = (self.algorithm, self.typ);
        let made = tokio::task::spawn_blocking(move || Key::generate(algorithm, typ)).await;
        made.map_err(|_| Error::Crypto)?.map_err(|_| Error::Crypto)
    }

    async fn read(&self, name: &str, known: Option<&Arc<Key>>) -> Result<Option<Arc<Key>>, Error> {
        let mut values = self.store.read(&[name.to_owned()]).await?;
        let Some(held) = values.pop().transpose()?.flatten() else { return Ok(None) };
        let pkcs8 = self.vault.open(name, &held.value).ok_or(Error::Sealed)?;
        let key = Key::from_pkcs8(self.algorithm, self.typ, &pkcs8).map_err(|_| Error::Sealed)?;
        Ok(Some(known.filter(|known| known.kid == key.kid).map_or_else(|| Arc::new(key), Arc::clone)))
    }
}

impl Ring {
    /// The key to sign with: this period's, else the newest before it.
    pub(super) fn signing(&self, period: u64) -> Option<&Arc<Key>> {
        self.keys.range(..=period).next_back().map(|(_, key)| key)
    }

    /// What upstreams verify with (RFC 7517).
    pub(super) fn jwks(&self) -> Value {
        let replaced = self.replaced.iter().map(|(_, key)| key);
        let keys: Vec<&Value> = self.keys.values().chain(replaced).map(|key| key.jwk()).collect();
        json!({ "keys": keys })
    }
}
