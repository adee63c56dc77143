//! What was learned, written behind: counts that any replica adds to, and news for the others, once a second.
//!
//! Nothing here delays a request. While the store is silent what is learned waits in a bounded queue; what finds no room, and
//! what the store may or may not have taken, is counted and not sent twice.
//!
//! News are numbered without gaps: whoever creates the next number has said the next thing. Each replica reads on from the
//! number it heard last, so all of them hold the same but for the last second.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Profiles, counts,
    octets::{self, Item, Reader, Writer},
    outbox::{Entry, Outbox},
};
use crate::{
    clock::Clock,
    domain::metric::{Counter, Page, Source},
    risk::statistical::{Key, Learned, binding::Binding},
    store::{MAX_VALUE, Store, StoreError, StoreErrorKind, keys},
};

/// How long counts outlive the last request of a subject: three of their half-lives.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long the contexts of a session are kept after they were written last; while it is used, they are every few hours. Where
/// it is a token's, no longer than that.
const SESSION_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long news can be heard.
const NEWS_LIFE: Duration = Duration::from_secs(180);
/// News read in one trip, and subjects written at the same time.
const NEWS_AT_ONCE: u64 = 32;
const AT_ONCE: usize = 32;
/// How often the next number may be taken by somebody else before news are given up.
const TRIES: usize = 32;
/// Pasts that are read at the same time.
const RECALLS: usize = 128;

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) store: Arc<dyn Store>,
    pub(super) profiles: Arc<Profiles>,
    pub(super) clock: Clock,
    outbox: Outbox,
    /// Tells our news from those of others.
    instance: u64,
    /// Number of the news heard last.
    pub(super) heard: AtomicU64,
    /// Until when (milliseconds since 1970) nobody waits for the store.
    pub(super) silent_until: AtomicU64,
    pub(super) recalls: Arc<Semaphore>,
    pub(super) counters: Counters,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    written: Counter,
    lost: Counter,
    heard: Counter,
    missed: Counter,
    pub(super) malformed: Counter,
    pub(super) recalled: Counter,
    pub(super) unanswered: Counter,
}

impl Ledger {
    /// Writes and hears until cancelled.
    pub(super) fn start(
        store: Arc<dyn Store>,
        profiles: Arc<Profiles>,
        clock: Clock,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let ledger = Arc::new(Self {
            store,
            profiles,
            clock,
            outbox: Outbox::default(),
            instance: rand::random(),
            heard: AtomicU64::new(0),
            silent_until: AtomicU64::new(0),
            recalls: Arc::new(Semaphore::new(RECALLS)),
            counters: Counters::default(),
        });
        let keeper = Arc::clone(&ledger);
        tokio::spawn(async move { cancel.run_until_cancelled(keeper.keep()).await });
        ledger
    }

    /// Takes what a request taught. Never waits.
    pub(super) fn note(&self, learned: &Learned, session: Option<f64>) {
        self.outbox.put(learned, session);
    }

