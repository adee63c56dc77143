//! A store for one machine: everything in memory, each change also in a file (redb) before it is acknowledged.
//!
//! Survives `kill -9`: what was acknowledged is there again. Counters of rates are not kept. One process at a time.
//! While the file cannot be written, changes are refused; what memory took on all the same is written when it can be.

mod journal;
#[cfg(test)]
mod tests;

use std::{fmt, fs, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use self::journal::{Change, Journal};
use super::{
    Entry, FeedEvent, Keys, Now, Rate, Record, Store, StoreError, StoreErrorKind, Taken, Widened,
    hub::Hub,
    table::{Data, Item, Table},
};
use crate::domain::UnixTime;

/// The file within the folder that the URL names.
const FILE: &str = "countersign.redb";
/// Octets of the file's pages in memory, beside what is remembered of it: it is read once, at the start.
const CACHE: usize = 16 * 1024 * 1024;

/// Key; then its end in milliseconds (0: none) and its data as JSON.
const ITEMS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("items");

/// Changes that wait to be written; beyond that, writers are refused.
const QUEUE: usize = 4096;

pub struct File {
    table: Mutex<Shelf>,
    hub: Hub,
    times: Times,
    journal: mpsc::Sender<Change>,
    failing: Failing,
}

/// Lives in memory go by a clock that does not step. The file outlives it, so what stands there goes by the wall clock.
struct Times {
    steady: Now,
    wall: Now,
}

impl Times {
    /// As it is written.
    fn written(&self, ends: UnixTime) -> UnixTime {
        // Never 0, which is "none".
        (self.wall)().plus(ends.since((self.steady)())).max(UnixTime::from_millis(1))
    }

    /// As it was written.
    fn read(&self, ends: UnixTime) -> UnixTime {
        (self.steady)().plus(ends.since((self.wall)()))
    }
}

/// Why the file cannot be written, while it cannot.
type Failing = Arc<Mutex<Option<String>>>;

/// Opens the file, at the start and again after a write that failed.
type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

#[derive(Default)]
struct Shelf {
    table: Table,
    /// Keys that have ended and are still in the file; the next change takes them with it.
    ended: Vec<String>,
}

impl File {
    /// Opens the store in `folder`, which is made if it is not there. Lives are measured by `steady`, which must not step
    /// (see `Clock::steady`), and written down by the wall clock.
    ///
    /// # Errors
    ///
    /// When the folder or file cannot be used; when another process uses it.
    pub fn open(
        folder: &Path,
        steady: impl Fn() -> UnixTime + Send + Sync + 'static,
        wall: impl Fn() -> UnixTime + Send + Sync + 'static,
    ) -> Result<Arc<Self>, StoreError> {
        fs::create_dir_all(folder).map_err(|error| refused(folder, &error))?;
        let path = folder.join(FILE);
        let file = path.clone();
        let open: Open = Box::new(move || Builder::new().set_cache_size(CACHE).create(&file));
        let times = Times { steady: Arc::new(steady), wall: Arc::new(wall) };
        let store = Self::over(open, times).map_err(|error| match error.downcast_ref() {
            Some(DatabaseError::DatabaseAlreadyOpen) => {
                let text = format!("`{}` is in use by another process; several replicas need Redis", path.display());
                StoreError::new(StoreErrorKind::Refused, text)
            }
            _ => refused(&path, &*error),
        })?;
        restrict(&path)?;
        Ok(store)
    }

    fn over(open: Open, times: Times) -> Result<Arc<Self>, Problem> {
        let database = open()?;
        let table = load(&database, &times)?;
        let (journal, changes) = mpsc::channel(QUEUE);
        let failing = Failing::default();
        let keeper = Journal::new(database, open, Arc::clone(&failing));
        // Ends, and closes the file, when the store is dropped.
        std::thread::Builder::new().name("store-file".into()).spawn(move || keeper.keep(changes))?;
        let table = Mutex::new(Shelf { table, ended: Vec::new() });
        Ok(Arc::new(Self { table, hub: Hub::in_process(), times, journal, failing }))
    }

    /// Runs an operation that changes nothing but what has ended.
    fn look<T>(&self, operation: impl FnOnce(&mut Table, UnixTime) -> T) -> T {
        let mut shelf = self.table.lock();
        let Shelf { table, ended } = &mut *shelf;
        let now = (self.times.steady)();
        table.expire(now);
        let result = operation(table, now);
        let keys = table.changes();
        ended.extend(keys.iter().filter(|key| table.item(key).is_none()).cloned());
        self.hub.changed(keys);
        result
    }

    /// Runs an operation, and returns when what it changed is on the disk.
    async fn change<T>(&self, operation: impl FnOnce(&mut Table, UnixTime) -> T) -> Result<T, StoreError> {
        let full = |_| StoreError::new(StoreErrorKind::Refused, "too many changes wait to be written");
        let room = self.journal.try_reserve().map_err(full)?;
        let (written, on_disk) = oneshot::channel();
        let result = {
            let mut shelf = self.table.lock();
            let Shelf { table, ended } = &mut *shelf;
            let now = (self.times.steady)();
            table.expire(now);
            let result = operation(table, now);
            let keys = table.changes();
            ended.extend(keys.iter().cloned());
            let items = ended.drain(..).map(|key| (self.as_written(table.item(&key)), key));
            let items = items.map(|(item, key)| (key, item)).collect();
            // Under the lock, so that the file sees changes in the order in which memory does.
            room.send(Change { items, written });
            self.hub.changed(keys);
            result
        };
        let lost = || StoreError::new(StoreErrorKind::Refused, "the file is not written any more");
        on_disk.await.map_err(|_| lost())??;
        Ok(result)
    }

    fn as_written(&self, item: Option<&Item>) -> Option<Item> {
        let Item { data, ends } = item?;
        Some(Item { data: data.clone(), ends: ends.map(|ends| self.times.written(ends)) })
    }
}

/// What redb says, or the machine.
type Problem = Box<dyn std::error::Error + Send + Sync>;

fn load(database: &Database, times: &Times) -> Result<Table, Problem> {
    let transaction = database.begin_write()?;
    transaction.open_table(ITEMS)?;
    transaction.commit()?;
    let mut table = Table::default();
    for row in database.begin_read()?.open_table(ITEMS)?.iter()? {
        let (key, value) = row?;
        let (ends, data) = value.value();
        let data: Data = serde_json::from_slice(data)?;
        let ends = (ends != 0).then(|| times.read(UnixTime::from_millis(ends)));
        table.restore(key.value().to_owned(), Item { data, ends });
    }
    Ok(table)
}

/// Revocations and device records are nobody else's business.
fn restrict(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &dyn fmt::Display) -> StoreError {
    StoreError::new(StoreErrorKind::Refused, format!("`{}`: {error}", path.display()))
}

#[async_trait]
impl Store for File {
    async fn read(&self, keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        Ok(self.look(|table, now| keys.iter().map(|key| table.read(key, now)).collect()))
    }

    async fn write(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<(), StoreError> {
        self.change(|table, now| table.write(key, value, life, now)).await
    }

    async fn create(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<bool, StoreError> {
        self.change(|table, now| table.create(key, value, life, now)).await
    }

    async fn raise(&self, key: &str, value: &str, life: Option<Duration>) -> Result<bool, StoreError> {
        self.change(|table, now| table.raise(key, value, life, now)).await?
    }

    async fn widen(&self, key: &str, value: &str, life: Option<Duration>) -> Result<Widened, StoreError> {
        self.change(|table, now| table.widen(key, value, life, now)).await?
    }

    async fn exchange(&self, key: &str, old: &[u8], new: Option<&[u8]>) -> Result<bool, StoreError> {
        self.change(|table, _| table.exchange(key, old, new)).await?
    }

    async fn replace(&self, key: &str, old: &[u8], new: &[u8], life: Duration) -> Result<bool, StoreError> {
        self.change(|table, now| table.replace(key, old, new, life, now)).await
    }

    async fn delete(&self, keys: &[String]) -> Result<u64, StoreError> {
        self.change(|table, _| keys.iter().map(|key| u64::from(table.delete(key))).sum()).await
    }

    async fn record(&self, key: &str, fields: &[&str]) -> Result<Option<Record>, StoreError> {
        self.look(|table, _| table.record(key, fields))
    }

    async fn whole_record(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.look(|table, _| table.whole_record(key))
    }

    async fn write_record(&self, key: &str, set: &[(&str, &str)], remove: &[&str]) -> Result<(), StoreError> {
        self.change(|table, _| table.write_record(key, set, remove)).await?
    }

    async fn amend_record(
        &self,
        key: &str,
        held: &[(&str, &str)],
        set: &[(&str, &str)],
        remove: &[&str],
    ) -> Result<bool, StoreError> {
        self.change(|table, _| table.amend_record(key, held, set, remove)).await?
    }

    async fn add(&self, key: &str, deltas: &[(&str, i64)], life: Option<Duration>) -> Result<Vec<i64>, StoreError> {
        self.change(|table, now| table.add(key, deltas, life, now)).await?
    }

    async fn enlist(
        &self,
        key: &str,
        field: &str,
        counter: &str,
        value: &str,
        life: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.change(|table, now| table.enlist(key, (field, counter), value, life, now)).await?
    }

    async fn scan(&self, prefix: &str, cursor: &str, count: usize) -> Result<Keys, StoreError> {
        self.look(|table, _| table.scan(prefix, cursor, count))
    }

    async fn take(&self, key: &str, rate: Rate, count: u32) -> Result<Taken, StoreError> {
        // In memory only: a flush to the disk for each request would cost more than a crash that forgets a window.
        self.look(|table, now| table.take(key, rate, count, now))
    }

    fn feed(&self) -> mpsc::Receiver<FeedEvent> {
        self.hub.listen()
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        let failing = self.failing.lock().clone();
        Ok(failing.map(|why| format!("its file cannot be written, changes are refused: {why}")).into_iter().collect())
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("File")
    }
}
