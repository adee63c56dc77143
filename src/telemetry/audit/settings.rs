//! The `audit` section of the configuration.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key::SigningKey;
use crate::domain::Span;

/// The room for that many is taken at the start.
const MAX_QUEUE: usize = 16_000_000;

/// Where the record of every decision goes, and how it is protected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `stdout` (one JSON line per decision), `file`, or `none`.
    pub sink: Sink,
    /// The folder for `sink: file`. Must exist. Each start and each rotation makes a new file there,
    /// `audit-<instance>-<start>-<number>.jsonl`; no file is ever written to by two processes, or deleted by this one.
    pub directory: Option<PathBuf>,
    /// What this replica is called in its records and file names: letters, digits, `.`, `_`, `-`.
    /// Default: the host's name; where no files are written, with the process id. A start is chained to the files of the same name
    /// before it: give processes that share a folder names of their own.
    pub instance: Option<String>,
    /// A file that grew to this many octets is closed and another begun.
    pub rotate_bytes: u64,
    /// How often a file is forced to disk. What a power failure can lose.
    pub sync_every: Span,
    /// How many records may wait for the writer.
    pub queue: usize,
    /// What happens when that many wait, or the disk is full. `allow`: requests go on, lost records are counted and a
    /// signed gap record says so. `refuse`: requests are answered 503 until there is room. A policy with `audit_all_access` always
    /// refuses.
    pub on_full: OnFull,
    /// A signed checkpoint is written after this many records, and at the latest `checkpoint_every` after one.
    pub checkpoint_records: u64,
    pub checkpoint_every: Span,
    /// The Ed25519 key that signs checkpoints (PKCS#8 PEM, mode 0600); made there if the file is missing. Without it
    /// each process makes its own, whose public half stands in its first record: then an auditor must note it down.
    pub key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sink {
    #[default]
    Stdout,
    File,
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    #[default]
    Allow,
    Refuse,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sink: Sink::Stdout,
            directory: None,
            instance: None,
            rotate_bytes: 256 << 20,
            sync_every: Duration::from_secs(1).into(),
            queue: 16_384,
            on_full: OnFull::Allow,
            checkpoint_records: 1000,
            checkpoint_every: Duration::from_secs(10).into(),
            key: None,
        }
    }
}

impl Settings {
    /// What does not fit together, for `check-config`: name of the field and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.sink == Sink::File && self.directory.is_none() {
            problems.push(("directory", "`sink: file` needs a `directory`".into()));
        }
        if self.queue < 64 {
            problems.push(("queue", "must be at least 64".into()));
        }
        if self.queue > MAX_QUEUE {
            problems.push(("queue", format!("must be at most {MAX_QUEUE}")));
        }
        if self.rotate_bytes < 1 << 20 {
            problems.push(("rotate_bytes", "must be at least 1048576".into()));
        }
        if self.checkpoint_records == 0 {
            problems.push(("checkpoint_records", "must be at least 1".into()));
        }
        let plain = |name: &str| name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet));
        if self.instance.as_deref().is_some_and(|name| name.is_empty() || name.len() > 128 || !plain(name)) {
            problems.push(("instance", "must be 1 to 128 letters, digits, `.`, `_` or `-`".into()));
        }
        problems
    }

    /// What of the folder and the key file cannot be used, for `check-config`: name of the field and why. Makes neither.
    pub fn unusable(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let said = |path: &Path, why: &io::Error| format!("`{}` cannot be used: {why}", path.display());
        let folder = |path: &Path| {
            fs::metadata(path)
                .and_then(|is| if is.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) })
        };
        if let Some(path) = self.directory.as_deref()
            && let Err(why) = folder(path)
        {
            problems.push(("directory", said(path, &why)));
        }
        if let Some(path) = self.key.as_deref() {
            let found = SigningKey::find(path).and_then(|key| match path.parent() {
                Some(parent) if key.is_none() && parent != Path::new("") => folder(parent),
                _ => Ok(()),
            });
            problems.extend(found.err().map(|why| ("key", said(path, &why))));
        }
        problems
    }

    /// The configured name, else the host's, so that a start finds the files of the one before. File names hold the start's
    /// time as well; lines of standard output have nothing but the process id to tell two processes apart.
    pub(super) fn instance_name(&self) -> String {
        self.instance.clone().unwrap_or_else(|| {
            let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host: String =
                host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
            let host = if host.is_empty() { "host".to_owned() } else { host };
            if self.sink == Sink::File { host } else { format!("{host}-{}", std::process::id()) }
        })
    }
}
