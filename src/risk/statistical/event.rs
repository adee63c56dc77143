//! What the model looks at: one verified request, with every name already reduced to a key.
//!
//! Made by the caller from facts (token claims, place, device record); copying it costs nothing.
//! Nothing in it is a secret and nothing in it is looked up.

use std::{net::IpAddr, ops::Not};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::{action::Action, agent::Agent, hash};
use crate::domain::{address, is_default};

/// A stable 64-bit key of a subject, session or device. Of subjects and sessions, the service makes it by SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub u64);

impl Key {
    /// The key of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(hash::stable(name.as_bytes()))
    }

    /// The key of a name within a scope: a subject of an issuer, a session of a subject.
    #[must_use]
    pub fn within(self, name: &str) -> Self {
        Self(hash::join(self.0, hash::stable(name.as_bytes())))
    }
}

/// How the session was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Strength {
    /// A password alone, or nothing known.
    #[default]
    Weak,
    /// A second factor, a passkey, a hardware key.
    Strong,
    /// A workload certificate: a service, which cannot be challenged.
    Service,
}

impl Strength {
    /// The strongest of RFC 8176 method names.
    pub fn of_methods<'a>(methods: impl IntoIterator<Item = &'a str>) -> Self {
        let rank = |method: &str| match method {
            "mtls" | "x509" => Self::Service,
            "mfa" | "otp" | "hwk" | "swk" | "fido" | "pop" | "sc" | "fpt" | "face" | "iris" | "vbm" => Self::Strong,
            _ => Self::Weak,
        };
        methods.into_iter().map(rank).fold(Self::Weak, |best, next| if next as u8 > best as u8 { next } else { best })
    }
}

/// Where a GeoIP database places the address.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Place {
    /// ISO 3166-1 alpha-2 code; zeros when not known.
    pub country: [u8; 2],
    /// Latitude and longitude in degrees.
    pub position: Option<(f32, f32)>,
    /// Accuracy radius in kilometres; 0 when not said.
    pub radius_km: f32,
}

/// What proves that the request comes from the device it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Proof {
    /// Only the name in a header.
    #[default]
    Named,
    /// The header says so, but a proof that this device always gave is missing or wrong.
    Missing,
    /// A certificate or a bound key.
    Proved,
}

/// The device as the registry and the request describe it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Device {
    /// Key of the device id; `None` when the request names none.
    pub id: Option<Key>,
    /// How it is proved.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proof: Proof,
    /// Compliance by the registry; `None` when not enrolled or not known.
    pub compliant: Option<bool>,
    /// Rooted or jailbroken.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub jailbroken: bool,
    /// Nobody looked: no rule asks for the device here, or the registry does not answer. Then `id` is `None`, and says nothing.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub unseen: bool,
}

/// One request to be scored.
#[skip_serializing_none]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unix seconds.
    pub now: f64,
    /// The subject, keyed by issuer and subject.
    pub subject: Key,
    /// `sid`, else the token id, keyed by subject.
    pub session: Key,
    /// Unix seconds after which nothing more comes of the session, where it goes by a token. `None`: it is not known.
    #[serde(skip)]
    pub ends: Option<f64>,
    /// How strong the authentication behind the session was.
    pub strength: Strength,
    /// Client address; `None` when there is none (a Unix socket).
    pub address: Option<IpAddr>,
    /// Place of the address; `None` when no database knows it or none is configured.
    pub place: Option<Place>,
    /// Autonomous system of the address.
    pub asn: Option<u32>,
    /// An address feed calls it VPN, hosting, proxy or Tor.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub anonymous: bool,
    /// The device.
    pub device: Device,
    /// The client software.
    pub agent: Agent,
    /// What is asked for.
    pub action: Action,
    /// Key of the subject's roles (see [`roles_key`]).
    pub roles: u32,
}

impl Event {
    /// Whether the subject has any role.
    #[must_use]
    pub fn has_roles(&self) -> bool {
        self.roles != roles_key([])
    }

    /// The network of the address: its /24, or /48 for IPv6; of one that stands behind another, its own. `None` without an
    /// address.
    #[must_use]
    pub fn network(&self) -> Option<u64> {
        let written = self.address?.to_canonical();
        let octets = match address::embedded(written).unwrap_or(written) {
            IpAddr::V4(v4) => u64::from(u32::from(v4) >> 8) | 4 << 56,
            IpAddr::V6(v6) => (u128::from(v6) >> 80) as u64 | 6 << 56,
        };
        Some(hash::join(octets, 0x6e65))
    }
}

/// One key for a set of roles; the order in the token does not matter.
pub fn roles_key<'a>(roles: impl IntoIterator<Item = &'a str>) -> u32 {
    hash::short(roles.into_iter().fold(0, |sum, role| sum.wrapping_add(hash::stable(role.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_method_counts() {
        assert_eq!(Strength::of_methods(["pwd"]), Strength::Weak);
        assert_eq!(Strength::of_methods(["pwd", "otp", "mfa"]), Strength::Strong);
        assert_eq!(Strength::of_methods(["mtls"]), Strength::Service);
        assert_eq!(Strength::of_methods([]), Strength::Weak);
    }

    #[test]
    fn roles_are_a_set() {
        assert_eq!(roles_key(["a", "b"]), roles_key(["b", "a"]));
        assert_ne!(roles_key(["a"]), roles_key(["a", "b"]));
    }
}
