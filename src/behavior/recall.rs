//! What the ledger holds, back into memory: a subject's past and a session at their first request here, what everyone has in
//! common at the start, the lines of the hour.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    PATIENCE, counts,
    ledger::{Ledger, leading},
    octets::Reader,
};
use crate::{
    domain::Unavailable,
    risk::statistical::{
        Key, Learned, Lines, Profile,
        binding::{Binding, Context},
        globals, hash,
        profile::{Pace, Sighting},
    },
    store::{MAX_VALUE, StoreError, StoreErrorKind, keys},
};

/// How long nobody waits for a store that did not answer.
const SILENCE: Duration = Duration::from_secs(1);
/// How long what everyone has in common, and the lines of an hour, are kept.
const EVERYONE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
const LINES_LIFE: Duration = Duration::from_secs(2 * 3600);

/// Part 0 of what everyone has in common.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    parts: usize,
    /// Of all parts together: they are not written in one step.
    hash: u64,
    /// Number of the latest news that is part of it.
    as_of: u64,
}

impl Ledger {
    /// Reads what is missing of a subject and a session; waits [`PATIENCE`] at most, and goes on reading after that.
    pub(super) async fn recall_within(
        self: &Arc<Self>,
        subject: Key,
        session: Key,
        deadline: Instant,
    ) -> Result<(), Unavailable> {
        let Ok(permit) = Arc::clone(&self.recalls).try_acquire_owned() else {
            self.counters.unanswered.increment();
            return Err(Unavailable::Overloaded);
        };
        let silent = self.clock.now().as_millis() < self.silent_until.load(Ordering::Acquire);
        let patience = Instant::now() + PATIENCE;
        let ledger = Arc::clone(self);
        let reading = tokio::spawn(async move {
            let _permit = permit;
            ledger.recall(subject, session).await
        });
        let why = match silent {
            true => Unavailable::Store,
            false => match tokio::time::timeout_at(patience.min(deadline), reading).await {
                Ok(Ok(Ok(()))) => return Ok(()),
                Ok(Ok(Err(error))) => error.unavailable(),
                Ok(Err(_)) => Unavailable::Internal,
                // A request that had less time left says nothing of the store.
                Err(_) => {
                    if patience <= deadline {
                        self.fell_silent();
                    }
                    Unavailable::Timeout
                }
            },
        };
        self.counters.unanswered.increment();
        Err(why)
    }

    fn fell_silent(&self) {
        self.silent_until.store(self.clock.now().plus(SILENCE).as_millis(), Ordering::Release);
    }

    async fn recall(&self, subject: Key, session: Key) -> Result<(), StoreError> {
        tokio::try_join!(self.recall_subject(subject), self.recall_session(subject, session)).map(drop)
    }

    /// Reads the contexts of a session, where they are not here.
    async fn recall_session(&self, subject: Key, session: Key) -> Result<(), StoreError> {
        if self.profiles.holds(subject, session).1 {
            return Ok(());
        }
        let read = self.store.read(&[keys::profile_session(session.0)]).await;
        let held = read.inspect_err(|_| self.fell_silent())?.pop().and_then(Result::ok).flatten();
        let contexts = held.map(|held| contexts(&held.value)).unwrap_or_default();
        self.profiles.recall_session(subject, session, &contexts);
        Ok(())
    }

    /// Reads the past of a subject, where it is not here. A record that makes no sense is begun anew.
    pub(super) async fn recall_subject(&self, subject: Key) -> Result<(), StoreError> {
        if self.profiles.holds(subject, Key(0)).0 {
            return Ok(());
        }
        // Before the counts: news up to this number are in them.
        let wanted = [keys::PROFILE_NEWS.to_owned(), keys::profile_last(subject.0)];
        let mut entries = self.store.read(&wanted).await.inspect_err(|_| self.fell_silent())?.into_iter();
        let mut value = || entries.next().and_then(Result::ok).flatten().map(|held| held.value);
        let as_of = value().map_or(0, |value| leading(&value));
        let last = value();
        let key = keys::profile(subject.0);
        let record = match self.store.whole_record(&key).await {
            Ok(record) => record.unwrap_or_default(),
            Err(error) if error.kind == StoreErrorKind::Malformed => {
                self.counters.malformed.increment();
                self.store.delete(std::slice::from_ref(&key)).await?;
                Vec::new()
            }
            Err(error) => {
                self.fell_silent();
                return Err(error);
            }
        };
        let (mut profile, unused) = counts::gather(&record);
        if let Some(last) = last {
            take_last(&mut profile, &last);
        }
        self.profiles.recall(subject, profile, as_of);
        self.counters.recalled.increment();
        if !unused.is_empty() {
            self.store.write_record(&key, &[], &unused).await?;
        }
        Ok(())
    }

