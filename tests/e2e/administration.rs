//! The admin API by grpcurl and reflection alone, and what it changes for requests through Envoy.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

use serde_json::json;

use crate::support::{
    process::eventually,
    stack::{Builder, Stack},
    tls,
    tokens::{Token, proof},
};

#[test]
fn a_revocation_bites_and_reinstating_takes_it_back() {
    let stack = Stack::start();
    let token = Token::person("alice");
    let compact = token.mint();
    let get = || stack.get("/hello").bearer(&compact).send();
    for (kind, claim, reason) in [
        ("KIND_TOKEN", "jti", "token_revoked"),
        ("KIND_SESSION", "sid", "session_revoked"),
        ("KIND_SUBJECT", "sub", "subject_revoked"),
    ] {
        assert_eq!(get().status, 200, "{kind}: {:?}", get());
        let named = json!({"kind": kind, "id": token.value(claim), "reason": "test"});
        stack.countersign.admin("Revoke", &named).expect("a token with a role may revoke");
        let answer = get();
        assert_eq!((answer.status, answer.reason().as_str()), (401, reason));
        let undone = stack.countersign.admin("Reinstate", &json!({"kind": kind, "id": token.value(claim)}));
        assert_eq!(undone.expect("and reinstate")["wasRevoked"], true);
    }
    assert_eq!(get().status, 200);
}

#[test]
fn a_write_without_a_token_is_refused_and_changes_nothing() {
    let stack = Stack::start();
    let token = Token::person("alice");
    let named = json!({"kind": "KIND_TOKEN", "id": token.value("jti")});
    let error = stack.countersign.admin_as_nobody("Revoke", &named).expect_err("nobody may revoke");
    assert!(error.contains("Unauthenticated"), "{error}");
    assert_eq!(stack.get("/hello").bearer(&token.mint()).send().status, 200);
}

#[test]
fn a_device_is_put_listed_suspended_and_back_at_once() {
    let stack = Stack::start();
    let token = Token::person("alice").mint();
    let get = || {
        let request = stack.get("/vault").bearer(&token).header("X-Device-ID", "laptop-1");
        request.header("X-Device-Fingerprint", "fp-1").send()
    };
    assert_eq!(get().reason(), "device_not_registered");
    let device = json!({"id": "laptop-1", "user": "alice", "fingerprint": "fp-1", "compliant": true});
    stack.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
    assert_eq!(get().status, 200, "{:?}", get());
    assert_eq!(get().upstream().expect("allowed").header("x-zt-device"), "laptop-1");
    let listed = stack.countersign.admin_as_nobody("ListDevices", &json!({"user": "alice"})).expect("reads are free");
    assert_eq!(listed["devices"][0]["id"], "laptop-1", "{listed}");
    stack.countersign.admin("SuspendDevice", &json!({"id": "laptop-1", "reason": "lost"})).expect("suspend");
    assert_eq!(get().status, 403);
    let back = json!({"device": {"id": "laptop-1", "status": "active"}});
    stack.countersign.admin("PutDevice", &back).expect("put");
    assert_eq!(get().status, 200, "device state is not sticky: {:?}", get());
}

#[test]
fn a_check_can_be_asked_and_explained_by_hand() {
    let stack = Stack::start();
    let token = Token::person("bob").mint();
    let request = json!({"attributes": {
        "source": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 40000}}},
        "request": {"http": {
            "method": "GET", "scheme": "http", "host": "shop.example", "path": "/orders", "protocol": "HTTP/1.1",
            "headers": {"authorization": format!("Bearer {token}")},
        }},
    }});
    let answer = stack.countersign.check(&request).expect("reflection describes Check");
    assert_eq!(answer["deniedResponse"]["status"]["code"], 403, "{answer}");
    let explained = stack.countersign.admin_as_nobody("Explain", &json!({ "request": request })).expect("explained");
    assert_eq!((&explained["verdict"], &explained["reason"]), (&json!("deny"), &json!("permission_missing")));
    assert!(explained["why"].as_str().is_some_and(|why| why.contains("permission")), "{explained}");
    assert!(!explained.to_string().contains(&token), "the token itself is not in the explanation");
}

