//! Writes down what a request teaches: its context in the session, counts for the profile, counts for everyone.

use super::{Outcome, weight};
use crate::risk::statistical::{
    assess::{self, Scored},
    binding::{Binding, Context, Standing},
    calibrate::{Lines, Tops},
    delta::{Delta, Deltas, Field, Scalar},
    epoch::{self, Epoch},
    event::{Event, Strength},
    evidence::Hypothesis,
    globals::{Share, Total},
    hash,
    profile::{Profile, Sighting},
    shared::{SharedDelta, SharedDeltas, SharedField},
    terms::habits::hour_of,
};

/// Sessions of one subject that count for the lines, per day.
const VOTES: u8 = 8;

/// Moves the session to the bucket of its highest score; a failed or refused one leaves the statistics.
pub(super) fn session_top(
    shared: &mut SharedDeltas,
    profile: &mut Profile,
    binding: &mut Binding,
    event: &Event,
    assessment: &Scored,
    outcome: Outcome,
) {
    if event.strength == Strength::Service {
        return;
    }
    if binding.is_new() {
        let today = (event.now / epoch::DAY) as u16;
        if profile.today != today {
            (profile.today, profile.votes) = (today, 0);
            push_shared(shared, event, SharedField::Total(Total::UserDays), 1);
        }
        profile.votes = profile.votes.saturating_add(1);
        binding.counted = profile.votes <= VOTES;
    }
    let excluded = matches!(outcome, Outcome::StepUpFailed | Outcome::Denied);
    let top = if excluded { 0 } else { Tops::bucket(assessment.evidence.score()).max(binding.top) };
    if binding.counted && top != binding.top {
        if binding.top > 0 {
            push_shared(shared, event, SharedField::Top(binding.top), -1);
        }
        if top > 0 {
            push_shared(shared, event, SharedField::Top(top), 1);
        }
        binding.top = top;
    }
    binding.counted &= !excluded;
}

/// Notes the context of this request in its session.
pub(super) fn context(
    binding: &mut Binding,
    event: &Event,
    assessment: &Scored,
    outcome: Outcome,
    lines: Lines,
) -> Context {
    let first = !binding.owned;
    let context = binding.enter(assessment.surroundings);
    context.standing = assess::standing(context, assessment.surroundings, &assessment.doubt);
    context.at = event.now;
    // A device that was looked at meanwhile stays.
    if assessment.surroundings.is_looked() || !context.surroundings.is_looked() {
        (context.surroundings, context.doubt) = (assessment.surroundings, assessment.doubt);
    }
    context.standing = standing(context, assessment, outcome, lines, first);
    let context = *context;
    binding.owned |= context.standing >= Standing::Accepted;
    context
}

fn standing(context: &Context, assessment: &Scored, outcome: Outcome, lines: Lines, first: bool) -> Standing {
    match outcome {
        Outcome::StepUpPassed => Standing::Proven,
        Outcome::StepUpFailed => Standing::Failed,
        Outcome::Denied | Outcome::Challenged => context.standing,
        Outcome::Allowed if context.standing != Standing::Seen => context.standing,
        // A session belongs to the first context that it was let through in.
        Outcome::Allowed if first => Standing::Accepted,
        // The hypotheses of identity decide, not the insider's: it is about whose session this is.
        Outcome::Allowed => {
            let odds = |hypothesis| assessment.evidence.odds(hypothesis);
            let doubt = odds(Hypothesis::CredentialTheft).max(odds(Hypothesis::SessionTheft));
            let quiet = doubt < lines.step && weight::own_context(assessment);
            if quiet { Standing::Accepted } else { Standing::Seen }
        }
    }
}

/// Lists the values of identity that this context has not taught yet, at what its weight adds to the last one.
pub(super) fn identity(
    profile: &Profile,
    binding: &mut Binding,
    event: &Event,
    assessment: &Scored,
    weight: f64,
) -> Deltas {
    let mut deltas = Deltas::none();
    let context = binding.enter(assessment.surroundings);
    let sixteenths = (weight * epoch::UNITS) as u8;
    let rest = f64::from(sixteenths.saturating_sub(context.learned)) / epoch::UNITS;
    if rest > 0.0 {
        context.learned = sixteenths;
        list_network(&mut deltas, event, assessment, rest);
        list_client(&mut deltas, event, rest);
    }
    let rest = f64::from(sixteenths.saturating_sub(context.learned_device)) / epoch::UNITS;
    if rest > 0.0 && !event.device.unseen {
        context.learned_device = sixteenths;
        list_device(&mut deltas, profile, event, rest);
    }
    deltas
}

