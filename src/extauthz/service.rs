//! The Check call itself: bytes in, bytes out, no generated types between.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use tokio::time::Instant;

use super::{
    AnswerSettings, Settings,
    message::{self, Room, Unread},
    others::unless_reset,
    response,
};
use crate::{
    domain::Unavailable,
    pipeline::{Outcome, Pipeline},
};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The answer where even a refusal ends in a panic: UNAVAILABLE, 503, and nothing that could fail. A gRPC error instead would be
/// an allow where Envoy has `failure_mode_allow`.
const LAST_RESORT: &[u8] = &[0, 0, 0, 0, 11, 0x0a, 2, 0x08, 14, 0x12, 5, 0x0a, 3, 0x08, 0xf7, 0x03];

/// Longest DATA frame that h2 copies into its buffer, to send it together with others; a longer one costs a system call.
const LARGEST_BATCHED: usize = 1023;

/// Room for an answer: from one without the optional headers to an allow with every header, the signed assertion among them.
/// Up to 1,024 octets mimalloc has at hand, and other powers of two after a short search.
const SMALLEST_USUAL: usize = 1024;
const LARGEST_USUAL: usize = 4096;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Answers checks. One for each worker, so that no two of them write to one line of the cache.
#[derive(Debug)]
pub(super) struct Checks {
    pipeline: Arc<Pipeline>,
    settings: Settings,
    answer: AnswerSettings,
    /// Checks of all workers that wait for something; one that does not wait is over before anybody could count it.
    waiting: Arc<AtomicUsize>,
    /// Octets of messages that all workers hold; see [`Room`].
    held: Arc<AtomicUsize>,
    /// Octets that an answer takes here, as far as there has been one: at most [`LARGEST_USUAL`].
    usual: AtomicUsize,
}

impl Checks {
    pub(super) fn new(
        pipeline: Arc<Pipeline>,
        settings: Settings,
        answer: AnswerSettings,
        (waiting, held): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    ) -> Self {
        Self { pipeline, settings, answer, waiting, held, usual: AtomicUsize::new(SMALLEST_USUAL) }
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
        // Envoy's span of this question, which it tells as any client does: beside the message.
        let traced = self.pipeline.tracer.is_on();
        let parent = if traced { request.headers().get(TRACEPARENT).cloned() } else { None };
        let mut room = Room::of(&self.held);
        let mut body = request.into_body();
        let message = match message::read(&mut body, deadline, &mut room).await {
            Ok(message) => Some(message),
            Err(Unread::TooLarge) => None,
            Err(Unread::Broken(status)) => return Err(status),
            Err(Unread::Late) => return Ok(self.refuse(Unavailable::Timeout)),
            Err(Unread::Crowded) => return Ok(self.refuse(Unavailable::Overloaded)),
        };
        let overloaded = self.waiting.load(Ordering::Relaxed) >= self.settings.max_in_flight;

        let check = pin!(async {
            let outcome = match &message {
                None => Box::pin(self.pipeline.too_large()).await,
                Some(message) if overloaded => Box::pin(self.pipeline.shed(message)).await,
                Some(message) => {
                    self.pipeline.check(message, parent.as_ref().map(HeaderValue::as_bytes), asked, deadline).await
                }
            };
            self.conclude(outcome)
        });
        // A panic is a bug of ours; the caller is refused and the process lives.
        let checked = self.counted(AssertUnwindSafe(check).catch_unwind(), &mut body).await;
        Ok(checked.unwrap_or_else(|_| self.refuse(Unavailable::Internal)))
    }

    /// Answers what was not checked, or could not be.
    fn refuse(&self, why: Unavailable) -> Bytes {
        whatever_happens(|| self.conclude(self.pipeline.refuse(why)))
    }

    /// Counts a check among those that wait, from when it first has to, and holds up none that come after it on its connection.
    fn counted<T>(&self, mut check: impl Future<Output = T> + Unpin, body: &mut RecvStream) -> impl Future<Output = T> {
        let mut place = None;
        poll_fn(move |context| {
            let polled = check.poll_unpin(context);
            if polled.is_pending() && place.is_none() {
                place = Some(Place::take(&self.waiting));
                message::release(body);
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

/// A refusal that nothing can make a gRPC error.
fn whatever_happens(refuse: impl FnOnce() -> Bytes) -> Bytes {
    catch_unwind(AssertUnwindSafe(refuse)).unwrap_or_else(|_| Bytes::from_static(LAST_RESORT))
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
pub(super) mod tests;
