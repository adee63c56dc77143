//! The revocations this replica knows, in memory. Nothing is ever evicted, and nothing is forgotten because its key is
//! gone: only a reinstatement takes a revocation back, or the end of the longest life a token can have.

mod mark;
#[cfg(test)]
mod tests;

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::{HashMap, HashMapExt, fast::RandomState};
use parking_lot::RwLock;

use self::mark::Mark;
pub(super) use self::mark::{Lost, Seen};
use super::standing::{Standing, Undo};
use crate::{
    clock::Clock,
    domain::{DeviceId, Identity, RevocationKind},
    store::{Room, Ticket, Tickets},
};

/// Locks per kind: writers hold one for nanoseconds, and seldom the one a reader wants.
const SHARDS: usize = 16;

type Shard = RwLock<HashMap<Box<str>, Mark>>;

#[derive(Debug)]
pub(super) struct Known {
    kinds: [[Shard; SHARDS]; RevocationKind::ALL.len()],
    hasher: RandomState,
    /// Grows whenever an answer of "not revoked" may have become wrong.
    generation: AtomicU64,
    tickets: Tickets,
    room: Room,
    /// Of its two only the monotonic one: a wall clock that steps forward must not end a revocation whose key still stands.
    clock: Clock,
}

/// What memory says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Clear,
    Revoked(RevocationKind),
    /// The store must be asked.
    Ask,
}

/// Something remembered that a scan did not find, or not as it should be.
#[derive(Clone, Debug)]
pub(super) struct Missing {
    pub(super) kind: RevocationKind,
    pub(super) id: Box<str>,
    pub(super) beside: Option<Undo>,
    /// What should be there all the same. `None`: its key had ended or was deleted, or could not be read.
    pub(super) lost: Option<Lost>,
}

