//! Counts of a profile as fields of a record: whole numbers that any replica adds to, a field for each 30 days.
//!
//! A field is `<kind><key in hexadecimal>.<generation>`; a device's key is its id, family and version.

use crate::risk::statistical::{
    Profile,
    delta::{Delta, Field, Scalar},
    epoch,
};

/// Generations after which a count is worth too little to be kept.
const KEPT: u16 = 6;

/// The name of a delta's field.
pub(super) fn name(delta: &Delta) -> String {
    let generation = delta.generation;
    match delta.field {
        Field::Country(key) => format!("c{key:x}.{generation}"),
        Field::System(key) => format!("a{key:x}.{generation}"),
        Field::Network(key) => format!("n{key:x}.{generation}"),
        Field::Place(key) => format!("p{key:x}.{generation}"),
        Field::Family(key) => format!("f{key:x}.{generation}"),
        Field::Action(key) => format!("x{key:x}.{generation}"),
        Field::Hour(hour) => format!("h{hour:x}.{generation}"),
        Field::Scalar(scalar) => format!("s{:x}.{generation}", scalar as u32),
        Field::Device { id, family, version } => format!("d{id:x}-{family:x}-{version:x}.{generation}"),
    }
}

/// A field and its value as a delta; `None` where it is none of ours.
pub(super) fn parse(name: &str, value: &str) -> Option<Delta> {
    let (kind, rest) = name.split_at_checked(1)?;
    let (key, generation) = rest.rsplit_once('.')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let field = match kind {
        "c" => Field::Country(number(key)?),
        "a" => Field::System(number(key)?),
        "n" => Field::Network(number(key)?),
        "p" => Field::Place(number(key)?),
        "f" => Field::Family(number(key)?),
        "x" => Field::Action(number(key)?),
        "h" => Field::Hour(u8::try_from(number(key)?).ok().filter(|hour| *hour < 48)?),
        "s" => Field::Scalar(*Scalar::ALL.get(number(key)? as usize)?),
        "d" => device(key)?,
        _ => return None,
    };
    let units = value.parse::<i64>().ok()?.clamp(0, i64::from(u32::MAX)) as u32;
    Some(Delta { field, units, generation: generation.parse().ok()? })
}

fn device(key: &str) -> Option<Field> {
    let mut parts = key.split('-');
    let id = u64::from_str_radix(parts.next()?, 16).ok()?;
    let mut number = || u16::from_str_radix(parts.next()?, 16).ok();
    Some(Field::Device { id, family: number()?, version: number()? })
}

/// The profile that fields add up to, and the fields that it has no room or no use for.
pub(super) fn gather(record: &[(String, String)]) -> (Profile, Vec<&str>) {
    let mut counts: Vec<(&str, Delta)> =
        record.iter().filter_map(|(name, value)| Some((name.as_str(), parse(name, value)?))).collect();
    // Oldest first, then most: what is counted most is not pushed out of its place by what comes after.
    counts.sort_by_key(|(name, delta)| (delta.generation, std::cmp::Reverse(delta.units), *name));
    let latest = counts.last().map_or(0, |(_, delta)| delta.generation);
    let mut profile = Profile::default();
    counts.iter().for_each(|(_, delta)| profile.apply(*delta));
    let held: std::collections::HashSet<Field> = profile.deltas().map(|delta| stem(delta.field)).collect();
    let of_use = |delta: &Delta| {
        epoch::halvings(delta.generation, latest) < u32::from(KEPT) && held.contains(&stem(delta.field))
    };
    (profile, counts.iter().filter(|(_, delta)| !of_use(delta)).map(|(name, _)| *name).collect())
}

/// A device is one, whatever the version of its browser.
fn stem(field: Field) -> Field {
    match field {
        Field::Device { id, family, .. } => Field::Device { id, family, version: 0 },
        other => other,
    }
}

/// What a field counts, for whoever asks what is kept about them.
pub(super) fn describe(field: Field) -> (&'static str, String) {
    match field {
        Field::Country(key) => ("country", format!("{key:08x}")),
        Field::System(key) => ("autonomous_system", format!("{key:08x}")),
        Field::Network(key) => ("network", format!("{key:08x}")),
        Field::Place(key) => ("place", format!("{key:08x}")),
        Field::Family(key) => ("client", format!("{key:08x}")),
        Field::Action(key) => ("action", format!("{key:08x}")),
        Field::Device { id, .. } => ("device", format!("{id:016x}")),
        Field::Hour(hour) if hour < 24 => ("hour_of_work_days", format!("{hour:02}")),
        Field::Hour(hour) => ("hour_of_weekends", format!("{:02}", hour - 24)),
        Field::Scalar(scalar) => ("total", format!("{scalar:?}").to_lowercase()),
    }
}
