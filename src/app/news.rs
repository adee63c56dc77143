//! Which administrative writes others are told of.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    clock::Clock,
    device::{Change, Devices, Witness},
    domain::{DeviceId, RevocationKind},
    pipeline::Pipeline,
    revocation::Revocations,
    session::End,
    signals::{About, By, News, Standing, Teller},
    store::{StoreError, StoreErrorKind},
};

/// News that wait for the store at the same time, and how often and after what pause each asks again.
const WAITING: usize = 1000;
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// Turns what was done into news, where there is somebody to hear it.
#[derive(Clone, Debug)]
pub(super) struct NewsDesk {
    teller: Option<Arc<Teller>>,
    /// These know us too, until the process ends.
    devices: Arc<Devices>,
    revocations: Arc<Revocations>,
    clock: Clock,
    waiting: Arc<Semaphore>,
}

impl NewsDesk {
    pub(super) fn new(teller: Option<Arc<Teller>>, pipeline: &Pipeline) -> Self {
        let (devices, revocations) = (Arc::clone(&pipeline.devices), Arc::clone(&pipeline.revocations));
        let waiting = Arc::new(Semaphore::new(WAITING));
        Self { teller, devices, revocations, clock: pipeline.clock.clone(), waiting }
    }

    pub(super) async fn revoked(&self, kind: RevocationKind, id: &str, reason: &str) {
        let id = id.to_owned();
        let about = match kind {
            RevocationKind::Token => About::Token(id),
            RevocationKind::Session => About::Session(id, None),
            RevocationKind::Subject => About::Subject(id),
            RevocationKind::Device => About::Device(id, Standing::Out),
        };
        self.tell(about, By::Admin, reason, false).await;
    }

    /// Of what can be taken back, only a device has a standing that others keep.
    pub(super) async fn reinstated(&self, kind: RevocationKind, id: &str, reason: &str) {
        if kind == RevocationKind::Device {
            self.tell(About::Device(id.to_owned(), Standing::Back), By::Admin, reason, false).await;
        }
    }

    /// Sessions that were ended here, by an operator or by a rule. Until nobody ends any.
    pub(super) async fn sessions(self, mut ends: mpsc::Receiver<End>) {
        while let Some(End { issuer, subject, id, why, by_operator }) = ends.recv().await {
            let user = (issuer.as_str().to_owned(), subject.as_str().to_owned());
            let about = About::Session(id.as_str().to_owned(), Some(user));
            let by = if by_operator { By::Admin } else { By::Policy };
            self.tell(about, by, why.as_ref(), false).await;
        }
    }

    async fn tell(&self, about: About, by: By, reason: &str, heard: bool) {
        let Some(teller) = &self.teller else { return };
        let news = News { about, by, at: self.clock.now(), reason: reason.to_owned() };
        match self.may_be_told(teller, &news.about, heard).await {
            Ok(true) => teller.tell(&news).await,
            Ok(false) => {}
            Err(error) => self.later(teller, news, heard, &error),
        }
    }

    /// Nobody is to trust a device on our word that is refused here. Of one that is not registered, and of one that others told
    /// us of (`heard`), our own word against it is taken back, if there is one, and nothing else is said.
    async fn may_be_told(&self, teller: &Teller, about: &About, heard: bool) -> Result<bool, StoreError> {
        let Some((id, true)) = about.standing() else { return Ok(true) };
        let record = match self.devices.get(&id.into()).await {
            // Nobody comes in with that.
            Err(error) if error.kind == StoreErrorKind::Malformed => return Ok(false),
            record => record?,
        };
        let silent = heard || record.is_none();
        let fine = record.is_none_or(|record| !record.is_refused());
        Ok(fine
            && self.revocations.is_clear(RevocationKind::Device, id).await?
            && (!silent || teller.holds_against(id).await?))
    }

    /// While the store does not say how a device stands, it is asked again.
    fn later(&self, teller: &Arc<Teller>, mut news: News, heard: bool, error: &StoreError) {
        tracing::warn!(%error, "how a device stands cannot be read: that it is compliant is told once it can");
        let (desk, teller) = (self.clone(), Arc::clone(teller));
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else { return teller.lose(&news) };
        tokio::spawn(async move {
            let answer = answered(PAUSE, || desk.may_be_told(&teller, &news.about, heard)).await;
            match answer {
                Some(true) => {
                    news.at = desk.clock.now();
                    teller.tell(&news).await;
                }
                Some(false) => {}
                None => teller.lose(&news),
            }
            drop(place);
        });
    }
}

/// What the store says as soon as it says something. `None`: it does not, for long.
async fn answered<F: Future<Output = Result<bool, StoreError>>>(pause: Duration, look: impl Fn() -> F) -> Option<bool> {
    for _ in 0..TRIES {
        tokio::time::sleep(pause).await;
        if let Ok(answer) = look().await {
            return Some(answer);
        }
    }
    None
}

/// What the registry finds out by itself, or in bulk.
#[async_trait]
impl Witness for NewsDesk {
    async fn hear(&self, id: &DeviceId, change: Change, reason: &str) {
        let id = id.as_str().to_owned();
        let (about, by) = match change {
            Change::Judged(good) => (About::Compliance(id, good), By::Policy),
            Change::Said(good) => (About::Compliance(id, good), By::Admin),
            Change::Out => (About::Device(id, Standing::Out), By::Admin),
            Change::Heard => (About::Device(id, Standing::Back), By::Policy),
        };
        self.tell(about, by, reason, change == Change::Heard).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_asked_again_for_a_while() {
        let asked = AtomicU32::new(0);
        let after = async |failures: u32| {
            asked.store(0, Ordering::Relaxed);
            let look = || {
                let failed = asked.fetch_add(1, Ordering::Relaxed) < failures;
                let late = StoreError::new(StoreErrorKind::Timeout, "no answer in time");
                std::future::ready(if failed { Err(late) } else { Ok(true) })
            };
            answered(Duration::ZERO, look).await
        };
        assert_eq!([after(0).await, after(3).await, after(TRIES).await], [Some(true), Some(true), None]);
    }
}