impl Known {
    pub(super) fn new(limit: usize, clock: Clock) -> Self {
        Self {
            kinds: std::array::from_fn(|_| std::array::from_fn(|_| RwLock::new(HashMap::new()))),
            hasher: RandomState::default(),
            generation: AtomicU64::new(1),
            tickets: Tickets::default(),
            room: Room::new(limit),
            clock,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn len(&self) -> usize {
        self.room.len()
    }

    pub(super) const fn room(&self) -> &Room {
        &self.room
    }

    /// A revocation could not be kept: memory is not the whole truth any more.
    pub(super) fn is_full(&self) -> bool {
        self.room.was_lacking()
    }

    /// Every slot is looked at again: a feed has come back.
    pub(super) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// What memory says of a token and the device its request names.
    pub(super) fn look(&self, identity: &Identity, device: Option<&DeviceId>) -> Look {
        let mut look = Look::Clear;
        for (kind, id) in subjects(identity, device) {
            let shard = self.shard(kind, id).read();
            let Some(mark) = shard.get(id) else { continue };
            match &mark.revoked {
                Some(revoked) if revoked.applies(identity, &self.clock) => return Look::Revoked(kind),
                Some(_) | None if mark.pending || mark.unreadable => look = Look::Ask,
                Some(_) | None => {}
            }
        }
        look
    }

    /// Taken before a reading is sent, shown when its result is to be kept.
    pub(super) fn ticket(&self, kind: RevocationKind, id: &str) -> Ticket {
        self.tickets.ticket((kind, id))
    }

    /// A connection came or went: no reading sent before is kept.
    pub(super) fn turn(&self) {
        self.tickets.turn();
        self.renew();
    }

    /// Something changed at this id: until it is read, memory does not answer for it.
    pub(super) fn suspect(&self, kind: RevocationKind, id: &str) {
        self.tickets.tell((kind, id));
        self.change(kind, id, |mark| mark.pending = true);
    }

    /// What was read at this id. Discarded when the feed told of it, or was lost, after the reading was sent.
    pub(super) fn settle(&self, kind: RevocationKind, id: &str, standing: &Standing, seen: Seen) -> bool {
        let mut kept = false;
        self.change(kind, id, |mark| {
            kept = self.ticket(kind, id) == seen.ticket;
            if kept {
                mark.settle(standing, seen, self.clock.instant());
            }
        });
        kept
    }

    /// A revocation that the store has acknowledged: remembered whatever was told since it was written. Whether that took it
    /// back is read after this.
    pub(super) fn keep(&self, kind: RevocationKind, id: &str, revoked: &Standing, seen: Seen) {
        self.change(kind, id, |mark| mark.keep(revoked, seen, self.clock.instant()));
    }

    /// What is remembered and `scan` did not find: what was lost, and what may have been reinstated while nobody listened.
    pub(super) fn missing(&self, scan: u64) -> Vec<Missing> {
        let (mut missing, now) = (Vec::new(), self.clock.instant());
        self.each(|kind, id, mark| {
            let revoked = mark.revoked.as_ref().filter(|revoked| revoked.scan != scan && !revoked.is_over(now));
            if revoked.is_some() || mark.unreadable {
                let (beside, lost) = (revoked.and_then(|old| old.beside), revoked.and_then(|old| old.lost(now)));
                missing.push(Missing { kind, id: id.into(), beside, lost });
            }
        });
        missing
    }

    /// What a key should hold that was read as `standing`, where that is less: the store has lost the rest. Not while there
    /// is news of it.
    pub(super) fn lacks(&self, kind: RevocationKind, id: &str, standing: &Standing) -> Option<Lost> {
        let Standing::Revoked { scope, life, .. } = standing else { return None };
        let now = self.clock.instant();
        let shard = self.shard(kind, id).read();
        let revoked = shard.get(id).filter(|mark| !mark.pending)?.revoked.as_ref()?;
        let lost = revoked.lost(now).filter(|_| revoked.says_more(*scope, *life, now))?;
        // Not all that is remembered: somebody may have narrowed it by hand.
        Some(Lost { value: revoked.value(revoked.held), ..lost })
    }

    /// Whether this id is remembered as revoked.
    pub(super) fn remembers(&self, kind: RevocationKind, id: &str) -> bool {
        self.withstands(kind, id, &Standing::Nothing)
    }

    /// Whether this id is remembered as revoked, also where the store says `standing`: nothing that takes it back.
    pub(super) fn withstands(&self, kind: RevocationKind, id: &str, standing: &Standing) -> bool {
        let now = self.clock.instant();
        let shard = self.shard(kind, id).read();
        let revoked = shard.get(id).and_then(|mark| mark.revoked.as_ref());
        revoked.is_some_and(|revoked| !revoked.is_over(now) && standing.is_nothing_new(revoked.beside))
    }

    /// Ids whose last read failed or has not come yet.
    pub(super) fn pending(&self) -> Vec<(RevocationKind, Box<str>)> {
        let mut pending = Vec::new();
        self.each(|kind, id, mark| {
            if mark.pending {
                pending.push((kind, id.into()));
            }
        });
        pending
    }

    /// Forgets what no token can be revoked by any more.
    pub(super) fn purge(&self) {
        let now = self.clock.instant();
        for shard in self.kinds.iter().flatten() {
            shard.write().retain(|_, mark| {
                if mark.revoked.as_ref().is_some_and(|revoked| revoked.is_over(now)) {
                    mark.revoked = None;
                }
                let kept = !mark.is_empty();
                if !kept {
                    self.room.leave();
                }
                kept
            });
        }
    }

    fn change(&self, kind: RevocationKind, id: &str, change: impl FnOnce(&mut Mark)) {
        let mut shard = self.shard(kind, id).write();
        let old = shard.get_mut(id);
        let is_new = old.is_none();
        let mut fresh = Mark::default();
        let mark = old.unwrap_or(&mut fresh);
        change(mark);
        let (empty, worse) = (mark.is_empty(), mark.pending || mark.unreadable || mark.revoked.is_some());
        if is_new && !empty {
            if self.room.take() {
                shard.insert(id.into(), fresh);
            }
        } else if !is_new && empty {
            shard.remove(id);
            self.room.leave();
        }
        // After the map: whoever sees the new generation sees the entry too.
        if worse {
            self.renew();
        }
    }

    fn each(&self, mut visit: impl FnMut(RevocationKind, &str, &Mark)) {
        for (kind, shards) in RevocationKind::ALL.into_iter().zip(&self.kinds) {
            for shard in shards {
                shard.read().iter().for_each(|(id, mark)| visit(kind, id, mark));
            }
        }
    }

    fn shard(&self, kind: RevocationKind, id: &str) -> &Shard {
        &self.kinds[kind as usize][self.hasher.hash_one(id) as usize % SHARDS]
    }
}

/// What can be revoked about a request.
pub(super) fn subjects<'a>(
    identity: &'a Identity,
    device: Option<&'a DeviceId>,
) -> impl Iterator<Item = (RevocationKind, &'a str)> {
    let claimed = identity.device.as_ref().filter(|claimed| Some(*claimed) != device);
    [
        (RevocationKind::Token, identity.token_id.as_str()),
        (RevocationKind::Session, identity.session.as_str()),
        (RevocationKind::Subject, identity.subject.as_str()),
    ]
    .into_iter()
    .chain(device.into_iter().chain(claimed).map(|device| (RevocationKind::Device, device.as_str())))
}
