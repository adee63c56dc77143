//! Records that wait a moment to be formatted: many in a row, while the processor has at hand what that takes.
//!
//! Each thread that answers has a list of its own. It formats the list between answers, where it is long enough; what a quiet
//! moment leaves in one, the writer's thread takes.

use std::{
    mem,
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use super::{AuditRecord, body};
use crate::domain::UnixTime;

/// Records that are worth formatting in a row.
const TOGETHER: usize = 16;

/// More threads than this share lists.
const LISTS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Waiting([List; LISTS]);

/// On lines of the processor's cache that no other list is on.
#[derive(Debug, Default)]
#[repr(align(128))]
struct List(Mutex<Vec<AuditRecord>>);

impl Waiting {
    /// Adds a record to this thread's list. Says whether it has become so long that the first records grow cold.
    pub(super) fn push(&self, record: AuditRecord) -> bool {
        let mut list = self.0[own()].0.lock();
        list.push(record);
        list.len() >= 2 * TOGETHER
    }

    /// Takes as many of this thread's list as are worth it, while there are so many.
    pub(super) fn take_own(&self) -> Option<Vec<AuditRecord>> {
        let mut list = self.0[own()].0.lock();
        (list.len() >= TOGETHER).then(|| list.drain(..TOGETHER).collect())
    }

    /// Takes all lists.
    pub(super) fn take_all(&self) -> Vec<AuditRecord> {
        self.0.iter().flat_map(|list| mem::take(&mut *list.0.lock())).collect()
    }
}

/// The place of this thread's list.
fn own() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % LISTS);
    OWN.with(|own| *own)
}

/// Lines of decisions without their heads, which only the writer knows.
#[derive(Debug)]
pub(super) struct Lines {
    octets: Vec<u8>,
    /// The time of each, and where it ends.
    ends: Vec<(UnixTime, usize)>,
}

impl Lines {
    /// What a record of all facts takes, with room to spare.
    const ROOM: usize = 3072;

    pub(super) fn with_room_for(records: usize) -> Self {
        Self { octets: Vec::with_capacity(records * Self::ROOM), ends: Vec::with_capacity(records) }
    }

    /// # Errors
    ///
    /// The record is not representable as JSON; nothing was added.
    pub(super) fn add(&mut self, record: &AuditRecord) -> Result<(), serde_json::Error> {
        let start = self.octets.len();
        let written = body::write(record, &mut self.octets);
        match written {
            Ok(()) => self.ends.push((record.facts.now, self.octets.len())),
            Err(_) => self.octets.truncate(start),
        }
        written
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (UnixTime, &[u8])> {
        let starts = [0].into_iter().chain(self.ends.iter().map(|(_, end)| *end));
        self.ends.iter().zip(starts).map(|((at, end), start)| (*at, &self.octets[start..*end]))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc, thread};

    use tempfile::TempDir;

    use super::*;
    use crate::{
        decision::Verdict,
        telemetry::audit::{
            Auditor, Recorded,
            sample::{clock, decision, files, settings, write},
            verify,
        },
    };

    fn record(number: u128) -> AuditRecord {
        decision(number, 1_800_000_000_000, Verdict::Deny)
    }

    fn numbers<'r>(records: impl IntoIterator<Item = &'r AuditRecord>) -> Vec<u128> {
        records.into_iter().map(|record| record.facts.request.id.random()).collect()
    }

    #[test]
    fn a_list_is_taken_in_order_and_only_where_it_is_long_enough() {
        let waiting = Waiting::default();
        let long: Vec<bool> = (0..32).map(|number| waiting.push(record(number))).collect();
        assert_eq!(long.iter().position(|long| *long), Some(2 * TOGETHER - 1));
        waiting.push(record(32));
        for start in [0, 16] {
            assert_eq!(numbers(&waiting.take_own().unwrap()), (start..start + 16).collect::<Vec<_>>());
        }
        assert!(waiting.take_own().is_none());
        assert_eq!(numbers(&waiting.take_all()), [32]);
        assert!(waiting.take_all().is_empty());
    }

    #[test]
    fn lines_are_those_of_their_records() {
        let records: Vec<_> = (0..3).map(record).collect();
        let mut lines = Lines::with_room_for(1);
        records.iter().for_each(|record| lines.add(record).unwrap());
        let alone = |record: &AuditRecord| {
            let mut line = Vec::new();
            body::write(record, &mut line).unwrap();
            (record.facts.now, line)
        };
        let found: Vec<_> = lines.iter().map(|(at, line)| (at, line.to_vec())).collect();
        assert_eq!(found, records.iter().map(alone).collect::<Vec<_>>());
    }

    /// Threads that format themselves now and then, and threads that never do.
    #[test]
    fn every_record_of_every_thread_is_written_once_and_before_the_write_that_follows_it() {
        const THREADS: u128 = 4;
        const EACH: u128 = 100;
        let folder = TempDir::new().unwrap();
        let settings = settings(&folder);
        let auditor = Auditor::start(&settings, clock()).unwrap();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let auditor = Arc::clone(&auditor);
                scope.spawn(move || {
                    for number in 0..EACH {
                        auditor.record(record(thread * EACH + number));
                        if thread % 2 == 0 && number % 7 == 0 {
                            auditor.format();
                        }
                    }
                });
            }
        });
        auditor.admin(write(1));
        auditor.close();
        let files = files(&settings);
        assert!(verify(&files, None).unwrap().problem.is_none());
        let text = fs::read_to_string(&files[0]).unwrap();
        let written: Vec<_> = text.lines().filter_map(|line| Recorded::parse(line).unwrap()).collect();
        for thread in 0..THREADS {
            let of = |record: &&Recorded| record.id.random() / EACH == thread;
            let mut own: Vec<_> = written.iter().filter(of).map(|record| record.id.random() % EACH).collect();
            // What the writer takes from a list may overtake what the thread is just formatting.
            own.sort_unstable();
            assert_eq!(own, (0..EACH).collect::<Vec<_>>(), "thread {thread}");
        }
        let kinds: Vec<&str> = text.lines().filter_map(|line| line.split("\"kind\":\"").nth(1)).collect();
        let admin = kinds.iter().position(|kind| kind.starts_with("admin")).unwrap();
        assert!(kinds[admin..].iter().all(|kind| !kind.starts_with("decision")));
        assert_eq!((auditor.counters().recorded.get(), auditor.counters().lost.get()), (401, 0));
    }
}
