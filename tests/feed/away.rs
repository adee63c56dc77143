//! What happens at the store while a replica does not hear of it, or what the store does not let it do: undone
//! revocations, other data, writes that are refused, a scan that cannot finish, memory that is full.

use std::time::Duration;

use countersign::{
    clock::Clock,
    domain::RevocationKind,
    revocation::{CheckedAt, OnLoss, Settings, State},
};
use tokio::time::{Instant, sleep};

use super::{Replica, SECOND, clear, devices, notices, proxy::Proxy, redis, token};

#[tokio::test]
async fn what_was_reinstated_while_a_replica_was_away_is_so_there_even_where_its_key_had_ended() {
    let server = redis::Redis::start().await;
    let (proxy, address) = Proxy::start(server.port).await;
    let away = Replica::live(&format!("redis://{address}/0")).await;
    let other = Replica::live(&server.url()).await;
    for id in ["ended", "deleted", "kept"] {
        other.revocations.revoke(RevocationKind::Token, id, "lost", Some(SECOND)).await.unwrap();
    }
    other.revocations.revoke(RevocationKind::Device, "phone", "lost", None).await.unwrap();
    redis::until(SECOND, || away.revocations.len() == 4).await;
    server.cli(&["DEL", "cs:revoked:jti:deleted", "cs:revoked:device:phone"]);
    sleep(Duration::from_millis(1500)).await;
    proxy.delay(20 * SECOND);
    redis::until(5 * SECOND, || away.revocations.state() != State::Live).await;
    for id in ["ended", "deleted"] {
        assert!(other.revocations.reinstate(RevocationKind::Token, id).await.unwrap(), "{id} was refused until now");
    }
    assert!(!other.revocations.reinstate(RevocationKind::Token, "never").await.unwrap());
    proxy.delay(Duration::ZERO);
    away.becomes(State::Live).await;
    for id in ["ended", "deleted"] {
        assert!(!away.is_revoked(&token(id)).await && !other.is_revoked(&token(id)).await, "{id}");
    }
    assert!(away.is_revoked(&token("kept")).await, "absence takes nothing back");
    assert_eq!(
        server.cli(&["EXISTS", "cs:revoked:jti:kept", "cs:revoked:device:phone"]),
        "0",
        "nor is it written back"
    );
}

/// What has no end is remembered for longer than a token can live.
#[tokio::test]
async fn what_was_revoked_for_good_and_undone_stays_so_however_long_a_replica_was_away() {
    let server = redis::Redis::start().await;
    let (proxy, address) = Proxy::start(server.port).await;
    let settings = || Settings { max_lifetime: SECOND.into(), ..Settings::default() };
    let away = Replica::with(&format!("redis://{address}/0"), settings());
    let other = Replica::with(&server.url(), settings());
    away.becomes(State::Live).await;
    other.becomes(State::Live).await;
    other.revocations.revoke(RevocationKind::Device, "laptop", "lost", None).await.unwrap();
    redis::until(SECOND, || away.revocations.len() == 1).await;
    sleep(Duration::from_millis(300)).await;
    proxy.delay(20 * SECOND);
    redis::until(5 * SECOND, || away.revocations.state() != State::Live).await;
    assert!(other.revocations.reinstate(RevocationKind::Device, "laptop").await.unwrap());
    sleep(2 * SECOND).await;
    proxy.delay(Duration::ZERO);
    away.becomes(State::Live).await;
    assert!(!away.is_revoked(&token("t")).await && !other.is_revoked(&token("t")).await);
    assert_eq!(server.cli(&["EXISTS", "cs:revoked:device:laptop"]), "0", "nor is it written back");
}

