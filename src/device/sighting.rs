//! What one request shows of its device, held against the registry's record. Strongest evidence first; no judgement.

use std::{sync::Arc, time::Duration};

use super::certificate::ClientCertificate;
use crate::domain::{DeviceEvidence, DeviceId, DeviceProof, DeviceRecord, DeviceSighting, UnixTime};

/// Longest id that can be registered, in octets.
const MAX_ID: usize = 256;

/// What a request says and shows of its device.
#[derive(Clone, Debug, Default)]
pub struct DeviceQuery<'a> {
    /// `X-Device-ID`. Several lines are joined by commas, which no registered id is.
    pub id: Option<&'a str>,
    /// `X-Device-Fingerprint`.
    pub fingerprint: Option<&'a str>,
    /// The device that the token names.
    pub token_device: Option<&'a DeviceId>,
    /// Lower-case hexadecimal SHA-256 of the client certificate.
    pub cert_sha256: Option<&'a str>,
    /// It is the certificate of a workload that stands between: it may be the device's, and contradicts none.
    pub of_workload: bool,
    /// What that certificate says of devices.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// RFC 7638 thumbprint of the key that the request proved possession of.
    pub jkt: Option<&'a str>,
}

impl DeviceQuery<'_> {
    /// The device to look up: the one named, else the certificate's, else the token's where a key is there to prove it.
    pub fn named(&self) -> Option<DeviceId> {
        let proven = self.cert_sha256.is_some() || self.jkt.is_some();
        match self.id {
            Some(id) => Some(id.into()),
            None => self.certified().or(self.token_device.filter(|_| proven)).cloned(),
        }
    }

    /// The device that the certificate names.
    fn certified(&self) -> Option<&DeviceId> {
        self.certificate.as_ref()?.device.as_ref()
    }

    /// Whether an id of this shape can be in the registry at all.
    pub(super) fn can_be_registered(id: &DeviceId) -> bool {
        let id = id.as_str();
        !id.is_empty() && id.len() <= MAX_ID && !id.chars().any(char::is_control)
    }

    /// What is seen of device `id`. `None`: the token's device was guessed from a key that is not its key, so the
    /// request names none.
    pub(super) fn sight(&self, id: DeviceId, record: Option<Arc<DeviceRecord>>, at: At) -> Option<DeviceSighting> {
        let known = record.as_deref();
        let Shown { matches: certificate, proves, expired, unverified } = self.shown(&id, known, at.now);
        let key = compare(known.and_then(|record| record.jkt.as_deref()), self.jkt);
        let fingerprint = compare(known.and_then(|record| record.fingerprint.as_deref()), self.fingerprint);
        let proven = proves || key == Some(true);
        if self.id.is_none() && self.certified().is_none() && !proven {
            return None;
        }
        // A certificate of ours that names another device, or this one and is no longer its, is never a coincidence.
        let names_other = self.certified().is_some_and(|named| *named != id);
        let withdrawn = self.certified() == Some(&id) && certificate != Some(true) && known.is_some();
        let other_certificate = certificate == Some(false) && !self.of_workload;
        let (posture_age, posture_stale) =
            known.map_or((None, false), |record| record.posture_age(at.now, at.posture_max_age));
        let proof = match fingerprint {
            _ if proven => DeviceProof::Key,
            Some(true) => DeviceProof::Fingerprint,
            Some(false) | None => DeviceProof::IdOnly,
        };
        Some(DeviceSighting {
            proof,
            fingerprint_differs: fingerprint == Some(false),
            key_differs: names_other || (!proven && (other_certificate || key == Some(false) || withdrawn)),
            differs_from_token: self.token_device.is_some_and(|device| *device != id),
            evidence: DeviceEvidence {
                certificate_expired: expired && !proven,
                certificate_unverified: unverified && !proven,
                posture_age,
                posture_stale,
            },
            id,
            record,
        })
    }
}

/// What the certificate of a request is to one record.
struct Shown {
    /// Whether it is the recorded one; `None` where one of them is not there.
    matches: Option<bool>,
    /// It is, an authority vouches for it, and its time is not over.
    proves: bool,
    /// It is this device's own, and its time is over.
    expired: bool,
    /// It is the recorded one, and no authority vouches for it.
    unverified: bool,
}

