//! How far a caller is trusted, 0 to 1, with a line for every part of the sum. Pure.
//!
//! The weights are those of DESIGN section 5. A learning model may only lower a part (its factors), never raise one.

pub mod device;

use crate::domain::{
    AuthMethod, AuthMethods, DeviceProof, Evidence, Lines, NetworkKind, RiskScore, Signal, SignalName,
};
use crate::domain::{TrustLevel, TrustScore};

const DEVICE_WEIGHT: f64 = 0.3;
const NETWORK_WEIGHT: f64 = 0.2;
const BEHAVIOR_WEIGHT: f64 = 0.2;
const RISK_WEIGHT: f64 = 0.3;
/// Trust lost for each hour since the authentication.
const DECAY_PER_HOUR: f64 = 0.1;
/// Behaviour's score, and a network's, where nothing speaks for or against.
const NEUTRAL: f64 = 0.5;

/// What trust is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inputs {
    pub methods: AuthMethods,
    /// Trust of the registry and how the device was proven; `None`: no registered device that may be believed.
    pub device: Option<(TrustScore, DeviceProof)>,
    pub network: Network,
    /// 0 to 1; `None`: no history.
    pub behavior: Option<f64>,
    pub risk: RiskScore,
    /// Seconds since the authentication; `None`: no decay (services).
    pub age: Option<f64>,
    /// Factors of 0 to 1 of a learning model.
    pub device_factor: f64,
    pub network_factor: f64,
}

/// The network as trust sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub kind: NetworkKind,
    pub known_to_subject: bool,
}

/// A score, its level, and the lines whose points make its sum (before it is cut to 0 to 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    pub score: TrustScore,
    pub level: TrustLevel,
    pub lines: Lines,
}

/// Adds up.
pub fn score(inputs: &Inputs) -> Trust {
    let mut lines = Lines::new();
    let authentication = authentication(inputs.methods);
    lines.push(Signal::new(SignalName::Authentication, authentication, Evidence::Methods(inputs.methods)));
    lines.push(device(inputs));
    lines.push(network(inputs));
    lines.push(behavior(inputs.behavior));
    let risk = inputs.risk.get();
    if risk > 0.0 {
        lines.push(Signal::new(SignalName::Risk, -RISK_WEIGHT * (risk / 10.0), Evidence::Risk(risk)));
    }
    let fresh: f64 = lines.iter().map(|line| line.points).sum();
    let aged = match inputs.age {
        Some(seconds) => decay(fresh, seconds, &mut lines),
        None => fresh,
    };
    // Sums of decimal weights end in binary crumbs; a score that is .2 on paper is not below .2.
    let score = TrustScore::new((aged * 1e9).round() / 1e9);
    Trust { score, level: level(score, inputs.methods), lines }
}

/// Below .2, .4, .6, .8, the rest; the top also needs a hardware key or a certificate.
pub fn level(score: TrustScore, methods: AuthMethods) -> TrustLevel {
    let strong = methods.contains(AuthMethod::HardwareKey) || methods.contains(AuthMethod::Certificate);
    match score.get() {
        trust if trust < 0.2 => TrustLevel::Untrusted,
        trust if trust < 0.4 => TrustLevel::Low,
        trust if trust < 0.6 => TrustLevel::Medium,
        trust if trust < 0.8 || !strong => TrustLevel::High,
        _ => TrustLevel::Privileged,
    }
}

fn authentication(methods: AuthMethods) -> f64 {
    methods.iter().map(AuthMethod::weight).sum()
}

fn device(inputs: &Inputs) -> Signal {
    match inputs.device {
        Some((trust, proof)) => {
            let share = trust.get() * proof.weight() * inputs.device_factor.clamp(0.0, 1.0);
            Signal::new(SignalName::Device, DEVICE_WEIGHT * share, Evidence::Device(trust.get(), proof))
        }
        None => Signal::new(SignalName::Device, 0.0, Evidence::NoDevice),
    }
}

fn network(inputs: &Inputs) -> Signal {
    let Network { kind, known_to_subject } = inputs.network;
    let (share, evidence) = match kind {
        NetworkKind::Corporate => (1.0, Evidence::Network(kind)),
        NetworkKind::Vpn | NetworkKind::Hosting => (0.2, Evidence::Network(kind)),
        NetworkKind::Tor => (0.0, Evidence::Network(kind)),
        NetworkKind::Private | NetworkKind::Ordinary if known_to_subject => (0.8, Evidence::KnownNetwork),
        NetworkKind::Private => (0.7, Evidence::Network(kind)),
        NetworkKind::Ordinary => (NEUTRAL, Evidence::Network(kind)),
    };
    Signal::new(SignalName::Network, NETWORK_WEIGHT * share * inputs.network_factor.clamp(0.0, 1.0), evidence)
}

fn behavior(score: Option<f64>) -> Signal {
    match score {
        // Not a number is no good sign.
        Some(score) => {
            let score = if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
            Signal::new(SignalName::Behavior, BEHAVIOR_WEIGHT * score, Evidence::Score(score))
        }
        None => Signal::new(SignalName::Behavior, BEHAVIOR_WEIGHT * NEUTRAL, Evidence::NoHistory),
    }
}

fn decay(fresh: f64, seconds: f64, lines: &mut Lines) -> f64 {
    let aged = fresh * (1.0 - DECAY_PER_HOUR * seconds / 3600.0).max(0.0);
    if seconds >= 1.0 {
        lines.push(Signal::new(SignalName::Decay, aged - fresh, Evidence::Age(seconds as u64)));
    }
    aged
}

#[cfg(test)]
mod tests;
