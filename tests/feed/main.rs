//! The feed against real Redis servers that are killed, paused, flushed and cut off: not one wrong "not revoked".

#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/redis.rs"]
mod redis;

mod away;
mod deaf;
mod devices;
mod interleaved;
mod notices;
mod slow;
mod switch;
mod undone;
mod wide;

use std::{sync::Arc, time::Duration};

use countersign::{
    clock::Clock,
    domain::{AuthMethods, DeviceId, Fact, Identity, Revocation, RevocationKind, SubjectKind, UnixTime},
    revocation::{CheckedAt, OnLoss, Revocations, Settings, State},
    store::{Store, Watch, redis::Redis},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

/// One replica: its own connections, its own memory.
struct Replica {
    revocations: Arc<Revocations>,
    store: Arc<dyn Store>,
    cancel: CancellationToken,
}

impl Replica {
    fn new(url: &str) -> Self {
        Self::with(url, Settings::default())
    }

    fn with(url: &str, settings: Settings) -> Self {
        let cancel = CancellationToken::new();
        let store: Arc<dyn Store> = Redis::open(url, &cancel).unwrap();
        let revocations = Revocations::start(Arc::clone(&store), settings, Clock::system(), cancel.clone());
        Self { revocations, store, cancel }
    }

    async fn live(url: &str) -> Self {
        let replica = Self::new(url);
        replica.becomes(State::Live).await;
        replica
    }

    async fn becomes(&self, state: State) {
        redis::until(20 * SECOND, || self.revocations.state() == state).await;
    }

    async fn check(&self, identity: &Identity, slot: &CheckedAt) -> Fact<Revocation> {
        let deadline = Instant::now() + Duration::from_millis(150);
        self.revocations.check(identity, Some(&device()), slot, Clock::system().now(), deadline).await
    }

    async fn is_revoked(&self, identity: &Identity) -> bool {
        let fact = self.check(identity, &CheckedAt::default()).await;
        matches!(fact, Fact::Known { value: Revocation::Revoked(_), .. })
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn device() -> DeviceId {
    DeviceId::from("laptop")
}

fn token(id: &str) -> Identity {
    let now = Clock::system().now();
    Identity {
        issuer: "https://issuer.example".into(),
        subject: format!("sub-{id}").into(),
        kind: SubjectKind::Person,
        token_id: id.into(),
        session: format!("sid-{id}").into(),
        session_claimed: true,
        client_id: None,
        methods: AuthMethods::NONE,
        acr: None,
        auth_time: None,
        issued_at: now.minus(Duration::from_secs(60)),
        issue_unstated: false,
        expires_at: now.plus(Duration::from_secs(3600)),
        valid_until: None,
        roles: Vec::new(),
        permissions: Vec::new(),
        scopes: Vec::new(),
        device: None,
        confirmation: None,
        audience: "api".into(),
        attributes: Default::default(),
    }
}

fn clear(fact: &Fact<Revocation>) -> bool {
    matches!(fact, Fact::Known { value: Revocation::Clear, .. })
}

/// Waits until every replica refuses; gives the longest it took.
async fn all_refuse(replicas: &[Replica], identity: &Identity, slots: &[CheckedAt]) -> Duration {
    let begin = Instant::now();
    for (replica, slot) in replicas.iter().zip(slots) {
        while clear(&replica.check(identity, slot).await) {
            assert!(begin.elapsed() < 5 * SECOND, "still clear after five seconds");
            tokio::task::yield_now().await;
        }
    }
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_set_is_refused_by_every_replica_whatever_it_names() {
    let server = redis::Redis::start().await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::live(&server.url()).await);
    }
    let far = (Clock::system().now().as_secs() + 600).to_string();
    for (index, (key, value)) in [
        ("cs:revoked:jti:t0", "x"),
        ("cs:revoked:sid:sid-t1", "x"),
        ("cs:revoked:sub:sub-t2", far.as_str()),
        ("cs:revoked:sub:sub-t3", "all of them"),
        ("cs:revoked:device:laptop", "stolen"),
    ]
    .into_iter()
    .enumerate()
    {
        let identity = token(&format!("t{index}"));
        let slots: Vec<_> = replicas.iter().map(|_| CheckedAt::default()).collect();
        for (replica, slot) in replicas.iter().zip(&slots) {
            assert!(clear(&replica.check(&identity, slot).await), "warm before");
            assert!(clear(&replica.check(&identity, slot).await));
        }
        server.cli(&["SET", key, value, "EX", "600"]);
        let took = all_refuse(&replicas, &identity, &slots).await;
        assert!(took < SECOND, "{key}: {took:?}");
    }
}

#[tokio::test]
async fn a_subject_is_revoked_up_to_a_time_and_no_further() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    let identity = token("a");
    let before = (identity.issued_at.as_secs() - 1).to_string();
    server.cli(&["SET", "cs:revoked:sub:sub-a", &before, "EX", "600"]);
    sleep(Duration::from_millis(300)).await;
    assert!(!replica.is_revoked(&identity).await, "issued after");
    server.cli(&["SET", "cs:revoked:sub:sub-a", &identity.issued_at.as_secs().to_string(), "EX", "600"]);
    sleep(Duration::from_millis(300)).await;
    assert!(replica.is_revoked(&identity).await, "issued at that second");
}

#[tokio::test]
async fn a_slow_clock_of_who_revokes_a_subject_lets_no_token_through() {
    let server = redis::Redis::start().await;
    let (other, identity) = (Replica::live(&server.url()).await, token("a"));
    let slow = Clock::manual(identity.issued_at.minus(20 * SECOND));
    let cancel = CancellationToken::new();
    let _ended = cancel.clone().drop_guard();
    let revocations = Revocations::start(Arc::clone(&other.store), Settings::default(), slow.clone(), cancel);
    revocations.revoke(RevocationKind::Subject, "sub-a", "stolen", None).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert!(other.is_revoked(&identity).await, "issued before, by every clock but that one");
    // Nor does one that is lost for hours shut everybody out for as long.
    slow.set(identity.issued_at.minus(3600 * SECOND));
    let until = revocations.revoke(RevocationKind::Subject, "sub-b", "", None).await.unwrap().issued_until.unwrap();
    assert_eq!(until, UnixTime::from_secs(identity.issued_at.as_secs() - 3300));
}

#[tokio::test]
async fn warm_checks_cost_no_command_and_cold_ones_no_look_up_of_revocations() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    let (warm, slot) = (token("warm"), CheckedAt::default());
    let before = server.calls("getrange") + server.calls("pttl") + server.calls("exists") + server.calls("get");
    let canaries = server.calls("set");
    for index in 0..1000 {
        assert!(clear(&replica.check(&warm, &slot).await));
        assert!(clear(&replica.check(&token(&format!("cold{index}")), &CheckedAt::default()).await));
    }
    let after = server.calls("getrange") + server.calls("pttl") + server.calls("exists") + server.calls("get");
    // Each canary that comes round is read once with its two commands, and the feed looks at the store's as often.
    let allowed = 3 * (server.calls("set") - canaries + 1);
    assert!(after - before <= allowed, "{} commands", after - before);
}

