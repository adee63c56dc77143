//! Where what must be shared or survive is kept: revocations, devices, counters, one-time proofs.
//!
//! One interface over three adapters (`memory`, `file`, `redis`); the contract tests run the same cases over each.
//! A failure is a [`StoreError`], never an empty result: "not there" and "could not look" are different answers.

mod backoff;
mod epochs;
pub mod file;
mod gcra;
mod hub;
pub mod keys;
pub mod liveness;
pub mod memory;
pub mod redis;
mod room;
mod table;
mod tickets;
mod watch;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::mpsc, time::Instant};

pub use self::{
    backoff::{Backoff, patience},
    epochs::Epochs,
    liveness::Liveness,
    room::Room,
    tickets::{Ticket, Tickets},
    watch::Watch,
};
use crate::domain::{Unavailable, UnixTime};

/// Fields of a record (a Redis hash).
pub type Record = Vec<(String, String)>;

/// Largest value or field that is read, in octets. A larger one is [`StoreErrorKind::Malformed`] and is not transferred.
pub const MAX_VALUE: usize = 64 * 1024;

/// Most fields of a record that is read whole, and most octets of all of them together.
pub const MAX_FIELDS: usize = 8192;
pub const MAX_WHOLE: usize = 1024 * 1024;

/// Where an embedded store takes the time from: `move || clock.now()`. Redis keeps its own.
pub type Now = Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// A value, and what is left of its life (`None`: it has no end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub value: Vec<u8>,
    pub life: Option<Duration>,
}

/// What stands at one key: `None`, nothing. A key of another type or too large is an error of its own.
pub type Entry = Result<Option<Held>, StoreError>;

/// One page of a scan: keys, and the cursor of the next page if there is one.
pub type Keys = (Vec<String>, Option<String>);

/// What [`Store::widen`] left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widened {
    /// The value stands; otherwise one that says more.
    pub set: bool,
    /// What is left of the life of what stands; `None`: it has no end.
    pub life: Option<Duration>,
    /// Whether a replica of the store holds it. `None`: there are none, or it is not known. It counts in any case.
    pub replicated: Option<bool>,
}

/// A key-value store with lifetimes, records, and a feed of changes.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// What stands at `keys`, in their order and in one round trip.
    async fn read(&self, keys: &[String]) -> Result<Vec<Entry>, StoreError>;

    /// Sets a value, replacing whatever was there; `life` of `None` keeps it until it is deleted.
    async fn write(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<(), StoreError>;

    /// As [`Self::write`], for a key that only this process writes. Says what stood there.
    async fn swap(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<Option<Vec<u8>>, StoreError> {
        let before = self.read(&[key.to_owned()]).await?.pop().transpose()?.flatten();
        self.write(key, value, life).await?;
        Ok(before.map(|held| held.value))
    }

    /// Sets a value only where there is nothing, in one atomic step. Says whether it did.
    async fn create(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<bool, StoreError>;

    /// Sets `value`, which begins with a number, unless what is there begins with a larger one; in one atomic step. What
    /// begins with no number stays. The life of what is there is never shortened. Says whether it was set: events that
    /// arrive in any order, and on any replica, leave what the newest of them says.
    async fn raise(&self, key: &str, value: &str, life: Option<Duration>) -> Result<bool, StoreError>;

    /// As [`Self::raise`]; then waits a moment until a replica of the store holds it too, so that a failover does not lose it.
    /// Says also whether one does; `None`: there are none, or it is not known. It counts in any case.
    async fn raise_replicated(
        &self,
        key: &str,
        value: &str,
        life: Option<Duration>,
    ) -> Result<(bool, Option<bool>), StoreError> {
        Ok((self.raise(key, value, life).await?, None))
    }

    /// Sets `value` unless what is there says more, in one atomic step: a larger number, or no number where `value` is one.
    /// Whichever stays has the longer life of the two. Then waits a moment until a replica of the store holds it too, so
    /// that a failover does not lose it. A revocation is written so: none narrows or shortens another.
    async fn widen(&self, key: &str, value: &str, life: Option<Duration>) -> Result<Widened, StoreError>;

    /// Puts `new` (`None`: nothing) where exactly `old` stands, for what is left of its life, in one atomic step. Says whether
    /// it did: of many who try, one does.
    async fn exchange(&self, key: &str, old: &[u8], new: Option<&[u8]>) -> Result<bool, StoreError>;

    /// Sets `new` in place of `old`, for a life of its own, in one atomic step. Says whether `old` was there.
    async fn replace(&self, key: &str, old: &[u8], new: &[u8], life: Duration) -> Result<bool, StoreError>;

    /// Removes keys of any type. Says how many were there.
    async fn delete(&self, keys: &[String]) -> Result<u64, StoreError>;

    /// The named fields of a record that it has, in one round trip. `None` where there is no record.
    async fn record(&self, key: &str, fields: &[&str]) -> Result<Option<Record>, StoreError>;

    /// Every field of a record, in no order. More than [`MAX_FIELDS`] or [`MAX_WHOLE`] is malformed, and not transferred.
    async fn whole_record(&self, key: &str) -> Result<Option<Record>, StoreError>;

    /// Sets fields of a record and removes others, in one atomic step.
    async fn write_record(&self, key: &str, set: &[(&str, &str)], remove: &[&str]) -> Result<(), StoreError>;

    /// As [`Self::write_record`], but only where there is a record in which these fields are as `held`; in one atomic step. Says
    /// whether it was so.
    async fn amend_record(
        &self,
        key: &str,
        held: &[(&str, &str)],
        set: &[(&str, &str)],
        remove: &[&str],
    ) -> Result<bool, StoreError>;

    /// Adds to integer fields of a record (missing counts as 0) and sets its life, in one atomic step.
    async fn add(&self, key: &str, deltas: &[(&str, i64)], life: Option<Duration>) -> Result<Vec<i64>, StoreError>;

    /// Sets `field` of a record to `value`, a space and the next number that `counter`, another of its fields, counts up to,
    /// unless the field is there; and sets the record's life. In one atomic step: whoever reads a number
    /// reads every smaller one that was not removed.
    async fn enlist(
        &self,
        key: &str,
        field: &str,
        counter: &str,
        value: &str,
        life: Option<Duration>,
    ) -> Result<(), StoreError>;

    /// Keys that begin with `prefix` (taken literally), a page of about `count` at a time. An empty cursor begins.
    /// A key may come twice; one that is there from beginning to end comes at least once.
    async fn scan(&self, prefix: &str, cursor: &str, count: usize) -> Result<Keys, StoreError>;

    /// Takes `count` tokens, all or none, by the generic cell rate algorithm, in one atomic step. None of them (0) is a
    /// look: it says what remains, and changes nothing.
    async fn take(&self, key: &str, rate: Rate, count: u32) -> Result<Taken, StoreError>;

    /// A new feed of changes under the prefixes in [`keys::FEED_PREFIXES`]. See [`FeedEvent`] for what a listener may
    /// rely on. A listener that falls too far behind finds its feed ended: what it knows is void, and it asks again.
    fn feed(&self) -> mpsc::Receiver<FeedEvent>;

    /// What the store holds is older than what it held, or another's: where the feed could not tell, it begins anew, for
    /// every listener.
    fn doubt(&self) {}

    /// The clock that all replicas of a shared store have in common. `None`: there is none but each process's own.
    async fn now(&self) -> Result<Option<UnixTime>, StoreError> {
        Ok(None)
    }

    /// Settings of the server that could lose revocations, in words for a log line.
    async fn warnings(&self) -> Result<Vec<String>, StoreError>;
}

/// What the URL of a Redis says of how safe the way there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// Whether any server is on another machine.
    pub remote: bool,
    pub tls: bool,
    /// Whether it holds a password.
    pub login: bool,
}

/// Reads the URL of a Redis as opening it does, and opens nothing. Files that it names are not looked at.
///
/// # Errors
///
/// Why it cannot be meant; never a password.
pub fn redis_url(url: &str) -> Result<RedisUrl, Cow<'static, str>> {
    redis::inspect(url)
}

