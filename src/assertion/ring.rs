//! The keys of all replicas: one for each period of time, made by whichever replica needs it first.
//!
//! Periods are counted from the epoch, so that replicas agree on them without talking. The store's "create where there is
//! none" decides whose key a period has. At any time the period before, this one and the next are published: an upstream that
//! fetched the key set within a period knows every key it can meet. A store that is away costs nothing until a period
//! ends that nobody could prepare; then the last key goes on signing, and stays published.
//!
//! A key that cannot be opened, since it was sealed with a secret that is not known here, belongs to others: beside it stands
//! ours, under a name that says which secret. So a secret that was just set, changed or taken away stops nobody. A replica
//! that knows several secrets looks at the places of all of them before it makes a key, and publishes all that it finds.
//!
//! A key that lost its place (the store was emptied, and somebody who did not know it was quicker) is put beside the one
//! that won, so that all replicas publish what it has signed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{Algorithm, Settings, key::Key, vault::Vault};
use crate::{
    domain::UnixTime,
    store::{Entry, Store, StoreError, StoreErrorKind, keys},
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
    /// Keys that another replaced in the store (it was emptied meanwhile), and those of other secrets: not signed with here,
    /// published until their time is over.
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

    /// Brings the ring the keys of this period and the next, as the store has them; makes those it has not. The one before it
    /// has where the store has it: others signed with it a moment ago. What was had before a failure stays in it.
    pub(super) async fn refresh(&self, ring: &mut Ring, now: UnixTime) -> Result<(), Error> {
        let period = self.period_at(now);
        for wanted in [period, period + 1] {
            self.look_after(ring, wanted).await?;
        }
        let oldest = period.saturating_sub(1);
        if !ring.keys.contains_key(&oldest) {
            self.recall(ring, oldest).await?;
        }
        ring.keys.retain(|period, _| *period >= oldest);
        ring.replaced.retain(|(period, _)| *period >= oldest);
        Ok(())
    }

    /// Where the keys of a period may stand, that of any secret first.
    fn places(&self, period: u64) -> Vec<String> {
        let name = keys::assertion_key(self.algorithm.as_str(), period);
        let beside: Vec<_> = self.vault.marks().map(|mark| format!("{name}:{mark}")).collect();
        std::iter::once(name).chain(beside).collect()
    }

    async fn recall(&self, ring: &mut Ring, period: u64) -> Result<(), Error> {
        let mut found: Vec<_> = self.look(&self.places(period)).await?.into_iter().filter_map(Found::key).collect();
        if !found.is_empty() {
            let key = found.remove(0);
            ring.publish(period, &key, found);
            ring.keys.insert(period, key);
        }
        Ok(())
    }

    async fn look_after(&self, ring: &mut Ring, period: u64) -> Result<(), Error> {
        let places = self.places(period);
        let known = ring.keys.get(&period).cloned();
        let (foreign, mut found) = self.obtain(&places, known.as_ref()).await?;
        let key = found.remove(0);
        if foreign && known.as_ref().is_none_or(|known| known.kid != key.kid) {
            tracing::warn!(
                key = places[0],
                "this key was sealed with a secret that is not known here: another of ours stands beside it. Replicas with \
                 different secrets do not publish each other's keys"
            );
        }
        ring.keys.insert(period, Arc::clone(&key));
        // Another's key may be signed with where ours is not the first that is looked at: it is published as well.
        let mut seen: Vec<_> = found.iter().map(|other| other.kid.clone()).collect();
        found.extend(known);
        ring.publish(period, &key, found);

        let lost: Vec<_> = places[1..].iter().map(|place| format!("{place}:replaced")).collect();
        let held = self.look(&lost).await?;
        let free = matches!(held.first(), Some(Found::Nothing));
        let told: Vec<_> = held.into_iter().filter_map(Found::key).collect();
        seen.extend(told.iter().map(|other| other.kid.clone()));
        ring.publish(period, &key, told);
        let untold = ring.replaced.iter().rev().find(|(of, other)| *of == period && !seen.contains(&other.kid));
        if let Some((_, other)) = untold.filter(|_| free) {
            self.put(&lost[0], other).await?;
        }
        Ok(())
    }

    /// The keys that stand at `places`, the one to sign with first; where there is none, the one we know, or a new one, is
    /// put there. Says also whether the first place holds what cannot be opened here.
    async fn obtain(&self, places: &[String], known: Option<&Arc<Key>>) -> Result<(bool, Vec<Arc<Key>>), Error> {
        let mut made = known.cloned();
        // Others may be quicker than we at one place, then at the next.
        for _ in 0..=places.len() {
            let found = self.look(places).await?;
            let foreign = matches!(found[0], Found::Foreign);
            let free = found.iter().take(2).position(|found| matches!(found, Found::Nothing));
            let keys: Vec<_> = found.into_iter().filter_map(Found::key).collect();
            if !keys.is_empty() {
                return Ok((foreign, keys));
            }
            // In the first place, else in that of our own secret.
            let place = free.and_then(|free| places.get(free)).ok_or(Error::Sealed)?;
            let key = match made {
                Some(key) => key,
                None => Arc::new(self.generate().await?),
            };
            if self.put(place, &key).await? {
                return Ok((foreign, vec![key]));
            }
            made = Some(key);
        }
        Err(Error::Sealed)
    }

    /// What stands at `names`, in their order.
    async fn look(&self, names: &[String]) -> Result<Vec<Found>, Error> {
        let held = self.store.read(names).await?;
        names.iter().zip(held).map(|(name, held)| self.opened(name, held)).collect()
    }

    fn opened(&self, name: &str, held: Entry) -> Result<Found, Error> {
        let held = match held {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(Found::Nothing),
            Err(error) if error.kind == StoreErrorKind::Malformed => return Ok(Found::Foreign),
            Err(error) => return Err(error.into()),
        };
        let Some(pkcs8) = self.vault.open(name, &held.value) else { return Ok(Found::Foreign) };
        let key = Key::from_pkcs8(self.algorithm, self.typ, &pkcs8);
        Ok(key.map_or(Found::Foreign, |key| Found::Key(Arc::new(key))))
    }

    /// Says whether there was nothing before.
    async fn put(&self, name: &str, key: &Key) -> Result<bool, Error> {
        let pkcs8 = key.to_pkcs8().map_err(|_| Error::Crypto)?;
        let value = self.vault.close(name, &pkcs8).ok_or(Error::Crypto)?;
        Ok(self.store.create(name, &value, Some(4 * self.period)).await?)
    }

    /// An RSA key takes its time: not on a thread that others wait for.
    async fn generate(&self) -> Result<Key, Error> {
        let (algorithm, typ) = (self.algorithm, self.typ);
        let made = tokio::task::spawn_blocking(move || Key::generate(algorithm, typ)).await;
        made.map_err(|_| Error::Crypto)?.map_err(|_| Error::Crypto)
    }
}

