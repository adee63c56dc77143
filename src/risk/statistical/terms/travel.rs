//! VEL: too far for the time since the last verified position.
//!
//! Quiet where a jump is ordinary: on a network that this user is known to appear from (an egress at head
//! office, a VPN of one's own, a roaming SIM that is placed at home), and within the databases' error.

use super::{
    View,
    network::{self, Keys},
};
use crate::risk::statistical::{event::Event, hash};

/// Kilometres that no speed is computed for: the error of the databases.
const QUIET_KM: f64 = 150.0;
/// Speeds at which doubt begins and is complete, in km/h.
const SLOW: f64 = 250.0;
const FAST: f64 = 900.0;

/// Nats for an attacker from the distance to the last verified position.
#[must_use]
pub fn nats(view: &View<'_>, event: &Event, keys: Keys) -> f64 {
    let last = view.profile.sighting();
    let Some(place) = event.place else { return 0.0 };
    let Some((latitude, longitude)) = place.position else { return 0.0 };
    if last.at <= 0.0 || network::is_many(event) {
        return 0.0;
    }
    let apart = kilometres((last.latitude, last.longitude), (latitude, longitude));
    // Either position may be off by its own radius.
    let km = apart - f64::from(place.radius_km) - f64::from(last.radius_km);
    if km <= QUIET_KM {
        return 0.0;
    }
    let hours = ((event.now - last.at) / 3600.0).max(1.0 / 60.0);
    let speed = km / hours;
    let ramp = ((speed - SLOW) / (FAST - SLOW)).clamp(0.0, 1.0);
    let half = if speed < FAST { 0.5 } else { 1.0 };
    ramp * half * full(view, event, keys)
}

/// The whole of the term: it depends on whether this user was placed there before.
fn full(view: &View<'_>, event: &Event, keys: Keys) -> f64 {
    let here = keys.place.is_some_and(|key| view.profile.places.units(hash::short(key)) > 0);
    let system = keys.system.is_some_and(|key| view.profile.systems.units(hash::short(key)) > 0);
    // Mobile gateways serve whole countries from one city; a phone at home may jump there and back.
    let country = keys.country.is_some_and(|key| view.profile.countries.units(hash::short(key)) > 0);
    if country && event.agent.family.is_mobile() && !here {
        return view.model.travel * view.model.travel_mobile;
    }
    match (here, system) {
        (true, _) => view.model.travel_known,
        (false, true) => view.model.travel_known_system,
        (false, false) => view.model.travel,
    }
}

/// Great-circle distance between two positions in degrees.
#[must_use]
pub fn kilometres(from: (f32, f32), to: (f32, f32)) -> f64 {
    let radians =
        |(latitude, longitude): (f32, f32)| (f64::from(latitude).to_radians(), f64::from(longitude).to_radians());
    let ((a, b), (c, d)) = (radians(from), radians(to));
    let h = ((c - a) / 2.0).sin().powi(2) + a.cos() * c.cos() * ((d - b) / 2.0).sin().powi(2);
    12_742.0 * h.min(1.0).sqrt().asin()
}
