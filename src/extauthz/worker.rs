//! One worker: a thread, its runtime, the connections it was dealt.
//!
//! HTTP/2 is h2's, without tonic's and hyper's layers above it: `Check` is bytes in and bytes out ([`Checks`]). Health and
//! reflection are tonic's services behind the same door ([`others`]).

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{
    Ping, PingPong, RecvStream,
    server::{Builder, SendResponse},
};
use http::Request;
use tokio::{
    sync::mpsc,
    task::coop,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use super::{connection::Socket, others, places::Place, service::Checks};

/// Streams on one connection; Envoy opens another connection when it needs more.
const MAX_STREAMS: u32 = 2048;

/// Calls that were given up before anybody looked at them, and still wait to be forgotten. Envoy asks for all its clients over one
/// connection and gives up a call whose client has gone: with h2's own 20, one client that leaves often ends it for all.
const MAX_GIVEN_UP: usize = MAX_STREAMS as usize;

/// Octets of the headers of one call, as HTTP/2 counts them. Beyond it h2 answers 431 by itself, and ends the connection beyond
/// four times as much: a gRPC error to Envoy, which is an allow where it has `failure_mode_allow`. So it is well above what an Envoy
/// carries (`max_request_headers_kb`, 60 unless set), of which one that traces hands on the `tracestate` beside its question. Not as
/// much as an Envoy may be told to carry (8 MiB): a connection can be made to hold some three hundred times this, since the
/// hundred entries of its HPACK table may keep alive the blocks that they came in.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// Octets of calls that a connection, and each of its streams, may send before they are read and answered, or read and have to wait.
const WINDOW: u32 = 1024 * 1024;

/// How long a connection may say nothing: without these, as many silent ones as there are places keep everybody out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Longest time a TLS handshake may take.
    handshake: Duration,
    /// Longest time until a connection has begun to speak HTTP/2.
    preface: Duration,
    /// How often a silent peer is asked whether it is there, and how long it may take to say so.
    keepalive: (Duration, Duration),
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            preface: Duration::from_secs(10),
            keepalive: (Duration::from_secs(30), Duration::from_secs(10)),
        }
    }
}

/// A connection and its place among `max_connections`.
pub(super) type Dealt = (Socket, Place);

/// A call that a connection has read, and the way back.
type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// A call on its way to its answer.
type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a connection may ask for.
fn http2() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_GIVEN_UP)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    builder
}

/// Polls a call once, and makes a task of one that has to wait.
///
/// Nearly every check is answered without waiting. A task for each would be another allocation, a place in a queue and another
/// turn. After so many calls, as tokio counts, the rest are tasks as well, so that other connections get their turn.
///
/// Nobody is woken by what `call` waits for at first: the task that it becomes polls it again at once.
fn run(mut call: Answering) {
    let mut nobody = Context::from_waker(Waker::noop());
    if let Poll::Ready(turn) = coop::poll_proceed(&mut nobody) {
        turn.made_progress();
        // As in a task of its own, a panic ends this call alone.
        if !matches!(catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut nobody))), Ok(Poll::Pending)) {
            return;
        }
    }
    tokio::spawn(call);
}

/// Resolves when the peer no longer answers, asked so often and given so long.
async fn fallen_silent(pings: Option<PingPong>, (often, long): (Duration, Duration)) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(often).await;
        if !matches!(timeout(long, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// What a worker answers calls with.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) checks: Arc<Checks>,
    /// Health and reflection.
    pub(super) others: Routes,
    pub(super) patience: Patience,
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

    async fn connection(self, socket: Socket, goaway: CancellationToken) -> Result<(), Error> {
        let Patience { handshake, preface, keepalive } = self.patience;
        let stream = socket.connect(handshake).await?;
        let mut connection = timeout(preface, http2().handshake(stream)).await??;
        let mut silent = pin!(fallen_silent(connection.ping_pong(), keepalive).fuse());
        let mut leaving = pin!(goaway.cancelled().fuse());
        let mut calls = VecDeque::new();
        poll_fn(|context| {
            if leaving.as_mut().poll(context).is_ready() {
                connection.graceful_shutdown();
            }
            if silent.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err("the peer does not answer".into()));
            }
            // What has been read is run together once all has been read: the answers leave together, with the next poll.
            loop {
                match connection.poll_accept(context) {
                    Poll::Ready(Some(call)) => calls.push_back(call?),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending if calls.is_empty() => {
                        self.checks.answers_have_left();
                        return Poll::Pending;
                    }
                    Poll::Pending => calls.drain(..).for_each(|call| run(self.answering(call))),
                }
            }
        })
        .await
    }

    /// Boxed only when its turn has come, so that of all calls that a connection has read one at a time is in the processor's
    /// cache.
    fn answering(&self, (request, respond): Call) -> Answering {
        if Checks::are_asked_by(&request) {
            let checks = Arc::clone(&self.checks);
            return Box::pin(async move { checks.answer(request, respond).await });
        }
        Box::pin(others::answer(self.others.clone(), request, respond))
    }
}

#[cfg(test)]
mod tests;
