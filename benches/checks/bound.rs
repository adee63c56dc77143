//! The bound: what a check costs when nothing is found out. An answer and an audit record of the same length as those of
//! everything unsigned, always the same ones: HTTP/2 by the library that Countersign has it from, batched as there, and a thread that
//! hashes the record and writes it to a file.
//!
//! What is between this and the aim is all that is left for reading a message, looking everything up, judging it, and writing
//! both texts. With the core's answer and no record it is *bare*: what the core's own HTTP/2 costs.

use std::{
    fs::File,
    future::poll_fn,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

use super::support::process::pause;

/// Longest DATA frame that leaves together with others.
const LARGEST_BATCHED: usize = 1023;

/// Records that are handed over at once.
const TOGETHER: usize = 16;

/// Octets that are written at once.
const BATCH: usize = 256 * 1024;

/// How often the file is forced to disk, and the memory of what was forced before given back (see
/// `src/telemetry/audit/sink.rs`).
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Serves until it is killed; writes records of `record` octets into `file`.
pub fn serve(address: SocketAddr, answer: usize, record: usize, file: &Path) -> io::Result<()> {
    let (records, taken) = mpsc::sync_channel(16_384);
    let file = File::create(file)?;
    std::thread::spawn(move || write(file, &taken, record));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        let together = Mutex::new(Vec::with_capacity(TOGETHER * record));
        let texts = Arc::new(Texts { answer: message(answer), record: vec![b'x'; record], together, records });
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            tokio::spawn(connection(Unvectored(socket), Arc::clone(&texts)));
        }
    })
}

struct Texts {
    answer: Bytes,
    record: Vec<u8>,
    together: Mutex<Vec<u8>>,
    records: mpsc::SyncSender<Vec<u8>>,
}

/// A gRPC message of so many octets, with the five before it, that allows: an empty status, and a field that nobody knows.
fn message(length: usize) -> Bytes {
    let filler = length.saturating_sub(5 + 2 + 3);
    let mut message = vec![0x0a, 0, 15 << 3 | 2, (filler & 0x7f) as u8 | 0x80, (filler >> 7) as u8];
    message.resize(5 + filler, b'x');
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

async fn connection(socket: Unvectored, texts: Arc<Texts>) {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(2048).initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let Ok(mut connection) = settings.handshake(socket).await else { return };
    let mut calls = Vec::new();
    // All that has been read is answered together, as in `src/extauthz/worker.rs`.
    poll_fn(|context| {
        loop {
            match connection.poll_accept(context) {
                Poll::Ready(Some(Ok(call))) => calls.push(call),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if calls.is_empty() => return Poll::Pending,
                Poll::Pending => calls.drain(..).for_each(|call| at_once(Box::pin(answer(call, Arc::clone(&texts))))),
            }
        }
    })
    .await;
}

fn at_once(mut answer: Pin<Box<impl Future<Output = ()> + Send + 'static>>) {
    if answer.as_mut().now_or_never().is_none() {
        tokio::spawn(answer);
    }
}

async fn answer((request, mut respond): (Request<RecvStream>, SendResponse<Bytes>), texts: Arc<Texts>) {
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        std::hint::black_box(&data);
    }
    let mut response = Response::new(());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let mut message = texts.answer.clone();
    while !message.is_empty() {
        let _ = stream.send_data(message.split_to(message.len().min(LARGEST_BATCHED)), false);
    }
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = stream.send_trailers(trailers);
    texts.record();
}

impl Texts {
    /// Hands over sixteen records at a time.
    fn record(&self) {
        if self.record.is_empty() {
            return;
        }
        let mut together = self.together.lock();
        together.extend_from_slice(&self.record);
        if together.len() >= TOGETHER * self.record.len() {
            let room = together.capacity();
            let _ = self.records.try_send(std::mem::replace(&mut *together, Vec::with_capacity(room)));
        }
    }
}

fn write(mut file: File, records: &mpsc::Receiver<Vec<u8>>, record: usize) {
    let mut pending: Vec<u8> = Vec::with_capacity(2 * BATCH);
    let (mut synced, mut length, mut on_disk) = (Instant::now(), 0, 0);
    loop {
        while let Ok(together) = records.try_recv() {
            for record in together.chunks(record) {
                pending.extend_from_slice(digest(&SHA256, record).as_ref());
                pending.extend_from_slice(record);
            }
            if pending.len() >= BATCH {
                break;
            }
        }
        let full = pending.len() >= BATCH;
        file.write_all(&pending).expect("the folder is writable");
        length += pending.len() as u64;
        pending.clear();
        if length > on_disk && synced.elapsed() >= SYNC_EVERY {
            file.sync_data().expect("the folder is on a disk");
            #[cfg(target_os = "linux")]
            let _ = rustix::fs::fadvise(&file, 0, std::num::NonZeroU64::new(on_disk), rustix::fs::Advice::DontNeed);
            (synced, on_disk) = (Instant::now(), length);
        }
        if !full {
            pause(Duration::from_millis(5));
        }
    }
}

/// A socket that says that it writes no vectors, so that h2 batches frames (see `src/extauthz/connection.rs`).
struct Unvectored(TcpStream);

impl AsyncRead for Unvectored {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unvectored {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
