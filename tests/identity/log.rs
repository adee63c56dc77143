//! What the service logs on the thread of one test.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::LevelFilter;

/// Lines at the default level.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Keeps this thread's lines until the guard is dropped.
    pub(crate) fn listen(&self) -> DefaultGuard {
        let out = self.clone();
        let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_ansi(false);
        tracing::subscriber::set_default(lines.with_writer(move || out.clone()).finish())
    }

    /// Those that hold `text`.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
