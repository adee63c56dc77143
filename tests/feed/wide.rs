//! Revoking what is revoked already: nothing is narrowed or shortened, on whichever replica and from whenever on.

use std::time::Duration;

use countersign::{clock::Clock, domain::RevocationKind};
use tokio::time::sleep;

use super::{Replica, SECOND, redis, token};

/// A token of the subject `sub-<id>` that is issued in a minute.
fn later(id: &str) -> countersign::domain::Identity {
    let mut identity = token(id);
    identity.issued_at = identity.issued_at.plus(120 * SECOND);
    identity
}

#[tokio::test]
async fn a_subject_that_is_barred_for_good_stays_so_when_it_is_revoked_up_to_now() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    for (id, value) in [("n1", "terminated"), ("n2", "4102444800"), ("n3", "1e12"), ("n4", "1690000000 fired")] {
        server.cli(&["SET", &format!("cs:revoked:sub:sub-{id}"), value]);
        replica.revocations.revoke(RevocationKind::Subject, &format!("sub-{id}"), "leaving", None).await.unwrap();
    }
    sleep(Duration::from_millis(300)).await;
    let fresh = Replica::live(&server.url()).await;
    for id in ["n1", "n2", "n3", "n4"] {
        assert!(replica.is_revoked(&later(id)).await && fresh.is_revoked(&later(id)).await, "{id}");
        assert_eq!(server.cli(&["TTL", &format!("cs:revoked:sub:sub-{id}")]), "-1", "{id}: without an end, as it was");
    }
    replica.revocations.revoke(RevocationKind::Subject, "sub-n5", "leaving", None).await.unwrap();
    assert!(replica.is_revoked(&token("n5")).await && !replica.is_revoked(&later("n5")).await);
}

#[tokio::test]
async fn what_is_written_back_covers_as_much_as_what_was_lost() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    server.cli(&["SET", "cs:revoked:sub:sub-w", "terminated"]);
    redis::until(SECOND, || replica.revocations.len() == 1).await;
    sleep(Duration::from_millis(100)).await;
    server.cli(&["SET", "cs:revoked:sub:sub-w", "1790000000", "EX", "600"]);
    sleep(Duration::from_millis(300)).await;
    server.cli(&["FLUSHALL"]);
    redis::until(2 * SECOND, || server.cli(&["GET", "cs:revoked:sub:sub-w"]) == "terminated").await;
}

#[tokio::test]
async fn who_revokes_is_told_what_is_in_force() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    let revoke =
        async |kind, id: &'static str, life| replica.revocations.revoke(kind, id, "asked", life).await.unwrap();
    let minutes = |count: u32| Some(60 * count * SECOND);
    revoke(RevocationKind::Token, "t", minutes(60)).await;
    let longer = revoke(RevocationKind::Token, "t", minutes(1)).await;
    assert!(longer.life > minutes(59) && longer.life <= minutes(60) && longer.reason == "asked", "{longer:?}");
    let now = revoke(RevocationKind::Subject, "s", minutes(1)).await;
    assert!(now.life <= minutes(1) && now.issued_until.is_some(), "{now:?}");
    server.cli(&["SET", "cs:revoked:sub:s", "4102444800"]);
    let until = revoke(RevocationKind::Subject, "s", minutes(1)).await;
    assert_eq!((until.life, until.issued_until.unwrap().as_secs()), (None, 4_102_444_800));
    server.cli(&["SET", "cs:revoked:sub:s", "terminated"]);
    let barred = revoke(RevocationKind::Subject, "s", minutes(1)).await;
    assert_eq!((barred.life, barred.issued_until, barred.reason.as_str()), (None, None, "terminated"));
}

#[tokio::test]
async fn a_device_that_is_revoked_for_good_is_not_let_back_by_revoking_it_for_a_moment() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    server.cli(&["SET", "cs:revoked:device:laptop", "stolen"]);
    let told = replica.revocations.revoke(RevocationKind::Device, "laptop", "again", Some(SECOND)).await.unwrap();
    assert_eq!(told.life, None, "what is in force is told, not what was asked for");
    sleep(Duration::from_millis(1500)).await;
    let fresh = Replica::live(&server.url()).await;
    assert!(fresh.is_revoked(&token("x")).await && replica.is_revoked(&token("x")).await);
}

/// A workload gets its next certificate by itself, and tokens end.
#[tokio::test]
async fn a_revoked_workload_stays_so_with_its_next_certificate_until_it_is_taken_back() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    for (id, reason) in [("spiffe://td.example/cart", "stolen"), ("spiffe://td.example/shop", "1700000000")] {
        let mut next = later(id);
        next.subject = id.into();
        replica.revocations.revoke_until(id, Clock::system().now()).await.unwrap();
        assert!(!replica.is_revoked(&next).await, "a signal is about what was issued up to it");
        let told = replica.revocations.revoke(RevocationKind::Subject, id, reason, None).await.unwrap();
        assert_eq!((told.life, told.issued_until), (None, None));
        sleep(Duration::from_millis(300)).await;
        let fresh = Replica::live(&server.url()).await;
        assert!(replica.is_revoked(&next).await && fresh.is_revoked(&next).await, "{reason}");
    }
    assert!(replica.revocations.revoke(RevocationKind::Subject, "alice", "left", None).await.unwrap().life.is_some());
}

/// No file descriptor left on the server, or every sentinel dead: what is connected goes on.
#[tokio::test]
async fn where_no_second_connection_can_be_had_a_revocation_is_written_over_the_first() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    server.cli(&["CONFIG", "SET", "maxclients", "1"]);
    replica.revocations.revoke(RevocationKind::Token, "m", "lost", None).await.unwrap();
    let held = replica.store.read(&["cs:revoked:jti:m".to_owned()]).await.unwrap().pop().unwrap().unwrap();
    assert_eq!(held.unwrap().value, b"lost");
    assert_eq!(replica.revocations.counters().unreplicated.get(), 0, "not known is not at risk");

    let mut servers = redis::Sentinel::start().await;
    let replica = Replica::live(&servers.url()).await;
    servers.sentinel.kill();
    replica.revocations.revoke(RevocationKind::Token, "s", "lost", None).await.unwrap();
    assert_eq!(servers.master.cli(&["GET", "cs:revoked:jti:s"]), "lost");
}
