//! DESIGN 3.5, row by row: status, headers and body of every kind of answer, as the client sees them.

use std::collections::BTreeSet;

use crate::support::{
    envoy,
    http::{Request, Response},
    stack::{Builder, Stack},
    tokens::{Token, now},
};

/// What every refusal has, whatever the reason. Returns the reason.
fn assert_refused(answer: &Response, status: u16, error: &str) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("x-echo"), None, "it reached the upstream");
    let body = answer.json();
    let step_up = error == "step_up_required";
    assert_eq!(answer.header("x-zt-decision"), Some(if step_up { "step-up" } else { "deny" }));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(body["error"], error, "{body}");
    assert_eq!(body["requiresStepUp"], step_up, "{body}");
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert!(body["action_required"].is_string(), "{body}");
    let id = answer.header("x-zt-decision-id").expect("a decision id");
    assert_eq!(body["decision_id"], id);
    answer.reason()
}

fn challenge(answer: &Response) -> String {
    answer.all("www-authenticate").join(" | ")
}

#[test]
fn an_allowed_request_carries_the_facts_upstream() {
    let stack = Builder::new().both_envoys().start();
    for (door, to) in stack.doors() {
        let token = Token::person("alice").roles(&["clerk"]);
        let answer = Request::new(to, "GET", "/orders").bearer(&token.mint()).send();
        assert_eq!(answer.status, 200, "{door}: {answer:?}");
        let upstream = answer.upstream().expect("it reached the upstream");
        assert_eq!(upstream.header("x-zt-decision"), "allow");
        assert_eq!(upstream.header("x-zt-subject"), "alice");
        assert_eq!(upstream.header("x-zt-roles"), "clerk");
        assert_eq!(upstream.header("x-zt-session"), token.value("sid"));
        let risk: f64 = upstream.header("x-zt-risk-score").parse().expect("a number");
        assert!((0.0..=10.0).contains(&risk));
        let trust: f64 = upstream.header("x-zt-trust-score").parse().expect("a number");
        assert!((0.0..=1.0).contains(&trust));
        let levels = ["untrusted", "low", "medium", "high", "privileged"];
        assert!(levels.contains(&upstream.header("x-zt-trust-level")));
        let ttl: u64 = upstream.header("x-zt-session-ttl").parse().expect("seconds");
        assert!((1..=3600).contains(&ttl), "{ttl}");
        assert!(!upstream.header("x-zt-decision-id").is_empty());
    }
}

#[test]
fn each_algorithm_of_the_key_set_is_accepted() {
    let stack = Stack::start();
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let token = Token::person("alice").algorithm(algorithm).mint();
        assert_eq!(stack.get("/hello").bearer(&token).send().status, 200, "{algorithm}");
    }
    let in_full = Token::person("alice").algorithm("EdDSA").parameter("alg", "Ed25519").mint();
    assert_eq!(stack.get("/hello").bearer(&in_full).send().status, 200, "the same by its name of RFC 9864");
}

#[test]
fn no_credentials_is_401_with_a_bare_challenge() {
    let stack = Stack::start();
    let answer = stack.get("/hello").send();
    assert_refused(&answer, 401, "unauthorized");
    let challenge = challenge(&answer);
    assert!(challenge.contains("Bearer realm=\""), "{challenge}");
    assert!(!challenge.contains("error="), "no error code where there were no credentials: {challenge}");
    assert_eq!(answer.json()["action_required"], "authenticate");
}

/// All that a client can tell answers apart by: what differs in every answer is left out.
fn told(answer: &Response) -> (u16, String, String, String, BTreeSet<String>) {
    let mut body = answer.json();
    body.as_object_mut().expect("an object").remove("decision_id");
    let names = answer.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    (answer.status, answer.reason(), body.to_string(), challenge(answer), names)
}

