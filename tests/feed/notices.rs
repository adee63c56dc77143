//! Notices of security events on a real feed: what cannot be read is never "nothing was said", whenever a replica begins.

use std::{sync::Arc, time::Duration};

use countersign::{
    clock::Clock,
    domain::{DeviceId, Fact, Notice},
    notice::{Kind, Notices, Word},
    store::{Store, redis::Redis},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{SECOND, redis, token};

pub(crate) struct Replica {
    pub(crate) notices: Arc<Notices>,
    cancel: CancellationToken,
}

impl Replica {
    pub(crate) async fn live(url: &str) -> Self {
        let cancel = CancellationToken::new();
        let store: Arc<dyn Store> = Redis::open(url, &cancel).unwrap();
        let notices = Notices::start(store, Clock::system(), 5 * SECOND, cancel.clone());
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
