//! What the admin API administers, as it sees it. `app` plugs the parts in; tests plug in maps.

use std::{fmt::Debug, net::IpAddr, time::Duration};

use async_trait::async_trait;

use crate::{
    domain::{DecisionId, DeviceId, DeviceRecord, RevocationKind, UnixTime},
    store::StoreError,
    telemetry::audit::{AdminRecord, Auditor},
    wire::admin::{Explanation, Overview, StatusResponse},
};

/// A revocation as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationEntry {
    pub kind: RevocationKind,
    pub id: String,
    pub reason: String,
    /// A subject's: tokens issued up to then; `None`: every token.
    pub issued_until: Option<UnixTime>,
    /// `None`: it does not end by itself.
    pub expires: Option<UnixTime>,
}

/// A page of a list, and the cursor of the next.
pub type Page<T> = (Vec<T>, Option<String>);

#[async_trait]
pub trait Revocations: Send + Sync + Debug + 'static {
    /// `life` of `None`: as long as what is revoked could live. Gives back what is in force then.
    async fn revoke(
        &self,
        kind: RevocationKind,
        id: &str,
        reason: &str,
        life: Option<Duration>,
    ) -> Result<RevocationEntry, StoreError>;

    /// Says whether there was a revocation to take back.
    async fn reinstate(&self, kind: RevocationKind, id: &str, reason: &str) -> Result<bool, StoreError>;

    /// In a stable order; `after` is the cursor of the page before, empty at first.
    async fn list(
        &self,
        kind: Option<RevocationKind>,
        contains: &str,
        after: &str,
        count: usize,
    ) -> Result<Page<RevocationEntry>, StoreError>;
}

/// Fields of a record to write and to remove, by their names in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceChanges {
    pub set: Vec<(&'static str, String)>,
    pub clear: Vec<&'static str>,
}

#[async_trait]
pub trait Devices: Send + Sync + Debug + 'static {
    async fn get(&self, id: &DeviceId) -> Result<Option<DeviceRecord>, StoreError>;

    /// Writes in one step and reads back what is there then.
    async fn write(&self, id: &DeviceId, changes: &DeviceChanges) -> Result<DeviceRecord, StoreError>;

    /// Says whether there was one.
    async fn delete(&self, id: &DeviceId) -> Result<bool, StoreError>;

    /// Devices whose id begins with `prefix`. Records that cannot be read are left out.
    async fn list(
        &self,
        prefix: &str,
        cursor: &str,
        count: usize,
    ) -> Result<Page<(DeviceId, DeviceRecord)>, StoreError>;
}

/// Decides without effects.
#[async_trait]
pub trait Explainer: Send + Sync + Debug + 'static {
    /// What would be decided now for an encoded CheckRequest; `client`: as if from this address.
    async fn explain(&self, request: &[u8], client: Option<IpAddr>) -> Explanation;

    /// A decision that was made here and is still remembered.
    async fn recorded(&self, id: DecisionId) -> Option<Explanation>;
}

/// How this process stands.
#[async_trait]
pub trait Instance: Send + Sync + Debug + 'static {
    async fn status(&self) -> StatusResponse;

    /// What happens here, for people who watch.
    async fn overview(&self) -> Overview;
}

/// Where every write is told.
pub trait Journal: Send + Sync + Debug + 'static {
    fn record(&self, record: AdminRecord);
}

impl Journal for Auditor {
    fn record(&self, record: AdminRecord) {
        self.admin(record);
    }
}
