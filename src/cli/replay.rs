//! `countersign replay`: what candidate rules would have said of recorded decisions.

use std::{
    fs::File,
    io::{BufRead, BufReader, stderr, stdin},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{EXIT_USAGE, check_config::print, environment, is_coloured};
use crate::{
    config::{self, reload},
    document::Diagnostic,
    policy::{self, Loaded, Options},
    replay::Report,
};

/// Judge recorded decisions by candidate rules and report what would change.
///
/// Nothing is asked of a server and nothing changes. Exits 0 when no verdict changes, 1 when some do or there is no decision at all.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Audit records (JSON lines); `-` for standard input.
    #[arg(required = true, value_name = "FILE")]
    records: Vec<PathBuf>,
    /// Candidate rules: files and folders. Give `--config` too.
    #[arg(long, value_name = "PATH", required_unless_present = "config")]
    rules: Vec<PathBuf>,
    /// The server's configuration: what rules are judged with besides them (the risk model, location, sessions, challenges), and
    /// the rules unless `--rules` names others. Without it the defaults count, and a flip may come from that alone.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(super) fn run(self) -> ExitCode {
        let loaded = match self.load() {
            Ok(loaded) => loaded,
            Err(problems) => {
                print(&problems, is_coloured(&stderr()));
                return ExitCode::from(EXIT_USAGE);
            }
        };
        if self.config.is_none() {
            eprintln!(
                "countersign: without `--config` risk, location and sessions count as by default: where the server's differ, flips may come from that"
            );
        }
        let mut report = Report::new(&loaded.rules);
        for path in &self.records {
            if let Err(error) = read(&mut report, &loaded, path) {
                eprintln!("countersign: {} cannot be read: {error}", path.display());
                return ExitCode::from(EXIT_USAGE);
            }
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
        } else {
            print!("{report}");
        }
        if report.decisions + report.not_judged == 0 {
            eprintln!("no decisions: name files of audit records, one in JSON on each line");
            return ExitCode::FAILURE;
        }
        if report.flipped == 0 && report.unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn load(&self) -> Result<Loaded, Vec<Diagnostic>> {
        let config = self.config.as_deref().map(|file| config::load(file, &environment())).transpose()?;
        let config = config.map(|(config, _)| config);
        // Where a record holds what the statistical model said, that counts; where not, the fixed table does.
        let options = config.as_ref().map_or_else(Options::default, config::Config::rule_options);
        let paths = match config {
            Some(config) if self.rules.is_empty() => config.rules,
            _ => self.rules.clone(),
        };
        policy::load(&reload::read(&paths)?, options)
    }
}

fn read(report: &mut Report, loaded: &Loaded, path: &Path) -> std::io::Result<()> {
    if path.as_os_str() == "-" {
        return report.read(&loaded.rules, stdin().lock(), |_| ());
    }
    let file = File::open(path)?;
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}");
    // Drawn on standard error, and only where that is a terminal.
    let bar =
        ProgressBar::new(file.metadata()?.len()).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let input: Box<dyn BufRead> = Box::new(BufReader::with_capacity(1 << 20, file));
    let done = report.read(&loaded.rules, input, |octets| bar.inc(octets));
    bar.finish_and_clear();
    done
}
