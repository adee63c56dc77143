//! How somebody authenticated, from `amr` (RFC 8176) and `acr`, in the words the rules use.

use std::collections::BTreeMap;

use crate::domain::{AuthMethod, AuthMethods};

/// What one `amr` value stands for.
///
/// `swk` and `pop` prove a key kept in software, which is what a TOTP seed on a phone is too: a second factor, and not the
/// certificate or hardware that `privileged` asks for. `sms` and `tel` count as the least of the second factors. `geo`,
/// `rba` and `user` prove nothing about who it is.
fn of_amr(value: &str) -> Option<AuthMethod> {
    Some(match value {
        "pwd" | "pin" | "kba" | "wia" => AuthMethod::Password,
        "otp" | "sms" | "tel" | "swk" | "pop" => AuthMethod::MfaTotp,
        "mca" | "push" => AuthMethod::MfaPush,
        "hwk" | "sc" | "fido" => AuthMethod::HardwareKey,
        "fpt" | "face" | "iris" | "retina" | "vbm" => AuthMethod::Biometric,
        "x509" => AuthMethod::Certificate,
        ours => return AuthMethod::parse(ours),
    })
}

/// Values of `acr` that are known by themselves. What a step-up asks for by default (`mfa`, `phr`, `phrh`) comes back as
/// what it asked for: `phr` (phishing-resistant, OpenID EAP) is a passkey or another key that its person unlocks.
fn of_acr(value: &str) -> Option<AuthMethods> {
    let only = |method| AuthMethods::NONE.with(method);
    Some(match value {
        "aal1" | "urn:okta:loa:1fa:any" | "urn:okta:loa:1fa:pwd" | "https://refeds.org/profile/sfa" => {
            only(AuthMethod::Password)
        }
        "mfa"
        | "aal2"
        | "urn:okta:loa:2fa:any"
        | "https://refeds.org/profile/mfa"
        | "http://schemas.openid.net/pape/policies/2007/06/multi-factor" => {
            only(AuthMethod::Password).with(AuthMethod::MfaTotp)
        }
        "phr" | "http://schemas.openid.net/pape/policies/2007/06/phishing-resistant" => only(AuthMethod::Biometric),
        "phrh"
        | "aal3"
        | "urn:okta:loa:2fa:any:hwk"
        | "http://schemas.openid.net/pape/policies/2007/06/multi-factor-physical" => only(AuthMethod::HardwareKey),
        _ => return None,
    })
}

/// The methods of `amr` and `acr` together. Nothing known counts as a password.
pub(super) fn methods(amr: &[&str], acr: Option<&str>, configured: &BTreeMap<String, Vec<AuthMethod>>) -> AuthMethods {
    let mut found: AuthMethods = amr.iter().filter_map(|value| of_amr(value)).collect();
    if let Some(acr) = acr {
        let known = configured.get(acr).map(|methods| methods.iter().copied().collect()).or_else(|| of_acr(acr));
        found = found.union(known.unwrap_or_default());
    }
    if amr.contains(&"mfa") && !found.is_multi_factor() {
        found = found.with(AuthMethod::MfaTotp);
    }
    if found.is_empty() { AuthMethods::NONE.with(AuthMethod::Password) } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(amr: &[&str], acr: Option<&str>) -> Vec<AuthMethod> {
        methods(amr, acr, &BTreeMap::new()).iter().collect()
    }

    #[test]
    fn the_values_of_rfc_8176_map_onto_the_methods_of_the_rules() {
        use AuthMethod::*;
        assert_eq!(of(&["pwd", "otp"], None), [Password, MfaTotp]);
        assert_eq!(of(&["hwk", "fpt"], None), [Biometric, HardwareKey]);
        assert_eq!(of(&["mfa_push"], None), [MfaPush]);
        assert_eq!(of(&["swk"], None), [MfaTotp]);
    }

    #[test]
    fn mfa_without_its_factor_is_the_least_second_factor_and_adds_nothing_to_a_named_one() {
        use AuthMethod::*;
        assert_eq!(of(&["pwd", "mfa"], None), [Password, MfaTotp]);
        assert_eq!(of(&["pwd", "mfa", "hwk"], None), [Password, HardwareKey]);
    }

    #[test]
    fn nothing_known_is_a_password() {
        use AuthMethod::*;
        assert_eq!(of(&[], None), [Password]);
        assert_eq!(of(&["unheard-of", "geo"], Some("silver")), [Password]);
    }

    #[test]
    fn what_a_challenge_asks_for_by_default_counts_as_what_it_asked_for() {
        use crate::decision::StepUpLevel;
        let asked = crate::identity::settings::AcrValues::default();
        for (value, level) in [
            (&asked.mfa, StepUpLevel::Mfa),
            (&asked.phishing_resistant, StepUpLevel::PhishingResistant),
            (&asked.hardware, StepUpLevel::Hardware),
        ] {
            assert!(level.is_shown_by(methods(&[], Some(value), &BTreeMap::new())), "{value}");
        }
    }

    #[test]
    fn a_known_or_configured_acr_counts() {
        use AuthMethod::*;
        assert_eq!(of(&[], Some("phrh")), [HardwareKey]);
        assert_eq!(of(&["pwd"], Some("phr")), [Password, Biometric]);
        assert_eq!(of(&["otp"], Some("aal1")), [Password, MfaTotp]);
        let configured = [("gold".to_owned(), vec![Biometric])].into();
        assert_eq!(methods(&["pwd"], Some("gold"), &configured).iter().collect::<Vec<_>>(), [Password, Biometric]);
    }
}
