//! The engine of the embedded stores: keys in order, values and records, lifetimes, and which keys an operation changed.
//!
//! Synchronous and without a clock of its own; `memory` and `file` hold it behind a lock. Its times are those of a clock that
//! does not step: what was to live for an hour lives for an hour.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Entry, Held, Keys, MAX_FIELDS, MAX_VALUE, MAX_WHOLE, Rate, Record, StoreError, StoreErrorKind, Taken, Widened, gcra,
};
use crate::domain::UnixTime;

/// What is longer is no number, in octets.
pub(super) const LONGEST_NUMBER: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Table {
    items: BTreeMap<String, Item>,
    /// When keys end, soonest first.
    ends: BTreeSet<(UnixTime, String)>,
    /// Keys changed since [`Table::changes`] was last called.
    changed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) data: Data,
    pub(super) ends: Option<UnixTime>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Data {
    Value(Vec<u8>),
    Record(BTreeMap<String, String>),
}

impl Table {
    /// Removes what has ended at `now`. Each operation begins with it.
    pub(super) fn expire(&mut self, now: UnixTime) {
        while let Some((at, _)) = self.ends.first()
            && *at <= now
        {
            if let Some((_, key)) = self.ends.pop_first() {
                self.items.remove(&key);
                self.changed.push(key);
            }
        }
    }

    /// The keys that have changed since the last call.
    pub(super) fn changes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn item(&self, key: &str) -> Option<&Item> {
        self.items.get(key)
    }

    /// Puts back an item as it was kept elsewhere. Not a change.
    pub(super) fn restore(&mut self, key: String, item: Item) {
        if let Some(ends) = item.ends {
            self.ends.insert((ends, key.clone()));
        }
        self.items.insert(key, item);
    }

    pub(super) fn read(&self, key: &str, now: UnixTime) -> Entry {
        match self.items.get(key) {
            None => Ok(None),
            Some(Item { data: Data::Record(_), .. }) => Err(wrong_type()),
            Some(Item { data: Data::Value(value), .. }) if value.len() > MAX_VALUE => Err(too_large()),
            Some(Item { data: Data::Value(value), ends }) => {
                Ok(Some(Held { value: value.clone(), life: ends.map(|ends| ends.since(now)) }))
            }
        }
    }

    pub(super) fn write(&mut self, key: &str, value: &[u8], life: Option<Duration>, now: UnixTime) {
        self.put(key, Item { data: Data::Value(value.to_vec()), ends: life.map(|life| now.plus(life)) });
    }

    pub(super) fn create(&mut self, key: &str, value: &[u8], life: Option<Duration>, now: UnixTime) -> bool {
        let free = !self.items.contains_key(key);
        if free {
            self.write(key, value, life, now);
        }
        free
    }

    pub(super) fn raise(
        &mut self,
        key: &str,
        value: &str,
        life: Option<Duration>,
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        let held = self.read(key, now)?;
        if let Some(held) = &held
            && leading_number(&held.value).is_none_or(|held| Some(held) > leading_number(value.as_bytes()))
        {
            return Ok(false);
        }
        let life = match held {
            Some(Held { life: None, .. }) => None,
            Some(Held { life: Some(old), .. }) => life.map(|life| life.max(old)),
            None => life,
        };
        self.write(key, value.as_bytes(), life, now);
        Ok(true)
    }

    pub(super) fn widen(
        &mut self,
        key: &str,
        value: &str,
        life: Option<Duration>,
        now: UnixTime,
    ) -> Result<Widened, StoreError> {
        let new = life.map(|life| now.plus(life));
        let (kept, ends) = match self.items.get(key) {
            None => (None, new),
            Some(Item { data: Data::Record(_), .. }) => return Err(wrong_type()),
            Some(Item { data: Data::Value(held), ends }) => {
                let stays = says(held) > says(value.as_bytes());
                (stays.then(|| held.clone()), new.and_then(|new| ends.map(|ends| ends.max(new))))
            }
        };
        let set = kept.is_none();
        self.put(key, Item { data: Data::Value(kept.unwrap_or_else(|| value.as_bytes().to_vec())), ends });
        Ok(Widened { set, life: ends.map(|ends| ends.since(now)), replicated: None })
    }

