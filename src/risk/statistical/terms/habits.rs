//! AUTH, TIME and SHARE: how strongly, when, and among whom a user is usually seen.

use super::View;
use crate::risk::statistical::{
    delta::Scalar,
    event::{Event, Strength},
    globals::Total,
    hash,
    terms::network::Keys,
};

/// Nats from the strength of the authentication, against the user's own habit.
#[must_use]
pub fn auth(view: &View<'_>, event: &Event) -> f64 {
    let weak = view.profile.scalar(Scalar::Weak, view.today);
    let strong = view.profile.scalar(Scalar::Strong, view.today);
    let (all_weak, all_strong) = (view.globals.total(Total::Weak), view.globals.total(Total::Strong));
    let usual = (all_weak + 4.0) / (all_weak + all_strong + 10.0);
    let p_weak = (weak + usual) / (weak + strong + 1.0);
    match event.strength {
        Strength::Weak => (0.75 / p_weak.max(0.055)).ln(),
        // More than usual is no weakness.
        Strength::Strong => (0.25 / (1.0 - p_weak).max(0.055)).ln().min(0.0),
        Strength::Service => -1.0,
    }
}

/// Slot of the hour histogram: hour of the day in UTC, at weekends 24 later.
#[must_use]
pub fn hour_of(now: f64) -> u8 {
    let hours = (now / 3600.0) as i64;
    // Day 0 of the Unix era was a Thursday.
    let weekday = (hours / 24 + 3) % 7;
    (hours % 24) as u8 + if weekday >= 5 { 24 } else { 0 }
}

/// Nats from the hour and kind of day; never decisive alone.
#[must_use]
pub fn time(view: &View<'_>, event: &Event) -> f64 {
    if event.strength == Strength::Service {
        return 0.0;
    }
    let slot = usize::from(hour_of(event.now));
    let (start, hour, share) = if slot >= 24 { (24, slot - 24, 2.0 / 7.0) } else { (0, slot, 5.0 / 7.0) };
    let at = |offset: usize| f64::from(view.profile.hours[start + (hour + offset) % 24]);
    let near = (0.5 * at(0) + 0.25 * at(1) + 0.25 * at(23)) * view.worth;
    let all = f64::from(view.profile.hours.iter().map(|n| u32::from(*n)).sum::<u32>()) * view.worth;
    let uniform = share / 24.0;
    let p_user = (near + 12.0 * uniform) / (all + 12.0);
    (view.model.time_gain * (uniform / p_user).ln()).clamp(-0.6, 1.8)
}

/// Whether a known user is on a network, and in a system, that are not among the user's own.
#[must_use]
pub fn away(view: &View<'_>, event: &Event, keys: Keys) -> bool {
    let known = |units: u32| units > 0;
    let Some(network) = keys.network else { return false };
    let own = known(view.profile.networks.units(hash::short(network)))
        || keys.system.is_some_and(|key| known(view.profile.systems.units(hash::short(key))));
    !own && event.strength != Strength::Service && view.sessions > 0.0
}

/// Nats from other users who are away from home on the same network: credential stuffing.
#[must_use]
pub fn share(view: &View<'_>, event: &Event, address: Option<u64>, residents: f64) -> f64 {
    let Some(address) = address else { return 0.0 };
    let others = view.globals.addresses.others(address, event.subject, event.now) / (1.0 + 0.5 * residents);
    (view.model.share_gain * others.ln_1p()).min(4.0)
}
