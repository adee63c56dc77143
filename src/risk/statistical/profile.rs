//! What is remembered of one subject: decayed counts, a last verified position, and the pace of recent requests.
//!
//! At most 1 KiB, of fixed size, without names. Counts are changed only through [`Delta`]s, which commute:
//! replicas that apply the same deltas in any order hold the same counts. Gauges (position, pace) are local
//! and merge by "the later one" and "the higher one".

use super::{
    agent::Family,
    delta::{Delta, Field, Scalar},
    epoch::{self, Epoch},
    learn::Learned,
    slots::Slots,
};

/// A device that was seen with this subject, with one client software; another software takes another slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceSlot {
    /// Key of the device id; 0 is an empty slot.
    pub id: u64,
    /// Decayed count of sessions, in units.
    pub units: u32,
    /// Bits of the browser and system it was verified with.
    pub family: u16,
    /// Highest major version of that browser.
    pub version: u16,
}

/// The last position at which the subject was verified.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sighting {
    /// Unix seconds; 0 when there is none.
    pub at: f64,
    /// Degrees.
    pub latitude: f32,
    /// Degrees.
    pub longitude: f32,
    /// How far off the database says that this may be.
    pub radius_km: f32,
}

/// The running quantities of behaviour, all lazily decayed from `at`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// Unix seconds of the last request.
    pub at: f64,
    /// Accumulated surprise of actions (a one-sided CUSUM), in nats.
    pub surprise: f32,
    /// Requests, decayed with 30 s.
    pub fast: f32,
    /// Requests, decayed with 30 min.
    pub slow: f32,
    /// The subject's own high mark of `fast`, which rises slowly.
    pub fast_mark: f32,
    /// The subject's own high mark of `slow`, which rises slowly.
    pub slow_mark: f32,
}

/// Everything remembered of one subject.
///
/// Laid out by hand: what every request reads stands together at the front, what only a new context reads behind it.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct Profile {
    pub(super) pace: Pace,
    pub(super) scalars: [u32; Scalar::COUNT],
    pub(super) generation: u16,
    /// Day since 1970 on which the subject was last seen, and its sessions on it.
    pub(super) today: u16,
    pub(super) votes: u8,
    pub(super) hours: [u16; 48],
    pub(super) actions: Slots<36>,
    pub(super) sighting: Sighting,
    pub(super) countries: Slots<6>,
    pub(super) systems: Slots<12>,
    pub(super) networks: Slots<16>,
    pub(super) places: Slots<8>,
    pub(super) families: Slots<6>,
    pub(super) devices: [DeviceSlot; 8],
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            countries: Slots::default(),
            systems: Slots::default(),
            networks: Slots::default(),
            places: Slots::default(),
            families: Slots::default(),
            actions: Slots::default(),
            devices: [DeviceSlot::default(); 8],
            hours: [0; 48],
            scalars: [0; Scalar::COUNT],
            generation: 0,
            today: 0,
            votes: 0,
            sighting: Sighting::default(),
            pace: Pace::default(),
        }
    }
}

impl Profile {
    /// A total, in observations of today's worth.
    #[must_use]
    pub fn scalar(&self, scalar: Scalar, today: Epoch) -> f64 {
        f64::from(self.scalars[scalar as usize]) * self.worth(today)
    }

    /// Sessions learned from, decayed: 0 is a subject that we do not know yet.
    #[must_use]
    pub fn sessions(&self, today: Epoch) -> f64 {
        self.scalar(Scalar::Sessions, today)
    }

