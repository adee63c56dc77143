//! Looks whether audit files are what was written, and names the first line that is not.
//!
//! What it can tell: any line altered, removed, inserted or moved, as far as a signed line after it is there. What it
//! cannot: that lines after the last signed one, or whole files at the end, are gone. The report says how far the
//! signatures reach, and whether the chain ended in order; the next chain of the same instance names where it stood, so that
//! it is seen when that one is cut short or not given.

mod links;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use super::{
    chain::{Digest, GENESIS, signed_text},
    key::PublicKey,
    line::{Follows, Line, is_of_log},
};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One for each process that wrote.
    pub chains: Vec<ChainReport>,
    /// The first thing that is wrong, in the order of the records.
    pub problem: Option<Problem>,
    /// Last lines cut short (file and line number): what a kill or a power failure leaves. Not tampering.
    pub torn: Vec<(PathBuf, usize)>,
    /// Lines of the log among the records, as in what a container's runtime keeps of both outputs.
    pub of_log: usize,
}

/// One process's records, as far as they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainReport {
    pub id: String,
    pub instance: String,
    /// Base64; as its first line states it.
    pub public_key: String,
    pub first: u64,
    pub last: u64,
    /// The last line that a signature vouches for.
    pub signed_to: u64,
    /// Records that gap lines say were lost to a full queue.
    pub lost: u64,
    /// Its last line is the signed one of an orderly stop.
    pub stopped: bool,
}

/// A line that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: record {seq} of chain {chain}: {kind}", file.display())]
pub struct Problem {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    pub chain: String,
    pub seq: u64,
    pub kind: ProblemKind,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    #[error("not a record: altered, or cut short in the middle of a file")]
    NotARecord,
    #[error("altered: its content no longer has the hash it states")]
    Altered,
    #[error("altered: the record after it was chained to another hash")]
    Rechained,
    #[error("removed: {} missing before this line", range(*.first, *.last))]
    Removed { first: u64, last: u64 },
    #[error("out of order: it belongs before this chain's record {after}")]
    Reordered { after: u64 },
    #[error("its signature is missing or is not of key {key}: it, or a record since {since}, was made anew")]
    Signature { key: String, since: u64 },
    #[error("no checkpoint for {0} records: they were made anew, or checkpoints were removed")]
    NoCheckpoint(u64),
    #[error("signed by key {0}, which is not the trusted one")]
    ForeignKey(String),
    #[error("removed: the chain after it says that this one went on to record {0}")]
    CutOff(u64),
    #[error("altered: the chain after it knows another record {seq}; records since the last signature were made anew")]
    MadeAnew { seq: u64 },
    #[error(
        "added: nothing signed comes after record {after}, with which the chain had ended (one that still runs signs within \
         `checkpoint_every`)"
    )]
    Added { after: u64 },
    #[error("removed: it follows record {seq} of chain {chain}, which is not given")]
    NotGiven { chain: String, seq: u64 },
}

fn range(first: u64, last: u64) -> String {
    if first == last { format!("record {first}") } else { format!("records {first} to {last}") }
}

/// Verifies `files` together: those of one chain are put in order by their first line. With `trusted`, every chain must be
/// signed by that key; without, each by the key that its own first line states.
///
/// # Errors
///
/// Where a file cannot be read.
pub fn verify(files: &[PathBuf], trusted: Option<PublicKey>) -> io::Result<Report> {
    verified(files, Verifier { trusted, ..Verifier::default() })
}

/// As [`verify`], where old files were put away: the oldest that is given of each instance may follow one that is not.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_rest(files: &[PathBuf], trusted: Option<PublicKey>) -> io::Result<Report> {
    verified(files, Verifier { trusted, retired: true, ..Verifier::default() })
}

fn verified(files: &[PathBuf], mut verifier: Verifier) -> io::Result<Report> {
    let mut ordered: Vec<_> = files.iter().map(|path| Ok((first_line(path)?, path))).collect::<io::Result<_>>()?;
    ordered.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, path) in ordered {
        verifier.file(path).map_err(|error| named(path, &error))?;
        if verifier.report.problem.is_some() {
            break;
        }
    }
    Ok(verifier.finish())
}

