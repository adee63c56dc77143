//! What stands in the way of an enrolment or a renewal by itself: an id, a name or a life that cannot be, a device that is
//! barred.

use std::time::Duration;

use super::{EnrollError, settings};
use crate::{
    domain::{DeviceId, DeviceRecord, DeviceStatus, RevocationKind},
    store::{Store, keys},
};

/// Longest id of an enrolled device and longest name of a user, in octets.
pub(super) const MAX_ID: usize = 128;
pub(super) const MAX_USER: usize = 256;

pub(super) fn not_barred(record: &DeviceRecord) -> Result<(), EnrollError> {
    match record.status {
        DeviceStatus::Active => Ok(()),
        status => Err(EnrollError::Barred(status.as_str())),
    }
}

/// A revocation outlives its device's record. While its key stands, a reinstatement beside it takes nothing back.
pub(super) async fn not_revoked(store: &dyn Store, id: &DeviceId) -> Result<(), EnrollError> {
    let found = store.read(&[keys::revoked(RevocationKind::Device, id.as_str())]).await?;
    match found.as_slice() {
        [Ok(None)] => Ok(()),
        _ => Err(EnrollError::Barred("revoked")),
    }
}

/// An id that is also a segment of a SPIFFE id.
pub(super) fn checked_id(id: &str) -> Result<&str, EnrollError> {
    let plain = id.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet));
    let fine = plain && !id.is_empty() && id.len() <= MAX_ID && !matches!(id, "." | "..");
    if fine { Ok(id) } else { Err(EnrollError::Id) }
}

/// Bounded as the setting `code_life` is: whoever finds an old code shall find it useless.
pub(super) fn check_life(life: Duration) -> Result<(), EnrollError> {
    if (Duration::from_secs(1)..=settings::LONGEST).contains(&life) { Ok(()) } else { Err(EnrollError::Life) }
}

pub(super) fn checked_user(user: &str) -> Result<&str, EnrollError> {
    let fine = !user.trim().is_empty() && user.len() <= MAX_USER && !user.chars().any(char::is_control);
    if fine { Ok(user) } else { Err(EnrollError::User) }
}

pub(super) fn random_id() -> Result<DeviceId, EnrollError> {
    let mut random = [0; 12];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| EnrollError::Random)?;
    Ok(DeviceId::from(format!("dev-{}", hex::encode(random))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::UnixTime, store::memory::Memory};

    #[test]
    fn a_code_lives_no_longer_than_the_setting_may_say() {
        let day = Duration::from_secs(24 * 3600);
        assert!(check_life(day * 90).is_ok() && check_life(Duration::from_secs(1)).is_ok());
        for life in [Duration::ZERO, day * 91, day * 365 * 32] {
            assert!(matches!(check_life(life), Err(EnrollError::Life)), "{life:?}");
        }
    }

    #[tokio::test]
    async fn a_device_whose_revocation_stands_does_not_enrol_whatever_stands_beside_it() {
        let (store, id) = (Memory::new(|| UnixTime::EPOCH), DeviceId::from("laptop"));
        store.write("cs:reinstated:device:laptop", b"deleted", None).await.unwrap();
        assert!(not_revoked(&store, &id).await.is_ok());
        store.write("cs:revoked:device:laptop", b"stolen", None).await.unwrap();
        assert!(not_revoked(&store, &id).await.is_err());
    }
}
