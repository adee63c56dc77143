//! Looks at files when they change: at a notice, at SIGHUP, and every 30 s anyway.
//!
//! What is found is taken once it is at rest: found the same twice, half a second apart. Half a file may well be one that can be
//! used, and what it does not say yet is what refuses somebody.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

/// A change is looked at when nothing has changed for this long, so that several files are looked at together.
const QUIET: Duration = Duration::from_millis(200);

/// Some changes come without a notice (network file systems): looked at in this interval anyway.
const ANYWAY: Duration = Duration::from_secs(30);

/// Between two looks at what is not at rest.
const REST: Duration = Duration::from_millis(500);

/// What changes at every look is taken at this one, so that it is not put off for ever.
const MOST_LOOKS: u32 = 60;

/// Who looks: reads, and takes what was read.
struct Looker<S, R, T> {
    read: R,
    take: T,
    found: Option<S>,
}

impl<S: PartialEq, R: FnMut() -> S, T: FnMut(&S, bool)> Looker<S, R, T> {
    /// Takes what the look before found as well, or, at the `last`, whatever is there. Says whether it did.
    fn look(&mut self, asked: bool, last: bool) -> bool {
        let found = (self.read)();
        let at_rest = self.found.as_ref() == Some(&found);
        if at_rest || last {
            (self.take)(&found, asked);
        }
        self.found = Some(found);
        at_rest || last
    }
}

/// Calls `read` now, when something under `paths` has changed, on SIGHUP, and every 30 s anyway; and `take` with what was read
/// once it is at rest, and with whether SIGHUP asked for it. Both may block.
pub async fn whenever<S: PartialEq + Send + 'static>(
    paths: Vec<PathBuf>,
    read: impl FnMut() -> S + Send + 'static,
    take: impl FnMut(&S, bool) + Send + 'static,
    stop: CancellationToken,
) {
    let (notices, mut changed) = mpsc::channel(1);
    let mut watcher = start_watcher(&paths, notices);
    let mut hangup = signal(SignalKind::hangup()).ok();
    // The first at once: for what has changed since the start read it.
    let mut anyway = interval(ANYWAY);
    anyway.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looker = Looker { read, take, found: None };
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = changed.recv() => false,
            () = hung_up(&mut hangup) => true,
            _ = anyway.tick() => false,
        };
        // Until it is quiet, or for a second at the most.
        let until = Instant::now() + 5 * QUIET;
        while Instant::now() < until && tokio::time::timeout(QUIET, changed.recv()).await.is_ok_and(|got| got.is_some())
        {
        }
        for look in 1..=MOST_LOOKS {
            if stop.is_cancelled() {
                return;
            }
            let looked = tokio::task::spawn_blocking(move || (looker.look(asked, look == MOST_LOOKS), looker)).await;
            let taken = match looked {
                Ok((taken, back)) => {
                    looker = back;
                    taken
                }
                Err(error) => {
                    tracing::error!(%error, ?paths, "reloading failed: these are no longer watched, restart to change them");
                    return;
                }
            };
            if taken {
                break;
            }
            let _ = stop.run_until_cancelled(sleep(REST)).await;
        }
        // A replaced folder is a new folder: what was watched may be gone.
        if let Some(watcher) = &mut watcher {
            watch_all(watcher, &paths);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn hung_up(signal: &mut Option<Signal>) {
    let heard = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if heard.is_none() {
        std::future::pending::<()>().await;
    }
}

fn start_watcher(paths: &[PathBuf], notices: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let notify = move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // Full: a notice is waiting already.
            let _ = notices.try_send(());
        }
    };
    match notify::recommended_watcher(notify) {
        Ok(mut watcher) => {
            watch_all(&mut watcher, paths);
            Some(watcher)
        }
        Err(error) => {
            tracing::warn!(%error, "files cannot be watched: they are looked at every {} s", ANYWAY.as_secs());
            None
        }
    }
}

/// The folder of a file is watched, not the file: editors and ConfigMaps replace it.
fn watch_all(watcher: &mut RecommendedWatcher, paths: &[PathBuf]) {
    for path in paths {
        let (folder, mode) = if path.is_dir() {
            (path.as_path(), RecursiveMode::Recursive)
        } else {
            (
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")),
                RecursiveMode::NonRecursive,
            )
        };
        if let Err(error) = watcher.watch(folder, mode) {
            tracing::debug!(folder = %folder.display(), %error, "not watched");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which of the looks that find `found`, one after another, something is taken, and what.
    fn taken(found: &[&'static str]) -> Vec<(u32, &'static str)> {
        let (mut rest, mut taken) = (found.iter(), Vec::new());
        let mut looker =
            Looker { read: || *rest.next().unwrap(), take: |found: &&'static str, _| taken.push(*found), found: None };
        let looks = 1..=u32::try_from(found.len()).unwrap();
        let at: Vec<u32> = looks.filter(|look| looker.look(false, *look == MOST_LOOKS)).collect();
        at.into_iter().zip(taken).collect()
    }

    #[test]
    fn what_is_being_written_is_not_taken_whoever_gave_notice() {
        assert_eq!(taken(&["old", "old", "half", "whole", "whole"]), [(2, "old"), (5, "whole")]);
        assert!(taken(&["a", "b", "a", "b"]).is_empty());
    }

    #[test]
    fn what_is_never_at_rest_is_taken_in_the_end() {
        let looks: Vec<&str> = (0..MOST_LOOKS).map(|look| if look % 2 == 0 { "even" } else { "odd" }).collect();
        assert_eq!(taken(&looks), [(MOST_LOOKS, "odd")]);
    }
}
