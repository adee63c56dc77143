//! What is learned of subjects, through real Envoys: who is challenged, what outlives a process, what replicas share, and how
//! a subject is forgotten.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{mmdb, redis::Redis};
use crate::support::{
    countersign::{Countersign, binary},
    http::Response,
    process::eventually,
    stack::{Builder, Stack},
    tokens::{self, Token},
};

const RULES: &str = "resources: [{ id: all, access: authenticated, match: { paths: [\"/**\"] } }]\n";
/// Both in Oslo, with one provider.
const HOME: &str = "84.16.20.7";
/// In Bangalore, with another.
const FAR: &str = "103.6.156.9";
/// A VPN's way out in Frankfurt.
const VPN: &str = "198.51.100.7";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const CURL: &str = "curl/8.7.1";

/// With databases of places, and a client address that the test chooses.
fn builder(model: &str) -> Builder {
    let builder = Builder::with_rules(RULES);
    let place = |code: &str, latitude: f64, longitude: f64| {
        json!({"country": {"iso_code": code},
               "location": {"latitude": latitude, "longitude": longitude, "accuracy_radius": 20}})
    };
    let cities = [
        ("84.16.0.0/16", place("NO", 59.9, 10.7)),
        ("103.6.0.0/16", place("IN", 12.9, 77.6)),
        ("198.51.100.0/24", place("DE", 50.1, 8.7)),
    ];
    let system = |number: u32| json!({ "autonomous_system_number": number });
    let systems = [("84.16.0.0/16", system(2119)), ("103.6.0.0/16", system(45609)), ("198.51.100.0/24", system(9009))];
    let write = |name: &str, octets: Vec<u8>| {
        let path = builder.folder().join(name);
        fs::write(&path, octets).expect("the folder is writable");
        path
    };
    let city = write("city.mmdb", mmdb::database("GeoLite2-City", &cities));
    let asn = write("asn.mmdb", mmdb::database("GeoLite2-ASN", &systems));
    let vpn = write("vpn.txt", format!("{VPN}\n").into_bytes());
    builder
        .set("/risk/model", model)
        .set("/location", json!({"databases": {"city": city, "asn": asn}, "lists": {"vpn": [vpn]}}))
        .set("/client", json!({"trusted_hops": 2}))
}

/// A session of `subject`, authenticated with MFA `ago` seconds ago.
fn session(subject: &str, ago: i64) -> Token {
    Token::person(subject).claim("auth_time", tokens::now() - ago).claim("iat", tokens::now() - ago)
}

fn ask(stack: &Stack, token: &str, from: &str, agent: &str) -> Response {
    stack.get("/work").bearer(token).header("X-Forwarded-For", from).header("User-Agent", agent).send()
}

/// A few days' worth of sessions at home.
fn acquaint(stack: &Stack, subject: &str) {
    for _ in 0..5 {
        let token = session(subject, 600).mint();
        // On a busy machine the store may answer too late for the first request of a session.
        eventually("home is fine", || (ask(stack, &token, HOME, FIREFOX).status == 200).then_some(()));
        let answer = ask(stack, &token, HOME, FIREFOX);
        assert_eq!(answer.status, 200, "{subject} at home: {answer:?}");
    }
}

fn is_challenged(answer: &Response) -> bool {
    answer.status == 401 && answer.header("x-zt-decision") == Some("step-up")
}

