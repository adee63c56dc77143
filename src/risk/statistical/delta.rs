//! One change to a profile, small enough to send: a field and the units to add.
//!
//! Deltas are all that replicas exchange about counts. Adding commutes, so order, batching and delay do
//! not change what is agreed on; sending one twice does, so a sender must know that it was taken once.

/// A total kept per subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// Sessions (a session counts once per context).
    Sessions,
    /// Sessions that brought a device not seen before.
    NewDevices,
    /// Sessions authenticated by a password alone.
    Weak,
    /// Sessions with a strong authentication.
    Strong,
    /// Sessions from a VPN or hosting address.
    Anonymous,
    /// Sessions whose requests name no device.
    Unnamed,
    /// Actions learned.
    Actions,
    /// Sessions in which the device was looked at, whether one was named or not.
    Looked,
}

impl Scalar {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Sessions,
        Self::NewDevices,
        Self::Weak,
        Self::Strong,
        Self::Anonymous,
        Self::Unnamed,
        Self::Actions,
        Self::Looked,
    ];
}

/// What a delta counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Country.
    Country(u32),
    /// Autonomous system within its country.
    System(u32),
    /// /24 or /48 within its autonomous system.
    Network(u32),
    /// Position, to a degree, within its autonomous system.
    Place(u32),
    /// Operating system and browser.
    Family(u32),
    /// Method and path template.
    Action(u32),
    /// Device, with what it was verified with.
    Device {
        /// Key of the device id.
        id: u64,
        /// Bits of its family.
        family: u16,
        /// Major version of its browser.
        version: u16,
    },
    /// Hour of use: 0–23 on work days, 24–47 at weekends (UTC).
    Hour(u8),
    /// A total.
    Scalar(Scalar),
}

/// Units to add to a field, in the weights of a generation (see [`super::epoch`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Delta {
    /// What is counted.
    pub field: Field,
    /// Units of 1/16 observation, weighted by the day.
    pub units: u32,
    /// Generation of that weight.
    pub generation: u16,
}

/// The deltas of one learned request; a fixed array, so that learning allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Deltas {
    items: [Delta; Self::MAX],
    len: usize,
}

impl Deltas {
    /// One request changes at most this many fields.
    pub const MAX: usize = 20;

    /// No change.
    #[must_use]
    pub fn none() -> Self {
        let nothing = Delta { field: Field::Hour(0), units: 0, generation: 0 };
        Self { items: [nothing; Self::MAX], len: 0 }
    }

    /// Adds a delta; one without units is left out.
    pub fn push(&mut self, delta: Delta) {
        if delta.units > 0
            && let Some(free) = self.items.get_mut(self.len)
        {
            *free = delta;
            self.len += 1;
        }
    }

    /// The deltas.
    #[must_use]
    pub fn as_slice(&self) -> &[Delta] {
        &self.items[..self.len]
    }
}
