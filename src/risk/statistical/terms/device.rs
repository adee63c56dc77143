//! DEV and posture: which device and client software a request names, against the user's own.

use super::View;
use crate::risk::statistical::{
    event::{Device, Event, Proof, Strength},
    globals::{Share, Total},
};

/// The parts of the device term; at most one of the first three is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Parts {
    /// A device that is known (negative) or new (positive).
    pub known: f64,
    /// No device named.
    pub missing: f64,
    /// A known device with foreign software, or without its proof.
    pub mismatch: f64,
}

/// Nats for an attacker from the device of a request; none where nobody looked. A service need not name one, and may come
/// with a new one.
#[must_use]
pub fn parts(view: &View<'_>, event: &Event) -> Parts {
    let parts = of_anybody(view, event);
    if event.strength == Strength::Service {
        return Parts { known: parts.known.min(0.0), missing: 0.0, ..parts };
    }
    parts
}

fn of_anybody(view: &View<'_>, event: &Event) -> Parts {
    if event.device.unseen {
        return Parts::default();
    }
    let Some(id) = event.device.id else {
        return Parts { missing: view.trusting_the_new(missing(view, event)), ..Parts::default() };
    };
    if event.device.proof == Proof::Missing {
        return Parts { mismatch: view.model.dev_unproved, ..Parts::default() };
    }
    if !view.profile.knows_device(id.0) {
        return Parts { known: view.trusting_the_new(new(view, event)), ..Parts::default() };
    }
    if event.device.proof == Proof::Proved {
        return Parts { known: view.model.dev_proved, ..Parts::default() };
    }
    let Some(slot) = view.profile.device(id.0, event.agent.family) else {
        let seen = view.profile.families.units(event.agent.family.key()) > 0;
        let nats = if seen { view.model.dev_family } else { view.model.dev_family_new };
        return Parts { mismatch: nats, ..Parts::default() };
    };
    // Browsers do not go back a version; a copied header meets the copier's own browser.
    let older = event.agent.version > 0 && event.agent.version < slot.version;
    Parts {
        known: view.model.dev_known,
        mismatch: if older { view.model.dev_version } else { 0.0 },
        ..Parts::default()
    }
}

/// Posture costs what a policy should already have refused; it is no part of who somebody is.
#[must_use]
pub fn posture(device: &Device) -> f64 {
    match (device.jailbroken, device.compliant) {
        (true, _) => 3.0,
        (false, Some(false)) => 1.5,
        _ => 0.0,
    }
}

/// A device id that this user never had.
fn new(view: &View<'_>, event: &Event) -> f64 {
    let new_devices = view.profile.scalar(super::super::delta::Scalar::NewDevices, view.today);
    let p_new = (new_devices + 0.6) / (view.looked + 30.0);
    (view.model.dev_p / p_new).ln() + family(view, event)
}

/// The software of a new device: people mostly stay with what they use, attackers bring their own.
fn family(view: &View<'_>, event: &Event) -> f64 {
    let key = event.agent.family.key();
    let users = view.globals.total(Total::Users);
    let share = (view.globals.users_with(Share::Family, u64::from(key)) + 0.2) / (users + 8.0);
    let own = view.count(view.profile.families.units(key));
    let p_user = (own + 1.5 * share) / (view.sessions + 1.5);
    let p_attacker = 0.5 * share + 0.3 * p_user + 0.2 * if event.agent.family.is_tool() { 0.2 } else { 0.02 };
    (p_attacker / (0.7 * p_user + 0.3 * share)).ln().clamp(-1.0, 2.0)
}

/// No device id at all: about four in ten attackers, and people whose clients never send one.
fn missing(view: &View<'_>, event: &Event) -> f64 {
    let unnamed = view.profile.scalar(super::super::delta::Scalar::Unnamed, view.today);
    let p_user = (unnamed + 0.06) / (view.looked + 2.0);
    let habit = (0.4 / p_user).ln().clamp(-1.0, 4.0);
    if unnamed > 0.0 { habit + family(view, event) } else { habit + family(view, event).max(0.0) }
}
