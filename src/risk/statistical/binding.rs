//! What one session (or token) has been seen with: the contexts in which it was used.
//!
//! A stolen token betrays itself by a second context. The doubt that a context raised when it was first
//! seen stays with it for the life of the session: a session cannot talk its own doubt away by being
//! learned from, only a passed step-up clears it. 240 bytes a session, for its life.

use super::{event::Event, hash};

/// Where and with what a session is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Key of the device id; 0 when the request names none, [`Surroundings::UNSEEN`] when nobody looked.
    pub device: u32,
    /// Autonomous system, 0 when not known.
    pub system: u32,
    /// Key of the /24 or /48; 0 without an address.
    pub network: u32,
    /// Family bits of the client software.
    pub family: u16,
    /// Its major version.
    pub version: u16,
}

impl Surroundings {
    /// In place of the key of a device that nobody looked at.
    pub const UNSEEN: u32 = u32::MAX;

    /// The surroundings of a request.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        // A device cannot be named so that it counts as not looked at.
        let device = event.device.id.map_or(0, |id| hash::short(id.0).min(Self::UNSEEN - 1));
        Self {
            device: if event.device.unseen { Self::UNSEEN } else { device },
            system: event.asn.unwrap_or(0),
            network: event.network().map_or(0, hash::short),
            family: event.agent.family.bits(),
            version: event.agent.version,
        }
    }

    /// Whether the device was looked at.
    #[must_use]
    pub fn is_looked(&self) -> bool {
        self.device != Self::UNSEEN
    }

    /// Whether the devices are the same as far as both were looked at.
    #[must_use]
    pub fn may_share_device(&self, other: &Self) -> bool {
        self.device == other.device || !self.is_looked() || !other.is_looked()
    }

    /// Whether both are the same as far as both were looked at.
    #[must_use]
    fn fits(&self, other: &Self) -> bool {
        self.may_share_device(other) && Self { device: 0, ..*self } == Self { device: 0, ..*other }
    }
}

/// The identity terms of a context as they stood when it was first seen, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Doubt {
    /// Unusual network.
    pub network: f32,
    /// Unusual device.
    pub device: f32,
    /// Whether the device is a known one that looks like another.
    pub mismatch: bool,
    /// Whether the network was nobody's home to this user.
    pub away: bool,
    /// Weaker authentication than usual.
    pub auth: f32,
    /// Impossible travel.
    pub travel: f32,
    /// Change of device within the session.
    pub moved_device: f32,
    /// Change of client software within the session.
    pub moved_client: f32,
    /// Change of network within the session.
    pub moved_network: f32,
    /// Alternates with another context within minutes.
    pub concurrent: f32,
}

impl Doubt {
    /// All that a change within the session says, in nats.
    #[must_use]
    pub fn moved(&self) -> f64 {
        f64::from(self.moved_device) + f64::from(self.moved_client) + f64::from(self.moved_network)
    }
}

/// How far a context is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum Standing {
    /// A challenge in this context was failed.
    Failed,
    /// Seen, not more.
    #[default]
    Seen,
    /// Raised no doubt when it was first seen.
    Accepted,
    /// A step-up was passed in it.
    Proven,
}

/// One context of a session.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Context {
    /// Where and with what.
    pub surroundings: Surroundings,
    /// Unix seconds of its last request; 0 is an empty place.
    pub at: f64,
    /// What it raised at first sight.
    pub doubt: Doubt,
    /// How far it is trusted.
    pub standing: Standing,
    /// Weight with which it was learned, in sixteenths.
    pub learned: u8,
    /// Weight with which its device was: nobody may have looked at it at first.
    pub learned_device: u8,
}

/// The contexts of one session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Binding {
    pub(super) contexts: [Context; Self::CONTEXTS],
    /// Index of the context of the last request, plus one; 0 before the first.
    pub(super) last: u8,
    /// Hour slot that was last counted, plus one.
    pub(super) hour: u8,
    /// Bucket of the highest score so far; 0 when the session does not count for the lines.
    pub(super) top: u16,
    /// Whether the session has a vote on the lines.
    pub(super) counted: bool,
    /// Key of the last action.
    pub(super) action: u32,
    /// Whether a context was ever accepted as the session's own.
    pub(super) owned: bool,
    repeats: Repeats,
}

/// How often the session took each of its recent actions, so that one session cannot teach a habit alone, and which of them
/// were not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Repeats {
    tags: [u16; Self::KEPT],
    counts: [u8; Self::KEPT],
}

impl Repeats {
    const KEPT: usize = 16;
    /// In the counts: the action was not let through the last time.
    const BARRED: u8 = 0x80;

