//! Notices of security events on a real feed: what cannot be read is never "nothing was said", whenever a replica begins.

use std::{
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use countersign::{
    clock::Clock,
    domain::{
        DeviceId, Fact, Notice,
        metric::{Page, Source as _, Value},
    },
    notice::{Kind, Notices, Word},
    store::{FeedEvent, Store, redis::Redis},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{SECOND, interleaved::Held, redis, token};

pub(crate) struct Replica {
    pub(crate) notices: Arc<Notices>,
    cancel: CancellationToken,
}

impl Replica {
    pub(crate) async fn live(url: &str) -> Self {
        let cancel = CancellationToken::new();
        let store: Arc<dyn Store> = Redis::open(url, &cancel).unwrap();
        Self::over(store, cancel).await
    }

    async fn over(store: Arc<dyn Store>, cancel: CancellationToken) -> Self {
        let notices = Notices::start(store, Clock::system(), 5 * SECOND, 1_000_000, cancel.clone());
        redis::until(20 * SECOND, || notices.is_live()).await;
        Self { notices, cancel }
    }

    /// What is said of the subject `sub-<id>`.
    pub(crate) async fn of(&self, id: &str) -> Fact<Notice> {
        let deadline = Instant::now() + Duration::from_millis(150);
        let of = (|| "login", None::<&DeviceId>);
        self.notices.check(&token(id), of, Clock::system().now(), deadline).await
    }

    /// Whether memory alone answers for the subject.
    fn knows(&self, id: &str) -> bool {
        self.notices.remembered(&token(id), (|| "login", None::<&DeviceId>), Clock::system().now()).is_some()
    }

    /// What a counter of notices stands at.
    fn counted(&self, name: &str) -> Value {
        let mut page = Page::default();
        self.notices.collect(&mut page);
        page.families().iter().find(|family| family.name == name).unwrap().samples[0].value.clone()
    }

    async fn disabled(&self, id: &str) -> bool {
        self.of(id).await.value().is_some_and(|notice| notice.disabled)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[tokio::test]
async fn a_notice_that_cannot_be_read_is_unknown_to_a_replica_that_heard_of_it_and_to_one_that_comes_later() {
    let server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    server.cli(&["SET", "cs:notice:account:sub:sub-m1", "garbage"]);
    server.cli(&["LPUSH", "cs:notice:account:sub:sub-m2", "x"]);
    sleep(Duration::from_millis(300)).await;
    let fresh = Replica::live(&server.url()).await;
    for replica in [&replica, &fresh] {
        for id in ["m1", "m2"] {
            let fact = replica.of(id).await;
            assert!(fact.is_unavailable(), "{id}: {fact:?}");
        }
        assert_eq!(replica.of("m3").await.value(), Some(&Notice::default()));
    }
    server.cli(&["DEL", "cs:notice:account:sub:sub-m1"]);
    redis::until(SECOND, || fresh.knows("m1")).await;
    assert_eq!(fresh.of("m1").await.value(), Some(&Notice::default()));
}

#[tokio::test]
async fn a_notice_that_could_not_be_read_and_went_while_nobody_listened_is_let_go_of() {
    let mut server = redis::Redis::start().await;
    let replica = Replica::live(&server.url()).await;
    replica.notices.say((Kind::Subject, "sub-d"), Word::Disabled, Clock::system().now(), None).await.unwrap();
    server.cli(&["SET", "cs:notice:account:sub:sub-m", "garbage"]);
    redis::until(SECOND, || !replica.knows("m")).await;
    server.kill();
    redis::until(SECOND, || !replica.notices.is_live()).await;
    server.restart().await;
    redis::until(10 * SECOND, || replica.notices.is_live()).await;
    assert!(replica.knows("m") && replica.disabled("d").await);
}

#[tokio::test]
async fn a_store_that_went_back_in_time_is_told_what_was_said_since() {
    let mut server = redis::Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let replica = Replica::live(&server.url()).await;
    let now = Clock::system().now();
    let say = |word, at| replica.notices.say((Kind::Subject, "sub-t"), word, at, None);
    say(Word::Enabled, now.minus(60 * SECOND)).await.unwrap();
    let folder = server.folder.path().to_owned();
    let copy = |from: &str, to: &str| {
        let (from, to) = (folder.join(from), folder.join(to));
        assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
    };
    copy("appendonlydir", "backup");
    say(Word::Disabled, now).await.unwrap();
    assert!(replica.disabled("t").await);
    server.kill();
    redis::until(SECOND, || !replica.notices.is_live()).await;
    std::fs::remove_dir_all(folder.join("appendonlydir")).unwrap();
    copy("backup", "appendonlydir");
    server.restart().await;
    redis::until(10 * SECOND, || replica.notices.is_live()).await;
    assert!(replica.disabled("t").await, "an older one has undone a newer one");
    // And the store knows it again.
    redis::until(5 * SECOND, || server.cli(&["GET", "cs:notice:account:sub:sub-t"]).ends_with(" disabled")).await;
    let fresh = Replica::live(&server.url()).await;
    assert!(fresh.disabled("t").await);
    server.cli(&["DEL", "cs:notice:account:sub:sub-t"]);
    sleep(Duration::from_millis(300)).await;
    assert!(!replica.disabled("t").await, "what is deleted while somebody listens is taken back");
}

#[tokio::test]
async fn what_was_read_back_before_a_newer_notice_is_not_kept() {
    let (store, cancel) = (Held::new(), CancellationToken::new());
    let connecting = {
        let store = Arc::clone(&store);
        async move { store.connect(1).await }
    };
    let (replica, ()) = tokio::join!(Replica::over(Arc::clone(&store) as _, cancel), connecting);
    let (key, now) = ("cs:notice:account:sub:sub-o", Clock::system().now());
    store.hold();
    let saying = tokio::spawn({
        let notices = Arc::clone(&replica.notices);
        async move { notices.say((Kind::Subject, "sub-o"), Word::Disabled, now, None).await }
    });
    store.is_held().await;
    // The held answer says "disabled". Now another replica says otherwise, and the feed tells of that.
    let newer = now.plus(SECOND).as_millis() * 4;
    assert!(store.raise(key, &format!("{newer} enabled"), None).await.unwrap());
    store.changed(key).await;
    redis::until(5 * SECOND, || replica.knows("o")).await;
    store.release();
    assert!(saying.await.unwrap().unwrap());
    assert!(!replica.disabled("o").await, "the old answer was kept");
}

#[tokio::test]
async fn what_was_said_here_outlives_a_failover_before_anybody_has_read_it() {
    let (store, cancel) = (Held::new(), CancellationToken::new());
    let connecting = async { store.connect(1).await };
    let (replica, ()) = tokio::join!(Replica::over(Arc::clone(&store) as _, cancel), connecting);
    store.tell(FeedEvent::Lost).await;
    redis::until(SECOND, || !replica.notices.is_live()).await;
    let say = replica.notices.say((Kind::Subject, "sub-f"), Word::Disabled, Clock::system().now(), None);
    assert!(say.await.unwrap());
    let key = "cs:notice:account:sub:sub-f".to_owned();
    store.delete(std::slice::from_ref(&key)).await.unwrap();
    store.connect(2).await;
    redis::until(5 * SECOND, || replica.counted("countersign_notices_restored") == Value::Counter(1)).await;
    assert!(replica.knows("f") && replica.disabled("f").await);
    assert!(store.read(&[key]).await.unwrap().remove(0).unwrap().is_some());
}

#[tokio::test]
async fn a_notice_that_no_replica_acknowledges_counts_and_is_said_to_be_at_risk() {
    let servers = redis::Sentinel::start().await;
    let replica = Replica::live(&servers.url()).await;
    let disable =
        |id: &'static str| replica.notices.say((Kind::Subject, id), Word::Disabled, Clock::system().now(), None);
    let at_risk = || replica.counted("countersign_notices_unreplicated");
    disable("sub-held").await.unwrap();
    let held = servers.replica.cli(&["GET", "cs:notice:account:sub:sub-held"]);
    assert!(held.ends_with(" disabled"), "the replica has it when the writer is told: {held}");
    assert_eq!(at_risk(), Value::Counter(0));
    servers.replica.pause();
    disable("sub-alone").await.unwrap();
    assert_eq!(at_risk(), Value::Counter(1));
    assert!(replica.disabled("alone").await);
    servers.replica.resume();
}

#[tokio::test]
async fn a_late_page_does_not_start_the_reading_of_all_notices_anew() {
    let (store, cancel) = (Held::new(), CancellationToken::new());
    for id in 0..2000 {
        let key = format!("cs:notice:account:sub:sub-p{id}");
        assert!(store.raise(&key, "7160000000000 disabled", None).await.unwrap());
    }
    // Whoever begins anew meets the next late page before the end.
    store.limping.store(true, Ordering::Release);
    let connecting = async { store.connect(1).await };
    let (replica, ()) = tokio::join!(Replica::over(Arc::clone(&store) as _, cancel), connecting);
    assert!(replica.disabled("p0").await && replica.disabled("p1999").await);
}

#[tokio::test]
async fn a_flushed_store_is_given_back_more_notices_than_a_feed_may_be_behind() {
    let server = redis::Redis::start().await;
    let set = "redis.call('SET', 'cs:notice:account:sub:sub-f' .. i, '7160000000000 disabled')";
    server.cli(&["EVAL", &format!("for i = 1, 20000 do {set} end"), "0"]);
    let replica = Replica::live(&server.url()).await;
    let scans = server.calls("scan");
    server.cli(&["FLUSHALL"]);
    redis::until(60 * SECOND, || replica.counted("countersign_notices_restored") == Value::Counter(20_000)).await;
    assert_eq!(server.cli(&["DBSIZE"]), "20000");
    assert!(replica.notices.is_live() && replica.knows("f1") && replica.disabled("f20000").await);
    let pages = server.calls("scan") - scans;
    assert!(pages < 5, "all of them were read once more: {pages} pages");
}

/// Each of them knows all of it, and is told of whatever one of them writes.
#[tokio::test]
async fn replicas_that_give_back_at_the_same_time_share_the_work() {
    let server = redis::Redis::start().await;
    let set = "redis.call('SET', 'cs:notice:account:sub:sub-f' .. i, '7160000000000 disabled')";
    server.cli(&["EVAL", &format!("for i = 1, 5000 do {set} end"), "0"]);
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::live(&server.url()).await);
    }
    let written = server.calls("evalsha");
    server.cli(&["FLUSHALL"]);
    let whole = |replica: &Replica| replica.knows("f1") && replica.knows("f5000");
    redis::until(60 * SECOND, || server.cli(&["DBSIZE"]) == "5000" && replicas.iter().all(whole)).await;
    sleep(2 * SECOND).await;
    let written = server.calls("evalsha") - written;
    assert!((5000..10_000).contains(&written), "{written} writes for 5000");
    assert!(replicas[2].disabled("f1").await && replicas[2].disabled("f5000").await);
}