#[test]
fn a_stolen_token_is_challenged_abroad_however_often_it_asks_and_its_owner_is_not() {
    let stack = builder("statistical").start();
    acquaint(&stack, "alice");
    let token = session("alice", 600).mint();
    assert_eq!(ask(&stack, &token, HOME, FIREFOX).status, 200);
    for _ in 0..10 {
        let stolen = ask(&stack, &token, FAR, CURL);
        assert!(stolen.status != 200, "{stolen:?}");
        let own = ask(&stack, &token, HOME, FIREFOX);
        assert_eq!(own.status, 200, "{own:?}");
    }
    let refused = |record: &Value| record["kind"] == "decision" && record["status"] != 200;
    let record = eventually("the theft is on record", || stack.countersign.audit().into_iter().find(refused));
    let behavior = &record["facts"]["behavior"]["known"]["value"]["assessment"];
    assert!(behavior["score"].as_f64().is_some_and(|risk| risk >= 5.0), "{record:#}");
    assert_eq!(record["facts"]["place"]["known"]["value"]["known_to_subject"], false, "{record:#}");
    assert_eq!(record["facts"]["place"]["known"]["value"]["impossible_travel"], true);
    // Somebody without a history is not measured by it.
    assert_eq!(ask(&stack, &session("newcomer", 600).mint(), FAR, CURL).status, 200);
}

#[test]
fn a_new_country_through_a_vpn_costs_one_step_up_and_is_quiet_then() {
    for model in ["statistical", "fixed"] {
        let stack = builder(model).start();
        acquaint(&stack, "bob");
        let travels = session("bob", 600);
        let answer = ask(&stack, &travels.mint(), VPN, FIREFOX);
        assert!(is_challenged(&answer), "{model}: {answer:?}");
        // The same session, after a second factor.
        let again = travels.claim("jti", tokens::unique("jti")).claim("auth_time", tokens::now() + 1);
        let again = again.claim("iat", tokens::now()).mint();
        for _ in 0..5 {
            let answer = ask(&stack, &again, VPN, FIREFOX);
            assert_eq!(answer.status, 200, "{model}, after the step-up: {answer:?}");
        }
        assert_eq!(ask(&stack, &session("bob", 600).mint(), HOME, FIREFOX).status, 200, "{model}, at home");
    }
}

#[test]
fn a_guard_may_refuse_who_cannot_have_come_so_far() {
    let mut builder = builder("fixed");
    builder.countersign.rules += "guards: [{ id: no-flight, when: { location: impossible_travel }, action: deny }]\n";
    let stack = builder.start();
    acquaint(&stack, "hal");
    let token = session("hal", 600).mint();
    let answer = ask(&stack, &token, FAR, FIREFOX);
    assert_eq!((answer.status, answer.reason().as_str()), (403, "impossible_travel"), "{answer:?}");
    assert_eq!(
        (&answer.json()["error"], &answer.json()["action_required"]),
        (&json!("forbidden"), &json!("verify_location"))
    );
    assert_eq!(ask(&stack, &token, HOME, FIREFOX).status, 200, "at home");
    assert_eq!(ask(&stack, &session("newcomer", 600).mint(), FAR, FIREFOX).status, 200, "nobody knows where from");
}

#[test]
fn what_was_learned_outlives_a_restart_and_an_eviction() {
    let builder = builder("statistical");
    let folder = format!("file://{}", builder.folder().join("store").display());
    // Room for one subject a shard: others push them out of memory, the store brings them back.
    let builder = builder.set("/store/url", folder).set("/behavior", json!({"profiles": 1, "sessions": 1}));
    let setup = builder.countersign.clone();
    let mut stack = builder.start();
    acquaint(&stack, "carol");
    let evicted = || stack.countersign.metric("countersign_behavior_evicted_total", "session");
    assert!(evicted() > 0.0, "ten requests of five sessions share a shard");
    stack.countersign.process.signal("TERM");
    stack.countersign.process.wait();
    stack.countersign = Countersign::start(&stack.folder, &setup);
    stack.countersign.wait_ready();
    let abroad = || {
        let answer = ask(&stack, &session("carol", 600).mint(), FAR, CURL);
        (answer.status != 503).then_some(answer)
    };
    let answer = eventually("Envoy has found the new process", abroad);
    assert!(answer.status != 200, "carol is remembered: {answer:?}");
    assert!(stack.countersign.metric("countersign_behavior_recalls", "recalled") >= 1.0);
}

