//! Which administrative writes others are told of.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{
    admin::ports::DeviceChanges,
    clock::Clock,
    device::{Change, Devices, Witness},
    domain::{DeviceId, DeviceStatus, RevocationKind},
    pipeline::Pipeline,
    revocation::Revocations,
    session::End,
    signals::{About, By, News, Standing, Teller},
    store::StoreError,
};

/// Turns what was done into news, where there is somebody to hear it.
#[derive(Clone, Debug)]
pub(super) struct NewsDesk {
    teller: Option<Arc<Teller>>,
    /// These know us too, until the process ends.
    devices: Arc<Devices>,
    revocations: Arc<Revocations>,
    clock: Clock,
}

impl NewsDesk {
    pub(super) fn new(teller: Option<Arc<Teller>>, pipeline: &Pipeline) -> Self {
        let (devices, revocations) = (Arc::clone(&pipeline.devices), Arc::clone(&pipeline.revocations));
        Self { teller, devices, revocations, clock: pipeline.clock.clone() }
    }

    pub(super) async fn revoked(&self, kind: RevocationKind, id: &str, reason: &str) {
        let id = id.to_owned();
        let about = match kind {
            RevocationKind::Token => About::Token(id),
            RevocationKind::Session => About::Session(id, None),
            RevocationKind::Subject => About::Subject(id),
            RevocationKind::Device => About::Device(id, Standing::Out),
        };
        self.tell(about, By::Admin, reason).await;
    }

    /// Of what can be taken back, only a device has a standing that others keep.
    pub(super) async fn reinstated(&self, kind: RevocationKind, id: &str, reason: &str) {
        if kind == RevocationKind::Device {
            self.tell(About::Device(id.to_owned(), Standing::Back), By::Admin, reason).await;
        }
    }

    /// What was written of a device: its status says more than its compliance.
    pub(super) async fn device(&self, id: &str, changes: &DeviceChanges) {
        let set = |name: &str| changes.set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.as_str());
        let id = id.to_owned();
        let about = match (set("status"), set("compliant")) {
            (Some("suspended" | "revoked"), _) => About::Device(id, Standing::Out),
            (_, Some(compliant)) => About::Compliance(id, compliant == "true"),
            (Some(_), None) => About::Device(id, Standing::Back),
            (None, None) => return,
        };
        self.tell(about, By::Admin, set("status_reason").unwrap_or_default()).await;
    }

    /// Sessions that were ended here, by an operator or by a rule. Until nobody ends any.
    pub(super) async fn sessions(self, mut ends: mpsc::Receiver<End>) {
        while let Some(End { issuer, subject, id, why, by_operator }) = ends.recv().await {
            let user = (issuer.as_str().to_owned(), subject.as_str().to_owned());
            let about = About::Session(id.as_str().to_owned(), Some(user));
            let by = if by_operator { By::Admin } else { By::Policy };
            self.tell(about, by, why.as_ref()).await;
        }
    }

    async fn tell(&self, about: About, by: By, reason: &str) {
        let Some(teller) = &self.teller else { return };
        // Nobody is to trust a device on our word that is refused here.
        if let About::Device(id, Standing::Back) | About::Compliance(id, true) = &about {
            match self.is_good(id).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, device = id, "how a device stands cannot be read: nobody is told that it is compliant");
                    return;
                }
            }
        }
        teller.tell(&News { about, by, at: self.clock.now(), reason: reason.to_owned() }).await;
    }

    /// Whether a device is registered and active, nobody says that it is not compliant, and nothing revokes it.
    async fn is_good(&self, id: &str) -> Result<bool, StoreError> {
        let Some(record) = self.devices.get(&id.into()).await? else { return Ok(false) };
        let fine = record.status == DeviceStatus::Active && !record.is_not_compliant();
        Ok(fine && self.revocations.is_clear(RevocationKind::Device, id).await?)
    }
}

/// What the registry finds out by itself, or in bulk.
#[async_trait]
impl Witness for NewsDesk {
    async fn hear(&self, id: &DeviceId, change: Change, reason: &str) {
        let id = id.as_str().to_owned();
        let (about, by) = match change {
            Change::Judged(compliant) => (About::Compliance(id, compliant), By::Policy),
            Change::NotCompliant => (About::Compliance(id, false), By::Admin),
            Change::Out => (About::Device(id, Standing::Out), By::Admin),
        };
        self.tell(about, by, reason).await;
    }
}
