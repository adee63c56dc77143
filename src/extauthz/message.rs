//! The message of a Check call, as it comes off its stream: nearly always one frame, which is there together with its headers.
//!
//! For any other there is a limit in time, the deadline of its check, and one in memory, over all of the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt as _;
use h2::RecvStream;
use tokio::time::{Instant, timeout_at};

/// Largest CheckRequest that is looked at.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// How much more of a larger one is taken off the connection before it is answered: some clients read no answer before they have
/// said everything.
const MAX_DISCARDED: usize = 64 * 1024 * 1024;

/// Octets that messages of several frames may hold together until they are answered.
const MAX_HELD: usize = 64 * 1024 * 1024;

/// gRPC status codes of calls that are none.
const UNIMPLEMENTED: &str = "12";
pub(super) const INTERNAL: &str = "13";

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The call breaks gRPC: the status to refuse with.
    Broken(&'static str),
    /// It is larger than any that is looked at. It is answered: a gRPC error would be an allow where Envoy has
    /// `failure_mode_allow`.
    TooLarge,
    /// It was not there by the deadline.
    Late,
    /// There is no room for it just now.
    Crowded,
}

type Read = Result<Bytes, Unread>;

/// What one message takes of the room for all; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room<'a> {
    held: &'a AtomicUsize,
    octets: usize,
}

impl<'a> Room<'a> {
    /// `held`: what all messages take.
    pub(super) const fn of(held: &'a AtomicUsize) -> Self {
        Self { held, octets: 0 }
    }

    /// False where there is no room for so many more.
    fn take(&mut self, octets: usize) -> bool {
        self.octets += octets;
        self.held.fetch_add(octets, Ordering::Relaxed) + octets <= MAX_HELD
    }

