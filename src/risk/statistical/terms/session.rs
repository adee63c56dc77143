//! CHANGE: a session that continues elsewhere, with something else, or in two places at once.

use super::{
    View,
    network::{self, Keys},
};
use crate::risk::statistical::{
    binding::{Context, Doubt, Surroundings},
    delta::Scalar,
    event::{Event, Strength},
    hash,
};

/// Two contexts that alternate within this many seconds are used at once.
const CONCURRENT: f64 = 120.0;

/// Fills in what a change of context says against a session; nothing for one that has no context of its own yet.
#[must_use]
pub fn change(view: &View<'_>, event: &Event, now: Surroundings, keys: Keys) -> Doubt {
    let mut doubt = Doubt::default();
    if !view.binding.owned {
        return doubt;
    }
    let same = |test: &dyn Fn(&Surroundings) -> bool| view.binding.own().any(|context| test(&context.surroundings));
    // Where nobody looked, now or whenever the session was accepted, there is nothing to compare.
    let unlooked = !now.is_looked() || (same(&|_| true) && !same(&Surroundings::is_looked));
    if !unlooked && !same(&|own| own.device == now.device) {
        doubt.moved_device = (view.model.change_device * rotation(event)) as f32;
    }
    let client = |own: &Surroundings| own.may_share_device(&now) && own.family == now.family;
    if !same(&|own| client(own) && own.version <= now.version) {
        let same_family = same(&client);
        let gain = if same_family { 0.5 } else { 1.0 };
        doubt.moved_client = (gain * view.model.change_family) as f32;
    }
    if !same(&|own| own.network == now.network) {
        doubt.moved_network = (view.model.change_network * roaming(view, event, keys)) as f32;
    }
    doubt
}

/// What a context that was foreign to the session gets when it alternates with another within two minutes.
#[must_use]
pub fn concurrent(view: &View<'_>, event: &Event, context: &Context) -> f64 {
    let foreign = context.doubt.moved() > 0.0;
    let Some(last) = view.binding.last_context() else { return 0.0 };
    let (here, there) = (context.surroundings, last.surroundings);
    let elsewhere = !here.may_share_device(&there) || here.system != there.system;
    let at_once = event.now - last.at < CONCURRENT && event.now - context.at < CONCURRENT;
    if foreign && elsewhere && at_once { view.model.change_concurrent } else { 0.0 }
}

/// A workload gets a new instance in the middle of a session; a person does not.
fn rotation(event: &Event) -> f64 {
    if event.strength == Strength::Service { 0.1 } else { 1.0 }
}

/// Networks change by themselves under a phone, for a known VPN user, between networks of one's own, and on the way inside,
/// where an address says nothing of a place.
fn roaming(view: &View<'_>, event: &Event, keys: Keys) -> f64 {
    if network::is_many(event) {
        return 0.0;
    }
    let known = keys.network.is_none_or(|key| view.profile.networks.units(hash::short(key)) > 0);
    let tunnels = view.profile.scalar(Scalar::Anonymous, view.today) > 0.0;
    let ordinary = event.agent.family.is_mobile() || tunnels || known;
    if ordinary { view.model.quiet_network } else { 1.0 }
}
