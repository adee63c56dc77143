//! Security events: what a transmitter tells bites at every replica, and what is wrong with a token changes nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    redis::Redis,
    support::{
        http::{Request, Response},
        ports,
        process::{eventually, pause},
        stack::{Builder, Stack},
        tokens::{self, Token, now, unique},
    },
};

const TRANSMITTER: &str = "https://transmitter.test";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";

/// One transmitter and one logout provider, with the test issuer's keys.
pub fn with_signals(builder: Builder) -> Builder {
    let keys = builder.folder().join("jwks.json");
    builder.set(
        "/signals",
        json!({
            "transmitters": [{"issuer": TRANSMITTER, "audience": "countersign", "jwks": keys,
                              "algorithms": ["RS256", "ES256"]}],
            "logout": [{"issuer": tokens::ISSUER, "audience": "shop-web", "jwks": keys, "algorithms": ["ES256"]}],
        }),
    )
}

fn start() -> Stack {
    with_signals(Builder::new()).start()
}

/// A security event token in order.
fn set(event: &str, subject: &Value, claims: impl Into<Value>) -> Token {
    let claims: Value = claims.into();
    ["sub", "exp", "sid", "client_id", "auth_time", "amr"]
        .into_iter()
        .fold(Token::person("-"), Token::without)
        .parameter("typ", "secevent+jwt")
        .claim("iss", TRANSMITTER)
        .claim("aud", "countersign")
        .claim("jti", unique("set"))
        .claim("sub_id", subject.clone())
        .claim("events", json!({ event: claims }))
}

fn caep(event: &str, subject: &Value, claims: Value) -> Token {
    set(&format!("{CAEP}{event}"), subject, claims)
}

fn user(subject: &str) -> Value {
    json!({"format": "iss_sub", "iss": tokens::ISSUER, "sub": subject})
}

fn opaque(id: &str) -> Value {
    json!({"format": "opaque", "id": id})
}

fn push(stack: &Stack, body: impl Into<String>) -> Response {
    let request = Request::new(stack.countersign.http, "POST", "/signals/ssf");
    request.header("Accept", "application/json").body("application/secevent+jwt", body).send()
}

fn accept(stack: &Stack, token: &Token) {
    let answer = push(stack, token.mint());
    assert_eq!((answer.status, answer.body.as_str()), (202, ""), "{answer:?}");
}

/// What the service says; a check that a busy machine did not finish in time is asked again.
fn hello(stack: &Stack, token: &Token) -> Response {
    let token = token.mint();
    eventually("a check ends in time", || {
        Some(stack.get("/hello").bearer(&token).send()).filter(|answer| answer.status != 503)
    })
}

fn assert_refused(answer: &Response, status: u16, reason: &str) {
    assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{answer:?}");
}

#[test]
fn a_revoked_session_is_refused_at_three_replicas() {
    let builder = with_signals(Builder::new());
    let redis = Redis::start(builder.folder());
    let url = redis.url();
    let replicas: Vec<Stack> = [builder, with_signals(Builder::new()), with_signals(Builder::new())]
        .into_iter()
        .map(|builder| builder.set("/store/url", url.clone()).start())
        .collect();
    let token = Token::person("alice");
    let other = Token::person("alice");
    for replica in &replicas {
        assert_eq!(hello(replica, &token).status, 200);
    }
    let complex = json!({"format": "complex", "user": user("alice"), "session": opaque(token.value("sid"))});
    accept(&replicas[0], &caep("session-revoked", &complex, json!({"event_timestamp": now()})));
    let told = Instant::now();
    for replica in &replicas {
        let answer =
            eventually("the session is refused", || Some(hello(replica, &token)).filter(|answer| answer.status != 200));
        assert_refused(&answer, 401, "session_revoked");
        assert_eq!(hello(replica, &other).status, 200, "that session only");
    }
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
}

