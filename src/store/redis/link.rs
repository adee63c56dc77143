//! The connection that commands go over: kept, watched and replaced in the background, so that no check waits for one.
//!
//! While there is none, or the server does not answer, a command fails at once: waiting would only pile up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::{
    Cmd, ScriptInvocation, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    cmd,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    GIVE_UP, WAITS,
    address::Kind,
    reply::{failure, is_broken},
    topology::{Node, Switches, Topology},
};
use crate::store::{Backoff, StoreError, StoreErrorKind, keys::CANARY};

/// Between two questions whether the server answers.
const PROBE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// Which server it goes to; `None`: several.
    node: Option<Arc<Node>>,
    /// Told when it is to be replaced: it, and not the one that has replaced it meanwhile.
    broken: Arc<Notify>,
}

#[derive(Clone)]
pub(super) enum Client {
    Plain(MultiplexedConnection),
    Cluster(ClusterConnection),
}

pub(super) struct Link {
    topology: Arc<Topology>,
    connection: ArcSwapOption<Connection>,
    /// Connected, and the server does not answer.
    silent: AtomicBool,
}

impl Link {
    pub(super) fn new(topology: Arc<Topology>) -> Self {
        Self { topology, connection: ArcSwapOption::empty(), silent: AtomicBool::new(false) }
    }

    /// The connection, if there is one that answers.
    pub(super) fn connection(&self) -> Result<Connection, StoreError> {
        if self.silent.load(Ordering::Acquire) {
            return Err(StoreError::new(StoreErrorKind::Timeout, "the server does not answer"));
        }
        let connection = self.connection.load();
        let connection =
            connection.as_ref().ok_or_else(|| StoreError::new(StoreErrorKind::Unreachable, "not connected"))?;
        Ok((**connection).clone())
    }

    /// The server that commands go to, if they go to one.
    pub(super) fn node(&self) -> Option<Arc<Node>> {
        self.connection.load().as_ref()?.node.clone()
    }

    pub(super) async fn run(&self, command: Cmd) -> Result<Value, StoreError> {
        let mut connection = self.connection()?;
        // Not `req_packed_command`: that hands on a server's error as a value.
        let answer = command.query_async(&mut connection).await;
        self.checked(&connection, answer)
    }

    pub(super) async fn invoke(&self, script: &ScriptInvocation<'_>) -> Result<Value, StoreError> {
        let mut connection = self.connection()?;
        let answer = script.invoke_async(&mut connection).await;
        self.checked(&connection, answer)
    }

    /// Returns when a command is answered.
    pub(super) async fn answers(&self) {
        let mut links = self.topology.links();
        loop {
            let mut some = cmd("GETRANGE");
            some.arg(CANARY).arg(0).arg(0);
            tokio::select! {
                answer = self.run(some) => {
                    if !answer.is_err_and(|error| error.is_transient()) {
                        return;
                    }
                }
                // It was asked over the connection before, which may never answer.
                Ok(()) = links.changed() => continue,
            }
            // The next connection may answer, or this one later.
            let _ = timeout(PROBE, links.changed()).await;
        }
    }

    /// Passes a result on, and has the connection replaced that gave it if that is what it calls for.
    pub(super) fn checked<T>(
        &self,
        connection: &Connection,
        result: Result<T, redis::RedisError>,
    ) -> Result<T, StoreError> {
        result.map_err(|error| {
            if is_broken(&error) {
                connection.broken.notify_one();
            }
            // Made a replica under our connections, which it keeps: the feed's must go as well. The canary writes often.
            if error.code() == Some("READONLY") {
                self.topology.demote();
            }
            failure(&error)
        })
    }

    /// Connects and connects again, for ever.
    pub(super) async fn keep(&self) {
        let mut backoff = Backoff::between(WAITS.0, WAITS.1);
        loop {
            // Before connecting: who is announced meanwhile is another one.
            match self.connect(self.topology.switches()).await {
                Ok((connection, ended)) => {
                    backoff.worked();
                    self.connection.store(Some(Arc::new(connection.clone())));
                    // After that: whoever hears of it reads over this one.
                    self.topology.link();
                    let broken = Arc::clone(&connection.broken);
                    let over = tokio::select! {
                        () = self.watch(connection) => true,
                        over = ended => over,
                        () = broken.notified() => true,
                    };
                    if over {
                        self.connection.store(None);
                    }
                    self.silent.store(false, Ordering::Release);
                }
                Err(error) => {
                    if !backoff.is_failing() {
                        tracing::warn!(servers = %self.topology.address, %error, "no connection to the store");
                    }
                    tokio::time::sleep(backoff.failed()).await;
                }
            }
        }
    }

