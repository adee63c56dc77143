//! An upstream that answers what it received: the demo and the tests look through it at what Envoy let through.
//!
//! HTTP/1.1 and h2c on one port. `/stream` answers in chunks, an `Upgrade` turns the connection into an echo of octets.
//! Reads nothing but the request and keeps nothing. Not meant to face a network.

use std::{convert::Infallible, io, net::SocketAddr, process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// An upstream that answers with what it received.
#[derive(Debug, Args)]
#[command(hide = true)]
pub(in crate::cli) struct Echo {
    /// Address to listen on; port 0 picks one and prints it.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What it calls itself in its answers.
    #[arg(long, default_value = "echo")]
    name: String,
}

impl Echo {
    pub(in crate::cli) fn run(self) -> ExitCode {
        super::block_on(async {
            let listener = super::listen(self.listen).await?;
            println!("listening on {}", listener.local_addr()?);
            super::until_signal(serve(listener, self.name)).await
        })
    }
}

/// Longest request body that is read.
const MAX_BODY: usize = 1024 * 1024;

/// Chunks of `/stream`, and the time between two.
const CHUNKS: usize = 5;
const CHUNK_PAUSE: Duration = Duration::from_millis(100);

type Body = BoxBody<Bytes, Infallible>;

/// Answers connections until it is dropped.
pub(super) async fn serve(listener: TcpListener, name: String) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let name = name.clone();
        tokio::spawn(async move {
            // A connection that breaks concerns its client alone.
            let _ = connection(stream, name).await;
        });
    }
}

/// HTTP/2 with prior knowledge is told by its first octets.
async fn connection(stream: TcpStream, name: String) -> Result<(), hyper::Error> {
    let mut start = [0; 3];
    let is_http2 = loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(3) => break &start == b"PRI",
            Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    let service = service_fn(move |request| {
        let name = name.clone();
        async move { Ok::<_, Infallible>(answer(request, &name).await) }
    });
    let io = TokioIo::new(stream);
    if is_http2 {
        http2::Builder::new(TokioExecutor::new()).timer(TokioTimer::new()).serve_connection(io, service).await
    } else {
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service).with_upgrades().await
    }
}

async fn answer(mut request: Request<Incoming>, name: &str) -> Response<Body> {
    let mut response = if let Some(protocol) = request.headers().get(header::UPGRADE).cloned() {
        upgrade(&mut request, protocol)
    } else if request.uri().path() == "/stream" {
        streamed()
    } else {
        described(request, name).await
    };
    if let Ok(name) = HeaderValue::from_str(name) {
        response.headers_mut().insert("x-echo", name);
    }
    response
}

/// The request as JSON, a line for each part. Headers are a list of pairs, so that doubled ones show.
async fn described(request: Request<Incoming>, name: &str) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map(http_body_util::Collected::to_bytes);
    let lines = [
        ("name", json!(name)),
        ("method", json!(head.method.as_str())),
        ("path", json!(head.uri.path_and_query().map_or("", |path| path.as_str()))),
        ("authority", json!(head.uri.authority().map(http::uri::Authority::as_str))),
        ("version", json!(format!("{:?}", head.version))),
        ("body", json!(body.ok().map(|body| body.escape_ascii().to_string()))),
    ];
    let lines: String = lines.iter().map(|(key, value)| format!("  \"{key}\": {value},\n")).collect();
    let text = format!("{{\n{lines}  \"headers\": [\n    {}\n  ]\n}}\n", pairs(&head.headers).join(",\n    "));
    let mut response = Response::new(Full::from(text).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Octets outside ASCII are escaped, not lost.
fn pairs(headers: &HeaderMap) -> Vec<String> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        json!([name.as_str(), value.as_bytes().escape_ascii().to_string()]).to_string()
    };
    headers.iter().map(pair).collect()
}

fn streamed() -> Response<Body> {
    let chunks = stream::iter(0..CHUNKS).then(|number| async move {
        tokio::time::sleep(CHUNK_PAUSE).await;
        Ok(Frame::data(Bytes::from(format!("chunk {number}\n"))))
    });
    let mut response = Response::new(http_body_util::BodyExt::boxed(StreamBody::new(chunks)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Switches protocols, then sends back every octet it gets until the other side closes.
fn upgrade(request: &mut Request<Incoming>, protocol: HeaderValue) -> Response<Body> {
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut io = TokioIo::new(upgraded);
        let mut octets = vec![0; 4096];
        while let Ok(length @ 1..) = io.read(&mut octets).await {
            if io.write_all(&octets[..length]).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);
    response
}
