//! A map that never holds more than it was told to: the entry that was not used for longest makes room
//! (second chance, so that a look-up writes one byte). Deterministic; allocates only while it grows.

use std::collections::HashMap;

use super::event::Key;

/// A bounded map from keys to values.
#[derive(Debug, Clone)]
pub struct Bounded<V> {
    index: HashMap<Key, u32, Plain>,
    entries: Vec<Entry<V>>,
    capacity: usize,
    hand: usize,
    evicted: u64,
}

#[derive(Debug, Clone)]
struct Entry<V> {
    key: Key,
    used: bool,
    value: V,
}

impl<V: Default> Bounded<V> {
    /// An empty map for at most `capacity` entries.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { index: HashMap::default(), entries: Vec::new(), capacity: capacity.max(1), hand: 0, evicted: 0 }
    }

    /// The value of a key, when it is held.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&V> {
        self.entries.get(*self.index.get(&key)? as usize).map(|entry| &entry.value)
    }

    /// The value of a key, to be changed, when it is held. Does not count as use.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut V> {
        self.entries.get_mut(*self.index.get(&key)? as usize).map(|entry| &mut entry.value)
    }

    /// All values, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|entry| &mut entry.value)
    }

    /// The value of a key, made now when it is not held.
    pub fn entry(&mut self, key: Key) -> &mut V {
        let place = match self.index.get(&key) {
            Some(place) => {
                self.entries[*place as usize].used = true;
                *place as usize
            }
            None => self.admit(key),
        };
        &mut self.entries[place].value
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: Key) -> Option<V> {
        let place = self.index.remove(&key)? as usize;
        let entry = self.entries.swap_remove(place);
        if let Some(moved) = self.entries.get(place) {
            self.index.insert(moved.key, place as u32);
        }
        Some(entry.value)
    }

    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that made room for others so far.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// All entries, in no particular but always the same order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &V)> {
        self.entries.iter().map(|entry| (entry.key, &entry.value))
    }

    fn admit(&mut self, key: Key) -> usize {
        let fresh = Entry { key, used: false, value: V::default() };
        let place = if self.entries.len() < self.capacity {
            self.entries.push(fresh);
            self.entries.len() - 1
        } else {
            let place = self.victim();
            let old = std::mem::replace(&mut self.entries[place], fresh);
            self.index.remove(&old.key);
            self.evicted += 1;
            place
        };
        self.index.insert(key, place as u32);
        place
    }

    /// The first entry that was not used since the hand last passed it.
    fn victim(&mut self) -> usize {
        loop {
            let place = self.hand % self.entries.len();
            self.hand = place + 1;
            if !std::mem::replace(&mut self.entries[place].used, false) {
                return place;
            }
        }
    }
}

/// Keys are hashes already; they only need their bits spread.
#[derive(Debug, Clone, Copy, Default)]
struct Plain;

impl std::hash::BuildHasher for Plain {
    type Hasher = Spread;
    fn build_hasher(&self) -> Spread {
        Spread(0)
    }
}

#[derive(Debug, Clone, Copy)]
struct Spread(u64);

impl std::hash::Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = super::hash::stable(bytes);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = super::hash::join(value, 0x6d61);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_its_capacity_and_keeps_what_is_used() {
        let mut map: Bounded<u32> = Bounded::with_capacity(3);
        for key in 1..=100 {
            *map.entry(Key(key)) = key as u32;
            *map.entry(Key(1)) += 0;
        }
        assert_eq!(map.len(), 3);
        assert_eq!(map.get(Key(1)), Some(&1));
        assert_eq!(map.evicted(), 97);
    }

    #[test]
    fn a_removed_key_is_gone_and_the_others_stay() {
        let mut map: Bounded<u32> = Bounded::with_capacity(10);
        for key in 0..5 {
            *map.entry(Key(key)) = key as u32;
        }
        assert_eq!(map.remove(Key(2)), Some(2));
        assert_eq!(map.get(Key(2)), None);
        for key in [0, 1, 3, 4] {
            assert_eq!(map.get(Key(key)), Some(&(key as u32)));
        }
    }
}
