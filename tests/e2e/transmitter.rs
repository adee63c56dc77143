//! A transmitter that was written from the specifications alone (`tests/signals/transmitter.py`): its stream is found or made
//! by its metadata and verified, and its events come by push and by poll. And ours: what we tell others, and lose nothing of.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    http::Response,
    ports,
    process::eventually,
    stack::{Builder, Stack},
    tokens::{self, Token, now},
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
