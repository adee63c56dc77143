use std::{sync::Arc, time::Duration};

use countersign::{
    decision::{
        ActionRequired, Class, Detail, Grant, LiveFacts, Outcome, Reason, StepUpLevel, Target, assess, authorize,
        decide,
    },
    domain::*,
    policy::model::{Access, DeviceMode, Policy, RateLimit, RateScope, Resource},
};

use crate::world::*;

#[test]
fn a_clerk_with_a_second_factor_on_an_enrolled_laptop_reads_orders() {
    let decision = decided(&facts("GET", "/orders/7"), shop());
    assert_eq!(told(&decision), "allow", "{decision:#?}");
    assert_eq!(decision.grant, Some(Grant::Role("clerk".into())));
    assert_eq!(decision.resource.as_deref(), Some("orders"));
    assert_eq!(decision.status(), 200);
    // No points are 0, not -0, which a JSON reader would show.
    assert!(decision.risk.score.get() == 0.0 && decision.risk.score.get().is_sign_positive());
    assert_eq!(decision.stream_limit, None);
}

#[test]
fn a_stream_is_limited_where_the_request_or_the_rules_say_that_it_is_one() {
    let mut asked = facts("GET", "/orders/7");
    asked.request.long_lived = true;
    assert_eq!(decided(&asked, shop()).stream_limit, Some(3_540_000));
    let mut rules = shop();
    let orders = rules.resources.iter_mut().find(|resource| &*resource.id == "orders");
    orders.expect("a shop has orders").streaming = true;
    assert_eq!(decided(&facts("GET", "/orders/7"), rules).stream_limit, Some(3_540_000));
}

#[test]
fn what_begins_in_the_leeway_of_its_token_gets_the_rest_of_it() {
    let mut asked = facts("GET", "/orders/7");
    asked.request.long_lived = true;
    for (expired, left) in [(ago(10), 20_000), (NOW, 30_000), (UnixTime::from_secs(NOW.as_secs() + 1), 1_000)] {
        let valid_until = Some(expired.plus(Duration::from_secs(30)));
        let identity = Arc::new(Identity { expires_at: expired, valid_until, ..identity() });
        asked.credential = Fact::known(Credential::Verified { identity, proof: None }, NOW);
        let decision = decided(&asked, shop());
        assert_eq!((decision.session_ttl, decision.stream_limit), (Some(left / 1000), Some(left)), "{expired:?}");
    }
}

#[test]
fn a_service_is_certified_by_a_certificate_in_its_time_and_a_spiffe_id_by_a_trust_domain_besides() {
    let mut rules = shop();
    let me = rules.resources.iter_mut().find(|resource| &*resource.id == "me");
    me.expect("a shop has me").device = Some(DeviceMode::Always);
    for (principal, trust_domain, out_of_time, certified) in [
        ("app.example", None, false, true),
        ("app.example", None, true, false),
        ("spiffe://td/app", Some("td"), false, true),
        ("spiffe://td/app", None, false, false),
        ("spiffe://td/app", None, true, false),
    ] {
        let mut asked = facts("GET", "/me");
        with_identity(&mut asked, |identity| {
            (identity.kind, identity.subject) = (SubjectKind::Service, principal.into());
            identity.methods = AuthMethods::NONE;
        });
        let trust_domain = trust_domain.map(Into::into);
        let workload = Workload { principal: principal.into(), cert_sha256: None, trust_domain, out_of_time };
        (asked.device, asked.workload) = (Fact::Absent, known(workload));
        let decision = decided(&asked, rules.clone());
        let expected = if certified { "allow" } else { "deny:device_not_registered" };
        assert_eq!(told(&decision), expected, "{principal} {out_of_time} {certified}");
    }
}

