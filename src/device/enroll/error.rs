//! Why a device is not enrolled, in words for whoever enrols it.

use super::{
    AuthorityError, Issue, RequestProblem,
    permission::{MAX_ID, MAX_USER},
};
use crate::{device::Malformed, store::StoreError};

/// Why a device is not enrolled, or its certificate not renewed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error("the code is not known, was used, or has expired")]
    Code,
    #[error(transparent)]
    Request(#[from] RequestProblem),
    #[error("`{0}` of the device cannot be read")]
    Posture(&'static str),
    #[error("an id has 1 to {MAX_ID} letters, digits, `.`, `_` and `-`")]
    Id,
    #[error("a one-time code works from 1s to 90d")]
    Life,
    #[error("a user has 1 to {MAX_USER} octets without control characters")]
    User,
    /// Everything that is wrong, with what to do.
    #[error("the device does not meet the requirements: {}", listed(.0))]
    NotCompliant(Vec<Issue>),
    #[error("the device is registered to somebody else")]
    OtherOwner,
    #[error("the device is {0}")]
    Barred(&'static str),
    #[error("the device is not enrolled")]
    NotEnrolled,
    #[error("the certificate is not the device's, or not one of ours")]
    Certificate,
    #[error("the certificate has expired: enrol the device again")]
    Expired,
    #[error("the time is more than five minutes off: set the device's clock")]
    Clock,
    #[error("the signature is not one of the certificate's key over this request")]
    Signature,
    #[error("this request was granted already: sign a new one")]
    Replayed,
    #[error("the device's record has changed meanwhile: ask again")]
    Changed,
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("no randomness, or nowhere to put it")]
    Random,
}

impl From<Malformed> for EnrollError {
    fn from(error: Malformed) -> Self {
        Self::Store(error.into())
    }
}

fn listed(issues: &[Issue]) -> String {
    let lines: Vec<String> = issues.iter().map(|issue| format!("{} ({})", issue.message, issue.remediation)).collect();
    lines.join("; ")
}
