//! How many connections to the Check port there may be at a time, and how many there are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::server::SAY_EVERY;
use crate::domain::metric::{Page, Source};

/// The places of all connections.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    most: usize,
    open: AtomicUsize,
}

/// The place of an open connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(most)), most, open: AtomicUsize::new(0) })
    }

    /// A place for the next connection. Where none is free it waits, and says so. `said`: when that was last spoken of.
    pub(super) async fn reserve(&self, said: &mut Option<Instant>) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            tracing::warn!(
                max_connections = self.most,
                "the Check port has as many connections as it may have: others wait until one of them ends"
            );
            *said = Some(Instant::now());
        }
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// A connection has come to its place.
    pub(super) fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        Place { places: Arc::clone(self), _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Source for Places {
    fn collect(&self, page: &mut Page) {
        let open = self.open.load(Ordering::Relaxed) as f64;
        page.gauge("countersign_connections", "Connections to the Check port that are open", &[], open);
        let most = self.most as f64;
        page.gauge("countersign_connection_limit", "Connections to the Check port that may be open", &[], most);
    }
}