#[test]
fn no_rule_no_access() {
    for (method, path, expected) in [
        ("GET", "/elsewhere", "deny:no_matching_resource"),
        ("DELETE", "/orders/7", "deny:method_not_allowed"),
        ("PUT", "/orders/7", "deny:permission_missing"),
        ("TRACE", "/me", "deny:method_not_allowed"),
        ("GET", "/me/../orders/7", "deny:malformed_path"),
    ] {
        assert_eq!(told(&decided(&facts(method, path), shop())), expected, "{method} {path}");
    }
}

#[test]
fn bad_credentials_are_401_everywhere_but_on_public_resources() {
    for (credential, expected) in [
        (Fact::Absent, "deny:no_credentials"),
        (Fact::NotAsked, "deny:credentials_unknown"),
        (Fact::Unavailable(Unavailable::Timeout), "deny:credentials_unknown"),
        (known(Credential::Refused(CredentialProblem::Unsupported)), "deny:no_credentials"),
        (known(Credential::Refused(CredentialProblem::Invalid)), "deny:token_invalid"),
        (known(Credential::Refused(CredentialProblem::Expired)), "deny:token_expired"),
        (known(Credential::Refused(CredentialProblem::Ambiguous)), "deny:ambiguous_credentials"),
    ] {
        for (path, expected) in [("/orders/7", expected), ("/unknown", expected), ("/public/a", "allow")] {
            let facts = Facts { credential: credential.clone(), ..facts("GET", path) };
            let decision = decided(&facts, shop());
            let expected = if path == "/unknown" && expected == "deny:credentials_unknown" {
                "deny:no_matching_resource" // 403 comes before 503
            } else {
                expected
            };
            assert_eq!(told(&decision), expected, "{path} {credential:?}");
        }
    }
}

#[test]
fn revoked_and_not_known_to_be_unrevoked_are_told_apart() {
    for (revocation, expected, status) in [
        (known(Revocation::Revoked(RevocationKind::Token)), "deny:token_revoked", 401),
        (known(Revocation::Revoked(RevocationKind::Subject)), "deny:subject_revoked", 401),
        (Fact::Unavailable(Unavailable::Store), "deny:revocation_unknown", 503),
        (Fact::Absent, "deny:revocation_unknown", 503),
        (Fact::NotAsked, "deny:revocation_unknown", 503),
    ] {
        let decision = decided(&Facts { revocation, ..facts("GET", "/orders/7") }, shop());
        assert_eq!((told(&decision).as_str(), decision.status()), (expected, status));
        assert_eq!(decision.retry_after.is_some(), status == 503);
    }
}

#[test]
fn a_bare_password_on_an_unknown_device_steps_up_and_mfa_is_all_it_takes() {
    let mut facts = Facts { device: Fact::Absent, ..facts("GET", "/orders/7") };
    with_identity(&mut facts, |identity| identity.methods = methods(&[AuthMethod::Password]));
    let decision = decided(&facts, shop());
    assert_eq!(told(&decision), "step-up:mfa_required");
    assert_eq!(decision.risk.score.get(), 5.0);
    let step_up = decision.step_up.unwrap();
    assert_eq!((step_up.level, step_up.max_age), (Some(StepUpLevel::Mfa), None));
    with_identity(&mut facts, |identity| identity.methods = identity.methods.with(AuthMethod::MfaTotp));
    assert_eq!(told(&decided(&facts, shop())), "allow");
}

#[test]
fn a_step_up_is_not_offered_where_it_would_not_lead_to_an_allow() {
    let mut facts = Facts { device: Fact::Absent, ..facts("PUT", "/orders/7") };
    with_identity(&mut facts, |identity| identity.methods = methods(&[AuthMethod::Password]));
    assert_eq!(told(&decided(&facts, shop())), "deny:permission_missing");
}