#[tokio::test]
async fn other_data_under_us_is_noticed_and_everything_read_again() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    let (said, seen) = (notices::Replica::live(&server.url()).await, devices::Replica::live(&server.url()).await);
    replica.revocations.revoke(RevocationKind::Token, "before", "lost", None).await.unwrap();
    server.cli(&["HSET", "cs:device:laptop", "user", "ann"]);
    assert!(seen.sight().await.value().is_some_and(|seen| seen.record.is_some()));
    for command in [
        ["SET", "cs:canary", "countersign:other"],
        ["SET", "cs:revoked:jti:swapped", "x"],
        ["SET", "cs:notice:account:sub:sub-swapped", "7160000000000 disabled"],
    ] {
        server.cli(&[&["-n", "5"][..], &command].concat());
    }
    sleep(Duration::from_millis(1500)).await;
    server.cli(&["SWAPDB", "0", "5"]);
    redis::until(5 * SECOND, || replica.revocations.counters().emptied.get() == 1).await;
    replica.becomes(State::Live).await;
    assert!(replica.is_revoked(&token("swapped")).await && replica.is_revoked(&token("before")).await);
    assert_eq!(server.cli(&["GET", "cs:revoked:jti:before"]), "lost", "and what was remembered is written back");
    // Those have feeds of their own here.
    let end = Instant::now() + 5 * SECOND;
    while seen.sight().await.value().is_none_or(|seen| seen.record.is_some())
        || !said.of("swapped").await.value().is_some_and(|notice| notice.disabled)
    {
        assert!(Instant::now() < end, "devices and notices are not read again");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The store as it was some time ago, under the connections that there are: a copy, canary and all.
#[tokio::test]
async fn a_copy_of_the_data_put_in_its_place_is_noticed_by_its_age() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    let said = notices::Replica::live(&server.url()).await;
    sleep(Duration::from_millis(1500)).await;
    for key in server.cli(&["KEYS", "cs:*"]).lines() {
        server.cli(&["COPY", key, key, "DB", "5"]);
    }
    server.cli(&["-n", "5", "SET", "cs:revoked:jti:swapped", "x"]);
    replica.revocations.revoke(RevocationKind::Token, "since", "lost", None).await.unwrap();
    sleep(Duration::from_millis(2500)).await;
    let lost = replica.revocations.counters().lost.get();
    assert_eq!(lost, 0, "nothing is wrong yet");
    server.cli(&["SWAPDB", "0", "5"]);
    redis::until(5 * SECOND, || server.cli(&["GET", "cs:revoked:jti:since"]) == "lost").await;
    redis::until(5 * SECOND, || replica.revocations.counters().lost.get() > 0).await;
    replica.becomes(State::Live).await;
    assert!(replica.is_revoked(&token("swapped")).await && replica.is_revoked(&token("since")).await);
    drop(said);
}

/// A flush of any database is told of as if it were of ours, and hides no exchange that follows.
#[tokio::test]
async fn other_data_without_a_canary_is_noticed_whenever_another_database_was_flushed() {
    let server = redis::Redis::start().await;
    // Nobody writes to the store in between: the feed finds out by itself.
    let settings = Settings { canary_interval: (3600 * SECOND).into(), ..Settings::default() };
    let replica = Replica::with(&server.url(), settings);
    replica.becomes(State::Live).await;
    sleep(SECOND).await;
    for round in 0..6 {
        server.cli(&["-n", "5", "FLUSHDB"]);
        sleep(Duration::from_millis(150 * (round % 3))).await;
        let id = format!("round{round}");
        server.cli(&["-n", "5", "SET", &format!("cs:revoked:jti:{id}"), "x"]);
        server.cli(&["SWAPDB", "0", "5"]);
        redis::until(3 * SECOND, || replica.revocations.len() as u64 == round + 1).await;
        sleep(Duration::from_millis(400)).await;
        replica.becomes(State::Live).await;
        assert!(replica.is_revoked(&token(&id)).await);
    }
}

/// An older value of the same key, by a restored backup or a failover to a server that lagged behind.
#[tokio::test]
async fn what_a_store_says_less_than_it_did_is_given_back_to_it() {
    let mut server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    let (revocations, now) = (&replica.revocations, Clock::system().now().as_secs());
    let (old, narrow) = ((now - 600).to_string(), (now - 300).to_string());
    for [key, value, life] in [
        ["cs:revoked:sub:sub-later", &old, "600"],
        ["cs:revoked:sub:sub-narrowed", &old, "600"],
        ["cs:revoked:jti:longer", "lost", "60"],
        ["cs:revoked:device:phone", "lost", "600"],
    ] {
        server.cli(&["SET", key, value, "EX", life]);
    }
    redis::until(SECOND, || revocations.len() == 4).await;
    server.cli(&["SAVE"]);
    for (kind, id, life) in [
        (RevocationKind::Subject, "sub-later", None),
        (RevocationKind::Subject, "sub-narrowed", None),
        (RevocationKind::Token, "longer", Some(900 * SECOND)),
        (RevocationKind::Device, "phone", None),
    ] {
        revocations.revoke(kind, id, "lost", life).await.unwrap();
    }
    sleep(Duration::from_millis(300)).await;
    // By hand and heard of: as somebody wants it.
    server.cli(&["SET", "cs:revoked:sub:sub-narrowed", &narrow, "EX", "900"]);
    sleep(Duration::from_millis(300)).await;
    server.kill();
    server.restart().await;
    redis::until(10 * SECOND, || revocations.counters().restored.get() == 4).await;
    replica.becomes(State::Live).await;
    assert!(server.cli(&["GET", "cs:revoked:sub:sub-later"]).parse::<u64>().unwrap() >= now);
    assert_eq!(server.cli(&["GET", "cs:revoked:sub:sub-narrowed"]), narrow);
    assert!(server.cli(&["TTL", "cs:revoked:jti:longer"]).parse::<u64>().unwrap() > 600);
    assert_eq!(server.cli(&["TTL", "cs:revoked:device:phone"]), "-1");
    let fresh = Replica::live(&server.url()).await;
    assert!(fresh.is_revoked(&token("later")).await && !fresh.is_revoked(&token("narrowed")).await);
    assert!(replica.is_revoked(&token("later")).await);
    // Nothing is fought over once it is live again.
    server.cli(&["SET", "cs:revoked:sub:sub-later", &old, "EX", "900"]);
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.cli(&["GET", "cs:revoked:sub:sub-later"]), old);
    assert_eq!(revocations.counters().restored.get(), 4);
}

