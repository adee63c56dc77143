//! What is decided here is told to others: signed, once, in order, through their absence and our death; and another Countersign
//! believes it.

use serde_json::{Value, json};

use crate::{
    redis::Redis,
    support::{
        countersign::{Countersign, Setup},
        http::Response,
        ports,
        process::{eventually, pause},
        receiver::{Push, Receiver},
        stack::{Builder, Stack},
        tls,
        tokens::{self, Token},
    },
};

const HEADER: &str = "Bearer receiver-token";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const COMPLIANCE: &str = "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change";

/// Its own address, as others reach it.
fn address(builder: &Builder) -> String {
    format!("http://{}", builder.countersign.config["listen"]["http"].as_str().expect("an address"))
}

/// Tells a receiver at this port.
fn telling(builder: Builder, port: u16) -> Builder {
    let issuer = address(&builder);
    let url = format!("http://{}/events", ports::local(port));
    let receivers = json!([{"url": url, "audience": "them", "authorization_header": HEADER}]);
    builder.set("/signals", json!({"issuer": issuer, "receivers": receivers}))
}

fn revoke(countersign: &Countersign, kind: &str, id: &str) {
    countersign.admin("Revoke", &json!({"kind": kind, "id": id, "reason": "test"})).expect("an operator may revoke");
}

/// A command as an operator gives it.
fn operator(countersign: &Countersign, command: &[&str]) {
    let (code, text) = countersign.command(&[command, &["--config", "countersign.yaml"]].concat());
    assert_eq!(code, Some(0), "{command:?}: {text}");
}

fn sent(countersign: &Countersign, outcome: &str) -> f64 {
    countersign.metric("countersign_signals_sent_total", &format!("outcome=\"{outcome}\""))
}

/// What the service says; a check that a busy machine did not finish in time is asked again.
fn ask(stack: &Stack, path: &str, token: &str) -> Response {
    eventually("a check ends in time", || {
        let request = stack.get(path).bearer(token).header("X-Device-ID", "d1").header("X-Device-Fingerprint", "fp");
        Some(request.send()).filter(|answer| answer.status != 503)
    })
}

/// What is told in several events may be refused for something else on the way: a device first for a strong proof.
fn until_refused(stack: &Stack, path: &str, token: &str, expected: &str) {
    eventually(&format!("it is refused there too: {expected}"), || {
        Some(ask(stack, path, token)).filter(|answer| answer.status != 200 && answer.reason() == expected)
    });
}

