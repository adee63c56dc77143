//! What was learned survives the process, reaches the other replicas once, is forgotten everywhere; and a store that fails
//! delays nothing.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    behavior::{
        Behaviors, Export, PATIENCE, Profiles, Settings, key,
        octets::{Item, Reader, Writer},
    },
    clock::Clock,
    domain::{Fact, Issuer, SubjectId},
    risk::statistical::{
        Action, Agent, Event, Outcome,
        event::{Device, Place, Proof, Strength},
    },
    store::{Store, keys, memory::Memory},
};

const MONDAY: f64 = 1_768_204_800.0;

fn who() -> (Issuer, SubjectId) {
    (Issuer::new("https://issuer.example"), SubjectId::new("alice"))
}

fn request(number: u32) -> Event {
    let (issuer, subject) = who();
    let subject = key(&issuer, &subject);
    Event {
        now: MONDAY + f64::from(number) * 4000.0,
        subject,
        session: subject.within(&number.to_string()),
        ends: None,
        strength: Strength::Strong,
        address: "84.16.20.7".parse().ok(),
        place: Some(Place { country: *b"NO", position: Some((59.9, 10.7)), radius_km: 10.0 }),
        asn: Some(2119),
        anonymous: false,
        device: Device { id: Some(subject.within("laptop")), proof: Proof::Named, ..Device::default() },
        agent: Agent::parse("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        action: Action::of("GET", "/orders/17"),
        roles: 7,
    }
}

fn shared() -> Arc<dyn Store> {
    let clock = Clock::system();
    Arc::new(Memory::new(move || clock.now()))
}

/// A replica whose own turns are cancelled: the test says when.
fn replica(store: &Arc<dyn Store>) -> Arc<Behaviors> {
    timed(store, &Clock::system())
}

fn timed(store: &Arc<dyn Store>, clock: &Clock) -> Arc<Behaviors> {
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    Behaviors::start(&Settings::default(), Some(Arc::clone(store)), clock, &cancelled)
}

async fn allow(replica: &Behaviors, event: Event) {
    let soon = Instant::now() + Duration::from_secs(5);
    let Fact::Known { value: observed, .. } = replica.observe(event, soon).await else { panic!("not at hand") };
    replica.settle(&observed, Outcome::Allowed);
}

async fn exported(replica: &Behaviors) -> Option<Export> {
    let (issuer, subject) = who();
    let mut export = replica.export(&issuer, &subject, MONDAY).await.unwrap();
    if let Some(export) = &mut export {
        export.counts.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    }
    export
}

#[tokio::test]
async fn what_was_learned_is_there_after_a_restart() {
    let store = shared();
    let first = replica(&store);
    for number in 0..10 {
        allow(&first, request(number)).await;
    }
    first.close(Duration::from_secs(5)).await;
    let told = exported(&first).await.unwrap();
    let second = replica(&store);
    assert_eq!(exported(&second).await.as_ref().map(|kept| &kept.counts), Some(&told.counts));
    assert_eq!(exported(&second).await.and_then(|kept| kept.sighting), told.sighting);
}

#[tokio::test]
async fn replicas_hold_the_same_whoever_learned_it() {
    let store = shared();
    let (one, other) = (replica(&store), replica(&store));
    for number in 0..20 {
        allow(if number % 2 == 0 { &one } else { &other }, request(number)).await;
        one.exchange().await.unwrap();
        other.exchange().await.unwrap();
    }
    one.exchange().await.unwrap();
    let (here, there) = (exported(&one).await.unwrap(), exported(&other).await.unwrap());
    assert_eq!(here.counts, there.counts, "each count was taken once");
    let observed = |replica: Arc<Behaviors>| async move {
        let fact = replica.observe(request(30), Instant::now() + Duration::from_secs(5)).await;
        fact.value().map(|observed| observed.behavior)
    };
    assert_eq!(observed(one).await, observed(other).await);
}

#[tokio::test]
async fn a_subject_is_forgotten_on_every_replica_and_in_the_store() {
    let store = shared();
    let (one, other) = (replica(&store), replica(&store));
    allow(&one, request(1)).await;
    one.exchange().await.unwrap();
    allow(&other, request(2)).await;
    other.exchange().await.unwrap();
    one.exchange().await.unwrap();
    let (issuer, subject) = who();
    assert!(one.forget(&issuer, &subject).await.unwrap());
    other.exchange().await.unwrap();
    assert_eq!((exported(&one).await, exported(&other).await), (None, None));
    assert!(!one.forget(&issuer, &subject).await.unwrap(), "there is nothing left");
    let kept = store.whole_record(&keys::profile(key(&issuer, &subject).0)).await.unwrap();
    assert_eq!(kept, None);
}

#[tokio::test]
async fn a_record_that_makes_no_sense_is_begun_anew() {
    let store = shared();
    let (issuer, subject) = who();
    let broken = keys::profile(key(&issuer, &subject).0);
    store.write(&broken, b"somebody else's", None).await.unwrap();
    store.write(&keys::profile_last(key(&issuer, &subject).0), b"nonsense", None).await.unwrap();
    store.write(keys::PROFILE_NEWS, b"12", None).await.unwrap();
    let replica = replica(&store);
    allow(&replica, request(1)).await;
    replica.exchange().await.unwrap();
    assert!(store.whole_record(&broken).await.unwrap().is_some());
}

#[tokio::test]
async fn a_store_that_does_not_answer_delays_nothing_and_nobody_is_somebody_new() {
    let cancel = CancellationToken::new();
    // Nobody listens on this port.
    let store: Arc<dyn Store> = crate::store::redis::Redis::open("redis://127.0.0.1:1/0", &cancel).unwrap();
    let replica = replica(&store);
    for _ in 0..50 {
        let began = std::time::Instant::now();
        let fact = replica.observe(request(1), Instant::now() + Duration::from_secs(5)).await;
        assert!(fact.is_unavailable(), "{fact:?}");
        assert!(began.elapsed() < PATIENCE * 4, "{:?}", began.elapsed());
    }
    assert!(replica.exchange().await.is_err());
}

#[tokio::test]
async fn a_request_without_time_left_does_not_declare_the_store_silent_for_others() {
    let replica = replica(&shared());
    let late = replica.observe(request(1), Instant::now().checked_sub(PATIENCE).unwrap()).await;
    assert!(late.is_unavailable(), "{late:?}");
    let fact = replica.observe(request(2), Instant::now() + Duration::from_secs(5)).await;
    assert!(fact.value().is_some(), "{fact:?}");
}

#[tokio::test]
async fn another_replica_knows_where_a_session_began() {
    let store = shared();
    let (one, other) = (replica(&store), replica(&store));
    for number in 0..5 {
        allow(&one, request(number)).await;
    }
    one.exchange().await.unwrap();
    let stolen =
        Event { address: "103.6.156.9".parse().ok(), asn: Some(45609), now: request(4).now + 30.0, ..request(4) };
    let fact = other.observe(stolen, Instant::now() + Duration::from_secs(5)).await;
    let terms = fact.value().and_then(|observed| observed.behavior.assessment).map(|told| told.terms).unwrap();
    let changed = crate::domain::SignalName::SessionNetworkChanged;
    assert!(terms.iter().flatten().any(|(name, nats)| *name == changed && *nats > 0.0), "{terms:?}");
}

#[test]
fn news_come_back_as_they_were_and_broken_ones_not_at_all() {
    let profiles = Profiles::new(&Settings::default(), false);
    let observed = profiles.observe(request(1)).unwrap();
    let (learned, changed) = profiles.settle(&observed, Outcome::Allowed);
    assert!(changed, "the session is new");
    let mut writer = Writer::new(9);
    writer.learned(&learned);
    writer.forgotten(learned.subject);
    let octets = writer.finish();
    let (mut reader, instance) = Reader::new(&octets).unwrap();
    assert_eq!(instance, 9);
    let Some(Item::Learned(read)) = reader.item() else { panic!("the first item") };
    assert_eq!(format!("{read:?}"), format!("{learned:?}"));
    assert!(matches!(reader.item(), Some(Item::Forgotten(subject)) if subject == learned.subject));
    assert!(reader.is_done());
    for length in 0..octets.len() - 9 {
        let whole = Reader::new(&octets[..length]).and_then(|(mut reader, _)| reader.item());
        assert!(whole.is_none(), "{length} octets are no item");
    }
}

#[tokio::test]
async fn a_session_that_goes_by_a_token_is_kept_no_longer_than_the_token() {
    let clock = Clock::manual(crate::domain::UnixTime::from_millis((MONDAY * 1000.0) as u64));
    let stores = clock.clone();
    let store: Arc<dyn Store> = Arc::new(Memory::new(move || stores.now()));
    let replica = timed(&store, &clock);
    let of_token = Event { now: MONDAY, ends: Some(MONDAY + 600.0), ..request(1) };
    let claimed = Event { now: MONDAY, ..request(2) };
    for event in [of_token, claimed] {
        allow(&replica, event).await;
    }
    replica.exchange().await.unwrap();
    for (seconds, kept) in
        [(590, [true, true]), (20, [false, true]), (23 * 3600, [false, true]), (3600, [false, false])]
    {
        clock.advance(Duration::from_secs(seconds));
        let wanted = [of_token, claimed].map(|event| keys::profile_session(event.session.0));
        let held = store.read(&wanted).await.unwrap();
        assert_eq!(held.iter().map(|held| matches!(held, Ok(Some(_)))).collect::<Vec<_>>(), kept, "{seconds} s later");
    }
}

#[tokio::test]
async fn a_session_that_a_newer_version_wrote_is_left_to_it() {
    let store = shared();
    let key = keys::profile_session(request(1).session.0);
    for (version, left_alone) in [(255, true), (1, false)] {
        let written = [version, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        store.write(&key, &written, None).await.unwrap();
        let replica = replica(&store);
        allow(&replica, request(1)).await;
        replica.exchange().await.unwrap();
        let held = store.read(std::slice::from_ref(&key)).await.unwrap().pop().unwrap().unwrap().unwrap();
        assert_eq!(held.value == written, left_alone, "version {version}");
    }
}

#[tokio::test]
async fn a_session_in_use_is_nobody_elses_after_a_day_and_a_half() {
    let clock = Clock::manual(crate::domain::UnixTime::from_millis((MONDAY * 1000.0) as u64));
    let stores = clock.clone();
    let store: Arc<dyn Store> = Arc::new(Memory::new(move || stores.now()));
    let (one, other) = (replica(&store), replica(&store));
    let used = |hours: f64| Event { now: MONDAY + hours * 3600.0, ..request(1) };
    for hours in 0..36 {
        allow(&one, used(f64::from(hours))).await;
        one.exchange().await.unwrap();
        clock.advance(Duration::from_secs(3600));
    }
    let stolen = Event { address: "103.6.156.9".parse().ok(), asn: Some(45609), ..used(36.0) };
    let fact = other.observe(stolen, Instant::now() + Duration::from_secs(5)).await;
    let terms = fact.value().and_then(|observed| observed.behavior.assessment).map(|told| told.terms).unwrap();
    let changed = crate::domain::SignalName::SessionNetworkChanged;
    assert!(terms.iter().flatten().any(|(name, nats)| *name == changed && *nats > 0.0), "{terms:?}");
}
