//! What a refusal offers the client in `WWW-Authenticate`: the schemes, the realm, the algorithms of proofs, `acr` values.

use super::settings::{AcrValues, Settings};
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
        let algorithms = settings.dpop.algorithms.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>();
        Self {
            realm: settings.realm.clone(),
            dpop_algorithms: settings.dpop.enabled.then(|| algorithms.join(" ")),
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