    pub(super) fn exchange(&mut self, key: &str, old: &[u8], new: Option<&[u8]>) -> Result<bool, StoreError> {
        let ends = match self.items.get(key) {
            Some(Item { data: Data::Record(_), .. }) => return Err(wrong_type()),
            Some(Item { data: Data::Value(held), ends }) if held == old => *ends,
            Some(_) | None => return Ok(false),
        };
        match new {
            Some(new) => self.put(key, Item { data: Data::Value(new.to_vec()), ends }),
            None => _ = self.delete(key),
        }
        Ok(true)
    }

    pub(super) fn replace(&mut self, key: &str, old: &[u8], new: &[u8], life: Duration, now: UnixTime) -> bool {
        let same = matches!(self.items.get(key), Some(Item { data: Data::Value(held), .. }) if held == old);
        if same {
            self.write(key, new, Some(life), now);
        }
        same
    }

    pub(super) fn delete(&mut self, key: &str) -> bool {
        let Some(item) = self.items.remove(key) else { return false };
        if let Some(ends) = item.ends {
            self.ends.remove(&(ends, key.to_owned()));
        }
        self.changed.push(key.to_owned());
        true
    }

    pub(super) fn record(&self, key: &str, fields: &[&str]) -> Result<Option<Record>, StoreError> {
        let Some(item) = self.items.get(key) else { return Ok(None) };
        let Data::Record(record) = &item.data else { return Err(wrong_type()) };
        let found = fields.iter().filter_map(|field| record.get_key_value(*field));
        found
            .map(|(field, value)| match value.len() {
                0..=MAX_VALUE => Ok((field.clone(), value.clone())),
                _ => Err(too_large()),
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    pub(super) fn whole_record(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let Some(item) = self.items.get(key) else { return Ok(None) };
        let Data::Record(record) = &item.data else { return Err(wrong_type()) };
        let octets: usize = record.iter().map(|(field, value)| field.len() + value.len()).sum();
        if record.len() > MAX_FIELDS || octets > MAX_WHOLE {
            return Err(too_large());
        }
        Ok(Some(record.iter().map(|(field, value)| (field.clone(), value.clone())).collect()))
    }

    pub(super) fn write_record(&mut self, key: &str, set: &[(&str, &str)], remove: &[&str]) -> Result<(), StoreError> {
        let (mut record, ends) = self.take_record(key)?;
        for (field, value) in set {
            record.insert((*field).to_owned(), (*value).to_owned());
        }
        for field in remove {
            record.remove(*field);
        }
        if record.is_empty() {
            self.delete(key);
        } else {
            self.put(key, Item { data: Data::Record(record), ends });
        }
        Ok(())
    }

    pub(super) fn amend_record(
        &mut self,
        key: &str,
        held: &[(&str, &str)],
        set: &[(&str, &str)],
        remove: &[&str],
    ) -> Result<bool, StoreError> {
        let same = match self.items.get(key) {
            None => false,
            Some(Item { data: Data::Value(_), .. }) => return Err(wrong_type()),
            Some(Item { data: Data::Record(record), .. }) => {
                held.iter().all(|(field, value)| record.get(*field).is_some_and(|is| is == value))
            }
        };
        if same {
            self.write_record(key, set, remove)?;
        }
        Ok(same)
    }

    pub(super) fn add(
        &mut self,
        key: &str,
        deltas: &[(&str, i64)],
        life: Option<Duration>,
        now: UnixTime,
    ) -> Result<Vec<i64>, StoreError> {
        let (mut record, ends) = self.take_record(key)?;
        let mut sums = Vec::with_capacity(deltas.len());
        for (field, delta) in deltas {
            let old: i64 = match record.get(*field) {
                Some(text) => text.parse().map_err(|_| StoreError::new(StoreErrorKind::Malformed, "not an integer"))?,
                None => 0,
            };
            let sum = old.saturating_add(*delta);
            record.insert((*field).to_owned(), sum.to_string());
            sums.push(sum);
        }
        self.put(key, Item { data: Data::Record(record), ends: life.map(|life| now.plus(life)).or(ends) });
        Ok(sums)
    }

    pub(super) fn enlist(
        &mut self,
        key: &str,
        (field, counter): (&str, &str),
        value: &str,
        life: Option<Duration>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let (record, ends) = self.take_record(key)?;
        if record.contains_key(field) {
            self.put(key, Item { data: Data::Record(record), ends: life.map(|life| now.plus(life)).or(ends) });
            return Ok(());
        }
        let number = self.add(key, &[(counter, 1)], life, now)?;
        let number = number.first().copied().unwrap_or_default();
        self.write_record(key, &[(field, &format!("{value} {number}"))], &[])
    }

    pub(super) fn scan(&self, prefix: &str, cursor: &str, count: usize) -> Result<Keys, StoreError> {
        if !cursor.is_empty() && !cursor.starts_with(prefix) {
            return Err(StoreError::new(StoreErrorKind::Cursor, "it names no key of this scan"));
        }
        let from = if cursor.is_empty() { prefix } else { cursor };
        let mut keys: Vec<String> = self
            .items
            .range(from.to_owned()..)
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix))
            .take(count.max(1) + 1)
            .cloned()
            .collect();
        let next = if keys.len() > count.max(1) { keys.pop() } else { None };
        Ok((keys, next))
    }

    pub(super) fn take(&mut self, key: &str, rate: Rate, count: u32, now: UnixTime) -> Result<Taken, StoreError> {
        let arrival = match self.read(key, now)? {
            Some(held) => std::str::from_utf8(&held.value).ok().and_then(|text| text.parse().ok()),
            None => None,
        };
        let (taken, arrival) = gcra::take(arrival, now.as_millis().saturating_mul(1000), rate, count);
        if let Some(arrival) = arrival {
            let life = taken.reset + Duration::from_millis(1);
            self.write(key, arrival.to_string().as_bytes(), Some(life), now);
        }
        Ok(taken)
    }

    fn take_record(&self, key: &str) -> Result<(BTreeMap<String, String>, Option<UnixTime>), StoreError> {
        match self.items.get(key) {
            None => Ok((BTreeMap::new(), None)),
            Some(Item { data: Data::Record(record), ends }) => Ok((record.clone(), *ends)),
            Some(_) => Err(wrong_type()),
        }
    }

    fn put(&mut self, key: &str, item: Item) {
        let ends = item.ends;
        if let Some(Item { ends: Some(old), .. }) = self.items.insert(key.to_owned(), item) {
            self.ends.remove(&(old, key.to_owned()));
        }
        if let Some(ends) = ends {
            self.ends.insert((ends, key.to_owned()));
        }
        self.changed.push(key.to_owned());
    }
}

/// The whole number that a value begins with, spaces before it forgiven.
fn leading_number(value: &[u8]) -> Option<u64> {
    let text = value.trim_ascii_start();
    let digits = text.iter().take_while(|octet| octet.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// How much a value says: what is no number, taken whole, most. As the script `WIDEN` has it.
fn says(value: &[u8]) -> f64 {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= LONGEST_NUMBER);
    let number = text.and_then(|text| text.trim().parse::<f64>().ok());
    number.filter(|number| number.is_finite() && *number >= 0.0).unwrap_or(f64::INFINITY)
}

pub(super) fn wrong_type() -> StoreError {
    StoreError::new(StoreErrorKind::Malformed, "the key holds a value of another type")
}

pub(super) fn too_large() -> StoreError {
    StoreError::new(StoreErrorKind::Malformed, format!("larger than {MAX_VALUE} octets"))
}
