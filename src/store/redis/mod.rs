//! Redis as the store: single, behind Sentinel, or a Cluster; with TLS and an ACL user where the URL says so.
//!
//! Commands go over one multiplexed connection (or the cluster's client), the feed over connections of its own. Values
//! over the limit are never transferred, and nothing here ever waits longer than the configured time for an answer.

mod address;
mod feed;
mod files;
mod link;
mod replication;
mod reply;
mod scripts;
mod topology;
mod warnings;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use redis::{
    Cmd, ScriptInvocation, Value,
    aio::ConnectionLike as _,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
    cmd,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{
    address::{Address, Kind},
    link::{Client, Connection, Link},
    replication::Replication,
    reply::{integer, time, unexpected},
    topology::Topology,
};
use super::{
    Entry, FeedEvent, Keys, MAX_FIELDS, MAX_VALUE, MAX_WHOLE, Rate, Record, RedisUrl, Store, StoreError,
    StoreErrorKind, Taken, Widened, hub::Hub, table::LONGEST_NUMBER,
};
use crate::domain::UnixTime;

/// See [`super::redis_url`].
pub(super) fn inspect(url: &str) -> Result<RedisUrl, Cow<'static, str>> {
    Address::inspect(url)
}

/// See [`super::redis_files`].
pub(super) fn inspect_files(url: &str) -> Result<(), Cow<'static, str>> {
    Address::inspect_files(url)
}

/// Keys read in one trip. More of them could take longer than an answer may.
const AT_ONCE: usize = 256;

/// The first wait before another attempt to connect, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// After so long without an answer a connection is given up: sooner than what was known without it is.
const GIVE_UP: Duration = Duration::from_secs(2);

pub struct Redis {
    topology: Arc<Topology>,
    link: Arc<Link>,
    replication: Replication,
    hub: Arc<Hub>,
}

impl Redis {
    /// Begins to connect, and to follow changes, until `cancel`. Succeeds without a server: it is sought until it is there.
    ///
    /// # Errors
    ///
    /// When the URL cannot be read, or a file that it names.
    pub fn open(url: &str, cancel: &CancellationToken) -> Result<Arc<Self>, StoreError> {
        let topology = Topology::new(Address::parse(url)?);
        let link = Arc::new(Link::new(Arc::clone(&topology)));
        let store = Arc::new(Self {
            link: Arc::clone(&link),
            replication: Replication::new(Arc::clone(&topology), Arc::clone(&link)),
            hub: Arc::new(Hub::new()),
            topology: Arc::clone(&topology),
        });
        topology.watch_sentinels(cancel);
        let (kept, keep) = (Arc::clone(&link), cancel.clone());
        tokio::spawn(async move { keep.run_until_cancelled(kept.keep()).await });
        let (hub, follow) = (Arc::clone(&store.hub), cancel.clone());
        tokio::spawn(async move { follow.run_until_cancelled(feed::follow(topology, link, hub)).await });
        Ok(store)
    }

    async fn read_one(&self, key: &str) -> Result<Entry, StoreError> {
        let (mut value, mut life) = (cmd("GETRANGE"), cmd("PTTL"));
        value.arg(key).arg(0).arg(MAX_VALUE);
        life.arg(key);
        let (value, life) = tokio::join!(self.link.run(value), self.link.run(life));
        reply::entry(value, life)
    }

    async fn read_pipelined(&self, mut connection: Connection, keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        let mut pipe = redis::pipe();
        for key in keys {
            pipe.cmd("GETRANGE").arg(key).arg(0).arg(MAX_VALUE).cmd("PTTL").arg(key);
        }
        // Not `query_async`: one key of the wrong type would be the end of all of them.
        let answers = connection.req_packed_commands(&pipe, 0, 2 * keys.len()).await;
        let answers = self.link.checked(&connection, answers)?;
        let mut answers = answers.into_iter().map(|value| self.link.checked(&connection, value.extract_error()));
        let mut next = || answers.next().unwrap_or_else(|| Err(unexpected()));
        keys.iter().map(|_| reply::entry(next(), next())).collect()
    }

    /// Where a page of a scan is read: one node after the other in a cluster.
    async fn scan_node(&self, command: Cmd, node: Option<&topology::Node>) -> Result<Value, StoreError> {
        let mut connection = self.link.connection()?;
        match (&mut connection.client, node) {
            (Client::Cluster(cluster), Some((host, port))) => {
                let node = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                let answer = cluster.route_command(command, RoutingInfo::SingleNode(node)).await;
                self.link.checked(&connection, answer.and_then(Value::extract_error))
            }
            _ => self.link.run(command).await,
        }
    }
}

