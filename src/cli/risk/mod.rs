//! `countersign risk`: tries the statistical model on recorded or simulated requests; shows and forgets what it remembers.
//!
//! `replay` and `plot` run the scorer of production over a file, in the file's order: they need no configuration and touch no
//! store. `profile` asks a running server.

mod line;
mod plot;
mod profile;
mod report;
mod run;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::EXIT_USAGE;

/// Try the statistical risk model on your own logs; show or forget what it remembers of a subject.
#[derive(Debug, Args)]
pub(super) struct Risk {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Score every request of a file; writes id,score,risk,hypothesis,reasons.
    Replay(Replay),
    /// Draw scores, challenges per day and reasons of a file as a picture (SVG).
    Plot(Plot),
    Profile(profile::ProfileCommand),
}

/// Which requests to score.
#[derive(Debug, Args)]
struct Input {
    /// Requests as JSON lines, in the order of time: simulated events or our own audit records; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    events: PathBuf,
    /// Results of challenges as JSON lines {"id","stepup_ok"}; looked at only for requests that the model challenged.
    #[arg(long, value_name = "FILE")]
    feedback: Option<PathBuf>,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct Replay {
    #[command(flatten)]
    input: Input,
    /// Where the scores go (CSV); `-` is standard output. The score is in nats, at full precision.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Plot {
    #[command(flatten)]
    input: Input,
    /// Where the picture goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Something that ends the command: one clear line.
#[derive(Debug, thiserror::Error)]
enum RiskError {
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("`{}` line {line}: {problem}", path.display())]
    Feedback { path: PathBuf, line: usize, problem: String },
    #[error("{0} of {1} lines could not be read; the others were scored")]
    BadLines(usize, usize),
}

impl Risk {
    /// Runs the command: 0, or with one line on standard error 64 where its input cannot be read, else 1.
    pub(super) fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Replay(replay) => run::replay(&replay.input, &replay.out),
            Command::Plot(picture) => run::plot(&picture.input, &picture.out),
            Command::Profile(command) => return command.run(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("countersign: {error}");
                if matches!(error, RiskError::Read { .. }) { EXIT_USAGE.into() } else { ExitCode::FAILURE }
            }
        }
    }
}
