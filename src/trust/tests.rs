use super::*;

fn inputs() -> Inputs {
    Inputs {
        methods: AuthMethods::NONE.with(AuthMethod::Password),
        device: None,
        network: Network { kind: NetworkKind::Ordinary, known_to_subject: false },
        behavior: None,
        risk: RiskScore::new(0.0),
        age: Some(0.0),
        device_factor: 1.0,
        network_factor: 1.0,
    }
}

fn close(trust: &Trust, expected: f64) {
    assert!((trust.score.get() - expected).abs() < 1e-9, "{} is not {expected}: {:?}", trust.score.get(), trust.lines);
}

#[test]
fn a_bare_password_with_neutral_surroundings_is_low() {
    let trust = score(&inputs());
    close(&trust, 0.10 + 0.10 + 0.10);
    assert_eq!(trust.level, TrustLevel::Low);
}

#[test]
fn every_method_adds_its_weight_once() {
    let all: AuthMethods = AuthMethod::ALL.into_iter().collect();
    let alone =
        Inputs { network: Network { kind: NetworkKind::Tor, known_to_subject: true }, behavior: Some(0.0), ..inputs() };
    for (method, weight) in AuthMethod::ALL.into_iter().zip([0.10, 0.20, 0.25, 0.30, 0.30, 0.35]) {
        close(&score(&Inputs { methods: AuthMethods::NONE.with(method), ..alone }), weight);
    }
    close(&score(&Inputs { methods: all, ..alone }), 1.0);
}

#[test]
fn a_device_counts_as_far_as_it_is_proven() {
    for (proof, share) in [(DeviceProof::Key, 1.0), (DeviceProof::Fingerprint, 0.6), (DeviceProof::IdOnly, 0.3)] {
        let trust = score(&Inputs { device: Some((TrustScore::new(0.5), proof)), ..inputs() });
        close(&trust, 0.3 + 0.3 * 0.5 * share);
    }
}

#[test]
fn networks_rank_as_the_design_says() {
    let share = |kind, known_to_subject| {
        score(&Inputs { network: Network { kind, known_to_subject }, ..inputs() }).score.get() - 0.2
    };
    for (kind, known, expected) in [
        (NetworkKind::Corporate, false, 1.0),
        (NetworkKind::Ordinary, true, 0.8),
        (NetworkKind::Private, false, 0.7),
        (NetworkKind::Ordinary, false, 0.5),
        (NetworkKind::Vpn, true, 0.2),
        (NetworkKind::Hosting, false, 0.2),
        (NetworkKind::Tor, true, 0.0),
    ] {
        assert!((share(kind, known) - 0.2 * expected).abs() < 1e-9, "{kind:?} {known}");
    }
}

#[test]
fn trust_decays_by_a_tenth_an_hour_and_is_gone_after_ten() {
    close(&score(&Inputs { age: Some(3600.0), ..inputs() }), 0.3 * 0.9);
    close(&score(&Inputs { age: Some(9.0 * 3600.0), ..inputs() }), 0.3 * (1.0 - 0.9));
    close(&score(&Inputs { age: Some(10.0 * 3600.0), ..inputs() }), 0.0);
    close(&score(&Inputs { age: Some(1000.0 * 3600.0), ..inputs() }), 0.0);
    close(&score(&Inputs { age: None, ..inputs() }), 0.3);
}

#[test]
fn risk_lowers_trust_by_three_hundredths_a_point() {
    close(&score(&Inputs { risk: RiskScore::new(5.0), ..inputs() }), 0.15);
    close(&score(&Inputs { risk: RiskScore::new(10.0), ..inputs() }), 0.0);
}

#[test]
fn a_model_can_lower_a_part_and_never_raise_it() {
    let with = |factor| {
        let device = Some((TrustScore::new(1.0), DeviceProof::Key));
        score(&Inputs { device, device_factor: factor, network_factor: factor, ..inputs() }).score.get()
    };
    assert!(with(0.5) < with(1.0));
    assert_eq!(with(7.0), with(1.0));
    assert_eq!(with(-1.0), with(0.0));
}

#[test]
fn privileged_needs_a_hardware_key_or_a_certificate() {
    let soft = AuthMethods::NONE.with(AuthMethod::Biometric);
    assert_eq!(level(TrustScore::new(1.0), soft), TrustLevel::High);
    assert_eq!(level(TrustScore::new(0.8), soft.with(AuthMethod::HardwareKey)), TrustLevel::Privileged);
    assert_eq!(level(TrustScore::new(0.8), soft.with(AuthMethod::Certificate)), TrustLevel::Privileged);
    assert_eq!(level(TrustScore::new(0.79), soft.with(AuthMethod::HardwareKey)), TrustLevel::High);
}

#[test]
fn the_points_of_the_lines_make_the_sum() {
    let trust = score(&Inputs {
        methods: AuthMethods::NONE.with(AuthMethod::Password).with(AuthMethod::MfaTotp),
        device: Some((TrustScore::new(0.9), DeviceProof::Key)),
        behavior: Some(0.7),
        risk: RiskScore::new(2.0),
        age: Some(5400.0),
        ..inputs()
    });
    let sum: f64 = trust.lines.iter().map(|line| line.points).sum();
    close(&trust, sum);
    assert!(trust.lines.iter().any(|line| line.to_string().starts_with("decay -")), "{:?}", trust.lines);
}
