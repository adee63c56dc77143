//! The compact form in which what was learned travels between replicas, and in which sessions are kept.
//!
//! Little-endian, of a version of its own: what an older or newer one wrote is skipped, never misread. Written by whoever has
//! access to the store, so nothing that is read here is trusted to be well-formed.

use crate::risk::statistical::{
    Key, Learned,
    binding::{Context, Doubt, Standing, Surroundings},
    delta::{Delta, Deltas, Field, Scalar},
    globals::{Share, Total},
    profile::{Pace, Sighting},
    shared::{SharedDelta, SharedDeltas, SharedField},
};

/// Of the form below.
const VERSION: u8 = 2;

/// Writes numbers one after the other.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

macro_rules! put {
    ($($name:ident $type:ty),+) => { $(fn $name(&mut self, value: $type) { self.0.extend(value.to_le_bytes()); })+ };
}

impl Writer {
    /// Begins with the version and whose it is.
    pub(super) fn new(instance: u64) -> Self {
        let mut writer = Self(vec![VERSION]);
        writer.u64(instance);
        writer
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    put!(u8 u8, u16 u16, u32 u32, u64 u64, i32 i32, f32 f32, f64 f64);

    pub(super) fn forgotten(&mut self, subject: Key) {
        self.u8(0);
        self.u64(subject.0);
    }

    pub(super) fn learned(&mut self, learned: &Learned) {
        self.u8(1);
        self.f64(learned.at);
        self.u64(learned.subject.0);
        self.u64(learned.session.0);
        self.pace(learned.pace);
        let Sighting { at, latitude, longitude, radius_km } = learned.sighting;
        self.f64(at);
        [latitude, longitude, radius_km].into_iter().for_each(|n| self.f32(n));
        self.context(&learned.context);
        self.u8(learned.profile.as_slice().len() as u8);
        learned.profile.as_slice().iter().for_each(|delta| self.delta(delta));
        self.u8(learned.shared.as_slice().len() as u8);
        learned.shared.as_slice().iter().for_each(|delta| self.shared(delta));
    }

    fn pace(&mut self, pace: Pace) {
        self.f64(pace.at);
        [pace.surprise, pace.fast, pace.slow, pace.fast_mark, pace.slow_mark].into_iter().for_each(|n| self.f32(n));
    }

    pub(super) fn context(&mut self, context: &Context) {
        let Surroundings { device, system, network, family, version } = context.surroundings;
        [device, system, network].into_iter().for_each(|n| self.u32(n));
        self.u16(family);
        self.u16(version);
        self.f64(context.at);
        let doubt = &context.doubt;
        self.u8(u8::from(doubt.mismatch) | u8::from(doubt.away) << 1);
        let nats = [doubt.network, doubt.device, doubt.auth, doubt.travel, doubt.concurrent];
        nats.into_iter().for_each(|n| self.f32(n));
        [doubt.moved_device, doubt.moved_client, doubt.moved_network].into_iter().for_each(|n| self.f32(n));
        self.u8(context.standing as u8);
        self.u8(context.learned);
        self.u8(context.learned_device);
    }

    fn delta(&mut self, delta: &Delta) {
        let (tag, key) = match delta.field {
            Field::Country(key) => (0, key),
            Field::System(key) => (1, key),
            Field::Network(key) => (2, key),
            Field::Place(key) => (3, key),
            Field::Family(key) => (4, key),
            Field::Action(key) => (5, key),
            Field::Hour(hour) => (6, u32::from(hour)),
            Field::Scalar(scalar) => (7, scalar as u32),
            Field::Device { family, version, .. } => (8, u32::from(family) << 16 | u32::from(version)),
        };
        self.u8(tag);
        self.u32(key);
        if let Field::Device { id, .. } = delta.field {
            self.u64(id);
        }
        self.u32(delta.units);
        self.u16(delta.generation);
    }

    fn shared(&mut self, delta: &SharedDelta) {
        let (tag, key, more) = match delta.field {
            SharedField::Habit { context, action } => (0, context, u64::from(action)),
            SharedField::User(share, key) => (1, key, share as u64),
            SharedField::Total(total) => (2, total as u64, 0),
            SharedField::Top(bucket) => (3, u64::from(bucket), 0),
            SharedField::Away { network, user } => (4, network, user),
        };
        self.u8(tag);
        self.u64(key);
        self.u64(more);
        self.i32(delta.amount);
        self.u16(delta.generation);
    }
}

/// Whether a newer version wrote something: its form is not known here.
pub(super) fn is_newer(octets: &[u8]) -> bool {
    octets.first().is_some_and(|version| *version > VERSION)
}

/// What a replica has to tell.
#[derive(Debug)]
pub(super) enum Item {
    Learned(Box<Learned>),
    Forgotten(Key),
}

/// Reads what [`Writer`] wrote; `None` as soon as something is not as it should be.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

macro_rules! take {
    ($($name:ident $type:ty),+) => { $(fn $name(&mut self) -> Option<$type> {
        let (own, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(<$type>::from_le_bytes(*own))
    })+ };
}

impl<'a> Reader<'a> {
    /// The reader, and whose it is.
    pub(super) fn new(octets: &'a [u8]) -> Option<(Self, u64)> {
        let mut reader = Self(octets);
        let known = reader.u8()? == VERSION;
        let instance = reader.u64()?;
        known.then_some((reader, instance))
    }

    pub(super) fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    take!(u8 u8, u16 u16, u32 u32, u64 u64, i32 i32, f32 f32, f64 f64);

    pub(super) fn item(&mut self) -> Option<Item> {
        match self.u8()? {
            0 => Some(Item::Forgotten(Key(self.u64()?))),
            1 => Some(Item::Learned(Box::new(self.learned()?))),
            _ => None,
        }
    }

    fn learned(&mut self) -> Option<Learned> {
        let at = self.f64().filter(|at| at.is_finite())?;
        let (subject, session) = (Key(self.u64()?), Key(self.u64()?));
        let pace = self.pace()?;
        let (at_place, latitude, longitude, radius_km) = (self.f64()?, self.f32()?, self.f32()?, self.f32()?);
        let sighting = Sighting { at: at_place, latitude, longitude, radius_km };
        let context = self.context()?;
        let (mut profile, mut shared) = (Deltas::none(), SharedDeltas::none());
        for _ in 0..self.u8()? {
            profile.push(self.delta()?);
        }
        for _ in 0..self.u8()? {
            shared.push(self.shared()?);
        }
        Some(Learned { at, subject, profile, pace, sighting, session, context, shared })
    }

    fn pace(&mut self) -> Option<Pace> {
        let at = self.f64()?;
        let [surprise, fast, slow, fast_mark, slow_mark] =
            [self.f32()?, self.f32()?, self.f32()?, self.f32()?, self.f32()?];
        Some(Pace { at, surprise, fast, slow, fast_mark, slow_mark })
    }

    pub(super) fn context(&mut self) -> Option<Context> {
        let (device, system, network) = (self.u32()?, self.u32()?, self.u32()?);
        let surroundings = Surroundings { device, system, network, family: self.u16()?, version: self.u16()? };
        let at = self.f64()?;
        let flags = self.u8()?;
        let [network, device, auth, travel, concurrent] =
            [self.f32()?, self.f32()?, self.f32()?, self.f32()?, self.f32()?];
        let (moved_device, moved_client, moved_network) = (self.f32()?, self.f32()?, self.f32()?);
        let (mismatch, away) = (flags & 1 != 0, flags & 2 != 0);
        let doubt = Doubt {
            network,
            device,
            mismatch,
            away,
            auth,
            travel,
            moved_device,
            moved_client,
            moved_network,
            concurrent,
        };
        let standing = match self.u8()? {
            0 => Standing::Failed,
            1 => Standing::Seen,
            2 => Standing::Accepted,
            3 => Standing::Proven,
            _ => return None,
        };
        let (learned, learned_device) = (self.u8()?, self.u8()?);
        Some(Context { surroundings, at, doubt, standing, learned, learned_device })
    }

    fn delta(&mut self) -> Option<Delta> {
        let (tag, key) = (self.u8()?, self.u32()?);
        let field = match tag {
            0 => Field::Country(key),
            1 => Field::System(key),
            2 => Field::Network(key),
            3 => Field::Place(key),
            4 => Field::Family(key),
            5 => Field::Action(key),
            6 => Field::Hour(key as u8),
            7 => Field::Scalar(*Scalar::ALL.get(key as usize)?),
            8 => Field::Device { id: self.u64()?, family: (key >> 16) as u16, version: key as u16 },
            _ => return None,
        };
        Some(Delta { field, units: self.u32()?, generation: self.u16()? })
    }

    fn shared(&mut self) -> Option<SharedDelta> {
        let (tag, key, more) = (self.u8()?, self.u64()?, self.u64()?);
        let field = match (tag, more) {
            (0, action) => SharedField::Habit { context: key, action: u32::try_from(action).ok()? },
            (1, share) => SharedField::User(Share::ALL.into_iter().find(|known| *known as u64 == share)?, key),
            (2, _) => SharedField::Total(Total::ALL.into_iter().find(|known| *known as u64 == key)?),
            (3, _) => SharedField::Top(u16::try_from(key).ok()?),
            (4, user) => SharedField::Away { network: key, user },
            _ => return None,
        };
        Some(SharedDelta { field, amount: self.i32()?, generation: self.u16()? })
    }
}
