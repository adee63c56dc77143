//! Streams without an end of their own, as an upstream sends them and as a client sees them: WebSocket, chunked events, gRPC.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    pin::Pin,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{Stream, StreamExt as _, stream};
use tonic::{
    Code, Request, Response, Status,
    transport::{Endpoint, Server},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

use super::process::{PATIENCE, pause};

/// How often an upstream says something.
const TICK: Duration = Duration::from_millis(50);
/// What RFC 6455 has a server append to the client's key.
const WEBSOCKET: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY: &str = "c3RyZWFtcyBvZiBhIHRlc3Q=";

/// What is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WebSocket,
    /// Server-sent events, asked for as browsers do (`Accept`).
    Events,
    /// The same answer to a request that does not say what it wants.
    Chunks,
    Grpc,
}

/// How a stream went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The HTTP status that it began with; for gRPC 200, or what its status stands for.
    pub status: u16,
    /// Milliseconds since 1970 at the last thing that came from the upstream.
    pub last: u64,
    /// And when the stream was over.
    pub ended: u64,
    /// Of how many pieces it was.
    pub pieces: u32,
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(since.as_millis()).expect("milliseconds fit")
}

/// Serves WebSockets and chunked answers until the test process ends. Each connection is a thread.
pub fn serve_http(address: SocketAddr) {
    let listener = TcpListener::bind(address).expect("a free port");
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || answer(connection));
        }
    });
}

/// Until the client is gone.
fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    let head = read_head(&mut connection)?;
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
    };
    let piece = if header("upgrade").is_some_and(|kind| kind.eq_ignore_ascii_case("websocket")) {
        let accept = accept(&header("sec-websocket-key").unwrap_or_default());
        let lines = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        write!(connection, "{lines}Sec-WebSocket-Accept: {accept}\r\n\r\n")?;
        // A whole text frame of four octets, from a server: not masked.
        b"\x81\x04tick".to_vec()
    } else {
        let kind = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n";
        write!(connection, "HTTP/1.1 200 OK\r\n{kind}\r\n")?;
        b"c\r\ndata: tick\n\n\r\n".to_vec()
    };
    loop {
        connection.write_all(&piece)?;
        pause(TICK);
    }
}

/// What a server answers to a client's key.
fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{WEBSOCKET}").as_bytes()))
}

fn read_head(connection: &mut TcpStream) -> std::io::Result<String> {
    let (mut head, mut octet) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut octet)?;
        head.push(octet[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Serves `grpc.health.v1.Health/Watch` as a stream that ticks, until the test process ends.
pub fn serve_grpc(address: SocketAddr) {
    thread::spawn(move || {
        runtime().block_on(async {
            let server = Server::builder().add_service(HealthServer::new(Ticker)).serve(address);
            server.await.expect("a free port");
        });
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

struct Ticker;

#[tonic::async_trait]
impl Health for Ticker {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let ticks = stream::unfold(tokio::time::interval(TICK), |mut interval| async {
            interval.tick().await;
            Some((Ok(HealthCheckResponse { status: 1 }), interval))
        });
        Ok(Response::new(Box::pin(ticks)))
    }
}

/// Opens a stream and reads it to its end, or for `longest`; the path of a gRPC stream is always the same.
pub fn watch(kind: Kind, to: SocketAddr, path: &str, headers: &[(&str, &str)], longest: Duration) -> Outcome {
    match kind {
        Kind::Grpc => runtime().block_on(watch_grpc(to, headers, longest)),
        _ => watch_http(kind, to, path, headers, longest).expect("the proxy answers"),
    }
}

fn watch_http(
    kind: Kind,
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    longest: Duration,
) -> std::io::Result<Outcome> {
    let mut connection = TcpStream::connect_timeout(&to, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let asks = match kind {
        Kind::WebSocket => {
            format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
            )
        }
        Kind::Events => "Accept: text/event-stream\r\n".to_owned(),
        Kind::Chunks | Kind::Grpc => String::new(),
    };
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: shop.example\r\n{asks}{more}\r\n")?;
    let head = read_head(&mut connection)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    if status == 101 {
        assert!(head.contains(&accept(KEY)), "not the upstream's handshake: {head}");
    }
    let start = Instant::now();
    let mut outcome = Outcome { status, last: now_ms(), ended: now_ms(), pieces: 0 };
    if !matches!(status, 101 | 200) {
        return Ok(outcome);
    }
    let mut piece = [0; 4096];
    connection.set_read_timeout(Some(longest.max(TICK)))?;
    while start.elapsed() < longest {
        match connection.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                // What ends a chunked answer is not of the upstream.
                if piece[..length].windows(4).any(|four| four == b"tick") {
                    outcome.last = now_ms();
                    outcome.pieces += 1;
                }
            }
        }
    }
    outcome.ended = now_ms();
    Ok(outcome)
}

async fn watch_grpc(to: SocketAddr, headers: &[(&str, &str)], longest: Duration) -> Outcome {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).expect("an address");
    let mut client = HealthClient::new(endpoint.connect().await.expect("the proxy listens"));
    let mut request = Request::new(HealthCheckRequest::default());
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let name = tonic::metadata::AsciiMetadataKey::from_bytes(name.as_bytes()).expect("a name");
        request.metadata_mut().append(name, value.parse().expect("a value"));
    }
    let mut outcome = Outcome { status: 200, last: now_ms(), ended: now_ms(), pieces: 0 };
    let mut ticks = match client.watch(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            outcome.status = if status.code() == Code::Unauthenticated { 401 } else { 500 };
            return outcome;
        }
    };
    let read = async {
        while let Some(Ok(_)) = ticks.next().await {
            outcome.last = now_ms();
            outcome.pieces += 1;
        }
    };
    let _ = tokio::time::timeout(longest, read).await;
    outcome.ended = now_ms();
    outcome
}
