//! Calls that wait, that panic and that are given up; and what a peer can do to a connection, frame by frame.

use std::{
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::oneshot,
};

use super::{super::service::tests::Service, *};

/// What a client says first: a preface and empty settings.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_call_that_waits_goes_on_by_itself_and_a_panic_ends_nothing_else() {
    let (told, mut heard) = mpsc::channel(2);
    let (open, gate) = oneshot::channel::<()>();
    run(Box::pin(async { panic!("on purpose") }));
    let waiting = told.clone();
    run(Box::pin(async move {
        let _ = gate.await;
        waiting.send("waited").await.unwrap();
    }));
    run(Box::pin(async move { told.send("at once").await.unwrap() }));
    assert_eq!(heard.try_recv(), Ok("at once"));
    open.send(()).unwrap();
    assert_eq!(heard.recv().await, Some("waited"));
}

#[tokio::test]
async fn after_so_many_calls_the_rest_are_tasks_and_all_are_answered() {
    let answered = Arc::new(AtomicUsize::new(0));
    for _ in 0..1_000 {
        let answered = Arc::clone(&answered);
        run(Box::pin(async move {
            answered.fetch_add(1, Ordering::Relaxed);
        }));
    }
    assert!(answered.load(Ordering::Relaxed) < 1_000);
    while answered.load(Ordering::Relaxed) < 1_000 {
        tokio::task::yield_now().await;
    }
}

/// Serves a connection until its peer falls silent, or the connection ends.
async fn falls_silent(stream: DuplexStream, keepalive: (Duration, Duration)) -> bool {
    let mut connection = Builder::new().handshake::<_, Bytes>(stream).await.unwrap();
    let pings = connection.ping_pong();
    tokio::select! {
        () = fallen_silent(pings, keepalive) => true,
        _ = connection.accept() => false,
    }
}

#[tokio::test]
async fn calls_that_are_given_up_end_nobody_elses() {
    let (near, far) = duplex(1 << 20);
    let (mut requests, connection) = h2::client::handshake(far).await.unwrap();
    tokio::spawn(connection);
    let ask = || Request::post("http://localhost").body(()).unwrap();
    let mut serving = http2().handshake::<_, Bytes>(near).await.unwrap();
    // All of them are there, and taken back, before the first is looked at.
    for _ in 0..500 {
        requests = requests.ready().await.unwrap();
        drop(requests.send_request(ask(), false).unwrap());
        tokio::task::yield_now().await;
    }
    let (answer, _) = requests.ready().await.unwrap().send_request(ask(), true).unwrap();
    tokio::spawn(async move {
        while let Some(Ok((_, mut respond))) = serving.accept().await {
            let _ = respond.send_response(http::Response::new(()), true);
        }
    });
    assert_eq!(answer.await.unwrap().status(), 200);
}

/// Statuses of calls with values of so many KiB among their headers, one after another on one connection.
async fn statuses<F>(kibibytes: &[usize], answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F) -> Vec<u16>
where
    F: Future<Output = ()>,
{
    let (near, far) = duplex(1 << 20);
    let (mut requests, connection) = h2::client::handshake(far).await.unwrap();
    tokio::spawn(connection);
    let mut serving = http2().handshake::<_, Bytes>(near).await.unwrap();
    let served = async {
        while let Some(Ok((request, respond))) = serving.accept().await {
            answer(request, respond).await;
        }
    };
    let asked = async {
        let mut statuses = Vec::new();
        for kibibytes in kibibytes {
            let ask = Request::post("http://localhost").header("tracestate", "v".repeat(kibibytes * 1024));
            requests = requests.ready().await.unwrap();
            let (answer, _) = requests.send_request(ask.body(()).unwrap(), true).unwrap();
            statuses.push(answer.await.unwrap().status().as_u16());
        }
        statuses
    };
    tokio::select! {
        statuses = asked => statuses,
        () = served => panic!("the connection has ended"),
    }
}

#[tokio::test]
async fn what_envoy_hands_on_of_a_clients_headers_beside_a_question_is_no_reason_to_refuse_it() {
    let accept = |_, mut respond: SendResponse<Bytes>| async move {
        respond.send_response(http::Response::new(()), true).unwrap();
    };
    assert_eq!(statuses(&[1, 40, 60, 200, 240], accept).await, [200; 5]);
    assert_eq!(statuses(&[300, 1], accept).await, [431, 200], "beyond the limit, and only that one");
}

