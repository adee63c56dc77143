//! Listening, dealing connections to one current-thread runtime per core, and draining.
//!
//! `SO_REUSEPORT` would spread by hash, and Envoy opens one connection per worker: most runs end up on one core.
//! One acceptor that deals in turn does not.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
    thread,
    time::{Duration, Instant},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    AnswerSettings, Settings,
    connection::Socket,
    places::Places,
    service::Checks,
    worker::{Dealt, Door},
};
use crate::{domain::metric::Source, pipeline::Pipeline, wire::AUTHZ_DESCRIPTORS};

const SERVICE: &str = "envoy.service.auth.v3.Authorization";
/// How often it is said that connections cannot be accepted, at most.
pub(super) const SAY_EVERY: Duration = Duration::from_secs(10);

/// Why the Check port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address} for Envoy: {source}")]
    Listen { address: String, source: io::Error },
    #[error("cannot read {} for the Check port's TLS: {detail}", .path.display())]
    Certificate { path: PathBuf, detail: String },
    #[error("the Check port's TLS settings do not fit together: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the certificate authority for clients cannot be used: {0}")]
    ClientAuthority(#[from] rustls::server::VerifierBuilderError),
    #[error("cannot start a thread for checks: {0}")]
    Thread(io::Error),
    #[error("the reflection service cannot be built: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Where Envoy asks.
#[derive(Clone, Debug)]
pub enum Place {
    Tcp(SocketAddr, Option<Tls>),
    Unix(PathBuf),
}

/// PEM files of the Check port. With `client_ca`, an Envoy without a certificate of one of those is refused.
#[derive(Clone, Debug)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

/// What is wrong with the files of a port's TLS, and with which, where it is one alone.
#[derive(Debug)]
pub struct TlsProblem {
    pub file: Option<PathBuf>,
    pub why: String,
}

impl Tls {
    /// Reads the files and tries whether they fit, without a port. Needs the process' cryptography to be installed.
    ///
    /// # Errors
    ///
    /// What [`Server::bind`] would refuse.
    pub fn check(&self) -> Result<(), TlsProblem> {
        server_config(self).map(drop).map_err(|error| match error {
            Error::Certificate { path, detail } => {
                TlsProblem { why: format!("`{}` cannot be used: {detail}", path.display()), file: Some(path) }
            }
            Error::Tls(error) => TlsProblem { file: None, why: format!("the files do not fit together: {error}") },
            error => TlsProblem { file: None, why: error.to_string() },
        })
    }
}

/// The Check port, bound and not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    settings: Settings,
    answer: AnswerSettings,
    places: Arc<Places>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener, Option<Arc<ServerConfig>>),
    Unix(UnixListener, PathBuf),
}