    async fn keep(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut begun, mut minute, mut hour) = (false, self.minute(), 0);
        loop {
            ticks.tick().await;
            let turn = async {
                if !begun {
                    self.recall_everyone().await?;
                }
                self.turn(&mut minute, &mut hour).await
            };
            match turn.await {
                Ok(()) => begun = true,
                Err(error) => tracing::debug!(%error, "what was learned waits for the store"),
            }
        }
    }

    /// One second: hear, write, and what is due by the minute and by the hour.
    async fn turn(&self, minute: &mut u64, hour: &mut u64) -> Result<(), StoreError> {
        self.exchange().await?;
        if *hour != self.minute() / 60 {
            let now = self.minute() / 60;
            self.agree_on_lines(now).await?;
            *hour = now;
        }
        if *minute != self.minute() {
            *minute = self.minute();
            if self.store.create(&keys::profile_turn(*minute), b"", Some(NEWS_LIFE)).await? {
                self.write_everyone().await?;
            }
        }
        Ok(())
    }

    fn minute(&self) -> u64 {
        self.clock.now().as_secs() / 60
    }

    /// Hears what others learned, and writes what was learned here.
    pub(super) async fn exchange(&self) -> Result<(), StoreError> {
        if self.latest().await? > self.heard.load(Ordering::Acquire) {
            self.hear().await?;
        }
        self.profiles.flush();
        self.write_down().await
    }

    /// Writes everything, at the end of a process.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        self.exchange().await?;
        self.write_everyone().await
    }

    /// Number of the news told last: one look-up a second is all that silence costs. Whoever dies between telling and saying
    /// that it told is heard with the next news.
    async fn latest(&self) -> Result<u64, StoreError> {
        let mut head = self.store.read(&[keys::PROFILE_NEWS.to_owned()]).await?;
        Ok(head.pop().and_then(Result::ok).flatten().map_or(0, |held| leading(&held.value)))
    }

    /// Takes in what others learned since the last time.
    async fn hear(&self) -> Result<(), StoreError> {
        loop {
            let from = self.heard.load(Ordering::Acquire).saturating_add(1);
            let numbers = from..from.saturating_add(NEWS_AT_ONCE);
            let wanted: Vec<String> =
                std::iter::once(keys::PROFILE_NEWS.to_owned()).chain(numbers.map(keys::profile_news)).collect();
            let mut entries = self.store.read(&wanted).await?.into_iter();
            let latest = entries.next().and_then(Result::ok).flatten().map_or(0, |held| leading(&held.value));
            let mut number = from;
            for entry in entries {
                match entry {
                    Ok(Some(held)) => self.take_in(&held.value, number).await,
                    Ok(None) => break,
                    Err(_) => self.counters.malformed.increment(),
                }
                self.heard.store(number, Ordering::Release);
                number += 1;
            }
            match number - from {
                0 if latest >= from => {
                    // Away for longer than news can be heard: memory may lack something.
                    self.counters.missed.add(latest - from + 1);
                    self.profiles.doubt_all();
                    self.recall_everyone().await?;
                    self.heard.fetch_max(latest, Ordering::AcqRel);
                }
                NEWS_AT_ONCE => {}
                _ => return Ok(()),
            }
        }
    }

    async fn take_in(&self, value: &[u8], number: u64) {
        let Some((mut reader, instance)) = Reader::new(value) else { return self.counters.malformed.increment() };
        if instance == self.instance {
            return;
        }
        while !reader.is_done() {
            match reader.item() {
                Some(Item::Learned(learned)) => {
                    self.counters.heard.increment();
                    self.profiles.hear(&learned, number);
                }
                Some(Item::Forgotten(subject)) => {
                    self.outbox.forget(subject);
                    self.profiles.forget(subject);
                    // What this replica had added meanwhile must not stay.
                    if let Err(error) = self.store.delete(&counted(subject)).await {
                        tracing::warn!(%error, "a subject that was forgotten elsewhere may be remembered");
                    }
                }
                None => return self.counters.malformed.increment(),
            }
        }
    }

    async fn write_down(&self) -> Result<(), StoreError> {
        let entries = self.outbox.take();
        let mut subjects: HashMap<Key, (BTreeMap<String, i64>, Learned)> = HashMap::new();
        let mut sessions: HashMap<(Key, Key), (Binding, f64)> = HashMap::new();
        for Entry { learned, session } in &entries {
            let (counts, latest) = subjects.entry(learned.subject).or_insert_with(|| (BTreeMap::new(), *learned));
            for delta in learned.profile.as_slice() {
                *counts.entry(counts::name(delta)).or_default() += i64::from(delta.units);
            }
            if learned.at >= latest.at {
                *latest = *learned;
            }
            if let Some(until) = *session {
                let key = (learned.subject, learned.session);
                let (binding, ends) = sessions.entry(key).or_insert_with(|| (Binding::default(), until));
                binding.merge(&learned.context);
                *ends = ends.max(until);
            }
        }
        let done = |result: Result<(), StoreError>| match result {
            Ok(()) => self.counters.written.increment(),
            Err(_) => self.counters.lost.increment(),
        };
        let writes = subjects.iter().map(|(subject, (counts, latest))| self.write_subject(*subject, counts, latest));
        stream::iter(writes).for_each_concurrent(AT_ONCE, |write| async { done(write.await) }).await;
        let writes =
            sessions.into_iter().map(|((subject, session), known)| self.write_session(subject, session, known));
        stream::iter(writes).for_each_concurrent(AT_ONCE, |write| async { done(write.await) }).await;
        // After the counts: whoever reads a profile and then hears these news must not count them twice.
        self.tell(&entries).await
    }

    async fn write_subject(
        &self,
        subject: Key,
        counts: &BTreeMap<String, i64>,
        latest: &Learned,
    ) -> Result<(), StoreError> {
        if !counts.is_empty() {
            let deltas: Vec<(&str, i64)> = counts.iter().map(|(name, units)| (name.as_str(), *units)).collect();
            match self.store.add(&keys::profile(subject.0), &deltas, Some(LIFE)).await {
                Err(error) if error.kind == StoreErrorKind::Malformed => {
                    self.counters.malformed.increment();
                    self.store.delete(&[keys::profile(subject.0)]).await?;
                    return Err(error);
                }
                done => done?,
            };
        }
        self.store.raise(&keys::profile_last(subject.0), &super::recall::last(latest), Some(LIFE)).await.map(drop)
    }

    /// The first replica that saw a session says so; the others add what they know. What a newer version wrote is left to it.
    async fn write_session(
        &self,
        subject: Key,
        session: Key,
        (mut binding, until): (Binding, f64),
    ) -> Result<(), StoreError> {
        let key = keys::profile_session(session.0);
        let left = (until - self.clock.now().as_secs() as f64).clamp(1.0, SESSION_LIFE.as_secs_f64());
        let life = Some(Duration::from_secs_f64(left));
        if self.store.create(&key, &self.contexts(&binding), life).await? {
            return Ok(());
        }
        let held = self.store.read(std::slice::from_ref(&key)).await?.pop().and_then(Result::ok).flatten();
        if held.as_ref().is_some_and(|held| octets::is_newer(&held.value)) {
            return Ok(());
        }
        let contexts = held.map(|held| super::recall::contexts(&held.value)).unwrap_or_default();
        contexts.iter().for_each(|context| binding.merge(context));
        self.profiles.recall_session(subject, session, &contexts);
        self.store.write(&key, &self.contexts(&binding), life).await
    }

    fn contexts(&self, binding: &Binding) -> Vec<u8> {
        let mut writer = Writer::new(self.instance);
        binding.known().for_each(|context| writer.context(context));
        writer.finish()
    }

    async fn tell(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let mut writer = Writer::new(self.instance);
        let mut told = 0;
        for (index, entry) in entries.iter().enumerate() {
            writer.learned(&entry.learned);
            told += 1;
            // The longest item is far shorter than what is left.
            if writer.len() > MAX_VALUE - 2048 || index + 1 == entries.len() {
                let full = std::mem::replace(&mut writer, Writer::new(self.instance));
                if let Err(error) = self.say(&full.finish()).await {
                    self.counters.lost.add((entries.len() - index + told - 1) as u64);
                    return Err(error);
                }
                told = 0;
            }
        }
        Ok(())
    }

    /// Says the next thing.
    async fn say(&self, news: &[u8]) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let number = self.heard.load(Ordering::Acquire).saturating_add(1);
            if self.store.create(&keys::profile_news(number), news, Some(NEWS_LIFE)).await? {
                self.heard.fetch_max(number, Ordering::AcqRel);
                self.store.raise(keys::PROFILE_NEWS, &number.to_string(), Some(LIFE)).await?;
                return Ok(());
            }
            self.hear().await?;
        }
        Err(StoreError::new(StoreErrorKind::Refused, "others were always quicker"))
    }

    /// Forgets a subject in the store, and tells the others. Says whether there was anything.
    pub(super) async fn forget(&self, subject: Key) -> Result<bool, StoreError> {
        self.outbox.forget(subject);
        let there = self.store.delete(&counted(subject)).await? > 0;
        let mut writer = Writer::new(self.instance);
        writer.forgotten(subject);
        self.say(&writer.finish()).await?;
        Ok(there)
    }
}

