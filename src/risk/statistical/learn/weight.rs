//! How much a request may teach. Every rule here exists because somebody would otherwise teach us their own habits.

use crate::risk::statistical::{
    assess::Scored,
    binding::Standing,
    calibrate::Lines,
    delta::Scalar,
    event::{Event, Strength},
    hash,
    learn::Outcome,
    profile::Profile,
};

/// Accumulated surprise over which habits are no longer learned, in nats.
pub(super) const TOO_SURPRISING: f64 = 4.0;
/// How far under the step-up line a password-only request must be to teach anything, in nats.
const MARGIN: f64 = 2.0;
/// Weight of the first session of a subject, and of a password on a known device and network.
const FIRST: f64 = 0.5;
const PASSWORD: f64 = 0.3;
/// Change of context, in nats, under which a session is still where it was: a phone on the move.
const QUIET_CHANGE: f64 = 0.6;

/// With what weight a request teaches, 0 to 1.
pub(super) fn of(profile: &Profile, assessment: &Scored, event: &Event, outcome: Outcome, lines: Lines) -> f64 {
    let score = assessment.evidence.score();
    match outcome {
        // Who simply asks again after a challenge must not be known by then.
        Outcome::Denied | Outcome::StepUpFailed | Outcome::Challenged => return 0.0,
        Outcome::StepUpPassed => return 1.0,
        Outcome::Allowed => {}
    }
    if assessment.standing == Standing::Failed || score >= lines.deny {
        return 0.0;
    }
    let first = profile.scalars[Scalar::Sessions as usize] == 0;
    let trusted: f64 = match event.strength {
        Strength::Strong | Strength::Service if own_context(assessment) => 1.0,
        _ if first => FIRST,
        Strength::Weak if familiar(profile, assessment, event) && score < lines.step - MARGIN => PASSWORD,
        _ => 0.0,
    };
    if first { trusted.min(FIRST) } else { trusted }
}

/// What the n-th time of an action within a session teaches: all its repeats together less than the first.
pub(super) fn vote(times: u8) -> f64 {
    1.0 / f64::from(times.max(1)).powi(2)
}

/// A context that is the session's own: its first, or one that did not change under it.
pub(super) fn own_context(assessment: &Scored) -> bool {
    assessment.standing >= Standing::Accepted || assessment.doubt.moved() <= QUIET_CHANGE
}

/// A known device on a network of a system that the user is known on.
fn familiar(profile: &Profile, assessment: &Scored, event: &Event) -> bool {
    let unnamed = profile.scalars[Scalar::Unnamed as usize] > 0;
    let device = match event.device.id {
        Some(id) => profile.knows_device(id.0),
        // Nobody looked: enough for somebody of whom no device was ever learned.
        None if event.device.unseen => profile.devices.iter().all(|slot| slot.units == 0),
        None => unnamed,
    };
    let network = assessment.keys.system.is_none_or(|key| profile.systems.units(hash::short(key)) > 0);
    device && network
}