/// Whether the files that the URL of a Redis names can be used.
///
/// # Errors
///
/// Which cannot, and why.
pub fn redis_files(url: &str) -> Result<(), Cow<'static, str>> {
    redis::inspect_files(url)
}

/// What a feed tells its listener, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// Listening has begun: changes from here on are told. The listener now scans; each connection starts a new epoch.
    /// `patience`: how long after the last sign of life the feed may be believed; `None`: it cannot go silent.
    Connected { epoch: u64, patience: Option<Duration> },
    /// These keys were written, deleted or have expired. Says "changed", never how.
    Changed(Vec<String>),
    /// Everything may have changed (`FLUSHALL`).
    Flushed,
    /// Everything that had happened at this time has been told.
    Alive(Instant),
    /// The connection is gone; it is being sought.
    Lost,
}

/// A rate: `limit` requests at once after a rest, and one more each `window / limit`. In any time `t` at most
/// `limit + limit * t / window` pass: fewer than twice `limit` in less than a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub limit: u32,
    pub window: Duration,
}

impl Rate {
    /// Time in which one token comes back, in microseconds; at least one.
    const fn interval(self) -> u64 {
        let limit = if self.limit == 0 { 1 } else { self.limit as u64 };
        let interval = micros(self.window) / limit;
        if interval == 0 { 1 } else { interval }
    }
}

const fn micros(span: Duration) -> u64 {
    let micros = span.as_micros();
    if micros > u64::MAX as u128 { u64::MAX } else { micros as u64 }
}

/// What [`Store::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub allowed: bool,
    pub remaining: u32,
    /// How long until one more would be let through; zero when this one was.
    pub retry_after: Duration,
    /// How long until the limit is whole again.
    pub reset: Duration,
}

/// Why a store did not answer, or not with what was asked for.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind}: {detail}")]
pub struct StoreError {
    pub kind: StoreErrorKind,
    /// For logs. Never a value, never a credential.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreErrorKind {
    /// No connection, or it broke: may pass.
    #[error("store unreachable")]
    Unreachable,
    #[error("store timed out")]
    Timeout,
    /// Wrong type, wrong shape or too large: does not pass by itself.
    #[error("record malformed")]
    Malformed,
    /// The server refuses: no permission, read-only, out of memory.
    #[error("store refused")]
    Refused,
    /// The cursor of a scan is none that a scan gave.
    #[error("no cursor of a scan")]
    Cursor,
}

impl StoreError {
    pub fn new(kind: StoreErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// Whether trying again later may help.
    pub const fn is_transient(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unreachable | StoreErrorKind::Timeout)
    }

    /// What this failure means for a fact.
    pub const fn unavailable(&self) -> Unavailable {
        match self.kind {
            StoreErrorKind::Unreachable | StoreErrorKind::Refused | StoreErrorKind::Cursor => Unavailable::Store,
            StoreErrorKind::Timeout => Unavailable::Timeout,
            StoreErrorKind::Malformed => Unavailable::Malformed,
        }
    }
}
