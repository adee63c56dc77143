//! Notices in memory: by whom they are about, one word for each aspect, with the time of the event behind it.

use std::collections::HashSet;

use foldhash::HashMap;
use parking_lot::RwLock;
use tokio::time::Instant;

use super::word::{Aspect, Kind, Word};
use crate::{
    clock::Clock,
    domain::{Notice, UnixTime},
    store::{Room, keys},
};

/// A word that was said, when, and when it is over: by the monotonic clock, so that no step of the other ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) word: Word,
    pub(super) at: UnixTime,
    pub(super) ends: Option<Instant>,
}

impl Said {
    fn order(&self) -> u64 {
        self.word.order(self.at)
    }

    fn stands(&self, now: Instant) -> bool {
        self.ends.is_none_or(|ends| ends > now)
    }
}

/// What is known that stands against a store that says less: it may have gone back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    /// Nothing: the feed has told of every change.
    Nothing,
    /// What is newer. What was told of and is not there was removed.
    Newer,
    /// Also what was told of and is not there: the feed was lost since.
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    Nothing,
    Said(Said),
    /// The store must be asked. What was known before is not forgotten: a store that went back in time is told of it.
    Suspect(Option<Said>),
}

impl Slot {
    const fn said(self) -> Option<Said> {
        match self {
            Self::Nothing => None,
            Self::Said(said) => Some(said),
            Self::Suspect(said) => said,
        }
    }
}

type Slots = [Slot; 4];

#[derive(Debug)]
pub(super) struct Held {
    kinds: [RwLock<HashMap<Box<str>, Slots>>; 4],
    room: Room,
}

impl Held {
    /// Of more than `limit` ids, memory is not the whole truth and checks ask the store.
    pub(super) fn new(limit: usize) -> Self {
        Self { kinds: Default::default(), room: Room::new(limit) }
    }

    pub(super) const fn room(&self) -> &Room {
        &self.room
    }

    pub(super) fn len(&self) -> usize {
        self.room.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.room.was_lacking()
    }

    /// Lets go of what has ended.
    pub(super) fn purge(&self, now: Instant) {
        for shelf in &self.kinds {
            shelf.write().retain(|_, slots| {
                for slot in slots.iter_mut() {
                    if matches!(slot, Slot::Said(Said { ends: Some(ends), .. }) if *ends <= now) {
                        *slot = Slot::Nothing;
                    }
                }
                let kept = slots.iter().any(|slot| *slot != Slot::Nothing);
                if !kept {
                    self.room.leave();
                }
                kept
            });
        }
    }

    /// What memory says; `None`: the store must be asked.
    pub(super) fn look(&self, about: &[(Kind, &str)], clock: &Clock) -> Option<Notice> {
        let mut notice = Notice::default();
        for (kind, id) in about {
            let shelf = self.kinds[*kind as usize].read();
            let Some(slots) = shelf.get(*id) else { continue };
            for slot in slots {
                match slot {
                    Slot::Nothing => {}
                    Slot::Said(said) if said.ends.is_some_and(|ends| ends <= clock.instant()) => {}
                    Slot::Said(said) => notice = notice.and(said.word.notice(said.at)),
                    Slot::Suspect(_) => return None,
                }
            }
        }
        Some(notice)
    }

    pub(super) fn suspect(&self, aspect: Aspect, kind: Kind, id: &str) {
        self.change((aspect, kind, id), |slot| Slot::Suspect(slot.said()));
    }

    /// What the store has taken. It may have lost it before that is read.
    pub(super) fn say(&self, of: (Aspect, Kind, &str), said: Said) {
        self.change(of, |slot| {
            Slot::Suspect(Some(slot.said().filter(|known| known.order() > said.order()).unwrap_or(said)))
        });
    }

