//! Keeps an eye on what of the store could lose revocations: asked as soon as the store answers, and again and again, since
//! settings of a server are changed while it runs and a failover brings another one.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Store;
use crate::domain::metric::{Page, Source};

/// Until a store that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// What there is to warn of. Each warning is logged when it first applies.
#[derive(Debug, Default)]
pub struct Watch {
    standing: Mutex<Vec<String>>,
}

impl Watch {
    /// How often it is worth asking.
    pub const EVERY: Duration = Duration::from_secs(60);

    /// Asks until `stop`. Never waits for the store here: a start must not.
    pub fn start(store: Arc<dyn Store>, every: Duration, stop: CancellationToken) -> Arc<Self> {
        let watch = Arc::new(Self::default());
        let kept = Arc::clone(&watch);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = kept.keep(&*store, every) => {}
            }
        });
        watch
    }

    async fn keep(&self, store: &dyn Store, every: Duration) {
        loop {
            let Ok(found) = store.warnings().await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let told = std::mem::replace(&mut *self.standing.lock(), found.clone());
            for warning in found.iter().filter(|warning| !told.contains(warning)) {
                tracing::warn!("store: {warning}");
            }
            tokio::time::sleep(every).await;
        }
    }

    /// How many warnings stand.
    pub fn standing(&self) -> f64 {
        self.standing.lock().len() as f64
    }

    /// Those that stand, in words.
    pub fn warnings(&self) -> Vec<String> {
        self.standing.lock().clone()
    }
}

impl Source for Watch {
    fn collect(&self, page: &mut Page) {
        let help = "What of the store could lose revocations, settings or a full disk; the log says which";
        page.gauge("countersign_store_warnings", help, &[], self.standing());
    }
}
