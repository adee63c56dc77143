//! `revoke` and `revoke --undo` of one id at the same time, and keys written by hand in any order: whatever a replica hears
//! of, and whenever it reads, all of them end up knowing the same.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use countersign::{
    clock::Clock,
    domain::{Fact, Revocation, RevocationKind},
    revocation::CheckedAt,
    store::{FeedEvent, Store as _, memory::Memory},
};
use tokio::{sync::mpsc, time::sleep};

use super::{
    Replica, SECOND,
    interleaved::{Rig, memory},
    redis, token,
};

const TOKEN: RevocationKind = RevocationKind::Token;

/// Replicas beside one store that hear of its changes when the test says so.
struct Scene {
    memory: Arc<Memory>,
    news: mpsc::Receiver<FeedEvent>,
    writer: Rig,
    replicas: Vec<(Rig, Vec<String>)>,
}

type Writing<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Scene {
    async fn new() -> Self {
        let memory = memory();
        let (news, writer) = (memory.feed(), Rig::over(Arc::clone(&memory)));
        writer.store.stepping.store(true, Ordering::Release);
        let mut replicas = Vec::new();
        for _ in 0..4 {
            replicas.push((Rig::live_over(Arc::clone(&memory)).await, Vec::new()));
        }
        Self { memory, news, writer, replicas }
    }

    fn writing(&self, revokes: bool, id: &str) -> Writing<'static> {
        let (revocations, id) = (Arc::clone(&self.writer.revocations), id.to_owned());
        Box::pin(async move {
            match revokes {
                true => _ = revocations.revoke(TOKEN, &id, "lost", None).await.unwrap(),
                false => _ = revocations.reinstate(TOKEN, &id).await.unwrap(),
            }
        })
    }

    /// Tells those replicas of everything that has happened, and lets them read.
    async fn tell(&mut self, whom: impl Fn(usize) -> bool) {
        while let Ok(event) = self.news.try_recv() {
            let FeedEvent::Changed(keys) = event else { continue };
            self.replicas.iter_mut().for_each(|(_, untold)| untold.extend(keys.iter().cloned()));
        }
        for (index, (rig, untold)) in self.replicas.iter_mut().enumerate() {
            if whom(index) && !untold.is_empty() {
                rig.store.tell(FeedEvent::Changed(std::mem::take(untold))).await;
            }
        }
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    /// Whether each replica takes the token for revoked.
    fn verdicts(&self, id: &str) -> Vec<bool> {
        self.replicas.iter().map(|(rig, _)| is_revoked(rig, id)).collect()
    }

    /// Takes the steps of those who write in this order. The first replica hears of each, the second of none before the end.
    async fn play(&mut self, id: &str, mut writers: Vec<Option<Writing<'static>>>, order: &[usize]) {
        for writing in writers.iter_mut().flatten() {
            // Up to its first step.
            assert!(futures_util::poll!(writing).is_pending());
        }
        for (step, writer) in order.iter().enumerate() {
            if let Some(writing) = &mut writers[*writer]
                && futures_util::poll!(writing).is_ready()
            {
                writers[*writer] = None;
            }
            self.tell(|replica| replica == 0 || (replica > 1 && (step + replica).is_multiple_of(2))).await;
        }
        assert!(writers.iter().all(Option::is_none), "{id}: steps are left");
        self.tell(|_| true).await;
        let verdicts = self.verdicts(id);
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{id}, {order:?}: {verdicts:?}");
    }
}

fn is_revoked(rig: &Rig, id: &str) -> bool {
    let fact = rig.revocations.remembered(&token(id), None, &CheckedAt::default(), Clock::system().now());
    match fact {
        Some(Fact::Known { value, .. }) => matches!(value, Revocation::Revoked(_)),
        other => panic!("{id}: {other:?}"),
    }
}

/// Every order of so many steps of each writer.
fn orders(left: &[usize]) -> Vec<Vec<usize>> {
    if left.iter().all(|count| *count == 0) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for writer in (0..left.len()).filter(|writer| left[*writer] > 0) {
        let mut rest = left.to_vec();
        rest[writer] -= 1;
        all.extend(orders(&rest).into_iter().map(|rest| [vec![writer], rest].concat()));
    }
    all
}

/// The steps of one who revokes and of one who undoes.
const REVOKING: usize = 1;
const UNDOING: usize = 3;

#[tokio::test]
async fn whichever_order_revoking_and_undoing_take_every_replica_ends_up_knowing_the_same() {
    let (mut scene, mut ids) = (Scene::new().await, Vec::new());
    for before in [vec![], vec![true], vec![true, false], vec![true, false, true]] {
        for writers in [vec![true, false], vec![true, false, false], vec![true, true, false]] {
            let steps = |revokes: &bool| if *revokes { REVOKING } else { UNDOING };
            for order in orders(&writers.iter().map(steps).collect::<Vec<_>>()) {
                let id = format!("{}", ids.len());
                for revokes in &before {
                    scene.writing(*revokes, &id).await;
                    scene.tell(|_| true).await;
                }
                let writings = writers.iter().map(|revokes| Some(scene.writing(*revokes, &id))).collect();
                scene.play(&id, writings, &order).await;
                ids.push(id);
            }
        }
    }
    let fresh = Rig::live_over(Arc::clone(&scene.memory)).await;
    for id in &ids {
        assert_eq!(is_revoked(&fresh, id), scene.verdicts(id)[0], "{id}: one that starts later");
    }
    // What is revoked stays so when its key has ended, whatever was undone before.
    for id in &ids {
        let verdict = scene.verdicts(id);
        scene.memory.delete(&[format!("cs:revoked:jti:{id}")]).await.unwrap();
        scene.tell(|_| true).await;
        assert_eq!(scene.verdicts(id), verdict, "{id}: its key is gone");
    }
}

