//! A feed that is connected and answers, and tells nothing: nobody may believe it for longer than revocations do.

use std::{sync::Arc, time::Duration};

use countersign::{
    clock::Clock,
    device::{self, DeviceQuery},
    domain::RevocationKind,
    notice::Notices,
    revocation::{Revocations, Settings, State},
    store::{Store, redis::Redis},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{SECOND, devices, proxy::Proxy, redis};

#[tokio::test]
async fn a_feed_that_answers_and_tells_nothing_is_believed_by_nobody() {
    let server = redis::Redis::start().await;
    server.cli(&["HSET", "cs:device:laptop", "user", "alice", "compliant", "true"]);
    let (proxy, address) = Proxy::start(server.port).await;
    let cancel = CancellationToken::new();
    let store: Arc<dyn Store> = Redis::open(&format!("redis://{address}/0"), &cancel).unwrap();
    let settings = Settings {
        max_staleness: SECOND.into(),
        canary_interval: Duration::from_millis(100).into(),
        ..Settings::default()
    };
    let revocations = Revocations::start(Arc::clone(&store), settings, Clock::system(), cancel.clone());
    let devices = devices::start(Arc::clone(&store), &device::Settings::default(), &cancel);
    let notices = Notices::start(Arc::clone(&store), Clock::system(), 5 * SECOND, 1000, cancel.clone());
    let live = || (revocations.state() == State::Live, devices.is_live(), notices.is_live());
    redis::until(5 * SECOND, || live() == (true, true, true)).await;
    let compliant = async || {
        let query = DeviceQuery { id: Some("laptop"), ..DeviceQuery::default() };
        let seen = devices.look_up(&query, Instant::now() + Duration::from_millis(150)).await;
        seen.value().and_then(|seen| seen.record.as_ref()?.compliant)
    };
    assert_eq!(compliant().await, Some(true));

    proxy.deafen(true);
    server.cli(&["HSET", "cs:device:laptop", "compliant", "false"]);
    let changed = Instant::now();
    while compliant().await != Some(false) {
        assert!(changed.elapsed() < 3 * SECOND, "an old record is still believed");
        sleep(Duration::from_millis(20)).await;
    }
    // Nor is the next connection, which is as deaf.
    for _ in 0..20 {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(live(), (false, false, false));
    }

    proxy.deafen(false);
    redis::until(5 * SECOND, || live() == (true, true, true)).await;
    revocations.revoke(RevocationKind::Token, "t", "lost", None).await.unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(live(), (true, true, true), "and it stays so");
    cancel.cancel();
}
