//! A Redis that is slow, or takes connections and says nothing: checks are answered in time, as unknown, and nothing
//! piles up.

use std::time::Duration;

use countersign::revocation::{CheckedAt, State};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use super::{Replica, SECOND, clear, proxy::Proxy, redis, token};

/// Asks for many tokens at once that nobody has seen; each must be answered in time, and none as "not revoked".
async fn none_passes_and_none_waits(replica: &Replica) {
    let begin = Instant::now();
    let checks = (0..200)
        .map(|index| async move { replica.check(&token(&format!("fresh{index}")), &CheckedAt::default()).await });
    for fact in futures_util::future::join_all(checks).await {
        assert!(fact.is_unavailable(), "{fact:?}");
    }
    // One deadline of 150 ms for all of them together, with room for a busy machine.
    assert!(begin.elapsed() < SECOND, "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_answers_after_a_second_is_no_answer_and_no_pile_up() {
    let server = redis::Redis::start().await;
    let (proxy, address) = Proxy::start(server.port).await;
    let replica = Replica::live(&format!("redis://{address}/0")).await;
    assert!(clear(&replica.check(&token("fresh0"), &CheckedAt::default()).await));
    proxy.delay(SECOND);
    redis::until(5 * SECOND, || replica.revocations.state() != State::Live).await;
    let taken = proxy.taken();
    for _ in 0..5 {
        none_passes_and_none_waits(&replica).await;
    }
    let more = proxy.taken() - taken;
    assert!(more < 20, "{more} connections were opened for a thousand checks");
    proxy.delay(Duration::ZERO);
    let back = Instant::now();
    replica.becomes(State::Live).await;
    // What is still on its way takes its second.
    assert!(back.elapsed() < 4 * SECOND, "{:?}", back.elapsed());
    assert!(clear(&replica.check(&token("fresh0"), &CheckedAt::default()).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_connections_and_says_nothing_is_never_not_revoked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = Replica::new(&format!("redis://{}/0", listener.local_addr().unwrap()));
    let silent = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    for _ in 0..3 {
        none_passes_and_none_waits(&replica).await;
    }
    assert!(!replica.revocations.ready());
    silent.abort();
}

/// It greets, takes the tracking, and answers nothing else, for as long as that takes.
#[tokio::test]
async fn a_redis_that_loads_its_data_is_tried_seldom_and_followed_when_it_has() {
    let slowly = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
    let mut server = redis::Redis::with(&slowly).await;
    server.cli(&["EVAL", "for i = 1, 3000 do redis.call('SET', 'cs:t:load:' .. i, 'x') end", "0"]);
    server.cli(&["SET", "cs:revoked:jti:loaded", "x", "EX", "600"]);
    let replica = Replica::live(&server.url()).await;
    server.cli(&["SAVE"]);
    server.kill();
    redis::until(SECOND, || replica.revocations.counters().lost.get() == 1).await;
    let begun = Instant::now();
    server.restart().await;
    assert!(begun.elapsed() > 2 * SECOND, "it has loaded nothing: {:?}", begun.elapsed());
    replica.becomes(State::Live).await;
    // Each connection greets twice.
    assert!(server.calls("hello") < 50, "{} greetings", server.calls("hello"));
    assert_eq!(replica.revocations.counters().lost.get(), 1, "connected once");
    assert!(replica.is_revoked(&token("loaded")).await);
}

/// It takes no writes then, and refuses a ping as well.
#[tokio::test]
async fn a_redis_that_cannot_save_its_data_is_still_followed() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    server.cli(&["SET", "cs:revoked:jti:before", "x", "EX", "600"]);
    redis::until(SECOND, || replica.revocations.len() == 1).await;
    server.cli(&["CONFIG", "SET", "save", "3600 1"]);
    std::fs::remove_dir_all(server.folder.path()).unwrap();
    server.cli(&["BGSAVE"]);
    redis::until(5 * SECOND, || server.cli(&["PING"]).contains("MISCONF")).await;
    sleep(2 * SECOND).await;
    assert_eq!((replica.revocations.state(), replica.revocations.counters().lost.get()), (State::Live, 0));
    assert!(replica.is_revoked(&token("before")).await);
    assert!(clear(&replica.check(&token("other"), &CheckedAt::default()).await));
}
