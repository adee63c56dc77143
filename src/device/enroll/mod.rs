//! Enrolment: a device that meets the requirements gets a certificate for its own key, and a record that names it.
//!
//! Whoever enrols holds a one-time code of a user, or is an operator. The device's key never comes here. Nothing is
//! signed for a device that is not compliant, suspended or revoked, and nothing is written before everything was checked.

mod authority;
mod codes;
mod error;
mod posture;
mod renewal;
mod request;
mod settings;

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;

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
    renewal::InUse,
    request::SigningRequest,
};
use super::Devices;
use crate::{
    clock::Clock,
    domain::{
        DeviceId, DeviceRecord, DeviceStatus, RevocationKind, Secret, UnixTime,
        metric::{Counter, Page, Source},
    },
    store::{Store, keys},
};

/// Longest id of an enrolled device and longest name of a user, in octets.
const MAX_ID: usize = 128;
const MAX_USER: usize = 256;

/// A device as it was enrolled or renewed.
#[derive(Clone, Debug)]
pub struct Enrolled {
    pub id: DeviceId,
    pub record: DeviceRecord,
    pub certificate: Issued,
    /// After two thirds of the certificate's life.
    pub renew_after: UnixTime,
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
        let checked = self.checked(user, device_id.as_deref(), csr, posture).await;
        let (device, request) = self.counted(checked)?;
        self.codes.consume(&held).await?;
        match self.admit(device, user, &request, posture).await {
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
        let checked = self.checked(user, device_id, csr, posture).await;
        let (device, request) = self.counted(checked)?;
        self.admit(device, user, &request, posture).await
    }

    /// Renews on the device's own wish, signed by the key of the certificate in use.
    ///
    /// # Errors
    ///
    /// What is wrong. A device that is no longer compliant is marked so at once.
    pub async fn renew(&self, wish: &Renewal, posture: &Posture) -> Result<Enrolled, EnrollError> {
        let renewed = self.renew_signed(wish, posture).await;
        self.counted(renewed)
    }

    async fn renew_signed(&self, wish: &Renewal, posture: &Posture) -> Result<Enrolled, EnrollError> {
        let now = self.clock.now();
        let in_use = InUse::parse(&wish.certificate)?;
        let request = SigningRequest::parse(&wish.csr)?;
        let certificate = self.devices.certificates.verified(in_use.der(), now).ok_or(EnrollError::Certificate)?;
        let id = certificate.device.clone().ok_or(EnrollError::Certificate)?;
        if certificate.is_out_of_time(now) {
            return Err(EnrollError::Expired);
        }
        let record = self.devices.get(&id).await?.ok_or(EnrollError::NotEnrolled)?;
        if record.cert_sha256.as_deref() != Some(in_use.sha256.as_str()) {
            return Err(EnrollError::Certificate);
        }
        if !renewal::is_fresh(wish.time, now) {
            return Err(EnrollError::Clock);
        }
        let message = renewal::message(id.as_str(), wish.time, &request.sha256);
        in_use.signed(&message, &wish.signature)?;
        self.first_time(&message).await?;
        self.reissue(id, &record, &request, posture).await
    }

    /// Renews on an operator's word.
    ///
    /// # Errors
    ///
    /// As [`Enrollment::renew`].
    pub async fn renew_as_operator(
        &self,
        id: &DeviceId,
        csr: &str,
        posture: &Posture,
    ) -> Result<Enrolled, EnrollError> {
        let request = SigningRequest::parse(csr)?;
        let record = self.devices.get(id).await?.ok_or(EnrollError::NotEnrolled)?;
        let renewed = self.reissue(checked_id(id.as_str())?.into(), &record, &request, posture).await;
        self.counted(renewed)
    }

    /// Everything that can be wrong with an enrolment, before anything is written. Says what id it is to have, and whether a
    /// device of this id was compliant.
    async fn checked(
        &self,
        user: &str,
        device_id: Option<&str>,
        csr: &str,
        posture: &Posture,
    ) -> Result<((DeviceId, Option<bool>), SigningRequest), EnrollError> {
        checked_user(user)?;
        let request = SigningRequest::parse(csr)?;
        self.compliant(posture)?;
        let id = match device_id {
            Some(id) => DeviceId::from(checked_id(id)?),
            None => random_id()?,
        };
        let before = self.devices.get(&id).await?;
        if let Some(record) = &before {
            if record.user.as_ref().is_some_and(|owner| owner.as_str() != user) {
                return Err(EnrollError::OtherOwner);
            }
            not_barred(record)?;
        }
        not_revoked(&*self.store, &id).await?;
        // Before a code is used up for nothing.
        self.authority.lasts(self.clock.now())?;
        Ok(((id, before.and_then(|record| record.compliant)), request))
    }

    /// Signs, then writes: a certificate that no record names opens nothing.
    async fn admit(
        &self,
        (id, before): (DeviceId, Option<bool>),
        user: &str,
        request: &SigningRequest,
        posture: &Posture,
    ) -> Result<Enrolled, EnrollError> {
        let now = self.clock.now();
        let certificate = self.authority.sign(id.as_str(), request, self.settings.certificate_life.get(), now)?;
        let mut fields = posture.judged(true, now);
        fields.extend([
            ("user", user.to_owned()),
            ("cert_sha256", certificate.sha256.clone()),
            ("cert_expires_at", certificate.expires.as_secs().to_string()),
            ("enrolled_at", now.as_secs().to_string()),
            ("status", "active".to_owned()),
        ]);
        // What an earlier device of this id could prove, this one cannot.
        let clear =
            ["cert_sha256_previous", "cert_previous_until", "fingerprint", "jkt", "trust_score", "status_reason"];
        let record = self.write((&id, before), (&fields, &clear), &[]).await?;
        self.counters.enrolled.increment();
        Ok(enrolled(id, record, certificate, now))
    }

