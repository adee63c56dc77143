//! Where sealed lines go. A sink writes whole lines or says that it could not; it never writes to an older process's file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    line::Line,
    settings::{Settings, Sink as Kind},
};
use crate::domain::UnixTime;

pub(super) enum Sink {
    None,
    /// Standard output by its descriptor: unbuffered, so that what was written is known to the octet.
    Stream(File),
    Files(Files),
}

impl Sink {
    pub(super) fn open(settings: &Settings, instance: &str, now: UnixTime) -> io::Result<Self> {
        Ok(match (settings.sink, &settings.directory) {
            (Kind::None, _) => Self::None,
            (Kind::Stdout, _) => Self::Stream(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            (Kind::File, Some(directory)) => Self::Files(Files::open(settings, directory, instance, now)?),
            (Kind::File, None) => return Err(io::Error::other("`sink: file` needs a `directory`")),
        })
    }

    /// Writes `pending` and takes out of it what was written: all of it, or up to the error. Trying again goes on there.
    pub(super) fn write(&mut self, pending: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::None => {
                pending.clear();
                Ok(())
            }
            Self::Stream(out) => {
                while !pending.is_empty() {
                    match out.write(pending) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(written) => drop(pending.drain(..written)),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            Self::Files(files) => {
                files.write(pending)?;
                pending.clear();
                Ok(())
            }
        }
    }

    pub(super) fn should_rotate(&self) -> bool {
        matches!(self, Self::Files(files) if files.length >= files.limit)
    }

    pub(super) fn rotate(&mut self) -> io::Result<()> {
        match self {
            Self::Files(files) => files.rotate(),
            Self::Stream(_) | Self::None => Ok(()),
        }
    }

    /// Forces to disk what is due; `now`: whatever is there.
    pub(super) fn sync(&mut self, now: bool) -> io::Result<()> {
        match self {
            Self::Files(files) => files.sync(now),
            Self::Stream(_) | Self::None => Ok(()),
        }
    }
}

/// Files of one process, one after the other.
pub(super) struct Files {
    stem: PathBuf,
    number: u32,
    file: File,
    length: u64,
    limit: u64,
    dirty: bool,
    synced: Instant,
    /// What of the file was on disk then.
    on_disk: u64,
    sync_every: Duration,
}

impl Files {
    fn open(settings: &Settings, directory: &Path, instance: &str, now: UnixTime) -> io::Result<Self> {
        // Two processes with one name that start in the same millisecond: the later one takes the next millisecond.
        let mut millis = now.as_millis();
        loop {
            let stem = directory.join(format!("audit-{instance}-{millis}"));
            match create(&stem, 1) {
                Ok(file) => {
                    return Ok(Self {
                        stem,
                        number: 1,
                        file,
                        length: 0,
                        limit: settings.rotate_bytes,
                        dirty: false,
                        synced: Instant::now(),
                        on_disk: 0,
                        sync_every: settings.sync_every.get(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => millis += 1,
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("`{}`: {error}", directory.display())));
                }
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self.file.write_all(lines) {
            Ok(()) => {
                self.length += lines.len() as u64;
                self.dirty = true;
                Ok(())
            }
            Err(error) => {
                // A line cut short by a full disk must not stand before the next one.
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync(true)?;
        let file = create(&self.stem, self.number + 1)?;
        (self.number, self.file, self.length, self.on_disk) = (self.number + 1, file, 0, 0);
        Ok(())
    }

    fn sync(&mut self, now: bool) -> io::Result<()> {
        if self.dirty && (now || self.synced.elapsed() >= self.sync_every) {
            self.file.sync_data()?;
            // Until now for whoever ships them.
            forget(&self.file, self.on_disk);
            (self.dirty, self.synced, self.on_disk) = (false, Instant::now(), self.length);
        }
        Ok(())
    }
}

/// Tells the kernel that nobody will want the file's first octets from memory. Otherwise each record takes fresh memory, which
/// counts as the container's, pushes out what others read, and costs more than the record where a hypervisor has to find it.
fn forget(file: &File, octets: u64) {
    #[cfg(target_os = "linux")]
    if let Some(octets) = std::num::NonZeroU64::new(octets) {
        // Advice: where it is not taken, nothing is lost.
        let _ = rustix::fs::fadvise(file, 0, Some(octets), rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, octets);
}

/// Appending, so that a shortened file (see [`Files::write`]) goes on at its end.
fn create(stem: &Path, number: u32) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = PathBuf::from(format!("{}-{number}.jsonl", stem.display()));
    OpenOptions::new().append(true).create_new(true).mode(0o640).open(path)
}

/// The end of the newest older chain in `directory` under this instance name: what the new chain says it follows. A file
/// without a whole line is passed over: a process that was killed at once, or found the disk full, leaves one.
pub(super) fn last_line(settings: &Settings, instance: &str) -> Option<String> {
    let directory = settings.directory.as_deref().filter(|_| settings.sink == Kind::File)?;
    let prefix = format!("audit-{instance}-");
    let found = fs::read_dir(directory).ok()?.filter_map(Result::ok).filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (start, number) = name.strip_prefix(&prefix)?.strip_suffix(".jsonl")?.split_once('-')?;
        Some(((start.parse::<u64>().ok()?, number.parse::<u32>().ok()?), entry.path()))
    });
    let mut files: Vec<_> = found.collect();
    files.sort_unstable();
    let mut lines = files.iter().rev().filter_map(|(_, path)| last_whole_line(path).ok().flatten());
    lines.find(|line| Line::parse(line).is_some())
}

/// Reads no more than the last MiB.
fn last_whole_line(path: &Path) -> io::Result<Option<String>> {
    use std::io::{Read, Seek, SeekFrom};
    const TAIL: u64 = 1 << 20;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|octet| *octet == b'\n').map_or(&[][..], |end| &tail[..end]);
    let line = whole.rsplit(|octet| *octet == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8(line.to_vec()).ok().filter(|line| !line.is_empty()))
}
