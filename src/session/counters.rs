//! What sessions count about themselves.

use super::Sessions;
use crate::domain::metric::{Counter, Page, Source};

/// Plain atomics; `ops` renders them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) begun: Counter,
    pub(super) ended: Counter,
    /// Sessions beyond the limit.
    pub(super) refused: Counter,
    /// Step-ups that were asked for in a session and passed.
    pub(super) passed: Counter,
    pub(super) asked: Counter,
    pub(super) stale: Counter,
    pub(super) unanswered: Counter,
    pub(super) malformed: Counter,
    pub(super) restored: Counter,
    pub(super) written: Counter,
    pub(super) failed: Counter,
    /// Last uses that found no room in the queue.
    pub(super) dropped: Counter,
    /// Challenges, passed step-ups and ends that found none: other replicas do not know of them.
    pub(super) lost: Counter,
    /// Ends that found no room on their way to receivers of security events.
    pub(super) untold: Counter,
}

impl Source for Sessions {
    fn collect(&self, page: &mut Page) {
        let counters = &self.counters;
        let help = "Sessions, by what became of them here";
        for (event, counter) in [
            ("begun", &counters.begun),
            ("ended", &counters.ended),
            ("refused", &counters.refused),
            ("step_up_passed", &counters.passed),
            ("restored", &counters.restored),
        ] {
            page.counter("countersign_session_events", help, &[("event", event)], counter);
        }
        let help = "Checks whose session memory alone did not answer";
        for (outcome, counter) in [
            ("asked", &counters.asked),
            ("stale", &counters.stale),
            ("unanswered", &counters.unanswered),
            ("malformed", &counters.malformed),
        ] {
            page.counter("countersign_session_checks", help, &[("outcome", outcome)], counter);
        }
        let help = "Writes of sessions; dropped: the last use alone; lost: what other replicas should have known";
        for (outcome, counter) in [
            ("written", &counters.written),
            ("failed", &counters.failed),
            ("dropped", &counters.dropped),
            ("lost", &counters.lost),
        ] {
            page.counter("countersign_session_writes", help, &[("outcome", outcome)], counter);
        }
        let help = "Ends of sessions that receivers of security events were not told: too many at a time";
        page.counter("countersign_session_ends_untold", help, &[], &counters.untold);
        page.gauge("countersign_sessions_known", "Sessions in memory", &[], self.known.entry_count() as f64);
    }
}
