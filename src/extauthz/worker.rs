//! One worker: a thread, its runtime, the connections it was dealt.
//!
//! HTTP/2 is hyper's, without tonic's layers above it: `Check` is bytes in and bytes out ([`Checks`]). Health and
//! reflection are tonic's services behind the same door.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::Arc,
    thread,
    time::Duration,
};

use http::{Request, Response};
use http_body_util::Either;
use hyper::{
    body::Incoming,
    server::conn::http2,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, service::Routes};
use tower::ServiceExt as _;

use super::{
    connection::Socket,
    service::{Checks, Reply},
};

/// Streams on one connection; Envoy opens another connection when it needs more.
const MAX_STREAMS: u32 = 2048;

/// Octets of HPACK-decoded headers of one call.
const MAX_HEADER_LIST: u32 = 32 * 1024;

/// How often a silent peer is asked whether it is there, and how long it may take to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// A connection and its place among `max_connections`.
pub(super) type Dealt = (Socket, OwnedSemaphorePermit);

/// A call on its way to its answer.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Either<Reply, Body>>, Infallible>> + Send>>;

/// What a worker answers calls with.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) checks: Arc<Checks>,
    /// Health and reflection.
    pub(super) others: Routes,
}

impl Door {
    /// Starts a worker's thread. It ends when `goaway` is cancelled and its last call is answered.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(super) fn open(
        self,
        index: usize,
        sockets: mpsc::Receiver<Dealt>,
        goaway: CancellationToken,
    ) -> io::Result<thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || runtime.block_on(self.work(sockets, goaway));
        thread::Builder::new().name(format!("check-{index}")).spawn(work)
    }

    async fn work(self, mut sockets: mpsc::Receiver<Dealt>, goaway: CancellationToken) {
        let connections = TaskTracker::new();
        while let Some(Some((socket, place))) = goaway.run_until_cancelled(sockets.recv()).await {
            let (door, goaway) = (self.clone(), goaway.clone());
            // Handshakes run beside one another, so that one slow client holds up nobody.
            connections.spawn(async move {
                if let Err(error) = door.connection(socket, goaway).await {
                    tracing::debug!(error = &*error, "a connection to the Check port failed");
                }
                drop(place);
            });
        }
        connections.close();
        connections.wait().await;
    }

    async fn connection(
        self,
        socket: Socket,
        goaway: CancellationToken,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TokioIo::new(socket.connect().await?);
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .serve_connection(stream, self.service());
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Ok(ended?),
            () = goaway.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }

    fn service(
        self,
    ) -> impl Service<Request<Incoming>, Response = Response<Either<Reply, Body>>, Error = Infallible, Future: Send>
    {
        let Self { checks, others } = self;
        // Boxed at once: hyper moves it half a dozen times before it is first polled.
        service_fn(move |request: Request<Incoming>| -> Answering {
            if Checks::are_asked_by(&request) {
                let checks = Arc::clone(&checks);
                return Box::pin(async move { Ok(checks.answer(request).await.map(Either::Left)) });
            }
            let others = others.clone().oneshot(request);
            Box::pin(async move { others.await.map(|answer| answer.map(Either::Right)) })
        })
    }
}
