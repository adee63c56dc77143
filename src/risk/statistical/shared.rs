//! One change to what everyone has in common, small enough to send to the other replicas.
//!
//! Like [`super::delta::Delta`]s these are sums: order and batching do not matter. Amounts may be negative,
//! because the highest score of a session moves from one bucket to the next while it lasts.

use super::globals::{Share, Total};

/// What a shared delta counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SharedField {
    /// An action in a context (or, with action 0, all actions of it).
    Habit {
        /// Everyone, a role, or a role after an action.
        context: u64,
        /// Key of the action; 0 for the total of the context.
        action: u32,
    },
    /// Users seen at a value.
    User(Share, u64),
    /// A total.
    Total(Total),
    /// Sessions whose highest score lies in a bucket.
    Top(u16),
    /// Users, by key, who are away from home on a network.
    Away {
        /// Key of the network.
        network: u64,
        /// Key of the user.
        user: u64,
    },
}

/// An amount to add to a shared field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedDelta {
    /// What is counted.
    pub field: SharedField,
    /// How much to add: units of 1/16 for habits, whole counts for the rest.
    pub amount: i32,
    /// Generation of the weight.
    pub generation: u16,
}

/// The shared deltas of one learned request; a fixed array, so that learning allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct SharedDeltas {
    items: [SharedDelta; Self::MAX],
    len: usize,
}

impl SharedDeltas {
    /// One request changes at most this many fields.
    pub const MAX: usize = 20;

    /// No change.
    #[must_use]
    pub fn none() -> Self {
        let nothing = SharedDelta { field: SharedField::Top(0), amount: 0, generation: 0 };
        Self { items: [nothing; Self::MAX], len: 0 }
    }

    /// Adds a delta; one without an amount is left out.
    pub fn push(&mut self, delta: SharedDelta) {
        if delta.amount != 0
            && let Some(free) = self.items.get_mut(self.len)
        {
            *free = delta;
            self.len += 1;
        }
    }

    /// The deltas.
    #[must_use]
    pub fn as_slice(&self) -> &[SharedDelta] {
        &self.items[..self.len]
    }
}
