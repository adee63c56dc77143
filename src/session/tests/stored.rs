//! What the store holds of sessions, and what is read of it: two replicas of one store, and a store that is slow or silent.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::poll;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{START, busy::Busy, person::Person, replica, rule, rules};
use crate::{
    clock::Clock,
    policy::model::{SessionOutcome, SessionWhen},
    session::{Filter, Session, SessionKey, Sessions, Settings, Slot, live::Live},
    store::{FeedEvent, Store, keys},
};

/// The record that the store holds of the person's session.
async fn record(store: &dyn Store, person: &Person) -> Session {
    let key = keys::session(&SessionKey::of(&person.identity).text());
    let held = store.read(&[key]).await.unwrap().pop().unwrap().unwrap();
    Session::parse(&held.expect("a record").value).expect("readable")
}

#[tokio::test]
async fn of_what_two_replicas_write_at_the_same_time_nothing_is_lost() {
    let (clock, store) = (Clock::manual(START), Busy::new(START));
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let a = replica(&shared, &clock, Settings::default(), rules(Vec::new())).await;
    let b = replica(&shared, &clock, Settings::default(), rules(Vec::new())).await;
    let ann = Person::signed_in(START);
    assert_eq!(a.told(&ann).await, "allow");
    a.written().await;
    assert_eq!(b.told(&ann).await, "allow");
    let key = SessionKey::of(&ann.identity);
    let lives = [&a, &b].map(|replica| replica.sessions.known.get(&key).unwrap());
    for (live, context) in lives.iter().zip(["laptop", "phone"]) {
        live.with(|held| held.session.mark_mut(&context.into()).challenged_at = Some(START));
    }
    store.slow();
    let [la, lb] = &lives;
    let (one, other) = tokio::join!(a.sessions.write_record(la, true), b.sessions.write_record(lb, true));
    assert_eq!((one, other), (Ok(()), Ok(())));
    assert_eq!(record(&*store, &ann).await.challenges().count(), 2);
}

