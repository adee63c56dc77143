//! Files that hold a key or a token: opened only where nobody else can read them. For whoever reads such a file, made by us
//! or put there.

use std::{fs::File, io, os::unix::fs::MetadataExt as _, path::Path};

const EXPOSED: &str = "others can read it: replace what it holds, and `chmod 600` it, or mount a Kubernetes Secret with \
                       `defaultMode: 0440` and `fsGroup`";

/// Opens the file at `path`.
///
/// # Errors
///
/// As any opening; `InvalidData` where others can read it, in words that say what to do.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    let is = file.metadata()?;
    if is_exposed(is.mode(), is.uid() == rustix::process::geteuid().as_raw()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, EXPOSED));
    }
    Ok(file)
}

/// A file of ours is for us alone. One of another owner, as Kubernetes mounts a Secret, we read by its group.
const fn is_exposed(mode: u32, ours: bool) -> bool {
    mode & (if ours { 0o077 } else { 0o037 }) != 0
}

#[cfg(test)]
mod tests {
    use super::is_exposed;

    #[test]
    fn only_a_file_of_somebody_else_may_be_read_by_its_group() {
        assert!(!is_exposed(0o600, true) && is_exposed(0o640, true));
        assert!(!is_exposed(0o440, false) && is_exposed(0o460, false) && is_exposed(0o444, false));
    }
}
