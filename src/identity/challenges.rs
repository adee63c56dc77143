//! What a refusal offers the client in `WWW-Authenticate`: the schemes, the realm, the algorithms of proofs, `acr` values.

use super::{
    Algorithm,
    settings::{AcrValues, Settings},
};
use crate::decision::StepUpLevel;

/// Parts of `WWW-Authenticate` that the configuration decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenges {
    /// Plain printable text without quotes or backslashes.
    pub realm: String,
    /// `algs` of a DPoP challenge, separated by spaces; `None`: DPoP is off.
    pub dpop_algorithms: Option<String>,
    acr_values: AcrValues,
}

impl Challenges {
    pub fn new(settings: &Settings) -> Self {
        Self {
            realm: settings.realm.clone(),
            dpop_algorithms: settings.dpop.enabled.then(|| names(&settings.dpop.algorithms).join(" ")),
            acr_values: settings.acr_values.clone(),
        }
    }

    /// `acr_values` of a step-up challenge: what the authorization server calls this kind of authentication.
    pub fn acr_values(&self, level: StepUpLevel) -> &str {
        match level {
            StepUpLevel::Mfa => &self.acr_values.mfa,
            StepUpLevel::PhishingResistant => &self.acr_values.phishing_resistant,
            StepUpLevel::Hardware => &self.acr_values.hardware,
        }
    }
}

/// Each name once, whatever was written twice.
fn names(algorithms: &[Algorithm]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in algorithms.iter().flat_map(|algorithm| algorithm.names()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_offers_each_name_of_an_algorithm_once() {
        let offered = |algorithms: &[Algorithm]| names(algorithms).join(" ");
        assert_eq!(offered(&[Algorithm::ES256, Algorithm::EdDsa]), "ES256 EdDSA Ed25519");
        assert_eq!(offered(&[Algorithm::EdDsa, Algorithm::EdDsa]), "EdDSA Ed25519");
    }
}
