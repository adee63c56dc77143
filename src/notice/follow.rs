//! Follows the store's feed: what is pushed is read at once; after each connection everything is read, and the store is
//! given back what it has lost.
//!
//! One task. Reading everything and giving back run beside the listening, so that neither makes it fall behind.

use std::{collections::HashSet, mem, pin::Pin, sync::atomic::Ordering, time::Duration};

use backon::Retryable as _;
use futures_util::future::join_all;
use tokio::{sync::mpsc, time::Instant};

use super::{Notices, Word, held::Keeps, word};
use crate::store::{Backoff, Entry, FeedEvent, StoreError, keys, patience};

/// Keys read in one trip.
const PAGE: usize = 500;

/// Notices given back at a time. The feed tells of each: it is heard out before the next are.
const GIVEN: usize = 256;

/// Between two looks for what has ended, and for room where there was none.
const PURGE: Duration = Duration::from_secs(10);

type Running<'a, T> = Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>;

/// For ever.
pub(super) async fn follow(notices: &Notices) {
    let (lost, backoff) = (HashSet::new(), Backoff::default());
    let mut follower = Follower { notices, alive: Instant::now(), lost, again: None, backoff, full: false };
    loop {
        follower.listen(notices.store.feed()).await;
        // The feed fell behind: nothing that was heard counts any more.
        notices.liveness.end();
        follower.again = None;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Follower<'a> {
    notices: &'a Notices,
    /// Up to when the feed has told everything.
    alive: Instant,
    /// Keys of what the store has lost and does not have again yet, in an order by chance.
    lost: HashSet<String>,
    /// When what failed is tried again.
    again: Option<Instant>,
    /// Only the first failure in a row is told of.
    backoff: Backoff,
    full: bool,
}

/// What the store was given back; why it did not take all of it, if so.
struct Given {
    done: Vec<String>,
    refused: Option<StoreError>,
}

enum Next {
    Listen,
    ReadAll,
    Stop,
}

impl<'a> Follower<'a> {
    async fn listen(&mut self, mut feed: mpsc::Receiver<FeedEvent>) {
        let (mut reading, mut giving): (Running<'_, _>, Running<'_, _>) = (None, None);
        let mut purging = tokio::time::interval(PURGE);
        loop {
            self.look_for_room();
            if giving.is_none() && self.again.is_none() && feed.is_empty() {
                giving = self.give_back();
            }
            tokio::select! {
                event = feed.recv() => match event {
                    None => return,
                    Some(event) => match self.hear(event).await {
                        Next::Listen => {}
                        Next::ReadAll => reading = self.read_all(),
                        Next::Stop => (reading, giving) = (None, None),
                    },
                },
                read = wait(&mut reading) => {
                    reading = None;
                    self.has_read(read);
                }
                given = wait(&mut giving) => {
                    giving = None;
                    self.has_given(given);
                }
                () = due(self.again), if reading.is_none() => reading = self.try_again(),
                _ = purging.tick() => {
                    let held = &self.notices.held;
                    held.purge(self.notices.clock.instant());
                    if held.room().is_back() && reading.is_none() && self.notices.whole.load(Ordering::Acquire) {
                        reading = self.read_all();
                    }
                }
            }
        }
    }

    async fn hear(&mut self, event: FeedEvent) -> Next {
        let notices = self.notices;
        notices.liveness.observe(&event);
        match event {
            FeedEvent::Connected { .. } | FeedEvent::Flushed => {
                notices.tickets.turn();
                notices.liveness.end();
                notices.whole.store(false, Ordering::Release);
                (self.alive, self.again) = (Instant::now(), None);
                Next::ReadAll
            }
            FeedEvent::Changed(changed) => {
                let ours: Vec<_> = changed.into_iter().filter(|key| word::parse_key(key).is_some()).collect();
                for key in &ours {
                    let Some((aspect, kind, id)) = word::parse_key(key) else { continue };
                    notices.tickets.tell(key);
                    notices.held.suspect(aspect, kind, id);
                }
                if ours.is_empty() {
                    return Next::Listen;
                }
                match notices.settle(&ours, notices.keeps()).await {
                    Ok(lost) => {
                        // Others have given it back.
                        ours.iter().for_each(|key| _ = self.lost.remove(key));
                        self.owe(lost);
                    }
                    // What cannot be read stays suspect: checks ask for themselves.
                    Err(_) => {
                        tracing::debug!("notices could not be read; checks ask the store");
                        self.later();
                    }
                }
                Next::Listen
            }
            FeedEvent::Alive(as_of) => {
                self.alive = as_of;
                if notices.whole.load(Ordering::Acquire) {
                    notices.mark(as_of);
                }
                Next::Listen
            }
            // The next connection begins anew; until then nothing makes memory whole.
            FeedEvent::Lost => {
                self.again = None;
                Next::Stop
            }
        }
    }

    fn read_all(&self) -> Running<'a, Result<Vec<String>, StoreError>> {
        Some(Box::pin(read_all(self.notices)))
    }

    /// Where all has been read before, only what could not be read since is.
    fn try_again(&mut self) -> Running<'a, Result<Vec<String>, StoreError>> {
        self.again = None;
        if self.notices.whole.load(Ordering::Acquire) {
            Some(Box::pin(read_suspects(self.notices, self.notices.keeps())))
        } else {
            self.read_all()
        }
    }

    /// Everything is known, or could not be read: then checks ask until it is.
    fn has_read(&mut self, read: Result<Vec<String>, StoreError>) {
        match read {
            Ok(lost) => {
                self.owe(lost);
                self.notices.whole.store(true, Ordering::Release);
                self.notices.liveness.begin(self.alive);
                self.notices.mark(self.alive);
                self.works();
            }
            Err(error) => {
                if !self.backoff.is_failing() {
                    tracing::warn!(%error, "reading `{}…` failed; trying again", keys::NOTICE);
                }
                self.later();
            }
        }
    }

    /// Some of what the store has lost: as memory has it by then. What it does not take stays there.
    fn give_back(&self) -> Running<'a, Given> {
        let keys: Vec<String> = self.lost.iter().take(GIVEN).cloned().collect();
        if keys.is_empty() {
            return None;
        }
        let notices = self.notices;
        Some(Box::pin(give_back(notices, keys)))
    }

    fn has_given(&mut self, Given { done, refused }: Given) {
        for key in &done {
            self.lost.remove(key);
        }
        self.owe(Vec::new());
        if let Some(error) = refused {
            self.notices.counters.unwritten.increment();
            if !self.backoff.is_failing() {
                tracing::error!(%error, "the store does not take back notices that it has lost; trying again");
            }
            return self.later();
        }
        self.works();
    }

    fn owe(&mut self, lost: Vec<String>) {
        self.lost.extend(lost);
        self.notices.owing.store(!self.lost.is_empty(), Ordering::Release);
    }

    fn later(&mut self) {
        self.again = Some(Instant::now() + self.backoff.failed());
    }

    fn works(&mut self) {
        if self.lost.is_empty() && self.again.is_none() && self.backoff.worked() {
            tracing::warn!("notices can be read, and written, again");
        }
    }

    /// Tells when memory is full, and when it no longer is.
    fn look_for_room(&mut self) {
        let full = self.notices.held.is_full();
        match (mem::replace(&mut self.full, full), full) {
            (false, true) => tracing::error!(
                "memory for notices of security events is full (`revocation.max_entries`): each check asks the store"
            ),
            (true, false) => tracing::warn!("memory holds all notices of security events again"),
            (true, true) | (false, false) => {}
        }
    }
}