#[tokio::test]
async fn calls_that_are_no_checks_have_few_headers() {
    let answer = |request, respond| others::answer(Routes::default(), request, respond);
    assert_eq!(statuses(&[1, 40, 200, 1], answer).await, [200, 431, 431, 200]);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_has_fallen_silent() {
    let (near, mut far) = duplex(4096);
    // And never a word again.
    far.write_all(GREETING).await.unwrap();
    assert!(falls_silent(near, (Duration::from_millis(1), Duration::from_millis(20))).await);
}

#[tokio::test]
async fn a_peer_that_answers_pings_may_be_idle() {
    let (near, far) = duplex(4096);
    let peer = async {
        let (_requests, connection) = h2::client::handshake(far).await.unwrap();
        let _ = timeout(Duration::from_millis(200), connection).await;
    };
    let keepalive = (Duration::from_millis(1), Duration::from_secs(10));
    let ((), silent) = tokio::join!(peer, falls_silent(near, keepalive));
    assert!(!silent, "dozens of pings were answered, then the connection ended");
}

/// Kinds of frames, and reasons for an end.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a POST to `/` on the client's stream of this number, from 0, with no end.
fn opened(number: u32) -> Vec<u8> {
    frame(HEADERS, 4, number * 2 + 1, b"\x83\x86\x84\x01\x01x")
}

/// The next frame of this kind: its stream and its payload.
async fn next(kind: u8, from: &mut DuplexStream) -> (u32, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        timeout(Duration::from_secs(10), from.read_exact(&mut head)).await.expect("it says so").unwrap();
        let [a, b, c, found, _, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        from.read_exact(&mut payload).await.unwrap();
        if found == kind {
            return (u32::from_be_bytes(stream), payload);
        }
    }
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap())
}

/// Takes every call that comes and answers none.
fn held(near: DuplexStream) {
    tokio::spawn(async move {
        let mut serving = http2().handshake::<_, Bytes>(near).await.unwrap();
        let mut calls = Vec::new();
        while let Some(Ok(call)) = serving.accept().await {
            calls.push(call);
        }
    });
}

#[tokio::test]
async fn d03_a_stream_beyond_the_limit_is_refused() {
    let (near, mut far) = duplex(1 << 20);
    held(near);
    let streams: Vec<u8> = (0..=MAX_STREAMS).flat_map(opened).collect();
    far.write_all(&[GREETING, &streams].concat()).await.unwrap();
    let (_, settings) = next(SETTINGS, &mut far).await;
    let setting = |id: u8| settings.chunks(6).find(|setting| setting[..2] == [0, id]).map(number);
    assert_eq!((setting(3), setting(6)), (Some(MAX_STREAMS), Some(MAX_HEADER_LIST)));
    let (stream, why) = next(RST_STREAM, &mut far).await;
    assert_eq!((stream, number(&why)), (MAX_STREAMS * 2 + 1, REFUSED_STREAM));
}

#[tokio::test]
async fn d03_more_calls_given_up_before_they_are_looked_at_end_their_connection() {
    let (near, mut far) = duplex(1 << 20);
    let given_up = |number| [opened(number), frame(RST_STREAM, 0, number * 2 + 1, &CANCEL.to_be_bytes())].concat();
    let calls: Vec<u8> = (0..=MAX_GIVEN_UP as u32).flat_map(given_up).collect();
    // All of them are there before the first is looked at.
    far.write_all(&[GREETING, &calls].concat()).await.unwrap();
    held(near);
    let (_, why) = next(GOAWAY, &mut far).await;
    assert_eq!(u32::from_be_bytes(why[4..8].try_into().unwrap()), ENHANCE_YOUR_CALM);
}

/// Whether a connection that says `greeting` and nothing else is ended while its client holds it.
async fn is_ended(door: &Door, greeting: &[u8], tls: Option<Arc<ServerConfig>>) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    io::Write::write_all(&mut client, greeting).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let connection = door.clone().connection(Socket::Tcp(socket, tls), CancellationToken::new());
    let ended = timeout(Duration::from_secs(10), connection).await;
    drop(client);
    matches!(ended, Ok(Err(_)))
}

#[tokio::test]
async fn d01_a_connection_that_says_nothing_is_ended_though_its_client_holds_it() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = Service::start().await;
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(50));
    let patience = Patience { handshake: long, preface: long, keepalive: (long, long) };
    let door = |patience| Door { checks: Arc::clone(&service.checks), others: Routes::default(), patience };
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = own.signing_key.serialize_der().try_into().unwrap();
    let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key);
    let tls = Some(Arc::new(tls.unwrap()));
    assert!(is_ended(&door(Patience { handshake: short, ..patience }), b"", tls).await, "no ClientHello");
    assert!(is_ended(&door(Patience { preface: short, ..patience }), b"PRI * HTTP", None).await, "no whole preface");
    let asked = Patience { keepalive: (short, short), ..patience };
    assert!(is_ended(&door(asked), GREETING, None).await, "no answer to a ping");
}
