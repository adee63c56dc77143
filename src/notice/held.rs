//! Notices in memory: by whom they are about, one word for each aspect, with the time of the event behind it.

use std::{collections::HashSet, time::Duration};

use foldhash::HashMap;
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::{
    clock::Clock,
    domain::{Notice, ReportedRisk, UnixTime},
    store::{Room, keys},
};

/// Beyond so many, memory is not the whole truth and checks ask the store.
const LIMIT: usize = 500_000;

/// Whom a notice is about: the middle of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Subject,
    /// By its `sid`, of whatever issuer.
    Session,
    Device,
    /// A session of one issuer's subject, by the key that it has here.
    Login,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Subject, Self::Session, Self::Device, Self::Login];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "sub",
            Self::Session => "sid",
            Self::Device => "device",
            Self::Login => "login",
        }
    }
}

/// What a notice is about; a newer word replaces an older one of the same aspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aspect {
    Account,
    Authentication,
    Risk,
    End,
}

impl Aspect {
    const ALL: [Self; 4] = [Self::Account, Self::Authentication, Self::Risk, Self::End];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Authentication => "authentication",
            Self::Risk => "risk",
            Self::End => "end",
        }
    }

    /// Those that can be said of a kind.
    pub(super) fn of(kind: Kind) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |aspect| match aspect {
            Self::Account => kind == Kind::Subject,
            Self::Authentication | Self::Risk => kind != Kind::Login,
            Self::End => kind == Kind::Login,
        })
    }
}

/// One thing that can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Disabled,
    Enabled,
    /// A strong authentication after the event.
    Strong,
    /// `None`: the risk is low again.
    Risk(Option<ReportedRisk>),
    /// A session is over.
    Ended,
}

impl Word {
    pub const fn aspect(self) -> Aspect {
        match self {
            Self::Disabled | Self::Enabled => Aspect::Account,
            Self::Strong => Aspect::Authentication,
            Self::Risk(_) => Aspect::Risk,
            Self::Ended => Aspect::End,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Strong => "strong",
            Self::Risk(None) => "low",
            Self::Risk(Some(ReportedRisk::Medium)) => "medium",
            Self::Risk(Some(ReportedRisk::High)) => "high",
            Self::Ended => "ended",
        }
    }

    /// Of two of the same time the stricter stands.
    const fn strictness(self) -> u64 {
        match self {
            Self::Enabled | Self::Risk(None) => 0,
            Self::Strong | Self::Risk(Some(ReportedRisk::Medium)) => 1,
            Self::Disabled | Self::Ended | Self::Risk(Some(ReportedRisk::High)) => 2,
        }
    }

    /// The value in the store: a number that orders it among others, then the word.
    pub(super) fn render(self, at: UnixTime) -> String {
        format!("{} {}", at.as_millis().saturating_mul(4).saturating_add(self.strictness()), self.as_str())
    }

    /// A word and the time of its event; `None`: not one of this aspect.
    pub(super) fn parse(aspect: Aspect, value: &[u8]) -> Option<(Self, UnixTime)> {
        let (order, word) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
        let at = UnixTime::from_millis(order.parse::<u64>().ok()? / 4);
        let words = [
            Self::Disabled,
            Self::Enabled,
            Self::Strong,
            Self::Risk(None),
            Self::Risk(Some(ReportedRisk::Medium)),
            Self::Risk(Some(ReportedRisk::High)),
            Self::Ended,
        ];
        let known = words.into_iter().find(|known| known.aspect() == aspect && known.as_str() == word)?;
        Some((known, at))
    }

    pub(super) fn notice(self, at: UnixTime) -> Notice {
        Notice {
            disabled: self == Self::Disabled,
            strong_after: (self == Self::Strong).then_some(at),
            risk: if let Self::Risk(risk) = self { risk } else { None },
            ended: self == Self::Ended,
            ended_at: (self == Self::Ended).then_some(at),
        }
    }
}

/// Aspect, kind and id of a notice's key.
pub(super) fn parse_key(key: &str) -> Option<(Aspect, Kind, &str)> {
    let (aspect, rest) = key.strip_prefix(keys::NOTICE)?.split_once(':')?;
    let (kind, id) = rest.split_once(':')?;
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    let aspect = Aspect::of(kind).find(|known| known.as_str() == aspect)?;
    Some((aspect, kind, id))
}

/// A word that was said, when, and when it is over: by the monotonic clock, so that no step of the other ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) word: Word,
    pub(super) at: UnixTime,
    pub(super) ends: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    Nothing,
    Said(Said),
    /// The store must be asked.
    Suspect,
}

type Slots = [Slot; 4];

#[derive(Debug)]
pub(super) struct Held {
    kinds: [RwLock<HashMap<Box<str>, Slots>>; 4],
    room: Room,
}

