//! Whether a write has reached a replica of the server. What a primary alone holds is lost with it.

use std::time::Duration;

use redis::{ScriptInvocation, Value, aio::MultiplexedConnection, cmd};

use super::{
    address::Kind,
    link::Link,
    reply::{failure, integer},
    topology::Topology,
};
use crate::store::StoreError;

/// How long a replica may take to acknowledge before the writer is told that none did.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(100);

/// How long a connection of its own may take, sentinels asked and all.
const CONNECTION: Duration = Duration::from_millis(500);

/// Runs a script that writes, and waits for a replica. `WAIT` holds up whatever shares its connection and counts only that
/// connection's writes: so this one is its own. A cluster's client does not say which node a write went to: not asked.
pub(super) async fn invoke(
    topology: &Topology,
    link: &Link,
    script: &ScriptInvocation<'_>,
) -> Result<(Value, Option<bool>), StoreError> {
    // Nothing is written yet: where no other connection can be had, the one that is there will do.
    let own = if topology.address.kind == Kind::Cluster { None } else { connect(topology).await };
    let Some(mut connection) = own else { return link.invoke(script).await.map(|answer| (answer, None)) };
    let answer = script.invoke_async(&mut connection).await.map_err(|error| failure(&error))?;
    Ok((answer, acknowledged(&mut connection).await))
}

/// A connection of its own to the primary, if one can be had soon.
async fn connect(topology: &Topology) -> Option<MultiplexedConnection> {
    let connecting = async {
        let primaries = topology.primaries().await.ok()?;
        topology.connect(primaries.first()?, topology.address.timeout + ACKNOWLEDGEMENT).await.ok()
    };
    let (connection, _) = tokio::time::timeout(CONNECTION, connecting).await.ok()??;
    Some(connection)
}

/// The write counts: whatever cannot be found out is not known, and no error.
async fn acknowledged(connection: &mut MultiplexedConnection) -> Option<bool> {
    let mut info = cmd("INFO");
    let info = info.arg("replication").query_async::<String>(connection).await.ok()?;
    if replicas(&info) == 0 {
        return None;
    }
    let mut wait = cmd("WAIT");
    wait.arg(1).arg(u64::try_from(ACKNOWLEDGEMENT.as_millis()).unwrap_or(u64::MAX));
    let count = wait.query_async::<Value>(connection).await.ok()?;
    integer(&count).ok().map(|count| count > 0)
}

/// How many replicas are attached, by `INFO replication`.
fn replicas(info: &str) -> u32 {
    let line = info.lines().find_map(|line| line.strip_prefix("connected_slaves:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