#[test]
fn nine_hours_after_login_only_a_fresh_login_is_asked_for() {
    let mut facts = facts("GET", "/orders/7");
    with_identity(&mut facts, |identity| identity.auth_time = Some(ago(9 * 3600)));
    let decision = decided(&facts, shop());
    assert_eq!(told(&decision), "step-up:trust_too_low");
    let step_up = decision.step_up.unwrap();
    assert_eq!((step_up.level, step_up.max_age), (None, Some(300)));
}

#[test]
fn a_token_that_has_what_would_be_asked_for_gets_a_refusal_not_a_loop() {
    let mut set = shop();
    set.resources[2].min_trust_level = Some(TrustLevel::Privileged);
    let mut facts = Facts { device: Fact::Absent, ..facts("GET", "/orders/7") };
    with_identity(&mut facts, |identity| {
        identity.methods = AuthMethod::ALL.into_iter().take(3).chain([AuthMethod::Biometric]).collect();
    });
    let decision = decided(&facts, set);
    // A hardware key would do, so it is asked for; once it is there, nothing is left to ask.
    assert_eq!(told(&decision), "step-up:trust_too_low");
    assert_eq!(decision.step_up.unwrap().level, Some(StepUpLevel::Hardware));
    let mut set = shop();
    set.resources[2].policy = Some("strict".into());
    let mut strict = Policy::new("strict");
    strict.conditions.min_trust_score = Some(1.0);
    set.policies = vec![strict];
    let mut facts = Facts { device: Fact::Absent, ..facts };
    with_identity(&mut facts, |identity| identity.methods = methods(&[AuthMethod::Password, AuthMethod::HardwareKey]));
    let decision = decided(&facts, set);
    assert_eq!((told(&decision).as_str(), decision.status()), ("deny:trust_too_low", 403));
    assert_eq!((decision.class, decision.action_required()), (Some(Class::Refused), ActionRequired::ContactAdmin));
}

#[test]
fn a_method_that_a_challenge_cannot_name_is_asked_for_once() {
    let mut set = shop();
    set.resources[2].policy = Some("push".into());
    let mut push = Policy::new("push");
    push.conditions.required_auth_methods = methods(&[AuthMethod::Password, AuthMethod::MfaPush]);
    set.policies = vec![push];
    let at = |used: &[AuthMethod], authenticated| {
        let mut facts = facts("GET", "/orders/7");
        with_identity(&mut facts, |identity| {
            identity.methods = methods(used);
            identity.auth_time = Some(ago(authenticated));
        });
        decided(&facts, set.clone())
    };
    let asked = |decision: &countersign::decision::Decision| {
        let step_up = decision.step_up.unwrap();
        (step_up.level, step_up.max_age)
    };
    let bare = at(&[AuthMethod::Password], 5);
    assert_eq!(told(&bare), "step-up:authentication_method_required");
    assert_eq!(asked(&bare), (Some(StepUpLevel::Mfa), None));
    // `acr_values="mfa"` alone would be answered by the very token at hand.
    let other = [AuthMethod::Password, AuthMethod::MfaTotp];
    assert_eq!(asked(&at(&other, 1000)), (Some(StepUpLevel::Mfa), Some(300)));
    let anew = at(&other, 5);
    assert_eq!((told(&anew).as_str(), anew.status()), ("deny:authentication_method_required", 403));
    assert_eq!(told(&at(&[AuthMethod::Password, AuthMethod::MfaPush], 1000)), "allow");
}

#[test]
fn a_token_that_never_says_when_its_person_authenticated_is_not_asked_for_again_and_again() {
    let unusual = Place { unusual: true, ..place() };
    let at = |issued: u64, session: Fact<SessionState>| {
        let mut facts = Facts { place: known(unusual.clone()), session, ..facts("GET", "/me") };
        with_identity(&mut facts, |identity| (identity.auth_time, identity.issued_at) = (None, ago(issued)));
        decided(&facts, shop())
    };
    let challenged = |before: u64| {
        known(SessionState {
            challenged_at: Some(ago(before)),
            ..SessionState::begun(ago(4000), ago(60), TrustLevel::High)
        })
    };
    for (issued, session, expected) in [
        (600, Fact::NotAsked, "step-up:location_step_up"),
        (20, Fact::NotAsked, "deny:location_step_up"),
        (600, challenged(30), "step-up:location_step_up"),
        (20, challenged(30), "deny:location_step_up"),
        (600, challenged(3000), "deny:location_step_up"),
    ] {
        assert_eq!(told(&at(issued, session)), expected, "issued {issued} s ago");
    }
}

