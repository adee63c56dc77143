//! The client's half of HTTP/2, as much of it as calling one gRPC method over and over takes.
//!
//! Written on raw frames so that the load generator costs little beside the servers it shares the machine with. Header
//! blocks come from a fixed table (nothing is decoded); a reply is judged by its message alone.

use std::{collections::HashMap, io, net::SocketAddr, time::Instant};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Octets of answers that we let the server send before we say "more".
const WINDOW: u32 = 1 << 30;
/// Longest DATA frame that a server must accept unasked.
const MAX_FRAME: usize = 16_384;

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Denied,
    /// No message: a gRPC error, a reset.
    Failed,
}

/// One answer and when its question was asked.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub verdict: Verdict,
    /// Of its message, with the five octets before it.
    pub octets: usize,
    pub asked: Instant,
}

/// A connection to an ext_authz server.
pub struct Connection {
    socket: TcpStream,
    out: Vec<u8>,
    input: BytesMut,
    next_stream: u32,
    /// Octets that we may still send.
    window: i64,
    /// Octets received since the last WINDOW_UPDATE of ours.
    received: u32,
    open: HashMap<u32, Open, foldhash::fast::RandomState>,
    answers: Vec<Answer>,
}

struct Open {
    asked: Instant,
    octets: usize,
    message: Vec<u8>,
    verdict: Verdict,
}

impl Connection {
    pub async fn open(to: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(to).await?;
        socket.set_nodelay(true)?;
        let mut out = PREFACE.to_vec();
        frame(&mut out, SETTINGS, 0, 0, &[]);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        Ok(Self {
            socket,
            out,
            input: BytesMut::with_capacity(1 << 16),
            next_stream: 1,
            window: 65_535,
            received: 0,
            open: HashMap::default(),
            answers: Vec::new(),
        })
    }

    /// Questions without an answer.
    pub fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Whether the server lets us send a message of this size now.
    pub fn has_room(&self, message: usize) -> bool {
        self.window > message as i64 + 5
    }

    /// Queues a call of `Check`; [`exchange`](Self::exchange) sends it. Its latency counts from `asked`.
    pub fn ask(&mut self, message: &[u8], asked: Instant) {
        let stream = self.next_stream;
        let block: &[u8] = if stream == 1 { &first_headers() } else { &LATER_HEADERS };
        frame(&mut self.out, HEADERS, END_HEADERS, stream, block);
        let mut body = Vec::with_capacity(message.len() + 5);
        body.push(0);
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
        let last = (body.len() - 1) / MAX_FRAME;
        for (i, part) in body.chunks(MAX_FRAME).enumerate() {
            frame(&mut self.out, DATA, if i == last { END_STREAM } else { 0 }, stream, part);
        }
        self.window -= body.len() as i64;
        self.open.insert(stream, Open { asked, octets: 0, message: Vec::new(), verdict: Verdict::Failed });
        self.next_stream += 2;
    }

    /// Sends what is queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.socket.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Reads once, and hands out the answers that have come.
    pub async fn receive(&mut self) -> io::Result<Vec<Answer>> {
        if self.socket.read_buf(&mut self.input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some(head) = self.input.first_chunk::<9>() {
            let [a, b, c, kind, flags, s0, s1, s2, s3] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if self.input.len() < 9 + length {
                break;
            }
            self.input.advance(9);
            let payload = self.input.split_to(length);
            self.take(kind, flags, u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]), &payload)?;
        }
        Ok(std::mem::take(&mut self.answers))
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        match kind {
            DATA => {
                self.received += payload.len() as u32;
                if self.received > WINDOW / 2 {
                    frame(&mut self.out, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
                    self.received = 0;
                }
                if let Some(open) = self.open.get_mut(&stream) {
                    open.add(payload);
                }
            }
            SETTINGS if flags & ACK == 0 => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.first_chunk().map_or(0, |more| u32::from_be_bytes(*more));
                self.window += i64::from(more);
            }
            GOAWAY => return Err(io::Error::other("the server says GOAWAY")),
            _ => {}
        }
        let ended = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 || kind == RESET;
        if ended && let Some(open) = self.open.remove(&stream) {
            self.answers.push(Answer { verdict: open.verdict, octets: open.octets, asked: open.asked });
        }
        Ok(())
    }
}

impl Open {
    fn add(&mut self, payload: &[u8]) {
        self.octets += payload.len();
        // One frame holds the message, nearly always.
        if self.message.is_empty()
            && let Some(message) = whole(payload)
        {
            self.verdict = verdict(message);
            return;
        }
        self.message.extend_from_slice(payload);
        if let Some(message) = whole(&self.message) {
            self.verdict = verdict(message);
        }
    }
}

/// The message of a gRPC body, once all of it is there.
fn whole(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    (message.len() == length).then_some(message)
}

/// What a CheckResponse says: a `status` whose code is not 0, or a `denied_response`, is a refusal.
fn verdict(mut message: &[u8]) -> Verdict {
    while let Some((&tag, rest)) = message.split_first() {
        let Some((content, after)) = delimited(rest) else { return Verdict::Failed };
        match tag {
            0x0a if content.len() >= 2 && content[0] == 0x08 && content[1] != 0 => return Verdict::Denied,
            0x12 => return Verdict::Denied,
            _ => message = after,
        }
    }
    Verdict::Allowed
}

fn delimited(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|octet| octet & 0x80 == 0)? + 1;
    let length = bytes[..end].iter().rev().fold(0_usize, |sum, octet| sum << 7 | usize::from(octet & 0x7f));
    bytes[end..].split_at_checked(length)
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// HPACK: the first call puts path, authority, content type and `te` into the dynamic table, as Envoy does.
fn first_headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    literal(&[0x44], "/envoy.service.auth.v3.Authorization/Check");
    literal(&[0x41], "countersign");
    literal(&[0x5f], "application/grpc");
    literal(&[0x40, 2, b't', b'e'], "trailers");
    block
}

/// `POST`, `http`, and what [`first_headers`] left in the table.
const LATER_HEADERS: [u8; 6] = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];
