//! A device's next certificate. Whoever asks for it shows the one in use, or the one before while that still counts: an
//! answer that was lost on its way must not lock the device out.

use aws_lc_rs::digest;

use super::{
    EnrollError, Enrolled, Enrollment, Posture, Renewal, Speaker, Words, enrolled,
    permission::{checked_id, not_barred, not_revoked},
    renewal::{self, InUse},
    request::SigningRequest,
};
use crate::{
    device::record,
    domain::{DeviceId, DeviceRecord, UnixTime},
    store::{Record, keys},
};

/// A renewal that may be granted, if the device is good.
struct Asked {
    id: DeviceId,
    /// The record as it stands.
    before: Record,
    request: SigningRequest,
    /// The certificate that the device has. `None`: whatever it has, an operator replaces.
    certificate: Option<String>,
}

/// What a record says of the certificate before the last renewal.
pub(super) const PREVIOUS: [&str; 3] = ["cert_sha256_previous", "cert_previous_until", "cert_renewed_into"];

impl Enrollment {
    /// Renews on the device's own wish, signed by the key of its certificate.
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
        let before = self.devices.fields(&id).await?.ok_or(EnrollError::NotEnrolled)?;
        if !is_its_own(&record::parse(before.clone())?, &in_use.sha256, now) {
            return Err(EnrollError::Certificate);
        }
        if !renewal::is_fresh(wish.time, now) {
            return Err(EnrollError::Clock);
        }
        let message = renewal::message(id.as_str(), wish.time, &request.sha256);
        in_use.signed(&message, &wish.signature)?;
        self.first_time(&message).await?;
        let asked = Asked { id, before, request, certificate: Some(in_use.sha256) };
        self.reissue(Speaker::Agent, asked, posture).await
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
        let before = self.devices.fields(id).await?.ok_or(EnrollError::NotEnrolled)?;
        let asked = Asked { id: checked_id(id.as_str())?.into(), before, request, certificate: None };
        let renewed = self.reissue(Speaker::Operator, asked, posture).await;
        self.counted(renewed)
    }

    async fn reissue(&self, speaker: Speaker, asked: Asked, posture: &Posture) -> Result<Enrolled, EnrollError> {
        let Asked { id, before, request, certificate: shown } = asked;
        not_barred(&record::parse(before.clone())?)?;
        not_revoked(&*self.store, &id).await?;
        let now = self.clock.now();
        let (mut words, issues) = self.judged(speaker, posture, &before)?;
        if !issues.is_empty() {
            // As at an enrolment, an operator who is refused has changed nothing.
            if speaker == Speaker::Agent {
                self.devices.say(&id, before, &words, &issues).await?;
            }
            return Err(EnrollError::NotCompliant(issues));
        }
        if speaker == Speaker::Operator && *posture == Posture::default() {
            // Who tells nothing has not looked.
            words = Words::default();
        }
        let certificate = self.authority.sign(id.as_str(), &request, self.settings.certificate_life.get(), now)?;
        words.set.extend([
            ("cert_sha256", certificate.sha256.clone()),
            ("cert_expires_at", certificate.expires.as_secs().to_string()),
        ]);
        if let Some(shown) = shown {
            // The one that the device has: where it never got the last one, that one is dropped.
            let until = now.plus(self.settings.overlap.get()).as_secs().to_string();
            words.set.extend(PREVIOUS.into_iter().zip([shown, until, certificate.sha256.clone()]));
        }
        words.forget(&PREVIOUS);
        let record = self.devices.say(&id, before, &words, &[]).await?.ok_or(EnrollError::Changed)?;
        self.counters.renewed.increment();
        Ok(enrolled(id, record, certificate, now))
    }

    /// One atomic step at the store, so that no two replicas grant the same wish.
    async fn first_time(&self, message: &str) -> Result<(), EnrollError> {
        let key = keys::device_renewal(&hex::encode(digest::digest(&digest::SHA256, message.as_bytes())));
        let first = self.store.create(&key, b"1", Some(renewal::SKEW * 2)).await?;
        if first { Ok(()) } else { Err(EnrollError::Replayed) }
    }
}

/// Whether a certificate is the device's, or was until a moment ago.
fn is_its_own(record: &DeviceRecord, sha256: &str, now: UnixTime) -> bool {
    let previous = record.previous_certificate.as_ref().filter(|(_, until)| now < *until);
    record.cert_sha256.as_deref() == Some(sha256) || previous.is_some_and(|(sum, _)| **sum == *sha256)
}