#[tokio::test]
async fn only_a_reinstatement_takes_a_revocation_back() {
    let server = redis::Redis::start().await;
    let (one, two) = (Replica::live(&server.url()).await, Replica::live(&server.url()).await);
    let identity = token("r");
    one.revocations.revoke(RevocationKind::Token, "r", "lost", None).await.unwrap();
    assert!(one.is_revoked(&identity).await, "at once where it was written");
    redis::until(SECOND, || two.revocations.len() == 1).await;
    sleep(Duration::from_millis(200)).await;
    server.cli(&["DEL", "cs:revoked:jti:r"]);
    sleep(Duration::from_millis(300)).await;
    assert!(one.is_revoked(&identity).await && two.is_revoked(&identity).await, "absence takes nothing back");
    one.revocations.reinstate(RevocationKind::Token, "r").await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert!(!one.is_revoked(&identity).await && !two.is_revoked(&identity).await);
    server.cli(&["SET", "cs:revoked:jti:r", "again", "EX", "600"]);
    sleep(Duration::from_millis(300)).await;
    assert!(one.is_revoked(&identity).await && two.is_revoked(&identity).await, "a newer revocation counts");
    let fresh = Replica::live(&server.url()).await;
    assert!(fresh.is_revoked(&identity).await, "and does for one that comes later");
    server.cli(&["SET", "cs:reinstated:jti:r", "by hand", "EX", "600"]);
    sleep(Duration::from_millis(300)).await;
    assert!(!one.is_revoked(&identity).await && !fresh.is_revoked(&identity).await, "by hand, without deleting");
}

