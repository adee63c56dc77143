//! `countersign device import`: a file of devices into the registry, with progress, resumable.

use std::{
    fs,
    io::{BufReader, IsTerminal as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tonic::Code;

use super::{
    super::client::{Connection, Failure, FleetClient},
    fleet::Format,
    source::{Line, Source},
};
use crate::wire::admin::{Device, ImportRequest};

/// Devices in one call.
const BATCH: usize = 1000;
/// How often a call is tried while the server or its store is away, and the wait before the second time.
const TRIES: u32 = 9;
const WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Where nobody watches a bar, a line is printed this often.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Bad lines that are printed; the rest is counted.
const MOST_TOLD: u64 = 100;

/// Import devices from a file: JSON lines (one object a line) or CSV (the first line names the columns).
///
/// Fields as in `put`. What a line does not set stays as it is. A bad line is told by its number, and everything else is
/// imported; the exit code is then 1. Where the import ends early, `--resume` goes on after the last batch that was
/// written: what was done stands in FILE.progress.
#[derive(Debug, Args)]
pub(super) struct Import {
    file: PathBuf,
    /// Default: by the name of the file (`.csv`, everything else is JSON lines).
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Go on where an earlier import of this file ended. Refused when the part that was read has changed since.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What was done, beside the file.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    line: u64,
    offset: u64,
    /// SHA-256 of everything up to there.
    sha256: String,
}

#[derive(Debug, Default)]
struct Tally {
    written: u64,
    refused: u64,
}

impl Import {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let unreadable = |error| Failure::usage(format!("{} cannot be read: {error}", self.file.display()));
        let file = fs::File::open(&self.file).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let extension = self.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let csv = self.format.map_or(extension, |format| format == Format::Csv);
        let mut source = Source::new(BufReader::with_capacity(256 * 1024, file), csv);
        if self.resume {
            self.go_on(&mut source)?;
        }
        let mut client = self.connection.connect_fleet().await?;
        let mut bar = Bar::new(length);
        let mut tally = Tally::default();
        let result = self.all(&mut source, &mut client, &mut bar, &mut tally).await;
        bar.end();
        eprintln!("{} written, {} refused, {} lines read", tally.written, tally.refused, source.at.line);
        result?;
        if tally.refused > 0 {
            return Err(Failure::failed(format!("{} lines were not imported", tally.refused)));
        }
        // Done: there is nothing to resume.
        let _ = fs::remove_file(self.progress_file());
        Ok(())
    }

    async fn all(
        &self,
        source: &mut Source<BufReader<fs::File>>,
        client: &mut FleetClient,
        bar: &mut Bar,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        loop {
            let mut batch: Vec<(u64, Device)> = Vec::with_capacity(BATCH);
            let mut torn = None;
            let mut ended = false;
            while batch.len() < BATCH {
                match source.next().map_err(|error| Failure::failed(format!("line {}: {error}", source.at.line + 1)))? {
                    None => {
                        ended = true;
                        break;
                    }
                    Some(Line::Nothing) => {}
                    Some(Line::Device(device)) => batch.push((source.at.line, *device)),
                    Some(Line::Bad(why)) => refuse(bar, tally, source.at.line, &why),
                    Some(Line::Torn(why)) => {
                        torn = Some(why);
                        break;
                    }
                }
            }
            if !batch.is_empty() {
                self.write(client, batch, bar, tally).await?;
            }
            self.note(&source.at)?;
            bar.at(source.at.offset, source.at.line);
            if let Some(why) = torn {
                let line = source.at.line + 1;
                let message = format!("line {line}: the file ends in the middle of it ({why}); go on with --resume");
                return Err(Failure::failed(message));
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// One call, tried again while the server is away: writing a record twice changes nothing.
    async fn write(
        &self,
        client: &mut FleetClient,
        batch: Vec<(u64, Device)>,
        bar: &mut Bar,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let (lines, devices): (Vec<u64>, Vec<Device>) = batch.into_iter().unzip();
        let mut wait = WAIT;
        for attempt in 1.. {
            match client.import(ImportRequest { devices: devices.clone() }).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    tally.written += u64::from(answer.written);
                    for refused in answer.refused {
                        let line = lines.get(refused.index as usize).copied().unwrap_or_default();
                        refuse(bar, tally, line, &refused.message);
                    }
                    return Ok(());
                }
                Err(status) if attempt < TRIES && may_pass(status.code()) => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                Err(status) => {
                    let (first, why) = (lines.first().copied().unwrap_or_default(), Failure::from(status));
                    return Err(Failure::failed(format!("from line {first} on: {why}; go on with --resume")));
                }
            }
        }
        Ok(())
    }

    fn go_on(&self, source: &mut Source<BufReader<fs::File>>) -> Result<(), Failure> {
        let path = self.progress_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Failure::usage(format!("{} cannot be read: {error}", path.display()))),
        };
        let progress: Progress = serde_json::from_str(&text)
            .map_err(|_| Failure::usage(format!("{} is no progress file", path.display())))?;
        let there = source.skip_to(progress.line).map_err(|error| Failure::failed(error.to_string()))?;
        if !there || source.at.digest() != progress.sha256 {
            let message = format!(
                "{} has changed before line {}: import it without --resume",
                self.file.display(),
                progress.line
            );
            return Err(Failure::usage(message));
        }
        eprintln!("going on after line {}", progress.line);
        Ok(())
    }

    fn note(&self, at: &super::source::Position) -> Result<(), Failure> {
        let path = self.progress_file();
        let progress = Progress { line: at.line, offset: at.offset, sha256: at.digest() };
        let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("{}: {error}", path.display()));
        let text = serde_json::to_string(&progress).map_err(|error| failed(&error))?;
        let new = path.with_extension("progress.new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(|error| failed(&error))
    }

    fn progress_file(&self) -> PathBuf {
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(".progress");
        self.file.parent().unwrap_or(Path::new("")).join(name)
    }
}

fn may_pass(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted)
}

fn refuse(bar: &Bar, tally: &mut Tally, line: u64, why: &str) {
    tally.refused += 1;
    if tally.refused <= MOST_TOLD {
        bar.say(&format!("line {line}: {why}"));
    } else if tally.refused == MOST_TOLD + 1 {
        bar.say("more bad lines follow; they are counted");
    }
}

/// A bar on a terminal, a line now and then elsewhere.
struct Bar {
    bar: Option<ProgressBar>,
    length: u64,
    started: Instant,
    said: Instant,
}

impl Bar {
    fn new(length: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(length);
            let style = "{bar:40} {bytes}/{total_bytes} {msg} {eta} left";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, length, started: Instant::now(), said: Instant::now() }
    }

    fn at(&mut self, offset: u64, line: u64) {
        let rate = line as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        match &self.bar {
            Some(bar) => {
                bar.set_position(offset);
                bar.set_message(format!("line {line}, {rate:.0}/s"));
            }
            None if self.said.elapsed() >= SAY_EVERY => {
                self.said = Instant::now();
                eprintln!("line {line}, {}%, {rate:.0}/s", (offset * 100).checked_div(self.length).unwrap_or(100));
            }
            None => {}
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