#[test]
fn every_bad_token_gets_the_same_answer() {
    let stack = Stack::start();
    let alice = || Token::person("alice");
    let forged = |token: Token| {
        let mut token = token.mint();
        let (at, other) = (token.len() - 20, if token.contains("AAAA") { "BBBB" } else { "AAAA" });
        token.replace_range(at..at + 4, other);
        token
    };
    let good = alice().mint();
    let (unsigned, _) = good.rsplit_once('.').expect("three parts");
    // Nobody knows of these that they have a key of the issuer's.
    let unsigned = [
        ("rubbish", "not-a-token".to_owned()),
        ("three parts of rubbish", "e30.e30.e30".to_owned()),
        ("no signature", format!("{unsigned}.")),
        ("a wrong signature", forged(alice())),
        ("an unknown issuer", alice().claim("iss", "https://issuer.test/").mint()),
        ("an unknown key", alice().parameter("kid", "no-such-key").mint()),
        ("another algorithm than the key's", alice().parameter("alg", "EdDSA").mint()),
        ("alg none", alice().parameter("alg", "none").mint()),
        ("forged and expired", forged(alice().claim("iat", now() - 7200).claim("exp", now() - 3600))),
        ("forged and not valid yet", forged(alice().claim("nbf", now() + 600))),
        ("forged and for others", forged(alice().claim("aud", "other.test"))),
    ];
    let mut expected = None;
    for (what, token) in unsigned {
        let answer = stack.get("/hello").bearer(&token).send();
        assert_eq!(assert_refused(&answer, 401, "unauthorized"), "token_invalid", "{what}");
        let told = told(&answer);
        assert_eq!(*expected.get_or_insert_with(|| told.clone()), told, "{what}");
    }
    // Of these the issuer's signature is right: its client may know that the time is wrong.
    let signed = [
        ("another audience", alice().claim("aud", "other.test"), "token_invalid"),
        ("no token id", alice().without("jti"), "token_invalid"),
        ("an unknown critical parameter", alice().parameter("crit", vec!["x"]), "token_invalid"),
        ("an ID token's typ", alice().parameter("typ", "id+jwt"), "token_invalid"),
        ("too long a life", alice().claim("exp", now() + 10 * 365 * 86_400), "token_invalid"),
        ("not valid yet", alice().claim("nbf", now() + 600), "token_not_yet_valid"),
        ("expired", alice().claim("iat", now() - 7200).claim("exp", now() - 3600), "token_expired"),
    ];
    for (what, token, reason) in signed {
        let answer = stack.get("/hello").bearer(&token.mint()).send();
        assert_eq!(assert_refused(&answer, 401, "unauthorized"), reason, "{what}");
        assert!(challenge(&answer).contains("error=\"invalid_token\""), "{what}: {}", challenge(&answer));
        assert!(reason != "token_invalid" || expected.as_ref() == Some(&told(&answer)), "{what}");
    }
}

#[test]
fn an_expired_token_is_401_and_says_so_only_because_its_signature_is_right() {
    let stack = Stack::start();
    let expired = Token::person("alice").claim("iat", now() - 7200).claim("exp", now() - 3600);
    let answer = stack.get("/hello").bearer(&expired.mint()).send();
    assert_eq!(assert_refused(&answer, 401, "unauthorized"), "token_expired");
    assert!(challenge(&answer).contains("error=\"invalid_token\""));

    let mut forged = expired.mint();
    forged.replace_range(forged.len() - 20..forged.len() - 16, "AAAA");
    let answer = stack.get("/hello").bearer(&forged).send();
    let reason = assert_refused(&answer, 401, "unauthorized");
    assert_ne!(reason, "token_expired", "told to somebody without the key");
}

#[test]
fn two_tokens_or_two_ways_of_sending_one_is_400() {
    let stack = Builder::new().both_envoys().start();
    let token = Token::person("alice").mint();
    let bearer = format!("Bearer {token}");
    for (door, to) in stack.doors() {
        let get = |target: &str| Request::new(to, "GET", target);
        let cases = [
            ("two headers", get("/hello").bearer(&token).bearer(&token)),
            ("a list", get("/hello").header("Authorization", format!("{bearer}, {bearer}"))),
            ("header and query", get(&format!("/hello?access_token={token}")).bearer(&token)),
        ];
        for (what, request) in cases {
            let answer = request.send();
            assert_eq!(answer.status, 400, "{what} by {door}: {answer:?}");
            assert_refused(&answer, 400, "bad_request");
            assert!(challenge(&answer).contains("error=\"invalid_request\""), "{what} by {door}");
        }
    }
}

