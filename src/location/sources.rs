//! The files that places come from: read whole, swapped whole. A changed file that is broken leaves the last good one in use,
//! and so does one that is being written: it is read when two looks in a row find it the same, the second of them soon.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    databases::{self, ANONYMOUS, ASN, CITY, Database},
    lists::{MAX_FEED, PrefixSet},
    settings::Settings,
};
use crate::stamp::Stamp;

/// Everything read from files at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    pub(super) city: Source<Database>,
    pub(super) asn: Source<Database>,
    pub(super) anonymous: Source<Database>,
    pub(super) vpn: Vec<Source<PrefixSet>>,
    pub(super) hosting: Vec<Source<PrefixSet>>,
    pub(super) tor: Vec<Source<PrefixSet>>,
}

/// One file.
#[derive(Debug)]
pub(super) struct Source<T> {
    /// `None`: not configured.
    pub(super) path: Option<PathBuf>,
    /// The last good content.
    pub(super) content: Option<Arc<T>>,
    /// What the file looked like when it was read last, good or not.
    stamp: Option<Stamp>,
    /// What it looked like at the last look.
    seen: Option<Stamp>,
    /// What was wrong with it when it was read last.
    pub(super) problem: Option<String>,
}

impl<T> Clone for Source<T> {
    fn clone(&self) -> Self {
        let (path, content) = (self.path.clone(), self.content.clone());
        Self { path, content, stamp: self.stamp, seen: self.seen, problem: self.problem.clone() }
    }
}

impl<T> Default for Source<T> {
    fn default() -> Self {
        Self { path: None, content: None, stamp: None, seen: None, problem: None }
    }
}

/// What a look at the files brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refresh {
    pub(super) changed: usize,
    pub(super) failed: usize,
}

impl Sources {
    /// Named, not read yet.
    pub(super) fn new(settings: &Settings) -> Self {
        let list = |paths: &[PathBuf]| paths.iter().map(|path| Source::at(Some(path))).collect();
        Self {
            city: Source::at(settings.databases.city.as_ref()),
            asn: Source::at(settings.databases.asn.as_ref()),
            anonymous: Source::at(settings.databases.anonymous.as_ref()),
            vpn: list(&settings.lists.vpn),
            hosting: list(&settings.lists.hosting),
            tor: list(&settings.lists.tor),
        }
    }

    /// Reads the files that changed since the last look. Blocks.
    pub(super) fn refresh(&mut self) -> Refresh {
        let mut refresh = Refresh::default();
        for (database, wanted) in [(&mut self.city, CITY), (&mut self.asn, ASN), (&mut self.anonymous, ANONYMOUS)] {
            refresh.add(database.refresh(|path| open_database(path, wanted)));
        }
        for list in self.vpn.iter_mut().chain(&mut self.hosting).chain(&mut self.tor) {
            refresh.add(list.refresh(read_list));
        }
        refresh
    }

    /// Whether every configured file has been read at least once.
    pub(super) fn is_complete(&self) -> bool {
        [&self.city, &self.asn, &self.anonymous].into_iter().all(Source::is_complete)
            && self.lists().all(Source::is_complete)
    }

    /// Whether a file was not yet read because it was another at the look before.
    pub(super) fn are_changing(&self) -> bool {
        [&self.city, &self.asn, &self.anonymous].into_iter().any(Source::is_changing)
            || self.lists().any(Source::is_changing)
    }

    /// Files and what is wrong with them now.
    pub(super) fn problems(&self) -> Vec<(PathBuf, String)> {
        let databases = [&self.city, &self.asn, &self.anonymous].into_iter().filter_map(Source::told);
        databases.chain(self.lists().filter_map(Source::told)).collect()
    }

    fn lists(&self) -> impl Iterator<Item = &Source<PrefixSet>> {
        self.vpn.iter().chain(&self.hosting).chain(&self.tor)
    }
}

impl<T> Source<T> {
    fn at(path: Option<&PathBuf>) -> Self {
        Self { path: path.cloned(), ..Self::default() }
    }

    /// `None`: nothing changed. `Some(ok)`: it did, and could be read or not.
    fn refresh(&mut self, read: impl FnOnce(&Path) -> Result<T, String>) -> Option<bool> {
        let path = self.path.as_deref()?;
        let stamp = Stamp::of(path).ok();
        let first = self.content.is_none() && self.problem.is_none();
        let at_rest = std::mem::replace(&mut self.seen, stamp) == stamp || first;
        if stamp.is_some() && (stamp == self.stamp || !at_rest) {
            return None;
        }
        self.stamp = stamp;
        let content = read(path).and_then(|content| match Stamp::of(path).ok() == stamp {
            true => Ok(content),
            false => Err("changed while it was read".to_owned()),
        });
        match content {
            Ok(content) => {
                self.content = Some(Arc::new(content));
                self.problem = None;
                Some(true)
            }
            // A file that is still away is no news.
            Err(problem) if self.problem.as_ref() == Some(&problem) => None,
            Err(problem) => {
                tracing::warn!(path = %path.display(), %problem, kept = self.content.is_some(), "a location file is of no use");
                self.problem = Some(problem);
                Some(false)
            }
        }
    }

    fn is_changing(&self) -> bool {
        self.seen != self.stamp
    }

    const fn is_complete(&self) -> bool {
        self.path.is_none() || self.content.is_some()
    }

    fn told(&self) -> Option<(PathBuf, String)> {
        self.path.clone().zip(self.problem.clone())
    }
}

impl Refresh {
    const fn add(&mut self, one: Option<bool>) {
        match one {
            Some(true) => self.changed += 1,
            Some(false) => self.failed += 1,
            None => {}
        }
    }
}

fn open_database(path: &Path, wanted: &[&str]) -> Result<Database, String> {
    Database::open(path, wanted).map_err(|error: databases::Error| error.to_string())
}

/// A feed without any network is no feed: somebody saved an error page, or emptied the file before a download that failed.
fn read_list(path: &Path) -> Result<PrefixSet, String> {
    let length = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if length > MAX_FEED {
        return Err(format!("is larger than {MAX_FEED} octets"));
    }
    let octets = fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut set = PrefixSet::default();
    let bad = set.read(&String::from_utf8_lossy(&octets));
    if set.len() == 0 {
        return Err(match bad.count {
            0 => "holds no network; a list that is to hold none is left out of the configuration".to_owned(),
            _ => format!("holds no network; line {} is the first that is none", bad.first),
        });
    }
    if bad.count > 0 {
        tracing::warn!(path = %path.display(), lines = bad.count, first = bad.first, "bad lines of a list were skipped");
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tor.txt");
        fs::write(&path, "192.0.2.0/24\n198.51.100.0/24\n").unwrap();
        let mut source = Source::at(Some(&path));
        let torn = source.refresh(|path| {
            let set = read_list(path)?;
            fs::write(path, "192.0.2.0/24\n").unwrap();
            Ok(set)
        });
        assert_eq!((torn, source.content.is_some()), (Some(false), false));
        let looks = [(); 3].map(|()| source.refresh(read_list));
        assert_eq!(looks, [None, Some(true), None], "at rest again");
        assert!(source.problem.is_none());
    }
}
