//! A plain HTTP/1.1 client over TCP: headers go out as they are given, in order, doubled and misspelt ones too.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::{process::PATIENCE, record_reason, tls};

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Request {
    to: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    /// Over TLS; with a client certificate, where there is one.
    tls: Option<Option<tls::ClientIdentity>>,
    body: String,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn new(to: SocketAddr, method: &str, target: &str) -> Self {
        Self {
            to,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            tls: None,
            body: String::new(),
        }
    }

    /// Adds a header; the same name twice is sent twice.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// Sends it over TLS, to a listener of Envoy's that speaks it; `uri` stands in the client's certificate.
    pub fn tls(mut self, uri: Option<&str>) -> Self {
        self.tls = Some(uri.map(tls::ClientIdentity::named));
        self
    }

    /// As [`Request::tls`], with this very certificate.
    pub fn tls_as(mut self, identity: &tls::ClientIdentity) -> Self {
        self.tls = Some(Some(identity.clone()));
        self
    }

    /// Sets the body, with its type and length.
    pub fn body(mut self, kind: &str, body: impl Into<String>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Type", kind).header("Content-Length", length)
    }

    /// Sends it on a connection of its own and reads the answer to its end.
    pub fn send(&self) -> Response {
        self.try_send().unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target))
    }

    /// As [`Request::send`], where the connection may fail.
    pub fn try_send(&self) -> std::io::Result<Response> {
        self.try_send_after(|| ())
    }

    /// As [`Request::try_send`], with something that happens between TLS's handshake and the request.
    pub fn try_send_after(&self, meanwhile: impl FnOnce()) -> std::io::Result<Response> {
        let mut stream = TcpStream::connect_timeout(&self.to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = Vec::new();
        match &self.tls {
            None => {
                meanwhile();
                stream.write_all(self.text().as_bytes())?;
                stream.read_to_end(&mut answer)?;
            }
            Some(identity) => {
                let mut stream = tls::client(identity.as_ref(), stream);
                stream.conn.complete_io(&mut stream.sock)?;
                meanwhile();
                stream.write_all(self.text().as_bytes())?;
                // Envoy closes without a farewell; an answer cut short does not parse.
                let _ = stream.read_to_end(&mut answer);
            }
        }
        parse(&answer).ok_or_else(|| std::io::Error::other(format!("no HTTP: {}", answer.escape_ascii())))
    }

    fn text(&self) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: shop.example\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("Connection: close\r\n\r\n");
        text.push_str(&self.body);
        text
    }
}

/// Sends octets as they are, be they HTTP or not, and reads the answer to its end.
pub fn exchange(to: SocketAddr, octets: &[u8]) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(octets)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| std::io::Error::other(format!("no HTTP: {}", answer.escape_ascii())))
}

impl Response {
    /// The value of a header that is there exactly once; `None` where it is not.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "{name} is there {} times: {values:?}", values.len());
        values.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        named(&self.headers, name)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.body))
    }

    /// What the upstream received, when the request reached it.
    pub fn upstream(&self) -> Option<Upstream> {
        self.header("x-echo")?;
        let body = self.json();
        let headers = serde_json::from_value(body["headers"].clone()).expect("the echo lists pairs");
        Some(Upstream { headers })
    }

    /// The `reason` of a refusal.
    pub fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_default().to_owned()
    }
}

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub headers: Vec<(String, String)>,
}

impl Upstream {
    pub fn all(&self, name: &str) -> Vec<&str> {
        named(&self.headers, name)
    }

    /// The value of a header that must be there exactly once.
    pub fn header(&self, name: &str) -> &str {
        let values = self.all(name);
        assert_eq!(values.len(), 1, "{name} at the upstream: {values:?}");
        values[0]
    }
}

fn named<'h>(headers: &'h [(String, String)], name: &str) -> Vec<&'h str> {
    headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

fn parse(answer: &[u8]) -> Option<Response> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = named(&headers, "transfer-encoding").contains(&"chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    if !named(&headers, "x-zt-decision-id").is_empty()
        && let Ok(refusal) = serde_json::from_str::<serde_json::Value>(&body)
    {
        record_reason(refusal["reason"].as_str().unwrap_or_default());
    }
    Some(Response { status, headers, body })
}

fn unchunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = after.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        whole.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    whole
}
