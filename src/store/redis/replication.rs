//! Whether a write has reached a replica of the server. What a primary alone holds is lost with it.
//!
//! `WAIT` holds up whatever shares its connection and counts only that connection's writes: such writes have connections of
//! their own. A few, and kept: each new one costs the server a handshake, and an hour in which many sessions end would be a
//! storm of those. Must never keep a write from being made: where none of them can be had, it goes over the other one.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{PushInfo, RedisError, ScriptInvocation, Value, aio::MultiplexedConnection, cmd};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, timeout},
};

use super::{
    address::Kind,
    link::Link,
    reply::{failure, integer},
    topology::{Switches, Topology},
};
use crate::store::StoreError;

/// How long a replica may take to acknowledge before the writer is told that none did; and how long a write waits for others
/// that wait so.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(100);

/// How long it may take to connect.
const CONNECTION: Duration = Duration::from_millis(500);

/// Connections at the same time.
const CONNECTIONS: usize = 4;

/// One that was of no use for so long may have been forgotten on the way.
const IDLE: Duration = Duration::from_secs(30);

pub(super) struct Replication {
    topology: Arc<Topology>,
    link: Arc<Link>,
    places: Semaphore,
    kept: Mutex<Vec<Own>>,
}

/// A connection that nothing else goes over.
struct Own {
    connection: MultiplexedConnection,
    pushes: mpsc::UnboundedReceiver<PushInfo>,
    switches: Switches,
    links: watch::Receiver<u64>,
    used: Instant,
}

impl Replication {
    pub(super) fn new(topology: Arc<Topology>, link: Arc<Link>) -> Self {
        Self { topology, link, places: Semaphore::new(CONNECTIONS), kept: Mutex::default() }
    }

    /// Runs a script that writes, and may run twice, and waits for a replica. A cluster's client does not say which node a
    /// write went to: not asked.
    pub(super) async fn invoke(&self, script: &ScriptInvocation<'_>) -> Result<(Value, Option<bool>), StoreError> {
        if self.topology.address.kind == Kind::Cluster {
            return self.link.invoke(script).await.map(|answer| (answer, None));
        }
        let place = timeout(ACKNOWLEDGEMENT, self.places.acquire()).await;
        if let Ok(Ok(_place)) = place
            && let Some(mut own) = self.own().await
        {
            match script.invoke_async(&mut own.connection).await {
                Ok(answer) => {
                    let acknowledged = acknowledged(&mut own.connection).await;
                    // What was not answered in time is still waited for over there.
                    let late = acknowledged.as_ref().is_err_and(|error| failure(error).is_transient());
                    if !late {
                        self.keep(own);
                    }
                    return Ok((answer, if late { Some(false) } else { acknowledged.ok().flatten() }));
                }
                // A kept connection may have ended and nobody was told.
                Err(error) if failure(&error).is_transient() => {}
                Err(error) => {
                    self.keep(own);
                    return Err(failure(&error));
                }
            }
        }
        self.link.invoke(script).await.map(|answer| (answer, None))
    }

    fn keep(&self, own: Own) {
        self.kept.lock().push(Own { used: Instant::now(), ..own });
    }

    /// A connection that was kept, or a new one to where other commands go, if one can be had soon.
    async fn own(&self) -> Option<Own> {
        let kept = || self.kept.lock().pop();
        while let Some(mut own) = kept() {
            if own.is_sound() {
                return Some(own);
            }
        }
        // Before connecting: who is announced meanwhile is another one.
        let (switches, links) = (self.topology.switches(), self.topology.links());
        let (node, patience) = (self.link.node()?, self.topology.address.timeout + ACKNOWLEDGEMENT);
        let connecting = self.topology.connect(&node, patience);
        let (connection, pushes) = timeout(CONNECTION, connecting).await.ok()?.ok()?;
        Some(Own { connection, pushes, switches, links, used: Instant::now() })
    }
}

impl Own {
    /// Nothing was heard of another primary, or of its end: nothing else is ever pushed here.
    fn is_sound(&mut self) -> bool {
        let elsewhere = self.switches.are_any() || self.links.has_changed().unwrap_or(true);
        let over = self.pushes.try_recv() != Err(mpsc::error::TryRecvError::Empty);
        !elsewhere && !over && self.used.elapsed() < IDLE
    }
}

/// The write counts: what may not be found out is not known, and no error of it.
async fn acknowledged(connection: &mut MultiplexedConnection) -> Result<Option<bool>, RedisError> {
    let mut info = cmd("INFO");
    let info = info.arg("replication").query_async::<String>(connection).await?;
    if replicas(&info) == 0 {
        return Ok(None);
    }
    let mut wait = cmd("WAIT");
    wait.arg(1).arg(u64::try_from(ACKNOWLEDGEMENT.as_millis()).unwrap_or(u64::MAX));
    let count = wait.query_async::<Value>(connection).await?;
    Ok(integer(&count).ok().map(|count| count > 0))
}

/// How many replicas are attached, by `INFO replication`.
fn replicas(info: &str) -> u32 {
    let line = info.lines().find_map(|line| line.strip_prefix("connected_slaves:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