    fn clear(&mut self) {
        if self.octets > 0 {
            self.held.fetch_sub(self.octets, Ordering::Relaxed);
            self.octets = 0;
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The one message of a unary call, without its five octets of prefix.
///
/// One of one frame keeps its part of the connection's window until the call is answered, which nearly always is at once, or
/// until [`release`].
pub(super) async fn read(body: &mut RecvStream, deadline: Instant, room: &mut Room<'_>) -> Read {
    match body.data().now_or_never() {
        Some(Some(Ok(data))) if body.is_end_stream() => unframe(data),
        first => Box::pin(collect(body, first, deadline, room)).await,
    }
}

type Frame = Option<Result<Bytes, h2::Error>>;

/// `first`: the first frame, where it is there already.
async fn collect(body: &mut RecvStream, mut first: Option<Frame>, deadline: Instant, room: &mut Room<'_>) -> Read {
    let mut collected = BytesMut::new();
    loop {
        let frame = match first.take() {
            Some(frame) => frame,
            None => timeout_at(deadline, body.data()).await.map_err(|_| Unread::Late)?,
        };
        let Some(data) = frame else { return unframe(collected.freeze()) };
        let data = data.map_err(|_| Unread::Broken(INTERNAL))?;
        if collected.is_empty() && body.is_end_stream() {
            return unframe(data);
        }
        body.flow_control().release_capacity(data.len()).map_err(|_| Unread::Broken(INTERNAL))?;
        let too_large = collected.len() + data.len() > MAX_MESSAGE + 5;
        if too_large || !room.take(data.len()) {
            drop((collected, data));
            room.clear();
            // Late or endless: answered all the same.
            let _ = timeout_at(deadline, discard(body)).await;
            return Err(if too_large { Unread::TooLarge } else { Unread::Crowded });
        }
        collected.put(data);
    }
}

/// Gives the connection back what a message that was read takes of its window, which is one for all of its calls: those that wait
/// would hold up those that need not. How many messages of one frame wait is limited by `check.max_in_flight`.
pub(super) fn release(body: &mut RecvStream) {
    let window = body.flow_control();
    // It fails where more is released than was received.
    let _ = window.release_capacity(window.used_capacity());
}

/// Reads a body to its end and keeps nothing of it.
async fn discard(body: &mut RecvStream) {
    let mut left = MAX_DISCARDED;
    while let Some(Ok(data)) = body.data().await {
        let Some(rest) = left.checked_sub(data.len()) else { return };
        left = rest;
        if body.flow_control().release_capacity(data.len()).is_err() {
            return;
        }
    }
}

fn unframe(mut framed: Bytes) -> Read {
    match framed.first_chunk::<5>() {
        Some([0, a, b, c, d]) if u32::from_be_bytes([*a, *b, *c, *d]) as usize == framed.len() - 5 => {
            Ok(framed.split_off(5))
        }
        Some([1, ..]) => Err(Unread::Broken(UNIMPLEMENTED)),
        _ => Err(Unread::Broken(INTERNAL)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Request, Response};

    use super::*;

    /// What is read of a call that sends so many octets of a message of `said`, and then ends or goes on for ever; the caller
    /// is answered whatever becomes of it.
    async fn read_of(said: usize, octets: usize, ends: bool, held: &AtomicUsize) -> Read {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let caller = tokio::spawn(async move {
            let (mut requests, connection) = h2::client::handshake(far).await.unwrap();
            let connection = tokio::spawn(connection);
            let (answer, mut stream) =
                requests.send_request(Request::post("http://localhost").body(()).unwrap(), false).unwrap();
            let length = u32::try_from(said).unwrap().to_be_bytes();
            let framed = [&[0], &length[..], &vec![7; octets]].concat();
            stream.send_data(framed.into(), ends).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
            connection.abort();
        });
        let mut connection = h2::server::handshake(near).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let serving = tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let mut room = Room::of(held);
        let mut body = request.into_body();
        let read = read(&mut body, Instant::now() + Duration::from_millis(500), &mut room).await;
        let octets = read.as_ref().map_or(0, Bytes::len);
        assert!(octets < 20_000 || held.load(Ordering::Relaxed) >= octets, "held while it is looked at");
        drop((room, body));
        respond.send_response(Response::new(()), true).unwrap();
        caller.await.unwrap();
        serving.abort();
        read
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_read_away_and_said_to_be() {
        let held = AtomicUsize::new(0);
        assert_eq!(read_of(MAX_MESSAGE, MAX_MESSAGE, true, &held).await.map(|read| read.len()), Ok(MAX_MESSAGE));
        for (octets, ends) in
            [(MAX_MESSAGE + 1, true), (9 << 20, true), (5 << 20, false), (MAX_DISCARDED + (6 << 20), true)]
        {
            let read = read_of(octets, octets, ends, &held).await;
            assert_eq!(read, Err(Unread::TooLarge), "{octets} octets");
        }
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_message_that_does_not_come_in_time_is_late() {
        let held = AtomicUsize::new(0);
        for octets in [0, 10, 1 << 20] {
            assert_eq!(read_of(2 << 20, octets, false, &held).await, Err(Unread::Late), "{octets} octets");
        }
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn messages_of_several_frames_share_their_room_and_one_of_one_frame_needs_none() {
        let held = AtomicUsize::new(MAX_HELD - (1 << 20));
        assert_eq!(read_of(2 << 20, 2 << 20, true, &held).await, Err(Unread::Crowded));
        assert_eq!(held.load(Ordering::Relaxed), MAX_HELD - (1 << 20), "it gives back what it took");
        assert_eq!(read_of(1 << 19, 1 << 19, true, &held).await.map(|read| read.len()), Ok(1 << 19));
        held.store(MAX_HELD, Ordering::Relaxed);
        assert_eq!(read_of(9_000, 9_000, true, &held).await.map(|read| read.len()), Ok(9_000));
    }

    #[test]
    fn a_frame_that_lies_about_its_length_is_refused() {
        let broken = |status| Err(Unread::Broken(status));
        assert_eq!(unframe(Bytes::from_static(&[0, 0, 0, 0, 2, 7, 7])).unwrap(), &[7, 7][..]);
        assert_eq!(unframe(Bytes::from_static(&[0, 0, 0, 0, 3, 7, 7])), broken(INTERNAL));
        assert_eq!(unframe(Bytes::from_static(&[1, 0, 0, 0, 2, 7, 7])), broken(UNIMPLEMENTED));
        assert_eq!(unframe(Bytes::from_static(&[0, 0])), broken(INTERNAL));
    }
}