#[test]
fn a_token_that_nobody_dates_is_as_old_as_its_session() {
    let (begun, expires_at) = (ago(9 * 3600), UnixTime::from_secs(NOW.as_secs() + 15 * 3600));
    let at = |issued_at: UnixTime, issue_unstated| {
        let session = known(SessionState::begun(begun, begun, TrustLevel::Medium));
        let mut facts = Facts { session, ..facts("GET", "/me") };
        with_identity(&mut facts, |identity| {
            *identity = Identity { auth_time: None, issued_at, issue_unstated, expires_at, ..identity.clone() };
        });
        decided(&facts, shop())
    };
    let (dated, undated) = (at(begun, false), at(ago(20), true));
    assert_eq!(told(&dated), "step-up:reverification_due");
    assert_eq!(told(&undated), told(&dated));
    assert_eq!((undated.trust.score, undated.trust.level), (dated.trust.score, dated.trust.level));
    assert_eq!(told(&at(ago(20), false)), "allow");
}

#[test]
fn a_service_is_never_challenged() {
    let mut facts = Facts { device: Fact::Absent, ..facts("GET", "/orders/7") };
    with_identity(&mut facts, |identity| {
        identity.kind = SubjectKind::Service;
        identity.methods = methods(&[AuthMethod::Password]);
    });
    assert_eq!(told(&decided(&facts, shop())), "allow");
    let mut set = shop();
    set.resources[2].min_trust_level = Some(TrustLevel::High);
    let decision = decided(&facts, set);
    assert_eq!((told(&decision).as_str(), decision.status()), ("deny:step_up_impossible", 403));
}

#[test]
fn a_contradicted_device_is_refused_and_an_unregistered_one_is_not() {
    let with = |change: fn(&mut DeviceRecord)| {
        let mut record = laptop();
        change(&mut record);
        Facts { device: known(sighting(record)), ..facts("GET", "/me") }
    };
    for facts in [
        with(|record| record.user = Some("eve".into())),
        with(|record| record.status = DeviceStatus::Suspended),
        with(|record| record.compliant = Some(false)),
        with(|record| record.jailbroken = Some(true)),
    ] {
        assert!(told(&decided(&facts, shop())).starts_with("deny:"), "{:?}", facts.device);
    }
    let unknown = DeviceSighting { record: None, ..sighting(laptop()) };
    for device in [Fact::Absent, known(unknown)] {
        let facts = Facts { device, ..facts("GET", "/me") };
        let decision = decided(&facts, shop());
        assert_eq!(told(&decision), "allow");
        assert_eq!(decision.risk.score.get(), 2.0);
    }
    let away = Facts { device: Fact::Unavailable(Unavailable::Store), ..facts("GET", "/me") };
    assert_eq!(told(&decided(&away, shop())), "deny:device_unknown");
}

#[test]
fn a_token_that_names_a_device_owes_it() {
    let mut facts = Facts { device: Fact::Absent, ..facts("GET", "/me") };
    with_identity(&mut facts, |identity| identity.device = Some("laptop".into()));
    assert_eq!(told(&decided(&facts, shop())), "deny:device_untrusted");
}

#[test]
fn a_broken_place_costs_three_points_and_an_unconfigured_one_none() {
    let risk = |place| decided(&Facts { place, ..facts("GET", "/me") }, shop()).risk.score.get();
    assert_eq!(risk(Fact::NotAsked), 0.0);
    assert_eq!(risk(Fact::Absent), 0.0);
    assert_eq!(risk(Fact::Unavailable(Unavailable::NotReady)), 3.0);
}