#[test]
fn what_is_told_is_what_was_decided_signed_with_a_published_key() {
    let port = ports::free();
    let stack = telling(Builder::new(), port).start();
    let receiver = Receiver::start(ports::local(port), &[]);
    let countersign = &stack.countersign;
    revoke(countersign, "KIND_SESSION", "s1");
    revoke(countersign, "KIND_SUBJECT", "ann");
    let device = json!({"device": {"id": "d1", "user": "ann", "fingerprint": "fp", "compliant": false}});
    countersign.admin("PutDevice", &device).expect("put");
    countersign.admin("SuspendDevice", &json!({"id": "d1", "reason": "lost"})).expect("suspended");
    countersign.admin("PutDevice", &json!({"device": {"id": "d1", "compliant": true}})).expect("put");
    operator(countersign, &["device", "activate", "d1"]);
    let pushes = eventually("all is told", || Some(receiver.pushes()).filter(|pushes| pushes.len() >= 6));
    let keys = countersign.get("/.well-known/jwks.json").json();
    let metadata = countersign.get("/.well-known/ssf-configuration").json();
    assert_eq!(metadata["delivery_methods_supported"], json!(["urn:ietf:rfc:8935"]), "{metadata}");
    assert_eq!(metadata["jwks_uri"], format!("{}/.well-known/jwks.json", metadata["issuer"].as_str().expect("a name")));
    let told: Vec<(Value, Value)> = pushes
        .iter()
        .map(|push| {
            assert!(push.head.contains("content-type: application/secevent+jwt\r\n"), "{}", push.head);
            assert!(push.head.contains("authorization: bearer receiver-token\r\n"), "{}", push.head);
            let claims = push.verified(&keys);
            assert_eq!((&claims["iss"], &claims["aud"]), (&metadata["issuer"], &json!("them")), "{claims}");
            assert!(claims["iat"].is_u64() && claims.get("exp").is_none() && claims.get("sub").is_none(), "{claims}");
            (claims["sub_id"].clone(), claims["events"].clone())
        })
        .collect();
    let complex = |name: &str, subject: Value| json!({"format": "complex", name: subject});
    let (session, device) = (json!({"format": "opaque", "id": "s1"}), json!({"format": "opaque", "id": "d1"}));
    assert_eq!(told[0].0, complex("session", session));
    assert_eq!(told[0].1[REVOKED]["reason_admin"], json!({"en": "test"}));
    assert_eq!(told[0].1[REVOKED]["initiating_entity"], "admin");
    assert_eq!(told[1].0, complex("user", json!({"format": "iss_sub", "iss": tokens::ISSUER, "sub": "ann"})));
    let status = |at: usize| told[at].1[COMPLIANCE]["current_status"].as_str().unwrap_or_default().to_owned();
    assert_eq!([status(2), status(4), status(5)], ["not-compliant", "not-compliant", "compliant"], "{told:#?}");
    assert_eq!(told[3].0, complex("device", device.clone()), "its sessions first");
    assert!(told[3].1[REVOKED].is_object() && told[2].0 == complex("device", device), "{told:#?}");
    let actions: Vec<Value> = countersign.audit().iter().map(|record| record["action"].clone()).collect();
    assert!(actions.contains(&json!("signal.sent.session-revoked")), "{actions:?}");
}

#[test]
fn nobody_is_told_that_a_device_is_compliant_while_it_is_refused_here() {
    let port = ports::free();
    let builder = telling(Builder::new(), port);
    let instance = Instance::start(&builder);
    instance.countersign.wait_ready();
    let receiver = Receiver::start(ports::local(port), &[]);
    let admin = |method: &str, request: Value| instance.countersign.admin(method, &request).expect("an operator may");
    let put = |fields: Value| admin("PutDevice", json!({ "device": fields }));
    let undo = |id: &str| admin("Reinstate", json!({"kind": "KIND_DEVICE", "id": id, "reason": "found"}));
    // The record says otherwise, until it does not.
    put(json!({"id": "d1", "compliant": false}));
    admin("SuspendDevice", json!({"id": "d1", "reason": "lost"}));
    operator(&instance.countersign, &["device", "activate", "d1"]);
    put(json!({"id": "d1", "compliant": true}));
    // Two things stand against it; with either it is refused.
    put(json!({"id": "d2", "status": "revoked"}));
    revoke(&instance.countersign, "KIND_DEVICE", "d2");
    put(json!({"id": "d2", "compliant": true}));
    undo("d2");
    revoke(&instance.countersign, "KIND_DEVICE", "d2");
    put(json!({"id": "d2", "status": "active"}));
    undo("d2");
    // Nobody knows it: only what we told of it is taken back.
    undo("d3");
    revoke(&instance.countersign, "KIND_DEVICE", "d3");
    undo("d3");
    // Whatever it is that is mended last.
    put(json!({"id": "d4", "jailbroken": true}));
    admin("SuspendDevice", json!({"id": "d4", "reason": "lost"}));
    operator(&instance.countersign, &["device", "activate", "d4"]);
    put(json!({"id": "d4", "compliant": true}));
    put(json!({"id": "d4", "jailbroken": false}));
    revoke(&instance.countersign, "KIND_SESSION", "last");
    let told = eventually("all is told", || {
        let told: Vec<Value> = receiver.accepted().iter().map(Push::claims).collect();
        told.iter().any(|claims| claims["sub_id"]["session"]["id"] == "last").then_some(told)
    });
    let word = |claims: &Value| {
        let device = claims["sub_id"]["device"]["id"].as_str()?.to_owned();
        Some((device, claims["events"][COMPLIANCE]["current_status"].as_str()?.to_owned()))
    };
    let words: Vec<(String, String)> = told.iter().filter_map(word).collect();
    let said = |id: &str, status: &str| (id.to_owned(), status.to_owned());
    let (bad, good) = ("not-compliant", "compliant");
    let expected = [
        ("d1", &[bad, bad, good][..]),
        ("d2", &[bad, bad, bad, good]),
        ("d3", &[bad, good]),
        ("d4", &[bad, bad, good]),
    ];
    let expected = expected.iter().flat_map(|(id, statuses)| statuses.iter().map(|status| said(id, status)));
    assert_eq!(words, expected.collect::<Vec<_>>());
}

