//! A scored request in the words of the decision: risk 0 to 10, its strongest terms, and what it takes from trust.

use super::{
    assess::Scored,
    calibrate::Lines,
    evidence::{Evidence, Term},
    model::Model,
};
use crate::domain::{Assessment, RiskScore, SignalName};

/// Sessions learned from, in observations, before the model judges a subject alone: three strong ones, the first of which
/// counts half.
pub const ACQUAINTED: f64 = 2.0;

impl Term {
    /// The name under which decisions and audit records speak of this term.
    #[must_use]
    pub fn signal(self) -> SignalName {
        match self {
            Self::Network => SignalName::NetworkUnusual,
            Self::Device => SignalName::DeviceNew,
            Self::DeviceMissing => SignalName::DeviceMissing,
            Self::DeviceMismatch => SignalName::DeviceMismatch,
            Self::Auth => SignalName::AuthWeakerThanUsual,
            Self::Travel => SignalName::ImpossibleTravel,
            Self::Time => SignalName::TimeUnusual,
            Self::Behaviour => SignalName::BehaviorUnusual,
            Self::Rate => SignalName::RateHigh,
            Self::Volume => SignalName::VolumeHigh,
            Self::Share => SignalName::AddressShared,
            Self::Posture => SignalName::DevicePosture,
            Self::SessionDevice => SignalName::SessionDeviceChanged,
            Self::SessionClient => SignalName::SessionClientChanged,
            Self::SessionNetwork => SignalName::SessionNetworkChanged,
            Self::SessionConcurrent => SignalName::SessionConcurrent,
            Self::ChallengeFailed => SignalName::ChallengeFailed,
        }
    }
}

/// What the decision weighs. `after_step_up` is never above `score`, and at the refusal line a step-up buys nothing.
#[must_use]
pub fn summary(scored: &Scored, lines: Lines, model: &Model) -> Assessment {
    let evidence = &scored.evidence;
    let score = lines.risk(evidence.score());
    let cleared = lines.risk(evidence.after_step_up(model).score());
    let refused = evidence.score() >= lines.deny;
    let mut terms = [None; 4];
    for (place, reason) in terms.iter_mut().zip(evidence.reasons(model)) {
        *place = reason.map(|reason| (reason.term.signal(), reason.nats));
    }
    Assessment {
        score: RiskScore::new(score),
        after_step_up: RiskScore::new(if refused { score } else { cleared.min(score) }),
        terms,
        device_factor: device_factor(evidence),
        network_factor: factor(evidence.nats(Term::Network)),
        cold_start: !scored.is_acquainted(),
    }
}

/// The behaviour part of trust: 0.5 for somebody without history, else halved by every nat of surprise.
#[must_use]
pub fn behavior_score(scored: &Scored, has_history: bool) -> Option<f64> {
    has_history.then(|| (-scored.evidence.nats(Term::Behaviour)).exp2())
}

fn device_factor(evidence: &Evidence) -> f64 {
    let doubts = [Term::Device, Term::DeviceMissing, Term::DeviceMismatch];
    factor(doubts.iter().map(|term| evidence.nats(*term)).sum())
}

/// 1 without doubt, falling to 0: twice the logistic of the nats that speak for the user.
fn factor(nats: f64) -> f64 {
    (2.0 / (1.0 + nats.exp())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::statistical::fixture::{MONDAY, acquainted, alice, thief};

    #[test]
    fn a_model_only_lowers_trust() {
        for nats in [-6.0, -1.0, 0.0, 0.5, 3.0, 9.0] {
            assert!((0.0..=1.0).contains(&factor(nats)));
        }
        assert_eq!(factor(-2.0), 1.0);
        assert!(factor(3.0) < 0.1);
    }

    #[test]
    fn a_step_up_helps_below_the_refusal_line_and_buys_nothing_over_it() {
        let mut engine = acquainted();
        let lines = engine.lines();
        for event in [alice(MONDAY, "a"), thief(MONDAY, "b")] {
            let scored = engine.assess(&event);
            let told = summary(&scored, lines, engine.model());
            assert!(told.after_step_up <= told.score);
            assert_eq!(told.terms[0].is_some(), told.terms.iter().any(Option::is_some));
        }
        let scored = engine.assess(&thief(MONDAY, "c"));
        let strict = Lines { step: scored.evidence.score() - 2.0, deny: scored.evidence.score() };
        let told = summary(&scored, strict, engine.model());
        assert_eq!(told.after_step_up, told.score);
        let lenient = Lines { step: scored.evidence.score(), deny: scored.evidence.score() + 4.0 };
        assert!(summary(&scored, lenient, engine.model()).after_step_up.get() < 5.0);
    }
}
