//! One record per decision and per administrative write, as a chain of JSON lines that shows every later change.
//!
//! [`Auditor::record`] takes a record, and [`Auditor::format`] formats some in a row where they were made, once their answers have
//! left, and hands the octets over a bounded queue: neither waits, or fails a request. Records carry what a decision was made
//! from and can be replayed from; never a token, a token's id or a secret.

mod body;
mod chain;
mod facts;
mod identities;
mod key;
mod line;
mod recent;
mod record;
#[cfg(test)]
mod sample;
mod settings;
mod shared;
mod sink;
#[cfg(test)]
mod tests;
mod verify;
mod waiting;
mod writer;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub(super) use self::writer::rfc3339;
use self::{chain::Chain, shared::Shared, waiting::Lines, writer::Writer};
pub use self::{
    key::{PublicKey, SigningKey},
    line::is_of_log,
    record::{AdminRecord, AuditRecord, Recorded, Shadow, fingerprint},
    settings::{OnFull, Settings, Sink},
    shared::Counters,
    verify::{ChainReport, Problem, ProblemKind, Report, verify, verify_rest},
};
use super::shadow::Shadows;
use crate::{
    clock::Clock,
    domain::{
        DecisionId, UnixTime,
        metric::{Page, Source},
    },
};

/// Why auditing could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("audit: cannot use the signing key `{path}`")]
    Key { path: PathBuf, source: io::Error },
    #[error("audit: cannot write records")]
    Sink(#[source] io::Error),
    #[error("audit: the cryptographic library refused")]
    Crypto,
}

/// How long the last records may take to be written: whoever reads standard output may have stopped to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes records. Dropping it without [`Auditor::close`] leaves the chain without its last, signed line.
#[derive(Debug)]
pub struct Auditor {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
    on_full: OnFull,
    /// `sink: none`: records are kept for `explain` for a while, and written nowhere.
    unwritten: bool,
    chain: String,
}

enum Message {
    /// Decisions and their lines, where lines are written; of the records only those that are kept for `explain`.
    Decisions {
        count: usize,
        lines: Option<Lines>,
        kept: Vec<AuditRecord>,
    },
    /// A decision that the shadow rules judge before it is formatted: their verdict belongs into its line.
    Unjudged(Box<AuditRecord>),
    Admin(Box<AdminRecord>),
    Flush(SyncSender<bool>),
}

impl Auditor {
    /// Opens key and sink and starts the writer's thread.
    ///
    /// # Errors
    ///
    /// Where the key cannot be read or made, or the folder cannot be written to.
    pub fn start(settings: &Settings, clock: Clock) -> Result<Arc<Self>, Error> {
        let key = settings.key.as_deref().map_or_else(SigningKey::generate, SigningKey::open)?;
        let chain = Chain::new(key)?;
        let id = chain.id().to_owned();
        let instance = settings.instance_name();
        let follows = sink::last_line(settings, &instance);
        let sink = sink::Sink::open(settings, &instance, clock.now()).map_err(Error::Sink)?;
        let shared = Arc::new(Shared::new(settings.queue));
        let (sender, queue) = sync_channel(settings.queue);
        let writer = Writer {
            queue,
            shared: Arc::clone(&shared),
            chain,
            sink,
            clock,
            instance,
            settings: settings.clone(),
            follows,
            pending: Vec::new(),
            time: (UnixTime::EPOCH, rfc3339(UnixTime::EPOCH)),
            unsigned: 0,
            signed_at: Instant::now(),
        };
        let thread = thread::Builder::new().name("audit".into()).spawn(|| writer.run()).map_err(Error::Sink)?;
        Ok(Arc::new(Self {
            queue: sender,
            shared,
            writer: Mutex::new(Some(thread)),
            on_full: settings.on_full,
            unwritten: settings.sink == Sink::None,
            chain: id,
        }))
    }

    /// Takes the record of a decision. Never waits.
    ///
    /// Not every allow is kept for `explain`: memory that is used again at once costs a check far less than memory that
    /// comes back after thousands of others.
    pub fn record(&self, record: AuditRecord) {
        if self.shared.shadows.is_on() {
            return self.send(Message::Unjudged(Box::new(record)));
        }
        if self.unwritten {
            if self.shared.recent.wants(&record) {
                self.send(Message::Decisions { count: 1, lines: None, kept: vec![record] });
            }
            return;
        }
        if self.shared.is_full() || self.shared.is_stopping() {
            return self.lose();
        }
        self.shared.counters.recorded.increment();
        self.expect_one();
        if self.shared.waiting.push(record) {
            self.format();
        }
    }

