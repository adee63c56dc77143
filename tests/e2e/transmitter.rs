//! A transmitter that was written from the specifications alone (`tests/signals/transmitter.py`): its stream is found or made
//! by its metadata and verified, and its events come by push and by poll. And ours: what we tell others, and lose nothing of.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    redis::Redis,
    support::{
        countersign::Countersign,
        http::Response,
        ports,
        process::eventually,
        stack::{Builder, Stack},
        tokens::{self, Token, now},
    },
};

const MANAGEMENT: &str = "Bearer management-token";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

struct Transmitter {
    child: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
    issuer: String,
}

impl Transmitter {
    fn start() -> Self {
        let port = ports::free();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signals/transmitter.sh");
        let mut command = Command::new(script);
        command.args(["serve", &port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the transmitter starts");
        let (say, hear) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut transmitter =
            Self { child, say, hear: BufReader::new(hear), issuer: format!("http://127.0.0.1:{port}") };
        assert_eq!(transmitter.listen()["ready"], true);
        transmitter
    }

    fn listen(&mut self) -> Value {
        let mut line = String::new();
        self.hear.read_line(&mut line).expect("it speaks");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.say, "{question}").expect("it listens");
        self.listen()
    }

    fn send(&mut self, subject: &Value, claims: &Value) -> String {
        let told = self.ask(&json!({"send": REVOKED, "subject": subject, "claims": claims}));
        told["jti"].as_str().expect("a jti").to_owned()
    }

    fn status(&mut self) -> Value {
        self.ask(&json!({"status": true}))
    }
}

impl Drop for Transmitter {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn user(subject: &str) -> Value {
    json!({"format": "iss_sub", "iss": tokens::ISSUER, "sub": subject})
}

/// What the service says; a check that a busy machine did not finish in time is asked again.
fn hello(stack: &Stack, token: &Token) -> Response {
    let token = token.mint();
    eventually("a check ends in time", || {
        Some(stack.get("/hello").bearer(&token).send()).filter(|answer| answer.status != 503)
    })
}

fn known(transmitter: &Transmitter, delivery: &Value) -> Value {
    let stream = json!({"authorization_header": MANAGEMENT, "delivery": delivery, "verify_every": "1s"});
    json!([{
        "issuer": transmitter.issuer, "audience": "countersign", "algorithms": ["RS256"],
        "authorization_header": "Bearer push-token", "stream": stream,
    }])
}

#[test]
fn a_stream_by_poll_is_made_verified_asked_and_acknowledged() {
    let mut transmitter = Transmitter::start();
    let known = known(&transmitter, &json!("poll"));
    let stack = Builder::new().set("/signals", json!({ "transmitters": known })).start();
    eventually("the stream is made and verified", || {
        (stack.countersign.metric("countersign_signals_verified_seconds", "") > 0.0).then_some(())
    });
    assert_eq!(transmitter.status()["streams"].as_array().map(Vec::len), Some(1));
    let token = Token::person("nina");
    assert_eq!(hello(&stack, &token).status, 200);
    transmitter.ask(&json!({"junk": "no-token"}));
    let good = transmitter.send(&user("nina"), &json!({"event_timestamp": now()}));
    let answer = eventually("it bites", || Some(hello(&stack, &token)).filter(|answer| answer.status != 200));
    assert_eq!(answer.reason(), "subject_revoked");
    let tenant = json!({"format": "complex", "user": user("nina"), "tenant": {"format": "opaque", "id": "t"}});
    let critical = transmitter.send(&tenant, &json!({}));
    let bad = transmitter.send(&json!({"format": "email", "email": "nina@example.com"}), &json!({}));
    let status = eventually("both are answered", || {
        let status = transmitter.status();
        let done = status["acknowledged"].as_array()?.contains(&json!(good)) && status["errors"][&bad].is_object();
        done.then_some(status)
    });
    for refused in [bad, critical, "no-token".to_owned()] {
        assert_eq!(status["errors"][&refused]["err"], "invalid_request", "{status}");
    }
    assert!(stack.countersign.metric("countersign_signals_polls_total", "outcome=\"answered\"") >= 1.0);
}

fn streams(transmitter: &mut Transmitter) -> Vec<Value> {
    let streams = transmitter.status()["streams"].as_array().cloned().unwrap_or_default();
    streams.iter().map(|stream| stream["stream_id"].clone()).collect()
}

#[test]
fn two_replicas_have_one_stream_and_neither_refuses_the_word_of_the_other() {
    let mut transmitter = Transmitter::start();
    let builders = [Builder::new(), Builder::new()];
    let redis = Redis::start(builders[0].folder());
    let instances = builders.map(|builder| {
        let known = known(&transmitter, &json!("poll"));
        let builder = builder.set("/store/url", redis.url()).set("/signals", json!({ "transmitters": known }));
        (Countersign::start(builder.folder(), &builder.countersign), builder)
    });
    let verified = || {
        instances.iter().map(|(one, _)| one.metric("countersign_signals_total", "event=\"verification\"")).sum::<f64>()
    };
    eventually("both are ready", || instances.iter().all(|(one, _)| one.ready() == Some(200)).then_some(()));
    eventually("the stream is verified again and again", || (verified() >= 8.0).then_some(()));
    let status = transmitter.status();
    assert_eq!(status["errors"], json!({}), "{status}");
    assert_eq!(streams(&mut transmitter).len(), 1, "{status}");
}

#[test]
fn a_stream_that_its_transmitter_has_lost_is_made_again() {
    for delivery in ["poll", "push"] {
        let mut transmitter = Transmitter::start();
        let builder = Builder::new();
        let http = builder.countersign.config["listen"]["http"].as_str().expect("an address").to_owned();
        let delivery = match delivery {
            "push" => json!({"push": {"url": format!("http://{http}/signals/ssf")}}),
            poll => json!(poll),
        };
        let known = known(&transmitter, &delivery);
        let stack = builder.set("/signals", json!({ "transmitters": known })).start();
        let first = eventually("a stream is made", || streams(&mut transmitter).pop());
        transmitter.ask(&json!({"forget": true}));
        let second = eventually("another is made", || streams(&mut transmitter).pop());
        assert_ne!(first, second);
        let token = Token::person("pia");
        assert_eq!(hello(&stack, &token).status, 200);
        transmitter.send(&user("pia"), &json!({"event_timestamp": now()}));
        eventually("it bites", || (hello(&stack, &token).status != 200).then_some(()));
    }
}

#[test]
fn an_answer_that_is_too_large_is_asked_for_in_parts() {
    let mut transmitter = Transmitter::start();
    let known = known(&transmitter, &json!("poll"));
    let stack = Builder::new().set("/signals", json!({ "transmitters": known })).start();
    eventually("the stream is made and verified", || {
        (stack.countersign.metric("countersign_signals_verified_seconds", "") > 0.0).then_some(())
    });
    // 64 KiB is the most that a token may have; it waits for all of them before it answers.
    let filler = "x".repeat(40 * 1024);
    transmitter.ask(&json!({"hold": true}));
    let events: Vec<String> =
        (0..40).map(|at| transmitter.send(&user(&format!("quirin-{at}")), &json!({"filler": filler}))).collect();
    transmitter.ask(&json!({"hold": false}));
    let status = eventually("all are acknowledged", || {
        let status = transmitter.status();
        let done = status["acknowledged"].as_array().cloned().unwrap_or_default();
        events.iter().all(|jti| done.contains(&json!(jti))).then_some(status)
    });
    let asked: Vec<u64> = status["asked"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    assert!(asked.contains(&25) && asked.contains(&12), "{asked:?}");
    eventually("then for many again", || {
        let status = transmitter.status();
        (status["asked"].as_array()?.last()? == 50).then_some(())
    });
}

#[test]
fn a_single_event_that_is_too_large_is_asked_for_with_more_room_and_holds_up_none_behind_it() {
    let mut transmitter = Transmitter::start();
    let known = known(&transmitter, &json!("poll"));
    let stack = Builder::new().set("/signals", json!({ "transmitters": known })).start();
    eventually("the stream is made and verified", || {
        (stack.countersign.metric("countersign_signals_verified_seconds", "") > 0.0).then_some(())
    });
    transmitter.ask(&json!({"hold": true}));
    let large = transmitter.send(&user("ruth"), &json!({"filler": "x".repeat(1_500_000)}));
    let behind = transmitter.send(&user("rolf"), &json!({}));
    transmitter.ask(&json!({"hold": false}));
    eventually("both are acknowledged", || {
        let status = transmitter.status();
        let done = status["acknowledged"].as_array()?;
        [&large, &behind].into_iter().all(|jti| done.contains(&json!(jti))).then_some(())
    });
    for name in ["ruth", "rolf"] {
        assert_eq!(hello(&stack, &Token::person(name).claim("iat", now() - 10)).reason(), "subject_revoked");
    }
    assert!(stack.countersign.metric("countersign_signals_polls_oversized_total", "") >= 1.0);
}

#[test]
fn a_stream_by_push_is_made_with_our_address_and_header() {
    let mut transmitter = Transmitter::start();
    let builder = Builder::new();
    let http = builder.countersign.config["listen"]["http"].as_str().expect("an address").to_owned();
    let known = known(&transmitter, &json!({"push": {"url": format!("http://{http}/signals/ssf")}}));
    let stack = builder.set("/signals", json!({ "transmitters": known })).start();
    eventually("the stream is made and verified", || {
        (stack.countersign.metric("countersign_signals_verified_seconds", "") > 0.0).then_some(())
    });
    let token = Token::person("olga");
    assert_eq!(hello(&stack, &token).status, 200);
    let jti = transmitter.send(&user("olga"), &json!({"event_timestamp": now()}));
    // A pushed event was taken before its transmitter heard so.
    assert_eq!(hello(&stack, &token).reason(), "subject_revoked");
    assert!(transmitter.status()["acknowledged"].as_array().is_some_and(|all| all.contains(&json!(jti))));
    let stream = &transmitter.status()["streams"][0];
    assert_eq!(stream["delivery"]["authorization_header"], "Bearer push-token", "{stream}");
}
