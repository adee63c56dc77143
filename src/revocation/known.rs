//! The revocations this replica knows, in memory. Nothing is ever evicted, and nothing is forgotten because its key is
//! gone: only a reinstatement takes a revocation back, or the end of the longest life a token can have.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use foldhash::{HashMap, HashMapExt, fast::RandomState};
use parking_lot::RwLock;

use super::standing::{Scope, Standing, Undo};
use crate::{
    domain::{DeviceId, Identity, RevocationKind, UnixTime},
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
    until: Option<UnixTime>,
    key: KeyLife,
    /// The last reinstatement that was seen beside its key.
    beside: Option<Undo>,
    /// The last scan that found its key.
    scan: u64,
}

/// What should be left of the key behind a remembered revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyLife {
    Endless,
    Until(UnixTime),
    /// It has ended or was deleted.
    Gone,
}

/// What memory says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Clear,
    Revoked(RevocationKind),
    /// The store must be asked.
    Ask,
}

/// Something remembered that a scan did not find.
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
    pub(super) fn new(limit: usize) -> Self {
        Self {
            kinds: std::array::from_fn(|_| std::array::from_fn(|_| RwLock::new(HashMap::new()))),
            hasher: RandomState::default(),
            generation: AtomicU64::new(1),
            tickets: Tickets::default(),
            room: Room::new(limit),
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
    pub(super) fn look(&self, identity: &Identity, device: Option<&DeviceId>, now: UnixTime) -> Look {
        let mut look = Look::Clear;
        for (kind, id) in subjects(identity, device) {
            let shard = self.shard(kind, id).read();
            let Some(mark) = shard.get(id) else { continue };
            match &mark.revoked {
                Some(revoked) if revoked.applies(identity, now) => return Look::Revoked(kind),
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
                mark.settle(standing, seen);
            }
        });
        kept
    }

    /// What is remembered and `scan` did not find: what was lost, and what may have been reinstated while nobody listened.
    pub(super) fn missing(&self, scan: u64, now: UnixTime) -> Vec<Missing> {
        let mut missing = Vec::new();
        self.each(|kind, id, mark| {
            let revoked = mark.revoked.as_ref().filter(|revoked| revoked.scan != scan && !revoked.is_over(now));
            if revoked.is_some() || mark.unreadable {
                let (beside, lost) = (revoked.and_then(|old| old.beside), revoked.and_then(|old| old.lost(now)));
                missing.push(Missing { kind, id: id.into(), beside, lost });
            }
        });
        missing
    }

    /// Whether this id is remembered as revoked.
    pub(super) fn remembers(&self, kind: RevocationKind, id: &str, now: UnixTime) -> bool {
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
    pub(super) fn purge(&self, now: UnixTime) {
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
    pub(super) now: UnixTime,
    pub(super) max_lifetime: Duration,
    pub(super) scan: u64,
    pub(super) ticket: Ticket,
}

impl Mark {
    fn settle(&mut self, standing: &Standing, seen: Seen) {
        self.pending = false;
        self.unreadable = matches!(standing, Standing::Unreadable);
        let old = self.revoked.take();
        self.revoked = match (standing, old) {
            (Standing::Revoked { .. }, old) => Remembered::read(standing, seen, old.as_ref()),
            (Standing::Unreadable, old) => old,
            (_, Some(old)) if standing.is_nothing_new(old.beside) => Some(old.without_key(seen)),
            _ => None,
        };
    }

    const fn is_empty(&self) -> bool {
        self.revoked.is_none() && !self.pending && !self.unreadable
    }
}

impl Remembered {
    /// What a reading says beside what was known. Where a reinstatement stands that did not before, that is over.
    fn read(standing: &Standing, seen: Seen, old: Option<&Self>) -> Option<Self> {
        let Standing::Revoked { scope, reason, life, beside } = standing else { return None };
        let until = life.map(|life| seen.now.plus(life.max(seen.max_lifetime)));
        let key = life.map_or(KeyLife::Endless, |life| KeyLife::Until(seen.now.plus(life)));
        let new = Self { scope: *scope, reason: reason.clone(), until, key, beside: *beside, scan: seen.scan };
        let old = old.filter(|old| beside.is_none() || old.beside == *beside);
        Some(match old {
            Some(old) => new.merge(old),
            None => new,
        })
    }

    /// Its key has ended or was deleted: it is remembered for as long as a token can live.
    fn without_key(self, seen: Seen) -> Self {
        let until = self.until.unwrap_or_else(|| seen.now.plus(seen.max_lifetime));
        Self { key: KeyLife::Gone, until: Some(until), ..self }
    }

    fn applies(&self, identity: &Identity, now: UnixTime) -> bool {
        !self.is_over(now) && self.scope.covers(identity)
    }

    fn is_over(&self, now: UnixTime) -> bool {
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
    fn lost(&self, now: UnixTime) -> Option<Lost> {
        let life = match self.key {
            KeyLife::Endless => None,
            KeyLife::Until(ends) if ends > now => Some(ends.since(now)),
            KeyLife::Until(_) | KeyLife::Gone => return None,
        };
        Some(Lost { value: self.value(), life })
    }

    /// What its key held, near enough to write it back.
    fn value(&self) -> String {
        match self.scope {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(scope: Scope, until: u64) -> Remembered {
        let until = Some(UnixTime::from_secs(until));
        let reason = if scope == Scope::Everything { "left" } else { "5" };
        Remembered { scope, reason: reason.into(), until, key: KeyLife::Endless, beside: None, scan: 1 }
    }

    /// Endless and of every token; then, undone in between where nobody heard of it, up to a time and for a minute.
    #[test]
    fn a_reinstatement_that_was_missed_ends_what_was_known_before_it() {
        let (known, kind) = (Known::new(9), RevocationKind::Subject);
        let (undo, now) = (Undo::fresh(), UnixTime::from_secs(1000));
        let minute = Duration::from_secs(60);
        let read = |standing: Standing| {
            let seen = Seen { now, max_lifetime: minute, scan: 0, ticket: known.ticket(kind, "ann") };
            assert!(known.settle(kind, "ann", &standing, seen));
            known.shard(kind, "ann").read().get("ann").and_then(|mark| mark.revoked.clone())
        };
        let revoked = |scope, life, beside| Standing::Revoked { scope, reason: "x".into(), life, beside };
        let before = read(revoked(Scope::Everything, None, None)).unwrap();
        assert_eq!((before.scope, before.until), (Scope::Everything, None));
        let after = read(revoked(Scope::IssuedUntil(5), Some(minute), Some(undo))).unwrap();
        assert_eq!((after.scope, after.until), (Scope::IssuedUntil(5), Some(now.plus(minute))));
        let again = read(revoked(Scope::Everything, Some(minute), None)).unwrap();
        assert_eq!((again.scope, again.beside), (Scope::Everything, Some(undo)), "the reinstatement has ended");
        assert!(read(Standing::Reinstated(Some(undo))).is_some(), "it is older than the revocation");
        assert!(read(Standing::Nothing).is_some());
        assert_eq!(read(Standing::Reinstated(Some(Undo::fresh()))), None);
    }

    #[test]
    fn a_later_reading_never_narrows_what_was_revoked_nor_shortens_how_long_it_is_remembered() {
        let (narrow, wide) = (remembered(Scope::IssuedUntil(5), 10), remembered(Scope::Everything, 20));
        for merged in [narrow.clone().merge(&wide), wide.clone().merge(&narrow)] {
            assert_eq!((merged.scope, merged.until), (Scope::Everything, Some(UnixTime::from_secs(20))));
            assert_eq!(merged.value(), "left", "what is written back covers everything too");
        }
    }
}
