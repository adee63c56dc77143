//! `countersign serve`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{EXIT_USAGE, environment, with_causes};
use crate::{app, config, document::Diagnostic};

/// Answer Envoy until SIGTERM.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The configuration file. `COUNTERSIGN__SECTION__KEY` overrides a value in it.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    config: PathBuf,
}

impl Serve {
    pub(super) fn run(&self) -> ExitCode {
        let (config, warnings) = match config::load(&self.config, &environment()) {
            Ok(loaded) => loaded,
            Err(problems) => return refuse(&problems),
        };
        for warning in warnings {
            eprintln!("{warning}");
        }
        match app::serve(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(app::Error::Rules(problems)) => refuse(&problems),
            Err(error) => {
                eprintln!("countersign: {}", with_causes(&error));
                ExitCode::FAILURE
            }
        }
    }
}

fn refuse(problems: &[Diagnostic]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}");
    }
    ExitCode::from(EXIT_USAGE)
}
