//! When a device was last seen, written behind: nothing waits for it, and what does not fit is counted and lost.
//!
//! A device is noted once a minute by each replica; an allowed request costs a hash and a look at one number in between.

use std::{
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::quality::FixedState;
use futures_util::future::join_all;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::{
    domain::{
        DeviceId, DeviceProof, UnixTime,
        metric::{Counter, Page, Source},
    },
    store::{Store, keys},
};

/// How many notes may wait for the store.
const QUEUE: usize = 4096;
/// How many are written at once.
const AT_ONCE: usize = 64;
/// How often a device is noted, in seconds.
const EVERY: u64 = 60;
/// Devices share these by hash. Two that share one are noted more often than they had to be.
const SLOTS: usize = 1 << 16;

/// The fields of `cs:device-seen:<id>`: Unix seconds, and how the device was proven.
pub(super) const LAST_SEEN: &str = "last_seen";
const PROOF: &str = "proof";

#[derive(Debug)]
struct Note {
    id: DeviceId,
    at: UnixTime,
    proof: DeviceProof,
}

/// What is noted, and the way to whoever writes it down.
#[derive(Debug)]
pub(super) struct Seen {
    /// The minute of the last note, and which device it was of.
    noted: Box<[AtomicU64]>,
    queue: Sender<Note>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    written: Counter,
    lost: Counter,
}

impl Seen {
    /// The task that writes ends with the last handle to `Seen`.
    pub(super) fn start(store: Arc<dyn Store>) -> Self {
        let (queue, notes) = channel(QUEUE);
        let counters = Arc::new(Counters::default());
        tokio::spawn(write(store, notes, Arc::clone(&counters)));
        Self { noted: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), queue, counters }
    }

    /// Notes that `id` was seen at `at`, unless that was noted within the minute.
    pub(super) fn note(&self, id: &DeviceId, proof: DeviceProof, at: UnixTime) {
        let hash = FixedState::default().hash_one(id.as_str());
        let slot = &self.noted[hash as usize % SLOTS];
        // The upper half of the hash tells devices of one slot apart; minutes fit into the lower half for 8,000 years.
        let mark = (hash & 0xffff_ffff_0000_0000) | (at.as_secs() / EVERY);
        if slot.load(Ordering::Relaxed) == mark || slot.swap(mark, Ordering::Relaxed) == mark {
            return;
        }
        if self.queue.try_send(Note { id: id.clone(), at, proof }).is_err() {
            self.counters.lost.increment();
        }
    }
}

async fn write(store: Arc<dyn Store>, mut notes: Receiver<Note>, counters: Arc<Counters>) {
    let mut batch = Vec::with_capacity(AT_ONCE);
    while notes.recv_many(&mut batch, AT_ONCE).await > 0 {
        let writes = batch.drain(..).map(|note| write_one(&*store, note));
        for written in join_all(writes).await {
            if written { counters.written.increment() } else { counters.lost.increment() }
        }
    }
}

async fn write_one(store: &dyn Store, Note { id, at, proof }: Note) -> bool {
    let fields = [(LAST_SEEN, at.as_secs().to_string()), (PROOF, proof.as_str().to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    store.write_record(&keys::device_seen(id.as_str()), &fields, &[]).await.is_ok()
}

impl Source for Seen {
    fn collect(&self, page: &mut Page) {
        const NAME: &str = "countersign_device_seen";
        const HELP: &str = "Notes that a device was seen, by what became of them";
        page.counter(NAME, HELP, &[("outcome", "written")], &self.counters.written);
        page.counter(NAME, HELP, &[("outcome", "lost")], &self.counters.lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn a_device_is_noted_once_a_minute_and_what_does_not_fit_is_counted() {
        let (queue, mut notes) = channel(3);
        let noted = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        let seen = Seen { noted, queue, counters: Arc::default() };
        let note = |id: &str, second| seen.note(&id.into(), DeviceProof::Key, at(second));
        for second in [0, 1, 59, 60, 61] {
            note("laptop", second);
        }
        note("phone", 0);
        let taken: Vec<_> = std::iter::from_fn(|| notes.try_recv().ok()).map(|note| (note.id, note.at)).collect();
        assert_eq!(taken, [("laptop".into(), at(0)), ("laptop".into(), at(60)), ("phone".into(), at(0))]);
        for id in ["a", "b", "c", "d", "e"] {
            note(id, 0);
        }
        assert_eq!(seen.counters.lost.get(), 2);
    }
}