#[test]
fn an_explanation_uses_up_no_proof_of_possession() {
    let stack = Stack::start();
    let token = Token::person("bob").bound().mint();
    let proof = proof(&token, "GET", "http://shop.example/hello");
    let request = json!({"attributes": {"request": {"http": {
        "method": "GET", "scheme": "http", "host": "shop.example", "path": "/hello",
        "headers": {"authorization": format!("DPoP {token}"), "dpop": proof},
    }}}});
    let explained = || stack.countersign.admin_as_nobody("Explain", &json!({ "request": request })).expect("explained");
    for _ in 0..2 {
        assert_eq!(explained()["verdict"], "allow", "{}", explained());
    }
    let asked = || stack.countersign.check(&request).expect("answered");
    assert!(asked().get("okResponse").is_some());
    assert_eq!(asked()["deniedResponse"]["status"]["code"], 401, "once is enough");
    assert_eq!(explained()["reason"], "proof_invalid", "and the explanation knows");
}

#[test]
fn an_explanation_knows_of_a_used_up_rate_limit_and_takes_nothing_from_it() {
    let stack = Stack::start();
    let token = Token::person("bob").mint();
    let request = json!({"attributes": {"request": {"http": {
        "method": "GET", "scheme": "http", "host": "shop.example", "path": "/limited",
        "headers": {"authorization": format!("Bearer {token}")},
    }}}});
    let explained = || stack.countersign.admin_as_nobody("Explain", &json!({ "request": request })).expect("explained");
    let asked = || stack.countersign.check(&request).expect("answered");
    for _ in 0..2 {
        assert_eq!(explained()["verdict"], "allow", "{}", explained());
        assert!(asked().get("okResponse").is_some(), "what was only looked at is still there");
    }
    assert_eq!(explained()["reason"], "rate_limited", "{}", explained());
    assert_eq!(asked()["deniedResponse"]["status"]["code"], 429);
}

#[test]
fn a_decision_is_explained_by_the_id_that_the_client_was_given() {
    let stack = Stack::start();
    let answer = stack.get("/orders").bearer(&Token::person("bob").mint()).send();
    let id = answer.header("x-zt-decision-id").expect("an id").to_owned();
    let explained = stack.countersign.admin_as_nobody("Explain", &json!({ "decision_id": id })).expect("remembered");
    assert_eq!(explained["reason"], "permission_missing", "{explained}");
    assert!(explained["subject"].as_str().is_some_and(|subject| subject.starts_with("bob ")), "{explained}");
}

#[test]
fn what_is_wrong_with_a_token_is_explained_to_operators_alone() {
    let stack = Stack::start();
    for (claim, value, said) in
        [("aud", "elsewhere", "wrong audience"), ("iss", "https://elsewhere.test", "unknown issuer")]
    {
        let token = Token::person("bob").claim(claim, value).mint();
        let answer = stack.get("/orders").bearer(&token).send();
        let id = answer.header("x-zt-decision-id").expect("an id").to_owned();
        assert!(!answer.body.contains(said), "{}", answer.body);
        let (code, text) = stack.countersign.command(&["explain", "--config", "countersign.yaml", "--decision", &id]);
        assert_eq!(code, Some(0), "{text}");
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(&format!("signed for us: {said}")), "{text}");
    }
}