/// The keys under which a subject is remembered.
fn counted(subject: Key) -> [String; 2] {
    [keys::profile(subject.0), keys::profile_last(subject.0)]
}

/// The number that a value begins with.
pub(super) fn leading(value: &[u8]) -> u64 {
    let digits = value.iter().take_while(|octet| octet.is_ascii_digit()).count();
    std::str::from_utf8(&value[..digits]).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Source for Ledger {
    fn collect(&self, page: &mut Page) {
        let Counters { written, lost, heard, missed, malformed, recalled, unanswered } = &self.counters;
        let name = "countersign_behavior_written";
        let help =
            "What was learned, on its way to the store: written, dropped for want of room, lost with a failing store";
        for (outcome, counter) in [("written", written), ("dropped", &self.outbox.dropped), ("lost", lost)] {
            page.counter(name, help, &[("outcome", outcome)], counter);
        }
        let name = "countersign_behavior_news";
        let help = "What other replicas learned: heard, missed because this one was away for too long, malformed";
        for (outcome, counter) in [("heard", heard), ("missed", missed), ("malformed", malformed)] {
            page.counter(name, help, &[("outcome", outcome)], counter);
        }
        let name = "countersign_behavior_recalls";
        let help =
            "Pasts read from the store, and requests judged without one because the store did not answer in time";
        for (outcome, counter) in [("recalled", recalled), ("unanswered", unanswered)] {
            page.counter(name, help, &[("outcome", outcome)], counter);
        }
    }
}