    /// Whether nothing was ever learned of this subject.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scalars[Scalar::Sessions as usize] == 0
    }

    /// Whether a device is known, with whatever software.
    #[must_use]
    pub fn knows_device(&self, id: u64) -> bool {
        self.devices.iter().any(|slot| slot.id == id && slot.units > 0)
    }

    /// The slot of a device with this software, when it was verified with it.
    #[must_use]
    pub fn device(&self, id: u64, family: Family) -> Option<&DeviceSlot> {
        self.devices.iter().find(|slot| slot.id == id && slot.family == family.bits() && slot.units > 0)
    }

    /// Worth of a stored unit today, generations that ended since included.
    #[must_use]
    pub fn worth(&self, today: Epoch) -> f64 {
        today.worth() / f64::from(1_u32 << epoch::halvings(self.generation, today.generation))
    }

    /// Applies one delta. Deltas of an older generation count half per generation.
    pub fn apply(&mut self, delta: Delta) {
        self.roll(delta.generation);
        let units = delta.units >> epoch::halvings(delta.generation, self.generation);
        if units == 0 {
            // Too old to count: it must not take the place of something that does.
            return;
        }
        match delta.field {
            Field::Country(key) => drop_flag(self.countries.add(key, units)),
            Field::System(key) => drop_flag(self.systems.add(key, units)),
            Field::Network(key) => drop_flag(self.networks.add(key, units)),
            Field::Place(key) => drop_flag(self.places.add(key, units)),
            Field::Family(key) => drop_flag(self.families.add(key, units)),
            Field::Action(key) => drop_flag(self.actions.add(key, units)),
            Field::Device { id, family, version } => self.add_device(DeviceSlot { id, units, family, version }),
            Field::Hour(hour) => self.add_hour(usize::from(hour) % 48, units),
            Field::Scalar(scalar) => {
                let total = &mut self.scalars[scalar as usize];
                *total = total.saturating_add(units);
            }
        }
    }

    /// Takes over what another replica learned of this subject.
    pub fn merge(&mut self, learned: &Learned) {
        learned.profile.as_slice().iter().for_each(|delta| self.apply(*delta));
        self.keep_pace(learned.pace);
        self.sight(learned.sighting);
    }

    /// Takes the later sighting.
    pub fn sight(&mut self, sighting: Sighting) {
        if sighting.at > self.sighting.at {
            self.sighting = sighting;
        }
    }

    /// Takes the later pace and the higher marks, as another replica saw them.
    pub fn keep_pace(&mut self, other: Pace) {
        let (fast_mark, slow_mark) =
            (self.pace.fast_mark.max(other.fast_mark), self.pace.slow_mark.max(other.slow_mark));
        if other.at > self.pace.at {
            self.pace = other;
        }
        self.pace = Pace { fast_mark, slow_mark, ..self.pace };
    }

    /// The last verified position.
    #[must_use]
    pub fn sighting(&self) -> Sighting {
        self.sighting
    }

    /// The running quantities of behaviour.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Every count as a delta: what is exported, stored, or sent to a replica that has none.
    pub fn deltas(&self) -> impl Iterator<Item = Delta> + '_ {
        let fields = self.countries.iter().map(|s| (Field::Country(s.key), s.units));
        let fields = fields.chain(self.systems.iter().map(|s| (Field::System(s.key), s.units)));
        let fields = fields.chain(self.networks.iter().map(|s| (Field::Network(s.key), s.units)));
        let fields = fields.chain(self.places.iter().map(|s| (Field::Place(s.key), s.units)));
        let fields = fields.chain(self.families.iter().map(|s| (Field::Family(s.key), s.units)));
        let fields = fields.chain(self.actions.iter().map(|s| (Field::Action(s.key), s.units)));
        let fields = fields.chain(self.devices.iter().filter(|s| s.units > 0).map(device_field));
        let fields = fields.chain((0_u8..).zip(self.hours).map(|(hour, n)| (Field::Hour(hour), u32::from(n))));
        let fields = fields.chain(Scalar::ALL.into_iter().map(|s| (Field::Scalar(s), self.scalars[s as usize])));
        let generation = self.generation;
        fields.filter(|(_, units)| *units > 0).map(move |(field, units)| Delta { field, units, generation })
    }

    /// Halves every count once per generation that has ended.
    fn roll(&mut self, generation: u16) {
        let times = epoch::halvings(self.generation, generation);
        if times > 0 && self.generation > 0 {
            self.countries.halve(times);
            self.systems.halve(times);
            self.networks.halve(times);
            self.places.halve(times);
            self.families.halve(times);
            self.actions.halve(times);
            self.devices.iter_mut().for_each(|slot| slot.units >>= times);
            self.hours.iter_mut().for_each(|hour| *hour = hour.checked_shr(times).unwrap_or(0));
            self.scalars.iter_mut().for_each(|scalar| *scalar >>= times);
        }
        self.generation = self.generation.max(generation);
    }

    fn add_device(&mut self, seen: DeviceSlot) {
        let same = |slot: &DeviceSlot| slot.id == seen.id && slot.family == seen.family && slot.units > 0;
        if let Some(slot) = self.devices.iter_mut().find(|slot| same(slot)) {
            slot.units = slot.units.saturating_add(seen.units);
            slot.version = slot.version.max(seen.version);
        } else if let Some(least) = self.devices.iter_mut().min_by_key(|slot| (slot.units, slot.id, slot.family)) {
            *least = seen;
        }
    }

    fn add_hour(&mut self, hour: usize, units: u32) {
        if u32::from(self.hours[hour]) + units > u32::from(u16::MAX) {
            // Only shares are read, so a full counter halves all of them instead of forgetting what comes.
            self.hours.iter_mut().for_each(|hour| *hour >>= 1);
        }
        self.hours[hour] = (u32::from(self.hours[hour]) + units).min(u32::from(u16::MAX)) as u16;
    }
}

fn device_field(slot: &DeviceSlot) -> (Field, u32) {
    (Field::Device { id: slot.id, family: slot.family, version: slot.version }, slot.units)
}

/// Whether a key was new matters to the shared counts only, which ask before they apply.
fn drop_flag(_new: bool) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_hour_halves_with_the_others() {
        let mut profile = Profile::default();
        let add = |profile: &mut Profile, hour, units| {
            profile.apply(Delta { field: Field::Hour(hour), units, generation: 1 });
        };
        add(&mut profile, 8, 60_000);
        add(&mut profile, 9, 30_000);
        add(&mut profile, 8, 10_000);
        assert_eq!((profile.hours[8], profile.hours[9]), (40_000, 15_000));
    }

    #[test]
    fn what_is_too_old_to_count_takes_no_place() {
        let mut profile = Profile::default();
        let device =
            |id, units, generation| Delta { field: Field::Device { id, family: 1, version: 1 }, units, generation };
        let country = |key, units, generation| Delta { field: Field::Country(key), units, generation };
        (1..=8).for_each(|id| profile.apply(device(id, 16, 40)));
        (1..=6).for_each(|key| profile.apply(country(key, 16, 40)));
        profile.apply(device(99, 16, 1));
        profile.apply(country(99, 16, 1));
        assert!((1..=8).all(|id| profile.knows_device(id)) && !profile.knows_device(99));
        assert!((1..=6).all(|key| profile.countries.units(key) == 16));
    }
}
