//! Signing keys that all replicas share through the store, and publish: for assertions, and for what else is signed for others.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Algorithm, Error, Settings,
    ring::{self, Keeper, Ring},
};
use crate::{
    clock::Clock,
    domain::UnixTime,
    store::{Backoff, Store},
};

/// How often keys are looked after: a store that was emptied is noticed by that, and what others have put there since.
const REFRESH: Duration = Duration::from_secs(5);

/// After how many failures in a row something is said. At a start the first ones mean only that there is no connection yet.
const PATIENCE: u32 = 4;

/// One line of keys: of one algorithm, for tokens of one type.
pub struct SharedKeys {
    keeper: Keeper,
    ring: ArcSwap<Ring>,
    /// In a row.
    failures: AtomicU32,
    /// See [`SharedKeys::is_settled`].
    settled: AtomicBool,
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
        Ok(Self { keeper, ring: ArcSwap::default(), failures: AtomicU32::new(0), settled: AtomicBool::new(false) })
    }

    /// Obtains keys and looks after them until cancelled; soon again where that fails. `told` hears each time how it went.
    pub async fn keep(&self, clock: &Clock, cancel: &CancellationToken, mut told: impl FnMut(bool)) {
        let mut backoff = Backoff::default();
        loop {
            let refreshed = self.refresh(clock.now()).await;
            told(refreshed);
            let pause = if refreshed { REFRESH } else { backoff.failed() };
            if refreshed {
                backoff.worked();
            }
            if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Obtains this period's key and the next. False where that failed: what was there stays.
    pub async fn refresh(&self, now: UnixTime) -> bool {
        let mut ring = Ring::clone(&self.ring.load());
        let refreshed = self.keeper.refresh(&mut ring, now).await;
        self.ring.store(Arc::new(ring));
        let failures = match &refreshed {
            Ok(()) => self.failures.swap(0, Ordering::Relaxed),
            Err(_) => self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1),
        };
        match &refreshed {
            Ok(()) if failures >= PATIENCE => tracing::info!("signing keys are looked after again"),
            Err(error) if failures == PATIENCE => tracing::warn!(%error, "signing keys cannot be looked after"),
            _ => {}
        }
        let in_vain = |error: &ring::Error| failures >= PATIENCE && !error.is_transient();
        if self.is_ready(now) || refreshed.as_ref().is_err_and(in_vain) {
            self.settled.store(true, Ordering::Release);
        }
        refreshed.is_ok()
    }

    /// Whether there was a key to sign with once, or the store answers and gives none: that is so for every replica, and
    /// waiting would not help.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
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
