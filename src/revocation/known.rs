//! The revocations this replica knows, in memory. Nothing is ever evicted, and nothing is forgotten because its key is
//! gone: only a reinstatement takes a revocation back, or the end of the longest life a token can have.

#[cfg(test)]
mod tests;

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use foldhash::{HashMap, HashMapExt, fast::RandomState};
use parking_lot::RwLock;
use tokio::time::Instant;

use super::standing::{KeyLife, Scope, Standing, Undo};
use crate::{
    clock::Clock,
    domain::{DeviceId, Identity, RevocationKind},
    store::{Room, Ticket, Tickets},
};

/// Locks per kind: writers hold one for nanoseconds, and seldom the one a reader wants.
const SHARDS: usize = 16;

/// By how much a key may end earlier than remembered before it counts as lost: clocks of servers differ.
const SLACK: Duration = Duration::from_secs(10);

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

/// What is known at one id.
#[derive(Clone, Debug, Default)]
struct Mark {
    revoked: Option<Remembered>,
    /// The feed said that something changed, and it has not been read yet.
    pending: bool,
    /// There is a key, and it cannot be read.
    unreadable: bool,
}

/// A revocation that was seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remembered {
    pub(super) scope: Scope,
    pub(super) reason: Box<str>,
    /// When it is forgotten; `None`: not while its key stands.
    until: Option<Instant>,
    key: KeyLife,
    /// What its key says; less than `scope` where somebody narrowed it by hand.
    held: Scope,
    /// The last reinstatement that was seen beside its key.
    beside: Option<Undo>,
    /// The last scan that found its key, saying as much as is known of it.
    scan: u64,
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

/// What a key should hold, and for how long yet.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) value: String,
    pub(super) life: Option<Duration>,
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
        let now = self.clock.instant();
        let shard = self.shard(kind, id).read();
        shard.get(id).and_then(|mark| mark.revoked.as_ref()).is_some_and(|revoked| !revoked.is_over(now))
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

/// The moment of a reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) max_lifetime: Duration,
    pub(super) scan: u64,
    pub(super) ticket: Ticket,
    /// The feed was live: what it told of is deliberate, also where it says less than was known.
    pub(super) live: bool,
}

impl Mark {
    fn settle(&mut self, standing: &Standing, seen: Seen, now: Instant) {
        // Anything else that says less is of a store that has lost the rest.
        let keeps = !seen.live || (seen.scan != 0 && !self.pending);
        self.pending = false;
        self.unreadable = matches!(standing, Standing::Unreadable);
        let old = self.revoked.take();
        self.revoked = match (standing, old) {
            (Standing::Revoked { .. }, old) => Remembered::read(standing, seen, now, old.as_ref(), keeps),
            (Standing::Unreadable, old) => old,
            (_, Some(old)) if standing.is_nothing_new(old.beside) => Some(old.without_key(seen, now)),
            _ => None,
        };
    }

    const fn is_empty(&self) -> bool {
        self.revoked.is_none() && !self.pending && !self.unreadable
    }
}

impl Remembered {
    /// What a reading says beside what was known. Where a reinstatement stands that did not before, that is over. With `keeps`
    /// the key should go on saying what it said, if that was more.
    fn read(standing: &Standing, seen: Seen, now: Instant, old: Option<&Self>, keeps: bool) -> Option<Self> {
        let Standing::Revoked { scope, reason, life, beside } = standing else { return None };
        // A time that the clock does not reach is none.
        let until = life.and_then(|life| now.checked_add(life.max(seen.max_lifetime)));
        let key = life.and_then(|life| now.checked_add(life)).map_or(KeyLife::Endless, KeyLife::Until);
        let (scope, reason) = (*scope, reason.clone());
        let new = Self { scope, reason, until, key, held: scope, beside: *beside, scan: seen.scan };
        let old = old.filter(|old| beside.is_none() || old.beside == *beside);
        Some(match old {
            Some(old) if keeps && old.says_more(scope, *life, now) => Self {
                // Not found as it should be.
                scan: 0,
                held: scope.max(old.held),
                key: new.key.longer(old.key),
                ..new.merge(old)
            },
            Some(old) => new.merge(old),
            None => new,
        })
    }

    /// Whether its key should hold more than a reading says, or for longer.
    fn says_more(&self, scope: Scope, life: Option<Duration>, now: Instant) -> bool {
        let ends = life.and_then(|life| now.checked_add(life.saturating_add(SLACK)));
        let outlives = match (self.key, ends) {
            (KeyLife::Gone, _) => return false,
            (KeyLife::Until(until), _) if until <= now => return false,
            (_, None) => false,
            (KeyLife::Endless, Some(_)) => true,
            (KeyLife::Until(until), Some(ends)) => until > ends,
        };
        outlives || self.held > scope
    }

    /// Its key has ended or was deleted: it is remembered for as long as a token can live.
    fn without_key(self, seen: Seen, now: Instant) -> Self {
        let until = self.until.or_else(|| now.checked_add(seen.max_lifetime));
        Self { key: KeyLife::Gone, until, ..self }
    }

    fn applies(&self, identity: &Identity, clock: &Clock) -> bool {
        self.scope.covers(identity) && !self.is_over(clock.instant())
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// A later reading never narrows what was revoked, nor shortens how long it is remembered. What is written back says
    /// as much.
    fn merge(self, old: &Self) -> Self {
        Self {
            reason: if old.scope > self.scope { old.reason.clone() } else { self.reason },
            scope: self.scope.max(old.scope),
            until: self.until.map(|new| old.until.map_or(new, |old| new.max(old))),
            beside: self.beside.or(old.beside),
            ..self
        }
    }

    /// What its key should hold, unless it had ended or was deleted.
    fn lost(&self, now: Instant) -> Option<Lost> {
        let life = match self.key {
            KeyLife::Endless => None,
            KeyLife::Until(ends) if ends > now => Some(ends.duration_since(now)),
            KeyLife::Until(_) | KeyLife::Gone => return None,
        };
        Some(Lost { value: self.value(self.scope), life })
    }

    /// What is known, near enough to write it back.
    fn value(&self, scope: Scope) -> String {
        match scope {
            Scope::IssuedUntil(secs) => secs.to_string(),
            Scope::Everything => self.reason.to_string(),
        }
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
