//! Notices of security events: accounts that are disabled, authentications that must be renewed, risk that others saw.
//!
//! Written by signals, held in memory by every replica, pushed by the store's feed. While the feed is live a check costs
//! a look into memory, or less where there are none; while it is not, each check asks the store; when that is silent too,
//! memory answers for [`Notices::start`]'s `max_staleness` at most. Must never take "could not look" for "nothing there".

mod counters;
mod held;
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
    held::{Held, Said},
};
use crate::{
    clock::Clock,
    domain::{DeviceId, Fact, Identity, Notice, Unavailable, UnixTime},
    store::{Backoff, FeedEvent, Liveness, Store, StoreError, StoreErrorKind, Ticket, Tickets, keys},
};

/// Keys read in one trip of a scan.
const PAGE: usize = 500;

/// Between two looks for what has ended.
const PURGE: Duration = Duration::from_secs(10);

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
    base: Instant,
    /// The last sign of life of the feed while memory was whole, in milliseconds after `base`.
    heard: AtomicU64,
    max_staleness: Duration,
    counters: Counters,
}

impl Notices {
    /// Follows the store's feed until cancelled.
    pub fn start(store: Arc<dyn Store>, clock: Clock, max_staleness: Duration, cancel: CancellationToken) -> Arc<Self> {
        let notices = Arc::new(Self {
            store,
            clock,
            held: Held::default(),
            liveness: Liveness::default(),
            tickets: Tickets::default(),
            whole: AtomicBool::new(false),
            base: Instant::now(),
            heard: AtomicU64::new(0),
            max_staleness,
            counters: Counters::default(),
        });
        let listener = Arc::clone(&notices);
        tokio::spawn(async move { cancel.run_until_cancelled(listener.listen()).await });
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
    /// When the store did not acknowledge it: then nothing was promised.
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
        if said {
            // Whoever has read it and not kept it yet may have read what was there before.
            self.tickets.tell(&key);
        } else if !live {
            // Nothing has changed; all there is will be read.
            return Ok(false);
        }
        // Until the feed has told of it, checks here ask the store.
        self.held.suspect(word.aspect(), kind, id);
        if live {
            self.settle(&[key], false).await?;
        }
        Ok(said)
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

    async fn listen(&self) {
        let mut again = Again::default();
        loop {
            let mut feed = self.store.feed();
            let mut purging = tokio::time::interval(PURGE);
            loop {
                tokio::select! {
                    event = feed.recv() => match event {
                        Some(event) => self.hear(event, &mut again).await,
                        None => break,
                    },
                    () = due(again.at) => self.catch_up(&mut again).await,
                    _ = purging.tick() => {
                        self.held.purge(self.clock.instant());
                        if self.held.room().is_back() && self.whole.load(Ordering::Acquire) {
                            again.at.get_or_insert_with(Instant::now);
                        }
                    }
                }
            }
            // The feed fell behind: nothing that was heard counts any more.
            self.liveness.end();
            again.at = None;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn hear(&self, event: FeedEvent, again: &mut Again) {
        self.liveness.observe(&event);
        match event {
            FeedEvent::Connected { .. } | FeedEvent::Flushed => {
                self.tickets.turn();
                self.liveness.end();
                self.whole.store(false, Ordering::Release);
                self.catch_up(again).await;
            }
            FeedEvent::Changed(changed) => {
                let ours: Vec<_> = changed.into_iter().filter(|key| word::parse_key(key).is_some()).collect();
                for key in &ours {
                    let Some((aspect, kind, id)) = word::parse_key(key) else { continue };
                    self.tickets.tell(key);
                    self.held.suspect(aspect, kind, id);
                }
                // Before all has been read, this store may be one that has lost what is known here.
                let keeps = !self.whole.load(Ordering::Acquire);
                // What cannot be read stays suspect: checks ask for themselves.
                if !ours.is_empty() && self.settle(&ours, keeps).await.is_err() {
                    tracing::debug!("notices could not be read; checks ask the store");
                    again.later();
                }
            }
            FeedEvent::Alive(as_of) if self.whole.load(Ordering::Acquire) => self.mark(as_of),
            FeedEvent::Alive(_) => {}
            // The next connection begins anew; until then nothing makes memory whole.
            FeedEvent::Lost => again.at = None,
        }
    }

    /// Reads everything; then memory is whole again. Where that fails, or the store does not take back what it has lost,
    /// it is tried again, and only the first failure in a row is told of.
    async fn catch_up(&self, again: &mut Again) {
        let (since, first) = (Instant::now(), !again.backoff.is_failing());
        again.at = None;
        let unwritten = match self.scan().await {
            Ok(unwritten) => unwritten,
            // Until then checks ask.
            Err(error) => {
                if first {
                    tracing::warn!(%error, "reading `{}…` failed; trying again", keys::NOTICE);
                }
                return again.later();
            }
        };
        self.whole.store(true, Ordering::Release);
        self.liveness.begin(since);
        self.mark(since);
        if let Some(error) = unwritten {
            self.counters.unwritten.increment();
            if first {
                tracing::error!(%error, "the store does not take back notices that it has lost; trying again");
            }
            again.later();
        } else if again.backoff.worked() {
            tracing::warn!("notices can be read, and written, again");
        }
    }

    /// Gives back why the store does not take what it has lost, if it does not.
    async fn scan(&self) -> Result<Option<StoreError>, StoreError> {
        let (mut cursor, mut found, dropped) = (String::new(), Vec::new(), self.held.room().dropped());
        let mut lost = Vec::new();
        loop {
            let (page, next) = self.store.scan(keys::NOTICE, &cursor, PAGE).await?;
            let ours: Vec<_> = page.into_iter().filter(|key| word::parse_key(key).is_some()).collect();
            lost.extend(self.settle(&ours, true).await?);
            found.extend(ours);
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        lost.extend(self.held.missing(&found, self.clock.instant()));
        // What could not be read, or was overtaken, and whose key nobody found any more.
        for chunk in self.held.suspects().chunks(PAGE) {
            lost.extend(self.settle(chunk, true).await?);
        }
        let unwritten = self.write_back(lost).await?;
        self.held.room().whole(dropped);
        Ok(unwritten)
    }

    /// A store that came back empty, or as it was some time ago, is given back what was said since. What it does not take
    /// stays in memory.
    async fn write_back(&self, lost: Vec<Lost>) -> Result<Option<StoreError>, StoreError> {
        for (key, value, life) in lost {
            // Not `create`: another replica may give back something older first.
            match self.store.raise(&key, &value, life).await {
                Ok(true) => self.counters.restored.increment(),
                Ok(false) => {}
                Err(error) => return Ok(Some(error)),
            }
            self.settle(&[key], true).await?;
        }
        Ok(None)
    }

    /// Takes what the store holds at `found` into memory, where nothing was told of it meanwhile. With `keeps`, something
    /// newer that is known stays there, and is given back: the store has lost it.
    async fn settle(&self, found: &[String], keeps: bool) -> Result<Vec<Lost>, StoreError> {
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
            if let Some(newer) = self.held.put(of, said, keeps.then_some(now), current) {
                lost.push((key.clone(), newer.word.render(newer.at), newer.ends.map(|ends| ends.duration_since(now))));
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

/// What a store has lost: key, value and what is left of its life.
type Lost = (String, String, Option<Duration>);

/// When everything is read again without being told to.
#[derive(Debug, Default)]
struct Again {
    at: Option<Instant>,
    backoff: Backoff,
}

impl Again {
    fn later(&mut self) {
        self.at = Some(Instant::now() + self.backoff.failed());
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
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