/// What stands at one name in the store.
enum Found {
    Nothing,
    /// What cannot be opened here.
    Foreign,
    Key(Arc<Key>),
}

impl Found {
    fn key(self) -> Option<Arc<Key>> {
        match self {
            Self::Key(key) => Some(key),
            Self::Nothing | Self::Foreign => None,
        }
    }
}

impl Error {
    /// Whether trying again may help.
    pub(super) const fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

impl Ring {
    /// The key to sign with: this period's, else the newest before it.
    pub(super) fn signing(&self, period: u64) -> Option<&Arc<Key>> {
        self.keys.range(..=period).next_back().map(|(_, key)| key)
    }

    /// `others` are published beside `key`, which is signed with.
    fn publish(&mut self, period: u64, key: &Key, others: Vec<Arc<Key>>) {
        for other in others {
            if !self.replaced.iter().any(|(_, there)| there.kid == other.kid) {
                self.replaced.push((period, other));
            }
        }
        self.replaced.retain(|(_, there)| there.kid != key.kid);
    }

    /// What upstreams verify with (RFC 7517).
    pub(super) fn jwks(&self) -> Value {
        let replaced = self.replaced.iter().map(|(_, key)| key);
        let keys: Vec<&Value> = self.keys.values().chain(replaced).map(|key| key.jwk()).collect();
        json!({ "keys": keys })
    }
}
