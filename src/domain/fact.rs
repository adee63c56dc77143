//! What a look-up brought home: known, nothing there, could not look, or never asked.
//!
//! A failed look-up is a fact too. What each shape means for an answer stands in `decision::posture`, nowhere else.

use serde::{Deserialize, Serialize};

use super::UnixTime;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact<T> {
    /// Looked up, and this is what was there at `as_of`.
    Known { value: T, as_of: UnixTime },
    /// Looked up, and nothing was there.
    Absent,
    /// Could not be looked up.
    Unavailable(Unavailable),
    /// Nobody asked: not configured, or no rule needs it.
    #[default]
    NotAsked,
}

/// Why something could not be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// The deadline of the check came first.
    Timeout,
    /// The store refused, or the connection failed.
    Store,
    /// There is a record, and it cannot be read: wrong type, wrong shape, too large.
    Malformed,
    /// A bounded queue or pool was full.
    Overloaded,
    /// What is needed to look is still being fetched (a key set, a first scan).
    NotReady,
    /// What is at hand is older than may be relied on.
    Stale,
    /// A bug of ours: the check ended in a panic.
    Internal,
}

impl Unavailable {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Store => "store",
            Self::Malformed => "malformed",
            Self::Overloaded => "overloaded",
            Self::NotReady => "not_ready",
            Self::Stale => "stale",
            Self::Internal => "internal",
        }
    }
}

impl<T> Fact<T> {
    pub const fn known(value: T, as_of: UnixTime) -> Self {
        Self::Known { value, as_of }
    }

    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Absent | Self::Unavailable(_) | Self::NotAsked => None,
        }
    }

    pub const fn is_not_asked(&self) -> bool {
        matches!(self, Self::NotAsked)
    }

    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known { value, as_of } => Fact::Known { value: change(value), as_of },
            Self::Absent => Fact::Absent,
            Self::Unavailable(why) => Fact::Unavailable(why),
            Self::NotAsked => Fact::NotAsked,
        }
    }

    pub const fn as_ref(&self) -> Fact<&T> {
        match self {
            Self::Known { value, as_of } => Fact::Known { value, as_of: *as_of },
            Self::Absent => Fact::Absent,
            Self::Unavailable(why) => Fact::Unavailable(*why),
            Self::NotAsked => Fact::NotAsked,
        }
    }
}