    /// Formats what this thread has recorded, a few µs for each record, where that is enough by now to be worth it. Nobody need
    /// call this: what is left for 5 ms is formatted by the writer's thread.
    pub fn format(&self) {
        while let Some(records) = self.shared.waiting.take_own() {
            let sent = self.queue.try_send(self.shared.formatted(records));
            if let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) = sent {
                self.shared.taken(message.records());
                (0..message.records()).for_each(|_| self.lose());
            }
        }
    }

    /// Hands over the record of an administrative write, made or refused.
    pub fn admin(&self, record: AdminRecord) {
        self.send(Message::Admin(Box::new(record)));
    }

    fn send(&self, message: Message) {
        self.expect_one();
        match self.queue.try_send(message) {
            Ok(()) => self.shared.counters.recorded.increment(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.taken(1);
                self.lose();
            }
        }
    }

    /// Counts what the writer is to take, and wakes it where that becomes much.
    fn expect_one(&self) {
        if self.shared.queued.fetch_add(1, Ordering::Relaxed) == self.shared.capacity / 2 {
            self.wake();
        }
    }

    fn lose(&self) {
        self.shared.counters.lost.increment();
        self.shared.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn wake(&self) {
        if let Some(writer) = &*self.writer.lock() {
            writer.thread().unpark();
        }
    }

    /// Whether a record would certainly be taken and can be written. A sixteenth of the queue is held back, so that requests
    /// that asked at the same time find room as well.
    pub fn has_room(&self) -> bool {
        let capacity = self.shared.capacity;
        self.shared.queued.load(Ordering::Relaxed) < capacity - capacity / 16 && !self.shared.is_failing()
    }

    /// Whether a request must be refused because it cannot be recorded. `demanded`: its policy says `audit_all_access`.
    /// Without a sink nothing can be recorded, so what demands a record is refused.
    pub fn must_refuse(&self, demanded: bool) -> bool {
        if self.unwritten { demanded } else { (demanded || self.on_full == OnFull::Refuse) && !self.has_room() }
    }

    /// Waits until everything recorded so far is written and on disk. Blocks: not for a runtime's thread.
    /// Says whether it is.
    pub fn flush(&self) -> bool {
        let (done, wait) = sync_channel(1);
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        if self.queue.send(Message::Flush(done)).is_err() {
            self.shared.taken(1);
            return false;
        }
        self.wake();
        wait.recv().unwrap_or(false)
    }

    /// Writes what waits and a signed last line, and ends the writer. Blocks, for 5 s at most. Later records count as lost.
    pub fn close(&self) {
        if let Err(unwritten) = self.close_within(PATIENCE) {
            tracing::error!(records = unwritten, "the audit's sink takes nothing: the last records were not written");
        }
    }

    /// # Errors
    ///
    /// How many records were not written in time; none where only the signed last line was not.
    fn close_within(&self, patience: Duration) -> Result<(), usize> {
        self.shared.stopping.store(true, Ordering::Release);
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            writer.thread().unpark();
            let since = Instant::now();
            while !writer.is_finished() {
                if since.elapsed() >= patience {
                    return Err(self.shared.unwritten());
                }
                thread::park_timeout(Duration::from_millis(2));
            }
            if writer.join().is_err() {
                tracing::error!("the audit writer had panicked");
            }
        }
        // What came in between.
        self.shared.waiting.take_all().iter().for_each(|_| self.lose());
        Ok(())
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// A decision made not long ago, for `explain`. Its token's id is taken out.
    pub fn recent(&self, id: DecisionId) -> Option<Arc<AuditRecord>> {
        self.shared.recent.find(id).map(|record| shown(&record))
    }

    /// The last refusals, newest first.
    pub fn recent_refusals(&self, count: usize) -> Vec<Arc<AuditRecord>> {
        self.shared.recent.refusals(count).iter().map(shown).collect()
    }

    /// When the last decision was made; `None`: none was.
    pub fn last_decision(&self) -> Option<UnixTime> {
        self.shared.recent.last()
    }

    /// The second set of rules, which the writer judges every record by.
    pub fn shadows(&self) -> &Shadows {
        &self.shared.shadows
    }

    /// The id of this process's chain, as its records carry it.
    pub fn chain(&self) -> &str {
        &self.chain
    }
}

/// Records are kept as they are: few are ever asked for.
fn shown(record: &Arc<AuditRecord>) -> Arc<AuditRecord> {
    let mut record = AuditRecord::clone(record);
    record.redact();
    Arc::new(record)
}

impl Message {
    /// As how many it is counted.
    const fn records(&self) -> usize {
        match self {
            Self::Decisions { count, .. } => *count,
            Self::Unjudged(_) | Self::Admin(_) | Self::Flush(_) => 1,
        }
    }
}

impl Source for Auditor {
    fn collect(&self, page: &mut Page) {
        let counters = self.counters();
        page.counter("countersign_audit_records", "Records handed to the writer", &[], &counters.recorded);
        page.counter("countersign_audit_lost", "Records lost to a full queue", &[], &counters.lost);
        page.counter("countersign_audit_write_errors", "Failed attempts to write", &[], &counters.write_errors);
        page.counter("countersign_audit_checkpoints", "Signed checkpoints written", &[], &counters.checkpoints);
        let queued = self.shared.queued.load(Ordering::Relaxed) as f64;
        page.gauge("countersign_audit_queue_length", "Records that wait for the writer", &[], queued);
        self.shadows().collect(page);
    }
}
