//! A session in memory, shared by the checks of all threads. Locked for moments only, never across a wait.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    key::{Context, SessionKey},
    record::Session,
    settings::Settings,
};
use crate::domain::{Identity, SessionState, SubjectKind, UnixTime};

#[derive(Debug)]
pub(super) struct Live {
    pub(super) key: SessionKey,
    held: Mutex<Held>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) session: Session,
    /// The connection of the feed during which the store was read last; 0: not at all.
    epoch: u64,
    /// The feed told of a change that was not read yet.
    suspect: bool,
    read_at: Instant,
    /// The last use that is in the store, or on its way.
    pub(super) written: UnixTime,
}

/// What memory says.
#[derive(Debug)]
pub(super) enum Look {
    /// And whether it has its place among those of its subject.
    Known(SessionState, bool),
    /// The store must be read.
    Read,
}

impl Live {
    pub(super) fn new(key: SessionKey, session: Session) -> Self {
        let written = session.seen_at;
        let held = Held { session, epoch: 0, suspect: false, read_at: Instant::now(), written };
        Self { key, held: Mutex::new(held) }
    }

    /// `fresh`: the present connection of the feed; `None`: there is none that may be believed.
    pub(super) fn look(
        &self,
        fresh: Option<u64>,
        (identity, context): (&Identity, &Context),
        settings: &Settings,
        now: UnixTime,
    ) -> Look {
        let held = self.held.lock();
        let over = held.session.ended.is_some() && held.is_over_for(identity, settings, now);
        if fresh != Some(held.epoch) || held.suspect || held.is_idle(settings, now) || over {
            return Look::Read;
        }
        Look::Known(held.state(identity, context, false), !held.session.unplaced)
    }

    pub(super) fn state(
        &self,
        (identity, context): (&Identity, &Context),
        settings: &Settings,
        now: UnixTime,
    ) -> SessionState {
        let held = self.held.lock();
        held.state(identity, context, held.is_idle(settings, now))
    }

    /// Whether it is over, and this token begins the next one.
    pub(super) fn is_over_for(&self, identity: &Identity, settings: &Settings, now: UnixTime) -> bool {
        self.held.lock().is_over_for(identity, settings, now)
    }

    pub(super) fn is_placed(&self) -> bool {
        !self.held.lock().session.unplaced
    }

    pub(super) fn merge(&self, other: Session) {
        self.held.lock().session.merge(other);
    }

    /// Read from the store at `read_at`; `current`: no change was told of meanwhile.
    ///
    /// Asked under the lock: a change is told before the session is suspected, so that one of the two sees the other.
    pub(super) fn was_read(&self, epoch: u64, read_at: Instant, current: impl FnOnce() -> bool) {
        let mut held = self.held.lock();
        (held.epoch, held.read_at, held.suspect) = (epoch, read_at, !current());
    }

    pub(super) fn suspect(&self) {
        self.held.lock().suspect = true;
    }

    /// Whether it was read less than `limit` ago, or earlier in a connection of the feed that told of none of its changes:
    /// if that `told` of changes until less than `limit` ago.
    pub(super) fn known_within(&self, limit: Duration, told: impl FnOnce(u64) -> bool) -> bool {
        let held = self.held.lock();
        held.epoch > 0 && (held.read_at.elapsed() < limit || (!held.suspect && told(held.epoch)))
    }

    /// Works on the session, and says what came of it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Held) -> T) -> T {
        work(&mut self.held.lock())
    }
}

impl Held {
    fn state(&self, identity: &Identity, context: &Context, idle: bool) -> SessionState {
        let mark = if self.session.contexts.is_empty() { None } else { self.session.mark(context.id()) };
        self.session.state(mark, idle || self.session.is_after(identity))
    }

    pub(super) fn is_over_for(&self, identity: &Identity, settings: &Settings, now: UnixTime) -> bool {
        self.over_since(settings, now).is_some_and(|end| identity.begins_after(end))
    }

    fn over_since(&self, settings: &Settings, now: UnixTime) -> Option<UnixTime> {
        match settings.idle.filter(|_| self.is_idle(settings, now)) {
            Some(idle) => Some(self.session.seen_at.plus(idle.get())),
            None => self.session.ended_at,
        }
    }

    /// Puts the session that begins now in the place of the one of its name that is over.
    pub(super) fn renew(&mut self, begun: Session, settings: &Settings, now: UnixTime) {
        let over = self.over_since(settings, now);
        self.session = self.session.next(begun, over);
    }

    /// A person's session that nobody has used for too long.
    fn is_idle(&self, settings: &Settings, now: UnixTime) -> bool {
        let Some(idle) = settings.idle.filter(|_| self.session.kind == SubjectKind::Person) else { return false };
        self.session.ended.is_none() && now.since(self.session.seen_at) > idle.get()
    }
}
