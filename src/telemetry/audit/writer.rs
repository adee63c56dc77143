//! The thread that turns records into sealed lines. Hashing, signing and waiting for disks happen here only.

use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Message, Settings, chain::Chain, line::Line, shared::Shared, sink::Sink, waiting::Lines};
use crate::{clock::Clock, domain::UnixTime};

/// How long an empty queue is left alone. Records are not urgent; waking a thread from a request would cost it a system call.
const IDLE: Duration = Duration::from_millis(5);
/// How long a sink that failed is left alone.
const RETRY: Duration = Duration::from_millis(500);
/// Octets that are sealed before they are written.
const BATCH: usize = 256 * 1024;

pub(super) struct Writer {
    pub(super) queue: Receiver<Message>,
    pub(super) shared: Arc<Shared>,
    pub(super) chain: Chain,
    pub(super) sink: Sink,
    pub(super) clock: Clock,
    pub(super) instance: String,
    pub(super) settings: Settings,
    pub(super) follows: Option<String>,
    pub(super) pending: Vec<u8>,
    /// The time of the last decision, as it is written: thousands share one.
    pub(super) time: (UnixTime, String),
    pub(super) unsigned: u64,
    pub(super) signed_at: Instant,
}

/// Body of the first line of a chain (`start`) and of each file after the first (`file`).
#[derive(Serialize)]
struct Opening<'a> {
    instance: &'a str,
    version: &'a str,
    public_key: String,
    checkpoint_records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    follows: Option<Follows<'a>>,
}

/// The last line of this instance's chain before.
#[derive(Serialize)]
struct Follows<'a> {
    chain: &'a str,
    seq: u64,
    hash: &'a str,
}

/// Body of a line that says that records are missing.
#[derive(Serialize)]
struct Gap {
    lost: u64,
    reason: &'static str,
}

/// Body of a checkpoint: how many lines it vouches for beyond the signed one before.
#[derive(Serialize)]
struct Checkpoint {
    records: u64,
}

impl Writer {
    /// Works until the queue's senders are gone or the stop flag is set, then leaves a signed last line.
    pub(super) fn run(mut self) {
        self.open("start");
        loop {
            let drained = self.drain();
            self.note_losses();
            if self.unsigned > 0 && self.signed_at.elapsed() >= self.settings.checkpoint_every.get() {
                self.checkpoint("checkpoint");
            }
            let written = self.write();
            self.report(&written);
            match (drained, written) {
                (Drained::Closed, _) => break,
                (_, Err(_)) if self.shared.is_stopping() => break,
                (_, Err(_)) => thread::park_timeout(RETRY),
                (Drained::Empty, Ok(())) => thread::park_timeout(IDLE),
                (Drained::More, Ok(())) => {}
            }
        }
        self.finish();
    }

    /// Seals what waits, up to a batch.
    fn drain(&mut self) -> Drained {
        while self.pending.len() < BATCH {
            // Read before the queue is found empty: what was sent before the stop is still written.
            let stopping = self.shared.is_stopping();
            match self.queue.try_recv() {
                Ok(message) => {
                    self.shared.taken(message.records());
                    self.seal(message);
                }
                Err(error) => {
                    self.take_waiting();
                    let open = error == TryRecvError::Empty && !stopping;
                    return if open { Drained::Empty } else { Drained::Closed };
                }
            }
        }
        Drained::More
    }

    /// Formats and seals what waits in lists that are not long enough yet.
    fn take_waiting(&mut self) {
        let records = self.shared.waiting.take_all();
        if !records.is_empty() {
            self.shared.taken(records.len());
            let message = self.shared.formatted(records);
            self.seal(message);
        }
    }

