//! What becomes of a device by what was found out here, and who hears of it: written first, told then, answered last.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use super::{
    Devices, enroll, record,
    speaker::{JUDGED_AT, Speaker, Words, written},
};
use crate::{
    domain::{DeviceId, DeviceRecord, DeviceStatus},
    store::{Record, StoreError, StoreErrorKind},
};

/// While these are as they were, a record is of the same device of the same owner.
const IDENTITY: [&str; 2] = ["user", "cert_sha256"];

/// A change that others may have to know of. A device is in order where its record does not speak against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// By our own requirements it is in order, or is not.
    Judged(bool),
    /// By what an operator wrote.
    Said(bool),
    /// It was suspended or revoked.
    Out,
    /// By what others told us it may be in order again.
    Heard,
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

    /// Writes what was found out of a device whose record has these fields, and tells of it where the device is in order by
    /// that and was not, or the other way round. Says what is there then; `None`: nothing was written, since the device is no
    /// longer there, or is another's, or has another certificate.
    pub(super) async fn say(
        &self,
        id: &DeviceId,
        before: Record,
        words: &Words,
        issues: &[enroll::Issue],
    ) -> Result<Option<DeviceRecord>, StoreError> {
        let set = words.set();
        let was = record::parse(before.clone()).unwrap_or_default();
        let after = record::parse(written(before.clone(), &set, &words.clear))?;
        let held: Vec<(&str, &str)> = IDENTITY.iter().filter_map(|name| Some((*name, field(&before, name)?))).collect();
        if before.is_empty() {
            self.put(id, &set, &words.clear).await?;
        } else if !self.amend(id, &held, &set, &words.clear).await? {
            return Ok(None);
        }
        // Of a device that was in order, or never heard of, only the bad is news.
        if was.is_refused() != after.is_refused() {
            let codes: Vec<&str> = issues.iter().map(|issue| issue.code).collect();
            self.announce(id, Change::Judged(was.is_refused()), &codes.join(", ")).await;
        }
        // Written it is, also where it cannot be read back.
        Ok(Some(self.get(id).await.ok().flatten().unwrap_or(after)))
    }

    /// As [`Devices::put`], by an operator; says what is there then. What is said of the device's standing is told, also where it
    /// stood so before, and so is all else by which it is in order again, or no longer.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn change(
        &self,
        id: &DeviceId,
        set: &[(&str, &str)],
        clear: &[&str],
    ) -> Result<DeviceRecord, StoreError> {
        let (was, after) = self.foreseen(id, set, clear).await?;
        let (was_refused, said) = (was.unwrap_or_default().is_refused(), |name| value(set, name));
        let now = self.clock.now().as_secs().to_string();
        let judged = said("compliant").filter(|_| said("checked_at").is_none()).map(|_| (JUDGED_AT, now.as_str()));
        let with_its_time: Vec<_> = set.iter().copied().chain(judged).collect();
        self.put(id, &with_its_time, clear).await?;
        let change = match () {
            () if after.status != DeviceStatus::Active && said("status").is_some() => Some(Change::Out),
            () if after.is_refused() => {
                (!was_refused || said("compliant") == Some("false")).then_some(Change::Said(false))
            }
            () => (was_refused || said("status").or(said("compliant")).is_some()).then_some(Change::Said(true)),
        };
        if let Some(change) = change {
            self.announce(id, change, said("status_reason").unwrap_or_default()).await;
        }
        Ok(self.get(id).await?.unwrap_or_default())
    }

    /// As [`Devices::put`], for one of many. Only of what was registered before and is worse off now others hear: a fleet
    /// that is read in must not crowd out what else they are to be told.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn import(&self, id: &DeviceId, set: &[(&str, &str)], clear: &[&str]) -> Result<(), StoreError> {
        // The store is asked only where it may be news.
        let bad = self.witness.get().is_some() && record::parse(written(Record::new(), set, clear))?.is_refused();
        let news = if bad { self.worse(id, set, clear).await? } else { None };
        self.put(id, set, clear).await?;
        if let Some(change) = news {
            self.announce(id, change, value(set, "status_reason").unwrap_or_default()).await;
        }
        Ok(())
    }

    /// Writes what others told us of a device that is there, and tells it to nobody, so that nothing goes round in circles; but
    /// our own word against it may be over with that. Says whether it is there.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn heard(&self, id: &DeviceId, compliant: bool) -> Result<bool, StoreError> {
        let word = if compliant { "true" } else { "false" };
        let now = self.clock.now().as_secs().to_string();
        let there = self.amend(id, &[], &[("compliant", word), (JUDGED_AT, &now)], &[]).await?;
        if there && compliant {
            self.announce(id, Change::Heard, "").await;
        }
        Ok(there)
    }

    async fn worse(&self, id: &DeviceId, set: &[(&str, &str)], clear: &[&str]) -> Result<Option<Change>, StoreError> {
        let (Some(was), after) = self.foreseen(id, set, clear).await? else { return Ok(None) };
        let out = after.status != DeviceStatus::Active && was.status == DeviceStatus::Active;
        let worse = after.is_refused() && !was.is_refused();
        Ok(if out { Some(Change::Out) } else { worse.then_some(Change::Said(false)) })
    }

    /// The record as it is, if there is one, and as it will be. Where it cannot be read, nothing but what is set is known.
    async fn foreseen(
        &self,
        id: &DeviceId,
        set: &[(&str, &str)],
        clear: &[&str],
    ) -> Result<(Option<DeviceRecord>, DeviceRecord), StoreError> {
        let fields = match self.fields(id).await {
            Err(error) if error.kind == StoreErrorKind::Malformed => Some(Record::new()),
            fields => fields?,
        };
        let after = record::parse(written(fields.clone().unwrap_or_default(), set, clear));
        let after = after.or_else(|_| record::parse(written(Record::new(), set, clear)))?;
        Ok((fields.map(|fields| record::parse(fields).unwrap_or_default()), after))
    }

    async fn announce(&self, id: &DeviceId, change: Change, reason: &str) {
        if let Some(witness) = self.witness.get() {
            witness.hear(id, change, reason).await;
        }
    }
}

fn field<'f>(fields: &'f Record, name: &str) -> Option<&'f str> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

fn value<'v>(set: &[(&str, &'v str)], name: &str) -> Option<&'v str> {
    set.iter().find(|(set, _)| *set == name).map(|(_, value)| *value)
}
