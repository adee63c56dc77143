//! One worker: a thread, its runtime, the connections it was dealt.
//!
//! HTTP/2 is hyper's, without tonic's layers above it: `Check` is bytes in and bytes out ([`Checks`]). Health and
//! reflection are tonic's services behind the same door.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body_util::Either;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::http2,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::coop,
};
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

/// Calls that a connection has read, to be run together once it has read what there is.
///
/// Nearly every check is answered without waiting. A task for each would be another allocation, a place in a queue and another
/// turn. Only a call that has to wait becomes a task; and after so many calls, as tokio counts, the rest do, so that other
/// connections get their turn. Answers leave together, since the connection is polled again only when all have been run.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<VecDeque<Call>>>);

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.0.lock().push_back(Box::pin(call));
    }
}

impl Calls {
    /// Says whether there were any.
    fn run(&self) -> bool {
        let mut some = false;
        while let Some(call) = self.next() {
            run(call);
            some = true;
        }
        some
    }

    /// By itself, so that nothing is locked while a call runs: it may hand over another.
    fn next(&self) -> Option<Call> {
        self.0.lock().pop_front()
    }
}

/// Nobody is woken by what `call` waits for at first: the task that it becomes polls it again at once.
fn run(mut call: Call) {
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
        let calls = Calls::default();
        let connection = http2::Builder::new(calls.clone())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .serve_connection(stream, self.service());
        let (mut connection, mut leaving) = (pin!(connection), pin!(goaway.cancelled().fuse()));
        poll_fn(|context| {
            if leaving.as_mut().poll(context).is_ready() {
                connection.as_mut().graceful_shutdown();
            }
            loop {
                let ended = connection.as_mut().poll(context);
                if !calls.run() || ended.is_ready() {
                    return ended;
                }
            }
        })
        .await?;
        Ok(())
    }

    fn service(
        self,
    ) -> impl Service<Request<Incoming>, Response = Response<Either<Reply, Body>>, Error = Infallible, Future: Send>
    {
        let Self { checks, others } = self;
        // Boxed, since hyper moves it half a dozen times; the check itself only when its turn has come, so that of all calls that
        // a connection has read one at a time is in the processor's cache.
        service_fn(move |request: Request<Incoming>| -> Answering {
            if Checks::are_asked_by(&request) {
                let checks = Arc::clone(&checks);
                return Box::pin(async move { Ok(Box::pin(checks.answer(request)).await.map(Either::Left)) });
            }
            let others = others.clone().oneshot(request);
            Box::pin(async move { others.await.map(|answer| answer.map(Either::Right)) })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_call_that_waits_goes_on_by_itself_and_a_panic_ends_nothing_else() {
        let calls = Calls::default();
        let (told, mut heard) = mpsc::channel(2);
        let (open, gate) = oneshot::channel::<()>();
        calls.execute(async { panic!("on purpose") });
        let waiting = told.clone();
        calls.execute(async move {
            let _ = gate.await;
            waiting.send("waited").await.unwrap();
        });
        calls.execute(async move { told.send("at once").await.unwrap() });
        assert!(calls.run());
        assert_eq!(heard.try_recv(), Ok("at once"));
        open.send(()).unwrap();
        assert_eq!(heard.recv().await, Some("waited"));
        assert!(!calls.run());
    }

    #[tokio::test]
    async fn after_so_many_calls_the_rest_are_tasks_and_all_are_answered() {
        let (calls, answered) = (Calls::default(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..1_000 {
            let answered = Arc::clone(&answered);
            calls.execute(async move {
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(calls.run());
        assert!(answered.load(Ordering::Relaxed) < 1_000);
        while answered.load(Ordering::Relaxed) < 1_000 {
            tokio::task::yield_now().await;
        }
    }
}
