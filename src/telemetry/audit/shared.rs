//! What requests and the writer both touch: how much waits, what became of it, and whether records can be written.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::{
    AuditRecord, Message,
    recent::Recent,
    waiting::{Lines, Waiting},
};
use crate::{domain::metric::Counter, telemetry::shadow::Shadows};

/// What requests and the writer both touch.
#[derive(Debug)]
pub(super) struct Shared {
    /// Records that the writer has not taken, in lists and in the queue.
    pub(super) queued: AtomicUsize,
    pub(super) waiting: Waiting,
    pub(super) capacity: usize,
    /// Since the last gap record.
    pub(super) lost: AtomicU64,
    /// Records that the writer has taken and not yet written.
    pub(super) sealed: AtomicUsize,
    failing: AtomicBool,
    pub(super) stopping: AtomicBool,
    pub(super) counters: Counters,
    pub(super) recent: Recent,
    pub(super) shadows: Shadows,
}

/// What happened to records since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub recorded: Counter,
    pub lost: Counter,
    pub write_errors: Counter,
    pub checkpoints: Counter,
}

impl Shared {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queued: AtomicUsize::new(0),
            waiting: Waiting::default(),
            capacity,
            lost: AtomicU64::new(0),
            sealed: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            counters: Counters::default(),
            recent: Recent::default(),
            shadows: Shadows::default(),
        }
    }

    /// Formats records in a row.
    pub(super) fn formatted(&self, records: Vec<AuditRecord>) -> Message {
        let mut lines = Lines::with_room_for(records.len());
        for record in &records {
            if lines.add(record).is_err() {
                // Not representable as JSON: cannot be with our types, and is counted if it ever is.
                self.counters.lost.increment();
            }
        }
        self.decisions(records, Some(lines))
    }

    pub(super) fn decisions(&self, records: Vec<AuditRecord>, lines: Option<Lines>) -> Message {
        let count = records.len();
        let kept = records.into_iter().filter(|record| self.recent.wants(record)).collect();
        Message::Decisions { count, lines, kept }
    }

    pub(super) fn taken(&self, records: usize) {
        self.queued.fetch_sub(records, Ordering::Relaxed);
    }

    /// Records that no sink has, at most: of what is just being written, some lines may have gone out.
    pub(super) fn unwritten(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.sealed.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.queued.load(Ordering::Relaxed) >= self.capacity
    }

    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
