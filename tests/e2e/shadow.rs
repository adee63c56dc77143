//! A shadow rule set through a real Envoy: it changes no answer, and tells every difference.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    process::eventually,
    stack::{Builder, RULES, Stack},
    tokens::Token,
};

fn record(stack: &Stack, id: &str) -> Value {
    let found = || stack.countersign.audit().into_iter().find(|record| record["id"] == id);
    eventually("the record is written", found)
}

/// Answers `GET path` and says the status and what the shadow rules would have said.
fn asked(stack: &Stack, path: &str, token: &str) -> (u16, Value) {
    let answer = stack.get(path).bearer(token).send();
    let id = answer.upstream().map(|upstream| upstream.header("x-zt-decision-id").to_owned());
    let id = id.or_else(|| answer.header("x-zt-decision-id").map(str::to_owned)).expect("an id");
    (answer.status, record(stack, &id)["shadow"].clone())
}

fn counted(stack: &Stack, difference: &str) -> f64 {
    stack.countersign.metric("countersign_shadow_decisions", &format!("difference=\"{difference}\""))
}

#[test]
fn shadow_rules_change_nothing_and_tell_every_difference() {
    let builder = Builder::new();
    let file = builder.folder().join("shadow").join("rules.yaml");
    fs::create_dir_all(builder.folder().join("shadow")).expect("the folder is writable");
    // The candidate opens the orders to everybody known, shuts /hello to all but clerks, and asks for a second factor.
    let candidate = RULES
        .replace("permission: \"orders:read\"", "access: authenticated")
        .replace(
            "\"/stream\"], methods: [GET, POST] }, access: authenticated",
            "\"/stream\"], methods: [GET, POST] }, permission: \"hello:say\"",
        )
        .replace("{ id: vault, ", "{ id: safe, ");
    fs::write(&file, &candidate).expect("the folder is writable");
    let stack = builder.set("/shadow_rules", json!(["shadow"])).start();
    let token = Token::person("alice").mint();
    // None of them needs the clerk's role or has it.
    let (status, shadow) = asked(&stack, "/orders", &token);
    assert_eq!((status, &shadow["verdict"]), (403, &json!("allow")), "{shadow}");
    let (status, shadow) = asked(&stack, "/hello", &token);
    assert_eq!((status, &shadow["verdict"], &shadow["reason"]), (200, &json!("deny"), &json!("permission_missing")));
    assert!(shadow["rules"].is_string(), "{shadow}");
    let (status, shadow) = asked(&stack, "/payments", &token);
    assert_eq!((status, shadow), (200, Value::Null), "the same answer is not worth a word");
    for (difference, at_least) in [("would_allow", 1.0), ("would_refuse", 1.0), ("none", 1.0)] {
        eventually("the difference is counted", || (counted(&stack, difference) >= at_least).then_some(()));
    }

    // Hot reloaded like the live rules; what cannot be used leaves the last good ones.
    let version = shadow_version(&stack, &token);
    fs::write(&file, candidate.replace("hello:say", "hello:shout")).expect("the folder is writable");
    eventually("the shadow is reloaded", || (shadow_version(&stack, &token) != version).then_some(()));
    fs::write(&file, "resources: nonsense\n").expect("the folder is writable");
    eventually("the refusal is told", || {
        let text = stack.countersign.get("/metrics").body;
        text.contains("countersign_shadow_rules_current 0").then_some(())
    });
    let (status, shadow) = asked(&stack, "/hello", &token);
    assert_eq!((status, &shadow["verdict"]), (200, &json!("deny")));
    assert!(stack.countersign.get("/metrics").body.contains("countersign_rules_current 1"), "the live rules are fine");
}

fn shadow_version(stack: &Stack, token: &str) -> Value {
    asked(stack, "/hello", token).1["rules"].clone()
}

#[test]
fn broken_shadow_rules_keep_nobody_from_starting() {
    let builder = Builder::new();
    fs::create_dir_all(builder.folder().join("shadow")).expect("the folder is writable");
    let file = builder.folder().join("shadow").join("rules.yaml");
    fs::write(&file, "resources:\n  - id: a\n    match: { paths: [a] }\n").expect("the folder is writable");
    let stack = builder.set("/shadow_rules", json!(["shadow"])).start();
    let token = Token::person("alice").mint();
    assert_eq!(asked(&stack, "/hello", &token), (200, Value::Null));
    let text = stack.countersign.process.output();
    assert!(text.contains("shadow rules not reloaded") && text.contains("rules.yaml:3"), "{text}");
    let (code, text) = stack.countersign.command(&["check-config", "--short", "--config", "countersign.yaml"]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("rules.yaml:3:"), "{text}");
}
