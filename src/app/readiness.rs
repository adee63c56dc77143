//! What must hold before requests are sent here: the one list, for probes, for Envoy and for the admin API.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{ops::Check, pipeline::Pipeline};

/// How often a start looks whether it has what it needs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Lacks = fn(&Pipeline) -> Option<&'static str>;

/// By name; each says what is lacking.
const NEEDED: [(&str, Lacks); 3] = [
    ("keys", |parts| (!parts.authenticator.ready()).then_some("the keys of an issuer have not been had yet")),
    ("store", |parts| parts.revocations.not_ready()),
    ("assertion", |parts| parts.assertions.not_ready()),
];

#[derive(Clone, Debug)]
pub(super) struct Readiness {
    pipeline: Arc<Pipeline>,
    /// Cancelled when draining begins: from then on we are not ready.
    stop: CancellationToken,
}

impl Readiness {
    pub(super) fn new(pipeline: &Arc<Pipeline>, stop: &CancellationToken) -> Self {
        Self { pipeline: Arc::clone(pipeline), stop: stop.clone() }
    }

    pub(super) fn checks(&self) -> Vec<(&'static str, Check)> {
        let stop = self.stop.clone();
        let draining: Check = Box::new(move || if stop.is_cancelled() { Err(DRAINING.to_owned()) } else { Ok(()) });
        let needed = NEEDED.iter().map(|(name, lacks)| {
            let parts = Arc::clone(&self.pipeline);
            let check: Check = Box::new(move || lacks(&parts).map_or(Ok(()), |lacking| Err(lacking.to_owned())));
            (*name, check)
        });
        [("draining", draining)].into_iter().chain(needed).collect()
    }

    /// In words; empty: nothing is.
    pub(super) fn missing(&self) -> Vec<String> {
        let draining = self.stop.is_cancelled().then_some(DRAINING);
        draining.into_iter().chain(self.lacking()).map(str::to_owned).collect()
    }

    /// Resolves when all that is needed has been had once, and says what of it we begin without. Health over gRPC stays with
    /// that: a replica that Envoy looks away from for what all of them lack answers nobody.
    pub(super) async fn had_once(self) {
        while self.lacking().next().is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        for issuer in self.pipeline.authenticator.without_keys() {
            tracing::warn!(
                issuer,
                "ready without the keys of this issuer: its tokens are answered 503 until they are had"
            );
        }
    }

    fn lacking(&self) -> impl Iterator<Item = &'static str> {
        NEEDED.iter().filter_map(|(_, lacks)| lacks(&self.pipeline))
    }
}

/// What a replica is worse for, though ready.
pub(super) fn wanting(pipeline: &Pipeline) -> Vec<String> {
    let issuers = pipeline.authenticator.without_keys();
    let keys = issuers.map(|issuer| format!("no keys of {issuer} yet: its tokens are answered 503"));
    let full = pipeline.revocations.is_full().then(|| FULL.to_owned());
    keys.chain(full).collect()
}

const FULL: &str = "memory for revocations is full (`revocation.max_entries`): each check asks the store";
const DRAINING: &str = "this process is about to stop";
