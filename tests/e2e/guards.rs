//! Guards through a real Envoy: each condition that `when:` knows, as a refusal and as a step-up. Impossible travel needs a
//! past: `behavior.rs`.

use std::fs;

use serde_json::json;

use super::mmdb;
use crate::support::{
    http::Response,
    process::eventually,
    stack::{Builder, Stack},
    tokens::Token,
};

const RULES: &str =
    "resources: [{ id: all, access: authenticated, min_trust_level: untrusted, match: { paths: [\"/**\"] } }]\n";
const VPN: &str = "198.51.100.7";
const TOR: &str = "203.0.113.7";
const HOSTING: &str = "203.0.113.8";
const CHILE: &str = "198.51.100.1";
const NOWHERE: &str = "203.0.113.9";

fn start() -> Stack {
    start_with(&format!("{RULES}guards: []\n"))
}

fn start_with(rules: &str) -> Stack {
    let builder = Builder::with_rules(rules);
    let list = |name: &str, address: &str| {
        let path = builder.folder().join(name);
        fs::write(&path, format!("{address}\n")).expect("the folder is writable");
        json!([path])
    };
    let lists = json!({"vpn": list("vpn", VPN), "tor": list("tor", TOR), "hosting": list("hosting", HOSTING)});
    let cities = builder.folder().join("city.mmdb");
    let country = |code: &str| json!({"country": {"iso_code": code}});
    let rows = [("192.0.2.0/24", country("NO")), ("198.51.100.0/24", country("CL"))];
    fs::write(&cities, mmdb::database("GeoLite2-City", &rows)).expect("the folder is writable");
    let location = json!({
        "lists": lists, "databases": {"city": cities},
        "expected_countries": ["NO"], "allowed_countries": ["NO", "CL"],
    });
    let stack = builder.set("/location", location).set("/client", json!({"trusted_hops": 2})).start();
    for device in [
        json!({"id": "good", "user": "alice", "compliant": true, "fingerprint": "fp"}),
        json!({"id": "unchecked", "user": "alice", "fingerprint": "fp"}),
        json!({"id": "suspended", "user": "alice", "compliant": true, "fingerprint": "fp", "status": "suspended"}),
        json!({"id": "keyed", "user": "alice", "compliant": true, "fingerprint": "other"}),
    ] {
        stack.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
    }
    stack
}

struct Row {
    when: &'static str,
    /// Address, device, methods, service: what the guard stops, then what it lets through.
    stopped: (&'static str, &'static str, &'static [&'static str], bool),
    passes: (&'static str, &'static str, &'static [&'static str], bool),
    deny: &'static str,
    step_up: &'static str,
}

const STRONG: &[&str] = &["pwd", "otp"];
const WEAK: &[&str] = &["pwd"];
const HERE: &str = "192.0.2.1";
/// Nobody is known by it: no device.
const NONE: &str = "";

fn ask(stack: &Stack, (from, device, methods, service): (&str, &str, &[&str], bool)) -> Response {
    // Long ago enough that nothing is fresh: only a step-up made now would satisfy a guard.
    let then = crate::support::tokens::now() - 600;
    let token = if service { Token::service("robot") } else { Token::person("alice").claim("amr", methods) };
    let token = if service { token } else { token.claim("auth_time", then) };
    let request = stack.get("/x").bearer(&token.mint()).header("X-Forwarded-For", from);
    let request = if device.is_empty() { request } else { request.header("X-Device-ID", device) };
    request.header("X-Device-Fingerprint", "fp").send()
}

/// The default guards: nobody need write one for the countries that are named.
#[test]
fn countries_that_requests_may_come_from_are_the_only_ones() {
    let stack = start_with(RULES);
    let from = |address: &str| ask(&stack, (address, "good", STRONG, false));
    for allowed in [HERE, "192.0.2.1:4711"] {
        assert_eq!(from(allowed).status, 200, "{allowed}");
    }
    // Of no country, of none that can be told, and of fewer proxies than there are.
    for refused in [NOWHERE, "junk", ""] {
        let answer = from(refused);
        assert_eq!((answer.status, answer.reason().as_str()), (403, "location_not_allowed"), "{refused:?}");
    }
}

