//! A store that lives and dies with the process: for a demo, for tests, and for a look around.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Entry, FeedEvent, Keys, Now, Rate, Record, Store, StoreError, Taken, Widened, hub::Hub, table::Table};
use crate::domain::UnixTime;

pub struct Memory {
    table: Mutex<Table>,
    hub: Hub,
    now: Now,
}

impl Memory {
    /// Lives are measured by `now`, which must not step: see `Clock::steady`.
    pub fn new(now: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        Self { table: Mutex::default(), hub: Hub::in_process(), now: std::sync::Arc::new(now) }
    }

    /// Runs one operation under the lock, and tells the feed what it changed before anybody else sees it.
    fn with<T>(&self, operation: impl FnOnce(&mut Table, UnixTime) -> T) -> T {
        let mut table = self.table.lock();
        let now = (self.now)();
        table.expire(now);
        let result = operation(&mut table, now);
        self.hub.changed(table.changes());
        result
    }
}

#[async_trait]
impl Store for Memory {
    async fn read(&self, keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        Ok(self.with(|table, now| keys.iter().map(|key| table.read(key, now)).collect()))
    }

    async fn write(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<(), StoreError> {
        self.with(|table, now| table.write(key, value, life, now));
        Ok(())
    }

    async fn create(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<bool, StoreError> {
        Ok(self.with(|table, now| table.create(key, value, life, now)))
    }

    async fn raise(&self, key: &str, value: &str, life: Option<Duration>) -> Result<bool, StoreError> {
        self.with(|table, now| table.raise(key, value, life, now))
    }

    async fn widen(&self, key: &str, value: &str, life: Option<Duration>) -> Result<Widened, StoreError> {
        self.with(|table, now| table.widen(key, value, life, now))
    }

    async fn exchange(&self, key: &str, old: &[u8], new: Option<&[u8]>) -> Result<bool, StoreError> {
        self.with(|table, _| table.exchange(key, old, new))
    }

    async fn replace(&self, key: &str, old: &[u8], new: &[u8], life: Duration) -> Result<bool, StoreError> {
        Ok(self.with(|table, now| table.replace(key, old, new, life, now)))
    }

    async fn delete(&self, keys: &[String]) -> Result<u64, StoreError> {
        Ok(self.with(|table, _| keys.iter().map(|key| u64::from(table.delete(key))).sum()))
    }

    async fn record(&self, key: &str, fields: &[&str]) -> Result<Option<Record>, StoreError> {
        self.with(|table, _| table.record(key, fields))
    }

    async fn whole_record(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.with(|table, _| table.whole_record(key))
    }

    async fn write_record(&self, key: &str, set: &[(&str, &str)], remove: &[&str]) -> Result<(), StoreError> {
        self.with(|table, _| table.write_record(key, set, remove))
    }

    async fn amend_record(
        &self,
        key: &str,
        held: &[(&str, &str)],
        set: &[(&str, &str)],
        remove: &[&str],
    ) -> Result<bool, StoreError> {
        self.with(|table, _| table.amend_record(key, held, set, remove))
    }

    async fn add(&self, key: &str, deltas: &[(&str, i64)], life: Option<Duration>) -> Result<Vec<i64>, StoreError> {
        self.with(|table, now| table.add(key, deltas, life, now))
    }

    async fn enlist(
        &self,
        key: &str,
        field: &str,
        counter: &str,
        value: &str,
        life: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.with(|table, now| table.enlist(key, (field, counter), value, life, now))
    }

    async fn scan(&self, prefix: &str, cursor: &str, count: usize) -> Result<Keys, StoreError> {
        self.with(|table, _| table.scan(prefix, cursor, count))
    }

    async fn take(&self, key: &str, rate: Rate, count: u32) -> Result<Taken, StoreError> {
        self.with(|table, now| table.take(key, rate, count, now))
    }

    fn feed(&self) -> mpsc::Receiver<FeedEvent> {
        self.hub.listen()
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec!["`memory://`: revocations and devices die with this process".to_owned()])
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}
