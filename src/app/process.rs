//! What is settled with the operating system: how many files may be open, and which signals end the process.

use std::{io, process, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Raises the number of files that may be open to the most that is allowed: each connection is one, and the usual limit of
/// 1024 is meant for programs that use `select`.
pub(super) fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// From here on SIGHUP does not end the process, whoever listens to it: tokio never gives a signal back. One that comes before
/// files are watched needs no answer, since the first look at them is yet to come.
pub(super) fn outlive_hangup(runtime: &Runtime) -> io::Result<()> {
    let _inside = runtime.enter();
    signal(SignalKind::hangup()).map(drop)
}

/// The first SIGTERM or SIGINT stops, a second one ends the process at once.
///
/// On a thread of its own: when the second one matters, runtimes may have ended and everything else may wait for somebody
/// who reads our output.
pub(super) fn stop_on_signal(stop: CancellationToken) {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Err(error) = runtime.and_then(|runtime| runtime.block_on(listen(&stop))) {
            tracing::error!(%error, "signals cannot be listened to: stop this process with SIGKILL");
        }
    };
    if let Err(error) = thread::Builder::new().name("signals".into()).spawn(work) {
        tracing::error!(%error, "signals cannot be listened to: stop this process with SIGKILL");
    }
}

async fn listen(stop: &CancellationToken) -> io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    either(&mut term, &mut int).await;
    stop.cancel();
    either(&mut term, &mut int).await;
    // Nothing is said: standard error may be what does not move.
    process::exit(1)
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_are_allowed() {
        let before = getrlimit(Resource::Nofile);
        let fewer = before.maximum.map_or(65_536, |most| most - 1);
        setrlimit(Resource::Nofile, Rlimit { current: Some(fewer), ..before }).unwrap();
        allow_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