#[test]
fn replicas_learn_from_one_another_and_a_subject_is_forgotten_on_all() {
    let folder = tempfile::TempDir::with_prefix("countersign-redis-").expect("a temporary folder");
    let redis = Redis::start(folder.path());
    let start = || builder("statistical").set("/store/url", redis.url()).start();
    let (one, other) = (start(), start());
    acquaint(&one, "dora");
    let kept = || redis.cli(&["--scan", "--pattern", "cs:profile:last:*"]);
    eventually("the first replica has written", || (!kept().is_empty()).then_some(()));
    let abroad = ask(&other, &session("dora", 600).mint(), FAR, CURL);
    assert!(abroad.status != 200, "the other replica knows her at her first request there: {abroad:?}");
    let whose = json!({"issuer": tokens::ISSUER, "subject": "dora"});
    let exported = profile(&other.folder, &other.countersign, "export", "dora");
    assert_eq!(exported.0, Some(0), "{}", exported.1);
    let export: Value = serde_json::from_str(&exported.1).expect("JSON");
    let countries = export["counts"].as_array().into_iter().flatten().filter(|count| count["what"] == "country");
    assert!(countries.count() >= 1, "{export:#}");
    assert!((export["last_position"]["latitude"].as_f64().unwrap_or(0.0) - 59.9).abs() < 0.1, "{export:#}");

    assert!(one.countersign.admin_of("Behavior", "ForgetProfile", &whose, false).is_err(), "nobody may forget");
    let forgotten = profile(&one.folder, &one.countersign, "forget", "dora");
    assert_eq!((forgotten.0, forgotten.1.trim()), (Some(0), "forgotten"));
    eventually("the other replica has forgotten too", || {
        let asked = other.countersign.admin_of("Behavior", "ExportProfile", &whose, true);
        asked.is_err_and(|error| error.contains("NotFound")).then_some(())
    });
    assert_eq!(kept(), "", "and the store");
    let told = one.countersign.audit().into_iter().filter(|record| record["kind"] == "admin");
    let told: Vec<_> = told.map(|record| (record["action"].clone(), record["outcome"].clone())).collect();
    assert!(told.contains(&(json!("profile.forget"), json!("refused"))), "{told:?}");
    assert!(told.contains(&(json!("profile.forget"), json!("done"))), "{told:?}");
}

fn profile(folder: &Path, server: &Countersign, action: &str, subject: &str) -> (Option<i32>, String) {
    let config = folder.join("countersign.yaml");
    let config = config.to_str().expect("a path in UTF-8");
    server.command(&["risk", "profile", action, "--issuer", tokens::ISSUER, "--subject", subject, "--config", config])
}

