//! Device records on a real feed: what changes in Redis is seen at once by every replica that had it in memory.

use std::{sync::Arc, time::Duration};

use countersign::{
    clock::Clock,
    device::{self, Certificates, DeviceQuery, Devices},
    domain::{DeviceSighting, Fact},
    store::{Store, redis::Redis},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{SECOND, proxy::Proxy, redis};

/// The registry of one replica.
pub(crate) fn start(store: Arc<dyn Store>, settings: &device::Settings, cancel: &CancellationToken) -> Arc<Devices> {
    Devices::start(store, settings, Certificates::new(&[], None, None).unwrap(), Clock::system(), cancel.clone())
}

pub(crate) struct Replica {
    devices: Arc<Devices>,
    cancel: CancellationToken,
}

impl Replica {
    pub(crate) async fn live(url: &str) -> Self {
        let cancel = CancellationToken::new();
        let store: Arc<dyn Store> = Redis::open(url, &cancel).unwrap();
        let devices = start(store, &device::Settings::default(), &cancel);
        redis::until(20 * SECOND, || devices.is_live()).await;
        Self { devices, cancel }
    }

    pub(crate) async fn sight(&self) -> Fact<DeviceSighting> {
        let query = DeviceQuery { id: Some("laptop"), ..DeviceQuery::default() };
        self.devices.look_up(&query, Instant::now() + Duration::from_millis(150)).await
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn replicas(url: &str) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::live(url).await);
    }
    replicas
}

fn record<T>(fact: &Fact<DeviceSighting>, read: impl Fn(&countersign::domain::DeviceRecord) -> T) -> Option<T> {
    fact.value().and_then(|seen| seen.record.as_deref()).map(read)
}

#[tokio::test]
async fn a_change_is_seen_by_every_replica_that_had_the_record_in_memory() {
    let server = redis::Redis::start().await;
    server.cli(&["HSET", "cs:device:laptop", "user", "alice", "compliant", "true"]);
    let replicas = replicas(&server.url()).await;
    for round in 0..20 {
        for replica in &replicas {
            replica.sight().await;
        }
        let compliant = round % 2 == 1;
        server.cli(&["HSET", "cs:device:laptop", "compliant", if compliant { "true" } else { "false" }]);
        let written = Instant::now();
        for replica in &replicas {
            while record(&replica.sight().await, |record| record.compliant) != Some(Some(compliant)) {
                assert!(written.elapsed() < SECOND, "round {round}: an old record is still believed");
                sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_device_that_was_unknown_is_known_as_soon_as_it_is_registered() {
    let server = redis::Redis::start().await;
    let replicas = replicas(&server.url()).await;
    for replica in &replicas {
        let fact = replica.sight().await;
        assert!(fact.value().is_some_and(|seen| seen.record.is_none()), "{fact:?}");
    }
    server.cli(&["HSET", "cs:device:laptop", "user", "alice"]);
    let written = Instant::now();
    for replica in &replicas {
        while record(&replica.sight().await, |_| ()).is_none() {
            assert!(written.elapsed() < SECOND, "still unknown");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn what_is_in_memory_costs_no_command() {
    let server = redis::Redis::start().await;
    server.cli(&["HSET", "cs:device:laptop", "user", "alice", "compliant", "true"]);
    let replica = Replica::live(&server.url()).await;
    replica.sight().await;
    let reads = |server: &redis::Redis| {
        let mine = |(name, _): &&(String, u64)| name != "ping" && name != "info";
        server.commands().iter().filter(mine).map(|(_, calls)| calls).sum::<u64>()
    };
    let before = reads(&server);
    for _ in 0..1000 {
        assert!(record(&replica.sight().await, |_| ()).is_some());
    }
    assert_eq!(reads(&server), before);
}

#[tokio::test]
async fn with_redis_gone_a_record_is_believed_for_five_seconds_from_the_last_that_was_heard() {
    let mut server = redis::Redis::start().await;
    server.cli(&["HSET", "cs:device:laptop", "user", "alice", "compliant", "true"]);
    let replica = Replica::live(&server.url()).await;
    assert!(record(&replica.sight().await, |_| ()).is_some());
    sleep(6 * SECOND).await;
    server.kill();
    redis::until(2 * SECOND, || !replica.devices.is_live()).await;
    sleep(3 * SECOND).await;
    assert!(record(&replica.sight().await, |_| ()).is_some(), "read nine seconds ago, and unchanged until three ago");
    sleep(3 * SECOND).await;
    let fact = replica.sight().await;
    assert!(fact.is_unavailable(), "nothing was heard for six seconds: {fact:?}");
    server.restart().await;
    let back = Instant::now();
    redis::until(10 * SECOND, || replica.devices.is_live()).await;
    // Commands go over a connection of their own, which comes back by itself.
    let fact = loop {
        let fact = replica.sight().await;
        if !fact.is_unavailable() {
            break fact;
        }
        assert!(back.elapsed() < 2 * SECOND, "{:?}: {fact:?}", back.elapsed());
        sleep(Duration::from_millis(10)).await;
    };
    assert!(back.elapsed() < 2 * SECOND, "{:?}", back.elapsed());
    assert!(fact.value().is_some_and(|seen| seen.record.is_none()), "it came back empty: {fact:?}");
}

#[tokio::test]
async fn connections_that_are_cut_without_a_word_refuse_nobody_who_was_known() {
    // However long a command may take.
    tokio::join!(cut("100ms"), cut("10s"));
}

/// What becomes of connections when a table of connections is emptied on the way: new ones work.
async fn cut(timeout: &str) {
    let server = redis::Redis::start().await;
    server.cli(&["HSET", "cs:device:laptop", "user", "alice"]);
    let (proxy, address) = Proxy::start(server.port).await;
    let replica = Replica::live(&format!("redis://{address}/0?timeout={timeout}")).await;
    assert!(record(&replica.sight().await, |_| ()).is_some());
    // Longer than what was read may be believed without being heard of.
    sleep(6 * SECOND).await;
    proxy.cut();
    let cut = Instant::now();
    while cut.elapsed() < 4 * SECOND {
        let fact = replica.sight().await;
        assert!(record(&fact, |_| ()).is_some(), "{:?}: {fact:?}", cut.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(replica.devices.is_live());
}