impl Default for Held {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl Held {
    fn new(limit: usize) -> Self {
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
                    Slot::Suspect => return None,
                }
            }
        }
        Some(notice)
    }

    pub(super) fn suspect(&self, aspect: Aspect, kind: Kind, id: &str) {
        self.set(aspect, kind, id, Slot::Suspect);
    }

    /// What the store says. A word that changes nothing is not kept.
    pub(super) fn put(&self, aspect: Aspect, kind: Kind, id: &str, said: Option<Said>) {
        let said = said.filter(|said| said.word.notice(said.at) != Notice::default());
        self.set(aspect, kind, id, said.map_or(Slot::Nothing, Slot::Said));
    }

    /// What should be in the store and was not found: key, value and what is left of its life.
    pub(super) fn missing(&self, found: &[String], now: Instant) -> Vec<(String, String, Option<Duration>)> {
        let found: HashSet<&str> = found.iter().map(String::as_str).collect();
        let mut missing = Vec::new();
        for kind in Kind::ALL {
            for (id, slots) in self.kinds[kind as usize].read().iter() {
                for (aspect, slot) in Aspect::ALL.into_iter().zip(slots) {
                    let key = keys::notice(aspect.as_str(), kind.as_str(), id);
                    let Slot::Said(said) = slot else { continue };
                    if !found.contains(&*key) && said.ends.is_none_or(|ends| ends > now) {
                        missing.push((key, said.word.render(said.at), said.ends.map(|ends| ends.duration_since(now))));
                    }
                }
            }
        }
        missing
    }

    /// Keys that must be read before memory answers for them, and are not among those found.
    pub(super) fn suspects(&self, found: &[String]) -> Vec<String> {
        let found: HashSet<&str> = found.iter().map(String::as_str).collect();
        let mut suspects = Vec::new();
        for kind in Kind::ALL {
            for (id, slots) in self.kinds[kind as usize].read().iter() {
                let aspects = Aspect::ALL.into_iter().zip(slots).filter(|(_, slot)| **slot == Slot::Suspect);
                suspects.extend(aspects.map(|(aspect, _)| keys::notice(aspect.as_str(), kind.as_str(), id)));
            }
        }
        suspects.retain(|key| !found.contains(&**key));
        suspects
    }

    fn set(&self, aspect: Aspect, kind: Kind, id: &str, slot: Slot) {
        let mut shelf = self.kinds[kind as usize].write();
        let known = shelf.contains_key(id);
        if !known {
            if slot == Slot::Nothing {
                return;
            }
            if !self.room.take() {
                return;
            }
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
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

    #[test]
    fn a_word_reads_back_and_of_two_of_one_time_the_stricter_stands() {
        for word in
            [Word::Disabled, Word::Enabled, Word::Strong, Word::Risk(None), Word::Risk(Some(ReportedRisk::High))]
        {
            assert_eq!(Word::parse(word.aspect(), word.render(NOW).as_bytes()), Some((word, NOW)));
        }
        let order = |word: Word| word.render(NOW).split(' ').next().unwrap().parse::<u64>().unwrap();
        assert!(order(Word::Disabled) > order(Word::Enabled));
        assert!(order(Word::Risk(Some(ReportedRisk::Medium))) > order(Word::Risk(None)));
        assert_eq!(Word::parse(Aspect::Risk, Word::Strong.render(NOW).as_bytes()), None);
        assert_eq!(Word::parse(Aspect::Risk, b"high"), None);
    }

    #[test]
    fn what_was_said_of_any_of_them_counts_and_a_change_makes_ask() {
        let (held, clock, second) = (Held::default(), Clock::manual(NOW), Duration::from_secs(1));
        let about = [(Kind::Subject, "ann"), (Kind::Device, "laptop")];
        let said = |word, ends| Some(Said { word, at: NOW, ends });
        held.put(Aspect::Risk, Kind::Device, "laptop", said(Word::Risk(Some(ReportedRisk::High)), None));
        held.put(Aspect::Authentication, Kind::Subject, "ann", said(Word::Strong, Some(clock.instant() + second)));
        let notice = held.look(&about, &clock).unwrap();
        assert_eq!((notice.risk, notice.strong_after), (Some(ReportedRisk::High), Some(NOW)));
        clock.advance(second);
        assert_eq!(held.look(&about, &clock).unwrap().strong_after, None, "its time is over");
        assert_eq!(held.look(&[(Kind::Subject, "bob")], &clock), Some(Notice::default()));
        held.suspect(Aspect::Account, Kind::Subject, "ann");
        assert_eq!(held.look(&about, &clock), None);
        held.put(Aspect::Account, Kind::Subject, "ann", said(Word::Enabled, None));
        held.put(Aspect::Authentication, Kind::Subject, "ann", None);
        held.put(Aspect::Risk, Kind::Device, "laptop", None);
        assert!(held.is_empty());
    }

    #[test]
    fn what_has_ended_makes_room_and_what_had_none_is_missing_until_all_is_read_again() {
        let (held, clock) = (Held::new(2), Clock::manual(NOW));
        let disabled = |ends| Some(Said { word: Word::Disabled, at: NOW, ends });
        for id in ["ann", "bob", "eve"] {
            held.put(Aspect::Account, Kind::Subject, id, disabled((id == "ann").then_some(clock.instant())));
        }
        assert!(held.is_full() && !held.room().is_back());
        held.purge(clock.instant());
        assert!(held.is_full() && held.room().is_back() && held.len() == 1);
        let before = held.room().dropped();
        held.put(Aspect::Account, Kind::Subject, "eve", disabled(None));
        held.room().whole(before);
        assert!(!held.is_full() && held.look(&[(Kind::Subject, "eve")], &clock).unwrap().disabled);
    }

    #[test]
    fn c03_a_step_of_the_clock_ends_no_word_whose_key_stands() {
        let (held, clock, hour) = (Held::default(), Clock::manual(NOW), Duration::from_secs(3600));
        let said = Said { word: Word::Disabled, at: NOW, ends: clock.instant().checked_add(hour) };
        held.put(Aspect::Account, Kind::Subject, "ann", Some(said));
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
    fn keys_name_aspect_kind_and_id() {
        let key = keys::notice("risk", "sub", "a:b");
        assert_eq!(parse_key(&key), Some((Aspect::Risk, Kind::Subject, "a:b")));
        assert_eq!(parse_key("cs:notice:account:device:x"), None, "a device has no account");
        assert_eq!(parse_key("cs:notice:weather:sub:x"), None);
    }
}