#[test]
fn our_own_audit_replays_to_the_same_risks() {
    let stack = builder("statistical").start();
    acquaint(&stack, "erin");
    acquaint(&stack, "finn");
    let token = session("erin", 600).mint();
    ask(&stack, &token, HOME, FIREFOX);
    ask(&stack, &token, FAR, CURL);
    ask(&stack, &token, HOME, FIREFOX);
    let scored = eventually("the audit has caught up", || {
        let all: Vec<Value> = stack.countersign.audit();
        let scored: Vec<Value> = all.into_iter().filter(|record| record["risk_agent"].is_object()).collect();
        (scored.len() == 23).then_some(scored)
    });
    let events = stack.folder.join("records.jsonl");
    fs::write(&events, stack.countersign.process.stdout()).expect("the folder is writable");
    let out = stack.folder.join("scores.csv");
    let done = binary().args(["risk", "replay", "--quiet", "--events"]).arg(&events).arg("--out").arg(&out).output();
    let done = done.expect("the binary runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let table = fs::read_to_string(&out).expect("it was written");
    let rows: Vec<(&str, f64)> = table
        .lines()
        .skip(1)
        .filter_map(|row| row.split_once(',').and_then(|(id, rest)| Some((id, rest.split(',').next()?.parse().ok()?))))
        .collect();
    assert_eq!(rows.len(), scored.len());
    for (record, (id, score)) in scored.iter().zip(rows) {
        assert_eq!(record["id"], id);
        // The lines that hold until there is enough to calibrate with: docs/risk.md.
        let risk = (5.0 + 3.0 * (score + 1.0) / 4.0).clamp(0.0, 10.0);
        assert_eq!(record["facts"]["behavior"]["known"]["value"]["assessment"]["score"].as_f64(), Some(risk), "{id}");
    }
}

/// What the model said against a request, by its audit record.
fn terms(stack: &Stack, decision: &str) -> Vec<String> {
    let record = eventually("the decision is on record", || {
        stack.countersign.audit().into_iter().find(|record| record["id"] == decision)
    });
    let told = record["facts"]["behavior"]["known"]["value"]["assessment"]["terms"].as_array().cloned();
    let told = told.unwrap_or_else(|| panic!("scored: {record:#}"));
    told.iter().filter(|term| term[1].as_f64().is_some_and(|nats| nats > 0.0)).map(|term| term[0].to_string()).collect()
}

#[test]
fn a_session_goes_between_routes_that_look_at_devices_and_routes_that_do_not() {
    let mut builder = builder("statistical");
    builder.countersign.rules = "resources:\n  \
        - { id: payments, access: authenticated, device: never, match: { paths: [\"/payments\"] } }\n  \
        - { id: all, access: authenticated, match: { paths: [\"/**\"] } }\n"
        .to_owned();
    let stack = builder.start();
    let put = json!({"device": {"id": "laptop-ivy", "user": "ivy", "compliant": true}});
    stack.countersign.admin("PutDevice", &put).expect("put");
    let ask = |path: &str, token: &str, from: &str| {
        let request = stack.get(path).bearer(token).header("X-Device-ID", "laptop-ivy");
        request.header("X-Forwarded-For", from).header("User-Agent", FIREFOX).send()
    };
    for _ in 0..6 {
        let token = session("ivy", 600).mint();
        eventually("home is fine", || (ask("/work", &token, HOME).status == 200).then_some(()));
    }
    for order in [["/work", "/payments"], ["/payments", "/work"]] {
        let token = session("ivy", 600).mint();
        for path in order.into_iter().cycle().take(6) {
            let answer = ask(path, &token, HOME);
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let id = answer.upstream().map(|upstream| upstream.header("x-zt-decision-id").to_owned());
            let told = terms(&stack, &id.unwrap_or_default());
            assert!(!told.iter().any(|term| term.contains("device") || term.contains("client")), "{path}: {told:?}");
        }
        let stolen = ask("/payments", &token, FAR);
        assert!(stolen.status != 200, "elsewhere it is another's: {stolen:?}");
    }
}

#[test]
fn a_policy_has_a_threshold_of_risk_of_its_own() {
    let rules = "resources:\n  - { id: vault, policy: calm, match: { paths: [\"/vault\"] } }\n  \
                 - { id: all, access: authenticated, match: { paths: [\"/**\"] } }\n\
                 policies: [{ id: calm, conditions: { max_risk: 2.5 }, actions: [{ type: allow }] }]\n";
    let stack = Builder::with_rules(rules).start();
    let put = json!({"device": {"id": "laptop", "user": "gina", "compliant": true, "fingerprint": "fp"}});
    stack.countersign.admin("PutDevice", &put).expect("put");
    let ask = |path: &str, methods: &[&str]| {
        let token = Token::person("gina").claim("amr", methods).mint();
        stack.get(path).bearer(&token).header("X-Device-ID", "laptop").header("X-Device-Fingerprint", "fp").send()
    };
    let password = ask("/vault", &["pwd"]);
    assert!(is_challenged(&password) && password.reason() == "mfa_required", "{password:?}");
    assert_eq!(ask("/other", &["pwd"]).status, 200, "elsewhere the same risk is fine");
    assert_eq!(ask("/vault", &["pwd", "otp"]).status, 200);
}
