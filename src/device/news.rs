//! What becomes of a device by what was found out here, and who hears of it: written first, told then, answered last.
//!
//! What others have told us is written with [`Devices::put`] and told to nobody, so that nothing goes round in circles.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use super::{
    Devices, enroll, record,
    speaker::{Speaker, Words},
};
use crate::{
    domain::{DeviceId, DeviceRecord, DeviceStatus},
    store::{Record, StoreError, StoreErrorKind},
};

/// While these are as they were, a record is of the same device of the same owner.
const IDENTITY: [&str; 2] = ["user", "cert_sha256"];

/// A change that others may have to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// By our own requirements it is compliant, or is not.
    Judged(bool),
    /// Somebody else has judged, and it is not compliant.
    NotCompliant,
    /// It was suspended or revoked.
    Out,
}

/// Hears of changes once they are written.
#[async_trait]
pub trait Witness: Debug + Send + Sync + 'static {
    async fn hear(&self, id: &DeviceId, change: Change, reason: &str);
}

impl Devices {
    /// From now on `witness` hears of changes; the first stays.
    pub fn tell(&self, witness: Arc<dyn Witness>) {
        let _ = self.witness.set(witness);
    }

    /// Writes what somebody found out about the posture of a device, judged together with what its record knows already.
    /// `None` where there is no such device.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn update_posture(
        &self,
        id: &DeviceId,
        posture: enroll::Posture,
    ) -> Result<Option<(DeviceRecord, Vec<enroll::Issue>)>, StoreError> {
        loop {
            let Some(fields) = self.fields(id).await? else { return Ok(None) };
            let (words, issues) = self.judged(Speaker::Operator, &posture, &fields)?;
            if let Some(record) = self.say(id, fields, &words, &issues).await? {
                return Ok(Some((record, issues)));
            }
        }
    }

    /// Writes what was found out of a device whose record has these fields, and tells of it where the device is compliant
    /// by that and was not, or the other way round. Says what is there then; `None`: nothing was written, since the device is no
    /// longer there, or is another's, or has another certificate.
    pub(super) async fn say(
        &self,
        id: &DeviceId,
        before: Record,
        words: &Words,
        issues: &[enroll::Issue],
    ) -> Result<Option<DeviceRecord>, StoreError> {
        let set: Vec<(&str, &str)> = words.set.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let was = record::parse(before.clone()).unwrap_or_default();
        let after = record::parse(words.written(before.clone()))?;
        let held: Vec<(&str, &str)> = IDENTITY.iter().filter_map(|name| Some((*name, field(&before, name)?))).collect();
        if before.is_empty() {
            self.put(id, &set, &words.clear).await?;
        } else if !self.amend(id, &held, &set, &words.clear).await? {
            return Ok(None);
        }
        if let (Some(witness), Some(compliant)) = (self.witness.get(), after.compliant)
            // Of a device that was never judged, only the bad is news.
            && compliant != was.compliant.unwrap_or(true)
        {
            let codes: Vec<&str> = issues.iter().map(|issue| issue.code).collect();
            witness.hear(id, Change::Judged(compliant), &codes.join(", ")).await;
        }
        // Written it is, also where it cannot be read back.
        Ok(Some(self.get(id).await.ok().flatten().unwrap_or(after)))
    }

    /// As [`Devices::put`], for one of many. Only of what was registered before and is worse off now others hear: a fleet
    /// that is read in must not crowd out what else they are to be told.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn import(&self, id: &DeviceId, set: &[(&str, &str)], clear: &[&str]) -> Result<(), StoreError> {
        let worse = match self.witness.get() {
            Some(witness) => self.worse(id, set).await?.map(|change| (witness, change)),
            None => None,
        };
        self.put(id, set, clear).await?;
        if let Some((witness, change)) = worse {
            witness.hear(id, change, value(set, "status_reason").unwrap_or_default()).await;
        }
        Ok(())
    }

    /// What `set` would make worse. The store is asked only where it may be something.
    async fn worse(&self, id: &DeviceId, set: &[(&str, &str)]) -> Result<Option<Change>, StoreError> {
        let out = value(set, "status").is_some_and(|status| status != DeviceStatus::Active.as_str());
        let not_compliant = value(set, "compliant") == Some("false");
        if !out && !not_compliant {
            return Ok(None);
        }
        let before = match self.get(id).await {
            Ok(Some(before)) => before,
            Ok(None) => return Ok(None),
            // What it was cannot be told.
            Err(error) if error.kind == StoreErrorKind::Malformed => DeviceRecord::default(),
            Err(error) => return Err(error),
        };
        Ok(match () {
            () if out && before.status == DeviceStatus::Active => Some(Change::Out),
            () if not_compliant && before.compliant != Some(false) => Some(Change::NotCompliant),
            () => None,
        })
    }
}

fn field<'f>(fields: &'f Record, name: &str) -> Option<&'f str> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

fn value<'v>(set: &[(&str, &'v str)], name: &str) -> Option<&'v str> {
    set.iter().find(|(set, _)| *set == name).map(|(_, value)| *value)
}