/// Reads everything. Gives the keys of what the store has lost.
pub(super) async fn read_all(notices: &Notices) -> Result<Vec<String>, StoreError> {
    let room = notices.held.room();
    // Of what an earlier connection told of, and nobody could read, it is not known whether it was removed.
    let unread = if notices.whole.load(Ordering::Acquire) { notices.keeps() } else { Keeps::All };
    let (mut cursor, mut found, mut lost, dropped) = (String::new(), Vec::new(), Vec::new(), room.dropped());
    loop {
        let page = || notices.store.scan(keys::NOTICE, &cursor, PAGE);
        let (page, next) = page.retry(patience()).when(StoreError::is_transient).await?;
        let ours: Vec<_> = page.into_iter().filter(|key| word::parse_key(key).is_some()).collect();
        lost.extend(settle(notices, &ours, notices.keeps()).await?);
        found.extend(ours);
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    lost.extend(notices.held.missing(&found, notices.clock.instant()));
    lost.extend(read_suspects(notices, unread).await?);
    room.whole(dropped);
    Ok(lost)
}

/// What could not be read, or was overtaken, and whose key nobody found any more.
async fn read_suspects(notices: &Notices, keeps: Keeps) -> Result<Vec<String>, StoreError> {
    let mut lost = Vec::new();
    for chunk in notices.held.suspects().chunks(PAGE) {
        lost.extend(settle(notices, chunk, keeps).await?);
    }
    Ok(lost)
}

/// Reads a page; one that is late is asked for again.
async fn settle(notices: &Notices, page: &[String], keeps: Keeps) -> Result<Vec<String>, StoreError> {
    let settle = || notices.settle(page, keeps);
    settle.retry(patience()).when(StoreError::is_transient).await
}

/// Other replicas give back as well: only what is still less there is written, and each of them begins elsewhere.
async fn give_back(notices: &Notices, keys: Vec<String>) -> Given {
    let entries = match notices.store.read(&keys).await {
        Ok(entries) => entries,
        Err(error) => return Given { done: Vec::new(), refused: Some(error) },
    };
    let given = join_all(keys.iter().zip(entries).map(|(key, entry)| raise(notices, key, entry))).await;
    let (mut done, mut refused) = (Vec::new(), None);
    for (key, given) in keys.into_iter().zip(given) {
        match given {
            Ok(()) => done.push(key),
            Err(error) => refused = Some(error),
        }
    }
    Given { done, refused }
}

/// Not with `create`: another replica may give back something older first.
async fn raise(notices: &Notices, key: &str, entry: Entry) -> Result<(), StoreError> {
    let now = notices.clock.instant();
    // Since it was found to be lost, somebody may have deleted it, or said something newer.
    let known = word::parse_key(key).and_then(|of| Some((of.0, notices.held.said(of, now)?)));
    let Some((aspect, said)) = known else { return Ok(()) };
    let there = entry?.and_then(|held| Word::parse(aspect, &held.value));
    if there.is_some_and(|(word, at)| word.order(at) >= said.word.order(said.at)) {
        return Ok(());
    }
    let life = said.ends.map(|ends| ends.saturating_duration_since(now));
    if notices.store.raise(key, &said.word.render(said.at), life).await? {
        notices.counters.restored.increment();
    }
    Ok(())
}

/// Waits for what is running; for ever where nothing is.
async fn wait<T>(running: &mut Running<'_, T>) -> T {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
