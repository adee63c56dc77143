//! The Check call itself: bytes in, bytes out, no generated types between.

use std::{
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use tokio::time::{Instant, timeout_at};

use super::{AnswerSettings, Settings, others::unless_reset, response};
use crate::pipeline::{Outcome, Pipeline};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Largest CheckRequest that is looked at.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// How much more of a larger one is taken off the connection before it is answered: some clients read no answer before they have
/// said everything.
const MAX_DISCARDED: usize = 64 * 1024 * 1024;

/// In place of a larger one: no CheckRequest, hence the answer to a malformed request. A gRPC error instead would be an allow
/// where Envoy has `failure_mode_allow`.
const UNREADABLE: &[u8] = &[0xff];

/// Longest DATA frame that h2 copies into its buffer, to send it together with others; a longer one costs a system call.
const LARGEST_BATCHED: usize = 1023;

/// Room for an answer: from one without the optional headers to an allow with every header, the signed assertion among them.
/// Up to 1,024 octets mimalloc has at hand, and other powers of two after a short search.
const SMALLEST_USUAL: usize = 1024;
const LARGEST_USUAL: usize = 4096;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// gRPC status codes that this file answers by itself.
const UNIMPLEMENTED: &str = "12";
const INTERNAL: &str = "13";

/// Answers checks. One for each worker, so that no two of them write to one line of the cache.
#[derive(Debug)]
pub(super) struct Checks {
    pipeline: Arc<Pipeline>,
    settings: Settings,
    answer: AnswerSettings,
    /// Checks of all workers that wait for something; one that does not wait is over before anybody could count it.
    waiting: Arc<AtomicUsize>,
    /// Octets that an answer takes here, as far as there has been one: at most [`LARGEST_USUAL`].
    usual: AtomicUsize,
}

impl Checks {
    pub(super) fn new(
        pipeline: Arc<Pipeline>,
        settings: Settings,
        answer: AnswerSettings,
        waiting: Arc<AtomicUsize>,
    ) -> Self {
        Self { pipeline, settings, answer, waiting, usual: AtomicUsize::new(SMALLEST_USUAL) }
    }

    pub(super) fn are_asked_by<B>(request: &Request<B>) -> bool {
        request.uri().path() == CHECK
    }

    /// Answers one call. A call that the caller has given up is dropped, wherever it stands.
    pub(super) async fn answer(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let answer = pin!(self.judge(request));
        let Some(answer) = unless_reset(&mut respond, answer).await else { return };
        // It fails where the connection or the stream has ended: nobody is left to tell.
        let _ = send(answer, &mut respond);
    }

    /// The message of the answer, with its five octets of prefix; else the gRPC status to refuse with.
    async fn judge(&self, request: Request<RecvStream>) -> Result<Bytes, &'static str> {
        let asked = Instant::now();
        let deadline = asked + self.time_allowed(request.headers());
        let message = read_message(request.into_body(), deadline).await?;
        let overloaded = self.waiting.load(Ordering::Relaxed) >= self.settings.max_in_flight;

        let check = pin!(async {
            let outcome = if overloaded {
                Box::pin(self.pipeline.shed(&message)).await
            } else {
                self.pipeline.check(&message, asked, deadline).await
            };
            self.conclude(outcome)
        });
        // A panic is a bug of ours; the caller is refused and the process lives.
        match self.counted(AssertUnwindSafe(check).catch_unwind()).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                let refused = AssertUnwindSafe(Box::pin(self.pipeline.panicked(&message))).catch_unwind().await;
                refused.map(|outcome| self.conclude(outcome)).map_err(|_| INTERNAL)
            }
        }
    }

    /// Counts a check among those that wait, from when it first has to.
    fn counted<T>(&self, mut check: impl Future<Output = T> + Unpin) -> impl Future<Output = T> {
        let mut place = None;
        poll_fn(move |context| {
            let polled = check.poll_unpin(context);
            if polled.is_pending() {
                place.get_or_insert_with(|| Place::take(&self.waiting));
            }
            polled
        })
    }

    /// The time for what no answer should wait for.
    pub(super) fn answers_have_left(&self) {
        self.pipeline.auditor.format();
    }

    /// Writes the answer, then hands the outcome to the audit.
    fn conclude(&self, outcome: Outcome) -> Bytes {
        let usual = self.usual.load(Ordering::Relaxed);
        let mut message = Vec::with_capacity(usual);
        message.extend_from_slice(&[0; 5]);
        response::write(&outcome, &self.answer, self.pipeline.authenticator.challenges(), &mut message);
        let length = (message.len() - 5) as u32;
        message[1..5].copy_from_slice(&length.to_be_bytes());
        if message.len() > usual {
            self.usual.store(message.len().next_power_of_two().min(LARGEST_USUAL), Ordering::Relaxed);
        }
        self.pipeline.record(outcome);
        message.into()
    }

    /// The configured deadline, or what the caller says it will wait, less a margin for the way back.
    fn time_allowed(&self, headers: &HeaderMap) -> Duration {
        let own = self.settings.deadline.get();
        let caller = headers.get(TIMEOUT).and_then(|value| grpc_timeout(value.as_bytes()));
        caller.map_or(own, |caller| own.min(caller.mul_f64(0.8)))
    }
}

