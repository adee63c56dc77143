//! Addresses on which several users are at once away from home: what credential stuffing looks like.
//!
//! A table of fixed size; an address is forgotten an hour after its last unfamiliar user, or when its
//! place is needed.

use super::{event::Key, hash};

const WAYS: usize = 4;
const SETS: usize = 1024;
/// Users that are told apart on one address. With more of them the term is at its most anyway.
const TAGS: usize = 14;

/// Unfamiliar users of recently used addresses.
#[derive(Debug, Clone)]
pub struct Addresses {
    sets: Vec<[Entry; WAYS]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    key: u32,
    at: f64,
    count: f32,
    next: u8,
    users: [u16; TAGS],
}

impl Default for Addresses {
    fn default() -> Self {
        Self { sets: vec![[Entry::default(); WAYS]; SETS] }
    }
}

impl Addresses {
    /// Other users for whom this address was unfamiliar lately; an hour ago counts half.
    #[must_use]
    pub fn others(&self, address: u64, user: Key, now: f64) -> f64 {
        let Some(entry) = self.find(address) else { return 0.0 };
        let own = if entry.users.contains(&tag(user)) { 1.0 } else { 0.0 };
        (entry.count_at(now) - own).max(0.0)
    }

    /// Notes that this address is unfamiliar to a user.
    pub fn note(&mut self, address: u64, user: Key, now: f64) {
        let key = hash::short(address);
        let set = &mut self.sets[index(address)];
        let found = set.iter().position(|entry| entry.key == key);
        let oldest = || (0..WAYS).min_by(|a, b| set[*a].at.total_cmp(&set[*b].at)).unwrap_or(0);
        let place = found.unwrap_or_else(oldest);
        let entry = &mut set[place];
        if found.is_none() {
            *entry = Entry { key, ..Entry::default() };
        }
        entry.note(tag(user), now);
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sets.len() * size_of::<[Entry; WAYS]>()
    }

    fn find(&self, address: u64) -> Option<&Entry> {
        let key = hash::short(address);
        self.sets[index(address)].iter().find(|entry| entry.key == key)
    }
}

impl Entry {
    fn count_at(&self, now: f64) -> f64 {
        f64::from(self.count) * (-(now - self.at).max(0.0) / 3600.0).exp2()
    }

    fn note(&mut self, user: u16, now: f64) {
        let known = self.users.contains(&user);
        self.count = (self.count_at(now) + if known { 0.0 } else { 1.0 }).max(1.0) as f32;
        self.at = self.at.max(now);
        if !known {
            self.users[usize::from(self.next) % TAGS] = user;
            self.next = self.next.wrapping_add(1) % TAGS as u8;
        }
    }
}

fn index(address: u64) -> usize {
    (address >> 20) as usize % SETS
}

/// 16 bits of a user, never 0.
fn tag(user: Key) -> u16 {
    (user.0 >> 17) as u16 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_does_not_count_as_its_own_neighbour() {
        let mut table = Addresses::default();
        for _ in 0..5 {
            table.note(99, Key::of("alice"), 10.0);
        }
        assert_eq!(table.others(99, Key::of("alice"), 11.0).round(), 0.0);
        table.note(99, Key::of("bob"), 12.0);
        assert!(table.others(99, Key::of("alice"), 13.0) > 0.9);
        assert!(table.others(99, Key::of("carol"), 13.0) > 1.9);
        assert!(table.others(99, Key::of("carol"), 13.0 + 8.0 * 3600.0) < 0.1);
    }
}
