//! Documents fetched over HTTP: key sets, discovery, status lists, and what signals ask of transmitters. Bounded in size and
//! time, never redirected.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use url::{Url, form_urlencoded::byte_serialize};

use crate::stamp::Stamp;

/// Largest document that is read.
pub const MAX_BODY: usize = 1024 * 1024;

/// Why a document could not be had. Worded for a log line.
#[derive(Debug, thiserror::Error)]
pub enum FetchProblem {
    #[error("no HTTP client: {0}")]
    Client(String),
    #[error("{0}")]
    Transport(String),
    #[error("answered {0}")]
    Status(u16),
    #[error("is larger than 1 MiB")]
    TooLarge,
    #[error("`{}` cannot be read: {source}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("discovery names issuer `{0}`, not this one")]
    OtherIssuer(String),
    #[error("discovery document has no usable `jwks_uri`")]
    NoKeySet,
    #[error(transparent)]
    KeySet(#[from] super::key_set::KeySetProblem),
}

/// A document and for how long its server says it may be kept.
#[derive(Debug)]
pub(super) struct Fetched {
    pub body: Vec<u8>,
    pub max_age: Option<Duration>,
}

/// An HTTP client made at first use: a machine without system certificates still starts on key files. What was missing then
/// is looked for again at the next, and made anew when `ca_file` is another.
#[derive(Debug)]
pub struct Fetcher {
    made: ArcSwapOption<Made>,
    timeout: Duration,
    ca_file: Option<PathBuf>,
}

impl Fetcher {
    /// `timeout` bounds a whole exchange; `ca_file` (PEM) is trusted besides the system's certificates.
    pub fn new(timeout: Duration, ca_file: Option<PathBuf>) -> Self {
        Self { made: ArcSwapOption::empty(), timeout, ca_file }
    }

    /// A GET.
    pub(super) async fn get(&self, url: &Url, accept: &str) -> Result<Fetched, FetchProblem> {
        let request = self.client()?.get(url.clone()).header("accept", accept);
        read(request).await
    }

    /// A POST of a form with basic authentication as OAuth clients do it: id and secret encoded as in a form (RFC 6749
    /// section 2.3.1), for introspection.
    pub(super) async fn post_form(
        &self,
        url: &Url,
        user: &str,
        password: &str,
        form: &[(&str, &str)],
    ) -> Result<Fetched, FetchProblem> {
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let request = self.client()?.post(url.clone()).basic_auth(encoded(user), Some(encoded(password))).form(form);
        read(request.header("accept", "application/json")).await
    }

    /// Sends `request` and reads the answer, whatever its status.
    ///
    /// # Errors
    ///
    /// No answer, or one over the limit.
    pub async fn send(&self, request: Outgoing<'_>) -> Result<Answer, FetchProblem> {
        let client = self.client()?;
        let mut builder = client.request(request.method, request.url.clone());
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        if let Some(patience) = request.timeout {
            builder = builder.timeout(patience);
        }
        let mut response = builder.body(request.body).send().await.map_err(transport)?;
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let status = response.status().as_u16();
        Ok(Answer { status, retry_after, body: bounded(&mut response, request.room).await? })
    }

    fn client(&self) -> Result<reqwest::Client, FetchProblem> {
        let (made, stamp) = (self.made.load(), self.ca_file.as_ref().and_then(|path| Stamp::of(path).ok()));
        if let Some(made) = made.as_ref().filter(|made| made.stamp == stamp) {
            return Ok(made.client.clone());
        }
        match (build(self.timeout, self.ca_file.as_ref()), made.as_ref()) {
            (Ok(client), _) => Ok(self.keep(client, stamp)),
            (Err(problem), Some(made)) => {
                tracing::error!("certificates cannot be used, the last good ones go on: {problem}");
                Ok(self.keep(made.client.clone(), stamp))
            }
            (Err(problem), None) => Err(FetchProblem::Client(problem)),
        }
    }