/// Two who tell each other and believe each other; keys are found by the other's metadata alone.
fn telling_each_other() -> [Stack; 2] {
    let (here, there) = (Builder::new(), Builder::new());
    let [here_at, there_at] = [address(&here), address(&there)];
    let section = |own: &str, other: &str| {
        json!({
            "issuer": own,
            "receivers": [{"url": format!("{other}/signals/ssf"), "audience": other, "authorization_header": HEADER}],
            "transmitters": [{"issuer": other, "audience": own, "algorithms": ["RS256"], "authorization_header": HEADER}],
        })
    };
    let here = here.set("/signals", section(&here_at, &there_at)).start();
    [here, there.set("/signals", section(&there_at, &here_at)).start()]
}

#[test]
fn our_word_against_a_device_is_taken_back_when_a_signal_mends_the_last() {
    let [here, there] = telling_each_other();
    let put = |side: &Stack, device: Value| {
        side.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
    };
    let until_compliant = |side: &Stack, compliant: bool| {
        eventually("it has heard", || {
            let device = side.countersign.admin("GetDevice", &json!({"id": "d1"})).expect("it is there");
            (device["compliant"] == compliant).then_some(())
        });
    };
    for side in [&here, &there] {
        put(side, json!({"id": "d1", "user": "alice"}));
    }
    here.countersign.admin("SuspendDevice", &json!({"id": "d1", "reason": "lost"})).expect("suspended");
    until_compliant(&there, false);
    put(&there, json!({"id": "d1", "compliant": false}));
    until_compliant(&here, false);
    operator(&here.countersign, &["device", "activate", "d1"]);
    // Of two events of the same second the stricter stands.
    pause(std::time::Duration::from_millis(1100));
    put(&there, json!({"id": "d1", "compliant": true}));
    until_compliant(&here, true);
    let told = |side: &Stack| sent(&side.countersign, "accepted") + sent(&side.countersign, "refused");
    eventually("it is taken back", || (told(&here) >= 3.0).then_some(()));
    pause(std::time::Duration::from_secs(2));
    let told = [&here, &there].map(told);
    assert_eq!(told, [3.0, 2.0], "out (two events) and back; not compliant and compliant; and nothing goes round");
}

