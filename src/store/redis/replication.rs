//! Whether a write has reached a replica of the server. What a primary alone holds is lost with it.

use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::{
    address::Kind,
    link::Link,
    reply::{failure, integer},
    topology::Topology,
};
use crate::store::{StoreError, StoreErrorKind};

/// How long a replica may take to acknowledge before the writer is told that none did.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(100);

/// Runs `command` and waits for a replica. `WAIT` holds up whatever shares its connection and counts only that
/// connection's writes: so this one is its own. A cluster's client does not say which node a write went to: not asked.
pub(super) async fn write(topology: &Topology, link: &Link, command: Cmd) -> Result<Option<bool>, StoreError> {
    if topology.address.kind == Kind::Cluster {
        return link.run(command).await.map(|_| None);
    }
    let primaries = topology.primaries().await?;
    let node = primaries.first().ok_or_else(|| StoreError::new(StoreErrorKind::Unreachable, "no primary"))?;
    let (mut connection, _) = topology.connect(node, topology.address.timeout + ACKNOWLEDGEMENT).await?;
    command.query_async::<Value>(&mut connection).await.map_err(|error| failure(&error))?;
    // From here on the write counts: whatever cannot be found out is not known, and no error.
    let mut info = cmd("INFO");
    let Ok(info) = info.arg("replication").query_async::<String>(&mut connection).await else { return Ok(None) };
    if replicas(&info) == 0 {
        return Ok(None);
    }
    let mut wait = cmd("WAIT");
    wait.arg(1).arg(u64::try_from(ACKNOWLEDGEMENT.as_millis()).unwrap_or(u64::MAX));
    let acknowledged = wait.query_async::<Value>(&mut connection).await;
    Ok(acknowledged.ok().and_then(|count| integer(&count).ok()).map(|count| count > 0))
}

/// How many replicas are attached, by `INFO replication`.
fn replicas(info: &str) -> u32 {
    let line = info.lines().find_map(|line| line.strip_prefix("connected_slaves:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
