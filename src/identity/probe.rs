//! Ways into the parsers for fuzzers and for test vectors of others: the same code that requests reach, without a server.
//!
//! Nothing here is used by the service, and nothing here can make an identity.

use serde_json::Value;

use super::{
    Algorithm, IssuerSettings,
    issuer::IssuerState,
    jwk::{KeyProblem, VerifyingKey},
    key_set::{KeySet, KeySetProblem},
    settings::KeySetSettings,
    verify::verify,
};
use crate::domain::UnixTime;

/// Whether `signature` of `message` verifies with the key that `jwk` holds.
///
/// # Errors
///
/// The key is not used for this algorithm, and why.
pub fn signature(jwk: &Value, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<bool, KeyProblem> {
    Ok(VerifyingKey::from_jwk(jwk, &[algorithm])?.verify(algorithm, message, signature))
}

/// How many keys of a document are usable, and why the others are not.
///
/// # Errors
///
/// The document would not replace a good set.
pub fn key_set(text: &[u8]) -> Result<(usize, Vec<KeyProblem>), KeySetProblem> {
    let set = KeySet::parse(text, &Algorithm::ALL)?.usable()?;
    Ok((set.len(), set.ignored.iter().map(|(_, problem)| *problem).collect()))
}

/// An issuer with a fixed key set, to throw tokens at.
#[derive(Debug)]
pub struct Target([IssuerState; 1]);

impl Target {
    /// # Errors
    ///
    /// `keys` is no key set.
    pub fn new(issuer: IssuerSettings, keys: &[u8], now: UnixTime) -> Result<Self, KeySetProblem> {
        let set = KeySet::parse(keys, &issuer.algorithms)?.usable()?;
        let state = IssuerState::new(issuer, &KeySetSettings::default());
        state.keys.take(set, now);
        Ok(Self([state]))
    }

    /// Whether `token` verifies.
    pub fn accepts(&self, token: &str, now: UnixTime) -> bool {
        verify(token, &self.0, now).is_ok()
    }
}
