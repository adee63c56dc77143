//! Rows D of the threat catalogue: what an attacker who reaches the Check port, or Envoy, can use up. Each time the
//! service must answer a good request through Envoy afterwards, and be the same process, not much larger.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse,
    attribute_context::{HttpRequest, Request as Asked},
};
use h2::client::{ResponseFuture, SendRequest};
use prost::Message as _;
use serde_json::json;

use crate::support::{
    countersign::Countersign,
    envoy,
    http::Request,
    key_sets::KeySets,
    process::eventually,
    sample,
    stack::{Builder, Stack},
    tokens::Token,
};

fn assert_well(stack: &Stack, what: &str) {
    let answer = stack.get("/hello").bearer(&Token::person("alice").mint()).send();
    assert_eq!(answer.status, 200, "after {what}: {answer:?}\n{}", stack.countersign.process.stderr());
}

/// Resident octets of the service.
fn resident(stack: &Stack) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", stack.countersign.process.id())).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of memory");
    line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).expect("a number") * 1024
}

const GROWTH: u64 = 200 * 1024 * 1024;

#[test]
fn d01_connections_that_say_nothing_hold_up_nobody() {
    let stack = Builder::new().set("/check", json!({"deadline": "1s", "max_connections": 64})).start();
    assert_well(&stack, "nothing");
    let open = || stack.countersign.metric("countersign_connections", "");
    assert!(open() >= 1.0, "Envoy's own");
    let silent: Vec<TcpStream> = (0..300).filter_map(|_| TcpStream::connect(stack.countersign.authz).ok()).collect();
    let mut slow: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(stack.countersign.authz).ok()).collect();
    for octet in b"PRI * HTTP/2.0\r\n" {
        for stream in &mut slow {
            let _ = stream.write_all(&[*octet]);
        }
        assert_well(&stack, "a slow octet");
    }
    assert!(silent.len() + slow.len() > 200);
    assert!(open() <= 64.0, "{}", open());
    let log = stack.countersign.process.stderr();
    assert!(log.lines().any(|line| line.contains("\"max_connections\":64")), "{log}");
    drop((silent, slow));
    let question =
        json!({"attributes": {"request": {"http": {"method": "GET", "host": "shop.example", "path": "/hello"}}}});
    let answer = stack.countersign.check(&question).expect("there is room for a new connection again");
    assert_eq!(answer["deniedResponse"]["status"]["code"], 401);
    eventually("their places are free", || (open() < 60.0).then_some(()));
}

#[test]
fn d02_a_message_that_never_comes_is_refused_by_the_deadline() {
    let stack = Stack::start();
    // Ten octets of a message of a hundred; and none at all.
    for begun in [&b"\0\0\0\0\x64\x0a\x60\x22\x5e\x12"[..], b""] {
        let mut slow = Http2::connect(stack.countersign.authz);
        assert!(slow.frame(HEADERS, 4, 1, &check_headers()));
        assert!(begun.is_empty() || slow.frame(DATA, 0, 1, begun));
        let answer = slow.read_until(b"credentials_unknown");
        assert!(answer.contains("retry-after"), "a CheckResponse, no gRPC error: {answer}");
    }
    assert_well(&stack, "a slow message");
}

#[test]
fn d02_a_message_over_four_mebibytes_is_refused_as_that_and_never_a_grpc_error() {
    let stack = Stack::start();
    let message = |octets: usize| {
        json!({"attributes": {"request": {"http": {"method": "GET", "host": "shop.example", "path": "/hello",
            "headers": {"x-large": "a".repeat(octets)}}}}})
    };
    let answer = stack.countersign.check(&message(4_000_000)).expect("a CheckResponse");
    assert_eq!(answer["deniedResponse"]["status"]["code"], 401);
    for octets in [5_000_000, 20_000_000] {
        let answer =
            stack.countersign.check(&message(octets)).expect("a CheckResponse, whatever failure_mode_allow says");
        assert_eq!(answer["deniedResponse"]["status"]["code"], 400, "{octets} octets");
        assert!(answer.to_string().contains("message_too_large"), "{octets} octets: {answer}");
    }
    let many: serde_json::Map<_, _> = (0..10_000).map(|i| (format!("x-{i}"), json!("v"))).collect();
    let request = json!({"attributes": {"request": {"http": {"method": "GET", "host": "shop.example",
        "path": "/hello", "headers": many}}}});
    assert_eq!(stack.countersign.check(&request).expect("answered")["deniedResponse"]["status"]["code"], 401);
    assert_well(&stack, "large messages");
}

