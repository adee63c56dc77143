//! Names of what an allowed request is still tied to.

use serde::Serialize;

/// Named restrictions that are handed on: the upstream keeps them, we cannot. `read_only` is kept here, too.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Restrictions(u8);

impl Restrictions {
    pub const NAMES: [&'static str; 5] =
        ["enable_session_recording", "monitor_usage", "encrypt_at_rest", "prevent_download", "read_only"];

    /// Nothing but reading: GET, HEAD and OPTIONS.
    pub const READ_ONLY: Self = Self(1 << 4);

    /// With the restriction of that name; `None` where there is no such name.
    pub fn with(self, name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|known| *known == name).map(|bit| Self(self.0 | (1 << bit)))
    }

    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that both hold.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| name)
    }
}

impl std::fmt::Debug for Restrictions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Restrictions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
