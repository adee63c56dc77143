//! Security events, put together: what those of others change and whose subjects they may name, and who hears of ours.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    assertion::{Algorithm, SharedKeys},
    config::Config,
    pipeline::Pipeline,
    signals::{self, Signals, Teller},
    store::Store,
};

pub(super) fn start(
    config: &Config,
    pipeline: &Pipeline,
    store: Arc<dyn Store>,
    background: &CancellationToken,
) -> Arc<Signals> {
    let parts = signals::Parts {
        store,
        revocations: Arc::clone(&pipeline.revocations),
        devices: Arc::clone(&pipeline.devices),
        notices: Arc::clone(&pipeline.notices),
        auditor: Arc::clone(&pipeline.auditor),
        clock: pipeline.clock.clone(),
    };
    let (settings, counters) = (config.signals.clone(), pipeline.authenticator.counters());
    Signals::start(settings, &config.identity.key_sets, issuers(config), parts, counters, background)
}

/// Who tells others; `None` where nobody is to be told. Its keys are sealed and changed as those of assertions are.
pub(super) fn teller(
    config: &Config,
    pipeline: &Pipeline,
    store: Arc<dyn Store>,
    background: &CancellationToken,
) -> Result<Option<Arc<Teller>>, Error> {
    let keys = SharedKeys::new(Arc::clone(&store), &config.assertion, Algorithm::RS256, signals::TYPE)?;
    let (auditor, clock) = (Arc::clone(&pipeline.auditor), pipeline.clock.clone());
    let means = signals::Means { store, auditor, clock, keys };
    Ok(Teller::start(&config.signals, &config.identity.key_sets, issuers(config), means, background))
}

fn issuers(config: &Config) -> Vec<String> {
    config.identity.issuers.iter().map(|known| known.issuer.clone()).collect()
}
