//! The listener: plain HTTP/1.1, a bounded number of connections, a bounded time for a request's head.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a client may take to send a request's head; also how long a connection may idle.
const HEAD: Duration = Duration::from_secs(15);
/// Connections beyond the bound that are still heard, about health alone: whoever fills the port must not have us restarted.
const RESERVE: usize = 16;
/// How long one of those may take to say what it wants.
const BRIEF: Duration = Duration::from_secs(1);
/// How long open requests may take to end when the process does.
const DRAIN: Duration = Duration::from_secs(5);

/// Who is on the other end of the connection, as the socket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
}

impl Listener {
    /// # Errors
    ///
    /// Where the address is taken or is not ours.
    pub async fn bind(address: SocketAddr, max_connections: usize) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (connections, reserve) = (Semaphore::new(max_connections), Semaphore::new(RESERVE));
        Ok(Self { listener, connections: Arc::new(connections), reserve: Arc::new(reserve) })
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
    let open = TaskTracker::new();
    let health = router.clone().layer(from_fn(health_alone));
    while let Some(accepted) = cancel.run_until_cancelled(listener.listener.accept()).await {
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors, or gone before it was taken: the loop must outlive both.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Full: the newcomer is turned away at once rather than left to wait behind slow ones.
        let (place, router, patience) = match Arc::clone(&listener.connections).try_acquire_owned() {
            Ok(place) => (place, &router, HEAD),
            Err(_) => match Arc::clone(&listener.reserve).try_acquire_owned() {
                Ok(place) => (place, &health, BRIEF),
                Err(_) => continue,
            },
        };
        let service = router.clone().layer(Extension(Peer(peer)));
        let cancel = cancel.clone();
        open.spawn(async move {
            connection(stream, service, patience, cancel).await;
            drop(place);
        });
    }
    open.close();
    if tokio::time::timeout(DRAIN, open.wait()).await.is_err() {
        tracing::warn!("HTTP requests were still open at shutdown");
    }
}

/// For a connection of the reserve: one question.
async fn health_alone(request: Request, next: Next) -> Response {
    match request.uri().path() {
        "/healthz" | "/readyz" => next.run(request).await,
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn connection(stream: TcpStream, router: Router, patience: Duration, cancel: CancellationToken) {
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
