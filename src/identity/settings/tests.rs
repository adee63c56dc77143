//! What the section means where it is silent, and what it must not mean.

use super::*;

#[test]
fn the_defaults_are_those_of_the_contract() {
    let issuer: IssuerSettings =
        serde_json::from_value(serde_json::json!({ "issuer": "https://i.example", "audiences": ["a"] })).unwrap();
    assert_eq!(issuer.leeway.get(), Duration::from_secs(30));
    assert_eq!(issuer.max_lifetime.get(), Duration::from_secs(86_400));
    assert_eq!(issuer.claims.session, "sid");
    let settings = Settings { issuers: vec![issuer], ..Settings::default() };
    assert_eq!(settings.problems(), []);
}

#[test]
fn what_would_weaken_verification_refuses_the_start_with_its_path() {
    let base = IssuerSettings::new("https://i.example", ["a"]);
    let cases: [(&str, IssuerSettings); 7] = [
        ("issuers[0].audiences", IssuerSettings { audiences: vec![], ..base.clone() }),
        ("issuers[0].audiences", IssuerSettings { audiences: vec!["*".into()], ..base.clone() }),
        ("issuers[0].algorithms", IssuerSettings { algorithms: vec![], ..base.clone() }),
        ("issuers[0].leeway", IssuerSettings { leeway: Duration::from_secs(3600).into(), ..base.clone() }),
        ("issuers[0].jwks", IssuerSettings { jwks: Some("http://i.example/jwks".into()), ..base.clone() }),
        ("issuers[0].jwks", IssuerSettings { jwks: Some("ftp://i.example/jwks".into()), ..base.clone() }),
        ("issuers[0].issuer", IssuerSettings { issuer: String::new(), jwks: Some("k.json".into()), ..base.clone() }),
    ];
    for (path, issuer) in cases {
        let problems = Settings { issuers: vec![issuer], ..Settings::default() }.problems();
        assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), [path]);
    }
    let twice = Settings { issuers: vec![base.clone(), base], ..Settings::default() }.problems();
    assert_eq!(twice[0].path, "issuers[1].issuer");
}

#[test]
fn hmac_and_none_cannot_even_be_written() {
    for alg in ["HS256", "none", "rs256", "ES512"] {
        let value = serde_json::json!({ "issuer": "https://i", "audiences": ["a"], "algorithms": [alg] });
        assert!(serde_json::from_value::<IssuerSettings>(value).is_err(), "{alg}");
    }
}

#[test]
fn plain_http_is_for_loopback_only() {
    for good in ["https://i.example/k", "http://127.0.0.1:8080/k", "http://localhost/k", "http://[::1]/k"] {
        assert!(fetchable(good).is_ok(), "{good}");
    }
    for bad in ["http://i.example/k", "http://127.0.0.1.evil.example/", "http://10.0.0.1/", "https://u:p@i.example/"] {
        assert!(fetchable(bad).is_err(), "{bad}");
    }
}