impl Server {
    /// Binds the port or socket and reads the certificates: whatever can fail, fails here.
    ///
    /// # Errors
    ///
    /// One clear line for a taken port, an unreadable certificate, a key that does not fit.
    pub async fn bind(place: Place, settings: Settings, answer: AnswerSettings) -> Result<Self, Error> {
        let listener = match place {
            Place::Tcp(address, tls) => {
                let tls = tls.as_ref().map(server_config).transpose()?.map(Arc::new);
                let listening = TcpListener::bind(address).await;
                Listener::Tcp(listening.map_err(|source| Error::Listen { address: address.to_string(), source })?, tls)
            }
            Place::Unix(path) => Listener::Unix(bind_unix(&path)?, path),
        };
        let places = Places::new(settings.max_connections);
        Ok(Self { listener, settings, answer, places })
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<dyn Source> {
        Arc::clone(&self.places) as Arc<dyn Source>
    }

    /// The TCP port that was bound, also where 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener, _) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// Serves until `stop`, then drains: health NOT_SERVING, a wait, GOAWAY, and time to finish. Checks are answered from the
    /// start, and health says SERVING from when `ready` resolves.
    ///
    /// # Errors
    ///
    /// Where threads or the reflection service cannot be made; nothing is served then.
    pub async fn serve(
        self,
        pipeline: Arc<Pipeline>,
        ready: impl Future<Output = ()>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let (health, health_service) = tonic_health::server::health_reporter();
        say(&health, ServingStatus::NotServing).await;
        let goaway = CancellationToken::new();
        let workers = self.workers();
        let counts = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let others = Routes::new(health_service)
            .add_service(reflection()?.build_v1()?)
            .add_service(reflection()?.build_v1alpha()?)
            .prepare();

        let mut inboxes = Vec::with_capacity(workers);
        let mut threads = Vec::with_capacity(workers);
        for index in 0..workers {
            let (inbox, sockets) = mpsc::channel(64);
            let checks = Checks::new(Arc::clone(&pipeline), self.settings.clone(), self.answer.clone(), counts.clone());
            let door = Door { checks: Arc::new(checks), others: others.clone() };
            threads.push(door.open(index, sockets, goaway.clone()).map_err(Error::Thread)?);
            inboxes.push(inbox);
        }

        let accepting = CancellationToken::new();
        let socket_file = match &self.listener {
            Listener::Unix(_, path) => Some(path.clone()),
            Listener::Tcp(..) => None,
        };
        let acceptor = tokio::spawn(accept(self.listener, self.places, inboxes, accepting.clone()));
        if stop.run_until_cancelled(ready).await.is_some() {
            say(&health, ServingStatus::Serving).await;
            stop.cancelled().await;
        }
        drain(&health, &self.settings, &goaway).await;
        accepting.cancel();
        let _ = acceptor.await;
        join(threads, self.settings.drain_timeout.get()).await;
        if let Some(path) = socket_file {
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    fn workers(&self) -> usize {
        match self.settings.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}

fn reflection() -> Result<tonic_reflection::server::Builder<'static>, Error> {
    Ok(tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(AUTHZ_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
}

/// Accepts until cancelled, and deals what it accepts to the workers in turn. An accept error ends nothing.
async fn accept(listener: Listener, places: Arc<Places>, inboxes: Vec<mpsc::Sender<Dealt>>, stop: CancellationToken) {
    let (mut said_full, mut said_failed) = (None, None);
    for inbox in inboxes.iter().cycle() {
        let next = async {
            let permit = places.reserve(&mut said_full).await?;
            Some((listener.next(&mut said_failed).await, places.take(permit)))
        };
        let Some(Some(dealt)) = stop.run_until_cancelled(next).await else { return };
        if inbox.send(dealt).await.is_err() {
            tracing::error!("a worker of the Check port is gone");
            return;
        }
    }
}

impl Listener {
    /// The next connection. `said`: when a failure was last spoken of.
    async fn next(&self, said: &mut Option<Instant>) -> Socket {
        loop {
            match self.accept().await {
                Ok(socket) => return socket,
                // Out of descriptors, or a peer that hung up already: both pass.
                Err(error) => {
                    if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                        tracing::warn!(%error, "accepting a connection to the Check port failed");
                        *said = Some(Instant::now());
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener, tls) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream.into_std()?, tls.clone()))
            }
            Self::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

/// Says so of the Check and, under the empty name, of the whole.
async fn say(health: &HealthReporter, status: ServingStatus) {
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE, status).await;
}

async fn drain(health: &HealthReporter, settings: &Settings, goaway: &CancellationToken) {
    say(health, ServingStatus::NotServing).await;
    tracing::info!(delay = %settings.drain_delay, "draining: health says NOT_SERVING");
    tokio::time::sleep(settings.drain_delay.get()).await;
    goaway.cancel();
}

/// Waits for the workers, as long as they may take.
async fn join(threads: Vec<thread::JoinHandle<()>>, limit: Duration) {
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    if tokio::time::timeout(limit, joined).await.is_err() {
        tracing::warn!(limit = ?limit, "checks were still under way when draining had to end");
    }
}

fn bind_unix(path: &PathBuf) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { address: path.display().to_string(), source };
    // A socket that a killed process left behind is in nobody's use unless somebody answers on it.
    let is_socket = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(failed)?;
    }
    UnixListener::bind(path).map_err(failed)
}

fn server_config(settings: &Tls) -> Result<ServerConfig, Error> {
    let chain = certificates(&settings.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key)
        .map_err(|error| Error::Certificate { path: settings.key.clone(), detail: error.to_string() })?;
    let builder = ServerConfig::builder();
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = |detail: String| Error::Certificate { path: path.clone(), detail };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(error.to_string()))?;
    if found.is_empty() { Err(unreadable("it holds no certificate".into())) } else { Ok(found) }
}
