//! Which nodes are primaries right now, and plain connections to them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value, aio::MultiplexedConnection, cmd};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    address::{Address, Kind},
    reply::{self, failure, unexpected},
};
use crate::store::{Backoff, StoreError, StoreErrorKind};

/// To reach a node and log in.
const CONNECT: Duration = Duration::from_millis(500);

/// How often the primaries are looked up, besides when another one announces itself.
const SURVEY: Duration = Duration::from_secs(2);

/// Before a sentinel is listened to again.
const AGAIN: Duration = Duration::from_millis(160);

/// Commands that wait to be sent on one connection. The library's 50 would make a burst wait for itself.
const QUEUE: usize = 4096;

pub(super) type Node = (String, u16);

/// A connection and what is pushed over it, its end included.
pub(super) type Plain = (MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>);

pub(super) struct Topology {
    pub(super) address: Address,
    /// How often a write showed that a node is no primary any more. A count, so that whoever is connecting meanwhile learns
    /// of it as well.
    demotions: watch::Sender<u64>,
    /// The master that a sentinel has announced last.
    announced: watch::Sender<Option<Node>>,
    /// Connections of commands so far.
    links: watch::Sender<u64>,
    /// The primaries as they were asked for last.
    recent: Mutex<Option<(Instant, Vec<Node>)>>,
    /// Which of the sentinels answered last.
    answering: AtomicUsize,
}

impl Topology {
    pub(super) fn new(address: Address) -> Arc<Self> {
        let (demotions, announced, links) = (watch::Sender::new(0), watch::Sender::new(None), watch::Sender::new(0));
        Arc::new(Self {
            address,
            demotions,
            announced,
            links,
            recent: Mutex::default(),
            answering: AtomicUsize::new(0),
        })
    }

    /// A primary is none any more.
    pub(super) fn demote(&self) {
        self.demotions.send_modify(|count| *count += 1);
    }

    /// What is heard of other primaries from now on.
    pub(super) fn switches(&self) -> Switches {
        Switches { demotions: self.demotions.subscribe(), announced: self.announced.subscribe() }
    }

    /// Commands go over another connection.
    pub(super) fn link(&self) {
        self.links.send_modify(|count| *count += 1);
    }

    /// Changes when commands go over another connection from now on.
    pub(super) fn links(&self) -> watch::Receiver<u64> {
        self.links.subscribe()
    }

    /// Returns when the primaries are others than `known`. No answer changes nothing: a primary that is gone shows by itself.
    pub(super) async fn moved(&self, known: &[Node]) {
        if self.address.kind == Kind::Single {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(SURVEY).await;
            if self.primaries().await.is_ok_and(|now| now != known) {
                return;
            }
        }
    }

    /// As [`Self::primaries`], or as they were a moment ago unless a scan `begins`: each page would open a connection else.
    pub(super) async fn recent_primaries(&self, begins: bool) -> Result<Vec<Node>, StoreError> {
        let recent = self.recent.lock().clone().filter(|(asked, _)| !begins && asked.elapsed() < SURVEY);
        if let Some((_, recent)) = recent {
            return Ok(recent);
        }
        let primaries = self.primaries().await?;
        *self.recent.lock() = Some((Instant::now(), primaries.clone()));
        Ok(primaries)
    }

    pub(super) fn forget_primaries(&self) {
        *self.recent.lock() = None;
    }

    /// The primaries, in a fixed order.
    pub(super) async fn primaries(&self) -> Result<Vec<Node>, StoreError> {
        match &self.address.kind {
            Kind::Single => Ok(self.address.nodes.clone()),
            Kind::Sentinel { master } => Ok(vec![self.master(master).await?]),
            Kind::Cluster => self.shards().await,
        }
    }

    /// A connection to a data node, unless the node says of itself that it is a replica, or loads its data: it greets then, and
    /// answers nothing else.
    pub(super) async fn connect(&self, node: &Node, timeout: Duration) -> Result<Plain, StoreError> {
        let mut plain = open(&self.address.client(node).await?, timeout).await?;
        if is_replica(&mut plain.0).await? {
            return Err(StoreError::new(StoreErrorKind::Unreachable, "the node is a replica, not the primary"));
        }
        match cmd("PING").query_async::<Value>(&mut plain.0).await.map_err(|error| failure(&error)) {
            Err(error) if error.is_transient() => Err(error),
            Ok(_) | Err(_) => Ok(plain),
        }
    }