/// Chain and number of the first record: what puts the files of one chain in order, whatever a clock did meanwhile.
fn first_line(path: &Path) -> io::Result<(String, u64)> {
    let opened = open(path).map_err(|error| named(path, &error))?;
    // What is no text sorts first and is reported when the file is read.
    let first = opened.lines().map_while(Result::ok).find(|text| !is_of_log(text));
    let first = first.as_deref().and_then(Line::parse);
    Ok(first.map(|line| (line.chain().to_owned(), line.seq())).unwrap_or_default())
}

/// How compressed files begin that are not read here.
const COMPRESSED: [(&[u8], &str); 3] = [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ", "xz"), (b"BZh", "bzip2")];

/// A file of lines, also where it was compressed with gzip: known by its first octets, since names change.
fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let begin = reader.fill_buf()?;
    if begin.starts_with(b"\x1f\x8b") {
        return Ok(Box::new(BufReader::with_capacity(1 << 20, MultiGzDecoder::new(reader))));
    }
    match COMPRESSED.iter().find(|(magic, _)| begin.starts_with(magic)) {
        Some((_, name)) => Err(io::Error::other(format!("compressed with {name}: unpack it first"))),
        None => Ok(Box::new(reader)),
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[derive(Default)]
struct Verifier {
    trusted: Option<PublicKey>,
    /// Old files were put away.
    retired: bool,
    report: Report,
    chains: BTreeMap<String, State>,
    order: Vec<String>,
}

/// What is known of one chain so far.
struct State {
    report: ChainReport,
    key: Option<PublicKey>,
    hash: String,
    /// Hashes of the last signed line and of those after it.
    tail: Vec<Digest>,
    checkpoint_records: u64,
    /// The number of its `stop`.
    stop: Option<u64>,
    follows: Option<Follows>,
    first_place: (PathBuf, usize),
    /// Where the last line stands.
    last_place: (PathBuf, usize),
}

impl Verifier {
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let mut reader = open(path)?;
        let mut octets = Vec::new();
        for number in 1.. {
            octets.clear();
            if reader.read_until(b'\n', &mut octets)? == 0 {
                return Ok(());
            }
            let whole = octets.pop_if(|octet| *octet == b'\n').is_some();
            let place = Place { file: path, line: number };
            let text = String::from_utf8_lossy(&octets);
            match Line::parse(&text) {
                // A kill may leave out nothing but the end of the line: the next chain does not count it either.
                Some(line) if whole || line.signature.is_some() => self.line(&line, place),
                None if is_of_log(&text) => self.report.of_log += 1,
                _ if !whole => self.report.torn.push((path.into(), number)),
                _ => self.not_a_record(place),
            }
            if self.report.problem.is_some() {
                self.look_behind(&mut reader);
                return Ok(());
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &Line<'_>, place: Place<'_>) {
        if !self.chains.contains_key(line.chain()) {
            self.begin(line, place);
        } else {
            self.go_on(line, place);
        }
        if self.report.problem.is_some() {
            return;
        }
        if let Some(kind) = self.chains.get_mut(line.chain()).and_then(|state| state.accept(line, place)) {
            self.problem(place, line.chain(), line.seq(), kind);
        }
    }

    /// The first line of a chain that is seen.
    fn begin(&mut self, line: &Line<'_>, place: Place<'_>) {
        let opens = matches!(line.kind(), "start" | "file");
        let whole = if line.seq() == 1 { line.prev() == hex::encode(GENESIS) } else { self.retired };
        if !opens || !whole {
            let kind = ProblemKind::Removed { first: 1, last: line.seq().saturating_sub(1).max(1) };
            return self.problem(place, line.chain(), line.seq(), kind);
        }
        let stated = line.public_key().unwrap_or_default();
        let key = PublicKey::parse(stated);
        if self.trusted.is_some() && self.trusted != key {
            return self.problem(place, line.chain(), line.seq(), ProblemKind::ForeignKey(stated.into()));
        }
        self.order.push(line.chain().to_owned());
        self.chains.insert(line.chain().to_owned(), State::new(line, key, place));
    }

    fn go_on(&mut self, line: &Line<'_>, place: Place<'_>) {
        let Some(state) = self.chains.get(line.chain()) else { return };
        let (last, last_place) = (state.report.last, state.last_place.clone());
        if !line.is_whole() {
            return self.problem(place, line.chain(), line.seq(), ProblemKind::Altered);
        }
        if line.seq() <= last {
            let kind = ProblemKind::Reordered { after: last };
            return self.problem(place, line.chain(), line.seq(), kind);
        }
        if line.seq() > last + 1 {
            let kind = ProblemKind::Removed { first: last + 1, last: line.seq() - 1 };
            return self.problem(place, line.chain(), line.seq(), kind);
        }
        if line.prev() != state.hash {
            let before = Place { file: &last_place.0, line: last_place.1 };
            self.problem(before, line.chain(), last, ProblemKind::Rechained);
        }
    }

    fn not_a_record(&mut self, place: Place<'_>) {
        let last = self.order.last().and_then(|id| self.chains.get(id));
        let (chain, seq) = last.map(|state| (state.report.id.clone(), state.report.last + 1)).unwrap_or_default();
        self.problem(place, &chain, seq, ProblemKind::NotARecord);
    }

    fn problem(&mut self, place: Place<'_>, chain: &str, seq: u64, kind: ProblemKind) {
        let (file, line) = (place.file.to_owned(), place.line);
        self.report.problem = Some(Problem { file, line, chain: chain.into(), seq, kind });
    }

    /// A number that was skipped and comes later was moved, not removed: looks through the rest of the file.
    fn look_behind(&mut self, rest: &mut impl BufRead) {
        let Some(problem) = &mut self.report.problem else { return };
        let ProblemKind::Removed { first, .. } = problem.kind else { return };
        for text in rest.lines().map_while(Result::ok) {
            if Line::parse(&text).is_some_and(|line| line.chain() == problem.chain && line.seq() == first) {
                problem.kind = ProblemKind::Reordered { after: problem.seq };
                problem.seq = first;
                return;
            }
        }
    }

    fn finish(mut self) -> Report {
        if self.report.problem.is_none() {
            self.check_followers();
        }
        if self.report.problem.is_none() {
            self.check_predecessors();
        }
        let chains = &mut self.chains;
        self.report.chains = self.order.iter().filter_map(|id| chains.remove(id)).map(|state| state.report).collect();
        self.report
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a Path,
    line: usize,
}

impl State {
    fn new(line: &Line<'_>, key: Option<PublicKey>, place: Place<'_>) -> Self {
        Self {
            report: ChainReport {
                id: line.chain().into(),
                instance: line.instance().unwrap_or_default().into(),
                public_key: line.public_key().unwrap_or_default().into(),
                first: line.seq(),
                signed_to: line.seq() - 1,
                ..ChainReport::default()
            },
            key,
            hash: String::new(),
            tail: Vec::new(),
            stop: None,
            checkpoint_records: line.checkpoint_records().unwrap_or(1),
            follows: line.follows().cloned(),
            first_place: (place.file.into(), place.line),
            last_place: (place.file.into(), place.line),
        }
    }

    /// Takes a line that stands where it should; says what is wrong with it all the same.
    fn accept(&mut self, line: &Line<'_>, place: Place<'_>) -> Option<ProblemKind> {
        if !line.is_whole() {
            return Some(ProblemKind::Altered);
        }
        self.report.last = line.seq();
        self.hash = line.hash.to_owned();
        self.last_place = (place.file.into(), place.line);
        self.report.lost += line.lost().unwrap_or(0);
        self.report.stopped = line.kind() == "stop";
        let must_sign = matches!(line.kind(), "start" | "file" | "checkpoint" | "gap" | "stop");
        let signs = must_sign || line.signature.is_some();
        // A file that was full at the stop was closed after it, with signed lines.
        if let Some(after) = self.stop.filter(|_| !signs) {
            return Some(ProblemKind::Added { after });
        }
        if line.kind() == "stop" {
            self.stop = Some(line.seq());
        }
        if signs {
            self.tail.clear();
            let signed = line
                .signature
                .zip(self.key)
                .is_some_and(|(signature, key)| key.verifies(&signed_text(line.hash), signature));
            if !signed {
                let key = self.report.public_key.clone();
                return Some(ProblemKind::Signature { key, since: self.report.signed_to + 1 });
            }
            self.report.signed_to = line.seq();
        }
        self.tail.push(line.content_hash);
        let unsigned = line.seq() - self.report.signed_to;
        (unsigned > self.checkpoint_records).then_some(ProblemKind::NoCheckpoint(unsigned))
    }
}
