//! What is counted of notices.

use super::Notices;
use crate::domain::metric::{Counter, Page, Source};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) asked: Counter,
    pub(super) stale: Counter,
    pub(super) unanswered: Counter,
    pub(super) restored: Counter,
    pub(super) unwritten: Counter,
    pub(super) unreplicated: Counter,
    pub(super) lost: Counter,
}

impl Source for Notices {
    fn collect(&self, page: &mut Page) {
        const NAME: &str = "countersign_notice_checks";
        const HELP: &str = "Checks whose notices of security events memory alone did not answer";
        let Counters { asked, stale, unanswered, restored, unwritten, unreplicated, lost } = &self.counters;
        for (outcome, counter) in [("asked", asked), ("stale", stale), ("unanswered", unanswered)] {
            page.counter(NAME, HELP, &[("outcome", outcome)], counter);
        }
        let help = "Notices written back to a store that had lost them";
        page.counter("countersign_notices_restored", help, &[], restored);
        let help = "Times the store did not take back notices that it has lost";
        page.counter("countersign_notices_unwritten", help, &[], unwritten);
        let help = "Notices that no replica of the store acknowledged in time";
        page.counter("countersign_notices_unreplicated", help, &[], unreplicated);
        let help =
            "Ends of sessions that other replicas were not told: too many waited, or the store took none for too long";
        page.counter("countersign_notices_lost", help, &[], lost);
        let help = "Whether memory has no room for more notices, so that each check asks the store";
        page.gauge("countersign_notices_full", help, &[], f64::from(u8::from(self.held.is_full())));
        let help = "Notices of security events in memory";
        page.gauge("countersign_notices", help, &[], self.held.len() as f64);
    }
}
