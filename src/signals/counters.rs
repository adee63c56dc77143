//! What signals count about themselves.

use super::{event::EventType, receiver::Outcome, set::Code};
use crate::domain::metric::{Counter, Gauge, Page};

/// By type of event (the last row: types that are not known here) and outcome.
#[derive(Debug)]
pub(super) struct Counters {
    taken: Vec<[Counter; Outcome::ALL.len()]>,
    refused: [Counter; Code::ALL.len()],
    /// Answered with "try again".
    pub(super) later: Counter,
    /// Not in force, or not all of it, for a key in the store that cannot be read.
    pub(super) unreadable: Counter,
    pub(super) logouts: Counter,
    pub(super) logouts_refused: Counter,
    /// Unix seconds.
    pub(super) last_taken: Gauge,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            taken: (0..=EventType::ALL.len()).map(|_| Default::default()).collect(),
            refused: Default::default(),
            later: Counter::default(),
            unreadable: Counter::default(),
            logouts: Counter::default(),
            logouts_refused: Counter::default(),
            last_taken: Gauge::default(),
        }
    }
}

impl Counters {
    pub(super) fn taken(&self, event: Option<EventType>, outcome: Outcome) {
        let row = event.map_or(EventType::ALL.len(), |event| event as usize);
        self.taken[row][outcome as usize].increment();
    }

    pub(super) fn refused(&self, code: Code) {
        self.refused[code as usize].increment();
    }

    pub(super) fn collect(&self, page: &mut Page) {
        const HELP: &str = "Security event tokens that were taken, by type of event and outcome";
        let names = EventType::ALL.iter().map(|event| event.as_str()).chain(["other"]);
        for (name, row) in names.zip(&self.taken) {
            for (outcome, counter) in Outcome::ALL.into_iter().zip(row).filter(|(_, counter)| counter.get() > 0) {
                page.counter("countersign_signals", HELP, &[("event", name), ("outcome", outcome.as_str())], counter);
            }
        }
        let help = "Security event tokens that were refused, by the error that their transmitter was told";
        for (code, counter) in Code::ALL.into_iter().zip(&self.refused) {
            page.counter("countersign_signals_refused", help, &[("error", code.as_str())], counter);
        }
        let help = "Security event tokens whose transmitter was told to try again";
        page.counter("countersign_signals_deferred", help, &[], &self.later);
        let help = "Security event and logout tokens that were refused because a key in the store cannot be read";
        page.counter("countersign_signals_unreadable", help, &[], &self.unreadable);
        const LOGOUTS: &str = "Back-channel logouts";
        page.counter("countersign_signals_logouts", LOGOUTS, &[("outcome", "done")], &self.logouts);
        page.counter("countersign_signals_logouts", LOGOUTS, &[("outcome", "refused")], &self.logouts_refused);
        let help = "When a security event token was last taken, in Unix seconds";
        page.gauge("countersign_signals_last_seconds", help, &[], self.last_taken.get());
    }
}