    fn keep(&self, client: reqwest::Client, stamp: Option<Stamp>) -> reqwest::Client {
        self.made.store(Some(Arc::new(Made { client: client.clone(), stamp })));
        client
    }
}

/// A client, and the file that it was made with.
#[derive(Debug)]
struct Made {
    client: reqwest::Client,
    stamp: Option<Stamp>,
}

fn build(timeout: Duration, ca_file: Option<&PathBuf>) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(timeout)
        .user_agent("countersign");
    if let Some(path) = ca_file {
        let pem = fs::read(path).map_err(|e| format!("`{}`: {e}", path.display()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| chain(&e))?;
        if certificates.is_empty() {
            return Err(format!("`{}` holds no certificate in PEM", path.display()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|e| chain(&e))
}

/// A request to somebody else's API.
#[derive(Debug)]
pub struct Outgoing<'a> {
    pub method: http::Method,
    pub url: &'a Url,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: Vec<u8>,
    /// Where it is not that of the client.
    pub timeout: Option<Duration>,
    /// Largest answer, in octets.
    pub room: usize,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

fn transport(error: reqwest::Error) -> FetchProblem {
    FetchProblem::Transport(chain(&error.without_url()))
}

async fn read(request: reqwest::RequestBuilder) -> Result<Fetched, FetchProblem> {
    let mut response = request.send().await.map_err(transport)?;
    if response.status() != http::StatusCode::OK {
        return Err(FetchProblem::Status(response.status().as_u16()));
    }
    let max_age = response.headers().get("cache-control").and_then(|value| value.to_str().ok()).and_then(max_age);
    let body = bounded(&mut response, MAX_BODY).await?;
    Ok(Fetched { body, max_age })
}

/// The body, as long as it stays under the limit.
async fn bounded(response: &mut reqwest::Response, room: usize) -> Result<Vec<u8>, FetchProblem> {
    if response.content_length().is_some_and(|length| length > room as u64) {
        return Err(FetchProblem::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > room {
            return Err(FetchProblem::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `max-age` of a `Cache-Control`; nothing may be kept under `no-store` and `no-cache`.
fn max_age(header: &str) -> Option<Duration> {
    let mut age = None;
    for directive in header.split(',').map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if let Some((name, value)) = directive.split_once('=')
            && name.trim().eq_ignore_ascii_case("max-age")
        {
            age = value.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    age
}

/// An error with its causes: `reqwest` alone says only "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// A file of at most 1 MiB.
pub(super) async fn read_file(path: &std::path::Path) -> Result<Vec<u8>, FetchProblem> {
    let failed = |source| FetchProblem::File { path: path.to_owned(), source };
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > MAX_BODY as u64 {
        return Err(FetchProblem::TooLarge);
    }
    tokio::fs::read(path).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn provider() {
        // A second installation in one process changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }

    /// A server with a certificate that it made itself, written to `path`; its address.
    async fn server(path: &Path) -> Url {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path, cert.pem()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![cert.der().clone()], key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut socket) = acceptor.accept(socket).await else { continue };
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
                let _ = socket.shutdown().await;
            }
        });
        url.parse().unwrap()
    }

    #[tokio::test]
    async fn an_authority_that_is_another_is_trusted_at_the_next_question_and_a_broken_file_takes_none_away() {
        provider();
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ca.pem"), folder.path().join("theirs.pem"));
        let old = server(&ours).await;
        let fetcher = Fetcher::new(Duration::from_secs(10), Some(ours.clone()));
        let fetched = async |url: &Url| fetcher.get(url, "*/*").await.is_ok();
        assert!(fetched(&old).await);
        let new = server(&theirs).await;
        assert!(!fetched(&new).await);
        let both = [fs::read(&ours).unwrap(), fs::read(&theirs).unwrap()].concat();
        fs::write(&ours, both).unwrap();
        assert!(fetched(&new).await && fetched(&old).await);
        fs::write(&ours, "half a certi").unwrap();
        assert!(fetched(&new).await && fetched(&new).await);
    }

    #[test]
    fn a_bundle_that_comes_later_is_found_and_one_without_certificates_is_refused() {
        provider();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let fetcher = Fetcher::new(Duration::from_secs(1), Some(path.clone()));
        assert!(fetcher.client().is_err(), "not there");
        fs::write(&path, "nothing\n").unwrap();
        let empty = fetcher.client().unwrap_err().to_string();
        assert!(empty.contains("holds no certificate"), "{empty}");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["ca.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(&path, certificate.pem()).unwrap();
        fetcher.client().unwrap();
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named() {
        let said = read_file(Path::new("nowhere/keys.json")).await.unwrap_err().to_string();
        assert!(said.starts_with("`nowhere/keys.json` cannot be read: "), "{said}");
    }

    #[test]
    fn cache_control_says_for_how_long() {
        let seconds = |header| max_age(header).map(|age| age.as_secs());
        assert_eq!(seconds("public, max-age=300, must-revalidate"), Some(300));
        assert_eq!(seconds("Max-Age=\"60\""), Some(60));
        assert_eq!(seconds("no-store, max-age=300"), Some(0));
        assert_eq!(seconds("public"), None);
        assert_eq!(seconds("max-age=soon"), None);
    }
}
