//! An accepted connection as h2 is handed it: TCP, TLS or a Unix socket, under one type.
//!
//! It leaves `is_write_vectored` at `false` on purpose: for a socket that writes vectors, h2 sends every frame of 256
//! octets or more with a write of its own; otherwise it batches those below 1,024, which spares most system calls under load.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A socket as the acceptor deals it out, not yet bound to a runtime.
pub(super) enum Socket {
    Tcp(std::net::TcpStream, Option<Arc<ServerConfig>>),
    Unix(std::os::unix::net::UnixStream),
}

/// A connection that is ready for HTTP/2.
pub(super) enum Connection {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Socket {
    /// Registers the socket with the runtime this is called on, and shakes hands, for so long at most, where TLS is wanted.
    pub(super) async fn connect(self, longest: Duration) -> io::Result<Connection> {
        Ok(match self {
            Self::Tcp(socket, None) => Connection::Tcp(TcpStream::from_std(socket)?),
            Self::Tcp(socket, Some(tls)) => {
                let handshake = TlsAcceptor::from(tls).accept(TcpStream::from_std(socket)?);
                Connection::Tls(Box::new(tokio::time::timeout(longest, handshake).await??))
            }
            Self::Unix(socket) => Connection::Unix(UnixStream::from_std(socket)?),
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
