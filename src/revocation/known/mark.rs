//! What is known at one id, and what a reading changes about it.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    clock::Clock,
    domain::Identity,
    revocation::standing::{KeyLife, Scope, Standing, Undo},
    store::Ticket,
};

/// By how much a key may end earlier than remembered before it counts as lost: clocks of servers differ.
const SLACK: Duration = Duration::from_secs(10);

/// What is known at one id.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    pub(super) revoked: Option<Remembered>,
    /// The feed said that something changed, and it has not been read yet.
    pub(super) pending: bool,
    /// There is a key, and it cannot be read.
    pub(super) unreadable: bool,
}

/// A revocation that was seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remembered {
    pub(super) scope: Scope,
    pub(super) reason: Box<str>,
    /// When it is forgotten; `None`: not while its key stands.
    pub(super) until: Option<Instant>,
    pub(super) key: KeyLife,
    /// What its key says; less than `scope` where somebody narrowed it by hand.
    pub(super) held: Scope,
    /// The last reinstatement that was seen beside its key.
    pub(super) beside: Option<Undo>,
    /// The last scan that found its key, saying as much as is known of it.
    pub(super) scan: u64,
}

/// What a key should hold, and for how long yet.
#[derive(Clone, Debug)]
pub(in crate::revocation) struct Lost {
    pub(in crate::revocation) value: String,
    pub(in crate::revocation) life: Option<Duration>,
}

/// The moment of a reading.
#[derive(Clone, Copy, Debug)]
pub(in crate::revocation) struct Seen {
    pub(in crate::revocation) max_lifetime: Duration,
    pub(in crate::revocation) scan: u64,
    pub(in crate::revocation) ticket: Ticket,
    /// The feed was live: what it told of is deliberate, also where it says less than was known.
    pub(in crate::revocation) live: bool,
}

impl Mark {
    pub(super) fn settle(&mut self, standing: &Standing, seen: Seen, now: Instant) {
        // Anything else that says less is of a store that has lost the rest.
        let keeps = !seen.live || (seen.scan != 0 && !self.pending);
        self.pending = false;
        self.unreadable = matches!(standing, Standing::Unreadable);
        let old = self.revoked.take();
        self.revoked = match (standing, old) {
            (Standing::Revoked { .. }, old) => Remembered::read(standing, seen, now, old.as_ref(), keeps),
            (Standing::Unreadable, old) => old,
            // Not found, as by a scan: what should be there is given back.
            (_, Some(old)) if standing.is_nothing_new(old.beside) && keeps => Some(Remembered { scan: 0, ..old }),
            (_, Some(old)) if standing.is_nothing_new(old.beside) => Some(old.without_key(seen, now)),
            _ => None,
        };
    }

    /// A revocation that the store has acknowledged, whatever was read meanwhile.
    pub(super) fn keep(&mut self, standing: &Standing, seen: Seen, now: Instant) {
        self.revoked = Remembered::read(standing, seen, now, self.revoked.take().as_ref(), true);
    }

    pub(super) const fn is_empty(&self) -> bool {
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
    pub(super) fn says_more(&self, scope: Scope, life: Option<Duration>, now: Instant) -> bool {
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

    pub(super) fn applies(&self, identity: &Identity, clock: &Clock) -> bool {
        self.scope.covers(identity) && !self.is_over(clock.instant())
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// A later reading never narrows what was revoked, nor shortens how long it is remembered. What is written back says
    /// as much.
    pub(super) fn merge(self, old: &Self) -> Self {
        Self {
            reason: if old.scope > self.scope { old.reason.clone() } else { self.reason },
            scope: self.scope.max(old.scope),
            until: self.until.map(|new| old.until.map_or(new, |old| new.max(old))),
            beside: self.beside.or(old.beside),
            ..self
        }
    }

    /// What its key should hold, unless it had ended or was deleted.
    pub(super) fn lost(&self, now: Instant) -> Option<Lost> {
        let life = match self.key {
            KeyLife::Endless => None,
            KeyLife::Until(ends) if ends > now => Some(ends.duration_since(now)),
            KeyLife::Until(_) | KeyLife::Gone => return None,
        };
        Some(Lost { value: self.value(self.scope), life })
    }

    /// What is known, near enough to write it back.
    pub(super) fn value(&self, scope: Scope) -> String {
        match scope {
            Scope::IssuedUntil(secs) => secs.to_string(),
            Scope::Everything => self.reason.to_string(),
        }
    }
}
