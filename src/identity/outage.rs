//! Whether somebody whom we ask has stopped answering, so that a log line tells of each outage, not of each question in it.

use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::UnixTime;

/// An answer so soon after a failure does not end the outage: where some questions fail and others do not, each pair of
/// them would be an outage of its own.
const CALM: Duration = Duration::from_secs(10);

/// What became of the questions lately.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<Failing>>);

#[derive(Debug)]
struct Failing {
    failures: u64,
    last: UnixTime,
}

impl Outage {
    /// Notes a failure. Says whether an outage begins with it.
    pub(super) fn failed(&self, now: UnixTime) -> bool {
        let mut failing = self.0.lock();
        let begins = failing.is_none();
        let noted = failing.get_or_insert(Failing { failures: 0, last: now });
        noted.failures += 1;
        noted.last = noted.last.max(now);
        begins
    }

    /// Notes an answer. Where it ends an outage: how many questions failed in that.
    pub(super) fn answered(&self, now: UnixTime) -> Option<u64> {
        let over = self.0.lock().take_if(|failing| now.since(failing.last) >= CALM);
        over.map(|failing| failing.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_begins_once_and_ends_once() {
        let (outage, at) = (Outage::default(), UnixTime::from_secs);
        assert_eq!(outage.answered(at(0)), None);
        assert!(outage.failed(at(1)));
        assert!(!outage.failed(at(2)));
        assert_eq!(outage.answered(at(12)), Some(2));
        assert_eq!(outage.answered(at(13)), None);
        assert!(outage.failed(at(14)), "the next one");
    }

    #[test]
    fn where_only_some_questions_fail_it_is_one_outage() {
        let (outage, at) = (Outage::default(), UnixTime::from_secs);
        let begun = (0..100).filter(|second| {
            let begins = outage.failed(at(*second));
            assert_eq!(outage.answered(at(*second)), None);
            begins
        });
        assert_eq!(begun.count(), 1);
        assert_eq!(outage.answered(at(109)), Some(100));
    }
}