    fn seal(&mut self, message: Message) {
        match message {
            Message::Decisions { count: _, lines, kept } => {
                lines.iter().flat_map(Lines::iter).for_each(|(at, body)| self.decision(at, body));
                kept.into_iter().for_each(|record| self.shared.recent.keep(record.into()));
            }
            Message::Unjudged(mut record) => {
                record.shadow = self.shared.shadows.judge(&record);
                let records = vec![*record];
                let unwritten = matches!(self.sink, Sink::None);
                let message =
                    if unwritten { self.shared.decisions(records, None) } else { self.shared.formatted(records) };
                self.seal(message);
            }
            Message::Admin(record) => {
                // What was decided before it.
                self.take_waiting();
                let time = rfc3339(record.at);
                self.line("admin", &time, &*record, false);
            }
            Message::Flush(done) => {
                self.take_waiting();
                let written = self.write();
                self.report(&written);
                let written = written.and_then(|()| self.sink.sync(true));
                // Nobody waits any more: nothing to tell.
                let _ = done.send(written.is_ok());
            }
        }
    }

    fn decision(&mut self, at: UnixTime, body: &[u8]) {
        if self.time.0 != at {
            self.time = (at, rfc3339(at));
        }
        let sealed = self.chain.seal_written("decision", &self.time.1, body, &mut self.pending);
        self.count(&sealed, false);
    }

    fn line<B: Serialize>(&mut self, kind: &str, time: &str, body: &B, signed: bool) {
        let sealed = self.chain.seal(kind, time, body, signed, &mut self.pending);
        self.count(&sealed, signed);
    }

    fn count(&mut self, sealed: &Result<(), serde_json::Error>, signed: bool) {
        match sealed {
            Ok(()) if signed => (self.unsigned, self.signed_at) = (0, Instant::now()),
            Ok(()) => {
                self.unsigned += 1;
                self.shared.sealed.fetch_add(1, Ordering::Relaxed);
            }
            // Not representable as JSON: cannot be with our types, and is counted if it ever is.
            Err(_) => self.shared.counters.lost.increment(),
        }
        if self.unsigned >= self.settings.checkpoint_records {
            self.checkpoint("checkpoint");
        }
    }

    fn checkpoint(&mut self, kind: &str) {
        let time = rfc3339(self.clock.now());
        self.line(kind, &time, &Checkpoint { records: self.unsigned }, true);
        self.shared.counters.checkpoints.increment();
    }

    fn open(&mut self, kind: &str) {
        let before = self.follows.take();
        let before = before.as_deref().and_then(Line::parse);
        let follows = before.as_ref().map(|line| Follows { chain: line.chain(), seq: line.seq(), hash: line.hash });
        let opening = Opening {
            instance: &self.instance.clone(),
            version: env!("CARGO_PKG_VERSION"),
            public_key: self.chain.key().public().to_string(),
            checkpoint_records: self.settings.checkpoint_records,
            follows,
        };
        let time = rfc3339(self.clock.now());
        self.line(kind, &time, &opening, true);
    }

    fn note_losses(&mut self) {
        let lost = self.shared.take_lost();
        if lost > 0 {
            let time = rfc3339(self.clock.now());
            self.line("gap", &time, &Gap { lost, reason: "queue_full" }, true);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.sink.write(&mut self.pending)?;
        self.shared.sealed.store(0, Ordering::Relaxed);
        if self.sink.should_rotate() {
            self.checkpoint("checkpoint");
            self.sink.write(&mut self.pending)?;
            self.sink.rotate()?;
            self.open("file");
            self.sink.write(&mut self.pending)?;
        }
        self.sink.sync(false)
    }

    /// Says once that the sink fails, and once that it works again.
    fn report(&self, written: &io::Result<()>) {
        let failed = written.is_err();
        if let Err(error) = written {
            self.shared.counters.write_errors.increment();
            if !self.shared.is_failing() {
                tracing::error!(%error, "audit records cannot be written; they wait in the queue");
            }
        } else if self.shared.is_failing() {
            tracing::info!("audit records can be written again");
        }
        self.shared.set_failing(failed);
    }

    fn finish(&mut self) {
        self.checkpoint("stop");
        // Into a full file as well: nothing comes after this line.
        if let Err(error) = self.sink.write(&mut self.pending).and_then(|()| self.sink.sync(true)) {
            tracing::error!(%error, octets = self.pending.len(), "the last audit records could not be written");
        }
    }
}

enum Drained {
    /// The batch is full.
    More,
    Empty,
    /// Nothing more will come.
    Closed,
}

/// `2026-11-23T02:00:00.123Z`.
pub(in crate::telemetry) fn rfc3339(time: UnixTime) -> String {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}
