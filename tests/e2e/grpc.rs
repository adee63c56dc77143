//! Refusals of gRPC and gRPC-web clients, the `claims` challenge, and CORS preflights: as the client gets them from Envoy.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::support::{
    http::{Request, Response},
    stack::{Builder, RULES, Stack},
    tokens::Token,
};

/// A call that the rules refuse: what it asks, the HTTP status that others would get, and the gRPC status.
fn calls(stack: &Stack) -> Vec<(&'static str, Request, u16, &'static str)> {
    let token = Token::person("alice").mint();
    let limited = stack.request("GET", "/limited").bearer(&token);
    for _ in 0..2 {
        assert_eq!(limited.send().status, 200);
    }
    vec![
        ("no token", stack.request("POST", "/hello"), 401, "16"),
        ("a bad token", stack.request("POST", "/hello").bearer("a.b.c"), 401, "16"),
        ("no rule", stack.request("POST", "/nowhere").bearer(&token), 403, "7"),
        ("a hostile path", stack.request("POST", "/public/..%2fhello").bearer(&token), 400, "3"),
        ("a rate limit", limited, 429, "8"),
    ]
}

fn assert_code(answer: &Response, code: &str, what: &str) {
    assert_eq!(answer.header("grpc-status"), Some(code), "{what}: {answer:?}");
    let message = answer.header("grpc-message").unwrap_or_default();
    assert!(message.contains(": "), "{what}: a code and a sentence: {message}");
    assert!(answer.header("x-zt-decision-id").is_some() && answer.header("x-echo").is_none(), "{what}: {answer:?}");
}

#[test]
fn a_grpc_client_gets_the_status_that_says_what_the_refusal_says() {
    for stack in [Builder::new().start(), Builder::new().oldest_envoy().start()] {
        for (what, request, _, code) in calls(&stack) {
            for kind in ["application/grpc", "application/grpc+proto"] {
                let answer = request.clone().header("Content-Type", kind).header("TE", "trailers").send();
                assert_eq!(answer.status, 200, "gRPC says it in its own status: {what}, {kind}: {answer:?}");
                assert_eq!(answer.header("content-type"), Some("application/grpc"), "{what}, {kind}");
                assert_code(&answer, code, what);
            }
        }
    }
}

#[test]
fn a_grpc_web_client_gets_both_statuses() {
    let stack = Builder::new().start();
    for (what, request, status, code) in calls(&stack) {
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"] {
            let answer = request.clone().header("Content-Type", kind).header("X-Grpc-Web", "1").send();
            assert_eq!(answer.status, status, "{what}, {kind}: {answer:?}");
            assert_code(&answer, code, what);
        }
    }
}

#[test]
fn a_claims_challenge_is_given_where_it_is_asked_for() {
    let stack = Builder::new().set("/answer", serde_json::json!({"claims_challenge": true})).start();
    let password = Token::person("alice").claim("amr", vec!["pwd"]).mint();
    let answer = stack.get("/payments").bearer(&password).send();
    assert_eq!(answer.status, 401);
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer ") && challenge.contains("error=\"insufficient_claims\""), "{challenge}");
    let claims = challenge.split("claims=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("claims");
    let claims: serde_json::Value =
        serde_json::from_slice(&STANDARD.decode(claims).expect("base64")).expect("JSON in it");
    assert_eq!(claims["access_token"]["nbf"]["essential"], true, "{claims}");
}

#[test]
fn p12_a_preflight_is_no_free_pass_and_passes_only_where_a_rule_says_so() {
    let preflight = |to, path| {
        Request::new(to, "OPTIONS", path)
            .header("Origin", "https://app.example")
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "authorization")
    };
    let rule = "\n  - { id: preflight, match: { paths: [\"/orders\"], methods: [OPTIONS] }, access: public }\nroles:";
    let stack = Builder::with_rules(&RULES.replacen("\nroles:", rule, 1)).both_envoys().start();
    for (door, to) in stack.doors() {
        for path in ["/hello", "/orders/7", "/vault"] {
            let answer = preflight(to, path).send();
            assert!([401, 403].contains(&answer.status), "{door}, {path}: {answer:?}");
            assert_eq!(answer.header("x-echo"), None, "{door}, {path}: it reached the upstream");
        }
        assert_eq!(preflight(to, "/orders").send().status, 200, "{door}: the rule says so");
        assert_eq!(Request::new(to, "GET", "/orders").send().status, 401, "{door}: and says nothing of GET");
        assert_eq!(preflight(to, "/orders;x").send().status, 200, "{door}: parameters make no other path");
        assert_eq!(preflight(to, "/orders/../vault").send().status, 400, "{door}");
    }
}
