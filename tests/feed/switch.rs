//! The feed and the commands never stay on different servers.

use std::time::Duration;

use countersign::store::FeedEvent;
use tokio::time::{Instant, timeout};

use super::{Replica, SECOND, redis, token};

#[tokio::test]
async fn another_primary_that_nobody_announces_is_found_by_the_feed_and_by_commands() {
    let servers = redis::Sentinel::start().await;
    let replica = Replica::live(&servers.url()).await;
    let say = async |subject: &str| {
        let key = format!("cs:notice:account:sub:{subject}");
        replica.store.raise_replicated(&key, "1 disabled", None).await.unwrap()
    };
    assert!(say("before").await.0);
    // The sentinel names another server from now on; the one before goes on as it was, and says that it is a primary.
    servers.sentinel.cli(&["SENTINEL", "REMOVE", "mymaster"]);
    servers.replica.cli(&["REPLICAOF", "NO", "ONE"]);
    let port = servers.replica.port.to_string();
    servers.sentinel.cli(&["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &port, "1"]);
    let listens = || servers.replica.cli(&["CLIENT", "LIST"]).contains("redir=0");
    redis::until(10 * SECOND, listens).await;
    servers.replica.cli(&["SET", "cs:revoked:jti:elsewhere", "x", "EX", "600"]);
    redis::until(10 * SECOND, || replica.revocations.len() == 1).await;
    assert!(replica.is_revoked(&token("elsewhere")).await);
    // Nor do connections that were kept for writes go on to the one before.
    assert!(say("after").await.0);
    assert_eq!(servers.replica.cli(&["EXISTS", "cs:notice:account:sub:after"]), "1");
}

#[tokio::test]
async fn when_commands_go_over_another_connection_the_feed_begins_anew() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    let mut feed = replica.store.feed();
    let mut epoch = async || {
        let connected = async {
            loop {
                if let Some(FeedEvent::Connected { epoch, .. }) = feed.recv().await {
                    return epoch;
                }
            }
        };
        timeout(10 * SECOND, connected).await.expect("a new connection of the feed")
    };
    let before = epoch().await;
    let clients = server.cli(&["CLIENT", "LIST"]);
    let commands = clients.lines().filter(|line| line.contains("redir=-1") && !line.contains("cmd=client"));
    let ids: Vec<_> = commands.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
    assert_eq!(ids.len(), 1, "{clients}");
    server.cli(&["CLIENT", "KILL", "ID", ids[0]]);
    assert!(epoch().await > before);
    tokio::time::sleep(Duration::from_millis(50)).await;
    replica.becomes(countersign::revocation::State::Live).await;
}

#[tokio::test]
async fn another_masters_failover_is_nothing_to_ours() {
    let servers = redis::Sentinel::start().await;
    let replica = Replica::live(&servers.url()).await;
    let (other, standby) = redis::pair().await;
    servers.ask(&["SENTINEL", "MONITOR", "mymaster2", "127.0.0.1", &other.port.to_string(), "1"]);
    redis::until(20 * SECOND, || servers.knows("mymaster2")).await;
    let listens = || servers.ask(&["CLIENT", "LIST"]).contains("sub=1");
    redis::until(10 * SECOND, listens).await;
    let mut feed = replica.store.feed();
    assert!(matches!(feed.recv().await, Some(FeedEvent::Connected { .. })));
    redis::until(20 * SECOND, || servers.ask(&["SENTINEL", "FAILOVER", "mymaster2"]) == "OK").await;
    // Its address is told before the switch is announced, what is known of it only then.
    let moved = format!("\nport\n{}\n", standby.port);
    redis::until(20 * SECOND, || servers.ask(&["SENTINEL", "MASTER", "mymaster2"]).contains(&moved)).await;
    // A second later it has told of nothing but signs of life: whoever cuts it for that has done so by then.
    let later = Instant::now() + SECOND;
    loop {
        match timeout(10 * SECOND, feed.recv()).await.unwrap() {
            Some(FeedEvent::Alive(at)) if at > later => break,
            Some(FeedEvent::Alive(_) | FeedEvent::Changed(_)) => {}
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(servers.current(), servers.master.port);
}
