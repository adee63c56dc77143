//! A receiver of pushed security events (RFC 8935) that answers as a test tells it to and remembers what it was given.

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// One push and what was answered to it.
#[derive(Clone, Debug)]
pub struct Push {
    pub head: String,
    pub token: String,
    pub answered: u16,
}

impl Push {
    /// The claims, whoever signed them.
    pub fn claims(&self) -> Value {
        part(&self.token, 1)
    }

    /// The claims, signed with RS256 by a key of this set, in a token of the type that security events have.
    pub fn verified(&self, keys: &Value) -> Value {
        let header = part(&self.token, 0);
        assert_eq!((&header["alg"], &header["typ"]), (&"RS256".into(), &"secevent+jwt".into()), "{header}");
        let keys = keys["keys"].as_array().expect("a key set");
        let key = keys.iter().find(|key| key["kid"] == header["kid"]).expect("the key is published");
        let number = |name: &str| decode(key[name].as_str().expect("a number"));
        let public = RsaPublicKeyComponents { n: number("n"), e: number("e") };
        let (input, signature) = self.token.rsplit_once('.').expect("three parts");
        let verified = public.verify(&RSA_PKCS1_2048_8192_SHA256, input.as_bytes(), &decode(signature));
        verified.expect("the signature is that key's");
        self.claims()
    }

    pub fn jti(&self) -> String {
        self.claims()["jti"].as_str().expect("a jti").to_owned()
    }
}

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("three parts");
    serde_json::from_slice(&decode(part)).expect("JSON")
}

/// Listens until the test process ends.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    pushes: Arc<Mutex<Vec<Push>>>,
    answers: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
}

impl Receiver {
    /// Answers with these first, status and body; then always with 202.
    pub fn start(address: SocketAddr, answers: &[(u16, &'static str)]) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let receiver = Self::default();
        receiver.answers.lock().expect("no panic").extend(answers);
        let serving = receiver.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(connection));
            }
        });
        receiver
    }

    /// What came so far, in order.
    pub fn pushes(&self) -> Vec<Push> {
        self.pushes.lock().expect("no panic").clone()
    }

    /// Those that it took.
    pub fn accepted(&self) -> Vec<Push> {
        self.pushes().into_iter().filter(|push| push.answered == 202).collect()
    }

    /// One request after the other, until the client is gone.
    fn serve(&self, mut connection: TcpStream) -> std::io::Result<()> {
        loop {
            let (mut head, mut octet) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                connection.read_exact(&mut octet)?;
                head.push(octet[0]);
            }
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let mut body = vec![0; length.and_then(|length| length.trim().parse().ok()).unwrap_or_default()];
            connection.read_exact(&mut body)?;
            let (status, text) = self.answers.lock().expect("no panic").pop_front().unwrap_or((202, ""));
            let token = String::from_utf8_lossy(&body).into_owned();
            self.pushes.lock().expect("no panic").push(Push { head, token, answered: status });
            write!(connection, "HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
        }
    }
}
