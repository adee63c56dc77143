//! A number with its reasons: the lines that a trust or risk score is made of.
//!
//! Lines are small `Copy` values, so that a decision may carry them without allocating; they become text only when an
//! audit record or an explanation asks.

use std::{fmt, ops::Not};

use serde::{Deserialize, Serialize, ser::SerializeStruct};
use smallvec::SmallVec;

use super::{AuthMethods, DeviceProof, NetworkKind, Unavailable};

/// The lines of one score, strongest order left to whoever made them.
pub type Lines = SmallVec<[Signal; 8]>;

/// One line: what was seen, what it is worth, and on what evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    pub name: SignalName,
    /// Points of risk (0 to 10), or shares of trust (0 to 1), signed as they enter the sum.
    pub points: f64,
    pub evidence: Evidence,
}

impl Signal {
    pub const fn new(name: SignalName, points: f64, evidence: Evidence) -> Self {
        Self { name, points, evidence }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:+.2}", self.name, self.points)?;
        match self.evidence {
            Evidence::Seen => Ok(()),
            evidence => write!(f, " ({evidence})"),
        }
    }
}

impl Serialize for Signal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Signal", 3)?;
        line.serialize_field("name", &self.name)?;
        line.serialize_field("points", &self.points)?;
        line.serialize_field("evidence", &format_args!("{}", self.evidence))?;
        line.end()
    }
}

/// What a line rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evidence {
    /// The name says it all.
    Seen,
    Methods(AuthMethods),
    /// Trust of the registry, and the proof that carried it over.
    Device(f64, DeviceProof),
    /// No device that the registry knows.
    NoDevice,
    Network(NetworkKind),
    /// On a network where the subject was seen before.
    KnownNetwork,
    /// The subject's past has nothing to compare with.
    NoHistory,
    /// A score of 0 to 1 that a model gave.
    Score(f64),
    /// A risk of 0 to 10.
    Risk(f64),
    /// Seconds since the authentication.
    Age(u64),
    /// The fact could not be had.
    Missing(Unavailable),
    /// Natural log odds of a model.
    Nats(f64),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen => f.write_str("seen"),
            Self::Methods(methods) => {
                f.write_str("authenticated by")?;
                methods
                    .iter()
                    .enumerate()
                    .try_for_each(|(i, method)| write!(f, "{} {}", if i == 0 { "" } else { "," }, method.as_str()))
            }
            Self::Device(trust, proof) => write!(f, "registry trust {trust:.2}, shown by {}", proof.as_str()),
            Self::NoDevice => f.write_str("no registered device"),
            Self::Network(kind) => write!(f, "{} network", kind.as_str()),
            Self::KnownNetwork => f.write_str("network known to the subject"),
            Self::NoHistory => f.write_str("no history"),
            Self::Score(score) => write!(f, "score {score:.2} of 1"),
            Self::Risk(risk) => write!(f, "risk {risk:.1} of 10"),
            Self::Age(seconds) => write!(f, "authenticated {seconds} s ago"),
            Self::Missing(why) => write!(f, "could not be looked up: {}", why.as_str()),
            Self::Nats(nats) => write!(f, "{nats:+.1} nats"),
        }
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// The closed list of what a score may be made of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum SignalName { $($(#[$doc])* #[serde(rename = $text)] $variant),+ }

        impl SignalName {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

names! {
    // Risk, fixed table.
    MfaNotUsed = "mfa_not_used",
    NewDevice = "new_device",
    UnusualLocation = "unusual_location",
    Vpn = "vpn",
    UnusualTime = "unusual_time",
    RapidRequests = "rapid_requests",
    DeviceNotCompliant = "device_not_compliant",
    DeviceJailbroken = "device_jailbroken",
    LocationUnknown = "location_unknown",
    BehaviorUnknown = "behavior_unknown",
    // Risk that a transmitter of security events told of, under any model.
    ReportedRisk = "reported_risk",
    // Risk, statistical model.
    NetworkUnusual = "network_unusual",
    DeviceNew = "device_new",
    DeviceMissing = "device_missing",
    DeviceMismatch = "device_mismatch",
    DevicePosture = "device_posture",
    AuthWeakerThanUsual = "auth_weaker_than_usual",
    ImpossibleTravel = "impossible_travel",
    TimeUnusual = "time_unusual",
    BehaviorUnusual = "behavior_unusual",
    RateHigh = "rate_high",
    VolumeHigh = "volume_high",
    AddressShared = "address_shared_by_new_users",
    SessionDeviceChanged = "session_device_changed",
    SessionClientChanged = "session_client_changed",
    SessionNetworkChanged = "session_network_changed",
    SessionConcurrent = "session_concurrent",
    ChallengeFailed = "challenge_failed",
    // Trust.
    Authentication = "authentication",
    Device = "device",
    Network = "network",
    Behavior = "behavior",
    Risk = "risk",
    Decay = "decay",
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a learning model says of a request; stands in for the fixed table where the rules say so.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    pub score: super::RiskScore,
    /// What the score would be once the person passed a step-up in this context. Never above `score`.
    pub after_step_up: super::RiskScore,
    /// The strongest terms, strongest first, each with its nats.
    #[serde(default, with = "terms")]
    pub terms: [Option<(SignalName, f64)>; 4],
    /// Factors of 0 to 1 by which the model lowers the device's and the network's part of trust.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub device_factor: f64,
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub network_factor: f64,
    /// The subject's past is too short for the model alone: the fixed table counts as well, whichever says more.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub cold_start: bool,
}

const fn whole() -> f64 {
    1.0
}

fn is_whole(factor: &f64) -> bool {
    *factor == whole()
}

/// Terms as a list of those there are. Older records hold a `null` for each that there is not.
mod terms {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::SignalName;

    type Terms = [Option<(SignalName, f64)>; 4];

    pub(super) fn serialize<S: Serializer>(terms: &Terms, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(terms.iter().flatten())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Terms, D::Error> {
        let read: Vec<Option<(SignalName, f64)>> = Vec::deserialize(deserializer)?;
        let mut terms = Terms::default();
        terms.iter_mut().zip(read.into_iter().flatten()).for_each(|(term, read)| *term = Some(read));
        Ok(terms)
    }
}
