//! What tells one version of a file from the next without reading it.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path, time::SystemTime};

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// Of the file at `path`, or the one that a link there leads to.
    ///
    /// # Errors
    ///
    /// It cannot be seen.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { length: metadata.len(), modified: metadata.modified().ok(), inode: metadata.ino() })
    }
}
