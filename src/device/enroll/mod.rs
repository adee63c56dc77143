//! Enrolment: a device that meets the requirements gets a certificate for its own key, and a record that names it.
//!
//! Whoever enrols holds a one-time code of a user, or is an operator. The device's key never comes here. Nothing is
//! signed for a device that is not compliant, suspended or revoked, and nothing is written before everything was checked.

mod authority;
mod codes;
mod error;
mod permission;
mod posture;
mod renew;
mod renewal;
mod request;
mod settings;

use std::{sync::Arc, time::Duration};

pub use self::{
    authority::{Authority, AuthorityError, Issued},
    error::EnrollError,
    posture::{Issue, Posture},
    renewal::{Renewal, message as renewal_message},
    request::RequestProblem,
    settings::{Requirements, Settings},
};
use self::{
    codes::{Codes, Invitation},
    permission::{check_life, checked_id, checked_user, not_barred, not_revoked, random_id},
    request::SigningRequest,
};
use super::{
    Devices, record,
    speaker::{Speaker, Words},
};
use crate::{
    clock::Clock,
    domain::{
        DeviceId, DeviceRecord, Secret, UnixTime,
        metric::{Counter, Page, Source},
    },
    store::{Record, Store},
};

/// A device as it was enrolled or renewed.
#[derive(Clone, Debug)]
pub struct Enrolled {
    pub id: DeviceId,
    pub record: DeviceRecord,
    pub certificate: Issued,
    /// After two thirds of the certificate's life.
    pub renew_after: UnixTime,
}

/// An enrolment in which nothing was found wrong.
#[derive(Debug)]
struct Admission<'u> {
    id: DeviceId,
    user: &'u str,
    /// The record of that id as it stood.
    before: Record,
    request: SigningRequest,
    words: Words,
}

/// Plain atomics; `ops` renders them.
#[derive(Debug, Default)]
pub struct EnrollCounters {
    enrolled: Counter,
    renewed: Counter,
    not_compliant: Counter,
    refused: Counter,
}

/// Enrols and renews.
#[derive(Debug)]
pub struct Enrollment {
    devices: Arc<Devices>,
    store: Arc<dyn Store>,
    codes: Codes,
    authority: Authority,
    settings: Settings,
    clock: Clock,
    counters: EnrollCounters,
}

impl Enrollment {
    pub fn new(
        devices: Arc<Devices>,
        store: Arc<dyn Store>,
        authority: Authority,
        settings: Settings,
        clock: Clock,
    ) -> Self {
        let codes = Codes(Arc::clone(&store));
        Self { devices, store, codes, authority, settings, clock, counters: EnrollCounters::default() }
    }

    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Makes a one-time code. Says when it ends.
    ///
    /// # Errors
    ///
    /// Where user, id or life cannot be used, or the store fails.
    pub async fn invite(
        &self,
        user: &str,
        device_id: Option<&str>,
        life: Option<Duration>,
    ) -> Result<(Secret, UnixTime), EnrollError> {
        let user = checked_user(user)?.to_owned();
        let device_id = device_id.map(|id| checked_id(id).map(str::to_owned)).transpose()?;
        let life = life.unwrap_or(self.settings.code_life.get());
        check_life(life)?;
        let code = self.codes.make(&Invitation { user, device_id }, life).await?;
        Ok((code, self.clock.now().plus(life)))
    }

    /// Enrols a device whose agent holds a one-time code. The code is used up only when everything else is right.
    ///
    /// # Errors
    ///
    /// What is wrong; with [`EnrollError::NotCompliant`], everything that is.
    pub async fn enroll(&self, code: &str, csr: &str, posture: &Posture) -> Result<(Enrolled, String), EnrollError> {
        let held = self.codes.look_up(code).await?;
        let Invitation { user, device_id, .. } = &held.invitation;
        let checked = self.checked(Speaker::Agent, (user, device_id.as_deref()), csr, posture).await;
        let admission = self.counted(checked)?;
        self.codes.consume(&held).await?;
        match self.admit(admission).await {
            Ok(enrolled) => Ok((enrolled, user.clone())),
            Err(error) => {
                self.codes.give_back(&held).await;
                Err(error)
            }
        }
    }

    /// Enrols a device on an operator's word.
    ///
    /// # Errors
    ///
    /// As [`Enrollment::enroll`].
    pub async fn enroll_as_operator(
        &self,
        user: &str,
        device_id: Option<&str>,
        csr: &str,
        posture: &Posture,
    ) -> Result<Enrolled, EnrollError> {
        let checked = self.checked(Speaker::Operator, (user, device_id), csr, posture).await;
        self.admit(self.counted(checked)?).await
    }

