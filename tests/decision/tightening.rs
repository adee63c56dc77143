//! What a route adds may only tighten, and what was asked for once is not asked for of a token that shows it.

use std::sync::Arc;

use countersign::{
    decision::decide,
    domain::*,
    policy::{Options, RuleSet, Rules, model::*},
};

use crate::world::*;

/// `/x`, bound to nothing, and a policy that covers `confidential`.
fn covering(bound_by_rules: bool, own: Option<Classification>) -> RuleSet {
    let mut policy = Policy::new("sensitive");
    policy.conditions.data_classification = vec![Classification::Confidential, Classification::Restricted];
    let mut set = bound(policy);
    set.resources[0].data_classification = own;
    if !bound_by_rules {
        (set.resources[0].policy, set.resources[0].access) = (None, Access::Authenticated);
    }
    let raised =
        Resource { data_classification: Some(Classification::Confidential), ..Resource::new("raised", "/raised") };
    set.resources.push(Resource { policy: Some("sensitive".into()), ..raised });
    set
}

#[test]
fn a_route_that_raises_the_class_of_data_does_not_make_a_policy_cover_it() {
    use Classification::{Confidential, Internal, Secret};
    let of = |bound_by_rules, own, extensions: RouteExtensions| {
        let mut facts = facts("GET", "/x");
        facts.request.extensions = extensions;
        told(&decided(&facts, covering(bound_by_rules, own)))
    };
    let raise = |class| RouteExtensions { data_classification: Some(class), ..Default::default() };
    let name = |policy: Option<&str>, resource: Option<&str>, class| RouteExtensions {
        policy: policy.map(Into::into),
        resource: resource.map(Into::into),
        data_classification: class,
        ..Default::default()
    };
    let refused = "deny:classification_not_covered";
    for own in [None, Some(Internal)] {
        assert_eq!(of(true, own, RouteExtensions::default()), refused, "{own:?}");
        assert_eq!(of(true, own, raise(Confidential)), refused, "{own:?}, raised");
        assert_eq!(of(true, own, name(None, Some("raised"), None)), refused, "{own:?}, raised by a resource");
        assert_eq!(of(false, own, name(Some("sensitive"), None, Some(Confidential))), refused, "{own:?}, by the route");
        // The policy binds the other resource alone, whose class it covers.
        assert_eq!(of(false, own, name(None, Some("raised"), None)), "allow", "{own:?}, another resource's policy");
    }
    assert_eq!(of(true, Some(Confidential), RouteExtensions::default()), "allow");
    assert_eq!(of(true, Some(Confidential), raise(Internal)), "allow", "nothing is lowered");
    assert_eq!(of(true, Some(Confidential), raise(Secret)), refused);
    assert_eq!(of(false, Some(Confidential), name(Some("sensitive"), None, None)), "allow");
}

#[test]
fn a_token_is_not_asked_for_the_acr_that_it_carries() {
    let mut policy = Policy::new("passkeys");
    policy.conditions.required_auth_methods = methods(&[AuthMethod::Biometric]);
    let acr_values = AcrValues { mfa: "mfa".into(), phishing_resistant: "phr".into(), hardware: "phrh".into() };
    let options = Options { risk_model: RiskModel::Fixed, acr_values, ..Options::default() };
    let rules = Rules::build("test", bound(policy), None, options).unwrap();
    let at = |acr: Option<&str>, authenticated| {
        let mut facts = facts("GET", "/x");
        with_identity(&mut facts, |identity| {
            // The issuer's settings count its `phr` as no more than this.
            identity.methods = methods(&[AuthMethod::Password, AuthMethod::MfaPush]);
            (identity.acr, identity.auth_time) = (acr.map(Arc::from), Some(ago(authenticated)));
        });
        decide(&facts, &rules)
    };
    assert_eq!(told(&at(None, 5)), "step-up:authentication_method_required");
    assert_eq!(told(&at(Some("mfa"), 5)), "step-up:authentication_method_required");
    let again = at(Some("phr"), 5);
    assert_ne!(
        again.step_up.and_then(|asked| asked.level),
        Some(countersign::decision::StepUpLevel::PhishingResistant)
    );
    assert_eq!(
        (told(&at(Some("phr"), 1000)).as_str(), at(Some("phr"), 1000).step_up.unwrap().max_age),
        ("step-up:authentication_method_required", Some(300))
    );
}
