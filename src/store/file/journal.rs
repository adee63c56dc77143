//! Writes the store's changes to its file, many in one transaction, in a thread of its own.
//!
//! redb takes nothing more once one of its writes has failed (a full disk): the file is then opened anew, again and again,
//! until it can be written. Until then changes are refused at once, and kept for the file all the same, since memory has
//! them already: what is refused must not bite until the next start alone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use redb::Database;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use super::{Failing, ITEMS, Item, Open, Problem, StoreError, StoreErrorKind, UnixTime};

/// Changes written in one transaction, and so with one flush to the disk.
const BATCH: usize = 256;

/// Between two attempts at a file that cannot be written: to open it is to read it whole.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a change may lie there unseen while the file cannot be written.
const PAUSE: Duration = Duration::from_millis(10);

/// Keys with what stands there now (`None`: nothing), and whom to tell that it is on the disk.
pub(super) struct Change {
    pub(super) items: Vec<(String, Option<Item>)>,
    pub(super) written: oneshot::Sender<Result<(), StoreError>>,
}

pub(super) struct Journal {
    /// `None` after a write that failed.
    database: Option<Database>,
    open: Open,
    /// What memory holds and the file does not.
    owed: BTreeMap<String, Option<Item>>,
    outage: Option<Outage>,
    failing: Failing,
}

struct Outage {
    error: StoreError,
    /// When the file is tried again.
    again: Instant,
}

impl Journal {
    pub(super) fn new(database: Database, open: Open, failing: Failing) -> Self {
        Self { database: Some(database), open, owed: BTreeMap::new(), outage: None, failing }
    }

    /// Writes changes until the store is dropped, as many in one transaction as are there.
    pub(super) fn keep(mut self, mut changes: mpsc::Receiver<Change>) {
        let (mut batch, mut waiting) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        while self.wait(&mut changes, &mut batch) {
            for Change { items, written } in batch.drain(..) {
                self.owed.extend(items);
                waiting.push(written);
            }
            let result = self.settle();
            for written in waiting.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = written.send(result.clone());
            }
        }
        if !self.owed.is_empty() {
            self.outage = None;
            // The last attempt; why it failed was said when it began to.
            let _ = self.settle();
        }
    }

    /// Waits for changes, during an outage no longer than until the file is tried again. `false`: the store was dropped.
    fn wait(&self, changes: &mut mpsc::Receiver<Change>, batch: &mut Vec<Change>) -> bool {
        let Some(outage) = &self.outage else { return changes.blocking_recv_many(batch, BATCH) > 0 };
        while batch.len() < BATCH {
            match changes.try_recv() {
                Ok(change) => batch.push(change),
                Err(TryRecvError::Empty) if batch.is_empty() && Instant::now() < outage.again => pause(),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return !batch.is_empty(),
            }
        }
        true
    }

    /// Writes what is owed, unless that failed a moment ago.
    fn settle(&mut self) -> Result<(), StoreError> {
        if let Some(outage) = self.outage.as_ref().filter(|outage| Instant::now() < outage.again) {
            return Err(outage.error.clone());
        }
        match self.attempt() {
            Ok(()) => {
                if self.outage.take().is_some() {
                    tracing::warn!(
                        keys = self.owed.len(),
                        "the store's file is written again, and what it lacked is in it"
                    );
                    *self.failing.lock() = None;
                }
                self.owed.clear();
                Ok(())
            }
            Err(error) => Err(self.fail(&*error)),
        }
    }

    fn attempt(&mut self) -> Result<(), Problem> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)()?,
        };
        write(&database, &self.owed)?;
        self.database = Some(database);
        Ok(())
    }

    fn fail(&mut self, error: &dyn std::fmt::Display) -> StoreError {
        if self.failing.lock().replace(error.to_string()).is_none() {
            tracing::error!(%error, "the store's file cannot be written: changes are refused until it can");
        }
        let error = StoreError::new(StoreErrorKind::Refused, format!("file: {error}"));
        self.outage = Some(Outage { error: error.clone(), again: Instant::now() + AGAIN });
        error
    }
}

#[expect(clippy::disallowed_methods, reason = "the journal's own thread, which no runtime waits for")]
fn pause() {
    std::thread::sleep(PAUSE);
}

fn write(database: &Database, owed: &BTreeMap<String, Option<Item>>) -> Result<(), Problem> {
    let transaction = database.begin_write()?;
    {
        let mut items = transaction.open_table(ITEMS)?;
        for (key, item) in owed {
            match item {
                Some(item) => {
                    let ends = item.ends.map_or(0, UnixTime::as_millis);
                    items.insert(key.as_str(), (ends, serde_json::to_vec(&item.data)?.as_slice()))?;
                }
                None => drop(items.remove(key.as_str())?),
            }
        }
    }
    Ok(transaction.commit()?)
}