fn list_network(deltas: &mut Deltas, event: &Event, assessment: &Scored, weight: f64) {
    let keys = assessment.keys;
    let fields = [
        keys.country.map(|key| Field::Country(hash::short(key))),
        keys.system.map(|key| Field::System(hash::short(key))),
        keys.network.map(|key| Field::Network(hash::short(key))),
        keys.place.map(|key| Field::Place(hash::short(key))),
        event.anonymous.then_some(Field::Scalar(Scalar::Anonymous)),
    ];
    for field in fields.into_iter().flatten() {
        push(deltas, event, field, weight);
    }
}

fn list_client(deltas: &mut Deltas, event: &Event, weight: f64) {
    let strength = if event.strength == Strength::Weak { Scalar::Weak } else { Scalar::Strong };
    push(deltas, event, Field::Family(event.agent.family.key()), weight);
    push(deltas, event, Field::Scalar(Scalar::Sessions), weight);
    push(deltas, event, Field::Scalar(strength), weight);
}

fn list_device(deltas: &mut Deltas, profile: &Profile, event: &Event, weight: f64) {
    let agent = event.agent;
    push(deltas, event, Field::Scalar(Scalar::Looked), weight);
    let Some(id) = event.device.id else {
        return push(deltas, event, Field::Scalar(Scalar::Unnamed), weight);
    };
    if !profile.knows_device(id.0) {
        push(deltas, event, Field::Scalar(Scalar::NewDevices), weight);
    }
    let device = Field::Device { id: id.0, family: agent.family.bits(), version: agent.version };
    push(deltas, event, device, weight);
}

/// Lists the hour, once a session and hour, and the action.
pub(super) fn habits(deltas: &mut Deltas, binding: &mut Binding, event: &Event, weight: f64, habit: f64) {
    let hour = hour_of(event.now);
    if weight > 0.0 && binding.hour != hour + 1 {
        binding.hour = hour + 1;
        push(deltas, event, Field::Hour(hour), weight);
    }
    push(deltas, event, Field::Action(event.action.key), habit);
    push(deltas, event, Field::Scalar(Scalar::Actions), habit);
}

/// Counts this user among those seen at a value, when the value is new to the user.
pub(super) fn users(shared: &mut SharedDeltas, profile: &Profile, deltas: &Deltas, event: &Event, assessment: &Scored) {
    let keys = assessment.keys;
    let new = |units: u32| units == 0;
    for delta in deltas.as_slice() {
        let field = match delta.field {
            Field::Country(key) if new(profile.countries.units(key)) => keys.country.map(|k| (Share::Country, k)),
            Field::System(key) if new(profile.systems.units(key)) => keys.system.map(|k| (Share::System, k)),
            Field::Network(key) if new(profile.networks.units(key)) => keys.network.map(|k| (Share::Network, k)),
            Field::Family(key) if new(profile.families.units(key)) => Some((Share::Family, u64::from(key))),
            Field::Scalar(scalar) => {
                list_total(shared, profile, event, scalar);
                None
            }
            _ => None,
        };
        if let Some((share, key)) = field {
            push_shared(shared, event, SharedField::User(share, key), 1);
        }
    }
}

fn list_total(shared: &mut SharedDeltas, profile: &Profile, event: &Event, scalar: Scalar) {
    let total = match scalar {
        Scalar::Sessions if profile.scalars[Scalar::Sessions as usize] == 0 => Total::Users,
        Scalar::Weak => Total::Weak,
        Scalar::Strong if event.strength == Strength::Strong => Total::Strong,
        _ => return,
    };
    push_shared(shared, event, SharedField::Total(total), 1);
}

/// Whether a context has not told yet, in this hour, that its user is away from home: users are counted, not requests.
pub(super) fn may_tell_away(binding: &Binding, event: &Event, assessment: &Scored) -> bool {
    let hour = |at: f64| (at / 3600.0) as u64;
    binding.find(assessment.surroundings).is_none_or(|context| hour(context.at) != hour(event.now))
}

/// Notes a user who is away from home on this network.
pub(super) fn away(shared: &mut SharedDeltas, event: &Event, assessment: &Scored) {
    if let Some(network) = assessment.unfamiliar {
        push_shared(shared, event, SharedField::Away { network, user: event.subject.0 }, 1);
    }
}

/// Moves the last verified position here.
pub(super) fn sighting(profile: &mut Profile, event: &Event) {
    if let Some(place) = event.place
        && let Some((latitude, longitude)) = place.position
    {
        profile.sight(Sighting { at: event.now, latitude, longitude, radius_km: place.radius_km });
    }
}

fn push(deltas: &mut Deltas, event: &Event, field: Field, weight: f64) {
    let epoch = Epoch::of(event.now);
    deltas.push(Delta { field, units: epoch.units(weight), generation: epoch.generation });
}

fn push_shared(shared: &mut SharedDeltas, event: &Event, field: SharedField, amount: i32) {
    shared.push(SharedDelta { field, amount, generation: Epoch::of(event.now).generation });
}
