//! A network in the way: passes octets on between a client and a server, as late as the test says.
#![allow(dead_code, unreachable_pub, reason = "each program uses its part")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Stands between a replica and its Redis, and passes each octet on after a delay.
#[derive(Debug, Default)]
pub struct Proxy {
    /// Milliseconds.
    delay: AtomicU64,
    taken: AtomicUsize,
    deaf: AtomicBool,
    /// How many of the connections taken are cut.
    cut: AtomicUsize,
}

/// How a push of Redis begins that tells of changed keys.
const INVALIDATION: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

impl Proxy {
    pub async fn start(to: u16) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (proxy, address) = (Arc::new(Self::default()), listener.local_addr().unwrap());
        let shared = Arc::clone(&proxy);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = shared.taken.fetch_add(1, Ordering::Relaxed);
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let (near_reads, near_writes) = near.into_split();
                let (far_reads, far_writes) = far.into_split();
                tokio::spawn(Arc::clone(&shared).pass(number, near_reads, far_writes));
                tokio::spawn(Arc::clone(&shared).pass(number, far_reads, near_writes));
            }
        });
        (proxy, address)
    }

    pub fn delay(&self, by: Duration) {
        self.delay.store(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// From here on nothing is passed on for the connections that there are.
    pub fn cut(&self) {
        self.cut.store(self.taken(), Ordering::Relaxed);
    }

    /// Whether what Redis tells of changes is left out.
    pub fn deafen(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::Relaxed);
    }

    /// Connections taken so far.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    async fn pass(self: Arc<Self>, number: usize, mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf) {
        let (queue, mut waiting) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        tokio::spawn(async move {
            while let Some((due, octets)) = waiting.recv().await {
                // A timer has ticks of a millisecond: what is due already does not wait for one.
                if due > Instant::now() {
                    sleep_until(due).await;
                }
                if to.write_all(&octets).await.is_err() {
                    return;
                }
            }
        });
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if number < self.cut.load(Ordering::Relaxed) {
                // Open on both sides, and nobody is told.
                std::future::pending::<()>().await;
            }
            let due = Instant::now() + Duration::from_millis(self.delay.load(Ordering::Relaxed));
            let mut octets = buffer[..read].to_vec();
            if self.deaf.load(Ordering::Relaxed) {
                leave_out_invalidations(&mut octets);
            }
            if queue.send((due, octets)).is_err() {
                return;
            }
        }
    }
}

/// Each is followed by an array of keys: a line with their number, and two lines for each.
fn leave_out_invalidations(octets: &mut Vec<u8>) {
    while let Some(start) = octets.windows(INVALIDATION.len()).position(|some| some == INVALIDATION) {
        let mut lines = octets[start + INVALIDATION.len()..].split_inclusive(|octet| *octet == b'\n');
        let head = lines.next().unwrap_or_default();
        let keys: usize = std::str::from_utf8(head).unwrap().trim().trim_start_matches('*').parse().unwrap();
        let length = head.len() + lines.take(2 * keys).map(<[u8]>::len).sum::<usize>();
        octets.drain(start..start + INVALIDATION.len() + length);
    }
}
