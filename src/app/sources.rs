//! What the operations port shows of the parts: numbers, readiness, a status page.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::status;
use crate::{
    config::reload,
    device::enroll::Enrollment,
    domain::metric::Source,
    ops::Sources,
    pipeline::Pipeline,
    signals::{Signals, Teller},
};

/// How often a start looks whether it has what it needs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `stop` is cancelled when draining begins: from then on we are not ready.
pub(super) fn sources(
    pipeline: &Arc<Pipeline>,
    signals: &Arc<Signals>,
    enrollment: Option<&Arc<Enrollment>>,
    reloads: &Arc<reload::Counters>,
    stop: &CancellationToken,
) -> Sources {
    let mut sources = Sources { metrics: metrics(pipeline, signals, reloads), ..Sources::default() };
    sources.metrics.extend(enrollment.map(|enrollment| Arc::clone(enrollment) as Arc<dyn Source>));
    let draining = stop.clone();
    sources.ready.push((
        "draining",
        Box::new(move || if draining.is_cancelled() { Err("this process is about to stop".into()) } else { Ok(()) }),
    ));
    let parts = Arc::clone(pipeline);
    sources.ready.push((
        "keys",
        Box::new(move || needed(parts.authenticator.ready(), "the keys of an issuer have not been had yet")),
    ));
    let parts = Arc::clone(pipeline);
    sources.ready.push((
        "store",
        Box::new(move || parts.revocations.not_ready().map_or(Ok(()), |missing| Err(missing.to_owned()))),
    ));
    let parts = Arc::clone(pipeline);
    sources.ready.push((
        "assertion",
        Box::new(move || parts.assertions.not_ready().map_or(Ok(()), |missing| Err(missing.to_owned()))),
    ));

    let parts = Arc::clone(pipeline);
    sources.keys = Some(Box::new(move || parts.assertions.jwks()));

    status::fill(&mut sources, pipeline);
    sources
}

/// Resolves when all that readiness asks for has been had once. Health over gRPC stays with that: a replica that Envoy looks
/// away from for what all of them lack answers nobody.
pub(super) async fn ready(pipeline: &Pipeline) {
    while !pipeline.authenticator.ready()
        || pipeline.revocations.not_ready().is_some()
        || pipeline.assertions.not_ready().is_some()
    {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What telling others counts, and the keys they verify with beside those of assertions.
pub(super) fn of_teller(sources: &mut Sources, teller: Option<&Arc<Teller>>, pipeline: &Arc<Pipeline>) {
    let Some(teller) = teller.cloned() else { return };
    sources.metrics.push(Arc::clone(&teller) as Arc<dyn Source>);
    let parts = Arc::clone(pipeline);
    sources.keys = Some(Box::new(move || {
        let sets = [parts.assertions.jwks(), teller.jwks()];
        let keys: Vec<_> = sets.iter().filter_map(|set| set["keys"].as_array()).flatten().collect();
        json!({ "keys": keys })
    }));
}

fn needed(there: bool, missing: &str) -> Result<(), String> {
    if there { Ok(()) } else { Err(missing.to_owned()) }
}

fn metrics(pipeline: &Arc<Pipeline>, signals: &Arc<Signals>, reloads: &Arc<reload::Counters>) -> Vec<Arc<dyn Source>> {
    vec![
        Arc::clone(pipeline) as Arc<dyn Source>,
        Arc::clone(&pipeline.authenticator) as Arc<dyn Source>,
        Arc::clone(&pipeline.revocations) as Arc<dyn Source>,
        Arc::clone(&pipeline.locator) as Arc<dyn Source>,
        Arc::clone(&pipeline.assertions) as Arc<dyn Source>,
        Arc::clone(&pipeline.auditor) as Arc<dyn Source>,
        Arc::clone(&pipeline.tracer) as Arc<dyn Source>,
        Arc::clone(signals) as Arc<dyn Source>,
        Arc::clone(reloads) as Arc<dyn Source>,
    ]
}
