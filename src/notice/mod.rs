//! Notices of security events: accounts that are disabled, authentications that must be renewed, risk that others saw.
//!
//! Written by signals, held in memory by every replica, pushed by the store's feed. While the feed is live a check costs
//! a look into memory, or less where there are none; while it is not, each check asks the store; when that is silent too,
//! memory answers for [`Notices::start`]'s `max_staleness` at most. Must never take "could not look" for "nothing there".

mod counters;
mod follow;
mod held;
mod insist;
#[cfg(test)]
mod tests;
mod word;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::word::{Aspect, Kind, Word};
use self::{
    counters::Counters,
    held::{Held, Keeps, Said},
    insist::Insistence,
};
use crate::{
    clock::Clock,
    domain::{DeviceId, Fact, Identity, Notice, Unavailable, UnixTime},
    store::{Liveness, Store, StoreError, StoreErrorKind, Ticket, Tickets, keys},
};

/// The notices this replica knows of, and the way to those it does not.
#[derive(Debug)]
pub struct Notices {
    store: Arc<dyn Store>,
    clock: Clock,
    held: Held,
    liveness: Liveness,
    tickets: Tickets,
    /// Everything there is has been read since the feed was last connected.
    whole: AtomicBool,
    /// The store has not been given back yet all that it has lost.
    owing: AtomicBool,
    base: Instant,
    /// The last sign of life of the feed while memory was whole, in milliseconds after `base`.
    heard: AtomicU64,
    max_staleness: Duration,
    insistence: Insistence,
    counters: Counters,
}