#[test]
fn extensions_of_a_route_only_tighten() {
    let mut set = shop();
    let mut strict = Policy::new("strict");
    strict.conditions.api_scopes = vec!["admin".into()];
    set.policies = vec![strict];
    let with = |path: &str, extensions: RouteExtensions| {
        let mut facts = facts("GET", path);
        facts.request.extensions = extensions;
        decided(&facts, set.clone())
    };
    let policy = |id: &str| RouteExtensions { policy: Some(id.into()), ..RouteExtensions::default() };
    assert_eq!(told(&with("/me", policy("nonsense"))), "deny:unknown_policy");
    let refused = with("/me", policy("strict"));
    assert_eq!((told(&refused).as_str(), refused.scope.as_deref()), ("deny:scope_missing", Some("admin")));
    assert_eq!(told(&with("/public/a", policy("strict"))), "deny:scope_missing");
    let level = |level| RouteExtensions { min_trust_level: Some(level), ..RouteExtensions::default() };
    assert_eq!(told(&with("/me", level(TrustLevel::Untrusted))), "allow");
    assert!(told(&with("/me", level(TrustLevel::Privileged))).ends_with("trust_too_low"));
    let resource = |id: &str| RouteExtensions { resource: Some(id.into()), ..RouteExtensions::default() };
    assert_eq!(told(&with("/me", resource("orders-write"))), "deny:permission_missing");
    assert_eq!(told(&with("/me", resource("static"))), "allow");
    assert_eq!(told(&with("/me", resource("nonsense"))), "deny:unknown_resource");
    let malformed = RouteExtensions { malformed: Some("policy".into()), ..RouteExtensions::default() };
    assert_eq!(told(&with("/public/a", malformed)), "deny:route_misconfigured");
    let segment = RouteExtensions { segment: Some("shop".into()), ..RouteExtensions::default() };
    let refused = with("/me", segment);
    assert_eq!(told(&refused), "deny:route_misconfigured");
    assert_eq!(refused.findings[0].detail, Detail::Extension("segment"));
}

#[test]
fn a_permit_needs_its_quota() {
    let mut policy = Policy::new("limited");
    let limit = RateLimit { scope: RateScope::User, limit: 1, window: Duration::from_secs(60) };
    policy.rate_limits = vec![limit].into();
    let rules = fixed(bound(policy));
    let facts = facts("GET", "/x");
    let dry = decide(&facts, &rules);
    assert_eq!((told(&dry).as_str(), dry.grant), ("allow", Some(Grant::Policy("limited".into()))));
    let live = || LiveFacts::gathered(&facts, Target::of(&facts.request, &rules));
    assert_eq!(authorize(live()).unwrap_err().reason, Some(Reason::QuotaUnknown));
    let take = |quota| match assess(live()) {
        Outcome::Pending(pending) => pending.settle(&quota),
        other => panic!("{other:?}"),
    };
    let quota = |allowed| known(Quota { allowed, limit: 1, remaining: 0, retry_after: 42, reset: 60 });
    assert!(take(quota(true)).unwrap().decision().is_allow());
    let refused = take(quota(false)).unwrap_err();
    assert_eq!((refused.status(), refused.retry_after, refused.rule.clone()), (429, Some(42), Some("limited".into())));
    assert_eq!(take(Fact::Unavailable(Unavailable::Store)).unwrap_err().status(), 503);
    let replayed = Facts { quota: quota(false), ..facts.clone() };
    assert_eq!(told(&decide(&replayed, &rules)), "deny:rate_limited");
}

