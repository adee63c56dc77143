//! A program that a test started: its output goes to a file, it is ended by its id when the guard is dropped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long anything may take to start, to stop or to become true. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running program and the files its output goes to.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `<folder>/<name>.out` and `.err`.
    pub fn start(folder: &Path, name: &str, command: &mut Command) -> Self {
        let (stdout, stderr) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let open = |path: &Path| File::options().create(true).append(true).open(path).expect("the folder is writable");
        let child = command
            .stdin(Stdio::null())
            .stdout(open(&stdout))
            .stderr(open(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { child, name: name.to_owned(), stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote so far, standard output first.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout(), self.stderr())
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// Sends a signal by name (`TERM`, `KILL`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {name} to {}", self.name);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || self.child.try_wait().expect("a child can be waited for"))
    }

    /// Waits until it has written `text`; fails with all of its output when it ends first.
    pub fn wait_for_output(&mut self, text: &str) {
        let name = self.name.clone();
        eventually(&format!("{name} writes `{text}`"), || {
            let output = self.output();
            if output.contains(text) {
                return Some(());
            }
            assert!(self.is_running(), "{name} ended without writing `{text}`:\n{output}");
            None
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} wrote:\n{}", self.name, self.output());
        }
    }
}

/// Asks again and again until there is an answer; fails after [`PATIENCE`], saying `what` did not happen.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        pause(Duration::from_millis(20));
    }
}

/// Waits on the thread of a test, which has no runtime to hold up.
#[expect(clippy::disallowed_methods, reason = "tests are plain threads")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