#[test]
fn d02_a_body_that_an_envoy_sends_along_is_refused_for_its_size_and_not_for_its_path() {
    let stack = Builder::new().set("/check", json!({"deadline": "3s"})).no_envoy().start();
    let (authz, upstream) = (stack.countersign.authz, stack.upstream);
    let along = "with_request_body: { max_request_bytes: 8388608, allow_partial_message: true, pack_as_bytes: true }";
    let along = format!("validate_mutations: true\n{}{along}", " ".repeat(22));
    let buffer = "per_connection_buffer_limit_bytes: 33554432";
    let more = [("validate_mutations: true", &*along), ("per_connection_buffer_limit_bytes: 32768", buffer)];
    for version in [envoy::NEW, envoy::OLD] {
        let (_envoy, door) = sample::start(&stack.folder, ("edge-http", version), authz, upstream, &more);
        let ask = |octets: usize| {
            let ask = Request::new(door, "POST", "/hello").bearer(&Token::person("alice").mint());
            ask.body("text/plain", "a".repeat(octets)).send()
        };
        assert_ne!(ask(1_000_000).reason(), "message_too_large", "Envoy {version}");
        let answer = ask(5_000_000);
        assert_eq!((answer.status, answer.reason().as_str()), (400, "message_too_large"), "Envoy {version}");
    }
}

/// HTTP/2 as an attacker writes it: frame by frame.
struct Http2(TcpStream);

impl Http2 {
    fn connect(to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        stream.set_write_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("a preface");
        Self(stream)
    }

    /// Whether the other side still took it.
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).is_ok()
    }

    /// What the other side says, up to such a word.
    fn read_until(&mut self, word: &[u8]) -> String {
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.windows(word.len()).any(|part| part == word) {
            let read = self.0.read(&mut buffer).expect("it answers");
            assert!(read > 0, "it hung up: {}", answer.escape_ascii());
            answer.extend_from_slice(&buffer[..read]);
        }
        answer.escape_ascii().to_string()
    }

    /// Whether the other side ended the connection, by GOAWAY or by closing, before the time limit.
    fn was_ended(mut self) -> bool {
        let mut answer = Vec::new();
        let closed = self.0.read_to_end(&mut answer).is_ok();
        let mut rest = answer.as_slice();
        while let [a, b, c, kind, tail @ ..] = rest {
            if *kind == 7 {
                return true;
            }
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize + 5;
            rest = tail.get(length..).unwrap_or_default();
        }
        closed
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

/// The headers of a Check, HPACK without indexing.
fn check_headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &[u8]| {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).expect("short"));
        block.extend_from_slice(value);
    };
    literal(&[0x04], b"/envoy.service.auth.v3.Authorization/Check");
    literal(&[0x01], b"x");
    literal(b"\0\x0ccontent-type", b"application/grpc");
    literal(b"\0\x02te", b"trailers");
    block
}

#[test]
fn d03_rapid_resets_do_not_grow_the_process() {
    let stack = Stack::start();
    assert_well(&stack, "nothing");
    let before = resident(&stack);
    let headers = check_headers();
    for _ in 0..4 {
        let mut attacker = Http2::connect(stack.countersign.authz);
        let mut sent = 0_u32;
        while sent < 20_000 {
            let stream = sent * 2 + 1;
            let taken = attacker.frame(HEADERS, 4, stream, &headers)
                && attacker.frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            if !taken {
                break;
            }
            sent += 1;
        }
        assert_well(&stack, "rapid resets");
    }
    assert!(resident(&stack) < before + GROWTH, "{before} → {}", resident(&stack));
}

#[test]
fn d03_many_open_streams_do_not_grow_the_process() {
    let stack = Stack::start();
    assert_well(&stack, "nothing");
    let before = resident(&stack);
    let headers = check_headers();
    let mut attackers: Vec<Http2> = (0..8).map(|_| Http2::connect(stack.countersign.authz)).collect();
    for attacker in &mut attackers {
        for i in 0..5_000_u32 {
            // Opened, and never a message on them.
            if !attacker.frame(HEADERS, 4, i * 2 + 1, &headers) {
                break;
            }
        }
    }
    assert_well(&stack, "40000 open streams");
    assert!(resident(&stack) < before + GROWTH, "{before} → {}", resident(&stack));
}