#[test]
fn another_countersign_refuses_what_this_one_revoked_and_nothing_goes_round() {
    let [here, there] = telling_each_other();
    let device = json!({"device": {"id": "d1", "user": "alice", "fingerprint": "fp", "compliant": true}});
    for side in [&here, &there] {
        side.countersign.admin("PutDevice", &device).expect("put");
    }
    let [alice, other] = [Token::person("alice"), Token::person("alice")];
    let [first, second] = [alice.mint(), other.mint()];
    assert_eq!(ask(&there, "/vault", &first).status, 200);
    revoke(&here.countersign, "KIND_SESSION", alice.value("sid"));
    until_refused(&there, "/vault", &first, "session_revoked");
    assert_eq!(ask(&there, "/vault", &second).status, 200, "that session only");
    operator(&here.countersign, &["device", "revoke", "d1", "--reason", "stolen"]);
    until_refused(&there, "/vault", &second, "device_not_compliant");
    revoke(&here.countersign, "KIND_SUBJECT", "alice");
    until_refused(&there, "/hello", &second, "subject_revoked");

    // Of the device that is put there, news may come before it is put here: then that is refused.
    let taken = |side: &Stack| {
        let sum = |name| side.countersign.metric(name, "");
        sum("countersign_signals_total") + sum("countersign_signals_refused_total")
    };
    let told = |side: &Stack| sent(&side.countersign, "accepted") + sent(&side.countersign, "refused");
    // What each was told of the device that was put there; and what was revoked here: a session, a device twice, a subject.
    eventually("all is told", || (told(&here) >= 5.0).then_some(()));
    pause(std::time::Duration::from_secs(3));
    assert_eq!((told(&here), told(&there)), (5.0, 1.0), "what was heard is not told");
    assert_eq!((taken(&there), taken(&here)), (5.0, 1.0));
}

#[test]
fn a_session_that_an_operator_ends_here_is_over_there() {
    let (here, there) = (Builder::new(), Builder::new());
    let [here_at, there_at] = [address(&here), address(&there)];
    let receivers = json!([{"url": format!("{there_at}/signals/ssf"), "audience": there_at}]);
    let here = here.set("/signals", json!({"issuer": here_at, "receivers": receivers})).start();
    let known = json!([{"issuer": here_at, "audience": there_at, "algorithms": ["RS256"]}]);
    let there = there.set("/signals", json!({ "transmitters": known })).start();
    let [ended, other] = [Token::person("olga"), Token::person("olga")];
    let [first, second] = [ended.mint(), other.mint()];
    for side in [&here, &there] {
        assert_eq!([ask(side, "/hello", &first).status, ask(side, "/hello", &second).status], [200, 200]);
    }
    eventually("the session is written", || {
        let (code, text) = here.countersign.command(&["session", "list", "--config", "countersign.yaml"]);
        (code == Some(0) && text.contains(ended.value("sid"))).then_some(())
    });
    operator(&here.countersign, &["session", "end", ended.value("sid"), "--reason", "test"]);
    until_refused(&there, "/hello", &first, "session_revoked");
    assert_eq!(ask(&there, "/hello", &second).status, 200, "that session only");
}

/// What can be ended and started again.
struct Instance {
    countersign: Countersign,
    setup: Setup,
    folder: std::path::PathBuf,
}

impl Instance {
    fn start(builder: &Builder) -> Self {
        let (folder, setup) = (builder.folder().to_owned(), builder.countersign.clone());
        let countersign = Countersign::start(&folder, &setup);
        countersign.wait_ready();
        Self { countersign, setup, folder }
    }

    fn kill(&mut self) {
        self.countersign.process.signal("KILL");
        self.countersign.process.wait();
    }

    fn restart(&mut self) {
        self.countersign = Countersign::start(&self.folder, &self.setup);
        self.countersign.wait_ready();
    }
}

fn waiting(instance: &Instance) -> f64 {
    instance.countersign.metric("countersign_signals_waiting", "")
}

