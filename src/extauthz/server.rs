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
    worker::{Dealt, Door, Patience},
};
use crate::{domain::metric::Source, pipeline::Pipeline, tls::Tls, wire::AUTHZ_DESCRIPTORS};

const SERVICE: &str = "envoy.service.auth.v3.Authorization";
/// How often it is said that connections cannot be accepted, at most.
pub(super) const SAY_EVERY: Duration = Duration::from_secs(10);

/// Why the Check port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address} for Envoy: {source}")]
    Listen { address: String, source: io::Error },
    #[error("cannot start a thread for checks: {0}")]
    Thread(io::Error),
    #[error("the reflection service cannot be built: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Where Envoy asks.
#[derive(Clone, Debug)]
pub enum Place {
    Tcp(SocketAddr, Option<Arc<Tls>>),
    Unix(PathBuf),
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
    Tcp(TcpListener, Option<Arc<Tls>>),
    Unix(UnixListener, PathBuf),
}

impl Server {
    /// Binds the port or socket: whatever can fail, fails here.
    ///
    /// # Errors
    ///
    /// One clear line for a taken port.
    pub async fn bind(place: Place, settings: Settings, answer: AnswerSettings) -> Result<Self, Error> {
        let listener = match place {
            Place::Tcp(address, tls) => {
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
            let door = Door { checks: Arc::new(checks), others: others.clone(), patience: Patience::default() };
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
        // While it is ours: once nobody accepts there, the next process puts its own in its place.
        if let Some(path) = socket_file {
            let _ = std::fs::remove_file(path);
        }
        accepting.cancel();
        let _ = acceptor.await;
        join(threads, self.settings.drain_timeout.get()).await;
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
                Ok(Socket::Tcp(stream.into_std()?, tls.as_ref().map(|tls| tls.config())))
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
