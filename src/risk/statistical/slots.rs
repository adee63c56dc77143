//! A small fixed table of decayed counts inside a profile: the most used keys stay, the least used go.

use serde::{Deserialize, Serialize};

use super::epoch;

/// One key and its count in units of 1/16 (see [`epoch`]); key 0 is an empty slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// Hash of the value.
    pub key: u32,
    /// Decayed count, in units.
    pub units: u32,
}

/// `N` counted keys, 8 bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots<const N: usize>([Slot; N]);

impl<const N: usize> Default for Slots<N> {
    fn default() -> Self {
        Self([Slot::default(); N])
    }
}

impl<const N: usize> Slots<N> {
    /// Units of a key; 0 when it is not kept.
    #[must_use]
    pub fn units(&self, key: u32) -> u32 {
        self.0.iter().find(|slot| slot.key == key).map_or(0, |slot| slot.units)
    }

    /// Units of all keys together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|slot| u64::from(slot.units)).sum()
    }

    /// Keys with a count.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().copied().filter(|slot| slot.units > 0)
    }

    /// Adds units to a key, taking the place of the least used one when all are taken. Says whether the key is new.
    pub fn add(&mut self, key: u32, units: u32) -> bool {
        if let Some(slot) = self.0.iter_mut().find(|slot| slot.key == key) {
            slot.units = slot.units.saturating_add(units);
            return false;
        }
        if units > 0
            && let Some(least) = self.0.iter_mut().min_by_key(|slot| (slot.units, slot.key))
        {
            *least = Slot { key, units };
        }
        true
    }

    /// Halves every count; a count that reaches 0 frees its slot.
    pub fn halve(&mut self, times: u32) {
        for slot in &mut self.0 {
            slot.units = slot.units.checked_shr(times).unwrap_or(0);
            if slot.units == 0 {
                *slot = Slot::default();
            }
        }
    }
}

/// The same idea for values shared by everyone: in sets, so that a look-up touches one cache line.
#[derive(Debug, Clone)]
pub struct Tally {
    sets: Vec<Set>,
    generation: u16,
}

/// A [`Tally`] as it is written down: set, key and units of every slot in use.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    generation: u16,
    slots: Vec<(u32, u32, u32)>,
}

/// One set fills one cache line, so that a look-up waits for memory once.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Set([Slot; WAYS]);

const WAYS: usize = 8;

impl Tally {
    /// Room for about `capacity` keys, 8 bytes each, allocated now and never again.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let sets = (capacity / WAYS).max(1).next_power_of_two();
        Self { sets: vec![Set::default(); sets], generation: 0 }
    }

    /// Units of a key; 0 when it is not kept.
    #[must_use]
    pub fn units(&self, key: u64) -> u32 {
        let tag = super::hash::short(key);
        self.sets[self.index(key)].0.iter().find(|slot| slot.key == tag).map_or(0, |slot| slot.units)
    }

    /// Adds units to a key, in place of the least counted of its set when that is full.
    pub fn add(&mut self, key: u64, units: u32) {
        let tag = super::hash::short(key);
        let index = self.index(key);
        let set = &mut self.sets[index].0;
        if let Some(slot) = set.iter_mut().find(|slot| slot.key == tag) {
            slot.units = slot.units.saturating_add(units);
        } else if units > 0
            && let Some(least) = set.iter_mut().min_by_key(|slot| (slot.units, slot.key))
        {
            *least = Slot { key: tag, units };
        }
    }

    /// Halves every count once per generation that has passed.
    pub fn roll(&mut self, generation: u16) {
        let times = epoch::halvings(self.generation, generation);
        if times > 0 && self.generation > 0 {
            for slot in self.sets.iter_mut().flat_map(|set| &mut set.0) {
                slot.units >>= times;
            }
        }
        self.generation = self.generation.max(generation);
    }

    /// Every slot in use.
    #[must_use]
    pub fn record(&self) -> Record {
        let sets = (0_u32..).zip(&self.sets);
        let used = |(index, set): (u32, &Set)| set.0.map(|slot| (index, slot.key, slot.units));
        let slots = sets.flat_map(used).filter(|(_, _, units)| *units > 0).collect();
        Record { generation: self.generation, slots }
    }

    /// Takes over what was written down; what does not fit is left out.
    pub fn restore(&mut self, record: &Record) {
        self.generation = record.generation;
        for (index, key, units) in &record.slots {
            let free = |set: &mut Set| set.0.iter().position(|slot| slot.units == 0);
            if let Some(set) = self.sets.get_mut(*index as usize)
                && let Some(place) = free(set)
            {
                set.0[place] = Slot { key: *key, units: *units };
            }
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sets.len() * size_of::<Set>()
    }

    fn index(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize & (self.sets.len() - 1)
    }
}