#[test]
fn nothing_is_lost_or_told_twice_through_a_dead_receiver_and_a_killed_sender() {
    let port = ports::free();
    let builder = telling(Builder::new(), port);
    let store = format!("file://{}", builder.folder().join("store").display());
    let builder = builder.set("/store/url", store);
    let mut instance = Instance::start(&builder);
    for id in ["s1", "s2"] {
        revoke(&instance.countersign, "KIND_SESSION", id);
    }
    eventually("attempts fail", || {
        (instance.countersign.metric("countersign_signals_send_failures_total", "") >= 1.0).then_some(())
    });
    assert_eq!(waiting(&instance) as u64, 2);
    instance.kill();
    instance.restart();
    revoke(&instance.countersign, "KIND_SESSION", "s3");
    // Not yet, wrong twice more, and one answer that is lost on the way; then it takes them.
    let receiver = Receiver::start(ports::local(port), &[(503, ""), (401, ""), (302, "")]);
    let accepted = eventually("all are told", || Some(receiver.accepted()).filter(|pushes| pushes.len() >= 3));
    let keys = instance.countersign.get("/.well-known/jwks.json").json();
    let sessions: Vec<Value> =
        accepted.iter().map(|push| push.verified(&keys)["sub_id"]["session"]["id"].clone()).collect();
    assert_eq!(sessions, ["s1", "s2", "s3"], "in order, each once");
    let first: Vec<String> = receiver.pushes().iter().take(4).map(Push::jti).collect();
    assert!(first.iter().all(|jti| *jti == first[0]), "the same token is tried again: {first:?}");
    eventually("nothing waits", || (waiting(&instance) == 0.0).then_some(()));
    instance.kill();
    instance.restart();
    pause(std::time::Duration::from_secs(2));
    assert_eq!(receiver.pushes().len(), 6, "what was taken is not sent after a restart");
}

#[test]
fn a_refusal_is_final_and_counted_and_too_much_is_dropped_and_counted() {
    let port = ports::free();
    let builder = telling(Builder::new(), port).set("/signals/receivers/0/max_waiting", 2);
    let instance = Instance::start(&builder);
    for id in ["s1", "s2", "s3"] {
        revoke(&instance.countersign, "KIND_SESSION", id);
    }
    assert_eq!(sent(&instance.countersign, "dropped") as u64, 1);
    let receiver =
        Receiver::start(ports::local(port), &[(400, "{\"err\":\"invalid_audience\",\"description\":\"not me\"}")]);
    eventually("one is refused, the next is not", || {
        (sent(&instance.countersign, "refused") >= 1.0 && sent(&instance.countersign, "accepted") >= 1.0).then_some(())
    });
    let answered: Vec<u16> = receiver.pushes().iter().map(|push| push.answered).collect();
    assert_eq!(answered, [400, 202], "a token that was refused is not sent again");
    let audit = instance.countersign.audit();
    let refused = audit.iter().find(|record| record["outcome"] == "refused").expect("it is recorded");
    assert_eq!((&refused["action"], &refused["target"]), (&json!("signal.sent.session-revoked"), &json!("session:s1")));
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.starts_with("invalid_audience, token ")));
}

