//! Signing keys that all replicas share through the store, and publish: for assertions, and for what else is signed for others.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use serde_json::Value;

use super::{
    Algorithm, Error, Settings,
    ring::{Keeper, Ring},
};
use crate::{domain::UnixTime, store::Store};

/// One line of keys: of one algorithm, for tokens of one type.
pub struct SharedKeys {
    keeper: Keeper,
    ring: ArcSwap<Ring>,
}

impl SharedKeys {
    /// Keys of `algorithm` for tokens whose header says `typ`; how often they change and what seals them in the store, the
    /// settings say. Nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// Where the secret cannot be made a key of.
    pub fn new(
        store: Arc<dyn Store>,
        settings: &Settings,
        algorithm: Algorithm,
        typ: &'static str,
    ) -> Result<Self, Error> {
        let keeper = Keeper::new(store, settings, algorithm, typ).map_err(|_| Error)?;
        Ok(Self { keeper, ring: ArcSwap::default() })
    }

    /// Obtains this period's key and the next. False where that failed: what was there stays.
    pub async fn refresh(&self, now: UnixTime) -> bool {
        match self.keeper.refresh(&self.ring.load(), now).await {
            Ok(ring) => {
                self.ring.store(Arc::new(ring));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "signing keys cannot be looked after");
                false
            }
        }
    }

    /// Whether there is a key to sign with.
    pub fn is_ready(&self, now: UnixTime) -> bool {
        self.ring.load().signing(self.keeper.period_at(now)).is_some()
    }

    /// A compact JWS over `claims`. `None`: there is no key yet.
    pub fn sign(&self, claims: &[u8], now: UnixTime) -> Option<String> {
        self.ring.load().signing(self.keeper.period_at(now))?.sign(claims).ok()
    }

    /// What to verify with (RFC 7517), the same on every replica.
    pub fn jwks(&self) -> Value {
        self.ring.load().jwks()
    }
}

impl fmt::Debug for SharedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedKeys").field(&*self.ring.load()).finish()
    }
}