/// The two keys may be on different servers: here the revocation's is read before it is undone, the other after.
#[tokio::test]
async fn a_reinstatement_that_was_read_beside_a_revocation_it_ended_still_counts() {
    let memory = memory();
    let (rig, writer) = (Rig::live_over(Arc::clone(&memory)).await, Rig::over(memory));
    writer.revocations.revoke(TOKEN, "t", "lost", None).await.unwrap();
    rig.store.splitting.store(true, Ordering::Release);
    rig.store.hold();
    rig.store.changed("cs:revoked:jti:t").await;
    rig.store.is_held().await;
    writer.revocations.reinstate(TOKEN, "t").await.unwrap();
    rig.store.release();
    for key in ["cs:reinstated:jti:t", "cs:revoked:jti:t", "cs:reinstated:jti:t"] {
        sleep(Duration::from_millis(100)).await;
        rig.store.changed(key).await;
    }
    sleep(Duration::from_millis(100)).await;
    assert!(!is_revoked(&rig, "t"));
}

async fn at_the_same_time(url: &str, count: usize) {
    let (one, two) = (Replica::live(url).await, Replica::live(url).await);
    let ids: Vec<String> = (0..count).map(|index| format!("both{index}")).collect();
    for (index, id) in ids.iter().enumerate() {
        let undoing = async {
            // Revoking begins with a connection of its own, undoing at once: the two have to meet.
            sleep(Duration::from_micros(50 * (index as u64 % 60))).await;
            two.revocations.reinstate(TOKEN, id).await
        };
        let (revoked, undone) = tokio::join!(one.revocations.revoke(TOKEN, id, "lost", None), undoing);
        revoked.unwrap();
        undone.unwrap();
    }
    sleep(SECOND).await;
    let fresh = Replica::live(url).await;
    for id in &ids {
        let mut verdicts = Vec::new();
        for replica in [&one, &two, &fresh] {
            verdicts.push(replica.is_revoked(&token(id)).await);
        }
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{id}: {verdicts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_and_undone_at_the_same_time_it_is_the_same_on_every_replica() {
    at_the_same_time(&redis::Redis::start().await.url(), 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_and_undone_at_the_same_time_it_is_the_same_where_the_keys_are_on_two_servers() {
    at_the_same_time(&redis::Cluster::start().await.url(), 100).await;
}

#[tokio::test]
async fn keys_written_by_hand_while_no_replica_listens_are_a_revocation_where_both_stand() {
    let server = redis::Redis::start().await;
    for (id, commands) in [
        ("later", &[["SET", "cs:reinstated:jti:later", "by hand"], ["SET", "cs:revoked:jti:later", "x"]][..]),
        // Which was last cannot be told.
        ("earlier", &[["SET", "cs:revoked:jti:earlier", "x"], ["SET", "cs:reinstated:jti:earlier", "by hand"]]),
    ] {
        commands.iter().for_each(|command| _ = server.cli(command));
        let (one, two) = (Replica::live(&server.url()).await, Replica::live(&server.url()).await);
        assert!(one.is_revoked(&token(id)).await && two.is_revoked(&token(id)).await, "{id}");
        let reinstated = format!("cs:reinstated:jti:{id}");
        redis::until(2 * SECOND, || server.cli(&["GET", &reinstated]).starts_with("deleted ")).await;
        server.cli(&["DEL", &format!("cs:revoked:jti:{id}")]);
        sleep(Duration::from_millis(300)).await;
        assert!(
            one.is_revoked(&token(id)).await && two.is_revoked(&token(id)).await,
            "{id}: absence takes nothing back"
        );
        server.cli(&["SET", &reinstated, "by hand"]);
        sleep(Duration::from_millis(300)).await;
        assert!(!one.is_revoked(&token(id)).await && !two.is_revoked(&token(id)).await, "{id}: heard of, it does");
    }
}

#[tokio::test]
async fn a_reinstatement_by_hand_beside_the_revocation_is_carried_out_for_those_who_come_later() {
    let server = redis::Redis::start().await;
    let (one, two) = (Replica::live(&server.url()).await, Replica::live(&server.url()).await);
    server.cli(&["SET", "cs:revoked:jti:h", "x", "EX", "600"]);
    redis::until(SECOND, || one.revocations.len() == 1 && two.revocations.len() == 1).await;
    sleep(Duration::from_millis(100)).await;
    server.cli(&["SET", "cs:reinstated:jti:h", "by hand"]);
    redis::until(SECOND, || one.revocations.is_empty() && two.revocations.is_empty()).await;
    assert_eq!(server.cli(&["EXISTS", "cs:revoked:jti:h"]), "0");
    let fresh = Replica::live(&server.url()).await;
    assert!(!fresh.is_revoked(&token("h")).await && !one.is_revoked(&token("h")).await);
    server.cli(&["SET", "cs:revoked:jti:h", "again"]);
    redis::until(SECOND, || fresh.revocations.len() == 1 && one.revocations.len() == 1).await;
    assert!(fresh.is_revoked(&token("h")).await && one.is_revoked(&token("h")).await, "a later revocation counts");
}
