//! A stream whose peer has to take what is written to it.
//!
//! Whoever asks and does not read its answer would hold a connection without end: TCP waits for as long as somebody says that
//! there is no room yet, and the timer of a request's head does not run meanwhile.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A stream that breaks off where what was written has not left after so long, however steadily it trickles.
#[derive(Debug)]
pub(super) struct Taken<S> {
    stream: S,
    longest: Duration,
    /// Runs from when there is no room until all has left.
    late: Option<Pin<Box<Sleep>>>,
}

impl<S> Taken<S> {
    pub(super) const fn within(longest: Duration, stream: S) -> Self {
        Self { stream, longest, late: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, longest, late } = &mut *self;
        match Pin::new(stream).poll_write(cx, octets) {
            Poll::Pending => {
                let late = late.get_or_insert_with(|| Box::pin(sleep(*longest)));
                late.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            written => written,
        }
    }

    /// Asked for when the writer holds nothing any more.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.late = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LONGEST: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn an_answer_that_is_read_an_octet_now_and_then_is_late_and_each_has_a_time_of_its_own() {
        let (near, mut far) = duplex(4);
        let mut near = Taken::within(LONGEST, near);
        let mut told = Vec::new();
        for (octets, wait) in [(8, Duration::ZERO), (8, Duration::ZERO), (1000, LONGEST / 50)] {
            let written = async {
                near.write_all(&vec![0; octets]).await?;
                near.flush().await
            };
            let read = async {
                while far.read_u8().await.is_ok() {
                    sleep(wait).await;
                }
            };
            tokio::select! {
                written = written => told.push(written.map_err(|error| error.kind())),
                () = read => unreachable!(),
            }
            sleep(2 * LONGEST).await;
        }
        assert_eq!(told, [Ok(()), Ok(()), Err(io::ErrorKind::TimedOut)]);
    }
}
