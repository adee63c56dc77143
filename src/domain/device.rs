//! A device's record in the registry, and what one request showed of the device it comes from.

use std::{ops::Not, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::{DeviceId, SubjectId, TrustScore, UnixTime, is_default};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A record of the registry, as operators, MDM exporters, enrolment and signals write it. `None` is "unknown".
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub user: Option<SubjectId>,
    pub fingerprint: Option<Arc<str>>,
    /// Lower-case hexadecimal SHA-256 of the DER certificate.
    pub cert_sha256: Option<Arc<str>>,
    /// The certificate before the last renewal, and until when it still counts: requests under way are not cut off.
    pub previous_certificate: Option<(Arc<str>, UnixTime)>,
    /// RFC 7638 thumbprint of the device's DPoP key, base64url.
    pub jkt: Option<Arc<str>>,
    pub managed: Option<bool>,
    pub compliant: Option<bool>,
    pub patch_level: Option<PatchLevel>,
    pub os: Option<Arc<str>>,
    pub os_version: Option<Arc<str>>,
    pub jailbroken: Option<bool>,
    pub disk_encrypted: Option<bool>,
    pub screen_lock: Option<bool>,
    pub antivirus: Option<bool>,
    pub status: DeviceStatus,
    /// Why it has this status, for people.
    pub status_reason: Option<Arc<str>>,
    pub trust_score: Option<TrustScore>,
    pub enrolled_at: Option<UnixTime>,
    /// When the certificate that it enrolled with ends.
    pub cert_expires_at: Option<UnixTime>,
    /// When somebody last looked at the posture. `None`: nobody says, and it does not age.
    pub checked_at: Option<UnixTime>,
}

impl DeviceRecord {
    /// Whether the record names a key that never leaves the device.
    pub fn is_bound_to_a_key(&self) -> bool {
        self.cert_sha256.is_some() || self.jkt.is_some()
    }

    /// Seconds since the posture was checked, and whether nothing in it is known any more: that is longer ago than
    /// `longest`, or at a time that has not come.
    pub fn posture_age(&self, now: UnixTime, longest: Duration) -> (Option<u64>, bool) {
        let age = self.checked_at.map(|checked| (now.since(checked).as_secs(), is_ahead(checked, now)));
        let stale = age.is_some_and(|(seconds, ahead)| ahead || seconds > longest.as_secs());
        (age.map(|(seconds, _)| seconds), stale)
    }

    /// Whether somebody says that it does not keep its rules.
    pub fn is_not_compliant(&self) -> bool {
        self.compliant == Some(false)
    }

    pub fn is_jailbroken(&self) -> bool {
        self.jailbroken == Some(true)
    }

    /// Whether the record by itself speaks against the device, whoever comes from it and however that is proven.
    pub fn is_refused(&self) -> bool {
        self.status != DeviceStatus::Active || self.is_jailbroken() || self.is_not_compliant()
    }
}

/// Whether `time` is so far ahead that no clock which is a little off, and no time zone, explains it.
fn is_ahead(time: UnixTime, now: UnixTime) -> bool {
    time > now.plus(DAY)
}

/// How current a device's patches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchLevel {
    Current,
    /// Days behind.
    Days(u32),
    /// The date of the last patch.
    Since(UnixTime),
}

impl PatchLevel {
    /// How old the last patch is. `None`: of a day that has not come, which says nothing.
    pub fn age(self, now: UnixTime) -> Option<Duration> {
        match self {
            Self::Current => Some(Duration::ZERO),
            Self::Days(days) => Some(DAY * days),
            Self::Since(time) => (!is_ahead(time, now)).then(|| now.since(time)),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceStatus {
    #[default]
    Active,
    Suspended,
    Revoked,
}

impl DeviceStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "active" => Some(Self::Active),
            "suspended" => Some(Self::Suspended),
            "revoked" => Some(Self::Revoked),
            _ => None,
        }
    }
}

/// The best evidence in this request that it comes from the device it names, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceProof {
    /// Named, and nothing else.
    IdOnly,
    /// The fingerprint header matches the record: anybody can copy it.
    Fingerprint,
    /// A DPoP key or client certificate that the record names.
    Key,
}

impl DeviceProof {
    /// How much of the registry's trust this evidence carries over.
    pub const fn weight(self) -> f64 {
        match self {
            Self::IdOnly => 0.3,
            Self::Fingerprint => 0.6,
            Self::Key => 1.0,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdOnly => "id_only",
            Self::Fingerprint => "fingerprint",
            Self::Key => "key",
        }
    }
}

/// What a request shows of its device. `Fact::Absent` around it means that no device was named at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceSighting {
    pub id: DeviceId,
    /// The registry's record; `None`: named, and not registered.
    pub record: Option<Arc<DeviceRecord>>,
    pub proof: DeviceProof,
    /// A fingerprint header was sent and differs from the record's.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub fingerprint_differs: bool,
    /// A certificate or key was presented and the record names another.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub key_differs: bool,
    /// The token names another device than the request.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub differs_from_token: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub evidence: DeviceEvidence,
}

/// What speaks for or against a sighting beside the comparison with the record.
#[skip_serializing_none]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceEvidence {
    /// The device's own certificate was shown outside its time.
    #[serde(skip_serializing_if = "Not::not")]
    pub certificate_expired: bool,
    /// The recorded certificate was shown, and no configured authority vouches for it: it proves nothing.
    #[serde(skip_serializing_if = "Not::not")]
    pub certificate_unverified: bool,
    /// Seconds since the posture was checked.
    pub posture_age: Option<u64>,
    /// The posture was checked longer ago than the configuration allows: nothing in it is known any more.
    #[serde(skip_serializing_if = "Not::not")]
    pub posture_stale: bool,
}
