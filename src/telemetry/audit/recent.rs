//! The last decisions, kept for `explain` and the status page. Filled by the writer's thread: no request waits for it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::AuditRecord;
use crate::domain::{DecisionId, UnixTime};

/// How many allows, and how many refusals: a flood of the one does not push out the other.
const KEPT: usize = 2048;

#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: Mutex<Kept>,
    /// The millisecond of the last allow that was wanted.
    allowed_at: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    allowed: VecDeque<Arc<AuditRecord>>,
    refused: VecDeque<Arc<AuditRecord>>,
}

impl Recent {
    /// Whether a record is to be kept: all that are no allows, and one allow each millisecond.
    pub(super) fn wants(&self, record: &AuditRecord) -> bool {
        !record.decision.is_allow() || self.wants_allow(record.facts.now)
    }

    fn wants_allow(&self, now: UnixTime) -> bool {
        let now = now.as_millis();
        self.allowed_at.load(Ordering::Relaxed) != now && self.allowed_at.swap(now, Ordering::Relaxed) != now
    }

    pub(super) fn keep(&self, record: Arc<AuditRecord>) {
        let mut kept = self.kept.lock();
        let list = if record.decision.is_allow() { &mut kept.allowed } else { &mut kept.refused };
        if list.len() == KEPT {
            list.pop_front();
        }
        list.push_back(record);
    }

    pub(super) fn find(&self, id: DecisionId) -> Option<Arc<AuditRecord>> {
        let kept = self.kept.lock();
        let both = kept.refused.iter().rev().chain(kept.allowed.iter().rev());
        both.into_iter().find(|record| record.facts.request.id == id).cloned()
    }

    /// When the last decision was made; `None`: none was.
    pub(super) fn last(&self) -> Option<UnixTime> {
        let refused = self.kept.lock().refused.back().map(|record| record.facts.now);
        let allowed = Some(self.allowed_at.load(Ordering::Relaxed)).filter(|at| *at != 0);
        refused.max(allowed.map(UnixTime::from_millis))
    }

    /// Newest first.
    pub(super) fn refusals(&self, count: usize) -> Vec<Arc<AuditRecord>> {
        self.kept.lock().refused.iter().rev().take(count).cloned().collect()
    }
}