impl DeviceQuery<'_> {
    fn shown(&self, id: &DeviceId, record: Option<&DeviceRecord>, now: UnixTime) -> Shown {
        let current = compare(record.and_then(|record| record.cert_sha256.as_deref()), self.cert_sha256);
        let previous = record.and_then(|record| record.previous_certificate.as_ref()).filter(|(_, until)| now < *until);
        let was = compare(previous.map(|(sum, _)| &**sum), self.cert_sha256) == Some(true);
        let matches = if was { Some(true) } else { current };
        let own = matches == Some(true);
        let certificate = self.certificate.as_deref();
        let out_of_time = certificate.is_some_and(|certificate| certificate.is_out_of_time(now));
        let vouched = certificate.is_none_or(|certificate| certificate.vouched != Some(false));
        Shown {
            matches,
            proves: own && vouched && !out_of_time,
            expired: out_of_time && (own || self.certified() == Some(id)),
            unverified: own && !vouched,
        }
    }
}

/// When a request is looked at, and how old a posture may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) now: UnixTime,
    pub(super) posture_max_age: Duration,
}

/// Whether what was shown is what is recorded; `None` where one of them is not there.
fn compare(recorded: Option<&str>, shown: Option<&str>) -> Option<bool> {
    Some(subtle::ConstantTimeEq::ct_eq(recorded?.as_bytes(), shown?.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Option<Arc<DeviceRecord>> {
        Some(Arc::new(DeviceRecord {
            fingerprint: Some("fp".into()),
            cert_sha256: Some("cc".into()),
            jkt: Some("kk".into()),
            ..DeviceRecord::default()
        }))
    }

    const NOW: UnixTime = UnixTime::from_secs(1_000_000);
    const AT: At = At { now: NOW, posture_max_age: Duration::from_secs(3600) };

    fn sight(query: &DeviceQuery<'_>) -> DeviceSighting {
        query.sight("laptop".into(), record(), AT).unwrap()
    }

    const NAMED: DeviceQuery<'_> = DeviceQuery {
        id: Some("laptop"),
        fingerprint: None,
        token_device: None,
        cert_sha256: None,
        of_workload: false,
        certificate: None,
        jkt: None,
    };

    /// A certificate that names `device`, with this many seconds of life left.
    fn certificate(device: Option<&str>, vouched: Option<bool>, left: i64) -> Option<Arc<ClientCertificate>> {
        let end = UnixTime::from_secs(NOW.as_secs().saturating_add_signed(left));
        let life = Some((UnixTime::EPOCH, end));
        Some(Arc::new(ClientCertificate { device: device.map(Into::into), vouched, life }))
    }

    #[test]
    fn h08_a_thumbprint_proves_nothing_where_no_authority_vouches_for_it() {
        let shown = DeviceQuery { cert_sha256: Some("cc"), certificate: certificate(None, Some(false), 60), ..NAMED };
        let seen = sight(&shown);
        assert_eq!(seen.proof, DeviceProof::IdOnly);
        assert!(seen.evidence.certificate_unverified && !seen.key_differs);
        let pinned = DeviceQuery { certificate: certificate(None, None, 60), ..shown };
        assert_eq!(sight(&pinned).proof, DeviceProof::Key);
    }

    #[test]
    fn h08_the_certificate_names_the_device_and_a_header_cannot_name_another() {
        let own = DeviceQuery {
            id: None,
            cert_sha256: Some("cc"),
            certificate: certificate(Some("laptop"), Some(true), 60),
            ..NAMED
        };
        assert_eq!(own.named(), Some("laptop".into()));
        assert_eq!(sight(&own).proof, DeviceProof::Key);
        let stranger = DeviceQuery { id: Some("phone"), ..own };
        let nothing_known = Some(Arc::new(DeviceRecord::default()));
        assert!(stranger.sight("phone".into(), nothing_known, AT).unwrap().key_differs);
    }

    #[test]
    fn a_certificate_out_of_its_time_or_withdrawn_is_a_contradiction() {
        let certificate = |left| certificate(Some("laptop"), Some(true), left);
        let own = DeviceQuery { id: None, cert_sha256: Some("cc"), certificate: certificate(-1), ..NAMED };
        assert!(sight(&own).evidence.certificate_expired);
        assert_ne!(sight(&own).proof, DeviceProof::Key);
        let withdrawn = DeviceQuery { certificate: certificate(60), cert_sha256: Some("old"), ..own };
        assert!(sight(&withdrawn).key_differs);
        let cleared = Some(Arc::new(DeviceRecord::default()));
        assert!(withdrawn.sight("laptop".into(), cleared, AT).unwrap().key_differs);
    }

    #[test]
    fn the_certificate_before_a_renewal_counts_for_a_while() {
        let until = |seconds| {
            let previous_certificate = Some(("old".into(), UnixTime::from_secs(NOW.as_secs() + seconds)));
            Some(Arc::new(DeviceRecord { cert_sha256: Some("new".into()), previous_certificate, ..Default::default() }))
        };
        let query = DeviceQuery { cert_sha256: Some("old"), ..NAMED };
        assert_eq!(query.sight("laptop".into(), until(1), AT).unwrap().proof, DeviceProof::Key);
        assert!(query.sight("laptop".into(), until(0), AT).unwrap().key_differs);
    }

    #[test]
    fn a_posture_ages() {
        let checked = |ago: i64| {
            let checked_at = Some(UnixTime::from_secs(NOW.as_secs().saturating_add_signed(-ago)));
            NAMED.sight("laptop".into(), Some(Arc::new(DeviceRecord { checked_at, ..Default::default() })), AT).unwrap()
        };
        assert_eq!((checked(3600).evidence.posture_age, checked(3600).evidence.posture_stale), (Some(3600), false));
        assert!(checked(3601).evidence.posture_stale);
        assert!(!checked(-3600).evidence.posture_stale, "a clock that is a little off");
        assert!(checked(-2 * 24 * 3600).evidence.posture_stale, "a time that has not come says nothing");
        assert_eq!(sight(&NAMED).evidence.posture_age, None);
    }

    #[test]
    fn the_strongest_evidence_counts() {
        assert_eq!(sight(&NAMED).proof, DeviceProof::IdOnly);
        assert_eq!(sight(&DeviceQuery { fingerprint: Some("fp"), ..NAMED }).proof, DeviceProof::Fingerprint);
        assert_eq!(sight(&DeviceQuery { jkt: Some("kk"), ..NAMED }).proof, DeviceProof::Key);
        let both = DeviceQuery { fingerprint: Some("other"), cert_sha256: Some("cc"), ..NAMED };
        assert_eq!((sight(&both).proof, sight(&both).fingerprint_differs), (DeviceProof::Key, true));
    }

    #[test]
    fn another_certificate_than_the_records_is_a_contradiction_unless_the_key_proves_it() {
        let other = DeviceQuery { cert_sha256: Some("dd"), ..NAMED };
        assert!(sight(&other).key_differs);
        assert!(!sight(&DeviceQuery { jkt: Some("kk"), ..other.clone() }).key_differs);
        let between = sight(&DeviceQuery { of_workload: true, ..other });
        assert!(!between.key_differs && between.proof == DeviceProof::IdOnly);
    }

    #[test]
    fn a_tokens_device_is_seen_without_a_header_only_with_its_key() {
        let device = DeviceId::from("laptop");
        let query = DeviceQuery { token_device: Some(&device), cert_sha256: Some("cc"), ..DeviceQuery::default() };
        assert_eq!(query.named(), Some(device.clone()));
        assert_eq!(query.sight(device.clone(), record(), AT).unwrap().proof, DeviceProof::Key);
        let stranger = DeviceQuery { cert_sha256: Some("dd"), ..query.clone() };
        assert_eq!(stranger.sight(device.clone(), record(), AT), None);
        assert_eq!(DeviceQuery { cert_sha256: None, ..query }.named(), None);
    }

    #[test]
    fn another_device_than_the_tokens_is_told() {
        let device = DeviceId::from("phone");
        assert!(sight(&DeviceQuery { token_device: Some(&device), ..NAMED }).differs_from_token);
    }
}
