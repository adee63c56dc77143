//! Files of rules: read at the start, read again when something under them changes.
//!
//! A change is taken up whole or not at all: what cannot be loaded leaves the last good rules in force, and says so in a
//! log line with file and line and in a counter. Works with editors that replace files, with `git checkout`, and with the
//! symlink swaps of Kubernetes ConfigMaps. SIGHUP reads again too.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::watch::whenever;
use crate::{
    document::{Diagnostic, Mark, Source},
    domain::metric::{self, Counter, Gauge, Page},
    policy::{self, Loaded, Options, Rules, SourceFile},
};

/// What is read from a folder.
const KINDS: [&str; 5] = ["yaml", "yml", "cedar", "cedarschema", "json"];

/// Larger files are no rules.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Folders within folders, at most.
const MAX_DEPTH: usize = 16;

/// Which rules: those in force, or those tried beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    #[default]
    Live,
    Shadow,
}

/// How reloads went.
#[derive(Debug, Default)]
pub struct Counters {
    which: Which,
    pub loaded: Counter,
    pub failed: Counter,
    /// 1: the rules in force are those of the files. 0: the files hold something that cannot be used.
    pub current: Gauge,
}

impl metric::Source for Counters {
    fn collect(&self, page: &mut Page) {
        let (name, current) = match self.which {
            Which::Live => ("countersign_rules_reloads", "countersign_rules_current"),
            Which::Shadow => ("countersign_shadow_rules_reloads", "countersign_shadow_rules_current"),
        };
        let help = "Changes of the rules' files, by outcome";
        page.counter(name, help, &[("outcome", "loaded")], &self.loaded);
        page.counter(name, help, &[("outcome", "failed")], &self.failed);
        let help = "1: the rules in force are those of the files; 0: the files cannot be used";
        page.gauge(current, help, &[], self.current.get());
    }
}

/// Reads every file that `paths` name; folders are read whole, in the order of their names. Hidden entries are left out.
///
/// # Errors
///
/// One problem for each path that cannot be read.
pub fn read(paths: &[PathBuf]) -> Result<Vec<SourceFile>, Vec<Diagnostic>> {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        if let Err((path, error)) = collect(path, MAX_DEPTH, true, &mut files) {
            let at = Mark::whole(Source::new(path.display().to_string(), ""));
            problems.push(Diagnostic::error(at, "", format!("cannot be read: {}", super::reason(&error))));
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}

fn collect(path: &Path, depth: usize, named: bool, files: &mut Vec<SourceFile>) -> Result<(), (PathBuf, io::Error)> {
    let fail = |error| (path.to_owned(), error);
    let about = fs::metadata(path).map_err(fail)?;
    if about.is_dir() {
        if depth == 0 {
            return Err(fail(io::Error::other("folders are nested too deeply")));
        }
        let entries: Result<Vec<_>, _> =
            fs::read_dir(path).map_err(fail)?.map(|entry| entry.map(|e| e.path())).collect();
        let mut entries = entries.map_err(fail)?;
        entries.sort();
        // `..data` of a ConfigMap is hidden; the links beside it are read.
        let hidden = |path: &PathBuf| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        return entries.iter().filter(|path| !hidden(path)).try_for_each(|path| collect(path, depth - 1, false, files));
    }
    if let Some(why) = no_rules(path, &about) {
        // What lies in a folder beside rules need not be rules; what is named was meant to be.
        return if named { Err(fail(io::Error::other(why))) } else { Ok(()) };
    }
    if about.len() > MAX_FILE {
        return Err(fail(io::Error::other("larger than 16 MiB")));
    }
    let text = fs::read_to_string(path).map_err(fail)?;
    files.push(SourceFile::new(path.display().to_string(), text));
    Ok(())
}

/// Why what is no folder is not read. What is no regular file is not even opened: a pipe would be waited for for ever.
fn no_rules(path: &Path, about: &fs::Metadata) -> Option<&'static str> {
    let known = |extension: &OsStr| KINDS.iter().any(|kind| extension.eq_ignore_ascii_case(kind));
    if !path.extension().is_some_and(known) {
        return Some("its name ends in none of .yaml, .yml, .cedar, .cedarschema, .json");
    }
    (!about.is_file()).then_some("it is no regular file")
}

/// Loads what was read from `paths`, with a warning where they hold no resource at all.
///
/// # Errors
///
/// Every problem of every file.
pub fn load(paths: &[PathBuf], files: &[SourceFile], options: &Options) -> Result<Loaded, Vec<Diagnostic>> {
    let mut loaded = policy::load(files, options.clone())?;
    if !paths.is_empty() && loaded.rules.resources().is_empty() {
        let message = "no resource in any file: everything is refused";
        loaded.warnings.push(Diagnostic::warning(whole(paths), "", message).hint("list some under `resources`"));
    }
    Ok(loaded)
}

