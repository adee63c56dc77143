//! The terms: each compares how likely a request is from an attacker and from the user, in nats.
//!
//! A term reads what is known and never writes. What is unknown is neutral: no place, no address and no
//! history are not evidence.

pub mod behaviour;
pub mod device;
pub mod habits;
pub mod network;
pub mod session;
pub mod travel;

use super::{binding::Binding, delta::Scalar, epoch::Epoch, globals::Globals, model::Model, profile::Profile};

/// All that a term may look at beside the request.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The constants.
    pub model: &'a Model,
    /// The subject's past.
    pub profile: &'a Profile,
    /// Everyone's past.
    pub globals: &'a Globals,
    /// The session so far.
    pub binding: &'a Binding,
    /// Day of the request, and what a stored unit of the profile is worth on it.
    pub today: Epoch,
    /// Worth of one stored unit of the profile, in observations.
    pub worth: f64,
    /// Sessions learned from so far.
    pub sessions: f64,
    /// Those of them in which the device was looked at.
    pub looked: f64,
}

impl<'a> View<'a> {
    /// Looks at a request's past.
    #[must_use]
    pub fn new(model: &'a Model, profile: &'a Profile, globals: &'a Globals, binding: &'a Binding, now: f64) -> Self {
        let today = Epoch::of(now);
        let (sessions, looked) = (profile.sessions(today), profile.scalar(Scalar::Looked, today));
        Self { model, profile, globals, binding, today, worth: profile.worth(today), sessions, looked }
    }

    /// A stored count, in observations.
    #[must_use]
    pub fn count(&self, units: u32) -> f64 {
        f64::from(units) * self.worth
    }

    /// Positive evidence about the device of somebody whose devices are little known says little.
    #[must_use]
    pub fn trusting_the_new(&self, nats: f64) -> f64 {
        let n = self.looked;
        if nats > 0.0 { nats * (n + 0.5) / (n + 1.5) } else { nats }
    }
}