#[tokio::test]
async fn what_others_must_know_is_tried_again_while_others_write_and_when_the_process_ends() {
    let (clock, store) = (Clock::manual(START), Busy::new(START));
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let moved = SessionWhen { device_changed: true, ..SessionWhen::default() };
    let stop = CancellationToken::new();
    let ends = rules(rule(moved, SessionOutcome::EndSession));
    let mut replica = replica(&shared, &clock, Settings::default(), ends).await;
    let started = Sessions::start(shared, Settings::default(), clock, Duration::from_secs(5), stop.clone());
    replica.sessions = started;
    while !replica.sessions.is_live() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let person = |id: &str| Person { device: Some("laptop"), ..Person::signed_in(START).session(id) };
    let end = async |ann: &Person| {
        assert_eq!(replica.told(ann).await, "allow");
        replica.written().await;
        store.fail(true);
        let stolen = Person { device: Some("other"), ..ann.clone() };
        assert_eq!(replica.told(&stolen).await, "deny:session_ended");
        replica.written().await;
        store.fail(false);
    };
    let (ann, bob) = (person("s1"), person("s2"));
    end(&ann).await;
    assert_eq!(record(&*store, &ann).await.ended, None);
    let live = replica.sessions.known.get(&SessionKey::of(&ann.identity)).unwrap();
    let other = SessionKey::of(&person("s3").identity);
    let busy = Arc::new(Live::new(other, live.with(|held| held.session.clone())));
    // Steadily, and never further apart than half the time after which it is tried again.
    for _ in 0..100 {
        if record(&*store, &ann).await.ended.is_some() {
            break;
        }
        replica.sessions.write_behind(&busy);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(record(&*store, &ann).await.ended.is_some(), "put off for as long as others write");

    end(&bob).await;
    stop.cancel();
    replica.sessions.stopped().await;
    assert!(record(&*store, &bob).await.ended.is_some(), "forgotten at the end");
}

#[tokio::test]
async fn what_the_connection_before_told_of_is_the_last_resort_in_the_next() {
    let (clock, store, moment) = (Clock::manual(START), Busy::new(START), Duration::from_secs(1));
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let mut replica = replica(&shared, &clock, Settings::default(), rules(Vec::new())).await;
    let stop = CancellationToken::new();
    replica.sessions = Sessions::start(shared, Settings::default(), clock, moment, stop.clone());
    while !replica.sessions.is_live() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ann = Person::signed_in(START);
    let known = async || {
        let (context, deadline) = ((None, None, None), Instant::now() + Duration::from_secs(5));
        replica.sessions.check(&ann.identity, &Slot::default(), context, START, deadline).await.0
    };
    assert_eq!(replica.told(&ann).await, "allow");
    replica.written().await;
    // Longer than what was read may be believed without being heard of.
    tokio::time::sleep(moment).await;
    replica.sessions.hear(&FeedEvent::Alive(Instant::now()));
    store.silent();
    replica.sessions.hear(&FeedEvent::Connected { epoch: 2, patience: None });
    assert!(known().await.value().is_some());
    tokio::time::sleep(moment).await;
    assert!(known().await.is_unavailable());
    stop.cancel();
}

#[tokio::test]
async fn what_a_store_refuses_is_tried_again_and_so_is_what_a_subject_was_asked() {
    let (clock, store) = (Clock::manual(START), Busy::new(START));
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let replica = replica(&shared, &clock, Settings::default(), rules(Vec::new())).await;
    let ann = Person::signed_in(START);
    assert_eq!(replica.told(&ann).await, "allow");
    replica.written().await;
    let deadline = Instant::now() + Duration::from_secs(5);
    let (_, visit) = replica.sessions.check(&ann.identity, &Slot::default(), (None, None, None), START, deadline).await;
    let asked = [visit.context.challenge_key(&visit.key)];
    let live = replica.sessions.known.get(&visit.key).unwrap();
    for refuse in [Busy::refuse, Busy::fail] {
        store.delete(&asked).await.unwrap();
        refuse(&store, true);
        live.with(|held| held.session.mark_mut(&"laptop".into()).challenged_at = Some(START));
        replica.sessions.carry(&visit, START);
        replica.sessions.write_at_once(&live);
        replica.written().await;
        refuse(&store, false);
        let written = async || store.read(&asked).await.unwrap().remove(0).unwrap().is_some();
        for _ in 0..200 {
            if written().await && record(&*store, &ann).await.challenges().count() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(written().await && record(&*store, &ann).await.challenges().count() == 1);
    }
    assert_eq!(replica.sessions.counters.lost.get(), 0);
    // As old as it is, however late it is taken.
    for (later, left) in [(Duration::from_secs(450), Some(Duration::from_secs(450))), (Duration::from_secs(450), None)]
    {
        store.delete(&asked).await.unwrap();
        clock.advance(later);
        replica.sessions.carry(&visit, START);
        replica.written().await;
        let life = store.read(&asked).await.unwrap().remove(0).unwrap().map(|held| held.life.unwrap());
        assert!(life.is_some() == left.is_some() && life <= left, "{life:?}");
    }
}

#[tokio::test]
async fn a_late_answer_is_not_the_end_of_a_look_through_all_sessions() {
    let store = Busy::new(START);
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let replica = replica(&shared, &Clock::manual(START), Settings::default(), rules(Vec::new())).await;
    assert_eq!(replica.told(&Person::signed_in(START)).await, "allow");
    replica.written().await;
    store.late(2);
    assert_eq!(replica.sessions.find(&Filter::default(), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_read_last_counts_whichever_request_is_the_first_to_remember_the_session() {
    let (clock, store) = (Clock::manual(START), Busy::new(START));
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let moved = SessionWhen { device_changed: true, ..SessionWhen::default() };
    let ends = || rules(rule(moved, SessionOutcome::EndSession));
    let a = replica(&shared, &clock, Settings::default(), ends()).await;
    let b = replica(&shared, &clock, Settings::default(), ends()).await;
    let ann = Person { device: Some("laptop"), ..Person::signed_in(START) };
    assert_eq!(a.told(&ann).await, "allow");
    a.written().await;

    let first = store.hold();
    let mut before = pin!(b.told(&ann));
    assert!(poll!(&mut before).is_pending());
    assert_eq!(a.told(&Person { device: Some("other"), ..ann.clone() }).await, "deny:session_ended");
    a.written().await;
    let second = store.hold();
    let mut after = pin!(b.told(&ann));
    assert!(poll!(&mut after).is_pending());
    first.send(()).unwrap();
    assert_eq!(before.await, "allow", "read before the end");
    second.send(()).unwrap();
    assert_eq!(after.await, "deny:session_ended");
    assert_eq!(b.told(&ann).await, "deny:session_ended");
}

#[tokio::test]
async fn at_the_end_everything_is_written_and_no_more_at_the_same_time_than_before() {
    let (clock, store) = (Clock::manual(START), Busy::new(START));
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let replica = replica(&shared, &clock, Settings::default(), rules(Vec::new())).await;
    let ann = Person::signed_in(START);
    assert_eq!(replica.told(&ann).await, "allow");
    replica.written().await;
    let known = replica.sessions.known.get(&SessionKey::of(&ann.identity)).unwrap();
    let stop = CancellationToken::new();
    let sessions = Sessions::start(shared, Settings::default(), clock, Duration::from_secs(5), stop.clone());
    store.slow();
    for index in 0..300 {
        let key = SessionKey::of(&ann.clone().session(&format!("of-{index}")).identity);
        sessions.write_at_once(&Arc::new(Live::new(key, known.with(|held| held.session.clone()))));
    }
    stop.cancel();
    sessions.stopped().await;
    assert!((2..=64).contains(&store.most()), "{} at the same time", store.most());
    let (found, _) = store.scan(keys::SESSION, "", 1000).await.unwrap();
    assert!(found.len() >= 300, "{}", found.len());
}

#[tokio::test]
async fn sessions_are_counted_once_a_second_however_many_ask() {
    let (clock, store) = (Clock::manual(START), Busy::new(START));
    let replica = replica(&(store as Arc<dyn Store>), &clock, Settings::default(), rules(Vec::new())).await;
    let counted = || replica.sessions.census().values().sum::<u64>();
    assert_eq!(replica.told(&Person::signed_in(START)).await, "allow");
    assert_eq!(counted(), 1);
    assert_eq!(replica.told(&Person::signed_in(START).session("s2")).await, "allow");
    assert_eq!(counted(), 1, "counted again within the second");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(counted(), 2);
}