#[test]
fn what_is_wrong_with_a_token_has_its_error_and_changes_nothing() {
    let stack = start();
    let token = Token::person("bob");
    let good = || caep("session-revoked", &opaque(token.value("sid")), json!({"event_timestamp": now()}));
    let event = |name: &str| format!("{CAEP}{name}");
    let two = json!({event("session-revoked"): {}, event("credential-change"): {"change_type": "revoke"}});
    let forged = {
        let (mine, theirs) = (good().mint(), good().mint());
        let signature = theirs.rsplit('.').next().expect("three parts").to_owned();
        format!("{}.{signature}", mine.rsplit_once('.').expect("three parts").0)
    };
    let without_signature = {
        let compact = good().parameter("alg", "none").mint();
        format!("{}.", compact.rsplit_once('.').expect("three parts").0)
    };
    let cases: Vec<(&str, String, &str)> = vec![
        ("nothing", String::new(), "invalid_request"),
        ("no token", "{\"hello\": 1}".into(), "invalid_request"),
        ("forged", forged, "authentication_failed"),
        ("alg none", good().parameter("alg", "none").mint(), "invalid_key"),
        ("alg none, no signature", without_signature, "invalid_request"),
        ("alg HS256", good().parameter("alg", "HS256").mint(), "invalid_key"),
        ("an algorithm that is not configured", good().algorithm("EdDSA").mint(), "invalid_key"),
        ("an unknown key", good().parameter("kid", "nobody").mint(), "invalid_key"),
        ("an access token", token.clone().claim("aud", "countersign").mint(), "invalid_request"),
        ("wrong typ", good().parameter("typ", "JWT").mint(), "invalid_request"),
        ("another issuer", good().claim("iss", "https://evil.test").mint(), "invalid_issuer"),
        ("no issuer", good().without("iss").mint(), "invalid_issuer"),
        ("another audience", good().claim("aud", "api.test").mint(), "invalid_audience"),
        ("no audience", good().without("aud").mint(), "invalid_audience"),
        ("exp", good().claim("exp", now() + 60).mint(), "invalid_request"),
        ("sub", good().claim("sub", "bob").mint(), "invalid_request"),
        ("no jti", good().without("jti").mint(), "invalid_request"),
        ("no iat", good().without("iat").mint(), "invalid_request"),
        ("stale", good().claim("iat", now() - 8 * 24 * 3600).mint(), "invalid_request"),
        ("not valid yet", good().claim("nbf", now() + 600).mint(), "invalid_request"),
        ("from the future", good().claim("iat", now() + 600).mint(), "invalid_request"),
        ("no events", good().without("events").mint(), "invalid_request"),
        ("two events", good().claim("events", two).mint(), "invalid_request"),
        ("no subject", good().without("sub_id").mint(), "invalid_request"),
        (
            "unknown subject",
            good().claim("sub_id", json!({"format": "email", "email": "b@x.test"})).mint(),
            "invalid_request",
        ),
        (
            "a subject of another issuer",
            good().claim("sub_id", json!({"format": "iss_sub", "iss": "https://other.test", "sub": "bob"})).mint(),
            "access_denied",
        ),
        ("oversized", good().claim("filler", "x".repeat(70 * 1024)).mint(), "invalid_request"),
    ];
    for (name, body, error) in cases {
        let answer = push(&stack, body);
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert_eq!(answer.json()["err"], error, "{name}: {answer:?}");
        assert!(answer.json()["description"].is_string(), "{name}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
        assert_eq!(answer.header("content-language"), Some("en"), "{name}");
        assert_eq!(hello(&stack, &token).status, 200, "{name} changed something");
    }
    let request = Request::new(stack.countersign.http, "POST", "/signals/ssf");
    assert_eq!(request.body("application/json", good().mint()).send().json()["err"], "invalid_request");
    assert_eq!(hello(&stack, &token).status, 200);
    assert_eq!(hello(&stack, &good().claim("sub", "bob").claim("exp", now() + 60)).status, 401, "nor is it a token");
    assert!(stack.countersign.metric("countersign_signals_refused_total", "error=\"invalid_audience\"") >= 2.0);
    accept(&stack, &good());
    assert_refused(&hello(&stack, &token), 401, "session_revoked");
}

#[test]
fn a_transmitter_with_an_authorization_header_must_send_it() {
    let builder =
        with_signals(Builder::new()).set("/signals/transmitters/0/authorization_header", "Bearer s3cret-words");
    let stack = builder.start();
    let token = Token::person("carol");
    let body = caep("session-revoked", &opaque(token.value("sid")), json!({})).mint();
    let sent = |authorization: Option<&str>| {
        let request = Request::new(stack.countersign.http, "POST", "/signals/ssf");
        let request = request.body("application/secevent+jwt", body.clone());
        authorization.map_or(request.clone(), |value| request.header("Authorization", value)).send()
    };
    for wrong in [None, Some("Bearer wrong"), Some("s3cret-words"), Some("Bearer s3cret-words2")] {
        let answer = sent(wrong);
        assert_eq!((answer.status, &answer.json()["err"]), (400, &json!("authentication_failed")), "{wrong:?}");
        assert_eq!(hello(&stack, &token).status, 200);
    }
    assert_eq!(sent(Some("Bearer s3cret-words")).status, 202);
    assert_refused(&hello(&stack, &token), 401, "session_revoked");
}

#[test]
fn a_token_is_taken_once_and_an_older_event_never_undoes_a_newer_one() {
    let stack = start();
    let alice = |issued: i64| Token::person("dave").claim("iat", issued).claim("auth_time", issued);
    let revoked = caep("session-revoked", &user("dave"), json!({"event_timestamp": now() - 50}));
    accept(&stack, &revoked);
    accept(&stack, &revoked);
    assert!(stack.countersign.metric("countersign_signals_total", "outcome=\"repeated\"") >= 1.0);
    accept(&stack, &caep("session-revoked", &user("dave"), json!({"event_timestamp": now() - 500})));
    assert_refused(&hello(&stack, &alice(now() - 60)), 401, "subject_revoked");
    assert_eq!(hello(&stack, &alice(now() - 10)).status, 200);

    let account = |event: &str, at: i64| set(&format!("{RISC}{event}"), &user("erin"), json!({"event_timestamp": at}));
    let erin = Token::person("erin").claim("iat", now() + 20);
    accept(&stack, &account("account-disabled", now() - 10));
    assert_refused(&hello(&stack, &erin), 401, "account_disabled");
    accept(&stack, &account("account-enabled", now() - 20));
    assert_refused(&hello(&stack, &erin), 401, "account_disabled");
    accept(&stack, &account("account-enabled", now() - 5));
    assert_eq!(hello(&stack, &erin).status, 200);
    accept(&stack, &account("account-disabled", now() - 7));
    assert_eq!(hello(&stack, &erin).status, 200, "the older one comes too late");
}

#[test]
fn a_credential_event_asks_for_a_newer_strong_authentication() {
    let stack = start();
    let frank = |at: i64| Token::person("frank").claim("auth_time", at);
    assert_eq!(hello(&stack, &frank(now() - 60)).status, 200);
    let change =
        |kind: &str| json!({"event_timestamp": now() - 30, "credential_type": "password", "change_type": kind});
    accept(&stack, &caep("credential-change", &user("frank"), change("create")));
    assert_eq!(hello(&stack, &frank(now() - 60)).status, 200, "an added credential takes nothing");
    accept(&stack, &caep("credential-change", &user("frank"), change("revoke")));
    let answer = hello(&stack, &frank(now() - 60));
    assert_refused(&answer, 401, "reauthentication_required");
    let challenge = answer.all("www-authenticate").join(" ");
    assert!(challenge.contains("insufficient_user_authentication") && challenge.contains("max_age"), "{challenge}");
    assert_eq!(hello(&stack, &frank(now() - 10)).status, 200);
    let weak = frank(now() - 10).claim("amr", json!(["pwd"]));
    assert_refused(&hello(&stack, &weak), 401, "reauthentication_required");
    assert_eq!(hello(&stack, &Token::person("grace")).status, 200, "nobody else");
}

#[test]
fn a_reported_risk_counts_until_it_is_low_again() {
    let stack = start();
    let token = Token::person("heidi");
    let score = || {
        let answer = hello(&stack, &token);
        answer.upstream().map(|seen| seen.header("x-zt-risk-score").parse::<f64>().expect("a number"))
    };
    let before = score().expect("allowed");
    let risk = |level: &str, at: i64| json!({"event_timestamp": at, "principal": "USER", "current_level": level, "risk_reason": "PASSWORD_FOUND_IN_DATA_BREACH"});
    accept(&stack, &caep("risk-level-change", &user("heidi"), risk("MEDIUM", now() - 9)));
    assert_refused(&hello(&stack, &token), 401, "mfa_required");
    // What is authenticated in the second of the question may have come before it.
    std::thread::park_timeout(Duration::from_millis(1100));
    let anew = hello(&stack, &token.clone().claim("auth_time", now()));
    let seen = anew.upstream().expect("a strong authentication after the question is the answer");
    assert!((seen.header("x-zt-risk-score").parse::<f64>().expect("a number") - before - 3.0).abs() < 0.05);
    let stale = Token::person("heidi").claim("auth_time", now() - 4000);
    accept(&stack, &caep("risk-level-change", &user("heidi"), risk("HIGH", now() - 8)));
    assert_eq!(hello(&stack, &stale).status, 401, "a high risk asks for a second factor anew");
    accept(&stack, &caep("risk-level-change", &user("heidi"), risk("LOW", now() - 7)));
    assert_eq!(score(), Some(before));
}

#[test]
fn a_device_is_what_the_newest_event_says() {
    let stack = start();
    let token = Token::person("ivan").mint();
    let get = || {
        let request = stack.get("/vault").bearer(&token).header("X-Device-ID", "laptop-7");
        request.header("X-Device-Fingerprint", "fp").send()
    };
    let status = |word: &str, at: i64| {
        let claims = json!({"event_timestamp": at, "previous_status": "compliant", "current_status": word});
        caep("device-compliance-change", &json!({"format": "complex", "device": opaque("laptop-7")}), claims)
    };
    let unknown = push(&stack, status("not-compliant", now() - 20).mint());
    assert_eq!((unknown.status, &unknown.json()["err"]), (400, &json!("invalid_request")), "not registered yet");
    let device = json!({"id": "laptop-7", "user": "ivan", "fingerprint": "fp", "compliant": true});
    stack.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
    assert_eq!(get().status, 200, "{:?}", get());
    accept(&stack, &status("not-compliant", now() - 10));
    assert_eq!(get().status, 403, "{:?}", get());
    accept(&stack, &status("compliant", now() - 15));
    assert_eq!(get().status, 403, "an older `compliant` does not undo a newer `not-compliant`");
    accept(&stack, &status("compliant", now() - 5));
    assert_eq!(get().status, 200);
}

#[test]
fn an_event_that_was_overtaken_or_is_in_force_leaves_what_an_operator_decided_since() {
    let stack = start();
    let token = Token::person("ines").mint();
    let status = |word: &str, at: i64| {
        let claims = json!({"event_timestamp": at, "current_status": word});
        caep("device-compliance-change", &json!({"format": "complex", "device": opaque("laptop-6")}), claims)
    };
    let put = |compliant: bool| {
        let device = json!({"id": "laptop-6", "user": "ines", "fingerprint": "fp", "compliant": compliant});
        stack.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
    };
    let is = |wanted: u16, why: &str| {
        let request = stack.get("/vault").bearer(&token).header("X-Device-ID", "laptop-6");
        let answer = request.header("X-Device-Fingerprint", "fp").send();
        assert_eq!(answer.status, wanted, "{why}: {answer:?}");
    };
    let start = now();
    put(false);
    accept(&stack, &status("compliant", start - 10));
    is(200, "the newest event");
    put(false);
    for (word, at) in [("not-compliant", start - 30), ("compliant", start - 20), ("compliant", start - 10)] {
        accept(&stack, &status(word, at));
        is(403, "an operator has decided since");
    }
    accept(&stack, &status("not-compliant", start - 8));
    put(true);
    for (word, at) in [("not-compliant", start - 30), ("compliant", start - 8), ("not-compliant", start - 8)] {
        accept(&stack, &status(word, at));
        is(200, "an operator has decided since");
    }
    accept(&stack, &status("not-compliant", start - 6));
    is(403, "a newer event counts again");
    assert_eq!(stack.countersign.metric("countersign_signals_total", "outcome=\"superseded\""), 6.0);
    assert_eq!(stack.countersign.metric("countersign_signals_total", "outcome=\"done\""), 3.0);
}

#[test]
fn a_key_that_cannot_be_read_holds_up_no_transmitter_and_loses_nothing_else_that_is_told() {
    let builder = with_signals(Builder::new());
    let redis = Redis::start(builder.folder());
    let stack = builder.set("/store/url", redis.url()).start();
    // Something else of the record cannot be read: what the event says is written all the same.
    redis.cli(&["HSET", "cs:device:laptop-8", "user", "nora", "compliant", "true", "patch_level", "old"]);
    let claims = json!({"event_timestamp": now(), "previous_status": "compliant", "current_status": "not-compliant"});
    accept(&stack, &caep("device-compliance-change", &opaque("laptop-8"), claims.clone()));
    assert_eq!(redis.cli(&["HGET", "cs:device:laptop-8", "compliant"]), "false");
    // What came before cannot be read: the stricter stands.
    redis.cli(&["HSET", "cs:device:laptop-9", "compliant", "true"]);
    redis.cli(&["LPUSH", "cs:signal-device:laptop-9", "x"]);
    accept(&stack, &caep("device-compliance-change", &opaque("laptop-9"), claims));
    assert_eq!(redis.cli(&["HGET", "cs:device:laptop-9", "compliant"]), "false");
    // Nobody can revoke here before somebody has mended it: the answer is final, and the other effect holds.
    redis.cli(&["LPUSH", "cs:revoked:sub:otto", "x"]);
    let disabled = set(&format!("{RISC}account-disabled"), &user("otto"), json!({"event_timestamp": now() - 5}));
    let answer = push(&stack, disabled.mint());
    assert_eq!((answer.status, &answer.json()["err"]), (400, &json!("invalid_request")), "{answer:?}");
    assert!(answer.json()["description"].as_str().is_some_and(|words| words.contains("cannot be read")), "{answer:?}");
    assert_eq!(redis.cli(&["EXISTS", "cs:notice:account:sub:otto"]), "1", "the notice is written");
    assert_ne!(stack.get("/hello").bearer(&Token::person("otto").mint()).send().status, 200, "he is not let in");
    assert!(stack.countersign.metric("countersign_signals_unreadable_total", "") >= 1.0);
    let records = eventually("both are recorded", || {
        let of = |line: &Value| line["action"].as_str().is_some_and(|action| action.starts_with("signal."));
        let records: Vec<Value> = stack.countersign.audit().into_iter().filter(of).collect();
        (records.len() >= 3).then_some(records)
    });
    assert_eq!([&records[0]["outcome"], &records[2]["outcome"]], ["done", "failed"], "{records:?}");
    // Once it is mended, the same token may come again.
    redis.cli(&["DEL", "cs:revoked:sub:otto"]);
    accept(&stack, &disabled);
    assert_eq!(redis.cli(&["EXISTS", "cs:revoked:sub:otto"]), "1");
    // What somebody wrote by hand there is nothing newer, though the event cannot stand beside it.
    redis.cli(&["SET", "cs:notice:account:sub:olga", "disabled"]);
    let disabled = set(&format!("{RISC}account-disabled"), &user("olga"), json!({"event_timestamp": now() - 5}));
    let answer = push(&stack, disabled.mint());
    assert_eq!(answer.status, 400, "{answer:?}");
    redis.cli(&["DEL", "cs:notice:account:sub:olga"]);
    accept(&stack, &disabled);
    assert!(redis.cli(&["GET", "cs:notice:account:sub:olga"]).ends_with(" disabled"));
    // The record itself cannot be: once it is mended, the same event is written when it comes again.
    let claims = json!({"event_timestamp": now() - 5, "current_status": "not-compliant"});
    let again = caep("device-compliance-change", &opaque("laptop-5"), claims);
    redis.cli(&["LPUSH", "cs:device:laptop-5", "x"]);
    assert_eq!(push(&stack, again.mint()).status, 400);
    redis.cli(&["DEL", "cs:device:laptop-5"]);
    redis.cli(&["HSET", "cs:device:laptop-5", "user", "nora", "compliant", "true"]);
    accept(&stack, &again);
    assert_eq!(redis.cli(&["HGET", "cs:device:laptop-5", "compliant"]), "false");
}

#[test]
fn nothing_is_said_to_be_taken_that_the_store_has_not() {
    let builder = with_signals(Builder::new());
    let mut redis = Redis::start(builder.folder());
    let stack = builder.set("/store/url", redis.url()).start();
    let token = Token::person("judy");
    let event = caep("session-revoked", &opaque(token.value("sid")), json!({}));
    assert_eq!(hello(&stack, &token).status, 200);
    redis.process.signal("KILL");
    redis.process.wait();
    let answer = push(&stack, event.mint());
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
    redis.process = Redis::run(&stack.folder, redis.port);
    let taken = eventually("the same token is taken when the store is back", || {
        Some(push(&stack, event.mint())).filter(|answer| answer.status != 503)
    });
    assert_eq!(taken.status, 202, "{taken:?}");
    eventually("and bites", || (hello(&stack, &token).status == 401).then_some(()));
    // What was told survives a store that comes back empty.
    let disabled = set(&format!("{RISC}account-disabled"), &user("karl"), json!({"event_timestamp": now() - 5}));
    accept(&stack, &disabled);
    let karl = Token::person("karl").claim("iat", now() + 10);
    assert_refused(&hello(&stack, &karl), 401, "account_disabled");
    redis.cli(&["FLUSHALL"]);
    pause(Duration::from_millis(300));
    let answer = eventually("it is known again", || Some(hello(&stack, &karl)).filter(|answer| answer.status != 503));
    assert_refused(&answer, 401, "account_disabled");
    eventually("and written back", || (redis.cli(&["EXISTS", "cs:notice:account:sub:karl"]) == "1").then_some(()));
}

#[test]
fn fetches_of_a_transmitters_keys_are_counted_as_those_of_issuers_are() {
    let nobody = format!("http://{}/jwks", ports::local(ports::free()));
    let stack = with_signals(Builder::new().no_envoy()).set("/signals/transmitters/0/jwks", nobody).start();
    let failed = || stack.countersign.metric("countersign_key_fetches_total", "outcome=\"failed\"");
    eventually("a failed fetch is counted", || (failed() > 0.0).then_some(()));
}

/// A logout token for a person's session.
fn of(person: &Token) -> Token {
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let token = person.clone().without("client_id").without("auth_time").without("amr").claim("aud", "shop-web");
    let token = token.claim("jti", unique("logout")).claim("exp", now() + 120).parameter("typ", "logout+jwt");
    token.claim("events", event)
}

fn log_out(stack: &Stack, token: &Token) -> Response {
    let request = Request::new(stack.countersign.http, "POST", "/signals/logout");
    request.body("application/x-www-form-urlencoded", format!("logout_token={}", token.mint())).send()
}

#[test]
fn a_logout_is_sent_again_when_the_store_did_not_answer_and_refused_when_it_cannot_be_read() {
    let builder = with_signals(Builder::new());
    let redis = Redis::start(builder.folder());
    let stack = builder.set("/store/url", redis.url()).start();
    let person = Token::person("petra");
    assert_eq!(hello(&stack, &person).status, 200);
    let token = of(&person);
    redis.process.signal("STOP");
    let answer = log_out(&stack, &token);
    redis.process.signal("CONT");
    assert_eq!((answer.status, answer.header("cache-control")), (503, Some("no-store")), "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    eventually("the same token is taken then", || (log_out(&stack, &token).status == 200).then_some(()));
    eventually("and bites", || (hello(&stack, &person).status == 401).then_some(()));
    redis.cli(&["LPUSH", "cs:revoked:sub:quinn", "x"]);
    assert_eq!(log_out(&stack, &of(&Token::person("quinn")).without("sid")).status, 400);
}

#[test]
fn a_provider_logs_a_session_or_a_user_out() {
    let stack = start();
    let logout = |token: &Token| log_out(&stack, token);
    let (mine, other) = (Token::person("liz"), Token::person("liz"));
    for (name, wrong) in [
        ("nonce", of(&mine).claim("nonce", "n")),
        ("no event", of(&mine).without("events")),
        ("another event", of(&mine).claim("events", json!({format!("{CAEP}session-revoked"): {}}))),
        ("another audience", of(&mine).claim("aud", "someone-else")),
        ("another issuer", of(&mine).claim("iss", TRANSMITTER)),
        ("no exp, and issued minutes ago", of(&mine).without("exp").claim("iat", now() - 200)),
        ("not valid yet", of(&mine).claim("nbf", now() + 600)),
        ("expired", of(&mine).claim("exp", now() - 600)),
        ("typ", of(&mine).parameter("typ", "secevent+jwt")),
        ("an access token", mine.clone()),
        ("neither sid nor sub", of(&mine).without("sid").without("sub")),
        ("alg", of(&mine).algorithm("RS256")),
        ("no jti", of(&mine).without("jti")),
    ] {
        let answer = logout(&wrong);
        assert_eq!((answer.status, answer.header("cache-control")), (400, Some("no-store")), "{name}: {answer:?}");
        assert_eq!(hello(&stack, &mine).status, 200, "{name} changed something");
    }
    for name in ["exp", "nbf"] {
        let why = logout(&of(&mine).claim(name, "tomorrow")).json()["error_description"].clone();
        assert_eq!(why, format!("`{name}` is not a time"));
    }
    let answer = logout(&of(&mine));
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    assert_refused(&hello(&stack, &mine), 401, "session_revoked");
    // As providers send it that do not know the errata.
    let third = Token::person("liz");
    assert_eq!(hello(&stack, &third).status, 200);
    assert_eq!(logout(&of(&third).without("exp").claim("iat", now() - 60)).status, 200);
    assert_refused(&hello(&stack, &third), 401, "session_revoked");
    assert_eq!(hello(&stack, &other).status, 200, "that session only");
    // A provider whose clock is ahead says when by that clock.
    assert_eq!(logout(&of(&other).without("sid").claim("iat", now() + 20)).status, 200);
    assert_refused(&hello(&stack, &other), 401, "subject_revoked");
    pause(Duration::from_millis(1100));
    assert_eq!(hello(&stack, &Token::person("liz")).status, 200, "who signs in again is in");
}

#[test]
fn each_event_that_was_taken_stands_in_the_audit() {
    let stack = start();
    let token = Token::person("mona");
    let taken = caep("session-revoked", &opaque(token.value("sid")), json!({}));
    accept(&stack, &taken);
    accept(&stack, &caep("session-established", &user("mona"), json!({})));
    accept(&stack, &set(&format!("{CAEP}something-new"), &user("mona"), json!({})));
    let records = eventually("both are written", || {
        let records: Vec<Value> = stack
            .countersign
            .audit()
            .into_iter()
            .filter(|line| line["action"].as_str().is_some_and(|action| action.starts_with("signal.")))
            .collect();
        (records.len() >= 2).then_some(records)
    });
    assert_eq!(records[0]["actor"], format!("signals:{TRANSMITTER}"), "{}", records[0]);
    assert_eq!(records[0]["action"], "signal.session-revoked");
    assert_eq!(records[0]["target"], format!("session:{} (revoke)", token.value("sid")));
    assert_eq!(records[1]["target"], "sub:mona (inform)");
    let text = stack.countersign.process.output();
    assert!(!text.contains(taken.value("jti")), "a token's id is not written");
    assert!(stack.countersign.metric("countersign_signals_total", "event=\"other\"") >= 1.0);
}

/// How long after the 202 three replicas refuse: `make signal-lag` prints it. What is measured holds a whole request through
/// Envoy, so it is never shorter than one.
#[test]
fn lag_from_the_202_to_the_refusal_at_three_replicas() {
    const TRIALS: usize = 40;
    let builder = with_signals(Builder::new());
    let redis = Redis::start(builder.folder());
    let url = redis.url();
    let replicas: Vec<Stack> = [builder, with_signals(Builder::new()), with_signals(Builder::new())]
        .into_iter()
        .map(|builder| builder.set("/store/url", url.clone()).start())
        .collect();
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..TRIALS {
        let token = Token::person("peggy");
        let compact = token.mint();
        for replica in &replicas {
            assert_eq!(hello(replica, &token).status, 200);
        }
        let event = caep("session-revoked", &opaque(token.value("sid")), json!({"event_timestamp": now()})).mint();
        assert_eq!(push(&replicas[0], event).status, 202);
        let told = Instant::now();
        std::thread::scope(|scope| {
            let asking = |request: Request| {
                scope.spawn(move || {
                    while request.send().status == 200 {}
                    told.elapsed()
                })
            };
            let requests = replicas.iter().map(|replica| replica.get("/hello").bearer(&compact));
            let waiting: Vec<_> = requests.map(asking).collect();
            took.extend(waiting.into_iter().map(|thread| thread.join().expect("it ends")));
        });
    }
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "202 to refusal, {} times at 3 replicas, in ms: p50 {:.1}, p90 {:.1}, p99 {:.1}",
        took.len(),
        at(50),
        at(90),
        at(99)
    );
}