/// One of the checks that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The one message of a unary call, without its five octets of prefix; else the gRPC status to refuse with. [`UNREADABLE`] where
/// it is too large.
async fn read_message(mut body: RecvStream, deadline: Instant) -> Result<Bytes, &'static str> {
    let mut collected = BytesMut::new();
    loop {
        let Some(data) = body.data().await else { return unframe(collected.freeze()) };
        let data = data.map_err(|_| INTERNAL)?;
        // What a stream has received and not released is released with it.
        if collected.is_empty() && body.is_end_stream() {
            return unframe(data);
        }
        body.flow_control().release_capacity(data.len()).map_err(|_| INTERNAL)?;
        if collected.len() + data.len() > MAX_MESSAGE + 5 {
            drop((collected, data));
            // Late or endless: answered all the same.
            let _ = Box::pin(timeout_at(deadline, discard(body))).await;
            return Ok(Bytes::from_static(UNREADABLE));
        }
        collected.put(data);
    }
}

/// Reads a body to its end and keeps nothing of it.
async fn discard(mut body: RecvStream) {
    let mut left = MAX_DISCARDED;
    while let Some(Ok(data)) = body.data().await {
        let Some(rest) = left.checked_sub(data.len()) else { return };
        left = rest;
        if body.flow_control().release_capacity(data.len()).is_err() {
            return;
        }
    }
}

fn unframe(mut framed: Bytes) -> Result<Bytes, &'static str> {
    match framed.first_chunk::<5>() {
        Some([0, a, b, c, d]) if u32::from_be_bytes([*a, *b, *c, *d]) as usize == framed.len() - 5 => {
            Ok(framed.split_off(5))
        }
        Some([1, ..]) => Err(UNIMPLEMENTED),
        _ => Err(INTERNAL),
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Sends a message in frames that leave in batches, and the trailers of success; or a status alone.
fn send(answer: Result<Bytes, &'static str>, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut message = match answer {
        Ok(message) => message,
        Err(status) => {
            response.headers_mut().insert(STATUS, HeaderValue::from_static(status));
            return respond.send_response(response, true).map(drop);
        }
    };
    let mut stream = respond.send_response(response, false)?;
    while !message.is_empty() {
        stream.send_data(message.split_to(message.len().min(LARGEST_BATCHED)), false)?;
    }
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_in_every_unit() {
        assert_eq!(grpc_timeout(b"200m"), Some(Duration::from_millis(200)));
        assert_eq!(grpc_timeout(b"1S"), Some(Duration::from_secs(1)));
        assert_eq!(grpc_timeout(b"99999999u"), Some(Duration::from_micros(99_999_999)));
        for broken in [&b""[..], b"m", b"123456789m", b"12x", b"-1m"] {
            assert_eq!(grpc_timeout(broken), None);
        }
    }

    /// What is read of a call that sends so many octets, and then ends or goes on for ever; and what the caller is answered.
    async fn read_of(octets: usize, ends: bool) -> Result<Bytes, &'static str> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let caller = tokio::spawn(async move {
            let (mut requests, connection) = h2::client::handshake(far).await.unwrap();
            let connection = tokio::spawn(connection);
            let (answer, mut stream) =
                requests.send_request(Request::post("http://localhost").body(()).unwrap(), false).unwrap();
            let length = u32::try_from(octets).unwrap().to_be_bytes();
            let framed = [&[0], &length[..], &vec![7; octets]].concat();
            stream.send_data(framed.into(), ends).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
            connection.abort();
        });
        let mut connection = h2::server::handshake(near).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let serving = tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let read = read_message(request.into_body(), Instant::now() + Duration::from_millis(500)).await;
        send(Ok(Bytes::from_static(b"answer")), &mut respond).unwrap();
        caller.await.unwrap();
        serving.abort();
        read
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_read_away_and_answered_as_malformed() {
        assert_eq!(read_of(MAX_MESSAGE, true).await.map(|read| read.len()), Ok(MAX_MESSAGE));
        for (octets, ends) in
            [(MAX_MESSAGE + 1, true), (9 << 20, true), (5 << 20, false), (MAX_DISCARDED + (6 << 20), true)]
        {
            assert_eq!(read_of(octets, ends).await, Ok(Bytes::from_static(UNREADABLE)), "{octets} octets");
        }
    }

    #[test]
    fn a_frame_that_lies_about_its_length_is_refused() {
        assert_eq!(unframe(Bytes::from_static(&[0, 0, 0, 0, 2, 7, 7])).unwrap(), &[7, 7][..]);
        assert_eq!(unframe(Bytes::from_static(&[0, 0, 0, 0, 3, 7, 7])), Err(INTERNAL));
        assert_eq!(unframe(Bytes::from_static(&[1, 0, 0, 0, 2, 7, 7])), Err(UNIMPLEMENTED));
        assert_eq!(unframe(Bytes::from_static(&[0, 0])), Err(INTERNAL));
    }
}
