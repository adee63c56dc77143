//! Learns from a request after it was scored, and only from what an attacker with a password cannot fake.
//!
//! - Full weight: strong authentication in a context of the session that raised no doubt, or a passed step-up.
//! - Weight 0.3: a password alone, on a known device and a familiar network, well under the step-up line.
//! - Nothing else: no device and no network is ever learned from a password alone; refused requests teach nothing.
//! - The first session of a subject is trusted on first use, at half weight.
//! - Per session and context each value counts once, and the n-th time of an action votes 1/n².
//! - Surprise and shared addresses always count, but an action that is not let through once a session; a request that is not is
//!   none of the pace.
//! - Action habits and marks are learned only while surprise is low.

mod record;
mod weight;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::{
    assess::Scored,
    binding::{Binding, Context},
    calibrate::Lines,
    delta::Deltas,
    event::{Event, Key},
    globals,
    profile::{Pace, Profile, Sighting},
    shared::SharedDeltas,
    terms::behaviour,
};

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was let through without a challenge.
    Allowed,
    /// A challenge was passed for it.
    StepUpPassed,
    /// A challenge was failed for it.
    StepUpFailed,
    /// It was challenged, and nothing is known of what followed.
    Challenged,
    /// It was refused.
    Denied,
}

/// What one request changed: everything that another replica needs to hold the same.
#[derive(Debug, Clone, Copy)]
pub struct Learned {
    /// Unix seconds of the request.
    pub at: f64,
    /// Whose profile changed.
    pub subject: Key,
    /// Counts to add to that profile.
    pub profile: Deltas,
    /// Its pace: the later one and the higher marks win.
    pub pace: Pace,
    /// Its last verified position: the later one wins.
    pub sighting: Sighting,
    /// Which session changed, and the context that changed in it.
    pub session: Key,
    /// That context; a failure stays, else the more trusting standing wins.
    pub context: Context,
    /// Counts to add to what everyone has in common.
    pub shared: SharedDeltas,
}

/// What learning changes here. What everyone has in common is changed by whoever holds it, from [`Learned::shared`].
#[derive(Debug)]
pub struct Past<'a> {
    /// The subject's past.
    pub profile: &'a mut Profile,
    /// The session so far.
    pub binding: &'a mut Binding,
}

/// Learns from a scored request: changes its past, and returns what changed for everyone and for the other replicas.
pub fn learn(past: Past<'_>, lines: Lines, event: &Event, assessment: &Scored, outcome: Outcome) -> Learned {
    let Past { profile, binding } = past;
    let weight = weight::of(profile, assessment, event, outcome, lines);
    let barred = matches!(outcome, Outcome::Denied | Outcome::Challenged);
    let (previous, times) = binding.act(event.action.key, barred);
    // Onto the pace as it is by now: others of this subject may have been settled since this request was scored.
    let (surprise, requests) = paced(assessment.step.surprise, times, barred);
    let surprise = (surprise, assessment.step.ceiling);
    let (pace, behaviour) = behaviour::advance(profile.pace, event.now, surprise, requests);
    let habit = if behaviour < weight::TOO_SURPRISING { weight * weight::vote(times) } else { 0.0 };
    let tell_away = record::may_tell_away(binding, event, assessment);

    let mut shared = SharedDeltas::none();
    record::session_top(&mut shared, profile, binding, event, assessment, outcome);
    let context = record::context(binding, event, assessment, outcome, lines);
    let mut deltas = record::identity(profile, binding, event, assessment, weight);
    record::habits(&mut deltas, binding, event, weight, habit);
    record::users(&mut shared, profile, &deltas, event, assessment);
    if tell_away {
        record::away(&mut shared, event, assessment);
    }
    globals::list_action(&mut shared, event, previous, habit);

    profile.pace = behaviour::settle(pace, habit > 0.0);
    if weight > 0.0 {
        record::sighting(profile, event);
    }
    deltas.as_slice().iter().for_each(|delta| profile.apply(*delta));
    Learned {
        at: event.now,
        subject: event.subject,
        profile: deltas,
        pace: profile.pace,
        sighting: profile.sighting,
        session: event.session,
        context,
        shared,
    }
}

/// The surprise and the requests that count towards the pace. The marks rise with what is let through alone, so that is what is
/// compared with them: whoever asks again and again while challenged or refused is not kept out by that. What was not yet tried in
/// the session still counts as surprise, but once, since nothing becomes usual that is not let through. What is usual takes surprise
/// off even in vain: whoever means harm may do that before, and a service that was refused in error would stay so for hours.
fn paced(surprise: f64, times: u8, barred: bool) -> (f64, f64) {
    match (barred, times) {
        (false, _) => (surprise, 1.0),
        (true, ..=1) => (surprise, 0.0),
        (true, _) => (surprise.min(0.0), 0.0),
    }
}
