//! A canary token never turns up in anything that is written or shown. Every stack looks on its own when it ends;
//! this one provokes whatever might say too much, and reads the traces too.

use crate::support::{
    otlp::Collector,
    process::eventually,
    stack::Builder,
    tokens::{self, Token, now},
};

#[test]
fn a_canary_token_is_in_no_log_no_metric_no_trace_and_no_audit_record() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let collector = Collector::default();
    let endpoint = format!("http://{}", runtime.block_on(collector.listen()));
    let stack = Builder::new()
        .environment("RUST_LOG", "trace")
        .set(
            "/telemetry",
            serde_json::json!({"traces": {"endpoint": endpoint, "ratio": 1.0, "max_per_second": 100_000}}),
        )
        .start();
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
        good.clone().claim("cnf", serde_json::json!({"jkt": "x"})),
    ];
    for (_, to) in stack.doors() {
        for token in &odd {
            let token = token.mint();
            for path in ["/hello", "/orders", "/vault", "/public/x", "/nowhere", "/public/../x"] {
                let get = || crate::support::http::Request::new(to, "GET", path);
                get().bearer(&token).send();
                get().bearer(&token).bearer(&token).send();
                get().header("Authorization", format!("Basic {token}")).send();
                get().header("DPoP", token.clone()).bearer(&token).send();
                get().header("Cookie", format!("session={token}")).send();
            }
            crate::support::http::Request::new(to, "GET", &format!("/hello?access_token={token}")).send();
        }
    }
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