    async fn reissue(
        &self,
        id: DeviceId,
        record: &DeviceRecord,
        request: &SigningRequest,
        posture: &Posture,
    ) -> Result<Enrolled, EnrollError> {
        not_barred(record)?;
        not_revoked(&*self.store, &id).await?;
        let now = self.clock.now();
        if let Err(problem) = self.compliant(posture) {
            if let EnrollError::NotCompliant(issues) = &problem {
                self.write((&id, record.compliant), (&posture.judged(false, now), &[]), issues).await?;
            }
            return Err(problem);
        }
        let certificate = self.authority.sign(id.as_str(), request, self.settings.certificate_life.get(), now)?;
        let mut fields = posture.judged(true, now);
        fields.extend([
            ("cert_sha256", certificate.sha256.clone()),
            ("cert_expires_at", certificate.expires.as_secs().to_string()),
        ]);
        if let Some(before) = &record.cert_sha256 {
            let until = now.plus(self.settings.overlap.get());
            fields.push(("cert_sha256_previous", before.to_string()));
            fields.push(("cert_previous_until", until.as_secs().to_string()));
        }
        let record = self.write((&id, record.compliant), (&fields, &[]), &[]).await?;
        self.counters.renewed.increment();
        Ok(enrolled(id, record, certificate, now))
    }

    /// One atomic step at the store, so that no two replicas grant the same wish.
    async fn first_time(&self, message: &str) -> Result<(), EnrollError> {
        let key = keys::device_renewal(&hex::encode(digest::digest(&digest::SHA256, message.as_bytes())));
        let first = self.store.create(&key, b"1", Some(renewal::SKEW * 2)).await?;
        if first { Ok(()) } else { Err(EnrollError::Replayed) }
    }

    fn compliant(&self, posture: &Posture) -> Result<(), EnrollError> {
        if let Some(field) = posture.malformed() {
            return Err(EnrollError::Posture(field));
        }
        let issues = self.devices.issues(posture);
        if issues.is_empty() { Ok(()) } else { Err(EnrollError::NotCompliant(issues)) }
    }

    /// Of a device that was compliant, or not, `before`, and has these issues now.
    async fn write(
        &self,
        (id, before): (&DeviceId, Option<bool>),
        (fields, clear): (&[(&'static str, String)], &[&str]),
        issues: &[Issue],
    ) -> Result<DeviceRecord, EnrollError> {
        let set: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.devices.put(id, &set, clear).await?;
        self.devices.judged(id, before, issues).await;
        Ok(self.devices.get(id).await?.unwrap_or_default())
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

fn not_barred(record: &DeviceRecord) -> Result<(), EnrollError> {
    match record.status {
        DeviceStatus::Active => Ok(()),
        status => Err(EnrollError::Barred(status.as_str())),
    }
}

/// A revocation outlives its device's record. While its key stands, a reinstatement beside it takes nothing back.
async fn not_revoked(store: &dyn Store, id: &DeviceId) -> Result<(), EnrollError> {
    let found = store.read(&[keys::revoked(RevocationKind::Device, id.as_str())]).await?;
    match found.as_slice() {
        [Ok(None)] => Ok(()),
        _ => Err(EnrollError::Barred("revoked")),
    }
}

/// An id that is also a segment of a SPIFFE id.
fn checked_id(id: &str) -> Result<&str, EnrollError> {
    let plain = id.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet));
    let fine = plain && !id.is_empty() && id.len() <= MAX_ID && !matches!(id, "." | "..");
    if fine { Ok(id) } else { Err(EnrollError::Id) }
}

/// Bounded as the setting `code_life` is: whoever finds an old code shall find it useless.
fn check_life(life: Duration) -> Result<(), EnrollError> {
    if (Duration::from_secs(1)..=settings::LONGEST).contains(&life) { Ok(()) } else { Err(EnrollError::Life) }
}

fn checked_user(user: &str) -> Result<&str, EnrollError> {
    let fine = !user.trim().is_empty() && user.len() <= MAX_USER && !user.chars().any(char::is_control);
    if fine { Ok(user) } else { Err(EnrollError::User) }
}

fn random_id() -> Result<DeviceId, EnrollError> {
    let mut random = [0; 12];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| EnrollError::Random)?;
    Ok(DeviceId::from(format!("dev-{}", hex::encode(random))))
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
mod tests {
    use super::*;

    #[test]
    fn a_code_lives_no_longer_than_the_setting_may_say() {
        let day = Duration::from_secs(24 * 3600);
        assert!(check_life(day * 90).is_ok() && check_life(Duration::from_secs(1)).is_ok());
        for life in [Duration::ZERO, day * 91, day * 365 * 32] {
            assert!(matches!(check_life(life), Err(EnrollError::Life)), "{life:?}");
        }
    }
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn a_device_whose_revocation_stands_does_not_enrol_whatever_stands_beside_it() {
        let (store, id) = (Memory::new(|| UnixTime::EPOCH), DeviceId::from("laptop"));
        store.write("cs:reinstated:device:laptop", b"deleted", None).await.unwrap();
        assert!(not_revoked(&store, &id).await.is_ok());
        store.write("cs:revoked:device:laptop", b"stolen", None).await.unwrap();
        assert!(not_revoked(&store, &id).await.is_err());
    }
}
