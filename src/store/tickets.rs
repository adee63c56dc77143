//! Decides whether the result of a reading may be kept: not when a change was told, or a connection came or went, after
//! the reading was sent. Otherwise an old value could outlive the news that it is old.

use std::{
    hash::{BuildHasher, Hash},
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::fast::RandomState;

/// How many counters the keys share. Two keys on one counter cost a second reading now and then, never a wrong answer.
const COUNTERS: usize = 1024;

#[derive(Debug)]
pub struct Tickets {
    /// Connections that came or went.
    turns: AtomicU64,
    told: Box<[AtomicU64; COUNTERS]>,
    hasher: RandomState,
}

/// How much had been told when a reading was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    turns: u64,
    told: u64,
}

impl Default for Tickets {
    fn default() -> Self {
        Self {
            turns: AtomicU64::new(0),
            told: Box::new(std::array::from_fn(|_| AtomicU64::new(0))),
            hasher: RandomState::default(),
        }
    }
}

impl Tickets {
    /// Taken before a reading is sent; equal afterwards when nothing came in between.
    pub fn ticket(&self, key: impl Hash) -> Ticket {
        Ticket { turns: self.turns.load(Ordering::Acquire), told: self.counter(key).load(Ordering::Acquire) }
    }

    /// The feed told of a change to this key. Called before what is remembered of it is dropped.
    pub fn tell(&self, key: impl Hash) {
        self.counter(key).fetch_add(1, Ordering::AcqRel);
    }

    /// A connection came or went: no reading sent before counts.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Ordering::AcqRel);
    }

    fn counter(&self, key: impl Hash) -> &AtomicU64 {
        &self.told[self.hasher.hash_one(key) as usize % COUNTERS]
    }
}
