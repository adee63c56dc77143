//! `countersign audit verify`: whether audit records are what was written.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::EXIT_USAGE;
use crate::telemetry::audit::{ProblemKind, PublicKey, Report, verify, verify_rest};

/// Work on audit records.
#[derive(Debug, Args)]
pub(super) struct Audit {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Verify(Verify),
}

/// Say whether any record was altered, removed, inserted or moved, and which is the first.
///
/// Give all files of a chain, and all chains of an instance: what is not given counts as removed, but for the oldest with
/// `--retired`. Files may be compressed with gzip. Exits 0 when the chain holds, 1 when it does not.
#[derive(Debug, Args)]
struct Verify {
    /// Files of audit records, or folders of them: `*.jsonl` and `*.jsonl.gz`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The public key that every chain must be signed by (base64). Without it, each chain must be signed by the key that its
    /// first record states: then compare the keys printed with those noted down.
    #[arg(long, value_name = "BASE64")]
    key: Option<String>,
    /// Old files were put away: what is given of each instance may begin later than it did. A second hole is still a problem.
    #[arg(long)]
    retired: bool,
}

impl Audit {
    pub(super) fn run(self) -> ExitCode {
        let Action::Verify(asked) = self.action;
        let trusted = match asked.key.as_deref().map(|key| PublicKey::parse(key).ok_or(key)).transpose() {
            Ok(trusted) => trusted,
            Err(key) => {
                eprintln!("countersign: `{key}` is no public key: base64 of 32 octets");
                return ExitCode::from(EXIT_USAGE);
            }
        };
        let verify = if asked.retired { verify_rest } else { verify };
        match files(&asked.files).and_then(|files| verify(&files, trusted)) {
            Ok(report) => show(&report, trusted.is_some()),
            Err(error) => {
                eprintln!("countersign: {error}");
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}

/// Folders stand for the files of records in them; what else lies there is named, since it may be records too.
fn files(given: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        for entry in std::fs::read_dir(path)? {
            let path = entry?.path();
            if is_of_records(&path) {
                files.push(path);
            } else {
                eprintln!("countersign: skipped: {} (not *.jsonl or *.jsonl.gz)", path.display());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_of_records(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_file() && (name.ends_with(".jsonl") || name.ends_with(".jsonl.gz"))
}

fn show(report: &Report, trusted: bool) -> ExitCode {
    for chain in &report.chains {
        println!(
            "chain {} of {}: records {} to {}, signed to {}{}{}",
            chain.id,
            chain.instance,
            chain.first,
            chain.last,
            chain.signed_to,
            if chain.lost > 0 { format!(", {} lost to a full queue", chain.lost) } else { String::new() },
            if chain.stopped { ", ended in order" } else { ", not ended: still running, or killed" },
        );
        if !trusted {
            println!("  key {}", chain.public_key);
        }
    }
    if report.of_log > 0 {
        println!("{} lines of the log among them, passed over", report.of_log);
    }
    for (file, line) in &report.torn {
        println!("{}:{line}: cut short: a kill or a power failure", file.display());
    }
    match &report.problem {
        Some(problem) => {
            println!("NOT as written: {problem}");
            if may_be_retired(&problem.kind) {
                println!(
                    "  put away on purpose, since it is old? `--retired` lets what is given begin later than it did"
                );
            }
            ExitCode::FAILURE
        }
        None if report.chains.is_empty() => {
            println!("no records");
            ExitCode::FAILURE
        }
        None => {
            println!("as written");
            ExitCode::SUCCESS
        }
    }
}

/// A beginning that is not there.
const fn may_be_retired(kind: &ProblemKind) -> bool {
    matches!(kind, ProblemKind::NotGiven { .. } | ProblemKind::Removed { first: 1, .. })
}
