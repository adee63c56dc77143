//! A canary token or secret never turns up in anything that is written or shown. Every stack looks on its own when it ends;
//! this one provokes whatever might say too much, and reads the traces and every answer too.

use std::fs;

use serde_json::json;

use crate::{
    redis::Redis,
    support::{
        http::Request,
        otlp::Collector,
        process::eventually,
        stack::Builder,
        tokens::{self, Token, now, unique},
    },
};

/// A secret of so many octets at least, which must turn up nowhere.
fn secret(name: &str) -> String {
    let secret = format!("{}-{}", unique(name), "5ecret".repeat(6));
    tokens::must_not_leak(&secret);
    secret
}

#[test]
fn no_token_and_no_secret_is_in_a_log_a_metric_a_trace_an_answer_or_an_audit_record() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let collector = Collector::default();
    let endpoint = format!("http://{}", runtime.block_on(collector.listen()));
    let builder = Builder::new();
    let mut redis = Redis::start(builder.folder());
    let password = secret("password");
    redis.cli(&["CONFIG", "SET", "requirepass", &password]);
    let login = redis.url().replace("redis://", &format!("redis://:{password}@"));
    let keys = builder.folder().join("jwks.json");
    // Nobody answers there: whatever is said of that must not say the password.
    let introspection =
        json!({"endpoint": "http://127.0.0.1:1/", "client_id": "us", "client_secret": secret("client")});
    let pushed =
        json!({"issuer": "https://told.test", "audience": "us", "jwks": keys, "authorization_header": secret("push")});
    let stack = builder
        .environment("RUST_LOG", "trace")
        .set("/telemetry", json!({"traces": {"endpoint": endpoint, "ratio": 1.0, "max_per_second": 100_000}}))
        .set("/store/url", login)
        .set("/identity/issuers/0/introspection", introspection)
        .set("/identity/dpop", json!({"nonce": true, "nonce_secret": secret("nonces")}))
        .set("/ops", json!({"status_token": secret("status")}))
        .set("/assertion", json!({"secret": secret("vault")}))
        .set("/signals", json!({"transmitters": [pushed]}))
        .start();
    tokens::must_not_leak(
        fs::read_to_string(stack.folder.join("state/admin.token")).expect("made at the start").trim(),
    );
    stack.countersign.admin("Revoke", &json!({"kind": "TOKEN", "id": "x", "reason": "test"})).ok();
    let good = Token::person("canary").roles(&["clerk"]);
    let odd = [
        good.clone(),
        good.clone().claim("exp", now() - 3600),
        good.clone().claim("aud", "elsewhere"),
        good.clone().parameter("kid", "no such key"),
        good.clone().parameter("alg", "HS256"),
        good.clone().parameter("crit", vec!["exp"]),
        good.clone().claim("sub", "line\nbreak\u{1b}[31m"),
        good.clone().claim("sub", "a".repeat(9000)),
        good.clone().claim("cnf", json!({"jkt": "x"})),
    ];
    // All that clients are told: the upstream echoes what it was sent.
    let mut told = String::new();
    let mut send = |request: Request| {
        let answer = request.send();
        if answer.header("x-echo").is_none() {
            told += &format!("{:?} {}\n", answer.headers, answer.body);
        }
        answer.status
    };
    for (_, to) in stack.doors() {
        for token in &odd {
            let token = token.mint();
            for path in ["/hello", "/orders", "/vault", "/public/x", "/nowhere", "/public/../x"] {
                let get = || Request::new(to, "GET", path);
                send(get().bearer(&token));
                send(get().bearer(&token).bearer(&token));
                send(get().header("Authorization", format!("Basic {token}")));
                send(get().header("Authorization", format!("DPoP {token}")).header("DPoP", token.clone()));
                send(get().header("DPoP", token.clone()).bearer(&token));
                send(get().header("Cookie", format!("session={token}")));
            }
            send(Request::new(to, "GET", &format!("/hello?access_token={token}")));
        }
    }
    send(stack.get("/hello").bearer("an-opaque-token"));
    for path in ["/signals/ssf", "/status", "/readyz", "/nowhere"] {
        send(Request::new(stack.countersign.http, "GET", path).bearer("wrong"));
        send(Request::new(stack.countersign.http, "POST", path).bearer("wrong"));
    }
    redis.process.signal("KILL");
    redis.process.wait();
    let fresh = || Token::person("canary").mint();
    eventually("the store is missed", || (send(stack.get("/hello").bearer(&fresh())) == 503).then_some(()));
    assert!(!tokens::leaked(told.as_bytes()), "part of a token or a secret is told to a client");
    assert_no_secret_is_traced(&collector);
    let log = stack.countersign.process.output();
    assert!(!log.contains('\u{1b}'), "an escape sequence of a claim stands in the log");
    assert!(log.lines().count() > 50, "the log says something: {log}");
    stack.assert_nothing_leaked();
}

/// Waits for the spans of these requests, and looks for tokens in every octet that was exported.
fn assert_no_secret_is_traced(collector: &Collector) {
    eventually("spans of these requests are exported", || (collector.spans().len() >= 100).then_some(()));
    assert!(!tokens::leaked(&collector.octets()), "part of a token stands in a trace");
}
