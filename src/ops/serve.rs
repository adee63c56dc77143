//! The listener: plain HTTP/1.1, a bounded number of connections, a bounded time for a request's head, for its body, and for
//! its answer to be read.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, HttpBody as _},
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream::try_unfold};
use http::StatusCode;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::taken::Taken;

/// How long a client may take to send a request's head; also how long a connection may idle.
const HEAD: Duration = Duration::from_secs(15);
/// How long a request's whole body may take to arrive, and its whole answer to be read, however steadily they trickle.
const LONGEST: Duration = Duration::from_secs(15);
/// Connections beyond the bound that are still heard, about health alone: whoever fills the port must not have us restarted.
/// Who fills it takes these too: the oldest that has not asked yet gives way to a newcomer.
const RESERVE: usize = 16;
/// How long one of those may take to say what it wants.
const BRIEF: Duration = Duration::from_secs(1);
/// How long open requests may take to end when the process does.
const DRAIN: Duration = Duration::from_secs(5);

/// The two ends of the connection, as the socket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// The address of ours that was dialled; `None` where the system cannot tell.
    pub dialled: Option<SocketAddr>,
}

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// # Errors
    ///
    /// Where the address is taken or is not ours.
    pub async fn bind(address: SocketAddr, max_connections: usize) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, connections: Arc::new(Semaphore::new(max_connections)) })
    }

    /// # Errors
    ///
    /// Where the system cannot tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves `router` until cancelled, then lets open requests end.
pub async fn serve(listener: Listener, router: Router, cancel: CancellationToken) {
    serve_within(LONGEST, listener, router, cancel).await;
}

async fn serve_within(longest: Duration, listener: Listener, router: Router, cancel: CancellationToken) {
    let open = TaskTracker::new();
    let router = router.layer(from_fn_with_state(longest, in_time));
    let health = router.clone().layer(from_fn(health_alone));
    let mut reserve = Reserve::default();
    while let Some(accepted) = cancel.run_until_cancelled(listener.listener.accept()).await {
        let Ok((stream, address)) = accepted else {
            // Out of descriptors, or gone before it was taken: the loop must outlive both.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let cancel = cancel.clone();
        let peer = Peer { address, dialled: stream.local_addr().ok() };
        let stream = Taken::within(longest, stream);
        if let Ok(place) = Arc::clone(&listener.connections).try_acquire_owned() {
            let service = router.clone().layer(Extension(peer));
            open.spawn(async move {
                connection(stream, service, HEAD, cancel).await;
                drop(place);
            });
        } else if reserve.has_room() {
            let asked = Asked::default();
            let service = health.clone().layer(Extension(peer)).layer(Extension(asked.clone()));
            let task = open.spawn(connection(stream, service, BRIEF, cancel));
            reserve.0.push((asked, task.abort_handle()));
        }
        // Full: the newcomer is turned away at once rather than left to wait behind slow ones.
    }
    open.close();
    if tokio::time::timeout(DRAIN, open.wait()).await.is_err() {
        tracing::warn!("HTTP requests were still open at shutdown");
    }
}

/// Whether a connection of the reserve has sent the head of its question.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<AtomicBool>);

/// The connections beyond the bound, oldest first.
#[derive(Debug, Default)]
struct Reserve(Vec<(Asked, AbortHandle)>);

impl Reserve {
    /// Makes room where there is none.
    fn has_room(&mut self) -> bool {
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() < RESERVE {
            return true;
        }
        let silent = self.0.iter().position(|(asked, _)| !asked.0.load(Ordering::Relaxed));
        silent.inspect(|&oldest| self.0.remove(oldest).1.abort()).is_some()
    }
}

/// For a connection of the reserve: one question.
async fn health_alone(Extension(asked): Extension<Asked>, request: Request, next: Next) -> Response {
    asked.0.store(true, Ordering::Relaxed);
    match request.uri().path() {
        "/healthz" | "/readyz" => next.run(request).await,
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// A body that is late breaks off for whoever reads it. Nobody need wait for it, and no path is forgotten.
async fn in_time(State(longest): State<Duration>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let deadline = Instant::now() + longest;
    let request = request.map(|body| {
        Body::from_stream(try_unfold(body.into_data_stream(), move |mut parts| async move {
            match timeout_at(deadline, parts.next()).await {
                Ok(Some(part)) => Ok(Some((part.map_err(io::Error::other)?, parts))),
                Ok(None) => Ok(None),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            }
        }))
    });
    next.run(request).await
}

async fn connection(stream: Taken<TcpStream>, router: Router, patience: Duration, cancel: CancellationToken) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(patience == HEAD)
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = cancel.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Bytes,
        routing::{get, post},
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_holds_no_connection() {
        let router = Router::new().route("/devices/enroll", post(|_: Bytes| async {}));
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), 1).await.unwrap();
        let address = listener.address().unwrap();
        let serving = tokio::spawn(serve_within(Duration::from_millis(50), listener, router, CancellationToken::new()));
        let head = "POST /devices/enroll HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\nconnection: close\r\n\r\n";
        let ask = async |body: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let late = ask("b").await;
        assert!(late.starts_with("HTTP/1.1 400 "), "{late}");
        let whole = ask("body").await;
        assert!(whole.starts_with("HTTP/1.1 200 "), "{whole}");
        serving.abort();
    }
    #[tokio::test]
    async fn an_answer_that_nobody_reads_holds_no_connection() {
        let large = || async { vec![b'a'; 1024 * 1024] };
        let router = Router::new().route("/metrics", get(large)).route("/devices/enroll", post(async || {}));
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), 1).await.unwrap();
        let address = listener.address().unwrap();
        let serving = tokio::spawn(serve_within(Duration::from_millis(50), listener, router, CancellationToken::new()));
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all("GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100).as_bytes()).await.unwrap();
        let free = async {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let ask = "POST /devices/enroll HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
                let (mut answer, asked) = (String::new(), stream.write_all(ask.as_bytes()).await);
                if asked.is_ok() && stream.read_to_string(&mut answer).await.is_ok() && answer.contains(" 200 ") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Well before the connection's head is late.
        tokio::time::timeout(HEAD / 2, free).await.unwrap();
        drop(silent);
        serving.abort();
    }
}
