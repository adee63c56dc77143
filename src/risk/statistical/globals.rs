//! What everyone's requests have in common: shares of networks among users, action habits of roles,
//! addresses that several users find unfamiliar, and the highest scores of sessions. Under 1 MB.
//!
//! Changed only by [`SharedDelta`]s, so that several replicas (or shards of one process) hold the same.

use serde::{Deserialize, Serialize};

use super::{
    addresses::Addresses,
    calibrate::{self, Tops},
    epoch::Epoch,
    event::{Event, Key},
    hash,
    learn::Learned,
    shared::{SharedDelta, SharedDeltas, SharedField},
    slots::{self, Tally},
};

/// Counts over all subjects of a tenant.
#[derive(Debug, Clone)]
pub struct Globals {
    shares: Tally,
    habits: Tally,
    pub(super) addresses: Addresses,
    pub(super) tops: Tops,
    totals: [f64; Total::COUNT],
    generation: u16,
}

/// [`Globals`] as they are written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    shares: slots::Record,
    habits: slots::Record,
    tops: calibrate::Record,
    totals: [f64; Total::COUNT],
    generation: u16,
}

/// A total over all subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Total {
    /// Subjects, each once.
    Users,
    /// Sessions of persons authenticated by a password alone.
    Weak,
    /// Sessions of persons with a strong authentication.
    Strong,
    /// Distinct action templates.
    Templates,
    /// Days on which a person was seen.
    UserDays,
}

impl Total {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::Users, Self::Weak, Self::Strong, Self::Templates, Self::UserDays];
}

/// What a share is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// Country.
    Country = 1,
    /// Autonomous system.
    System = 2,
    /// /24 or /48.
    Network = 3,
    /// Operating system and browser.
    Family = 4,
}

impl Share {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Country, Self::System, Self::Network, Self::Family];
}

/// How often actions were taken in a context, in observations.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Habit {
    /// Times this action was taken there.
    pub count: f64,
    /// Times any action was taken there.
    pub total: f64,
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            shares: Tally::with_capacity(16 * 1024),
            habits: Tally::with_capacity(64 * 1024),
            addresses: Addresses::default(),
            tops: Tops::default(),
            totals: [0.0; Total::COUNT],
            generation: 0,
        }
    }
}

impl Globals {
    /// Users who were seen with a value.
    #[must_use]
    pub fn users_with(&self, share: Share, key: u64) -> f64 {
        f64::from(self.shares.units(hash::join(share as u64, key)))
    }

    /// A total.
    #[must_use]
    pub fn total(&self, total: Total) -> f64 {
        self.totals[total as usize]
    }

    /// How often a role takes an action after another one.
    #[must_use]
    pub fn after(&self, roles: u32, previous: u32, action: u32, today: Epoch) -> Habit {
        self.habit(after(roles, previous), action, today)
    }

    /// How often a role takes an action.
    #[must_use]
    pub fn in_role(&self, roles: u32, action: u32, today: Epoch) -> Habit {
        self.habit(of_role(roles), action, today)
    }

    /// How often anyone takes an action.
    #[must_use]
    pub fn anywhere(&self, action: u32, today: Epoch) -> Habit {
        self.habit(EVERYONE, action, today)
    }

    /// Highest scores of sessions.
    #[must_use]
    pub fn tops(&self) -> &Tops {
        &self.tops
    }

    /// Applies one delta that was learned at a moment, here or on another replica.
    pub fn apply(&mut self, delta: SharedDelta, at: f64) {
        self.roll(delta.generation);
        let units = u32::try_from(delta.amount).unwrap_or(0);
        match delta.field {
            SharedField::Habit { context, action: 0 } => self.habits.add(context, units),
            SharedField::Habit { context, action } => self.add_habit(context, action, units),
            SharedField::User(share, key) => self.shares.add(hash::join(share as u64, key), units),
            SharedField::Total(Total::UserDays) => self.tops.add_user_days(delta.amount, delta.generation),
            SharedField::Total(total) => self.totals[total as usize] += f64::from(delta.amount),
            SharedField::Top(bucket) => self.tops.add(bucket, delta.amount, delta.generation),
            SharedField::Away { network, user } => self.addresses.note(network, Key(user), at),
        }
        self.tops.observe(at);
    }

    /// Applies everything that one request taught about everyone.
    pub fn apply_all(&mut self, learned: &Learned) {
        learned.shared.as_slice().iter().for_each(|delta| self.apply(*delta, learned.at));
    }

    /// Everything that outlives a restart. Addresses are forgotten within the hour and are not part of it.
    #[must_use]
    pub fn record(&self) -> Record {
        let (shares, habits, tops) = (self.shares.record(), self.habits.record(), self.tops.record());
        Record { shares, habits, tops, totals: self.totals, generation: self.generation }
    }

    /// What [`Globals::record`] told of.
    #[must_use]
    pub fn restored(record: &Record) -> Self {
        let mut globals = Self::default();
        globals.shares.restore(&record.shares);
        globals.habits.restore(&record.habits);
        globals.tops = Tops::restored(&record.tops);
        (globals.totals, globals.generation) = (record.totals, record.generation);
        globals
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shares.bytes() + self.habits.bytes() + self.addresses.bytes() + size_of::<Self>()
    }

    fn add_habit(&mut self, context: u64, action: u32, units: u32) {
        let key = hash::join(context, u64::from(action));
        if context == EVERYONE && units > 0 && self.habits.units(key) == 0 {
            self.totals[Total::Templates as usize] += 1.0;
        }
        self.habits.add(key, units);
    }

    fn habit(&self, context: u64, action: u32, today: Epoch) -> Habit {
        let worth = today.worth();
        Habit {
            count: f64::from(self.habits.units(hash::join(context, u64::from(action)))) * worth,
            total: f64::from(self.habits.units(context)) * worth,
        }
    }

    fn roll(&mut self, generation: u16) {
        if generation > self.generation {
            self.habits.roll(generation);
            self.generation = generation;
        }
    }
}

/// Lists what one action of a role, after another one, teaches.
pub fn list_action(deltas: &mut SharedDeltas, event: &Event, previous: u32, weight: f64) {
    let today = Epoch::of(event.now);
    let amount = i32::try_from(today.units(weight)).unwrap_or(0);
    let contexts = [EVERYONE, of_role(event.roles), after(event.roles, previous)];
    let known = if previous == 0 { &contexts[..2] } else { &contexts[..] };
    for context in known {
        for action in [event.action.key, 0] {
            let field = SharedField::Habit { context: *context, action };
            deltas.push(SharedDelta { field, amount, generation: today.generation });
        }
    }
}

/// Context of the actions of everyone.
const EVERYONE: u64 = 1;

/// Context of the actions of a role.
fn of_role(roles: u32) -> u64 {
    hash::join(u64::from(roles), 2)
}

/// Context of the actions of a role after one of them.
fn after(roles: u32, previous: u32) -> u64 {
    hash::join(u64::from(roles) << 32 | u64::from(previous), 3)
}
