//! Whether a write has reached a replica of the server. What a primary alone holds is lost with it.
//!
//! `WAIT` holds up whatever shares its connection and counts only that connection's writes: such writes have a connection of
//! their own. One, and kept: each new one costs the server a handshake, and an hour in which many sessions end would be a
//! storm of those. One `WAIT` is for all that was written before it. Must never keep a write from being made: where that
//! connection cannot be had, it goes over the other one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{PushInfo, ScriptInvocation, Value, aio::MultiplexedConnection, cmd};
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{Instant, timeout},
};

use super::{
    address::Kind,
    link::Link,
    reply::{failure, integer},
    topology::{Switches, Topology},
};
use crate::store::StoreError;

/// How long a replica may take to acknowledge before the writer is told that none did; and how long a write waits for the
/// connection while another makes it.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(100);

/// How long it may take to connect.
const CONNECTION: Duration = Duration::from_millis(500);

/// A connection that was of no use for so long may have been forgotten on the way.
const IDLE: Duration = Duration::from_secs(30);

pub(super) struct Replication {
    topology: Arc<Topology>,
    link: Arc<Link>,
    own: Mutex<Option<Own>>,
    /// The server had replicas when it was asked last.
    replicated: AtomicBool,
}

/// A connection that nothing else goes over.
struct Own {
    connection: MultiplexedConnection,
    waits: Arc<Waits>,
    pushes: mpsc::UnboundedReceiver<PushInfo>,
    switches: Switches,
    links: watch::Receiver<u64>,
    used: Instant,
}

/// Waits for a replica, of all that was written over one connection.
#[derive(Default)]
struct Waits {
    begun: AtomicU64,
    /// The number of the last that is over, and whether a replica acknowledged.
    last: Mutex<(u64, Option<bool>)>,
    /// Something was not answered in time, and holds up what comes after it.
    late: AtomicBool,
}

impl Replication {
    pub(super) fn new(topology: Arc<Topology>, link: Arc<Link>) -> Self {
        Self { topology, link, own: Mutex::default(), replicated: AtomicBool::new(false) }
    }

    /// Runs a script that writes, and may run twice, and waits for a replica. A cluster's client does not say which node a
    /// write went to: not asked.
    pub(super) async fn invoke(&self, script: &ScriptInvocation<'_>) -> Result<(Value, Option<bool>), StoreError> {
        if self.topology.address.kind == Kind::Cluster {
            return self.link.invoke(script).await.map(|answer| (answer, None));
        }
        if let Some((mut connection, waits)) = self.own().await {
            match script.invoke_async(&mut connection).await.map_err(|error| failure(&error)) {
                Ok(answer) => return Ok((answer, self.acknowledged(connection, &waits).await)),
                // A kept connection may have ended and nobody was told.
                Err(error) if error.is_transient() => waits.late.store(true, Ordering::Release),
                Err(error) => return Err(error),
            }
        }
        // Nobody has asked a replica.
        let unknown = self.replicated.load(Ordering::Acquire).then_some(false);
        self.link.invoke(script).await.map(|answer| (answer, unknown))
    }

    /// The connection that was kept, or a new one to where other commands go, if one can be had soon.
    async fn own(&self) -> Option<(MultiplexedConnection, Arc<Waits>)> {
        let mut kept = timeout(ACKNOWLEDGEMENT, self.own.lock()).await.ok()?;
        if !kept.as_mut().is_some_and(Own::is_sound) {
            *kept = self.connect().await;
        }
        let own = kept.as_mut()?;
        own.used = Instant::now();
        Some((own.connection.clone(), Arc::clone(&own.waits)))
    }

    async fn connect(&self) -> Option<Own> {
        // Before connecting: who is announced meanwhile is another one.
        let (switches, links) = (self.topology.switches(), self.topology.links());
        let (node, patience) = (self.link.node()?, self.topology.address.timeout + ACKNOWLEDGEMENT);
        let connecting = self.topology.connect(&node, patience);
        let (connection, pushes) = timeout(CONNECTION, connecting).await.ok()?.ok()?;
        Some(Own { connection, waits: Arc::default(), pushes, switches, links, used: Instant::now() })
    }

    /// Whether a replica holds what was written over a connection. One that breaks off meanwhile has told of none.
    async fn acknowledged(&self, connection: MultiplexedConnection, waits: &Waits) -> Option<bool> {
        // Whichever begins from here on is for this write too.
        let before = waits.begun.load(Ordering::Acquire);
        let mut last = waits.last.lock().await;
        if last.0 <= before {
            let number = waits.begun.fetch_add(1, Ordering::AcqRel) + 1;
            let acknowledged = match self.wait(connection).await {
                Err(error) if error.is_transient() => {
                    waits.late.store(true, Ordering::Release);
                    Some(false)
                }
                // An error of any other kind: it may not be asked.
                acknowledged => acknowledged.ok().flatten(),
            };
            *last = (number, acknowledged);
        }
        last.1
    }

    async fn wait(&self, mut connection: MultiplexedConnection) -> Result<Option<bool>, StoreError> {
        let mut info = cmd("INFO");
        let info = info.arg("replication").query_async::<String>(&mut connection).await;
        let replicated = replicas(&info.map_err(|error| failure(&error))?) > 0;
        self.replicated.store(replicated, Ordering::Release);
        if !replicated {
            return Ok(None);
        }
        let mut wait = cmd("WAIT");
        wait.arg(1).arg(u64::try_from(ACKNOWLEDGEMENT.as_millis()).unwrap_or(u64::MAX));
        let count = wait.query_async::<Value>(&mut connection).await.map_err(|error| failure(&error))?;
        Ok(integer(&count).ok().map(|count| count > 0))
    }
}

impl Own {
    /// Nothing was heard of another primary, or of its end: nothing else is ever pushed here.
    fn is_sound(&mut self) -> bool {
        let elsewhere = self.switches.are_any() || self.links.has_changed().unwrap_or(true);
        let over = self.pushes.try_recv() != Err(mpsc::error::TryRecvError::Empty);
        !elsewhere && !over && !self.waits.late.load(Ordering::Acquire) && self.used.elapsed() < IDLE
    }
}

/// How many replicas are attached, by `INFO replication`.
fn replicas(info: &str) -> u32 {
    let line = info.lines().find_map(|line| line.strip_prefix("connected_slaves:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
