//! The programs that the demo starts: each with a log of its own, each ended by its id, none left behind.

use std::{
    fs::File,
    future::poll_fn,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    task::Poll,
    time::Duration,
};

use tokio::process::{Child, Command};

use super::DemoError;

/// How long a program may take to end by itself once it was asked to.
const GRACE: Duration = Duration::from_secs(8);

/// The programs that run, in the order in which they were started.
#[derive(Debug, Default)]
pub(super) struct Children(Vec<Running>);

#[derive(Debug)]
struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Children {
    /// Starts a program with its output in `<folder>/<name>.log`.
    pub(super) fn start(&mut self, folder: &Path, name: &'static str, command: &mut Command) -> Result<(), DemoError> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| DemoError::Start { name, source })?;
        self.0.push(Running { name, child, log });
        Ok(())
    }

    /// Waits until one of them ends, which none should: says which, how, and its last words.
    pub(super) async fn first_end(&mut self) -> DemoError {
        let (number, status) = poll_fn(|context| {
            for (number, running) in self.0.iter_mut().enumerate() {
                // Polled afresh each time: what `wait` keeps, it keeps in the child.
                let wait = std::pin::pin!(running.child.wait());
                if let Poll::Ready(status) = wait.poll(context) {
                    return Poll::Ready((number, status));
                }
            }
            Poll::Pending
        })
        .await;
        self.0[number].ended(status.ok())
    }

    /// Ends all of them, the last started first: asked, then waited for, then killed.
    pub(super) async fn stop(mut self) {
        for running in self.0.iter_mut().rev() {
            let Some(id) = running.child.id() else { continue };
            // The shell's own `kill`: a child of tokio can only be killed outright.
            let asked = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await;
            let ended = asked.is_ok() && tokio::time::timeout(GRACE, running.child.wait()).await.is_ok();
            if !ended {
                // It is gone, or it ends by this.
                let _ = running.child.kill().await;
            }
        }
    }
}

impl Running {
    fn ended(&self, status: Option<ExitStatus>) -> DemoError {
        let how = status.map_or_else(|| "in an unknown way".to_owned(), |status| format!("with {status}"));
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no last words").to_owned();
        DemoError::Ended { name: self.name, how, last, log: self.log.clone() }
    }
}
