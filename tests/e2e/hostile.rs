//! Rows H and P of the threat catalogue as a client tries them through a real Envoy, in both encodings of headers.

use serde_json::{Value, json};

use crate::support::{
    http::{Request, exchange},
    stack::{Builder, Stack},
    tokens::Token,
};

#[test]
fn h02_the_scheme_in_any_case_is_the_same() {
    let stack = Builder::new().both_envoys().start();
    let token = Token::person("alice").mint();
    for (door, to) in stack.doors() {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let answer = Request::new(to, "GET", "/hello").header("Authorization", format!("{scheme} {token}")).send();
            assert_eq!(answer.status, 200, "{scheme} by {door}");
        }
    }
}

#[test]
fn h03_what_is_not_one_bearer_token_is_401() {
    let stack = Stack::start();
    let token = Token::person("alice").mint();
    for value in [
        format!("Bearer\t{token}"),
        format!("Bearer: {token}"),
        format!("Bearer Bearer {token}"),
        format!("Bearer \"{token}\""),
        format!("Bearer {token} x"),
        format!("Bearer {token}="),
        format!("Token {token}"),
        "Bearer".to_owned(),
        "Basic eDp5".to_owned(),
        token.clone(),
    ] {
        for (door, to) in stack.doors() {
            let answer = Request::new(to, "GET", "/hello").header("Authorization", &*value).send();
            assert_eq!(answer.status, 401, "{} by {door}: {answer:?}", value.replace(&token, "TOKEN"));
        }
    }
}