#[async_trait]
impl Store for Redis {
    async fn read(&self, keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::with_capacity(keys.len());
        for some in keys.chunks(AT_ONCE) {
            let connection = self.link.connection()?;
            match connection.client {
                Client::Plain(_) => entries.extend(self.read_pipelined(connection, some).await?),
                // Sent at the same time, so they share a trip: a cluster's client takes no pipeline across slots.
                Client::Cluster(_) => {
                    for entry in join_all(some.iter().map(|key| self.read_one(key))).await {
                        entries.push(entry?);
                    }
                }
            }
        }
        Ok(entries)
    }

    async fn write(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<(), StoreError> {
        self.link.run(set(key, value, life)).await.map(drop)
    }

    async fn swap(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<Option<Vec<u8>>, StoreError> {
        let mut command = set(key, value, life);
        command.arg("GET");
        match self.link.run(command).await? {
            Value::BulkString(before) => Ok(Some(before)),
            Value::Nil => Ok(None),
            _ => Err(unexpected()),
        }
    }

    async fn create(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<bool, StoreError> {
        let mut command = set(key, value, life);
        command.arg("NX");
        Ok(self.link.run(command).await? != Value::Nil)
    }

    async fn raise(&self, key: &str, value: &str, life: Option<Duration>) -> Result<bool, StoreError> {
        Ok(integer(&self.link.invoke(&raising(key, value, life)).await?)? == 1)
    }

    async fn raise_replicated(
        &self,
        key: &str,
        value: &str,
        life: Option<Duration>,
    ) -> Result<(bool, Option<bool>), StoreError> {
        let (answer, replicated) = self.replication.invoke(&raising(key, value, life)).await?;
        Ok((integer(&answer)? == 1, replicated))
    }

    async fn widen(&self, key: &str, value: &str, life: Option<Duration>) -> Result<Widened, StoreError> {
        let mut script = scripts::WIDEN.prepare_invoke();
        script.key(key).arg(value).arg(life.map_or(0, millis)).arg(LONGEST_NUMBER);
        let (answer, replicated) = self.replication.invoke(&script).await?;
        let Value::Array(answer) = answer else { return Err(unexpected()) };
        let [Value::Int(set), Value::Int(left)] = answer[..] else { return Err(unexpected()) };
        Ok(Widened { set: set == 1, life: u64::try_from(left).ok().map(Duration::from_millis), replicated })
    }

    async fn exchange(&self, key: &str, old: &[u8], new: Option<&[u8]>) -> Result<bool, StoreError> {
        let mut script = scripts::EXCHANGE.prepare_invoke();
        script.key(key).arg(old).arg(new);
        Ok(integer(&self.link.invoke(&script).await?)? == 1)
    }

    async fn replace(&self, key: &str, old: &[u8], new: &[u8], life: Duration) -> Result<bool, StoreError> {
        let mut script = scripts::EXCHANGE.prepare_invoke();
        script.key(key).arg(old).arg(new).arg(millis(life));
        Ok(integer(&self.link.invoke(&script).await?)? == 1)
    }

    async fn delete(&self, keys: &[String]) -> Result<u64, StoreError> {
        let deleted = try_join_all(keys.iter().map(|key| {
            let mut command = cmd("DEL");
            command.arg(key);
            self.link.run(command)
        }));
        deleted.await?.iter().map(|value| integer(value).map(i64::unsigned_abs)).sum()
    }

    async fn record(&self, key: &str, fields: &[&str]) -> Result<Option<Record>, StoreError> {
        let mut script = scripts::RECORD.prepare_invoke();
        script.key(key).arg(MAX_VALUE).arg(fields);
        match self.link.invoke(&script).await? {
            Value::Nil => Ok(None),
            Value::Array(values) => Ok(Some(
                fields
                    .iter()
                    .zip(values)
                    .filter_map(|(field, value)| match value {
                        // Not UTF-8 is kept as such: it then means nothing to whoever parses it.
                        Value::BulkString(octets) => {
                            Some(((*field).to_owned(), String::from_utf8_lossy(&octets).into_owned()))
                        }
                        _ => None,
                    })
                    .collect(),
            )),
            _ => Err(unexpected()),
        }
    }

    async fn whole_record(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let mut script = scripts::WHOLE_RECORD.prepare_invoke();
        script.key(key).arg(MAX_FIELDS).arg(MAX_WHOLE);
        let Value::Array(flat) = self.link.invoke(&script).await? else { return Ok(None) };
        let mut texts = flat.into_iter().map(|value| match value {
            Value::BulkString(octets) => String::from_utf8_lossy(&octets).into_owned(),
            _ => String::new(),
        });
        Ok(Some(std::iter::from_fn(|| texts.next().zip(texts.next())).collect()))
    }

    async fn write_record(&self, key: &str, set: &[(&str, &str)], remove: &[&str]) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        if !set.is_empty() {
            let command = pipe.cmd("HSET").arg(key);
            for (field, value) in set {
                command.arg(*field).arg(*value);
            }
        }
        if !remove.is_empty() {
            pipe.cmd("HDEL").arg(key).arg(remove);
        }
        if set.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let mut connection = self.link.connection()?;
        let answer = pipe.query_async::<Value>(&mut connection).await;
        self.link.checked(&connection, answer).map(drop)
    }

    async fn amend_record(
        &self,
        key: &str,
        held: &[(&str, &str)],
        set: &[(&str, &str)],
        remove: &[&str],
    ) -> Result<bool, StoreError> {
        let script = scripts::amending(key, held, set, remove);
        Ok(integer(&self.link.invoke(&script).await?)? == 1)
    }

    async fn add(&self, key: &str, deltas: &[(&str, i64)], life: Option<Duration>) -> Result<Vec<i64>, StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for (field, delta) in deltas {
            pipe.cmd("HINCRBY").arg(key).arg(*field).arg(*delta);
        }
        if let Some(life) = life {
            pipe.cmd("PEXPIRE").arg(key).arg(millis(life)).ignore();
        }
        let mut connection = self.link.connection()?;
        let answer = pipe.query_async(&mut connection).await;
        self.link.checked(&connection, answer)
    }

    async fn enlist(
        &self,
        key: &str,
        field: &str,
        counter: &str,
        value: &str,
        life: Option<Duration>,
    ) -> Result<(), StoreError> {
        let mut script = scripts::ENLIST.prepare_invoke();
        script.key(key).arg(field).arg(counter).arg(value).arg(life.map_or(0, millis));
        self.link.invoke(&script).await.map(drop)
    }

    async fn scan(&self, prefix: &str, cursor: &str, count: usize) -> Result<Keys, StoreError> {
        // Behind a cluster the cursor is `node index/cursor`, over the primaries in their fixed order.
        let (index, position) = cursor.split_once('/').unwrap_or(("0", cursor));
        let wrong = || StoreError::new(StoreErrorKind::Cursor, "it is `node/position`, in numbers");
        let index: usize = index.parse().map_err(|_| wrong())?;
        let position = if position.is_empty() { 0 } else { position.parse::<u64>().map_err(|_| wrong())? };
        let primaries = match self.topology.address.kind {
            Kind::Cluster => self.topology.recent_primaries(cursor.is_empty()).await?,
            Kind::Single | Kind::Sentinel { .. } => Vec::new(),
        };
        let mut command = cmd("SCAN");
        command.arg(position);
        command.arg("MATCH").arg(pattern(prefix)).arg("COUNT").arg(count);
        let answer = self.scan_node(command, primaries.get(index)).await;
        let Value::Array(mut answer) = answer.inspect_err(|_| self.topology.forget_primaries())? else {
            return Err(unexpected());
        };
        let (Some(found), Some(next)) = (answer.pop(), answer.pop().and_then(reply::string)) else {
            return Err(unexpected());
        };
        let next = match (next.as_str(), primaries.len()) {
            ("0", nodes) if index + 1 < nodes => Some(format!("{}/0", index + 1)),
            ("0", _) => None,
            (next, _) => Some(format!("{index}/{next}")),
        };
        Ok((reply::strings(found)?, next))
    }

    async fn take(&self, key: &str, rate: Rate, count: u32) -> Result<Taken, StoreError> {
        let mut script = scripts::TAKE.prepare_invoke();
        script.key(key).arg(rate.interval()).arg(rate.limit).arg(count);
        let Value::Array(answer) = self.link.invoke(&script).await? else { return Err(unexpected()) };
        let numbers: Vec<u64> =
            answer.iter().map(|value| integer(value).map(i64::unsigned_abs)).collect::<Result<_, _>>()?;
        let [allowed, remaining, wait, reset] = numbers[..] else { return Err(unexpected()) };
        Ok(Taken {
            allowed: allowed == 1,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            retry_after: if rate.limit == 0 { rate.window } else { Duration::from_micros(wait) },
            reset: Duration::from_micros(reset),
        })
    }

    fn feed(&self) -> mpsc::Receiver<FeedEvent> {
        self.hub.listen()
    }

    /// As if commands went over another connection from now on, maybe to another server.
    fn doubt(&self) {
        self.topology.link();
    }

    async fn now(&self) -> Result<Option<UnixTime>, StoreError> {
        self.link.run(cmd("TIME")).await.and_then(|answer| time(&answer)).map(Some)
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        warnings::warnings(&self.topology).await
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({:?})", self.topology.address.kind)
    }
}

fn raising(key: &str, value: &str, life: Option<Duration>) -> ScriptInvocation<'static> {
    let mut script = scripts::RAISE.prepare_invoke();
    script.key(key).arg(value).arg(life.map_or(0, millis));
    script
}

fn set(key: &str, value: &[u8], life: Option<Duration>) -> Cmd {
    let mut command = cmd("SET");
    command.arg(key).arg(value);
    if let Some(life) = life {
        command.arg("PX").arg(millis(life));
    }
    command
}

/// At least one: Redis refuses a life of none.
fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64 / 2)
}

/// A pattern that matches what begins with `prefix`, taken literally.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('*');
    pattern
}