#[test]
fn a_posture_a_renewal_and_an_import_that_make_it_worse_are_told_and_a_fleet_that_is_read_in_is_not() {
    let port = ports::free();
    let builder = telling(Builder::new(), port);
    let authority = tls::write_device_authority(builder.folder());
    let enrollment = json!({"enabled": true, "authority": authority});
    let builder = builder.set("/devices", json!({"trust_domain": "devices.test", "enrollment": enrollment}));
    let instance = Instance::start(&builder);
    let receiver = Receiver::start(ports::local(port), &[]);
    let fleet = |method: &str, request: Value| instance.countersign.fleet(method, &request);
    let posture = |locked: bool| json!({"disk_encrypted": true, "screen_lock": locked, "jailbroken": false, "patch_level": "current"});
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let csr = rcgen::CertificateParams::new(Vec::new()).expect("no names").serialize_request(&key);
    let csr = csr.and_then(|request| request.pem()).expect("a request can be made");
    // Good, and never judged before: no news. Nor is what is read in, or what stays as it is.
    let enroll = json!({"user": "ann", "device_id": "d1", "csr": csr, "posture": posture(true)});
    fleet("Enroll", enroll).expect("enrolled");
    let import = |devices: Value| fleet("Import", json!({"devices": devices})).expect("imported");
    let (bad, lost) = (json!({"id": "d2", "compliant": false}), json!({"id": "d3", "status": "suspended"}));
    import(json!([bad, {"id": "d3", "compliant": true}, {"id": "d4", "status": "revoked"}]));
    import(json!([bad, {"id": "d3", "compliant": true}]));
    let update = |locked: bool| {
        let request = json!({"device_id": "d1", "posture": {"screen_lock": locked}});
        fleet("UpdatePosture", request).expect("updated")
    };
    update(true);
    // Each of these is.
    update(false);
    update(false);
    update(true);
    let renew = json!({"device_id": "d1", "csr": csr, "posture": posture(false)});
    fleet("Renew", renew).expect_err("it is not compliant, and nothing was written");
    update(false);
    // It stays not compliant by what was found, whoever has judged.
    instance.countersign.admin("PutDevice", &json!({"device": {"id": "d1", "compliant": true}})).expect("put");
    import(json!([lost, {"id": "d2", "compliant": false, "user": "bob"}]));
    import(json!([lost]));
    revoke(&instance.countersign, "KIND_SESSION", "last");
    let told = eventually("all is told", || {
        let told: Vec<Value> = receiver.accepted().iter().map(Push::claims).collect();
        told.iter().any(|claims| claims["sub_id"]["session"]["id"] == "last").then_some(told)
    });
    let words: Vec<(Value, Value, Value)> = told
        .iter()
        .map(|claims| {
            let event = claims["events"].as_object().and_then(|events| events.values().next()).expect("an event");
            let device = claims["sub_id"]["device"]["id"].clone();
            (device, event["current_status"].clone(), event["initiating_entity"].clone())
        })
        .collect();
    let word = |device: &str, status: Value, by: &str| (json!(device), status, json!(by));
    let (good, bad) = (|| json!("compliant"), || json!("not-compliant"));
    let expected = [
        word("d1", bad(), "policy"),
        word("d1", good(), "policy"),
        word("d1", bad(), "policy"),
        word("d3", Value::Null, "admin"),
        word("d3", bad(), "admin"),
        (Value::Null, Value::Null, json!("admin")),
    ];
    assert_eq!(words, expected);
    let reason = &told[0]["events"][COMPLIANCE]["reason_admin"]["en"];
    assert_eq!(reason, "no_screen_lock", "{:?}", told[0]);
}

#[test]
fn of_two_replicas_one_tells() {
    let port = ports::free();
    let (first, second) = (telling(Builder::new(), port), telling(Builder::new(), port));
    let redis = Redis::start(first.folder());
    let issuer = address(&first);
    let [first, second] =
        [first, second].map(|builder| builder.set("/store/url", redis.url()).set("/signals/issuer", issuer.clone()));
    let instances = [Instance::start(&first), Instance::start(&second)];
    let receiver = Receiver::start(ports::local(port), &[]);
    for at in 0..20 {
        revoke(&instances[at % 2].countersign, "KIND_SESSION", &format!("s{at}"));
    }
    eventually("all are told", || (receiver.accepted().len() >= 20).then_some(()));
    pause(std::time::Duration::from_secs(2));
    let told: Vec<Value> =
        receiver.pushes().iter().map(|push| push.claims()["sub_id"]["session"]["id"].clone()).collect();
    let expected: Vec<Value> = (0..20).map(|at| json!(format!("s{at}"))).collect();
    assert_eq!(told, expected, "each once, in the order of the decisions");
    let keys = |at: usize| {
        let set = instances[at].countersign.get("/.well-known/jwks.json").json();
        let keys = set["keys"].as_array().expect("a set").iter();
        keys.filter(|key| key["alg"] == "RS256").map(|key| key["kid"].clone()).collect::<Vec<_>>()
    };
    // Who had no store yet at its start looks again some seconds later.
    eventually("the same keys on every replica", || (keys(0) == keys(1)).then_some(()));
}
