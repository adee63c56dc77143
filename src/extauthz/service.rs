//! The Check call itself: bytes in, bytes out, no generated types between.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{AnswerSettings, Settings, response};
use crate::pipeline::{Outcome, Pipeline};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Largest CheckRequest that is looked at.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Longest DATA frame that h2 copies into its buffer, to send it together with others; a longer one costs a system call.
const LARGEST_BATCHED: usize = 1023;

/// Room for an allow with every header, the signed assertion among them.
const USUAL_ANSWER: usize = 2560;

/// gRPC status codes that this file answers by itself.
const UNIMPLEMENTED: &str = "12";
const RESOURCE_EXHAUSTED: &str = "8";
const INTERNAL: &str = "13";

/// Answers checks. One for the process.
#[derive(Debug)]
pub(super) struct Checks {
    pipeline: Arc<Pipeline>,
    settings: Settings,
    answer: AnswerSettings,
    in_flight: AtomicUsize,
}

impl Checks {
    pub(super) fn new(pipeline: Arc<Pipeline>, settings: Settings, answer: AnswerSettings) -> Self {
        Self { pipeline, settings, answer, in_flight: AtomicUsize::new(0) }
    }

    pub(super) fn are_asked_by<B>(request: &Request<B>) -> bool {
        request.uri().path() == CHECK
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        let asked = Instant::now();
        let deadline = asked + self.time_allowed(request.headers());
        let message = match read_message(request.into_body()).await {
            Ok(message) => message,
            Err(status) => return refuse(status),
        };
        let _place = Place::take(&self.in_flight);
        let overloaded = self.in_flight.load(Ordering::Relaxed) > self.settings.max_in_flight;

        let check = async {
            let outcome = if overloaded {
                Box::pin(self.pipeline.shed(&message)).await
            } else {
                self.pipeline.check(&message, asked, deadline).await
            };
            self.reply(outcome)
        };
        // A panic is a bug of ours; the caller is refused and the process lives.
        match AssertUnwindSafe(check).catch_unwind().await {
            Ok(reply) => reply,
            Err(_) => match AssertUnwindSafe(Box::pin(self.pipeline.panicked(&message))).catch_unwind().await {
                Ok(outcome) => self.reply(outcome),
                Err(_) => refuse(INTERNAL),
            },
        }
    }

    /// Writes the answer, then hands the outcome to the audit.
    fn reply(&self, outcome: Outcome) -> Response<Reply> {
        let mut message = BytesMut::with_capacity(USUAL_ANSWER);
        message.put_slice(&[0; 5]);
        response::write(&outcome, &self.answer, self.pipeline.authenticator.challenges(), &mut message);
        let length = (message.len() - 5) as u32;
        message[1..5].copy_from_slice(&length.to_be_bytes());
        self.pipeline.record(outcome);
        grpc(Reply { message: message.freeze(), ended: false })
    }

    /// The configured deadline, or what the caller says it will wait, less a margin for the way back.
    fn time_allowed(&self, headers: &HeaderMap) -> Duration {
        let own = self.settings.deadline.get();
        let caller = headers.get("grpc-timeout").and_then(|value| grpc_timeout(value.as_bytes()));
        caller.map_or(own, |caller| own.min(caller.mul_f64(0.8)))
    }
}

/// One of the checks under way.
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

/// The one message of a unary call, without its five octets of prefix; else the gRPC status to refuse with.
async fn read_message(mut body: Incoming) -> Result<Bytes, &'static str> {
    let mut collected = BytesMut::new();
    loop {
        let frame = match body.frame().await {
            None => return unframe(collected.freeze()),
            Some(Err(_)) => return Err(INTERNAL),
            Some(Ok(frame)) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if collected.is_empty() && body.is_end_stream() {
            return unframe(data);
        }
        if collected.len() + data.len() > MAX_MESSAGE + 5 {
            return Err(RESOURCE_EXHAUSTED);
        }
        collected.put(data);
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

fn refuse(status: &'static str) -> Response<Reply> {
    let mut response = grpc(Reply { message: Bytes::new(), ended: true });
    response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
    response
}

fn grpc(body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A message in frames that are sent in batches, and the trailers of success.
#[derive(Debug)]
pub(super) struct Reply {
    message: Bytes,
    ended: bool,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        if !self.message.is_empty() {
            let length = self.message.len().min(LARGEST_BATCHED);
            return Poll::Ready(Some(Ok(Frame::data(self.message.split_to(length)))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
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

    #[test]
    fn a_frame_that_lies_about_its_length_is_refused() {
        assert_eq!(unframe(Bytes::from_static(&[0, 0, 0, 0, 2, 7, 7])).unwrap(), &[7, 7][..]);
        assert_eq!(unframe(Bytes::from_static(&[0, 0, 0, 0, 3, 7, 7])), Err(INTERNAL));
        assert_eq!(unframe(Bytes::from_static(&[1, 0, 0, 0, 2, 7, 7])), Err(UNIMPLEMENTED));
        assert_eq!(unframe(Bytes::from_static(&[0, 0])), Err(INTERNAL));
    }
}
