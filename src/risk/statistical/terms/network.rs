//! NET: where a request comes from, as a chain of country, autonomous system and /24 (IPv6: /48).
//!
//! Each step backs off to the share of *users* seen there, not of requests, so that one busy client does
//! not make a network ordinary.

use super::View;
use crate::risk::statistical::{
    event::{Event, Place, Strength},
    globals::{Share, Total},
    hash,
};

/// The keys of a request's network, each within the one above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Country, when known.
    pub country: Option<u64>,
    /// Autonomous system within its country, when known.
    pub system: Option<u64>,
    /// /24 or /48 within its system, when there is an address.
    pub network: Option<u64>,
    /// Position to a degree within its system, when known.
    pub place: Option<u64>,
}

impl Keys {
    /// The keys of a request.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let country = event.place.map(|place| place.country).filter(|code| *code != [0, 0]);
        let country = country.map(|code| hash::stable(&code));
        let system = event.asn.map(|asn| hash::join(country.unwrap_or(0), u64::from(asn)));
        let network = event.network().map(|network| hash::join(system.unwrap_or(0), network));
        Self { country, system, network, place: event.place.and_then(|place| cell(&place, event.asn)) }
    }
}

/// One step of the chain: what the user and everyone did at this value, under the one above it.
struct Step {
    own: f64,
    own_above: f64,
    users: f64,
    users_above: f64,
    /// Values that an attacker may choose from when nobody was seen here.
    variety: f64,
    mass: f64,
}

impl Step {
    /// Share of users at this value, smoothed; never more than all.
    fn share(&self) -> f64 {
        let above = self.users_above + 0.5 * self.variety.min(self.users_above + 20.0) + 0.5;
        ((self.users + 0.5) / above).min(1.0)
    }

    /// Probability that this user is here.
    fn user(&self) -> f64 {
        (self.own + self.mass * self.share()) / (self.own_above + self.mass)
    }
}

/// Nats for an attacker from the network of a request; 0 when nothing is known of it.
#[must_use]
pub fn nats(view: &View<'_>, event: &Event, keys: Keys) -> f64 {
    let sum = country(view, keys) + system(view, event, keys) + network(view, keys);
    let high = if is_many(event) { 0.0 } else { view.model.net_high };
    sum.clamp(view.model.net_low, high)
}

/// A service is wherever its instances are: on many nodes at once, behind pools of addresses, on both stacks. It could not
/// answer a challenge, and what is refused teaches nothing, so a doubt about its network would never end. That it is in a new
/// country is a fact of its own ([`crate::risk::statistical::Familiar`]), for the rules.
pub fn is_many(event: &Event) -> bool {
    event.strength == Strength::Service
}

fn country(view: &View<'_>, keys: Keys) -> f64 {
    let Some(key) = keys.country else { return 0.0 };
    let step = Step {
        own: view.count(view.profile.countries.units(hash::short(key))),
        own_above: view.sessions,
        users: view.globals.users_with(Share::Country, key),
        users_above: view.globals.total(Total::Users),
        variety: 40.0,
        mass: view.model.country_mass,
    };
    let spread = 0.5 * step.share() + 0.5 * 0.02;
    let home = if step.own_above > 0.0 { (step.own / step.own_above).min(1.0) } else { step.share() };
    ((0.5 * home + 0.5 * spread) / step.user()).ln()
}

fn system(view: &View<'_>, event: &Event, keys: Keys) -> f64 {
    let Some(key) = keys.system else { return 0.0 };
    let above = keys.country.unwrap_or(0);
    let step = Step {
        own: view.count(view.profile.systems.units(hash::short(key))),
        own_above: keys.country.map_or(view.sessions, |c| view.count(view.profile.countries.units(hash::short(c)))),
        users: view.globals.users_with(Share::System, key),
        users_above: view.globals.users_with(Share::Country, above),
        variety: 30.0,
        mass: view.model.system_mass,
    };
    // Part of the attackers know their victim's provider and buy a way out of it.
    let target = view.model.net_target;
    let at_home = (step.own / step.own_above.max(1.0)).min(1.0);
    let blind = 0.5 * step.share() + 0.5 / 50.0;
    let blind = if event.anonymous { blind.max(0.15) } else { blind };
    let attacker = target * at_home + (1.0 - target) * blind;
    (attacker / step.user()).ln()
}

fn network(view: &View<'_>, keys: Keys) -> f64 {
    let Some(key) = keys.network else { return 0.0 };
    let (own_above, users_above) = above_network(view, keys);
    let step = Step {
        own: view.count(view.profile.networks.units(hash::short(key))),
        own_above,
        users: view.globals.users_with(Share::Network, key),
        users_above,
        variety: 256.0,
        mass: view.model.network_mass,
    };
    let user = match keys.system {
        Some(_) => step.user(),
        None => (1.0 - WANDERING) * step.user() + WANDERING * step.share(),
    };
    (step.share() / user).ln()
}

/// How often somebody whose providers nobody knows is on a network like anyone's: another one is then no great surprise.
const WANDERING: f64 = 0.2;

/// The user's observations and everyone's users at the narrowest that is known above the network: its system, else its
/// country, else everything.
fn above_network(view: &View<'_>, keys: Keys) -> (f64, f64) {
    let (profile, globals) = (view.profile, view.globals);
    match (keys.system, keys.country) {
        (Some(key), _) => (view.count(profile.systems.units(hash::short(key))), globals.users_with(Share::System, key)),
        (None, Some(key)) => {
            (view.count(profile.countries.units(hash::short(key))), globals.users_with(Share::Country, key))
        }
        (None, None) => (view.sessions, globals.total(Total::Users)),
    }
}

/// A position to one degree, within its autonomous system: where a provider places this user.
fn cell(place: &Place, asn: Option<u32>) -> Option<u64> {
    let (latitude, longitude) = place.position?;
    let degree = |value: f32| (value.round() as i32) as u32;
    let position = u64::from(degree(latitude)) << 32 | u64::from(degree(longitude));
    Some(hash::join(position, u64::from(asn.unwrap_or(0))))
}