    /// Everything that can be wrong with an enrolment, before anything is written.
    async fn checked<'u>(
        &self,
        speaker: Speaker,
        (user, device_id): (&'u str, Option<&str>),
        csr: &str,
        posture: &Posture,
    ) -> Result<Admission<'u>, EnrollError> {
        checked_user(user)?;
        let request = SigningRequest::parse(csr)?;
        let id = match device_id {
            Some(id) => DeviceId::from(checked_id(id)?),
            None => random_id()?,
        };
        let before = self.devices.fields(&id).await?.unwrap_or_default();
        let record = record::parse(before.clone())?;
        if record.user.as_ref().is_some_and(|owner| owner.as_str() != user) {
            return Err(EnrollError::OtherOwner);
        }
        not_barred(&record)?;
        not_revoked(&*self.store, &id).await?;
        // What an earlier device of this id said of itself is not this one's word.
        let known = before.iter().filter(|(name, _)| !record::is_of_agent(name)).cloned().collect();
        let (words, issues) = self.judged(speaker, posture, &known)?;
        if !issues.is_empty() {
            return Err(EnrollError::NotCompliant(issues));
        }
        // Before a code is used up for nothing.
        self.authority.lasts(self.clock.now())?;
        Ok(Admission { id, user, before, request, words })
    }

    /// What `speaker` tells, judged: what is written of it, and everything for which no certificate is signed.
    fn judged(&self, speaker: Speaker, posture: &Posture, before: &Record) -> Result<(Words, Vec<Issue>), EnrollError> {
        match posture.malformed() {
            Some(field) => Err(EnrollError::Posture(field)),
            None => Ok(self.devices.judged(speaker, posture, before)?),
        }
    }

    /// Signs, then writes: a certificate that no record names opens nothing.
    async fn admit(&self, admission: Admission<'_>) -> Result<Enrolled, EnrollError> {
        let Admission { id, user, before, request, mut words } = admission;
        let now = self.clock.now();
        let certificate = self.authority.sign(id.as_str(), &request, self.settings.certificate_life.get(), now)?;
        words.set.extend([
            ("user", user.to_owned()),
            ("cert_sha256", certificate.sha256.clone()),
            ("cert_expires_at", certificate.expires.as_secs().to_string()),
            ("enrolled_at", now.as_secs().to_string()),
        ]);
        // What an earlier device of this id could prove, this one cannot.
        words.forget(&record::of_agent().collect::<Vec<_>>());
        words.forget(&renew::PREVIOUS);
        words.forget(&["fingerprint", "jkt", "trust_score"]);
        // Its status stays: it was found to be active, and who suspends it meanwhile means this device, too.
        let record = self.devices.say(&id, before, &words, &[]).await?.ok_or(EnrollError::Changed)?;
        self.counters.enrolled.increment();
        Ok(enrolled(id, record, certificate, now))
    }

    fn counted<T>(&self, result: Result<T, EnrollError>) -> Result<T, EnrollError> {
        match &result {
            Ok(_) => {}
            Err(EnrollError::NotCompliant(_)) => self.counters.not_compliant.increment(),
            Err(_) => self.counters.refused.increment(),
        }
        result
    }
}

fn enrolled(id: DeviceId, record: DeviceRecord, certificate: Issued, now: UnixTime) -> Enrolled {
    let renew_after = now.plus(certificate.expires.since(now) * 2 / 3);
    Enrolled { id, record, certificate, renew_after }
}

impl Source for Enrollment {
    fn collect(&self, page: &mut Page) {
        const NAME: &str = "countersign_device_enrollments";
        const HELP: &str = "Requests for device certificates, by what became of them";
        let EnrollCounters { enrolled, renewed, not_compliant, refused } = &self.counters;
        for (outcome, counter) in
            [("enrolled", enrolled), ("renewed", renewed), ("not_compliant", not_compliant), ("refused", refused)]
        {
            page.counter(NAME, HELP, &[("outcome", outcome)], counter);
        }
        const ENDS: &str = "When the certificate of the authority for devices ends, in seconds since 1970";
        let ends = self.authority.ends().as_secs() as f64;
        page.gauge("countersign_device_authority_expiry_timestamp_seconds", ENDS, &[], ends);
    }
}

#[cfg(test)]
mod tests;
