//! The table of points: what was seen, what it costs, capped at 10. Pure.

use crate::domain::{Evidence, Lines, NetworkKind, RiskScore, Signal, SignalName, SubjectKind, Unavailable};

/// What a signal costs that could not be looked at: as much as the worst of what it could have said of a place.
pub const UNKNOWN_PENALTY: f64 = 3.0;

/// What the table looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inputs {
    pub kind: SubjectKind,
    pub multi_factor: bool,
    /// A device is asked or was sent, and it is not one the subject is known to use.
    pub new_device: bool,
    pub unusual_location: bool,
    pub network: NetworkKind,
    pub unusual_time: bool,
    pub rapid_requests: bool,
    /// The device is registered and known not to be compliant, or known to be jailbroken.
    pub not_compliant: bool,
    pub jailbroken: bool,
    pub place_unavailable: Option<Unavailable>,
    pub behavior_unavailable: Option<Unavailable>,
}

/// The score and its lines, in the order of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Risk {
    pub score: RiskScore,
    pub lines: Lines,
}

/// Adds up. Multi-factor, new devices and unusual hours are no signals of a service.
pub fn score(inputs: &Inputs) -> Risk {
    let person = inputs.kind == SubjectKind::Person;
    let table = [
        (person && !inputs.multi_factor, SignalName::MfaNotUsed, 3.0),
        (person && inputs.new_device, SignalName::NewDevice, 2.0),
        (inputs.unusual_location, SignalName::UnusualLocation, 3.0),
        (matches!(inputs.network, NetworkKind::Vpn | NetworkKind::Tor), SignalName::Vpn, 1.0),
        (person && inputs.unusual_time, SignalName::UnusualTime, 2.0),
        (inputs.rapid_requests, SignalName::RapidRequests, 2.0),
        (inputs.not_compliant, SignalName::DeviceNotCompliant, 4.0),
        (inputs.jailbroken, SignalName::DeviceJailbroken, 5.0),
    ];
    let seen = table.into_iter().filter(|(seen, _, _)| *seen);
    let mut lines: Lines = seen.map(|(_, name, points)| Signal::new(name, points, Evidence::Seen)).collect();
    lines.extend(unknown(SignalName::LocationUnknown, inputs.place_unavailable));
    lines.extend(unknown(SignalName::BehaviorUnknown, inputs.behavior_unavailable));
    Risk { score: RiskScore::new(lines.iter().map(|line| line.points).sum()), lines }
}

/// The line for a fact that could not be had, under any model.
pub fn unknown(name: SignalName, why: Option<Unavailable>) -> Option<Signal> {
    why.map(|why| Signal::new(name, UNKNOWN_PENALTY, Evidence::Missing(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Inputs = Inputs {
        kind: SubjectKind::Person,
        multi_factor: true,
        new_device: false,
        unusual_location: false,
        network: NetworkKind::Ordinary,
        unusual_time: false,
        rapid_requests: false,
        not_compliant: false,
        jailbroken: false,
        place_unavailable: None,
        behavior_unavailable: None,
    };

    #[test]
    fn each_signal_costs_what_the_table_says_and_names_itself() {
        for (inputs, name, points) in [
            (Inputs { multi_factor: false, ..QUIET }, "mfa_not_used", 3.0),
            (Inputs { new_device: true, ..QUIET }, "new_device", 2.0),
            (Inputs { unusual_location: true, ..QUIET }, "unusual_location", 3.0),
            (Inputs { network: NetworkKind::Vpn, ..QUIET }, "vpn", 1.0),
            (Inputs { unusual_time: true, ..QUIET }, "unusual_time", 2.0),
            (Inputs { rapid_requests: true, ..QUIET }, "rapid_requests", 2.0),
            (Inputs { not_compliant: true, ..QUIET }, "device_not_compliant", 4.0),
            (Inputs { jailbroken: true, ..QUIET }, "device_jailbroken", 5.0),
            (Inputs { place_unavailable: Some(Unavailable::Timeout), ..QUIET }, "location_unknown", 3.0),
            (Inputs { behavior_unavailable: Some(Unavailable::Store), ..QUIET }, "behavior_unknown", 3.0),
        ] {
            let risk = score(&inputs);
            assert_eq!(risk.score.get(), points, "{name}");
            assert_eq!(risk.lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(), [name]);
        }
        assert_eq!(score(&QUIET), Risk { score: RiskScore::new(0.0), lines: Lines::new() });
    }

    #[test]
    fn ten_is_the_most() {
        let worst =
            Inputs { multi_factor: false, unusual_location: true, not_compliant: true, jailbroken: true, ..QUIET };
        assert_eq!(score(&worst).score.get(), 10.0);
    }

    #[test]
    fn a_service_is_not_blamed_for_what_only_persons_do() {
        let service =
            Inputs { kind: SubjectKind::Service, multi_factor: false, new_device: true, unusual_time: true, ..QUIET };
        assert_eq!(score(&service).score.get(), 0.0);
    }
}
