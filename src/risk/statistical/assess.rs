//! Scores one request: gathers the terms, freezes those of identity per context, weighs them.
//!
//! Pure. The same inputs give the same bits; nothing is allocated and nothing is learned here.

use super::{
    binding::{Binding, Context, Doubt, Standing, Surroundings},
    event::Event,
    evidence::{Evidence, Term},
    globals::{Globals, Share},
    model::Model,
    profile::Profile,
    summary::ACQUAINTED,
    terms::{
        View, behaviour, device, habits,
        network::{self, Keys},
        session, travel,
    },
};

/// A scored request, with what learning needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The answer.
    pub evidence: Evidence,
    /// The running quantities of behaviour, with this request counted.
    pub(super) step: behaviour::Step,
    /// The context the request came in.
    pub(super) surroundings: Surroundings,
    /// What that context raised when it was first seen.
    pub(super) doubt: Doubt,
    /// How far that context is trusted so far.
    pub(super) standing: Standing,
    /// Keys of its network.
    pub(super) keys: Keys,
    /// Key under which this user counts as away from home, when it is.
    pub(super) unfamiliar: Option<u64>,
    /// Sessions of the subject learned from so far, decayed.
    pub(super) sessions: f64,
}

impl Scored {
    /// Whether enough is known of the subject for the model to judge alone.
    #[must_use]
    pub fn is_acquainted(&self) -> bool {
        self.sessions >= ACQUAINTED
    }

    /// The context that the request came in.
    #[must_use]
    pub fn surroundings(&self) -> Surroundings {
        self.surroundings
    }

    /// Whether a step-up was passed in this context, so that asking again would tell nothing.
    #[must_use]
    pub fn proven(&self) -> bool {
        self.standing == Standing::Proven
    }
}

/// Scores a request against the past of its subject, of everyone and of its session.
#[must_use]
pub fn assess(model: &Model, profile: &Profile, globals: &Globals, binding: &Binding, event: &Event) -> Scored {
    let view = View::new(model, profile, globals, binding, event.now);
    let keys = Keys::of(event);
    let (surroundings, known) = context(binding, event);
    let mut nats = [0.0; Term::COUNT];
    let doubt = identity(&view, event, keys, (surroundings, known), &mut nats);
    let standing = known.map_or(Standing::Seen, |context| standing(&context, surroundings, &doubt));
    apply_standing(standing, model, &mut nats);
    let step = behaviour::step(&view, event);
    let unfamiliar = if doubt.away { keys.network } else { None };
    let residents = unfamiliar.map_or(0.0, |key| globals.users_with(Share::Network, key));
    nats[Term::Time as usize] = habits::time(&view, event);
    nats[Term::Behaviour as usize] = step.behaviour;
    nats[Term::Rate as usize] = step.rate;
    nats[Term::Volume as usize] = step.volume;
    nats[Term::Share as usize] = habits::share(&view, event, unfamiliar, residents);
    nats[Term::Posture as usize] = device::posture(&event.device);
    let (evidence, sessions) = (Evidence::weigh(nats, model), view.sessions);
    Scored { evidence, step, surroundings, doubt, standing, keys, unfamiliar, sessions }
}

/// The context that a request comes in, and what is known of it. A device that nobody looked at is taken to be the context's.
fn context(binding: &Binding, event: &Event) -> (Surroundings, Option<Context>) {
    let surroundings = Surroundings::of(event);
    match binding.find(surroundings).copied() {
        Some(known) if !surroundings.is_looked() => (known.surroundings, Some(known)),
        known => (surroundings, known),
    }
}

/// How far a context is trusted now. One whose device was not looked at until now is not trusted on with another one.
pub(super) fn standing(known: &Context, surroundings: Surroundings, doubt: &Doubt) -> Standing {
    let moved = known.surroundings != surroundings && doubt.moved_device > 0.0;
    if moved { known.standing.min(Standing::Seen) } else { known.standing }
}

/// The terms of identity: as they stood at first sight for a known context, computed for a new one.
fn identity(
    view: &View<'_>,
    event: &Event,
    keys: Keys,
    (surroundings, known): (Surroundings, Option<Context>),
    nats: &mut [f64; Term::COUNT],
) -> Doubt {
    let doubt = match known {
        Some(context) => {
            let concurrent = session::concurrent(view, event, &context) as f32;
            let doubt = Doubt { concurrent: context.doubt.concurrent.max(concurrent), ..context.doubt };
            if context.surroundings == surroundings { doubt } else { device_sight(view, event, keys, doubt) }
        }
        None => first_sight(view, event, keys),
    };
    let kind = match surroundings.device {
        0 => Term::DeviceMissing,
        _ if doubt.mismatch => Term::DeviceMismatch,
        _ => Term::Device,
    };
    // What speaks for the user is shown anew by each request that is looked at.
    nats[kind as usize] = f64::from(if event.device.unseen { doubt.device.max(0.0) } else { doubt.device });
    nats[Term::Network as usize] = f64::from(doubt.network);
    nats[Term::Auth as usize] = f64::from(doubt.auth);
    nats[Term::Travel as usize] = f64::from(doubt.travel);
    let unchanged = view.binding.owned && doubt.moved() == 0.0;
    nats[Term::SessionDevice as usize] = if unchanged { view.model.no_change } else { f64::from(doubt.moved_device) };
    nats[Term::SessionClient as usize] = f64::from(doubt.moved_client);
    nats[Term::SessionNetwork as usize] = f64::from(doubt.moved_network);
    nats[Term::SessionConcurrent as usize] = f64::from(doubt.concurrent);
    doubt
}

/// Everything that a context raises when a session is first seen in it.
fn first_sight(view: &View<'_>, event: &Event, keys: Keys) -> Doubt {
    let parts = device::parts(view, event);
    Doubt {
        network: network::nats(view, event, keys) as f32,
        device: (parts.known + parts.missing + parts.mismatch) as f32,
        mismatch: parts.mismatch > 0.0,
        away: habits::away(view, event, keys),
        auth: habits::auth(view, event) as f32,
        travel: travel::nats(view, event, keys) as f32,
        ..session::change(view, event, Surroundings::of(event), keys)
    }
}

/// What a known context raises when its device is first looked at.
fn device_sight(view: &View<'_>, event: &Event, keys: Keys, known: Doubt) -> Doubt {
    let Doubt { device, mismatch, moved_device, .. } = first_sight(view, event, keys);
    Doubt { device, mismatch, moved_device, ..known }
}

/// A passed challenge clears the doubts of its context, a failed one adds to them.
fn apply_standing(standing: Standing, model: &Model, nats: &mut [f64; Term::COUNT]) {
    match standing {
        Standing::Proven => {
            let proven = Evidence::weigh(*nats, model).after_step_up(model);
            *nats = proven.terms();
            nats[Term::Device as usize] = model.dev_known;
        }
        Standing::Failed => nats[Term::ChallengeFailed as usize] = model.fail,
        Standing::Seen | Standing::Accepted => {}
    }
}
