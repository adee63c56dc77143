//! What a subject's past says of the place of a request, as a yes or no: for rules and for the trust score.
//!
//! No history is no answer: it makes nothing unusual.

use super::{assess::Scored, evidence::Term, hash, model::Model, profile::Profile};

/// A place as its subject knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Familiar {
    /// The subject was verified on this network (/24, IPv6: /48) before; `None`: no history, or no address.
    pub network: Option<bool>,
    /// A subject with a history was never verified in this country.
    pub country_is_new: bool,
    /// Too far from the last verified position for the time between, and neither place nor provider is the subject's.
    pub impossible_travel: bool,
}

impl Familiar {
    /// The place of a scored request. Impossible travel stays with its context, as doubt does, until a step-up clears it.
    #[must_use]
    pub fn of(profile: &Profile, scored: &Scored, model: &Model) -> Self {
        if profile.is_empty() {
            return Self::default();
        }
        // Whoever was only ever seen inside, or without a database, has a history that says nothing of places.
        let network = scored.keys.network.filter(|_| profile.networks.total() > 0);
        let country = scored.keys.country.filter(|_| profile.countries.total() > 0);
        let known = |units: u32| units > 0;
        // Half of the term is what speeds that an aircraft reaches add up to.
        let impossible = scored.evidence.nats(Term::Travel) > model.travel / 2.0;
        Self {
            network: network.map(|key| known(profile.networks.units(hash::short(key)))),
            country_is_new: country.is_some_and(|key| !known(profile.countries.units(hash::short(key)))),
            impossible_travel: impossible,
        }
    }
}