impl Notices {
    /// Follows the store's feed until cancelled. Of more than `max_entries` ids, checks ask the store.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Clock,
        max_staleness: Duration,
        max_entries: usize,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let notices = Arc::new(Self {
            store,
            clock,
            held: Held::new(max_entries),
            liveness: Liveness::default(),
            tickets: Tickets::default(),
            whole: AtomicBool::new(false),
            owing: AtomicBool::new(false),
            base: Instant::now(),
            heard: AtomicU64::new(0),
            max_staleness,
            insistence: Insistence::new(cancel.clone()),
            counters: Counters::default(),
        });
        let follower = Arc::clone(&notices);
        tokio::spawn(async move { cancel.run_until_cancelled(follow::follow(&follower)).await });
        notices
    }

    /// What is said of the token's subject and session and of the device; `login` makes the key that the session has here.
    /// Never `Absent`: nothing said is known too.
    pub async fn check<'l>(
        &self,
        identity: &Identity,
        (login, device): (impl Fn() -> &'l str, Option<&DeviceId>),
        now: UnixTime,
        deadline: Instant,
    ) -> Fact<Notice> {
        match self.at_hand(identity, (&login, device), now) {
            Ok(fact) => fact,
            Err(remembered) => {
                let about = about(identity, login(), device);
                Box::pin(self.ask(&about, remembered, deadline)).await
            }
        }
    }

    /// As [`Self::check`], where memory says it; `None`: the store must be asked.
    pub fn remembered<'l>(
        &self,
        identity: &Identity,
        of: (impl Fn() -> &'l str, Option<&DeviceId>),
        now: UnixTime,
    ) -> Option<Fact<Notice>> {
        self.at_hand(identity, of, now).ok()
    }

    /// What memory says; else what it holds as the last resort where the store does not answer.
    fn at_hand<'l>(
        &self,
        identity: &Identity,
        (login, device): (impl Fn() -> &'l str, Option<&DeviceId>),
        now: UnixTime,
    ) -> Result<Fact<Notice>, Option<Notice>> {
        let whole = self.liveness.is_live() && !self.held.is_full();
        // Nobody has said anything of anybody.
        if whole && self.held.is_empty() {
            return Ok(Fact::known(Notice::default(), now));
        }
        match self.held.look(&about(identity, login(), device), &self.clock) {
            Some(notice) if whole => Ok(Fact::known(notice, now)),
            remembered => Err(remembered),
        }
    }

    /// Says something of somebody, unless something newer was said. Says whether it was new.
    ///
    /// # Errors
    ///
    /// When the store did not acknowledge it: then nothing was promised. Where something stands that cannot be read, it is
    /// malformed.
    pub async fn say(
        &self,
        (kind, id): (Kind, &str),
        word: Word,
        at: UnixTime,
        life: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let key = keys::notice(word.aspect().as_str(), kind.as_str(), id);
        let (said, replicated) = self.store.raise_replicated(&key, &word.render(at), life).await?;
        if replicated == Some(false) {
            self.counters.unreplicated.increment();
            let aspect = word.aspect().as_str();
            tracing::warn!(aspect, "no replica of the store has acknowledged a notice: a failover now could lose it");
        }
        let live = self.liveness.is_live();
        // Until the feed has told of it, checks here ask the store.
        if said {
            // Whoever has read it and not kept it yet may have read what was there before.
            self.tickets.tell(&key);
            let ends = life.and_then(|life| self.clock.instant().checked_add(life));
            self.held.say((word.aspect(), kind, id), Said { word, at, ends });
        } else if live {
            // Where nothing has changed and nobody listens, all there is will be read.
            self.held.suspect(word.aspect(), kind, id);
        }
        if live {
            self.settle(std::slice::from_ref(&key), self.keeps()).await?;
        }
        if !said {
            self.is_word(word.aspect(), &key).await?;
        }
        Ok(said)
    }

    /// Fails where something stands that is no word: that is nothing newer, and must not pass for it.
    async fn is_word(&self, aspect: Aspect, key: &str) -> Result<(), StoreError> {
        match self.store.read(&[key.to_owned()]).await?.pop().transpose()?.flatten() {
            Some(held) if Word::parse(aspect, &held.value).is_none() => {
                Err(StoreError::new(StoreErrorKind::Malformed, "a notice that is no word of its aspect"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether what is known here stands against something older in the store, which may have lost it: before all has been
    /// read, and until all is given back.
    fn keeps(&self) -> Keeps {
        let newer = !self.whole.load(Ordering::Acquire) || self.owing.load(Ordering::Acquire);
        if newer { Keeps::Newer } else { Keeps::Nothing }
    }

    /// Reads the keys of one check in one trip.
    async fn ask(&self, about: &[(Kind, &str)], remembered: Option<Notice>, deadline: Instant) -> Fact<Notice> {
        self.counters.asked.increment();
        let wanted: Vec<String> = about
            .iter()
            .flat_map(|(kind, id)| Aspect::of(*kind).map(|aspect| keys::notice(aspect.as_str(), kind.as_str(), id)))
            .collect();
        let entries = match tokio::time::timeout_at(deadline, self.store.read(&wanted)).await {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => return self.unanswered(remembered, error.unavailable()),
            Err(_) => return self.unanswered(remembered, Unavailable::Timeout),
        };
        let now = self.clock.now();
        let mut notice = Notice::default();
        for (key, entry) in wanted.iter().zip(entries) {
            let Some((aspect, ..)) = word::parse_key(key) else { continue };
            match entry.map(|held| held.map(|held| Word::parse(aspect, &held.value))) {
                Ok(None) => {}
                Ok(Some(Some((word, at)))) => notice = notice.and(word.notice(at)),
                Ok(Some(None)) | Err(_) => return Fact::Unavailable(Unavailable::Malformed),
            }
        }
        Fact::known(notice, now)
    }

    /// The store does not answer: memory does, for a moment.
    fn unanswered(&self, remembered: Option<Notice>, why: Unavailable) -> Fact<Notice> {
        let heard = self.base + Duration::from_millis(self.heard.load(Ordering::Acquire));
        match remembered {
            Some(notice) if heard > self.base && heard.elapsed() < self.max_staleness && !self.held.is_full() => {
                self.counters.stale.increment();
                Fact::known(notice, self.clock.now())
            }
            _ => {
                self.counters.unanswered.increment();
                Fact::Unavailable(why)
            }
        }
    }

    /// Takes what the store holds at `found` into memory, where nothing was told of it meanwhile. What is known and `keeps`
    /// stays there; gives the keys where the store has lost that.
    async fn settle(&self, found: &[String], keeps: Keeps) -> Result<Vec<String>, StoreError> {
        let tickets: Vec<Ticket> = found.iter().map(|key| self.tickets.ticket(key)).collect();
        let entries = self.store.read(found).await?;
        let (now, mut lost) = (self.clock.instant(), Vec::new());
        for ((key, entry), ticket) in found.iter().zip(entries).zip(tickets) {
            let Some(of @ (aspect, kind, id)) = word::parse_key(key) else { continue };
            let said = match entry {
                Ok(None) => Some(None),
                Ok(Some(held)) => Word::parse(aspect, &held.value)
                    .map(|(word, at)| Some(Said { word, at, ends: held.life.and_then(|life| now.checked_add(life)) })),
                Err(error) if error.kind == StoreErrorKind::Malformed => None,
                Err(error) => return Err(error),
            };
            let Some(said) = said else {
                // However it was found: a replica that begins must not take it for nothing said.
                self.held.suspect(aspect, kind, id);
                tracing::warn!(aspect = aspect.as_str(), "a notice cannot be read: answered with 503");
                continue;
            };
            let current = || self.tickets.ticket(key) == ticket;
            if self.held.put(of, said, (keeps, now), current).is_some() {
                lost.push(key.clone());
            }
        }
        Ok(lost)
    }

    fn mark(&self, as_of: Instant) {
        let millis = as_of.saturating_duration_since(self.base).as_millis();
        self.heard.store(u64::try_from(millis).unwrap_or(u64::MAX).max(1), Ordering::Release);
    }

    pub fn is_live(&self) -> bool {
        self.liveness.is_live()
    }
}

/// Of whom a request's notices may be. No allocation.
fn about<'a>(
    identity: &'a Identity,
    login: &'a str,
    device: Option<&'a DeviceId>,
) -> smallvec::SmallVec<[(Kind, &'a str); 5]> {
    let named = device.into_iter().chain(identity.device.as_ref().filter(|owed| Some(*owed) != device));
    let (subject, session) = (identity.subject.as_str(), identity.session.as_str());
    [(Kind::Subject, subject), (Kind::Session, session), (Kind::Login, login)]
        .into_iter()
        .chain(named.map(|device| (Kind::Device, device.as_str())))
        .collect()
}
