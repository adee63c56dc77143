//! Newtypes for identifiers, so that a subject does not fit where a device is wanted.
//!
//! All are cheap to clone (`Arc<str>`); none is validated here beyond what its parser promises.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(value: impl Into<Arc<str>>) -> Self {
                Self(value.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                Self(value.into())
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> Self {
                Self(value.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

id!(
    /// Who asks: the token's `sub`, or a workload's SPIFFE id. Unique only together with its [`Issuer`].
    SubjectId
);
id!(
    /// The token's `iss`, compared byte for byte.
    Issuer
);
id!(
    /// The token's `jti`, or whatever claim the issuer's `token_id` names.
    TokenId
);
id!(
    /// The token's `sid`, or the id derived from issuer, subject, client, device and `auth_time`.
    SessionId
);
id!(
    /// A device's id in the registry.
    DeviceId
);
id!(
    /// The id of a policy in the rules.
    PolicyId
);
id!(
    /// The id of anything in the rules that can refuse: a guard, a resource, a policy, an attribute policy.
    RuleId
);
id!(
    /// A role that a token asserts. A `*` in it grants nothing.
    Role
);
id!(
    /// A permission such as `orders:read`.
    Permission
);

/// The id of one decision: 128 bits, sortable by time, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionId(u128);

impl DecisionId {
    /// `millis` since the Unix epoch in the upper 48 bits, `random` below.
    pub const fn new(millis: u64, random: u128) -> Self {
        Self(((millis as u128) << 80) | (random & ((1 << 80) - 1)))
    }

    /// The random lower 80 bits.
    pub const fn random(self) -> u128 {
        self.0 & ((1 << 80) - 1)
    }

    /// Thirty-two lower-case hexadecimal digits, without allocating.
    pub fn to_hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 32];
        for (i, digit) in hex.iter_mut().enumerate() {
            *digit = DIGITS[(self.0 >> (124 - 4 * i)) as usize & 0xf];
        }
        hex
    }

    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DecisionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hex = self.to_hex();
        serializer.serialize_str(std::str::from_utf8(&hex).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for DecisionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a decision id is 32 hexadecimal digits"))
    }
}
