//! Whether a memory of bounded size holds everything that it should: what had no room counts as missing until everything
//! has been read again.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[derive(Debug)]
pub struct Room {
    limit: usize,
    entries: AtomicUsize,
    /// How many had no room, ever, and how many of those have been made good by reading everything again.
    dropped: AtomicU64,
    made_good: AtomicU64,
}

impl Room {
    pub const fn new(limit: usize) -> Self {
        let (dropped, made_good) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { limit, entries: AtomicUsize::new(0), dropped, made_good }
    }

    /// Room for one more entry, or its lack is counted.
    pub fn take(&self) -> bool {
        let taken = self.entries.fetch_add(1, Ordering::AcqRel) < self.limit;
        if !taken {
            self.entries.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::AcqRel);
        }
        taken
    }

    /// An entry is gone.
    pub fn leave(&self) {
        self.entries.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Something had no room, and has not been read again since.
    pub fn was_lacking(&self) -> bool {
        self.made_good.load(Ordering::Acquire) != self.dropped.load(Ordering::Acquire)
    }

    /// To be taken before everything is read, and shown to [`Self::whole`] after that.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    /// Everything has been read: nothing is missing but what had no room since `dropped` was taken.
    pub fn whole(&self, dropped: u64) {
        self.made_good.store(dropped, Ordering::Release);
    }

    /// Something is missing and would have room now: it is worth while to read everything again.
    pub fn is_back(&self) -> bool {
        self.was_lacking() && self.len() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_no_room_is_missing_until_all_was_read_with_room_for_it() {
        let room = Room::new(2);
        assert!(room.take() && room.take() && !room.was_lacking());
        assert!(!room.take() && room.was_lacking() && !room.is_back());
        // Something else leaves while everything is read: what had no room meanwhile is missing all the same.
        let before = room.dropped();
        assert!(!room.take());
        room.leave();
        room.whole(before);
        assert!(room.was_lacking() && room.is_back());
        let before = room.dropped();
        assert!(room.take());
        room.whole(before);
        assert!(!room.was_lacking() && room.len() == 2);
    }
}
