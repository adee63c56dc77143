//! `countersign docs`: the pages that are made from the code. Hidden: for those who work on it.

use std::{fs, io, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{config::reference, decision::reason};

/// Write the pages that are made from the code.
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct Docs {
    /// The folder to write into.
    #[arg(long, value_name = "DIR", default_value = "docs")]
    out: PathBuf,
}

const REASONS: &str = "<!-- Made by `countersign docs` from `src/decision/reason.rs`. -->
# Reasons

Why a request was refused, as `reason` in the answer's body, in `x-zt-…` metadata, in metrics and in audit records. Codes are
stable. A reason is specific to a token only after its signature proved right; what else an operator wants to know stands in
the audit record of the same `decision_id`, and `countersign explain` says it in sentences.

";

/// Name and content of each page.
pub fn pages() -> [(&'static str, String); 3] {
    [
        ("configuration.md", reference::page()),
        ("countersign.schema.json", reference::schema()),
        ("reasons.md", format!("{REASONS}{}", reason::reference_table())),
    ]
}

impl Docs {
    pub(super) fn run(self) -> ExitCode {
        match self.write() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("countersign: {}: {error}", self.out.display());
                ExitCode::FAILURE
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        fs::create_dir_all(&self.out)?;
        pages().into_iter().try_for_each(|(name, text)| fs::write(self.out.join(name), text))
    }
}
