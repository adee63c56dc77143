//! What the operations port shows of the parts: numbers, readiness, a status page.

use std::sync::Arc;

use serde_json::json;

use super::{
    readiness::{self, Readiness},
    status,
};
use crate::{
    config::reload,
    device::enroll::Enrollment,
    domain::metric::Source,
    ops::Sources,
    pipeline::Pipeline,
    signals::{Signals, Teller},
};

pub(super) fn sources(
    pipeline: &Arc<Pipeline>,
    signals: &Arc<Signals>,
    enrollment: Option<&Arc<Enrollment>>,
    reloads: &Arc<reload::Counters>,
    readiness: &Readiness,
) -> Sources {
    let mut sources = Sources { metrics: metrics(pipeline, signals, reloads), ..Sources::default() };
    sources.metrics.extend(enrollment.map(|enrollment| Arc::clone(enrollment) as Arc<dyn Source>));
    sources.ready = readiness.checks();
    let parts = Arc::clone(pipeline);
    sources.wanting = Some(Box::new(move || readiness::wanting(&parts)));
    let parts = Arc::clone(pipeline);
    sources.keys = Some(Box::new(move || parts.assertions.jwks()));

    status::fill(&mut sources, pipeline);
    sources
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