#[test]
fn h04_a_token_in_a_form_or_a_sub_protocol_is_no_token() {
    let stack = Stack::start();
    let token = Token::person("alice").mint();
    let upgrade = stack.get("/hello").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let answer = upgrade.header("Sec-WebSocket-Protocol", format!("bearer, {token}")).send();
    assert_eq!(answer.status, 401, "{answer:?}");
    let body = format!("access_token={token}");
    let request = format!(
        "POST /hello HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(exchange(stack.envoys[0].http, request.as_bytes()).expect("answered").status, 401);
}

/// The headers of a Check as somebody other than a sanitising Envoy would let them through.
fn ask(stack: &Stack, headers: &Value) -> Value {
    let request = json!({"attributes": {
        "source": {"address": {"socketAddress": {"address": "192.0.2.7", "portValue": 40000}}},
        "request": {"http": {"method": "GET", "scheme": "https", "host": "shop.example", "path": "/hello",
                             "protocol": "HTTP/2", "headers": headers}},
    }});
    stack.countersign.check(&request).expect("a CheckResponse")
}

#[test]
fn h06_certificates_and_claims_in_headers_make_nobody() {
    let stack = Builder::new().set("/identity/workloads", json!({"trust_domains": ["td.example"]})).start();
    let forged = "By=spiffe://td.example/edge;URI=spiffe://td.example/ns/shop/sa/cart";
    let payload = "eyJzdWIiOiJhZG1pbiJ9";
    for (name, value) in [
        ("x-forwarded-client-cert", forged),
        ("x-jwt-payload", payload),
        ("x-jwt-assertion", payload),
        ("x-user-id", "admin"),
        ("x-zt-subject", "admin"),
        ("x-goog-authenticated-user-id", "admin"),
    ] {
        assert_eq!(stack.get("/hello").header(name, value).send().status, 401, "{name} through Envoy");
        let answer = ask(&stack, &json!({name: value}));
        assert_eq!(answer["deniedResponse"]["status"]["code"], 401, "{name}: {answer}");
    }
}

#[test]
fn h07_the_clients_address_is_what_envoy_saw_and_never_what_a_header_says() {
    for hops in [None, Some(1)] {
        let mut builder = Builder::new();
        if let Some(hops) = hops {
            builder = builder.set("/client", json!({"trusted_hops": hops}));
        }
        let stack = builder.start();
        let token = Token::person("alice").mint();
        for name in ["X-Forwarded-For", "X-Real-IP", "X-Client-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP"] {
            let answer = stack.get("/hello").header(name, "203.0.113.9").bearer(&token).send();
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
        }
        let twice = stack.get("/hello").header("X-Forwarded-For", "203.0.113.9, 127.0.0.1");
        assert_eq!(twice.header("X-Forwarded-For", "203.0.113.9").bearer(&token).send().status, 200);
        let records = crate::support::process::eventually("seven records", || {
            let records: Vec<Value> =
                stack.countersign.audit().into_iter().filter(|record| record["facts"].is_object()).collect();
            (records.len() >= 7).then_some(records)
        });
        for record in &records {
            let client = &record["facts"]["request"]["client"];
            assert_ne!(client, "203.0.113.9", "{hops:?} hops: {record}");
            // Of a loopback peer Envoy appends its own address to X-Forwarded-For.
            assert_eq!(client, &records[0]["facts"]["request"]["client"], "{hops:?} hops: {record}");
            assert!(hops.is_some() || client == "127.0.0.1", "{record}");
        }
    }
}

#[test]
fn h08_a_device_that_is_somebody_elses_is_none_and_leaving_it_out_helps_nobody() {
    let stack = Stack::start();
    let device = json!({"id": "laptop-a", "user": "alice", "fingerprint": "fp-a", "compliant": true});
    stack.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
    let vault = |subject: &str| stack.get("/vault").bearer(&Token::person(subject).mint());
    for (what, request) in [
        ("another's device", vault("bob").header("X-Device-ID", "laptop-a").header("X-Device-Fingerprint", "fp-a")),
        ("no device", vault("alice")),
        ("a device nobody knows", vault("alice").header("X-Device-ID", "laptop-z")),
    ] {
        let answer = request.send();
        assert_eq!(answer.status, 403, "{what}: {answer:?}");
    }
    let named = Token::person("alice").claim("device_id", "laptop-a").mint();
    assert_ne!(stack.get("/hello").bearer(&named).send().status, 200, "a token that names a device owes it");
}

#[test]
fn h09_h10_headers_that_name_another_path_or_method_decide_nothing() {
    let stack = Builder::new().both_envoys().start();
    let token = Token::person("alice").mint();
    for (door, to) in stack.doors() {
        for name in ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-URI", "X-Original-URI", "X-Envoy-Original-Path"] {
            let answer = Request::new(to, "GET", "/orders").header(name, "/public/x").send();
            assert_eq!(answer.status, 401, "{name} by {door}");
            let answer = Request::new(to, "GET", "/orders").header(name, "/hello").bearer(&token).send();
            assert_eq!(answer.status, 403, "{name} by {door}");
        }
        for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
            let answer = Request::new(to, "DELETE", "/hello").header(name, "GET").bearer(&token).send();
            assert_eq!(answer.status, 403, "{name} by {door}");
            let answer = Request::new(to, "GET", "/hello").header(name, "DELETE").bearer(&token).send();
            let upstream = answer.upstream().unwrap_or_else(|| panic!("{name} by {door}: {answer:?}"));
            assert_eq!(upstream.all(name), Vec::<&str>::new(), "{name} reached the upstream by {door}");
        }
    }
}

#[test]
fn h11_octets_that_are_no_text_get_an_answer_of_ours() {
    let stack = Builder::new().both_envoys().start();
    let token = Token::person("alice").mint();
    for (door, to) in stack.doors() {
        let send = |line: &[u8]| {
            let request = [b"GET /hello HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n", line, b"\r\n\r\n"];
            exchange(to, &request.concat()).expect("answered")
        };
        let answer = send(b"Authorization: Bearer \xff\xfe");
        assert!([400, 401].contains(&answer.status), "{door}: {answer:?}");
        let beside = [b"X-Junk: \xff\xc3\x28\r\nAuthorization: Bearer ", token.as_bytes()].concat();
        let answer = send(&beside);
        let decided = answer.header("x-zt-decision-id").is_some() || answer.upstream().is_some();
        // 400: Envoy itself. Never its 403 for a Check that failed.
        assert!(decided || answer.status == 400, "{door}: {answer:?}");
    }
}

