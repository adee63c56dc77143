//! What about a server could lose revocations, or show them to others, in words for a log line.

use redis::{Value, cmd};

use super::{reply, topology::Topology};
use crate::store::{StoreError, StoreErrorKind};

pub(super) async fn warnings(topology: &Topology) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let address = &topology.address;
    if !address.tls && address.is_remote() {
        found.push("the connection to Redis leaves this machine without TLS; use rediss://".to_owned());
    }
    for node in topology.primaries().await? {
        let (mut connection, _) = topology.connect(&node, address.timeout).await?;
        let name = format!("{}:{}", node.0, node.1);
        let asked = cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async::<Value>(&mut connection).await;
        match asked.map_err(|error| reply::failure(&error)) {
            Ok(answer) => found.extend(policy(answer).filter(|policy| policy != "noeviction").map(|policy| {
                format!(
                    "maxmemory-policy of Redis at {name} is `{policy}`: it may evict revocations; \
                     set it to `noeviction`"
                )
            })),
            Err(error) if error.kind == StoreErrorKind::Refused => found.push(format!(
                "Redis at {name} does not permit CONFIG GET: whether revocations may be evicted is not known; \
                 see to it that maxmemory-policy is `noeviction`"
            )),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// A map in RESP3, a flat array in RESP2.
fn policy(answer: Value) -> Option<String> {
    match answer {
        Value::Map(pairs) => pairs.into_iter().next().and_then(|(_, value)| reply::string(value)),
        Value::Array(items) => items.into_iter().nth(1).and_then(reply::string),
        _ => None,
    }
}
