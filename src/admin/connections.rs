//! Connections to the admin API: so many at a time, and none that says nothing. They share descriptors with Envoy's.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, future, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::tls::Tls;

/// Octets by which HTTP/2 is told from anything else.
const PREFACE: usize = 24;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections that may be open at a time.
    pub(super) places: usize,
    /// Time until a client has begun to speak: the first octets in full, and the TLS handshake.
    pub(super) greeting: Duration,
    /// Longest time without a word after that. A client that is there answers pings, which come more often.
    pub(super) silence: Duration,
}

impl Limits {
    pub(super) const USUAL: Self =
        Self { places: 128, greeting: Duration::from_secs(10), silence: Duration::from_secs(60) };
}

/// What `listener` accepts, within `limits`. Never ends, and never fails.
pub(super) fn accepted(listener: TcpListener, limits: Limits) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(limits.places));
    stream::unfold((listener, places), move |(listener, places)| async move {
        let connection = next(&listener, &places, limits).await;
        Some((Ok(connection), (listener, places)))
    })
}

/// Those of `connections` that speak TLS with us. One that is slow to shake hands holds up none behind it.
pub(super) fn encrypted(
    connections: impl Stream<Item = io::Result<Connection>>,
    tls: Arc<Tls>,
    limits: Limits,
) -> impl Stream<Item = io::Result<TlsStream<Connection>>> {
    let shaken = connections.map(move |connection| {
        let acceptor = TlsAcceptor::from(tls.config());
        async move { tokio::time::timeout(limits.greeting, acceptor.accept(connection?)).await? }
    });
    shaken.buffer_unordered(limits.places).filter(|shaken| future::ready(shaken.is_ok()))
}

async fn next(listener: &TcpListener, places: &Arc<Semaphore>, limits: Limits) -> Connection {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or gone before it was taken: both pass.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Full: the newcomer is turned away at once rather than left to wait behind silent ones.
        let Ok(place) = Arc::clone(places).try_acquire_owned() else { continue };
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
        return Connection {
            stream,
            heard: 0,
            silence: limits.silence,
            patience: Box::pin(sleep(limits.greeting)),
            _place: place,
        };
    }
}

/// A connection that fails when nothing is heard for too long.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Octets, as far as that matters.
    heard: usize,
    silence: Duration,
    patience: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn hear(&mut self, octets: usize) {
        self.heard = self.heard.saturating_add(octets);
        if self.heard >= PREFACE {
            self.patience.as_mut().reset(Instant::now() + self.silence);
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match &polled {
            Poll::Ready(Ok(())) => self.hear(buffer.filled().len() - before),
            Poll::Ready(Err(_)) => {}
            Poll::Pending if self.patience.as_mut().poll(cx).is_ready() => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, octets)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMITS: Limits = Limits { places: 1, greeting: Duration::from_millis(50), silence: Duration::from_secs(60) };

    async fn pair(limits: Limits) -> (Pin<Box<impl Stream<Item = io::Result<Connection>>>>, TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepted = Box::pin(accepted(listener, limits));
        let (client, connection) = tokio::join!(TcpStream::connect(address), accepted.next());
        (accepted, client.unwrap(), connection.unwrap().unwrap())
    }

    #[tokio::test]
    async fn a_client_that_does_not_begin_is_let_go_of_and_its_place_is_free() {
        let (mut accepted, mut client, mut connection) = pair(LIMITS).await;
        client.write_all(b"PRI * HTTP").await.unwrap();
        let mut octets = Vec::new();
        let error = connection.read_to_end(&mut octets).await.unwrap_err();
        assert_eq!((error.kind(), octets.len()), (io::ErrorKind::TimedOut, 10));
        let address = connection.stream.local_addr().unwrap();
        // The place is taken still.
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut octet = [0; 1];
        let turned_away = tokio::select! {
            read = second.read(&mut octet) => read,
            _ = accepted.next() => panic!("there was no place"),
        };
        assert!(turned_away.map_or(true, |octets| octets == 0));
        drop(connection);
        let (_third, connection) = tokio::join!(TcpStream::connect(address), accepted.next());
        assert!(connection.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_client_that_began_may_pause_and_not_forever() {
        let limits = Limits { silence: Duration::from_millis(300), ..LIMITS };
        let (_accepted, mut client, mut connection) = pair(limits).await;
        let began = Instant::now();
        client.write_all(&[b'x'; PREFACE]).await.unwrap();
        let error = connection.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= limits.silence);
    }
}