    /// What the store says now, unless it is not `current` any more: asked under the lock, since news is told of before its key
    /// is suspected. A word that changes nothing is not kept. What is known and `keeps` stays, and is given back.
    pub(super) fn put(
        &self,
        of: (Aspect, Kind, &str),
        said: Option<Said>,
        (keeps, now): (Keeps, Instant),
        current: impl FnOnce() -> bool,
    ) -> Option<Said> {
        let mut newer = None;
        self.change(of, |slot| {
            if !current() {
                return slot;
            }
            let known = slot.said().filter(|known| keeps != Keeps::Nothing && known.stands(now));
            newer = known.filter(|known| match said {
                Some(said) => said.order() < known.order(),
                None => keeps == Keeps::All && matches!(slot, Slot::Suspect(_)),
            });
            match (newer, said) {
                (Some(newer), _) => Slot::Said(newer),
                // Whoever removed it is told of, and so is the loss of everything.
                (None, None) if known.is_some() && matches!(slot, Slot::Said(_)) => slot,
                (None, said) => {
                    said.filter(|said| said.word.notice(said.at) != Notice::default()).map_or(Slot::Nothing, Slot::Said)
                }
            }
        });
        newer
    }

    /// A word that stands, as far as it is known here.
    pub(super) fn said(&self, (aspect, kind, id): (Aspect, Kind, &str), now: Instant) -> Option<Said> {
        let slot = *self.kinds[kind as usize].read().get(id)?.get(aspect as usize)?;
        slot.said().filter(|said| said.stands(now))
    }

    /// Keys of what should be in the store and was not found.
    pub(super) fn missing(&self, found: &[String], now: Instant) -> Vec<String> {
        let found: HashSet<&str> = found.iter().map(String::as_str).collect();
        let mut missing = Vec::new();
        for kind in Kind::ALL {
            for (id, slots) in self.kinds[kind as usize].read().iter() {
                for (aspect, slot) in Aspect::ALL.into_iter().zip(slots) {
                    let key = keys::notice(aspect.as_str(), kind.as_str(), id);
                    let Slot::Said(said) = slot else { continue };
                    if !found.contains(&*key) && said.stands(now) {
                        missing.push(key);
                    }
                }
            }
        }
        missing
    }

    /// Keys that must be read before memory answers for them.
    pub(super) fn suspects(&self) -> Vec<String> {
        let mut suspects = Vec::new();
        for kind in Kind::ALL {
            for (id, slots) in self.kinds[kind as usize].read().iter() {
                let aspects = Aspect::ALL.into_iter().zip(slots).filter(|(_, slot)| matches!(slot, Slot::Suspect(_)));
                suspects.extend(aspects.map(|(aspect, _)| keys::notice(aspect.as_str(), kind.as_str(), id)));
            }
        }
        suspects
    }