#[test]
fn a_step_up_guard_is_satisfied_by_an_authentication_after_the_challenge() {
    let unusual = Place { unusual: true, ..place() };
    let session = |challenged: Option<u64>| SessionState {
        challenged_at: challenged.map(ago),
        ..SessionState::begun(ago(600), ago(60), TrustLevel::High)
    };
    let at = |challenged, authenticated| {
        let mut facts =
            Facts { place: known(unusual.clone()), session: known(session(challenged)), ..facts("GET", "/me") };
        with_identity(&mut facts, |identity| identity.auth_time = Some(ago(authenticated)));
        decided(&facts, shop())
    };
    let first = at(None, 60);
    assert_eq!(told(&first), "step-up:location_step_up");
    assert_eq!(first.step_up.unwrap().max_age, Some(59));
    assert_eq!(told(&at(Some(30), 60)), "step-up:location_step_up");
    assert_eq!(told(&at(Some(30), 10)), "allow");
}

#[test]
fn a_refusal_without_facts_is_never_an_allow() {
    for reason in Reason::ALL {
        let decision = countersign::decision::Decision::refusal(*reason);
        assert!(!decision.is_allow());
        assert_eq!(decision.reason, Some(*reason));
        assert!(decision.status() >= 400);
    }
}

#[test]
fn the_end_of_a_session_is_for_its_own_tokens() {
    let at = |claimed: bool, authenticated: Option<UnixTime>, issued: UnixTime| {
        let ended = Notice { ended: true, ended_at: Some(ago(60)), ..Notice::default() };
        let mut facts = Facts { notice: known(ended), ..facts("GET", "/me") };
        with_identity(&mut facts, |identity| {
            (identity.session_claimed, identity.auth_time, identity.issued_at) = (claimed, authenticated, issued);
        });
        told(&decided(&facts, shop()))
    };
    assert_eq!(at(false, None, ago(30)), "allow", "nothing else tells one login from the next");
    assert_eq!(at(false, None, ago(60)), "deny:session_ended");
    assert_eq!(at(false, None, ago(90)), "deny:session_ended");
    assert_eq!(at(true, None, ago(30)), "deny:session_ended");
    assert_eq!(at(false, Some(ago(90)), ago(30)), "deny:session_ended");
}

#[test]
fn public_means_public_even_with_a_revoked_token() {
    let revoked = Facts { revocation: known(Revocation::Revoked(RevocationKind::Token)), ..facts("GET", "/public/a") };
    let decision = decided(&revoked, shop());
    assert_eq!((told(&decision).as_str(), decision.grant), ("allow", Some(Grant::Public)));
    // Let in like anybody, and like anybody without a name.
    assert!(facts("GET", "/public/a").caller().is_some() && revoked.caller().is_none());
    for unknown in [
        Facts { revocation: Fact::Unavailable(Unavailable::Store), ..facts("GET", "/public/a") },
        Facts { notice: Fact::Unavailable(Unavailable::Store), ..facts("GET", "/public/a") },
        Facts { notice: known(Notice { disabled: true, ..Notice::default() }), ..facts("GET", "/public/a") },
        Facts { notice: known(Notice { ended: true, ..Notice::default() }), ..facts("GET", "/public/a") },
        Facts { session: Fact::Unavailable(Unavailable::Store), ..facts("GET", "/public/a") },
    ] {
        assert!(unknown.caller().is_none());
    }
    // The session of this name had ended before: this token begins the next.
    let ended = Notice { ended: true, ended_at: Some(ago(60)), ..Notice::default() };
    let mut next = Facts { notice: known(ended), ..facts("GET", "/public/a") };
    assert!(next.caller().is_none());
    with_identity(&mut next, |identity| {
        (identity.session_claimed, identity.auth_time, identity.issued_at) = (false, None, ago(30));
    });
    assert!(next.caller().is_some());
    let mut set = shop();
    set.resources.push(Resource { access: Access::Public, ..Resource::new("x", "/x") });
    assert_eq!(told(&decided(&facts("GET", "/x"), set)), "allow");
}
