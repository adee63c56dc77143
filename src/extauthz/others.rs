//! Calls that are none of ours: health and reflection, answered by tonic's services over the same connections.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::Request;
use http_body::{Body as _, Frame};
use tonic::{body::Body, service::Routes};
use tower::ServiceExt as _;

/// Octets of the headers of one call, as HTTP/2 counts them. They are held while it waits for its message, and it may wait for
/// ever; and unlike those of a Check, they hold nothing of a client of Envoy's.
const MAX_HEADERS: usize = 32 * 1024;

/// Answers one call. What fails here is a connection or a stream that ended: nobody is left to tell.
pub(super) async fn answer(routes: Routes, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    if octets(&request) > MAX_HEADERS {
        let mut refusal = http::Response::new(());
        *refusal.status_mut() = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let _ = respond.send_response(refusal, true);
        return;
    }
    let request = request.map(|body| Body::new(Received(body)));
    let answer = pin!(routes.oneshot(request));
    let Some(Ok(response)) = unless_reset(&mut respond, answer).await else { return };
    let (head, body) = response.into_parts();
    let ended = body.is_end_stream();
    if let Ok(stream) = respond.send_response(http::Response::from_parts(head, ()), ended)
        && !ended
    {
        // `None` is a stream that the other side has given up.
        let _ = send(body, stream).await;
    }
}

fn octets<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let authority = request.uri().authority().map_or(0, |authority| authority.as_str().len());
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    target + authority + headers.sum::<usize>()
}

/// `None`: the caller has given up the call, and what would have answered it is dropped.
pub(super) async fn unless_reset<T>(
    respond: &mut SendResponse<Bytes>,
    mut answer: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|context| {
        if respond.poll_reset(context).is_ready() {
            return Poll::Ready(None);
        }
        answer.as_mut().poll(context).map(Some)
    })
    .await
}

/// Sends a body as fast as the other side makes room for it.
async fn send(body: Body, mut stream: SendStream<Bytes>) -> Option<()> {
    let mut body = pin!(body);
    while let Some(frame) = next(&mut body, &mut stream).await? {
        match frame.into_data() {
            Ok(mut data) => {
                while !data.is_empty() {
                    stream.reserve_capacity(data.len());
                    let room = poll_fn(|context| stream.poll_capacity(context)).await?.ok()?;
                    stream.send_data(data.split_to(room.min(data.len())), false).ok()?;
                }
            }
            Err(frame) => return stream.send_trailers(frame.into_trailers().ok()?).ok(),
        }
    }
    stream.send_data(Bytes::new(), true).ok()
}

/// The next frame; `Some(None)` at the end, `None` where the stream or the body broke.
async fn next(body: &mut Pin<&mut Body>, stream: &mut SendStream<Bytes>) -> Option<Option<Frame<Bytes>>> {
    poll_fn(|context| {
        if stream.poll_reset(context).is_ready() {
            return Poll::Ready(None);
        }
        body.as_mut().poll_frame(context).map(Option::transpose).map(Result::ok)
    })
    .await
}

/// What a caller sends, as tonic reads it.
struct Received(RecvStream);

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let stream = &mut self.0;
        if let Some(data) = ready!(stream.poll_data(context)) {
            let read = data.and_then(|data| stream.flow_control().release_capacity(data.len()).map(|()| data));
            return Poll::Ready(Some(read.map(Frame::data)));
        }
        let trailers = ready!(stream.poll_trailers(context));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
