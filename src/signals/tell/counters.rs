//! What telling one receiver counts about itself.

use crate::domain::metric::{Counter, Gauge, Page};

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The receiver has it.
    Accepted,
    /// The receiver will not have it, ever (400).
    Refused,
    /// Too many waited already.
    Dropped,
    /// It waited too long, or could not be written.
    Lost,
}

impl Fate {
    const ALL: [Self; 4] = [Self::Accepted, Self::Refused, Self::Dropped, Self::Lost];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::Lost => "lost",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    fates: [Counter; Fate::ALL.len()],
    pub(super) attempts_failed: Counter,
    /// As this replica last saw it.
    pub(super) waiting: Gauge,
    /// Unix seconds of the last answer that was final.
    pub(super) last: Gauge,
}

impl Counters {
    pub(super) fn count(&self, fate: Fate) {
        self.fates[fate as usize].increment();
    }

    /// `receiver`: its audience, as configured.
    pub(super) fn collect(&self, receiver: &str, page: &mut Page) {
        let help = "Security event tokens of ours, by receiver and what became of them";
        for (fate, counter) in Fate::ALL.into_iter().zip(&self.fates) {
            page.counter(
                "countersign_signals_sent",
                help,
                &[("receiver", receiver), ("outcome", fate.as_str())],
                counter,
            );
        }
        let labels = [("receiver", receiver)];
        let help = "Attempts to reach a receiver that have to be repeated";
        page.counter("countersign_signals_send_failures", help, &labels, &self.attempts_failed);
        let help = "Security event tokens that wait for a receiver";
        page.gauge("countersign_signals_waiting", help, &labels, self.waiting.get());
        let help = "When a receiver last accepted or refused a token of this replica, in Unix seconds";
        page.gauge("countersign_signals_sent_last_seconds", help, &labels, self.last.get());
    }
}
