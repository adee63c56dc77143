//! The admin token that is made at the first start, and how the command line finds it.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rand::TryRngCore as _;

use crate::{domain::Secret, private};

const FILE: &str = "admin.token";

/// Longer is no token.
const MAX_LENGTH: u64 = 4096;

/// Shorter is none: what could be guessed, or a variable that was not set.
pub(super) const MIN_LENGTH: usize = 16;

/// A token and where it is kept.
#[derive(Debug)]
pub struct MadeToken {
    pub path: PathBuf,
    pub token: Secret,
    /// `false`: it was there already.
    pub fresh: bool,
}

/// Where state goes when nothing is configured: `$XDG_STATE_HOME/countersign`, else `~/.local/state/countersign`.
pub fn state_dir() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("countersign"))
}

/// Whether there is a token in `folder`.
///
/// # Errors
///
/// When that cannot be seen.
pub fn holds_token(folder: &Path) -> io::Result<bool> {
    folder.join(FILE).try_exists()
}

/// The token in `folder`, made there (mode 0600) if there is none. Several processes may call this at once: one makes
/// it, all get the same.
///
/// # Errors
///
/// When the folder or the file cannot be made or read, or others may read the file.
pub fn make_token(folder: &Path) -> io::Result<MadeToken> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(FILE);
    if let Some(token) = find_token(folder)? {
        return Ok(MadeToken { path, token, fresh: false });
    }
    let mut random = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut random).map_err(io::Error::other)?;
    let token = Secret::new(format!("cst_{}", hex::encode(random)));
    // Written aside and linked: whoever sees the name sees the whole token, and the first to link wins.
    let aside = folder.join(format!(".{FILE}.{}", hex::encode(&random[..8])));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(token.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let linked = fs::hard_link(&aside, &path);
    fs::remove_file(&aside)?;
    match linked {
        Ok(()) => Ok(MadeToken { path, token, fresh: true }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match find_token(folder)? {
            Some(token) => Ok(MadeToken { path, token, fresh: false }),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// The token in `folder`, if there is one.
///
/// # Errors
///
/// When it cannot be read, is empty, or others may read it.
pub fn find_token(folder: &Path) -> io::Result<Option<Secret>> {
    read_token(&folder.join(FILE))
}

/// The token in a file of its own, if it is there.
///
/// # Errors
///
/// As [`find_token`].
pub fn read_token(path: &Path) -> io::Result<Option<Secret>> {
    let refuse = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("`{}`: {why}", path.display()));
    let file = match private::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(refuse(&error.to_string())),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_LENGTH).read_to_string(&mut text)?;
    let token = text.trim();
    if token.len() < MIN_LENGTH {
        return Err(refuse(&format!("it holds no token of {MIN_LENGTH} characters or more")));
    }
    Ok(Some(Secret::new(token)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn a_token_that_its_group_may_read_is_used_where_another_owns_it_and_else_refused_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "a token of some length\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        let said = read_token(&path).unwrap_err().to_string();
        assert!(said.contains("/token`: others can read it") && said.contains("defaultMode: 0440"), "{said}");
        // Only root may give it away; for everybody else it stays their own.
        let given_away = chown(&path, Some(65_533), None).is_ok();
        assert_eq!(read_token(&path).is_ok(), given_away);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        assert!(read_token(&path).is_err());
    }
}