    /// Reads what everyone has in common, where that was written down, and goes on from there.
    pub(super) async fn recall_everyone(&self) -> Result<(), StoreError> {
        let first = [keys::PROFILE_NEWS.to_owned(), keys::profile_everyone(0)];
        let mut entries = self.store.read(&first).await?.into_iter();
        let mut value = || entries.next().and_then(Result::ok).flatten().map(|held| held.value);
        let latest = value().map_or(0, |value| leading(&value));
        let contents = value().and_then(|value| serde_json::from_slice::<Contents>(&value).ok());
        let Some(Contents { parts, hash, as_of }) = contents.filter(|contents| contents.parts <= 256) else {
            self.heard.fetch_max(latest, Ordering::AcqRel);
            return Ok(());
        };
        let wanted: Vec<String> = (1..=parts).map(keys::profile_everyone).collect();
        let parts = self.store.read(&wanted).await?;
        let text: Vec<u8> =
            parts.into_iter().filter_map(|part| part.ok().flatten()).flat_map(|part| part.value).collect();
        let record = serde_json::from_slice::<globals::Record>(&text).ok().filter(|_| hash::stable(&text) == hash);
        match record {
            Some(record) => {
                self.profiles.recall_everyone(&record);
                self.heard.fetch_max(as_of, Ordering::AcqRel);
            }
            None => {
                self.counters.malformed.increment();
                self.heard.fetch_max(latest, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    pub(super) async fn write_everyone(&self) -> Result<(), StoreError> {
        let as_of = self.heard.load(Ordering::Acquire);
        let text = serde_json::to_vec(&self.profiles.everyone()).unwrap_or_default();
        let parts: Vec<&[u8]> = text.chunks(MAX_VALUE).collect();
        for (index, part) in parts.iter().enumerate() {
            self.store.write(&keys::profile_everyone(index + 1), part, Some(EVERYONE_LIFE)).await?;
        }
        let contents = Contents { parts: parts.len(), hash: hash::stable(&text), as_of };
        let contents = serde_json::to_vec(&contents).unwrap_or_default();
        self.store.write(&keys::profile_everyone(0), &contents, Some(EVERYONE_LIFE)).await
    }

    /// Puts the lines in force that the first replica named for this hour: one request has one risk everywhere.
    pub(super) async fn agree_on_lines(&self, hour: u64) -> Result<(), StoreError> {
        let own = self.profiles.own_lines(self.clock.now().as_secs() as f64);
        let key = keys::profile_lines(hour);
        let text = format!("{} {}", own.step, own.deny);
        let agreed = if self.store.create(&key, text.as_bytes(), Some(LINES_LIFE)).await? {
            Some(own)
        } else {
            let held = self.store.read(&[key]).await?.pop().and_then(Result::ok).flatten();
            held.and_then(|held| lines(&held.value)).filter(|lines| self.profiles.may_lie(*lines))
        };
        self.profiles.agree_on(agreed.unwrap_or(own));
        Ok(())
    }
}

fn lines(value: &[u8]) -> Option<Lines> {
    let (step, deny) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    Some(Lines { step: step.parse().ok()?, deny: deny.parse().ok()? })
}

/// The contexts of a session as it was written down; those before the first that makes no sense.
pub(super) fn contexts(value: &[u8]) -> Vec<Context> {
    let Some((mut reader, _)) = Reader::new(value) else { return Vec::new() };
    std::iter::from_fn(|| reader.context()).take(Binding::CONTEXTS).collect()
}

/// When a subject was seen last (milliseconds first, so that the latest wins), where it was verified, and its pace.
pub(super) fn last(learned: &Learned) -> String {
    let Sighting { at, latitude, longitude, radius_km } = learned.sighting;
    let Pace { at: paced, surprise, fast, slow, fast_mark, slow_mark } = learned.pace;
    let millis = (paced * 1000.0) as u64;
    format!("{millis} {at} {latitude} {longitude} {surprise} {fast} {slow} {fast_mark} {slow_mark} {radius_km}")
}

fn take_last(profile: &mut Profile, value: &[u8]) {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let numbers: Vec<f64> = text.split(' ').map_while(|number| number.parse().ok()).collect();
    let [millis, at, latitude, longitude, surprise, fast, slow, fast_mark, slow_mark, radius_km] = numbers[..] else {
        return;
    };
    if numbers.iter().all(|number| number.is_finite()) {
        let [latitude, longitude, radius_km] = [latitude, longitude, radius_km].map(|number| number as f32);
        profile.sight(Sighting { at, latitude, longitude, radius_km });
        let [surprise, fast, slow, fast_mark, slow_mark] =
            [surprise, fast, slow, fast_mark, slow_mark].map(|number| number as f32);
        profile.keep_pace(Pace { at: millis / 1000.0, surprise, fast, slow, fast_mark, slow_mark });
    }
}
