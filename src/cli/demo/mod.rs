//! `countersign demo`: a real Envoy, a demo issuer, an upstream and Countersign on one machine, with lines to try.
//!
//! For trying and testing only: it mints tokens for whoever asks on loopback. It never touches what it did not start.

mod admin;
mod children;
mod echo;
mod issuer;
mod lines;
mod ports;
mod run;

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

pub(super) use self::{echo::Echo, issuer::DemoIssuer};
use crate::identity::mint::MintError;

/// Envoy, Countersign, an issuer and an upstream on this machine, with lines to paste. Ctrl-C stops all of it.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Folder of its configuration, rules, keys and logs.
    #[arg(long, default_value = ".demo")]
    dir: PathBuf,
    /// Folder with `envoy-1.40.0` and `grpcurl` (`tests/tools.sh` fetches them).
    #[arg(long, default_value = ".tools")]
    tools: PathBuf,
    /// Run the printed lines, compare what they answer, and stop.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    ports: ports::Ports,
}

impl Demo {
    pub(super) fn run(self) -> ExitCode {
        block_on(async {
            let mut children = children::Children::default();
            let done = tokio::select! {
                done = run::run(&self, &mut children) => done,
                stop = stop_signal() => stop,
            };
            announce("stopping");
            children.stop().await;
            done
        })
    }
}

/// Something that ends the command: one clear line.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("port {port} is taken ({source}): stop what listens there, or choose another by {option}")]
    Port { port: u16, option: &'static str, source: io::Error },
    #[error("{name} is missing ({path}): run `tests/tools.sh {name}`, which fetches it", path = path.display())]
    Tool { name: &'static str, path: PathBuf },
    #[error("cannot start {name}: {source}")]
    Start { name: &'static str, source: io::Error },
    #[error("{name} ended {how}: {last} (all of it: {log})", log = log.display())]
    Ended { name: &'static str, how: String, last: String, log: PathBuf },
    #[error("not ready after {0:?}: see the logs in the demo's folder")]
    NotReady(Duration),
    #[error("{wrong} of {all} lines did not answer as printed")]
    NotAsPrinted { wrong: usize, all: usize },
    #[error("cannot prepare the demo: {0}")]
    Prepare(String),
    #[error("no key for algorithm `{0}`")]
    NoSuchAlgorithm(String),
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the admin API: {}", _0.message())]
    Admin(#[from] Box<tonic::Status>),
    #[error(transparent)]
    Channel(#[from] tonic::transport::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A step of something that takes its time.
fn announce(step: &str) {
    println!("demo: {step}");
}

/// Runs `work` to its end; an error is one line on standard error and exit code 1.
fn block_on(work: impl Future<Output = Result<(), DemoError>>) -> ExitCode {
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(DemoError::from)
        .and_then(|runtime| runtime.block_on(work));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("countersign: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, DemoError> {
    TcpListener::bind(address).await.map_err(|source| DemoError::Listen { address, source })
}

/// Runs `server` until it fails, or Ctrl-C or SIGTERM comes: then all is well.
async fn until_signal(server: impl Future<Output = io::Result<()>>) -> Result<(), DemoError> {
    tokio::select! {
        served = server => Ok(served?),
        stop = stop_signal() => stop,
    }
}

async fn stop_signal() -> Result<(), DemoError> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}
