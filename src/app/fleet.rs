//! The registry of devices and its enrolment, put together.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    clock::Clock,
    device::{
        Certificates, Devices, Settings,
        enroll::{Authority, Enrollment},
    },
    store::Store,
};

type Fleet = (Arc<Devices>, Option<Arc<Enrollment>>);

/// Our own authority is one of those that device certificates may come from.
pub(super) fn start(
    settings: &Settings,
    store: &Arc<dyn Store>,
    clock: &Clock,
    background: &CancellationToken,
) -> Result<Fleet, Error> {
    let enrollment = &settings.enrollment;
    let authority = enrollment.enabled.then(|| Authority::open(enrollment, &settings.trust_domain, clock.now()));
    let authority = authority.transpose()?;
    let own = authority.as_ref().map(Authority::der);
    let certificates = Certificates::new(&settings.authorities, own, Some(&settings.trust_domain))?;
    let devices = Devices::start(Arc::clone(store), settings, certificates, clock.clone(), background.clone());
    let enrollment = authority.map(|authority| {
        let (registry, store) = (Arc::clone(&devices), Arc::clone(store));
        Arc::new(Enrollment::new(registry, store, authority, enrollment.clone(), clock.clone()))
    });
    Ok((devices, enrollment))
}