#[test]
fn a_token_elsewhere_than_in_the_header_is_no_token() {
    let stack = Stack::start();
    let token = Token::person("alice").mint();
    let cases = [
        ("in the query", stack.get(&format!("/hello?access_token={token}"))),
        ("in a cookie", stack.get("/hello").header("Cookie", format!("access_token={token}"))),
        ("in X-Authorization", stack.get("/hello").header("X-Authorization", format!("Bearer {token}"))),
        ("in Proxy-Authorization", stack.get("/hello").header("Proxy-Authorization", format!("Bearer {token}"))),
    ];
    for (what, request) in cases {
        assert_eq!(request.send().status, 401, "{what}");
    }
}

#[test]
fn hostile_paths_are_400_and_never_reach_the_upstream() {
    let stack = Stack::start();
    let token = Token::person("alice").roles(&["admin"]).mint();
    for path in [
        "/public/../orders",
        "/public/%2e%2e/orders",
        "/public/..%2forders",
        "/public%5c..%5corders",
        "/public/%00",
        "//orders",
        "/public/%zz",
        "/public/%u002e",
        "/public/%c0%ae",
        "/public/..;/orders",
    ] {
        let answer = stack.get(path).bearer(&token).send();
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(challenge(&answer).contains("error=\"invalid_request\""), "{path}: {answer:?}");
        assert_eq!(answer.header("x-echo"), None, "{path} reached the upstream");
    }
}

#[test]
fn what_no_rule_names_is_403() {
    let stack = Stack::start();
    let token = Token::person("alice").roles(&["admin"]).mint();
    let cases = [
        ("an unknown path", stack.get("/nowhere")),
        ("another case", stack.get("/ORDERS")),
        ("a prefix without its boundary", stack.get("/publicity")),
        ("a method that no rule names", stack.request("DELETE", "/orders")),
        ("TRACE-like methods", stack.request("PROPFIND", "/hello")),
    ];
    for (what, request) in cases {
        let answer = request.bearer(&token).send();
        assert_eq!(answer.status, 403, "{what}: {answer:?}");
        assert_refused(&answer, 403, "forbidden");
    }
}

#[test]
fn a_missing_permission_is_403() {
    let stack = Stack::start();
    let answer = stack.get("/orders").bearer(&Token::person("bob").mint()).send();
    let reason = assert_refused(&answer, 403, "forbidden");
    assert!(reason.contains("permission"), "{reason}");
    let wildcard = Token::person("bob").roles(&["*"]).claim("permissions", vec!["*"]).mint();
    assert_eq!(stack.get("/orders").bearer(&wildcard).send().status, 403, "a `*` in a token grants nothing");
    let direct = Token::person("bob").claim("permissions", vec!["orders:read"]).mint();
    assert_eq!(stack.get("/orders").bearer(&direct).send().status, 200);
}

#[test]
fn an_unknown_device_is_403_where_a_device_is_always_asked() {
    let stack = Stack::start();
    for request in [stack.get("/vault"), stack.get("/vault").header("X-Device-ID", "nobody-knows-me")] {
        let answer = request.bearer(&Token::person("alice").mint()).send();
        assert_eq!(assert_refused(&answer, 403, "forbidden"), "device_not_registered");
        assert_eq!(answer.json()["action_required"], "device_enrollment");
    }
}

#[test]
fn a_step_up_is_401_with_what_would_do() {
    let stack = Stack::start();
    let token = Token::person("alice").claim("amr", vec!["pwd"]).mint();
    let answer = stack.get("/payments").bearer(&token).send();
    assert_refused(&answer, 401, "step_up_required");
    assert_eq!(answer.json()["action_required"], "step_up_authentication");
    let challenge = challenge(&answer);
    assert!(challenge.contains("error=\"insufficient_user_authentication\""), "{challenge}");
    assert!(challenge.contains("acr_values=\""), "{challenge}");
    let stronger = Token::person("alice").mint();
    assert_eq!(stack.get("/payments").bearer(&stronger).send().status, 200, "with it done, the same is allowed");
}

#[test]
fn a_rate_limit_is_429_with_retry_after() {
    let stack = Stack::start();
    let token = Token::person("alice").mint();
    for _ in 0..2 {
        assert_eq!(stack.get("/limited").bearer(&token).send().status, 200);
    }
    let answer = stack.get("/limited").bearer(&token).send();
    assert_refused(&answer, 429, "rate_limited");
    let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=3600).contains(&seconds), "{seconds}");
    assert!(answer.header("ratelimit").is_some(), "{:?}", answer.headers);
    let other = Token::person("bob").mint();
    assert_eq!(stack.get("/limited").bearer(&other).send().status, 200, "a limit is the user's own");
}

