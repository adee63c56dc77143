//! `countersign check-config`: what is wrong with a configuration and its rules, all of it, without starting anything.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use super::{EXIT_USAGE, environment, is_coloured};
use crate::{
    config::inspect::{Inspection, inspect},
    document::{Diagnostic, render_all},
};

/// Check a configuration file and the rules that it names, without starting.
///
/// Prints every problem with its file, line and path. Exits 0 when it can be served (warnings may remain), 64 when not.
#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// The configuration file. `COUNTERSIGN__SECTION__KEY` variables are laid over it, as `serve` does.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    config: PathBuf,
    /// One line for each problem: `file:line:column: severity: path: message`.
    #[arg(long)]
    short: bool,
    /// Count warnings as errors.
    #[arg(long)]
    strict: bool,
}

impl CheckConfig {
    pub(super) fn run(self) -> ExitCode {
        let Inspection { found, refused } = inspect(&self.config, &environment());
        if self.short {
            found.iter().for_each(|problem| eprintln!("{problem}"));
        } else {
            print(&found, is_coloured(&io::stderr()));
        }
        if refused || (self.strict && !found.is_empty()) {
            return ExitCode::from(EXIT_USAGE);
        }
        println!("{}: fine", self.config.display());
        ExitCode::SUCCESS
    }
}

/// Draws problems on standard error.
pub(super) fn print(found: &[Diagnostic], colour: bool) {
    // Where standard error is closed there is nobody left to tell.
    let _ = io::stderr().write_all(render_all(found, colour).as_bytes());
}
