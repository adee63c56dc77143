//! What becomes of a command whose standard output cannot be written: it says so in one line and fails; where nobody reads any
//! more, it ends quietly.

use std::{
    io::{self, Write as _},
    panic,
    process::{self, ExitCode},
};

/// `countersign … | head`: whoever has read enough closes the pipe, and the command ends as SIGPIPE would have ended it. Rust
/// ignores that signal, and must: a connection that breaks would raise it as well, where there is something to be said.
const SIGPIPE: i32 = 13;

/// From here on `println!`, which has no other way to tell that it cannot print, ends the process.
pub(super) fn end_where_it_cannot_be_written() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        match panic.payload_as_str().and_then(|said| said.strip_prefix("failed printing to stdout: ")) {
            Some(why) => end(why),
            None => usual(panic),
        }
    }));
}

/// Writes what is still held back, at the end of a command.
pub(super) fn finish() {
    if let Err(error) = io::stdout().flush() {
        end(&error.to_string());
    }
}

/// The exit code of what only prints. Where nobody reads it, there is nobody left to tell.
pub(super) fn ending(printed: io::Result<()>) -> ExitCode {
    match printed.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => end(&error.to_string()),
        _ => ExitCode::SUCCESS,
    }
}

fn end(why: &str) -> ! {
    if why.starts_with("Broken pipe") {
        process::exit(128 + SIGPIPE);
    }
    // Where standard error cannot be written either, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "countersign: standard output cannot be written: {why}");
    process::exit(1)
}