#[test]
fn d04_endless_continuations_and_header_bombs_are_cut_off() {
    let stack = Stack::start();
    assert_well(&stack, "nothing");
    let before = resident(&stack);
    let mut endless = Http2::connect(stack.countersign.authz);
    endless.frame(HEADERS, 0, 1, &check_headers());
    let filler = [&b"\0\x01a\x7f\xff\x01"[..], &[b'v'; 127 + 255]].concat();
    let taken = (0..100_000).take_while(|_| endless.frame(CONTINUATION, 0, 1, &filler)).count();
    assert!(endless.was_ended(), "{taken} frames were taken");

    // One long entry put into the dynamic table, then named again and again: 16 KiB on the wire, megabytes unpacked.
    let mut bomb = Http2::connect(stack.countersign.authz);
    let mut block = check_headers();
    block.extend_from_slice(b"\x40\x01b\x7f\xa1\x1e");
    block.extend_from_slice(&[b'v'; 127 + 0x21 + (0x1e << 7)]);
    block.extend(std::iter::repeat_n(0xbe, 12_000));
    bomb.frame(HEADERS, 0, 1, &block[..8192]);
    bomb.frame(CONTINUATION, 4, 1, &block[8192..]);
    drop(bomb);
    assert_well(&stack, "header bombs");
    assert!(resident(&stack) < before + GROWTH, "{before} → {}", resident(&stack));
}

#[test]
fn d04_what_a_connection_remembers_of_long_headers_is_bounded() {
    let stack = Stack::start();
    assert_well(&stack, "nothing");
    let before = resident(&stack);
    // A path of so many octets, not to be remembered; behind it, in one piece with it, an authority that is.
    let send = |attacker: &mut Http2, stream, path: &[u8], length: &[u8]| {
        let block = [b"\x83\x86\x04\x7f", length, path, b"\x41\x01x"].concat();
        let (first, rest) = block.split_at(16_384);
        let (rest, last) = rest.split_at(rest.len() - 1_000);
        attacker.frame(HEADERS, 0, stream, first)
            && rest.chunks(16_384).all(|part| attacker.frame(CONTINUATION, 0, stream, part))
            && attacker.frame(CONTINUATION, 4, stream, last)
    };
    let mut attacker = Http2::connect(stack.countersign.authz);
    for i in 0..500 {
        assert!(send(&mut attacker, i * 2 + 1, &[b'/'; 240_000], b"\x81\xd2\x0e"));
    }
    attacker.frame(HEADERS, 4, 1001, &check_headers());
    attacker.read_until(b"credentials_unknown");
    assert_well(&stack, "remembered headers");
    let held = resident(&stack).saturating_sub(before);
    assert!(held < GROWTH / 2, "{held} octets");
    let mut longer = Http2::connect(stack.countersign.authz);
    send(&mut longer, 1, &[b'/'; 900_000], b"\xa1\xf6\x36");
    assert!(longer.was_ended());
}

#[test]
fn d05_connections_that_come_and_go_and_octets_that_are_no_http_stop_nothing() {
    let stack = Stack::start();
    let greetings: [&[u8]; 5] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0xff; 512],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff",
    ];
    for i in 0..1_500 {
        if let Ok(mut stream) = TcpStream::connect(stack.countersign.authz) {
            let _ = stream.write_all(greetings[i % greetings.len()]);
        }
        if i % 300 == 0 {
            assert_well(&stack, "connections that come and go");
        }
    }
    assert_well(&stack, "all of them");
    let open = || fs::read_dir(format!("/proc/{}/fd", stack.countersign.process.id())).expect("it lives").count();
    eventually("their descriptors are closed", || (open() < 200).then_some(()));
}

#[test]
fn d05_without_descriptors_for_more_connections_every_port_goes_on_when_there_are_some() {
    let stack = Stack::start();
    assert_well(&stack, "nothing");
    let process = &stack.countersign.process;
    let open = || fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it lives").count();
    let most = open() + 20;
    let mut limit = Command::new("prlimit");
    limit.args(["--pid", &process.id().to_string(), &format!("--nofile={most}:{most}")]);
    assert!(limit.status().is_ok_and(|status| status.success()), "`prlimit` is of util-linux");
    let Countersign { authz, admin, http, .. } = stack.countersign;
    // The Check port last: it says when it cannot accept.
    let held: Vec<TcpStream> =
        [http, admin, authz].iter().flat_map(|port| (0..40).map(move |_| TcpStream::connect(port))).flatten().collect();
    eventually("it cannot accept", || process.stderr().contains("Too many open files").then_some(()));
    drop(held);
    eventually("their descriptors are closed", || (open() < most - 10).then_some(()));
    assert_eq!(stack.countersign.ready(), Some(200), "HTTP");
    stack.countersign.admin("Status", &json!({})).expect("the admin API");
    assert!(stack.countersign.health().is_some(), "a new connection to the Check port");
    assert_well(&stack, "no descriptors");
}