#[test]
fn p09_a_trailing_slash_another_case_and_a_longer_name_are_other_paths() {
    let stack = Stack::start();
    let token = Token::person("alice").roles(&["admin"]).mint();
    for path in ["/hello/", "/HELLO", "/hello.css", "/helloo", "/hell", "/orders/1/2", "/publicity", "/public"] {
        let answer = stack.get(path).bearer(&token).send();
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
    assert_eq!(stack.get("/hello;x=1").bearer(&token).send().status, 200, "parameters are cut");
}

#[test]
fn p17_another_spelling_of_a_path_is_under_the_same_rule() {
    let rules = "resources:\n  - { id: public, match: { paths: [\"/files/**\"] }, access: public }\n  \
                 - { id: secret, match: { paths: [\"/files/@secret\"] }, permission: files:secret }\n  \
                 - { id: star, match: { paths: [\"/files/%2A\"] }, permission: files:secret }\n";
    let stack = Builder::with_rules(rules).both_envoys().start();
    for (door, to) in stack.doors() {
        for path in ["/files/@secret", "/files/%40secret", "/files/%40%73ecret", "/files/*", "/files/%2a"] {
            assert_eq!(Request::new(to, "GET", path).send().status, 401, "{path} by {door}");
        }
        assert_eq!(Request::new(to, "GET", "/files/readme").send().status, 200, "by {door}");
    }
}

#[test]
fn p10_a_host_has_one_spelling_and_an_unknown_one_is_refused() {
    let rules = "resources:\n  - { id: h, match: { hosts: [shop.example], paths: [\"/hello\"], methods: [GET] }, \
                 access: authenticated, min_trust_level: untrusted }\n";
    let stack = Builder::with_rules(rules).both_envoys().start();
    let token = Token::person("alice").mint();
    for (door, to) in stack.doors() {
        let ask = |host: &str| {
            let request = format!(
                "GET /hello HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
            );
            exchange(to, request.as_bytes()).expect("answered")
        };
        for same in ["shop.example", "SHOP.example", "shop.example:8443", "shop.example."] {
            assert_eq!(ask(same).status, 200, "{same} by {door}");
        }
        for other in ["evil.example", "shop.example.evil.example", "xshop.example", "shop", "127.0.0.1"] {
            assert_eq!(ask(other).status, 403, "{other} by {door}");
        }
        for none in ["shop.example@evil.example", "evil@shop.example", "shop.example:1:2", "shop.example:x"] {
            let answer = ask(none);
            assert!([400, 403].contains(&answer.status), "{none} by {door}: {answer:?}");
        }
    }
}

#[test]
fn p11_long_paths_and_raw_octets_are_refused() {
    let stack = Builder::new().both_envoys().start();
    let token = Token::person("alice").mint();
    for (door, to) in stack.doors() {
        let ask = |path: &[u8]| {
            let head = [b"GET ", path, b" HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n"].concat();
            let request = [head, format!("Authorization: Bearer {token}\r\n\r\n").into_bytes()].concat();
            exchange(to, &request).map(|answer| (answer.status, answer.header("x-echo").is_some()))
        };
        let long = [b"/public/".as_slice(), &[b'a'; 9 * 1024]].concat();
        assert_eq!(ask(&long).expect("answered"), (400, false), "9 KiB by {door}");
        let longer = [b"/public/".as_slice(), &[b'a'; 70 * 1024]].concat();
        // Envoy's own limit; it may close before all was sent.
        assert!(!ask(&longer).is_ok_and(|(status, reached)| reached || status == 200), "70 KiB by {door}");
        for raw in [&b"/public/\x80"[..], b"/public/\xff\xfe", b"/public/\xc3\xa9", b"/public/\x7f", b"/public/\x01"] {
            let answer = ask(raw).expect("answered");
            assert_eq!(answer, (400, false), "{} by {door}", raw.escape_ascii());
        }
    }
}

#[test]
fn p15_methods_that_no_rule_names_never_reach_the_upstream() {
    let stack = Builder::new().both_envoys().start();
    let token = Token::person("alice").roles(&["admin"]).mint();
    for (door, to) in stack.doors() {
        for method in ["TRACE", "OPTIONS", "PUT", "PROPFIND", "get", "GeT", "FOO", "CONNECT"] {
            let answer = Request::new(to, method, "/hello").bearer(&token).send();
            // 400: not even Envoy takes it for a method; 404: Envoy has no route for CONNECT.
            assert!([400, 403, 404].contains(&answer.status), "{method} by {door}: {answer:?}");
            assert_eq!(answer.header("x-echo"), None, "{method} by {door} reached the upstream");
        }
    }
}