/// All of `paths` as the place of a problem.
fn whole(paths: &[PathBuf]) -> Mark {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    Mark::whole(Source::new(names.join(", "), ""))
}

/// Watches `paths`. When their content changes and can be used, `apply` is given the new rules. `in_force` is what the
/// rules in force were made of.
pub fn watch(
    paths: Vec<PathBuf>,
    in_force: Vec<SourceFile>,
    options: Options,
    apply: impl Fn(Rules) + Send + Sync + 'static,
    stop: CancellationToken,
) -> (Arc<Counters>, JoinHandle<()>) {
    let counters = Arc::new(Counters::default());
    counters.current.set(1.0);
    let reloader = Reloader { paths, in_force, tried: None, options, apply, counters: Arc::clone(&counters) };
    (counters, tokio::spawn(reloader.run(stop)))
}

/// Takes up the shadow rules of `paths` now, and watches them. What cannot be used leaves them out: it never keeps a
/// process from starting, since nothing live depends on it.
pub fn watch_shadow(
    paths: Vec<PathBuf>,
    options: Options,
    apply: impl Fn(Rules) + Send + Sync + 'static,
    stop: CancellationToken,
) -> Arc<Counters> {
    let counters = Arc::new(Counters { which: Which::Shadow, ..Counters::default() });
    let shared = Arc::clone(&counters);
    let mut reloader = Reloader { paths, in_force: Vec::new(), tried: None, options, apply, counters: shared };
    reloader.reload(&read(&reloader.paths), true);
    tokio::spawn(reloader.run(stop));
    counters
}

/// What the files hold.
type Found = Result<Vec<SourceFile>, Vec<Diagnostic>>;

struct Reloader<A> {
    paths: Vec<PathBuf>,
    in_force: Vec<SourceFile>,
    /// What was tried last and could not be used: told once, not at every look.
    tried: Option<Found>,
    options: Options,
    apply: A,
    counters: Arc<Counters>,
}

impl<A: Fn(Rules) + Send + Sync + 'static> Reloader<A> {
    async fn run(mut self, stop: CancellationToken) {
        let paths = self.paths.clone();
        let read = move || read(&paths);
        whenever(self.paths.clone(), read, move |found, asked| self.reload(found, asked), stop).await;
    }

    /// Rules that are gone altogether were moved, or not mounted yet: nobody empties a folder to have everything refused.
    fn load(&self, files: &[SourceFile]) -> Result<Loaded, Vec<Diagnostic>> {
        let some = |files: &[SourceFile]| files.iter().any(SourceFile::holds_rules);
        if some(&self.in_force) && !some(files) {
            return Err(vec![Diagnostic::error(whole(&self.paths), "", "no file of rules is left")]);
        }
        load(&self.paths, files, &self.options)
    }

    /// Takes up what the files say, if that is something new. `asked`: say so also when it is not.
    fn reload(&mut self, read: &Found, asked: bool) {
        let unchanged = match read {
            Ok(files) => *files == self.in_force && self.tried.is_none(),
            Err(_) => false,
        };
        if (unchanged || self.tried.as_ref() == Some(read)) && !asked {
            return;
        }
        let loaded = read.as_ref().map_err(Clone::clone).and_then(|files| self.load(files));
        match (loaded, read) {
            (Ok(loaded), Ok(files)) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                let version = &**loaded.rules.version();
                tracing::info!(files = files.len(), version, "{} reloaded", self.counters.which.named());
                (self.apply)(loaded.rules);
                self.counters.loaded.increment();
                self.counters.current.set(1.0);
                self.in_force.clone_from(files);
                self.tried = None;
            }
            (Err(problems), read) => {
                tell(&problems, self.counters.which);
                self.counters.failed.increment();
                self.counters.current.set(0.0);
                self.tried = Some(read.clone());
            }
            // `loaded` is an error whenever `read` is.
            (Ok(_), Err(_)) => {}
        }
    }
}

impl Which {
    const fn named(self) -> &'static str {
        match self {
            Self::Live => "rules",
            Self::Shadow => "shadow rules",
        }
    }
}

/// One log line for each problem, the first hundred.
fn tell(problems: &[Diagnostic], which: Which) {
    for problem in problems.iter().filter(|problem| problem.is_error()).take(100) {
        tracing::error!(
            file = problem.file(),
            line = problem.line(),
            column = problem.column(),
            "{} not reloaded, the last good ones stay in force: {problem}",
            which.named()
        );
    }
}
