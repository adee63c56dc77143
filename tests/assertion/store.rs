//! A store that can be emptied and switched off. Only what signing keys need works.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use countersign::store::{
    Entry, FeedEvent, Held, Keys, Rate, Record, Store, StoreError, StoreErrorKind, Taken, Widened,
};
use tokio::sync::mpsc;

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) values: Mutex<HashMap<String, Vec<u8>>>,
    pub(crate) away: AtomicBool,
    /// Nothing is written.
    pub(crate) full: AtomicBool,
}

impl Shelf {
    fn reach(&self) -> Result<(), StoreError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(StoreError::new(StoreErrorKind::Unreachable, "switched off")),
            false => Ok(()),
        }
    }
}

fn unused<T>() -> Result<T, StoreError> {
    Err(StoreError::new(StoreErrorKind::Refused, "not needed here"))
}

#[async_trait]
impl Store for Shelf {
    async fn read(&self, keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        self.reach()?;
        let values = self.values.lock().unwrap();
        Ok(keys.iter().map(|key| Ok(values.get(key).map(|value| Held { value: value.clone(), life: None }))).collect())
    }

    async fn create(&self, key: &str, value: &[u8], _: Option<Duration>) -> Result<bool, StoreError> {
        self.reach()?;
        if self.full.load(Ordering::Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Refused, "out of memory"));
        }
        let mut values = self.values.lock().unwrap();
        let free = !values.contains_key(key);
        values.entry(key.to_owned()).or_insert_with(|| value.to_vec());
        Ok(free)
    }

    async fn write(&self, _: &str, _: &[u8], _: Option<Duration>) -> Result<(), StoreError> {
        unused()
    }

    async fn raise(&self, _: &str, _: &str, _: Option<Duration>) -> Result<bool, StoreError> {
        unused()
    }

    async fn widen(&self, _: &str, _: &str, _: Option<Duration>) -> Result<Widened, StoreError> {
        unused()
    }

    async fn exchange(&self, _: &str, _: &[u8], _: Option<&[u8]>) -> Result<bool, StoreError> {
        unused()
    }

    async fn replace(&self, _: &str, _: &[u8], _: &[u8], _: Duration) -> Result<bool, StoreError> {
        unused()
    }

    async fn delete(&self, _: &[String]) -> Result<u64, StoreError> {
        unused()
    }

    async fn record(&self, _: &str, _: &[&str]) -> Result<Option<Record>, StoreError> {
        unused()
    }

    async fn whole_record(&self, _: &str) -> Result<Option<Record>, StoreError> {
        unused()
    }

    async fn write_record(&self, _: &str, _: &[(&str, &str)], _: &[&str]) -> Result<(), StoreError> {
        unused()
    }

    async fn amend_record(
        &self,
        _: &str,
        _: &[(&str, &str)],
        _: &[(&str, &str)],
        _: &[&str],
    ) -> Result<bool, StoreError> {
        unused()
    }

    async fn add(&self, _: &str, _: &[(&str, i64)], _: Option<Duration>) -> Result<Vec<i64>, StoreError> {
        unused()
    }

    async fn enlist(&self, _: &str, _: &str, _: &str, _: &str, _: Option<Duration>) -> Result<(), StoreError> {
        unused()
    }

    async fn scan(&self, _: &str, _: &str, _: usize) -> Result<Keys, StoreError> {
        unused()
    }

    async fn take(&self, _: &str, _: Rate, _: u32) -> Result<Taken, StoreError> {
        unused()
    }

    fn feed(&self) -> mpsc::Receiver<FeedEvent> {
        mpsc::channel(1).1
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        unused()
    }
}