#[test]
fn each_condition_of_a_guard_refuses_and_steps_up() {
    let stack = start();
    let rows = [
        Row {
            when: "{ risk_at_least: 3 }",
            stopped: (HERE, "good", WEAK, false),
            passes: (HERE, "good", STRONG, false),
            deny: "risk_too_high",
            step_up: "mfa_required",
        },
        Row {
            when: "{ risk_level: medium }",
            stopped: (HERE, "good", WEAK, false),
            passes: (HERE, "good", STRONG, false),
            deny: "risk_too_high",
            step_up: "mfa_required",
        },
        Row {
            when: "{ device: untrusted }",
            stopped: (HERE, "suspended", STRONG, false),
            passes: (HERE, "good", STRONG, false),
            deny: "device_suspended",
            step_up: "step_up_required",
        },
        Row {
            when: "{ device: untrusted }",
            stopped: (HERE, "keyed", STRONG, false),
            passes: (HERE, "good", STRONG, false),
            deny: "device_untrusted",
            step_up: "step_up_required",
        },
        Row {
            when: "{ device: unregistered }",
            stopped: (HERE, NONE, STRONG, false),
            passes: (HERE, "unchecked", STRONG, false),
            deny: "device_not_registered",
            step_up: "step_up_required",
        },
        Row {
            when: "{ device: not_compliant }",
            stopped: (HERE, "unchecked", STRONG, false),
            passes: (HERE, "good", STRONG, false),
            deny: "device_not_compliant",
            step_up: "step_up_required",
        },
        Row {
            when: "{ location: unusual }",
            stopped: (CHILE, "good", STRONG, false),
            passes: (HERE, "good", STRONG, false),
            deny: "location_unusual",
            step_up: "location_step_up",
        },
        Row {
            when: "{ location: not_allowed }",
            stopped: (NOWHERE, "good", STRONG, false),
            passes: (CHILE, "good", STRONG, false),
            deny: "location_not_allowed",
            step_up: "location_step_up",
        },
        Row {
            when: "{ network: vpn }",
            stopped: (VPN, "good", STRONG, false),
            passes: (TOR, "good", STRONG, false),
            deny: "network_not_allowed",
            step_up: "step_up_required",
        },
        Row {
            when: "{ network: tor }",
            stopped: (TOR, "good", STRONG, false),
            passes: (HOSTING, "good", STRONG, false),
            deny: "network_not_allowed",
            step_up: "step_up_required",
        },
        Row {
            when: "{ network: hosting }",
            stopped: (HOSTING, "good", STRONG, false),
            passes: (HERE, "good", STRONG, false),
            deny: "network_not_allowed",
            step_up: "step_up_required",
        },
        Row {
            when: "{ subject: service }",
            stopped: (HERE, NONE, STRONG, true),
            passes: (HERE, NONE, STRONG, false),
            deny: "subject_not_allowed",
            step_up: "step_up_impossible",
        },
        Row {
            when: "{ subject: person, network: vpn }",
            stopped: (VPN, NONE, STRONG, false),
            passes: (VPN, NONE, STRONG, true),
            deny: "network_not_allowed",
            step_up: "step_up_required",
        },
    ];
    for row in rows {
        for (action, reason) in [("deny", row.deny), ("step_up", row.step_up)] {
            let what = format!("{} {action}", row.when);
            stack
                .countersign
                .write_rules(&format!("{RULES}guards: [{{ id: g, when: {}, action: {action} }}]\n", row.when));
            let answer = eventually(&what, || {
                let answer = ask(&stack, row.stopped);
                (answer.status != 200 && answer.reason() == reason).then_some(answer)
            });
            let status = if action == "step_up" && reason != "step_up_impossible" { 401 } else { 403 };
            assert_eq!(answer.status, status, "{what}: {answer:?}");
            let answer = ask(&stack, row.passes);
            assert_eq!(answer.status, 200, "{what} stops what it should not: {answer:?}");
        }
    }
}
