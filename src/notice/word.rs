//! What can be said of whom, and how it is written in the store.

use crate::{
    domain::{Notice, ReportedRisk, UnixTime},
    store::keys,
};

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
    pub(super) const ALL: [Self; 4] = [Self::Subject, Self::Session, Self::Device, Self::Login];

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
    pub(super) const ALL: [Self; 4] = [Self::Account, Self::Authentication, Self::Risk, Self::End];

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

    /// Of two words of one aspect, that of the larger number stands.
    pub(super) fn order(self, at: UnixTime) -> u64 {
        at.as_millis().saturating_mul(4).saturating_add(self.strictness())
    }

    /// The value in the store: a number that orders it among others, then the word.
    pub(super) fn render(self, at: UnixTime) -> String {
        format!("{} {}", self.order(at), self.as_str())
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
    fn keys_name_aspect_kind_and_id() {
        let key = keys::notice("risk", "sub", "a:b");
        assert_eq!(parse_key(&key), Some((Aspect::Risk, Kind::Subject, "a:b")));
        assert_eq!(parse_key("cs:notice:account:device:x"), None, "a device has no account");
        assert_eq!(parse_key("cs:notice:weather:sub:x"), None);
    }
}
