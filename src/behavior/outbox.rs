//! What was learned here and is not written down yet: bounded, and what finds no room is counted.

use parking_lot::Mutex;

use crate::{
    domain::metric::Counter,
    risk::statistical::{Key, Learned},
};

/// Requests that wait at most. Most requests teach nothing and do not come here.
const ROOM: usize = 8192;
/// Seconds after which a subject that taught nothing is told of again: its pace goes on.
const PACE: f64 = 1.0;
/// Places of a table of when subjects were told of last; subjects share them by hash, which only tells of some more often.
const TOLD: usize = 4096;

#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    pub(super) dropped: Counter,
}

#[derive(Debug)]
struct Waiting {
    learned: Vec<Entry>,
    told: Box<[(Key, f64)]>,
}

/// One request that taught something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) learned: Learned,
    /// Until when the session is of use, in Unix seconds, where it was seen first, in another context, or is trusted otherwise
    /// than before.
    pub(super) session: Option<f64>,
}

impl Default for Outbox {
    fn default() -> Self {
        let told = vec![(Key(0), 0.0); TOLD].into_boxed_slice();
        Self { waiting: Mutex::new(Waiting { learned: Vec::new(), told }), dropped: Counter::default() }
    }
}

impl Outbox {
    /// Takes what a request taught, where that is anything.
    pub(super) fn put(&self, learned: &Learned, session: Option<f64>) {
        let taught =
            session.is_some() || !learned.profile.as_slice().is_empty() || !learned.shared.as_slice().is_empty();
        let mut waiting = self.waiting.lock();
        let place = learned.subject.0 as usize % TOLD;
        let (subject, at) = waiting.told[place];
        if !taught && subject == learned.subject && learned.at - at < PACE {
            return;
        }
        waiting.told[place] = (learned.subject, learned.at);
        if waiting.learned.len() < ROOM {
            waiting.learned.push(Entry { learned: *learned, session });
        } else {
            self.dropped.increment();
        }
    }

    /// Everything that waits.
    pub(super) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.waiting.lock().learned)
    }

    /// Drops what waits of a subject that is to be forgotten.
    pub(super) fn forget(&self, subject: Key) {
        self.waiting.lock().learned.retain(|entry| entry.learned.subject != subject);
    }
}