#[test]
fn a_browser_that_navigates_gets_a_small_page() {
    let stack = Stack::start();
    let answer = stack
        .get("/hello")
        .header("Accept", "text/html,application/xhtml+xml")
        .header("Sec-Fetch-Mode", "navigate")
        .send();
    assert_eq!(answer.status, 401);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{answer:?}");
    let id = answer.header("x-zt-decision-id").expect("a decision id");
    assert!(answer.body.contains(id) && answer.body.len() < 4096, "{}", answer.body);
}

#[test]
fn context_extensions_only_tighten() {
    let stack = Builder::new()
        .extensions("/ext/strong", serde_json::json!({"policy": "second-factor"}))
        .extensions("/ext/unknown", serde_json::json!({"policy": "no-such-policy"}))
        .extensions("/ext/high", serde_json::json!({"min_trust_level": "privileged"}))
        .extensions("/ext/nothing", serde_json::json!({"resource": "no-such-resource"}))
        .extensions("/ext/word", serde_json::json!({"data_classification": "rather secret"}))
        .extensions("/ext/segment", serde_json::json!({"segment": "payments"}))
        .start();
    let password = Token::person("alice").claim("amr", vec!["pwd"]).mint();
    let get = |path: &str| stack.get(path).bearer(&password).send();
    assert_eq!(get("/ext/plain").status, 200);
    assert_refused(&get("/ext/strong"), 401, "step_up_required");
    assert_ne!(get("/ext/high").status, 200);
    for (path, reason) in [
        ("/ext/unknown", "unknown_policy"),
        ("/ext/nothing", "unknown_resource"),
        ("/ext/word", "route_misconfigured"),
        ("/ext/segment", "route_misconfigured"),
    ] {
        let answer = get(path);
        assert_eq!(assert_refused(&answer, 403, "forbidden"), reason, "{path}");
        assert_eq!(answer.json()["action_required"], "contact_admin", "{path}");
    }
}

#[test]
fn the_authority_that_istio_sends_is_accepted() {
    // Older ones put `_.` for the `|` of their cluster's name, for the reason that the next test shows.
    for authority in ["countersign.shop.svc.cluster.local", "outbound_.9191_._.countersign.shop.svc.cluster.local"] {
        let stack = Builder::new().authority(authority).start();
        let answer = stack.get("/hello").bearer(&Token::person("alice").mint()).send();
        assert_eq!(answer.status, 200, "{authority}: {answer:?}");
    }
}

#[test]
fn an_authority_that_is_none_is_refused_by_http2_itself_and_fails_closed() {
    let stack = Builder::new().authority("outbound|9191||countersign").start();
    let answer = stack.get("/hello").bearer(&Token::person("alice").mint()).send();
    // This is why every sample in `envoy/` sets an authority: otherwise the cluster's name is one.
    assert_eq!((answer.status, answer.header("x-zt-decision-id")), (403, None), "{answer:?}");
}

#[test]
fn the_metadata_of_each_decision_is_there_on_allow_and_on_deny() {
    let stack = Builder::new().both_envoys().start();
    for envoy in &stack.envoys {
        let mark = |name: &str| format!("{name}-{}", envoy.http.port());
        let get = |path: &str, name: &str| Request::new(envoy.http, "GET", path).header("x-test", mark(name));
        get("/hello", "allow").bearer(&Token::person("alice").mint()).send();
        get("/hello", "deny").send();
        let allowed = envoy.access(&mark("allow"));
        assert_eq!(allowed["metadata"]["decision"], "allow", "{allowed}");
        assert_eq!(allowed["metadata"]["subject"], "alice", "{allowed}");
        let denied = envoy.access(&mark("deny"));
        assert_eq!(denied["metadata"]["decision"], "deny", "{denied}");
        assert!(denied["metadata"]["reason"].is_string(), "{denied}");
        assert!(denied["metadata"]["decision_id"].is_string(), "{denied}");
    }
    assert_eq!(envoy::NEW, "1.40.0");
}
