//! Sessions for administration: a list of what the store holds, and an end by an operator.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use backon::Retryable as _;
use tokio::time::Instant;

use super::{Sessions, key::SessionKey, live::Live, record::Session};
use crate::store::{StoreError, keys, patience};

/// Keys looked at in one trip, where all are looked through.
const PAGE: usize = 1000;

/// Between two counts of those in memory.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Which sessions; what is `None` is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub subject: Option<String>,
    pub issuer: Option<String>,
    /// `sid`, or the id that stands for one.
    pub id: Option<String>,
    /// Also those that were ended.
    pub ended: bool,
}

impl Filter {
    fn matches(&self, session: &Session) -> bool {
        let is = |wanted: &Option<String>, own: &str| wanted.as_ref().is_none_or(|wanted| wanted == own);
        is(&self.subject, session.subject.as_str())
            && is(&self.issuer, session.issuer.as_str())
            && is(&self.id, session.id.as_str())
            && (self.ended || session.ended.is_none())
    }
}

/// Sessions by level of trust, and those that were ended.
pub(super) type Census = BTreeMap<&'static str, u64>;

#[derive(Debug, Default)]
pub(super) struct LastCensus {
    at: Option<Instant>,
    census: Census,
}

/// A session and its key.
pub type Listed = (SessionKey, Session);

impl Sessions {
    /// A page of what the store holds, and the cursor of the next. What cannot be read is left out, and counted.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn list(
        &self,
        filter: &Filter,
        cursor: &str,
        count: usize,
    ) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        let (found, next) = self.store.scan(keys::SESSION, cursor, count).await?;
        let records = self.store.read(&found).await?;
        let mut listed = Vec::with_capacity(found.len());
        for (key, record) in found.iter().zip(records) {
            let Some(key) = key.strip_prefix(keys::SESSION).and_then(SessionKey::parse) else { continue };
            match record {
                Ok(Some(held)) => match Session::parse(&held.value) {
                    Some(session) => listed.push((key, session)),
                    None => self.counters.malformed.increment(),
                },
                Ok(None) => {}
                Err(_) => self.counters.malformed.increment(),
            }
        }
        listed.retain(|(_, session)| filter.matches(session));
        Ok((listed, next))
    }

    /// Every session that matches, up to about `most`. A page that is late is asked for again.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn find(&self, filter: &Filter, most: usize) -> Result<Vec<Listed>, StoreError> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = || self.list(filter, &cursor, PAGE);
            let (found, next) = page.retry(patience()).when(StoreError::is_transient).await?;
            all.extend(found);
            match next {
                Some(next) if all.len() < most => cursor = next,
                _ => break,
            }
        }
        // A scan may tell of a key twice.
        all.sort_unstable_by_key(|(key, _)| *key);
        all.dedup_by_key(|(key, _)| *key);
        Ok(all)
    }

    /// How many sessions are in memory here, by level of trust, and `ended`. Counted once a second, however many ask: it takes
    /// a look at each of them. Who asks while they are counted hears the count before.
    pub fn census(&self) -> Census {
        let mut counted = self.counted.lock();
        if counted.at.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            counted.at = Some(Instant::now());
            drop(counted);
            let census = self.count_all();
            counted = self.counted.lock();
            counted.census = census;
        }
        counted.census.clone()
    }

    fn count_all(&self) -> Census {
        let mut census = BTreeMap::new();
        for (_, live) in &self.known {
            let name = live.with(|held| match &held.session.ended {
                Some(_) => "ended",
                None => held.session.level.as_str(),
            });
            *census.entry(name).or_default() += 1;
        }
        census
    }

    /// Ends a session of the list, in the store and here. The notice that makes it final is the caller's to write.
    ///
    /// # Errors
    ///
    /// When the store did not acknowledge it.
    pub async fn end(&self, (key, session): Listed, why: &str) -> Result<(), StoreError> {
        let live = self.known.get(&key).unwrap_or_else(|| Arc::new(Live::new(key, session)));
        live.with(|held| {
            let why = held.session.end(|| why.into(), self.clock.now());
            self.ended(&held.session, &why, true);
        });
        self.write_record(&live, true).await
    }
}