    /// Asks one sentinel after the other, first the one that answered last: one that is gone without a word costs half a second.
    async fn master(&self, name: &str) -> Result<Node, StoreError> {
        let mut last = StoreError::new(StoreErrorKind::Unreachable, "no sentinel answers");
        let (nodes, first) = (&self.address.nodes, self.answering.load(Ordering::Relaxed));
        for index in (0..nodes.len()).map(|index| (first + index) % nodes.len()) {
            match self.ask_sentinel(&nodes[index], name).await {
                Ok(master) => {
                    self.answering.store(index, Ordering::Relaxed);
                    return Ok(master);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(&self, node: &Node, name: &str) -> Result<Node, StoreError> {
        let (mut sentinel, _) = self.open_sentinel(node).await?;
        let answer = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(&mut sentinel).await;
        match answer.map_err(|error| failure(&error))? {
            Value::Nil => Err(StoreError::new(StoreErrorKind::Refused, "the sentinels know no master of that name")),
            answer => match reply::strings(answer)?.as_slice() {
                [host, port] => Ok((host.clone(), port.parse().map_err(|_| unexpected())?)),
                _ => Err(unexpected()),
            },
        }
    }

    async fn open_sentinel(&self, node: &Node) -> Result<Plain, StoreError> {
        open(&self.address.sentinel(node).await?, CONNECT).await.map_err(|error| {
            // The one of the data nodes is not theirs.
            let theirs = error.detail.starts_with("NOAUTH") || error.detail.starts_with("WRONGPASS");
            let hint = "a sentinel's are `sentinel_user` and `sentinel_password` in `store.url`";
            if theirs { StoreError::new(error.kind, format!("{}; {hint}", error.detail)) } else { error }
        })
    }

    /// Asks one node of the cluster after the other which nodes have slots.
    async fn shards(&self) -> Result<Vec<Node>, StoreError> {
        let mut last = StoreError::new(StoreErrorKind::Unreachable, "no node of the cluster answers");
        for node in &self.address.nodes {
            let answer = async {
                let (mut connection, _) = open(&self.address.client(node).await?, CONNECT).await?;
                cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await.map_err(|error| failure(&error))
            };
            match answer.await.and_then(|answer| slots(answer, &node.0)) {
                Ok(primaries) if !primaries.is_empty() => return Ok(primaries),
                Ok(_) => last = StoreError::new(StoreErrorKind::Unreachable, "the cluster has no slots yet"),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Listens to the sentinels for another master, each by itself.
    pub(super) fn watch_sentinels(self: &Arc<Self>, cancel: &CancellationToken) {
        let Kind::Sentinel { master } = &self.address.kind else { return };
        for node in self.address.nodes.clone() {
            let (topology, master, cancel) = (Arc::clone(self), master.clone(), cancel.clone());
            tokio::spawn(async move {
                let watching = async {
                    loop {
                        // Whatever ends it, it is begun again.
                        let _ = topology.watch(&node, &master).await;
                        tokio::time::sleep(Backoff::between(AGAIN, AGAIN).pause()).await;
                    }
                };
                cancel.run_until_cancelled(watching).await;
            });
        }
    }

    async fn watch(&self, node: &Node, master: &str) -> Result<(), StoreError> {
        let (mut sentinel, mut pushes) = self.open_sentinel(node).await?;
        let subscribed = sentinel.subscribe("+switch-master").await;
        subscribed.map_err(|error| failure(&error))?;
        while let Some(push) = pushes.recv().await {
            match push.kind {
                PushKind::Message => {
                    let message = push.data.into_iter().next_back().and_then(reply::string);
                    if let Some(node) = message.and_then(|message| announced(&message, master)) {
                        self.announced.send_replace(Some(node));
                    }
                }
                PushKind::Disconnection => break,
                _ => {}
            }
        }
        Ok(())
    }
}

/// What is heard of other primaries.
pub(super) struct Switches {
    demotions: watch::Receiver<u64>,
    announced: watch::Receiver<Option<Node>>,
}

impl Switches {
    /// Returns when a primary is none any more, or one is announced that is not among `known`: each sentinel announces it,
    /// and whoever has followed the first of them stays where it is.
    pub(super) async fn away_from(&mut self, known: &[Node]) {
        loop {
            tokio::select! {
                _ = self.demotions.changed() => return,
                changed = self.announced.changed() => {
                    let there = |node: &Node| known.contains(node);
                    if changed.is_err() || !self.announced.borrow_and_update().as_ref().is_some_and(there) {
                        return;
                    }
                }
            }
        }
    }

    /// Whether anything was heard.
    pub(super) fn are_any(&self) -> bool {
        self.demotions.has_changed().unwrap_or(true) || self.announced.has_changed().unwrap_or(true)
    }
}

/// The node that a message of `+switch-master` names (`name old-ip old-port ip port`), if it is about our master.
fn announced(message: &str, master: &str) -> Option<Node> {
    let nodes = message.strip_prefix(master)?.strip_prefix(' ')?;
    let mut words = nodes.split(' ').skip(2);
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

/// Whether the server says of itself that it is a replica: what it holds may be old, and it may have lost its primary. One
/// that does not say is believed. `HELLO` tells it to everybody who may connect, `ROLE` only to administrators.
async fn is_replica(connection: &mut MultiplexedConnection) -> Result<bool, StoreError> {
    let answer = cmd("HELLO").query_async::<HashMap<String, Value>>(connection).await;
    match answer.map_err(|error| failure(&error)) {
        Ok(mut said) => Ok(said.remove("role").and_then(reply::string).is_some_and(|role| role != "master")),
        Err(error) if error.kind == StoreErrorKind::Refused => Ok(false),
        Err(error) => Err(error),
    }
}

async fn open(client: &redis::Client, timeout: Duration) -> Result<Plain, StoreError> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(timeout))
        .set_pipeline_buffer_size(QUEUE)
        .set_push_sender(sender);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    Ok((connection.map_err(|error| failure(&error))?, receiver))
}

/// The primaries of `CLUSTER SLOTS`. A node without a name is the one that was asked.
fn slots(answer: Value, asked: &str) -> Result<Vec<Node>, StoreError> {
    let Value::Array(ranges) = answer else { return Err(unexpected()) };
    let mut primaries = Vec::new();
    for range in ranges {
        let Value::Array(parts) = range else { return Err(unexpected()) };
        let Some(Value::Array(primary)) = parts.into_iter().nth(2) else { return Err(unexpected()) };
        let mut primary = primary.into_iter();
        let host = primary.next().and_then(reply::string).filter(|host| !host.is_empty() && host != "?");
        let Some(Value::Int(port)) = primary.next() else { return Err(unexpected()) };
        let port = u16::try_from(port).map_err(|_| unexpected())?;
        primaries.push((host.unwrap_or_else(|| asked.to_owned()), port));
    }
    primaries.sort();
    primaries.dedup();
    Ok(primaries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_our_master_is_heard() {
        let node = Some(("10.0.0.2".to_owned(), 6380));
        assert_eq!(announced("mymaster 10.0.0.1 6379 10.0.0.2 6380", "mymaster"), node);
        for other in ["mymaster2 10.0.0.1 6379 10.0.0.2 6380", "my 10.0.0.1 6379 10.0.0.2 6380", "mymaster", ""] {
            assert_eq!(announced(other, "mymaster"), None, "{other}");
        }
    }

    #[tokio::test]
    async fn what_several_sentinels_announce_moves_whoever_is_elsewhere_and_once() {
        let topology = Topology::new(Address::parse("redis-sentinel://a,b,c/mymaster").unwrap());
        let (old, new) = (("h".to_owned(), 1), ("h".to_owned(), 2));
        let announce = |node: &Node| topology.announced.send_replace(Some(node.clone()));
        let mut switches = topology.switches();
        announce(&new);
        switches.away_from(std::slice::from_ref(&old)).await;
        let mut switches = topology.switches();
        let (known, all, mut others) = ([new.clone()], [old.clone(), new.clone()], topology.switches());
        let mut moved = std::pin::pin!(switches.away_from(&known));
        for _ in 0..2 {
            announce(&new);
            assert!(futures_util::poll!(&mut moved).is_pending());
        }
        announce(&old);
        assert!(futures_util::poll!(&mut moved).is_ready());
        let mut moved = std::pin::pin!(others.away_from(&all));
        topology.demote();
        assert!(futures_util::poll!(&mut moved).is_ready());
    }
}