    /// Counts an action and says how often the session has now taken it; a forgotten one starts anew.
    fn count(&mut self, action: u32, barred: bool) -> u8 {
        let known = self.position(action);
        let often = |place: &usize| self.counts[*place] & !Self::BARRED;
        let place = known.or_else(|| (0..Self::KEPT).min_by_key(often)).unwrap_or(0);
        let before = known.map_or(0, |place| often(&place));
        let times = (before + 1).min(!Self::BARRED);
        self.tags[place] = Self::tag(action);
        self.counts[place] = if barred { times | Self::BARRED } else { times };
        times
    }

    fn is_barred(&self, action: u32) -> bool {
        self.position(action).is_some_and(|place| self.counts[place] & Self::BARRED != 0)
    }

    fn position(&self, action: u32) -> Option<usize> {
        self.tags.iter().position(|kept| *kept == Self::tag(action))
    }

    fn tag(action: u32) -> u16 {
        (action ^ action >> 16) as u16 | 1
    }
}

impl Binding {
    /// Contexts kept per session.
    pub const CONTEXTS: usize = 4;

    /// Whether the session was never seen.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.last == 0
    }

    /// The context of these surroundings, when it is known. Where the device was not looked at, now or before, the rest of
    /// them decides.
    #[must_use]
    pub fn find(&self, surroundings: Surroundings) -> Option<&Context> {
        self.position(surroundings).map(|index| &self.contexts[index])
    }

    fn position(&self, surroundings: Surroundings) -> Option<usize> {
        // Nearly every request comes in the context of the one before it.
        let places = || usize::from(self.last).checked_sub(1).into_iter().chain(0..Self::CONTEXTS);
        let held = |index: &usize| self.contexts.get(*index).filter(|context| context.at > 0.0);
        let same = |index: &usize| held(index).is_some_and(|context| context.surroundings == surroundings);
        let fits = |index: &usize| held(index).is_some_and(|context| context.surroundings.fits(&surroundings));
        places().find(same).or_else(|| places().find(fits))
    }

    /// Contexts seen so far.
    pub fn known(&self) -> impl Iterator<Item = &Context> + '_ {
        self.contexts.iter().filter(|context| context.at > 0.0)
    }

    /// Contexts that count as the session's own.
    pub fn own(&self) -> impl Iterator<Item = &Context> + '_ {
        self.known().filter(|context| context.standing >= Standing::Accepted)
    }

    /// The context of the last request.
    #[must_use]
    pub fn last_context(&self) -> Option<&Context> {
        self.contexts.get(usize::from(self.last).checked_sub(1)?)
    }

    /// Notes an action and whether it was not let through; returns the one before it and how often the session has now taken
    /// this one.
    pub(super) fn act(&mut self, action: u32, barred: bool) -> (u32, u8) {
        let previous = std::mem::replace(&mut self.action, action);
        (previous, self.repeats.count(action, barred))
    }

    /// Whether an action was not let through the last time it was asked for.
    pub(super) fn is_barred(&self, action: u32) -> bool {
        self.repeats.is_barred(action)
    }

    /// Takes over a context as another replica saw it. A failure is kept; otherwise the more trusting standing is,
    /// since it came from a step-up that the other replica saw.
    pub fn merge(&mut self, other: &Context) {
        let last = self.last;
        self.owned |= other.standing >= Standing::Accepted;
        let context = self.enter(other.surroundings);
        let failed = context.standing == Standing::Failed || other.standing == Standing::Failed;
        let standing = if failed { Standing::Failed } else { context.standing.max(other.standing) };
        let held = context.at > 0.0 && (context.surroundings.is_looked() || !other.surroundings.is_looked());
        let Context { surroundings, doubt, .. } = if held { *context } else { *other };
        let learned = context.learned.max(other.learned);
        let learned_device = context.learned_device.max(other.learned_device);
        let at = context.at.max(other.at);
        *context = Context { surroundings, at, doubt, standing, learned, learned_device };
        if last != 0 && other.at < at {
            self.last = last;
        }
    }

    /// The place for these surroundings: theirs, as [`Binding::find`] finds it, else a free one, else the least trusted,
    /// oldest one.
    pub(super) fn enter(&mut self, surroundings: Surroundings) -> &mut Context {
        let own = self.position(surroundings);
        let index = own.unwrap_or_else(|| self.spare());
        if own.is_none() {
            self.contexts[index] = Context { surroundings, ..Context::default() };
        }
        self.last = index as u8 + 1;
        &mut self.contexts[index]
    }

    /// INVARIANT: a failed context is the last to be replaced, so that it cannot be flushed out by new ones.
    fn spare(&self) -> usize {
        let worth = |context: &Context| match context.standing {
            _ if context.at == 0.0 => 0,
            Standing::Seen => 1,
            Standing::Accepted => 2,
            Standing::Proven => 3,
            Standing::Failed => 4,
        };
        let order = |a: &Context, b: &Context| worth(a).cmp(&worth(b)).then(a.at.total_cmp(&b.at));
        (0..Self::CONTEXTS).min_by(|a, b| order(&self.contexts[*a], &self.contexts[*b])).unwrap_or(0)
    }
}