#[tokio::test]
async fn keys_of_the_wrong_type_and_huge_values_are_never_not_revoked() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    server.cli(&["RPUSH", "cs:revoked:jti:list", "x"]);
    server.cli(&["SETRANGE", "cs:revoked:jti:huge", "52428800", "x"]);
    sleep(Duration::from_millis(500)).await;
    for id in ["list", "huge"] {
        let fact = replica.check(&token(id), &CheckedAt::default()).await;
        assert!(fact.is_unavailable(), "{id}: {fact:?}");
    }
    let begin = Instant::now();
    assert!(clear(&replica.check(&token("other"), &CheckedAt::default()).await));
    assert!(begin.elapsed() < SECOND, "others do not wait");
    let fresh = Replica::live(&server.url()).await;
    assert!(fresh.check(&token("list"), &CheckedAt::default()).await.is_unavailable());
}

#[tokio::test]
async fn ids_are_taken_whole_and_never_as_patterns() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    server.cli(&["SET", "cs:revoked:jti:*", "x", "EX", "600"]);
    server.cli(&["SET", "cs:revoked:jti:a:b", "x", "EX", "600"]);
    sleep(Duration::from_millis(300)).await;
    for (id, revoked) in [("*", true), ("a:b", true), ("a", false), ("b", false), ("a:b:c", false), ("a\r\nb\0", false)]
    {
        assert_eq!(replica.is_revoked(&token(id)).await, revoked, "{id:?}");
    }
    replica.revocations.revoke(RevocationKind::Token, "a\r\nb\0", "x", None).await.unwrap();
    assert!(replica.is_revoked(&token("a\r\nb\0")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twenty_times_under_load_nothing_revoked_ever_passes() {
    let mut server = redis::Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let replica = Replica::live(&server.url()).await;
    let revoked = token("killed");
    server.cli(&["SET", "cs:revoked:jti:killed", "x", "EX", "600"]);
    redis::until(SECOND, || replica.revocations.len() == 1).await;
    sleep(Duration::from_millis(100)).await;
    let load = {
        let revocations = Arc::clone(&replica.revocations);
        tokio::spawn(async move {
            let (slot, fine, fine_slot, mut checks) =
                (CheckedAt::default(), token("fine"), CheckedAt::default(), 0_u64);
            loop {
                let (now, deadline) = (Clock::system().now(), Instant::now() + Duration::from_millis(150));
                let fact = revocations.check(&revoked, None, &slot, now, deadline).await;
                assert!(!clear(&fact), "a revoked token passed");
                revocations.check(&fine, None, &fine_slot, now, deadline).await;
                checks += 1;
                if checks.is_multiple_of(64) {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        })
    };
    for round in 0..20 {
        server.kill();
        sleep(Duration::from_millis(50)).await;
        server.restart().await;
        let back = Instant::now();
        replica.becomes(State::Live).await;
        assert!(back.elapsed() < 2 * SECOND, "round {round}: live again after {:?}", back.elapsed());
        let id = format!("round{round}");
        server.cli(&["SET", &format!("cs:revoked:jti:{id}"), "x", "EX", "600"]);
        let begin = Instant::now();
        while !replica.is_revoked(&token(&id)).await {
            assert!(begin.elapsed() < SECOND, "round {round}: not revoked after a second");
            sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(!load.is_finished(), "the load ended: a revoked token passed");
    load.abort();
}

#[tokio::test]
async fn a_hung_server_is_noticed_and_what_was_checked_before_passes_for_five_seconds_at_most() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    let (known, slot) = (token("known"), CheckedAt::default());
    assert!(clear(&replica.check(&known, &slot).await));
    server.pause();
    sleep(Duration::from_millis(600)).await;
    assert_ne!(replica.revocations.state(), State::Live);
    assert!(clear(&replica.check(&known, &slot).await), "checked a moment ago");
    assert!(replica.check(&token("new"), &CheckedAt::default()).await.is_unavailable(), "never seen");
    sleep(5 * SECOND).await;
    let begin = Instant::now();
    assert!(replica.check(&known, &slot).await.is_unavailable(), "too long ago");
    assert!(begin.elapsed() < SECOND, "and said in time: {:?}", begin.elapsed());
    server.resume();
    let back = Instant::now();
    replica.becomes(State::Live).await;
    assert!(back.elapsed() < 2 * SECOND, "{:?}", back.elapsed());
    assert!(clear(&replica.check(&known, &slot).await));
}

#[tokio::test]
async fn a_flushed_store_gets_its_revocations_back_from_whoever_remembers_them() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    replica.revocations.revoke(RevocationKind::Token, "f", "stolen", Some(60 * SECOND)).await.unwrap();
    replica.revocations.revoke(RevocationKind::Device, "phone", "stolen", None).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    server.cli(&["FLUSHALL"]);
    redis::until(2 * SECOND, || server.cli(&["GET", "cs:revoked:jti:f"]) == "stolen").await;
    let left: i64 = server.cli(&["TTL", "cs:revoked:jti:f"]).parse().unwrap();
    assert!((50..=60).contains(&left), "with its remaining life: {left}");
    redis::until(2 * SECOND, || server.cli(&["TTL", "cs:revoked:device:phone"]) == "-1").await;
    assert!(replica.is_revoked(&token("f")).await);
    assert_eq!(replica.revocations.counters().emptied.get(), 1);
    assert!(clear(&replica.check(&token("other"), &CheckedAt::default()).await), "and it serves");
}

#[tokio::test]
async fn a_server_that_restarts_empty_gets_its_revocations_back() {
    let mut server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    server.cli(&["SET", "cs:revoked:jti:e", "gone", "EX", "600"]);
    redis::until(SECOND, || replica.revocations.len() == 1).await;
    sleep(Duration::from_millis(100)).await;
    server.kill();
    sleep(Duration::from_millis(200)).await;
    assert!(replica.is_revoked(&token("e")).await, "remembered while there is no server");
    server.restart().await;
    redis::until(5 * SECOND, || server.cli(&["GET", "cs:revoked:jti:e"]) == "gone").await;
    let fresh = Replica::live(&server.url()).await;
    assert!(fresh.is_revoked(&token("e")).await);
}

#[tokio::test]
async fn told_to_refuse_an_emptied_store_it_refuses_until_somebody_says_otherwise() {
    let server = redis::Redis::start().await;
    let settings = Settings { on_loss: OnLoss::Refuse, ..Settings::default() };
    let replica = Replica::with(&server.url(), settings);
    replica.becomes(State::Live).await;
    assert!(clear(&replica.check(&token("x"), &CheckedAt::default()).await));
    server.cli(&["FLUSHALL"]);
    replica.becomes(State::Refusing).await;
    assert!(replica.check(&token("x"), &CheckedAt::default()).await.is_unavailable());
    let _fresh = Replica::live(&server.url()).await;
    sleep(2 * SECOND).await;
    assert_eq!(replica.revocations.state(), State::Refusing, "another replica's canary is not somebody's word");
    server.cli(&["SET", "cs:canary", "restored"]);
    replica.becomes(State::Live).await;
    assert!(clear(&replica.check(&token("x"), &CheckedAt::default()).await));
}

#[tokio::test]
async fn a_feed_that_is_cut_fifty_times_misses_nothing() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    for round in 0..50 {
        let clients = server.cli(&["CLIENT", "LIST"]);
        let feeds = clients.lines().filter(|line| line.contains("flags=") && line.contains("redir=0"));
        let ids: Vec<_> = feeds.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
        for id in ids {
            server.cli(&["CLIENT", "KILL", "ID", id]);
        }
        // Written while the feed is gone: the scan must find it, or the check must ask.
        let id = format!("cut{round}");
        server.cli(&["SET", &format!("cs:revoked:jti:{id}"), "x", "EX", "600"]);
        let fact = replica.check(&token(&id), &CheckedAt::default()).await;
        if clear(&fact) {
            sleep(Duration::from_millis(25)).await;
            assert!(replica.is_revoked(&token(&id)).await, "round {round}");
        }
    }
    replica.becomes(State::Live).await;
    assert!(replica.revocations.counters().lost.get() >= 10, "{}", replica.revocations.counters().lost.get());
    for round in 0..50 {
        assert!(replica.is_revoked(&token(&format!("cut{round}"))).await, "round {round}");
    }
}

#[tokio::test]
async fn a_revocation_once_seen_outlives_a_failover_that_lost_it() {
    let servers = redis::Sentinel::start().await;
    let replica = Replica::live(&servers.url()).await;
    // Cut the replication, then revoke: the replica that is promoted has never heard of it.
    servers.replica.pause();
    servers.master.cli(&["SET", "cs:revoked:jti:late", "x", "EX", "600"]);
    redis::until(SECOND, || replica.revocations.len() == 1).await;
    sleep(Duration::from_millis(200)).await;
    let master = servers.master.port;
    servers.master.pause();
    servers.replica.resume();
    redis::until(30 * SECOND, || servers.current() != master).await;
    assert!(replica.is_revoked(&token("late")).await, "during the failover");
    redis::until(10 * SECOND, || servers.replica.cli(&["GET", "cs:revoked:jti:late"]) == "x").await;
    replica.becomes(State::Live).await;
    assert!(replica.is_revoked(&token("late")).await, "after it");
    servers.replica.cli(&["SET", "cs:revoked:jti:after", "x", "EX", "600"]);
    let begin = Instant::now();
    while !replica.is_revoked(&token("after")).await {
        assert!(begin.elapsed() < SECOND, "the new master is not listened to");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_a_replica_of_the_store_holds_is_never_not_revoked() {
    let primary = redis::Redis::with(&[]).await;
    let follower = redis::Redis::with(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]).await;
    let misled = Replica::new(&follower.url());
    let replica = Replica::live(&primary.url()).await;
    sleep(SECOND).await;
    let fact = misled.check(&token("r7-a"), &CheckedAt::default()).await;
    assert!(fact.is_unavailable() && !misled.revocations.ready(), "{fact:?}");

    // Made a replica while we are connected, of a primary that nobody reaches: it goes on answering, and knows nothing new.
    let (warm, slot) = (token("r7-b"), CheckedAt::default());
    assert!(clear(&replica.check(&warm, &slot).await));
    primary.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    redis::until(3 * SECOND, || replica.revocations.state() != State::Live).await;
    sleep(Duration::from_millis(300)).await;
    assert!(replica.check(&token("r7-c"), &CheckedAt::default()).await.is_unavailable());
    sleep(5 * SECOND).await;
    assert!(replica.check(&warm, &slot).await.is_unavailable());
    primary.cli(&["REPLICAOF", "NO", "ONE"]);
    replica.becomes(State::Live).await;
    assert!(clear(&replica.check(&warm, &slot).await));
}

#[tokio::test]
async fn what_the_server_no_longer_permits_is_never_not_revoked() {
    let server = redis::Redis::with(&["--user", "countersign", "on", ">s3cret", "~*", "&*", "+@all"]).await;
    let replica = Replica::live(&format!("redis://countersign:s3cret@127.0.0.1:{}/0", server.port)).await;
    let (other, slot) = (token("r10-a"), CheckedAt::default());
    assert!(clear(&replica.check(&other, &slot).await));
    // The feed still tells that there is news, and nobody may read it.
    server.cli(&["ACL", "SETUSER", "countersign", "-@read"]);
    server.cli(&["SET", "cs:revoked:jti:r10-b", "x", "EX", "600"]);
    sleep(Duration::from_millis(200)).await;
    assert!(!clear(&replica.check(&token("r10-b"), &CheckedAt::default()).await));

    // Shut out altogether, with the right password and with another.
    server.cli(&["ACL", "SETUSER", "countersign", "+@all", "resetpass", ">another"]);
    server.cli(&["CLIENT", "KILL", "USER", "countersign"]);
    redis::until(3 * SECOND, || replica.revocations.state() != State::Live).await;
    assert!(replica.check(&token("r10-c"), &CheckedAt::default()).await.is_unavailable());
    sleep(5 * SECOND).await;
    assert!(replica.check(&other, &slot).await.is_unavailable());
    server.cli(&["ACL", "SETUSER", "countersign", ">s3cret"]);
    replica.becomes(State::Live).await;
    assert!(clear(&replica.check(&other, &slot).await));
    assert!(replica.is_revoked(&token("r10-b")).await);
}

#[tokio::test]
async fn a_revocation_that_no_replica_acknowledges_counts_and_is_said_to_be_at_risk() {
    let servers = redis::Sentinel::start().await;
    let replica = Replica::live(&servers.url()).await;
    let revoke = |id: &'static str| replica.revocations.revoke(RevocationKind::Token, id, "lost", None);
    revoke("held").await.unwrap();
    assert_eq!(replica.revocations.counters().unreplicated.get(), 0);
    assert_eq!(
        servers.replica.cli(&["GET", "cs:revoked:jti:held"]),
        "lost",
        "the replica has it when the writer is told"
    );
    servers.replica.pause();
    revoke("alone").await.unwrap();
    assert_eq!(replica.revocations.counters().unreplicated.get(), 1);
    assert!(replica.is_revoked(&token("alone")).await);
    servers.replica.resume();
}

#[tokio::test]
async fn in_a_cluster_keys_of_all_slots_are_told_of_and_a_node_that_is_cut_off_ends_the_epoch() {
    let cluster = redis::Cluster::start().await;
    let replica = Replica::live(&cluster.url()).await;
    let revoke = |id: &str| cluster.cli(&["SET", &format!("cs:revoked:jti:{id}"), "x", "EX", "600"]);
    for index in 0..30 {
        revoke(&format!("c{index}"));
    }
    redis::until(2 * SECOND, || replica.revocations.len() == 30).await;
    let feeds = cluster.nodes[1].cli(&["CLIENT", "LIST"]);
    let feeds = feeds.lines().filter(|line| line.contains("redir=0"));
    for id in feeds.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()) {
        cluster.nodes[1].cli(&["CLIENT", "KILL", "ID", id]);
    }
    for index in 30..60 {
        revoke(&format!("c{index}"));
    }
    redis::until(5 * SECOND, || replica.revocations.len() == 60).await;
    replica.becomes(State::Live).await;
    for index in 0..60 {
        assert!(replica.is_revoked(&token(&format!("c{index}"))).await, "c{index}");
    }
    let fresh = Replica::live(&cluster.url()).await;
    assert_eq!(fresh.revocations.len(), 60, "a scan reads every node");
}

/// A page of a scan that was read key by key once took longer than an answer may.
#[tokio::test]
async fn a_replica_that_starts_beside_ten_thousand_revocations_knows_all_of_them() {
    let server = redis::Redis::start().await;
    let fill = "for i = 1, 10000 do redis.call('SET', 'cs:revoked:jti:many' .. i, 'x', 'EX', 600) end";
    server.cli(&["EVAL", fill, "0"]);
    let replica = Replica::live(&server.url()).await;
    assert_eq!(replica.revocations.len(), 10_000);
    assert!(replica.is_revoked(&token("many1")).await && replica.is_revoked(&token("many10000")).await);
    assert!(clear(&replica.check(&token("many10001"), &CheckedAt::default()).await));
}

#[tokio::test]
async fn a_policy_that_may_evict_revocations_is_warned_of_and_so_is_not_knowing_it() {
    let server = redis::Redis::with(&["--maxmemory-policy", "volatile-lru"]).await;
    let replica = Replica::live(&server.url()).await;
    let warnings = replica.store.warnings().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("volatile-lru"), "{warnings:?}");
    let (_server, url) = redis::with_tls_and_acl().await;
    let replica = Replica::live(&url).await;
    let warnings = replica.store.warnings().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("CONFIG"), "{warnings:?}");
}

#[tokio::test]
async fn a_policy_is_warned_of_that_was_there_before_the_server_or_came_after_the_start() {
    // The address of a server that does not run yet.
    let mut server = redis::Redis::with(&["--maxmemory-policy", "allkeys-lru"]).await;
    server.kill();
    let replica = Replica::new(&server.url());
    let watch = Watch::start(Arc::clone(&replica.store), Duration::from_millis(200), replica.cancel.clone());
    sleep(Duration::from_millis(300)).await;
    assert_eq!(watch.standing(), 0.0);
    server.restart().await;
    redis::until(10 * SECOND, || watch.standing() == 1.0).await;
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis::until(10 * SECOND, || watch.standing() == 0.0).await;
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    redis::until(10 * SECOND, || watch.standing() == 1.0).await;
}

#[tokio::test]
async fn no_server_at_all_is_never_not_revoked() {
    let replica = Replica::new("redis://127.0.0.1:1/0");
    sleep(Duration::from_millis(100)).await;
    let fact = replica.check(&token("x"), &CheckedAt::default()).await;
    assert!(fact.is_unavailable(), "{fact:?}");
    assert!(!replica.revocations.ready());
    let replica = Replica::new("redis://no-such-host.invalid/0");
    assert!(replica.check(&token("x"), &CheckedAt::default()).await.is_unavailable());
    assert!(UnixTime::EPOCH < Clock::system().now());
}