    async fn connect(&self, mut switches: Switches) -> Result<(Connection, Ended), StoreError> {
        let address = &self.topology.address;
        if address.kind == Kind::Cluster {
            let mut builder = ClusterClientBuilder::new(address.connections())
                .use_protocol(redis::ProtocolVersion::RESP3)
                .connection_timeout(Duration::from_millis(500))
                .response_timeout(address.timeout)
                .retries(3)
                .min_retry_wait(5)
                .max_retry_wait(50);
            let held = address.certificates.current().await;
            if let Some(certificates) = held.certificates() {
                builder = builder.certs(certificates);
            }
            let client = builder.build().map_err(|error| failure(&error))?;
            let connection = client.get_async_connection().await.map_err(|error| failure(&error))?;
            let topology = Arc::clone(&self.topology);
            let ended = Box::pin(async move {
                tokio::select! {
                    () = switches.away_from(&[]) => true,
                    // The cluster's client connects again with what it began with: another takes its place.
                    () = topology.address.certificates.changed(&held) => false,
                }
            });
            return Ok((Connection::new(Client::Cluster(connection), None), ended));
        }
        let primaries = self.topology.primaries().await?;
        let node = primaries.first().ok_or_else(|| StoreError::new(StoreErrorKind::Unreachable, "no primary"))?;
        let (connection, mut pushes) = self.topology.connect(node, address.timeout).await?;
        let node = Some(Arc::new(node.clone()));
        let topology = Arc::clone(&self.topology);
        let ended = Box::pin(async move {
            let lost = async {
                while let Some(push) = pushes.recv().await {
                    if push.kind == redis::PushKind::Disconnection {
                        break;
                    }
                }
            };
            tokio::select! {
                () = lost => {}
                () = topology.moved(&primaries) => {}
                () = switches.away_from(&primaries) => {}
            }
            true
        });
        Ok((Connection::new(Client::Plain(connection), node), ended))
    }

    /// Asks again and again whether the server answers. Returns when the connection is of no use.
    async fn watch(&self, mut connection: Connection) {
        if matches!(connection.client, Client::Cluster(_)) {
            // The cluster's client watches its own connections.
            return std::future::pending().await;
        }
        let (mut answered, ping) = (Instant::now(), cmd("PING"));
        while answered.elapsed() < GIVE_UP {
            tokio::time::sleep(PROBE).await;
            // However long a command may take.
            let left = GIVE_UP.saturating_sub(answered.elapsed());
            let answer = timeout(left, ping.query_async::<Value>(&mut connection)).await;
            let silent = match answer.map(|answer| answer.map_err(|error| failure(&error).kind)) {
                Err(_) | Ok(Err(StoreErrorKind::Timeout)) => true,
                Ok(Err(StoreErrorKind::Unreachable)) => return,
                // One that cannot save its data refuses a ping too, and that is an answer.
                Ok(Ok(_) | Err(_)) => false,
            };
            if !silent {
                answered = Instant::now();
            }
            self.silent.store(silent, Ordering::Release);
        }
    }
}

/// The end of a connection: whether it is of no use any more. One that is not is used until there is another.
type Ended = std::pin::Pin<Box<dyn Future<Output = bool> + Send>>;

impl Connection {
    fn new(client: Client, node: Option<Arc<Node>>) -> Self {
        Self { client, node, broken: Arc::default() }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> redis::RedisFuture<'a, Value> {
        match &mut self.client {
            Client::Plain(connection) => connection.req_packed_command(cmd),
            Client::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> redis::RedisFuture<'a, Vec<Value>> {
        match &mut self.client {
            Client::Plain(connection) => connection.req_packed_commands(pipeline, offset, count),
            Client::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.client {
            Client::Plain(connection) => connection.get_db(),
            Client::Cluster(connection) => connection.get_db(),
        }
    }
}
