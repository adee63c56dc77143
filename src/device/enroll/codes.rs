//! One-time codes for enrolling a device: random, kept as a hash, used up by one atomic step.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::EnrollError;
use crate::{
    domain::Secret,
    store::{Store, keys},
};

/// What a code begins with, so that secret scanners know it.
const PREFIX: &str = "cse_";
/// Longest text that is looked at as a code.
const MAX_CODE: usize = 128;

/// Whose device a code enrols.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Invitation {
    pub(super) user: String,
    /// The id that the device gets; `None`: one is made.
    pub(super) device_id: Option<String>,
}

/// A code that was read and not used up yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) invitation: Invitation,
    key: String,
    value: Vec<u8>,
    life: Option<Duration>,
}

/// Codes in the store, by their hash.
#[derive(Debug)]
pub(super) struct Codes(pub(super) Arc<dyn Store>);

impl Codes {
    pub(super) async fn make(&self, invitation: &Invitation, life: Duration) -> Result<Secret, EnrollError> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| EnrollError::Random)?;
        let code = Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)));
        let value = serde_json::to_vec(invitation).map_err(|_| EnrollError::Random)?;
        self.0.create(&key(code.expose()), &value, Some(life)).await?;
        Ok(code)
    }

    /// Looks a code up without using it: what is wrong with the rest of a request is told before the code is gone.
    pub(super) async fn look_up(&self, code: &str) -> Result<Held, EnrollError> {
        if !code.starts_with(PREFIX) || code.len() > MAX_CODE {
            return Err(EnrollError::Code);
        }
        let key = key(code);
        let entry = self.0.read(std::slice::from_ref(&key)).await?.pop().ok_or(EnrollError::Code)??;
        let held = entry.ok_or(EnrollError::Code)?;
        let invitation = serde_json::from_slice(&held.value).map_err(|_| EnrollError::Code)?;
        Ok(Held { invitation, key, value: held.value, life: held.life })
    }

    /// Uses a code up. Of several that try at once, on whatever replica, one succeeds.
    pub(super) async fn consume(&self, held: &Held) -> Result<(), EnrollError> {
        let deleted = self.0.delete(std::slice::from_ref(&held.key)).await?;
        if deleted == 1 { Ok(()) } else { Err(EnrollError::Code) }
    }

    /// Gives a code back whose use failed for a reason of ours.
    pub(super) async fn give_back(&self, held: &Held) {
        if let Err(error) = self.0.create(&held.key, &held.value, held.life).await {
            tracing::warn!(%error, "an enrolment code is lost: make another");
        }
    }
}

fn key(code: &str) -> String {
    keys::enrollment_code(&hex::encode(digest::digest(&digest::SHA256, code.as_bytes())))
}
