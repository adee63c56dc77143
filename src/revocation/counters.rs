//! What revocation counts about itself.

use crate::domain::metric::{Counter, Gauge, Histogram, Page, Source};

use super::{Revocations, State};

#[derive(Debug, Default)]
pub struct Counters {
    /// Checks that asked the store.
    pub asked: Counter,
    /// Checks that passed on what was known before the store fell silent.
    pub stale: Counter,
    /// Checks that could not be answered.
    pub unanswered: Counter,
    /// Checks refused because the store came back empty.
    pub refused: Counter,
    /// Times the feed's connection was lost.
    pub lost: Counter,
    /// Times the store came back without what it held.
    pub emptied: Counter,
    /// Remembered revocations written back.
    pub restored: Counter,
    /// Times a store did not take back what it has lost.
    pub unwritten: Counter,
    /// Revocations written here that no replica of the store acknowledged in time.
    pub unreplicated: Counter,
    /// From a write to the store to its effect here.
    pub lag: Histogram,
    /// The last of those, in seconds.
    pub last_lag: Gauge,
}

impl Source for Revocations {
    fn collect(&self, page: &mut Page) {
        let counters = &self.counters;
        for (outcome, counter) in [
            ("asked", &counters.asked),
            ("stale", &counters.stale),
            ("unanswered", &counters.unanswered),
            ("refused", &counters.refused),
        ] {
            let help = "Checks that memory alone did not answer";
            page.counter("countersign_revocation_checks", help, &[("outcome", outcome)], counter);
        }
        for state in State::ALL {
            let value = f64::from(u8::from(self.state() == state));
            page.gauge(
                "countersign_revocation_state",
                "What is known here against the store",
                &[("state", state.as_str())],
                value,
            );
        }
        page.gauge("countersign_revocations_known", "Revocations held in memory", &[], self.len() as f64);
        let limit = self.settings.max_entries as f64;
        page.gauge("countersign_revocation_limit", "How many revocations memory may hold", &[], limit);
        let help = "Whether memory has no room for more revocations, so that each check asks the store";
        page.gauge("countersign_revocations_full", help, &[], f64::from(u8::from(self.is_full())));
        page.counter("countersign_revocation_feed_lost", "Times the feed was lost", &[], &counters.lost);
        page.counter("countersign_revocation_store_emptied", "Times the store came back empty", &[], &counters.emptied);
        page.counter(
            "countersign_revocations_restored",
            "Remembered revocations written back",
            &[],
            &counters.restored,
        );
        let help = "Times the store did not take back revocations or the canary that it has lost";
        page.counter("countersign_revocation_unwritten", help, &[], &counters.unwritten);
        page.counter(
            "countersign_revocations_unreplicated",
            "Revocations written here that no replica of the store acknowledged in time",
            &[],
            &counters.unreplicated,
        );
        page.histogram("revocation_lag_seconds", "From a write to its effect here", &[], &counters.lag);
    }
}