#[test]
fn d09_too_many_checks_at_once_are_shed_with_503_and_never_let_through() {
    let stack = Builder::new().set("/check", json!({"max_in_flight": 1})).start();
    // Of a kind that is verified on another thread: checks wait for it, and so there are several at once.
    let tokens: Vec<String> = (0..640).map(|i| Token::person(&format!("user-{i}")).algorithm("ES256").mint()).collect();
    let to = stack.envoys[0].http;
    std::thread::scope(|scope| {
        for part in tokens.chunks(10) {
            scope.spawn(move || {
                for token in part {
                    let answer = Request::new(to, "GET", "/hello").bearer(token).send();
                    if answer.status == 503 {
                        assert!(answer.header("retry-after").is_some() && answer.header("x-echo").is_none());
                        assert_eq!(answer.reason(), "credentials_unknown", "{answer:?}");
                    } else {
                        assert_eq!(answer.status, 200, "{answer:?}");
                    }
                }
            });
        }
    });
    assert!(stack.countersign.metric("countersign_shed", "") > 0.0, "none was shed");
    assert_well(&stack, "the crowd");
    assert_eq!(stack.countersign.ready(), Some(200));
}

/// A Check as it goes over the wire.
fn question(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let http = HttpRequest {
        method: "GET".to_owned(),
        host: "shop.example".to_owned(),
        path: path.to_owned(),
        headers,
        ..HttpRequest::default()
    };
    let request = Some(Asked { http: Some(http), ..Asked::default() });
    let attributes = Some(AttributeContext { request, ..AttributeContext::default() });
    let message = CheckRequest { attributes }.encode_to_vec();
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0], &length[..], &message].concat()
}

/// Asks on a connection that others ask on too.
async fn ask(requests: SendRequest<bytes::Bytes>, question: &[u8]) -> (SendRequest<bytes::Bytes>, ResponseFuture) {
    let mut requests = requests.ready().await.expect("it is open");
    let call = http::Request::post("http://x/envoy.service.auth.v3.Authorization/Check").body(()).expect("a request");
    let (answer, mut stream) = requests.send_request(call, false).expect("a stream");
    stream.send_data(question.to_vec().into(), true).expect("it is taken");
    (requests, answer)
}

async fn answered(answer: ResponseFuture) -> CheckResponse {
    let mut body = answer.await.expect("an answer").into_body();
    let mut octets = Vec::new();
    while let Some(data) = body.data().await {
        octets.extend_from_slice(&data.expect("the whole of it"));
    }
    CheckResponse::decode(&octets[5..]).expect("a CheckResponse")
}

#[test]
fn d09_checks_that_wait_hold_up_none_that_needs_not_on_their_connection() {
    let keys = KeySets::start();
    let check = json!({"deadline": "4s"});
    let stack = Builder::new().no_envoy().set("/identity/issuers/0/jwks", keys.url()).set("/check", check).start();
    // By a key that nobody has yet: all of these wait for it, together with far more octets than the connection's window.
    let bearer = format!("Bearer {}", Token::person("bob").algorithm("ES256").mint());
    let held = question("/hello", &[("authorization", &bearer), ("cookie", &"c".repeat(4096))]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(stack.countersign.authz).await.expect("it listens");
        // With room for all answers: they are read one after another.
        let (mut requests, connection) = h2::client::Builder::new()
            .initial_connection_window_size(1 << 24)
            .handshake(socket)
            .await
            .expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let mut waiting = Vec::new();
        for _ in 0..600 {
            let answer;
            (requests, answer) = ask(requests, &held).await;
            waiting.push(answer);
        }
        let asked = Instant::now();
        let (_requests, public) = ask(requests, &question("/public/x", &[])).await;
        assert_eq!(answered(public).await.status.expect("a status").code, 0);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        assert!(keys.is_awaited(), "the others do wait");
        keys.let_go();
        for answer in waiting {
            assert_eq!(answered(answer).await.status.expect("a status").code, 0);
        }
    });
}
