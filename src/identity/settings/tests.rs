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

fn paths(settings: &Settings) -> Vec<String> {
    settings.problems().into_iter().map(|problem| problem.path).collect()
}

#[test]
fn where_an_answer_of_introspection_could_never_count_the_start_is_refused() {
    let with = |changes: serde_json::Value| {
        let mut settings =
            serde_json::json!({ "endpoint": "https://i.example/ask", "client_id": "c", "client_secret": "s" });
        settings.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut issuer = IssuerSettings::new("https://i.example", ["a"]);
        issuer.introspection = Some(serde_json::from_value(settings).unwrap());
        paths(&Settings { issuers: vec![issuer], ..Settings::default() })
    };
    assert_eq!(with(serde_json::json!({ "life": "1s", "concurrency": 1 })), [""; 0]);
    for (member, value) in [("life", "0s".into()), ("concurrency", 0.into()), ("endpoint", "/ask".into())] {
        let value: serde_json::Value = value;
        assert_eq!(with(serde_json::json!({ member: value })), [format!("issuers[0].introspection.{member}")]);
    }
}

#[test]
fn a_prefix_of_status_lists_is_an_address() {
    let mut issuer = IssuerSettings::new("https://i.example", ["a"]);
    issuer.status_lists = ["https://cdn.example", "cdn.example/i", "http://127.0.0.1:1/i", "http://cdn.example", "/i"]
        .map(str::to_owned)
        .into();
    let settings = Settings { issuers: vec![issuer], ..Settings::default() };
    assert_eq!(paths(&settings), [1, 3, 4].map(|i| format!("issuers[0].status_lists[{i}]")));
}

#[test]
fn an_external_address_that_no_proof_could_name_refuses_the_start() {
    let with = |host: &str, scheme: &str| {
        let (external_host, external_scheme) = (Some(host.to_owned()), Some(scheme.to_owned()));
        paths(&Settings {
            dpop: DpopSettings { external_host, external_scheme, ..Default::default() },
            ..Default::default()
        })
    };
    for host in ["api.example", "api.example:8443", "API.example", "192.0.2.1", "[2001:db8::1]:443", "münchen.example"]
    {
        assert_eq!(with(host, "https"), [""; 0], "{host}");
    }
    for host in [
        "https://api.example",
        "api.example/",
        "api.example/v1",
        "api.example?a",
        "u@api.example",
        ":p@api.example",
        "",
        "a b",
        "a:x",
    ] {
        assert_eq!(with(host, "http"), ["dpop.external_host"], "{host}");
    }
    for scheme in ["ftp", "https://", "", "https:"] {
        assert_eq!(with("api.example", scheme), ["dpop.external_scheme"], "{scheme}");
    }
}

#[test]
fn a_secret_of_nonces_that_can_be_guessed_refuses_the_start() {
    let with = |secret: &str| {
        let dpop = DpopSettings { nonce_secret: Some(Secret::new(secret)), ..DpopSettings::default() };
        paths(&Settings { dpop, ..Settings::default() })
    };
    assert_eq!(with("sixteen octets !"), [""; 0]);
    assert_eq!(with("fifteen octets!"), ["dpop.nonce_secret"]);
}

#[test]
fn key_sets_that_are_fetched_without_a_pause_or_never_young_enough_refuse_the_start() {
    let with = |changes: &[(&str, &str)]| {
        let members = changes.iter().map(|(member, time)| ((*member).to_owned(), (*time).into()));
        let key_sets = serde_json::from_value(serde_json::Value::Object(members.collect())).unwrap();
        paths(&Settings { key_sets, ..Settings::default() })
    };
    assert_eq!(with(&[("refresh", "1s"), ("min_refresh", "1s"), ("cooldown", "1s")]), [""; 0]);
    assert_eq!(with(&[("refresh", "5m"), ("max_age", "10m"), ("timeout", "1m")]), [""; 0]);
    for (member, time) in [
        ("refresh", "0s"),
        ("refresh", "999ms"),
        ("min_refresh", "0s"),
        ("cooldown", "0s"),
        ("max_age", "0s"),
        ("max_age", "599s"),
        ("timeout", "0s"),
        ("timeout", "61s"),
    ] {
        assert_eq!(with(&[(member, time)]), [format!("key_sets.{member}")], "{time}");
    }
    assert_eq!(with(&[("refresh", "2d")]), ["key_sets.max_age"], "the default is a day");
}

#[test]
fn a_proof_from_a_far_future_refuses_the_start() {
    let with = |seconds| {
        let dpop = DpopSettings { skew: Duration::from_secs(seconds).into(), ..DpopSettings::default() };
        paths(&Settings { dpop, ..Settings::default() })
    };
    assert_eq!([with(0), with(300)], [[""; 0], [""; 0]]);
    assert_eq!(with(301), ["dpop.skew"]);
}

#[test]
fn what_cannot_be_a_trust_domain_refuses_the_start() {
    let trust_domains = ["td.example", "spiffe://td.example", "TD.example", "td.example/ns", "", "td_1"];
    let workloads = WorkloadSettings { trust_domains: trust_domains.map(str::to_owned).into(), ..Default::default() };
    let settings = Settings { workloads, ..Settings::default() };
    assert_eq!(paths(&settings), [1, 2, 3, 4].map(|i| format!("workloads.trust_domains[{i}]")));
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