    fn change(&self, (aspect, kind, id): (Aspect, Kind, &str), change: impl FnOnce(Slot) -> Slot) {
        let mut shelf = self.kinds[kind as usize].write();
        let known = shelf.get(id).map(|slots| slots[aspect as usize]);
        let slot = change(known.unwrap_or_default());
        if known.is_none() && (slot == Slot::Nothing || !self.room.take()) {
            return;
        }
        let slots = shelf.entry(id.into()).or_default();
        slots[aspect as usize] = slot;
        if slots.iter().all(|slot| *slot == Slot::Nothing) {
            shelf.remove(id);
            self.room.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::ReportedRisk;

    const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

    fn put(held: &Held, of: (Aspect, Kind, &str), said: Option<Said>) {
        assert_eq!(held.put(of, said, (Keeps::Nothing, Instant::now()), || true), None);
    }

    #[test]
    fn what_was_said_of_any_of_them_counts_and_a_change_makes_ask() {
        let (held, clock, second) = (Held::new(100), Clock::manual(NOW), Duration::from_secs(1));
        let about = [(Kind::Subject, "ann"), (Kind::Device, "laptop")];
        let said = |word, ends| Some(Said { word, at: NOW, ends });
        put(&held, (Aspect::Risk, Kind::Device, "laptop"), said(Word::Risk(Some(ReportedRisk::High)), None));
        put(&held, (Aspect::Authentication, Kind::Subject, "ann"), said(Word::Strong, Some(clock.instant() + second)));
        let notice = held.look(&about, &clock).unwrap();
        assert_eq!((notice.risk, notice.strong_after), (Some(ReportedRisk::High), Some(NOW)));
        clock.advance(second);
        assert_eq!(held.look(&about, &clock).unwrap().strong_after, None, "its time is over");
        assert_eq!(held.look(&[(Kind::Subject, "bob")], &clock), Some(Notice::default()));
        held.suspect(Aspect::Account, Kind::Subject, "ann");
        assert_eq!(held.look(&about, &clock), None);
        put(&held, (Aspect::Account, Kind::Subject, "ann"), said(Word::Enabled, None));
        put(&held, (Aspect::Authentication, Kind::Subject, "ann"), None);
        put(&held, (Aspect::Risk, Kind::Device, "laptop"), None);
        assert!(held.is_empty());
    }

    #[test]
    fn what_has_ended_makes_room_and_what_had_none_is_missing_until_all_is_read_again() {
        let (held, clock) = (Held::new(2), Clock::manual(NOW));
        let disabled = |ends| Some(Said { word: Word::Disabled, at: NOW, ends });
        for id in ["ann", "bob", "eve"] {
            put(&held, (Aspect::Account, Kind::Subject, id), disabled((id == "ann").then_some(clock.instant())));
        }
        assert!(held.is_full() && !held.room().is_back());
        held.purge(clock.instant());
        assert!(held.is_full() && held.room().is_back() && held.len() == 1);
        let before = held.room().dropped();
        put(&held, (Aspect::Account, Kind::Subject, "eve"), disabled(None));
        held.room().whole(before);
        assert!(!held.is_full() && held.look(&[(Kind::Subject, "eve")], &clock).unwrap().disabled);
    }

    #[test]
    fn c03_a_step_of_the_clock_ends_no_word_whose_key_stands() {
        let (held, clock, hour) = (Held::new(100), Clock::manual(NOW), Duration::from_secs(3600));
        let said = Said { word: Word::Disabled, at: NOW, ends: clock.instant().checked_add(hour) };
        put(&held, (Aspect::Account, Kind::Subject, "ann"), Some(said));
        let disabled = || held.look(&[(Kind::Subject, "ann")], &clock).unwrap().disabled;
        clock.set(NOW.plus(24 * hour));
        held.purge(clock.instant());
        assert!(disabled(), "during the step");
        clock.set(NOW);
        assert!(disabled(), "and after it");
        clock.advance(hour);
        held.purge(clock.instant());
        assert!(held.is_empty());
    }

    #[test]
    fn of_a_store_that_may_have_gone_back_in_time_only_what_is_newer_is_taken() {
        let (held, clock, of) = (Held::new(100), Clock::manual(NOW), (Aspect::Risk, Kind::Subject, "ann"));
        let now = clock.instant();
        let said = |risk, at, ends| Some(Said { word: Word::Risk(risk), at, ends });
        let (older, newer) = (NOW.minus(Duration::from_secs(1)), said(Some(ReportedRisk::High), NOW, None));
        let risk = || held.look(&[(Kind::Subject, "ann")], &clock).map(|notice| notice.risk);
        put(&held, of, newer);
        held.suspect(of.0, of.1, of.2);
        assert_eq!(held.put(of, said(None, older, None), (Keeps::Newer, now), || true), newer);
        assert_eq!(
            held.put(of, said(None, NOW, None), (Keeps::Newer, now), || true),
            newer,
            "of one time the stricter stands"
        );
        assert_eq!(held.put(of, None, (Keeps::Newer, now), || true), None);
        assert_eq!(risk(), Some(Some(ReportedRisk::High)));
        held.suspect(of.0, of.1, of.2);
        assert_eq!(held.put(of, None, (Keeps::All, now), || true), newer, "what became of it nobody has read");
        assert_eq!(held.put(of, said(None, NOW, None), (Keeps::Nothing, now), || false), None);
        assert_eq!(risk(), Some(Some(ReportedRisk::High)), "a reading that was overtaken counts for nothing");
        put(&held, of, said(None, older, None));
        assert_eq!(risk(), Some(None), "while the feed tells of everything the store is right");
        put(&held, of, said(Some(ReportedRisk::High), NOW, Some(now)));
        assert_eq!(
            held.put(of, said(Some(ReportedRisk::Medium), older, None), (Keeps::Newer, now), || true),
            None,
            "it has ended"
        );
        assert_eq!(risk(), Some(Some(ReportedRisk::Medium)));
    }
}