#[test]
fn there_is_one_audit_record_for_each_decision_under_its_id() {
    let stack = Stack::start();
    let token = Token::person("alice").mint();
    let ids: Vec<String> = ["/hello", "/orders", "/nowhere", "/public/x"]
        .iter()
        .map(|path| {
            let answer = stack.get(path).bearer(&token).send();
            let upstream = answer.upstream().map(|upstream| upstream.header("x-zt-decision-id").to_owned());
            upstream.or_else(|| answer.header("x-zt-decision-id").map(str::to_owned)).expect("an id")
        })
        .collect();
    for id in ids {
        let count = || stack.countersign.audit().iter().filter(|record| record.to_string().contains(&id)).count();
        eventually("the record is written", || (count() > 0).then_some(()));
        assert_eq!(count(), 1, "{id}");
    }
}

#[test]
fn metrics_count_verdicts_by_reason_and_name_nobody() {
    let stack = Stack::start();
    for _ in 0..3 {
        stack.get("/hello").send();
    }
    stack.get("/hello").bearer(&Token::person("alice-the-subject").mint()).send();
    assert!(stack.countersign.metric("countersign_", "reason=\"no_credentials\"") >= 3.0);
    let text = stack.countersign.get("/metrics").body;
    assert!(!text.contains("alice-the-subject") && !text.contains("/hello"), "a label names somebody:\n{text}");
}

