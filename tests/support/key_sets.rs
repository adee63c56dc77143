//! An issuer's key set over HTTP that keeps whoever asks again waiting, for checks that are under way as long as a test needs.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::{process::pause, tokens};

/// Serves the RSA key alone to the first who asks, and to all others, once they are let go, every key.
#[derive(Clone, Debug)]
pub struct KeySets {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
    let_go: Arc<AtomicBool>,
}

impl KeySets {
    /// Listens until the test process ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let sets = Self { address, asked: Arc::default(), let_go: Arc::default() };
        let serving = sets.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sets = serving.clone();
                std::thread::spawn(move || sets.answer(stream));
            }
        });
        sets
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    /// Whether somebody waits for the other keys.
    pub fn is_awaited(&self) -> bool {
        self.asked.load(Ordering::Acquire) > 1
    }

    pub fn let_go(&self) {
        self.let_go.store(true, Ordering::Release);
    }

    fn answer(&self, mut stream: TcpStream) {
        let _ = stream.read(&mut [0; 4096]);
        let first = self.asked.fetch_add(1, Ordering::AcqRel) == 0;
        while !first && !self.let_go.load(Ordering::Acquire) {
            pause(Duration::from_millis(10));
        }
        let mut body = tokens::key_set();
        if first {
            let rsa: Vec<Value> = body["keys"].as_array().into_iter().flatten().take(1).cloned().collect();
            body = json!({ "keys": rsa });
        }
        let body = body.to_string();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
        let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
}