#[tokio::test]
async fn a_store_that_came_back_empty_and_takes_no_writes_is_known_as_a_whole_and_asked_seldom() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    replica.revocations.revoke(RevocationKind::Token, "o", "lost", None).await.unwrap();
    server.cli(&["FLUSHALL"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    // Whatever was written back in between goes as well.
    server.cli(&["FLUSHALL"]);
    redis::until(5 * SECOND, || replica.revocations.counters().unwritten.get() > 0).await;
    replica.becomes(State::Live).await;
    assert!(replica.is_revoked(&token("o")).await && clear(&replica.check(&token("p"), &CheckedAt::default()).await));
    // The feed finds `cs:canary` gone, once.
    sleep(2 * SECOND).await;
    let (scans, alarms) = (server.calls("scan"), replica.revocations.counters().emptied.get());
    sleep(4 * SECOND).await;
    assert_eq!(server.calls("scan"), scans, "what was read is not read again");
    assert_eq!(replica.revocations.counters().emptied.get(), alarms, "one alarm for one loss");
    assert!(replica.revocations.counters().unwritten.get() < 15, "{}", replica.revocations.counters().unwritten.get());
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    redis::until(5 * SECOND, || server.cli(&["GET", "cs:revoked:jti:o"]) == "lost").await;
    redis::until(5 * SECOND, || server.cli(&["EXISTS", "cs:canary"]) == "1").await;
}

#[tokio::test]
async fn a_canary_of_another_type_keeps_nobody_from_reading() {
    let server = redis::Redis::start().await;
    server.cli(&["RPUSH", "cs:canary", "x"]);
    server.cli(&["SET", "cs:revoked:jti:c", "lost"]);
    for on_loss in [OnLoss::Serve, OnLoss::Refuse] {
        let replica = Replica::with(&server.url(), Settings { on_loss, ..Settings::default() });
        replica.becomes(State::Live).await;
        assert!(replica.is_revoked(&token("c")).await && replica.revocations.counters().unwritten.get() > 0);
    }
}

#[tokio::test]
async fn a_scan_that_is_not_permitted_is_tried_again_seldom() {
    let server = redis::Redis::with(&["--user", "countersign", "on", ">s3cret", "~*", "&*", "+@all", "-scan"]).await;
    let url = format!("redis://countersign:s3cret@127.0.0.1:{}/0", server.port);
    let (replica, cancel) = (Replica::new(&url), tokio_util::sync::CancellationToken::new());
    let store = countersign::store::redis::Redis::open(&url, &cancel).unwrap();
    let clock = Clock::system();
    let said = countersign::notice::Notices::start(store, clock, 5 * SECOND, 1_000_000, cancel.clone());
    sleep(4 * SECOND).await;
    let rejected = server.cli(&["INFO", "commandstats"]);
    let scans = rejected.lines().find_map(|line| line.strip_prefix("cmdstat_scan:")?.split_once("rejected_calls="));
    let scans: u32 = scans.unwrap().1.split(',').next().unwrap().parse().unwrap();
    assert!((4..40).contains(&scans), "{scans} by two who look");
    assert!(!replica.revocations.ready() && !said.is_live());
    server.cli(&["ACL", "SETUSER", "countersign", "+scan"]);
    replica.becomes(State::Live).await;
    redis::until(5 * SECOND, || said.is_live()).await;
    cancel.cancel();
}

#[tokio::test]
async fn memory_that_was_full_is_whole_again_by_itself_when_there_is_room() {
    let server = redis::Redis::start().await;
    let replica = Replica::with(&server.url(), Settings { max_entries: 20, ..Settings::default() });
    replica.becomes(State::Live).await;
    for index in 0..30 {
        server.cli(&["SET", &format!("cs:revoked:jti:f{index}"), "x", "EX", "600"]);
    }
    redis::until(SECOND, || replica.revocations.is_full()).await;
    // All replicas are full at once: one that said it is not ready would take the service away.
    assert!(replica.revocations.ready() && replica.revocations.state() != State::Live);
    for index in 0..30 {
        assert!(replica.is_revoked(&token(&format!("f{index}"))).await, "f{index}: asked for where it had no room");
    }
    for index in 0..20 {
        replica.revocations.reinstate(RevocationKind::Token, &format!("f{index}")).await.unwrap();
    }
    redis::until(25 * SECOND, || !replica.revocations.is_full()).await;
    replica.becomes(State::Live).await;
    for index in 20..30 {
        assert!(replica.is_revoked(&token(&format!("f{index}"))).await, "f{index}");
    }
    assert!(clear(&replica.check(&token("f0"), &CheckedAt::default()).await));
}
