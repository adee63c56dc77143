//! B, RATE and VOLUME: what is done, in which order, and how much of it.
//!
//! Access-pattern and sequence anomalies are one number: the surprise of each action given the role, the
//! action before it and the user's own past, accumulated by a one-sided CUSUM that forgets within hours.

use super::View;
use crate::risk::statistical::{
    delta::Scalar,
    event::{Event, Strength},
    globals::{Habit, Total},
    profile::Pace,
};

/// Half-life of accumulated surprise, in seconds.
const MEMORY: f64 = 3600.0;
/// Decay times of the two request counts, in seconds.
const FAST: f64 = 30.0;
const SLOW: f64 = 1800.0;
/// Decay time of the high marks, in seconds.
const MARKS: f64 = 14.0 * 86_400.0;

/// What this request adds to the pace, and the nats of the pace after it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Step {
    /// Surprise of this action alone.
    pub surprise: f64,
    /// How far this action may raise the accumulated surprise.
    pub ceiling: f64,
    /// Accumulated surprise.
    pub behaviour: f64,
    /// Requests of the last seconds against the user's own mark.
    pub rate: f64,
    /// Requests of the last half hour against the user's own mark.
    pub volume: f64,
}

/// What this request comes to, counted onto the pace that is known so far.
#[must_use]
pub fn step(view: &View<'_>, event: &Event) -> Step {
    let (surprise, ceiling) = surprise(view, event);
    // Asked for in vain before: it is in the pace already.
    let surprise = if view.binding.is_barred(event.action.key) { surprise.min(0.0) } else { surprise };
    let Counted { behaviour, fast, slow, fast_mark, slow_mark } =
        count(view.profile.pace(), event.now, (surprise, ceiling), 1.0);
    let rate = (view.model.rate_gain * ((fast + 1.0) / (fast_mark + 4.0)).ln()).clamp(0.0, 3.0);
    let volume = (view.model.volume_gain * ((slow + 4.0) / (slow_mark + 6.0)).ln()).clamp(0.0, 3.0);
    Step { surprise, ceiling, behaviour, rate, volume }
}

/// The pace with so many more requests in it (one, or none), and the surprise accumulated by then; `surprise` is what to add, and
/// how far that may raise it.
#[must_use]
pub fn advance(past: Pace, now: f64, surprise: (f64, f64), requests: f64) -> (Pace, f64) {
    let Counted { behaviour, fast, slow, fast_mark, slow_mark } = count(past, now, surprise, requests);
    let pace = Pace {
        at: now.max(past.at),
        surprise: behaviour as f32,
        fast: fast as f32,
        slow: slow as f32,
        fast_mark: fast_mark as f32,
        slow_mark: slow_mark as f32,
    };
    (pace, behaviour)
}

/// A pace in full precision.
struct Counted {
    behaviour: f64,
    fast: f64,
    slow: f64,
    fast_mark: f64,
    slow_mark: f64,
}

/// Decays what was counted, and counts a request. One that is settled after a later one has itself decayed since.
fn count(past: Pace, now: f64, (surprise, ceiling): (f64, f64), requests: f64) -> Counted {
    let elapsed = if past.at > 0.0 { (now - past.at).max(0.0) } else { f64::INFINITY };
    let late = (past.at - now).max(0.0);
    let kept = |value: f32, time: f64| f64::from(value) * (-elapsed / time).exp2();
    let new = |value: f64, time: f64| value * (-late / time).exp2();
    Counted {
        behaviour: raised(kept(past.surprise, MEMORY), new(surprise, MEMORY), ceiling),
        fast: kept(past.fast, FAST) + new(requests, FAST),
        slow: kept(past.slow, SLOW) + new(requests, SLOW),
        fast_mark: kept(past.fast_mark, MARKS),
        slow_mark: kept(past.slow_mark, MARKS),
    }
}

/// Accumulated surprise with that of one action, which raises it up to a ceiling.
fn raised(before: f64, added: f64, ceiling: f64) -> f64 {
    before.max(ceiling).min(before + added).max(0.0)
}

/// Surprise of one action in nats: positive when it fits neither the role nor the user. And how far it may raise what has
/// accumulated.
fn surprise(view: &View<'_>, event: &Event) -> (f64, f64) {
    const NOTHING: (f64, f64) = (0.0, f64::INFINITY);
    if event.strength == Strength::Service && view.sessions < 2.0 {
        return NOTHING;
    }
    let previous = view.binding.action;
    let (key, today) = (event.action.key, view.today);
    let anywhere = view.globals.anywhere(key, today);
    if anywhere.total < 200.0 {
        return NOTHING;
    }
    let variety = view.globals.total(Total::Templates).max(10.0);
    let p_global = smooth(anywhere, 1.0 / variety, 20.0);
    let in_role = view.globals.in_role(event.roles, key, today);
    let p_role = smooth(in_role, p_global, 10.0);
    let p_after = smooth(view.globals.after(event.roles, previous, key, today), p_role, 8.0);
    let own = Habit {
        count: view.count(view.profile.actions.units(key)),
        total: view.profile.scalar(Scalar::Actions, today),
    };
    let p_own = smooth(own, p_role, 12.0);
    let p_user = 0.4 * p_after + 0.4 * p_own + 0.15 * p_role + 0.05 * p_global;
    let p_attacker = view.model.b_new / variety + (1.0 - view.model.b_new) * p_global;
    let high = if previous == key { view.model.b_repeat } else { view.model.b_high };
    // A release brings what nobody has done yet, and what it brings stays unusual for a while to those who begin with it. That may be
    // a reason to ask who it is, not to refuse; nobody can ask a service. So what only its own kind does raises no further, and
    // what others do the further, the more they do it.
    let ceiling = match event.strength {
        Strength::Service => view.model.b_new_service,
        Strength::Weak | Strength::Strong => view.model.b_new_person,
    };
    let own_kind = if event.has_roles() { own.count.max(in_role.count) } else { own.count };
    let foreign = ((anywhere.count - own_kind) / view.model.b_new_times).max(1.0);
    ((p_attacker / p_user).ln().clamp(view.model.b_low, high), ceiling * foreign)
}

/// A share, backed off to a wider one with the weight of `mass` observations.
fn smooth(habit: Habit, wider: f64, mass: f64) -> f64 {
    (habit.count + mass * wider) / (habit.total + mass)
}

/// The pace to keep: high marks rise a little with every request that may teach, and never jump.
#[must_use]
pub fn settle(pace: Pace, learning: bool) -> Pace {
    if !learning {
        return pace;
    }
    let rise = |mark: f32, value: f32| if value > mark { mark + RISE * (value - mark) } else { mark };
    Pace { fast_mark: rise(pace.fast_mark, pace.fast), slow_mark: rise(pace.slow_mark, pace.slow), ..pace }
}

/// Share of the way that a mark rises towards a higher count, per request.
const RISE: f32 = 0.15;