#[test]
fn the_command_line_revokes_reinstates_and_enrols() {
    let stack = Stack::start();
    let token = Token::person("alice");
    let compact = token.mint();
    let get = || stack.get("/hello").bearer(&compact).send().status;
    let run = |arguments: &[&str]| {
        let (code, output) = stack.countersign.command(&[arguments, &["--config", "countersign.yaml"]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {output}");
        output
    };
    run(&["revoke", "token", token.value("jti"), "--reason", "lost"]);
    assert_eq!(get(), 401);
    assert!(run(&["revoke", "--list"]).contains(token.value("jti")));
    run(&["revoke", "token", token.value("jti"), "--undo"]);
    assert_eq!(get(), 200);

    run(&["device", "put", "d1", "--set", "user=alice", "--set", "compliant=true", "--set", "fingerprint=f"]);
    let vault = || {
        let request = stack.get("/vault").bearer(&compact).header("X-Device-ID", "d1");
        request.header("X-Device-Fingerprint", "f").send().status
    };
    assert_eq!(vault(), 200);
    run(&["device", "suspend", "d1"]);
    assert_eq!(vault(), 403);
    run(&["revoke", "device", "d2"]);
    let again = run(&["revoke", "device", "d2", "--for", "1h"]);
    assert!(again.contains("for good"), "what is in force: {again}");
    // Nobody registered this one; it is kept out all the same, and not called active.
    let stolen = run(&["device", "revoke", "stolen"]);
    assert!(stolen.contains("revoked") && !stolen.contains("active"), "{stolen}");
}

#[test]
fn doctor_tells_keys_store_rules_feed_and_when_envoy_last_asked() {
    let mut builder = Builder::new().no_envoy();
    let (keys, absent) = (builder.folder().join("jwks.json"), builder.folder().join("absent.json"));
    let partner = json!({"issuer": "https://partner.example", "audiences": ["api"], "jwks": absent});
    builder.countersign.config["identity"]["issuers"].as_array_mut().expect("a list").push(partner);
    let stack = builder.start_unready();
    let doctor = || stack.countersign.command(&["doctor", "--config", "countersign.yaml"]).1;
    let says = |wanted: &[&str]| {
        let line = |text: &str| text.lines().any(|line| wanted.iter().all(|word| line.contains(word)));
        eventually(wanted[0], || Some(doctor()).filter(|text| line(text)))
    };
    says(&["ok    keys", "https://issuer.test: ", "fetched ", " s ago"]);
    let said = says(&["BAD   keys", "https://partner.example: 0 keys", "No such file"]);
    for wanted in [
        "warn  server         store: `memory://`: revocations and devices die with this process",
        "feed           live, heard 0 s ago, 0 revocations known",
        "policies, for ",
        "warn  Envoy          has not asked since the start",
        "not yet: the keys of an issuer have not been had yet",
    ] {
        assert!(said.contains(wanted), "`{wanted}`: {said}");
    }
    let wanting = stack.countersign.get("/readyz").body;
    assert!(wanting.contains("no keys of https://partner.example yet"), "{wanting}");

    let request =
        json!({"attributes": {"request": {"http": {"method": "GET", "host": "shop.example", "path": "/hello"}}}});
    stack.countersign.check(&request).expect("answered");
    says(&["ok    Envoy", "1 question (allow 0, deny 1, step-up 0), the last ", " s ago"]);
    std::fs::write(&keys, "{}").expect("written");
    says(&["BAD   keys", "https://issuer.test: ", "fetched ", "the last fetch failed: "]);
}

#[test]
fn doctor_ends_also_where_the_server_hangs() {
    for admin_tls in [false, true] {
        let mut builder = Builder::new().no_envoy();
        if admin_tls {
            tls::write_server(builder.folder());
            let file = |name: &str| builder.folder().join(name).display().to_string();
            let (certificate, key) = (file("tls-server.pem"), file("tls-server.key"));
            builder = builder.set("/listen/admin_tls", json!({"certificate": certificate, "key": key}));
        }
        let stack = builder.start();
        stack.countersign.process.signal("STOP");
        let (code, said) = stack.countersign.command(&["doctor", "--config", "countersign.yaml"]);
        assert_eq!(code, Some(1), "{said}");
        for part in ["authz port", "readiness", "admin API"] {
            assert!(said.contains(&format!("BAD   {part}")), "{part}: {said}");
        }
        stack.countersign.process.signal("CONT");
    }
}

#[test]
fn with_a_file_store_the_token_is_in_its_folder_and_the_command_line_finds_it() {
    let revoke = ["revoke", "token", "t1", "--config", "countersign.yaml"];
    for made_before in [false, true] {
        let builder = Builder::new().no_envoy().set("/admin", json!({}));
        let (store, old) = (builder.folder().join("store"), builder.folder().join(".local/state/countersign"));
        if made_before {
            std::fs::create_dir_all(&old).expect("made");
            std::fs::write(old.join("admin.token"), "cst_0123456789abcdef").expect("written");
            std::fs::set_permissions(old.join("admin.token"), Permissions::from_mode(0o600)).expect("set");
        }
        let stack = builder.set("/store/url", format!("file://{}", store.display())).start();
        let there = [&store, &old].map(|folder| folder.join("admin.token").exists());
        assert_eq!(there, [!made_before, made_before]);
        let (code, output) = stack.countersign.command(&revoke);
        assert_eq!(code, Some(0), "{output}");
    }
}

#[test]
fn the_examples_of_explain_work_as_they_are_printed() {
    let stack = Stack::start();
    std::fs::write(stack.folder.join("t.jwt"), Token::person("alice").roles(&["nobody"]).mint()).expect("written");
    let (_, help) = stack.countersign.command(&["explain", "--help"]);
    let example = help.lines().find_map(|line| line.trim().strip_prefix("countersign explain --path ")).expect("one");
    let words: Vec<&str> = example.split("  ").next().expect("before the remark").split(' ').collect();
    let arguments = [&["explain", "--config", "countersign.yaml", "--path"], words.as_slice()].concat();
    let (code, output) = stack.countersign.command(&arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {output}");
    assert!(output.contains("asked by alice"), "{output}");
}

#[test]
fn both_ports_list_health_beside_what_they_serve() {
    let stack = Stack::start();
    for (port, service) in [
        (stack.countersign.authz, "envoy.service.auth.v3.Authorization"),
        (stack.countersign.admin, "countersign.admin.v1.Admin"),
    ] {
        let mut list = std::process::Command::new(crate::support::tool("bin/grpcurl"));
        let output = list.args(["-plaintext", &port.to_string(), "list"]).output().expect("grpcurl runs");
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        for name in [service, "grpc.health.v1.Health"] {
            assert!(listed.lines().any(|line| line == name), "{port}: {name}: {listed}");
        }
    }
}
