//! One contract, every store: the same cases over memory, the file, and real Redis servers of every kind.

#[path = "support/redis.rs"]
mod redis;

use std::{sync::Arc, time::Duration};

use countersign::{
    clock::Clock,
    domain::UnixTime,
    store::{
        FeedEvent, Held, MAX_VALUE, MAX_WHOLE, Rate, Store, StoreErrorKind, file::File, memory::Memory, redis::Redis,
    },
};
use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(10);

/// Everything a stage relies on.
async fn contract(store: Arc<dyn Store>) {
    connected(&store).await;
    values(&*store).await;
    lives(&*store).await;
    raises(&*store).await;
    widens(&*store).await;
    exchanges(&*store).await;
    records(&*store).await;
    whole_records(&*store).await;
    counters(&*store).await;
    enlists(&*store).await;
    scans(&*store).await;
    rates(&*store).await;
    unreadable(&*store).await;
    tells(&*store).await;
}

/// Waits until the store answers: one that connects in the background may not at first.
async fn connected(store: &Arc<dyn Store>) {
    for _ in 0..200 {
        if store.read(&["cs:x".to_owned()]).await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{store:?} does not answer: {:?}", store.read(&["cs:x".to_owned()]).await);
}

async fn read(store: &dyn Store, key: &str) -> Option<Held> {
    store.read(&[key.to_owned()]).await.unwrap().pop().unwrap().unwrap()
}

async fn values(store: &dyn Store) {
    assert_eq!(read(store, "cs:t:none").await, None);
    store.write("cs:t:a", b"\0\xff", None).await.unwrap();
    store.write("cs:t:empty", b"", None).await.unwrap();
    let keys = ["cs:t:empty", "cs:t:none", "cs:t:a"].map(str::to_owned);
    let found: Vec<_> = store.read(&keys).await.unwrap().into_iter().map(Result::unwrap).collect();
    let held = |value: &[u8]| Some(Held { value: value.to_vec(), life: None });
    assert_eq!(found, [held(b""), None, held(b"\0\xff")], "in the order of the keys");
    assert!(!store.create("cs:t:a", b"2", None).await.unwrap());
    assert!(store.create("cs:t:b", b"2", None).await.unwrap());
    assert_eq!(read(store, "cs:t:a").await.unwrap().value, b"\0\xff");
    assert_eq!(store.delete(&keys).await.unwrap(), 2);
    assert_eq!(read(store, "cs:t:a").await, None);
}

async fn lives(store: &dyn Store) {
    store.write("cs:t:short", b"x", Some(Duration::from_millis(150))).await.unwrap();
    let life = read(store, "cs:t:short").await.unwrap().life.unwrap();
    assert!(life > Duration::ZERO && life <= Duration::from_millis(150), "{life:?}");
    store.write("cs:t:long", b"x", Some(Duration::from_millis(150))).await.unwrap();
    store.write("cs:t:long", b"x", None).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(read(store, "cs:t:short").await, None);
    assert_eq!(read(store, "cs:t:long").await.unwrap().life, None, "writing again without an end takes the end away");
    assert!(store.create("cs:t:short", b"y", Some(Duration::from_secs(60))).await.unwrap());
}

async fn raises(store: &dyn Store) {
    let (minute, hour) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(3600)));
    let value = async |key| String::from_utf8(read(store, key).await.unwrap().value).unwrap();
    assert!(store.raise("cs:t:order", "10 first", hour).await.unwrap());
    assert!(!store.raise("cs:t:order", "9 older", hour).await.unwrap(), "an older one never undoes a newer");
    assert_eq!(value("cs:t:order").await, "10 first");
    assert!(store.raise("cs:t:order", "10 again", minute).await.unwrap());
    assert!(store.raise("cs:t:order", "1790000000123 newest", minute).await.unwrap());
    assert_eq!(value("cs:t:order").await, "1790000000123 newest");
    let life = read(store, "cs:t:order").await.unwrap().life.unwrap();
    assert!(life > Duration::from_secs(3000), "a life is never shortened: {life:?}");
    store.write("cs:t:word", b"every token", None).await.unwrap();
    assert!(!store.raise("cs:t:word", "11", minute).await.unwrap(), "what begins with no number stays");
    store.write("cs:t:endless", b"1", None).await.unwrap();
    assert!(store.raise("cs:t:endless", "2", minute).await.unwrap());
    assert_eq!(read(store, "cs:t:endless").await.unwrap().life, None);
    store.write_record("cs:t:hash", &[("a", "1")], &[]).await.unwrap();
    assert_eq!(store.raise("cs:t:hash", "1", minute).await.unwrap_err().kind, StoreErrorKind::Malformed);
    let keys = ["cs:t:order", "cs:t:word", "cs:t:endless", "cs:t:hash"].map(str::to_owned);
    assert_eq!(store.delete(&keys).await.unwrap(), 4);
}

async fn widens(store: &dyn Store) {
    let (minute, hour) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(3600)));
    let found = async |key| {
        let held = read(store, key).await.unwrap();
        (String::from_utf8(held.value).unwrap(), held.life.map(|life| life > Duration::from_secs(3000)))
    };
    let widen = async |key, value, life| store.widen(key, value, life).await.unwrap();
    // What is there, the new value, and which of them says more. Where neither does, the new one stands.
    for (there, new, stands) in [
        ("1790000000", "1790000001", "1790000001"),
        ("1790000002", "1790000001", "1790000002"),
        (" 4102444800.5\n", "1790000001", " 4102444800.5\n"),
        ("1e12", "1790000001", "1e12"),
        (".5", "1790000001", "1790000001"),
        ("+5", "1790000001", "1790000001"),
        ("terminated", "1790000001", "terminated"),
        ("1690000000 fired", "1790000001", "1690000000 fired"),
        ("", "1790000001", ""),
        ("-1", "1790000001", "-1"),
        ("0x10", "1790000001", "0x10"),
        ("inf", "1790000001", "inf"),
        ("1790000002", "stolen", "stolen"),
        ("lost", "stolen", "stolen"),
    ] {
        store.write("cs:t:wide", there.as_bytes(), hour).await.unwrap();
        let widened = widen("cs:t:wide", new, minute).await;
        assert_eq!(found("cs:t:wide").await, (stands.to_owned(), Some(true)), "{there:?}, then {new:?} for a minute");
        assert_eq!(widened.set, stands == new);
        assert!(widened.life > minute && widened.life <= hour, "{widened:?}");
        store.write("cs:t:wide", there.as_bytes(), minute).await.unwrap();
        assert!(widen("cs:t:wide", new, hour).await.life > minute);
        assert_eq!(found("cs:t:wide").await, (stands.to_owned(), Some(true)), "{there:?}, then {new:?} for an hour");
        assert_eq!(widen("cs:t:wide", new, None).await.life, None);
        assert_eq!(widen("cs:t:wide", new, minute).await.life, None);
        assert_eq!(found("cs:t:wide").await, (stands.to_owned(), None), "what has no end keeps none");
    }
    assert!(widen("cs:t:widest", "1", minute).await.set);
    store.write_record("cs:t:hash", &[("a", "1")], &[]).await.unwrap();
    assert_eq!(store.widen("cs:t:hash", "1", minute).await.unwrap_err().kind, StoreErrorKind::Malformed);
    let keys = ["cs:t:wide", "cs:t:widest", "cs:t:hash"].map(str::to_owned);
    assert_eq!(store.delete(&keys).await.unwrap(), 3);
}

async fn exchanges(store: &dyn Store) {
    let (key, hour) = ("cs:t:exchange", Some(Duration::from_secs(3600)));
    store.write(key, b"\0\xff", hour).await.unwrap();
    for other in [&b""[..], b"\0", b"\0\xff\xff"] {
        assert!(
            !store.exchange(key, other, Some(b"x")).await.unwrap() && !store.exchange(key, other, None).await.unwrap()
        );
    }
    assert!(store.exchange(key, b"\0\xff", Some(b"")).await.unwrap());
    let held = read(store, key).await.unwrap();
    assert!(held.value.is_empty() && held.life > Some(Duration::from_secs(3000)), "its life stays: {held:?}");
    assert!(store.exchange(key, b"", Some(b"by one")).await.unwrap());
    assert!(!store.exchange(key, b"", Some(b"by another")).await.unwrap());
    assert!(store.exchange(key, b"by one", None).await.unwrap());
    assert_eq!(read(store, key).await, None);
    assert!(!store.exchange(key, b"", Some(b"x")).await.unwrap(), "nothing is not an empty value");
    store.write(key, b"endless", None).await.unwrap();
    assert!(store.exchange(key, b"endless", Some(b"still")).await.unwrap());
    assert_eq!(read(store, key).await.unwrap().life, None);
    assert!(!store.replace(key, b"other", b"x", Duration::from_secs(60)).await.unwrap());
    assert!(store.replace(key, b"still", b"for a minute", Duration::from_secs(60)).await.unwrap());
    let held = read(store, key).await.unwrap();
    assert!(held.value == b"for a minute" && held.life.is_some_and(|life| life <= Duration::from_secs(60)), "{held:?}");
    assert!(!store.replace("cs:t:nothing", b"", b"x", Duration::from_secs(60)).await.unwrap());
    store.write_record("cs:t:hash", &[("a", "1")], &[]).await.unwrap();
    assert_eq!(store.exchange("cs:t:hash", b"", None).await.unwrap_err().kind, StoreErrorKind::Malformed);
    assert_eq!(store.delete(&[key.to_owned(), "cs:t:hash".to_owned()]).await.unwrap(), 2);
}

async fn records(store: &dyn Store) {
    let key = "cs:device:laptop";
    assert_eq!(store.record(key, &["user"]).await.unwrap(), None);
    store.write_record(key, &[("user", "ann"), ("os", "linux"), ("more", "x")], &[]).await.unwrap();
    store.write_record(key, &[("user", "bob")], &["os"]).await.unwrap();
    let found = store.record(key, &["os", "user", "none"]).await.unwrap().unwrap();
    assert_eq!(found, [("user".to_owned(), "bob".to_owned())], "only the fields that were asked for and are there");
    assert_eq!(store.record(key, &["none"]).await.unwrap(), Some(Vec::new()), "there, with none of the fields");
    let amend = async |held, set, remove| store.amend_record(key, held, set, remove).await.unwrap();
    assert!(!amend(&[("user", "ann")], &[("user", "eve")], &["more"]).await, "it was changed meanwhile");
    assert!(!amend(&[("user", "bob"), ("os", "linux")], &[("user", "eve")], &[]).await, "a field is gone");
    assert!(amend(&[("user", "bob")], &[("os", "mac"), ("user", "eve")], &["more", "none"]).await);
    assert!(amend(&[], &[], &["os"]).await && amend(&[], &[("more", "y")], &[]).await, "it is there");
    let mut found = store.record(key, &["os", "user", "more"]).await.unwrap().unwrap();
    found.sort();
    assert_eq!(found, [("more".to_owned(), "y".to_owned()), ("user".to_owned(), "eve".to_owned())]);
    store.write_record(key, &[], &["user", "more"]).await.unwrap();
    assert!(!amend(&[], &[("user", "eve")], &[]).await, "none is made");
    assert_eq!(store.record(key, &["user"]).await.unwrap(), None, "a record without fields is none");
}

async fn counters(store: &dyn Store) {
    let life = Some(Duration::from_millis(200));
    assert_eq!(store.add("cs:t:count", &[("a", 2), ("b", -1)], life).await.unwrap(), [2, -1]);
    assert_eq!(store.add("cs:t:count", &[("a", 3)], life).await.unwrap(), [5]);
    sleep(Duration::from_millis(350)).await;
    assert_eq!(store.add("cs:t:count", &[("a", 1)], None).await.unwrap(), [1]);
}

async fn whole_records(store: &dyn Store) {
    assert_eq!(store.whole_record("cs:w:none").await.unwrap(), None);
    store.add("cs:w:a", &[("x", 2), ("y", 5)], None).await.unwrap();
    let mut all = store.whole_record("cs:w:a").await.unwrap().unwrap();
    all.sort();
    assert_eq!(all, [("x".to_owned(), "2".to_owned()), ("y".to_owned(), "5".to_owned())]);
    store.write("cs:w:value", b"x", None).await.unwrap();
    assert_eq!(store.whole_record("cs:w:value").await.unwrap_err().kind, StoreErrorKind::Malformed);
    store.write_record("cs:w:large", &[("x", &"x".repeat(MAX_WHOLE))], &[]).await.unwrap();
    assert_eq!(store.whole_record("cs:w:large").await.unwrap_err().kind, StoreErrorKind::Malformed);
}

async fn enlists(store: &dyn Store) {
    let life = Some(Duration::from_secs(60));
    store.add("cs:t:list", &[("count", 4)], None).await.unwrap();
    store.enlist("cs:t:list", "b", "count", "later", life).await.unwrap();
    store.enlist("cs:t:list", "a", "count", "sooner", life).await.unwrap();
    store.enlist("cs:t:list", "b", "count", "again", life).await.unwrap();
    let mut all = store.whole_record("cs:t:list").await.unwrap().unwrap();
    all.sort();
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(all, [field("a", "sooner 6"), field("b", "later 5"), field("count", "6")]);
    let short = Some(Duration::from_millis(100));
    store.enlist("cs:t:list", "a", "count", "again", short).await.unwrap();
    sleep(Duration::from_millis(250)).await;
    assert_eq!(store.whole_record("cs:t:list").await.unwrap(), None, "the last life counts");
    store.write("cs:t:no-list", b"x", None).await.unwrap();
    let error = store.enlist("cs:t:no-list", "a", "count", "x", life).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Malformed);
}

async fn scans(store: &dyn Store) {
    for index in 0..50 {
        store.write(&format!("cs:s:[x]*:{index}"), b"x", None).await.unwrap();
    }
    store.write("cs:s:x", b"not under the prefix", None).await.unwrap();
    let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (keys, next) = store.scan("cs:s:[x]*:", &cursor, 10).await.unwrap();
        found.extend(keys);
        pages += 1;
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 50, "{found:?}");
    assert!(found.iter().all(|key| key.starts_with("cs:s:[x]*:")) && pages > 1);
    for cursor in ["nonsense", "0/nonsense", "-1"] {
        let error = store.scan("cs:s:[x]*:", cursor, 10).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Cursor, "{cursor}");
    }
}

async fn rates(store: &dyn Store) {
    let rate = Rate { limit: 5, window: Duration::from_secs(5) };
    let first = store.take("cs:rate:a", rate, 3).await.unwrap();
    assert!(first.allowed && first.remaining == 2 && first.retry_after.is_zero(), "{first:?}");
    let more = store.take("cs:rate:a", rate, 3).await.unwrap();
    assert!(!more.allowed && more.remaining == 2, "all or none: {more:?}");
    let look = store.take("cs:rate:a", rate, 0).await.unwrap();
    assert!(look.allowed && look.remaining == 2, "a look: {look:?}");
    let untouched = store.take("cs:rate:new", rate, 0).await.unwrap();
    assert!(untouched.allowed && untouched.remaining == 5, "{untouched:?}");
    assert_eq!(read(store, "cs:rate:new").await, None, "a look leaves nothing behind");
    assert!(store.take("cs:rate:a", rate, 2).await.unwrap().allowed);
    assert_eq!(store.take("cs:rate:a", rate, 0).await.unwrap().remaining, 0);
    let over = store.take("cs:rate:a", rate, 1).await.unwrap();
    assert!(
        !over.allowed && over.retry_after > Duration::ZERO && over.retry_after <= Duration::from_secs(1),
        "{over:?}"
    );
    assert!(over.reset > Duration::from_secs(4) && over.reset <= Duration::from_secs(5), "{over:?}");
    sleep(over.retry_after + Duration::from_millis(20)).await;
    assert!(store.take("cs:rate:a", rate, 1).await.unwrap().allowed);
    let none = store.take("cs:rate:b", Rate { limit: 0, ..rate }, 1).await.unwrap();
    assert!(!none.allowed && none.retry_after == rate.window);
}

/// Wrong type, too large: an error of that key alone, quickly.
async fn unreadable(store: &dyn Store) {
    store.write_record("cs:t:record", &[("a", "1"), ("large", &"x".repeat(MAX_VALUE + 1))], &[]).await.unwrap();
    store.write("cs:t:value", b"x", None).await.unwrap();
    store.write("cs:t:large", &vec![b'x'; MAX_VALUE + 1], None).await.unwrap();
    store.write("cs:t:largest", &vec![b'x'; MAX_VALUE], None).await.unwrap();
    let keys = ["cs:t:record", "cs:t:value", "cs:t:large", "cs:t:largest"].map(str::to_owned);
    let kinds: Vec<_> =
        store.read(&keys).await.unwrap().into_iter().map(|entry| entry.err().map(|error| error.kind)).collect();
    let malformed = Some(StoreErrorKind::Malformed);
    assert_eq!(kinds, [malformed, None, malformed, None]);
    assert_eq!(store.record("cs:t:value", &["a"]).await.unwrap_err().kind, StoreErrorKind::Malformed);
    assert_eq!(store.record("cs:t:record", &["large"]).await.unwrap_err().kind, StoreErrorKind::Malformed);
    assert!(store.record("cs:t:record", &["a"]).await.is_ok(), "only what is asked for counts");
    assert_eq!(store.write_record("cs:t:value", &[("a", "1")], &[]).await.unwrap_err().kind, StoreErrorKind::Malformed);
}

/// The feed tells of writes and deletions under its prefixes, in order, and of nothing else.
async fn tells(store: &dyn Store) {
    let mut feed = store.feed();
    let first = timeout(Duration::from_secs(5), feed.recv()).await.unwrap();
    assert!(matches!(first, Some(FeedEvent::Connected { .. })), "{first:?}");
    store.write("cs:rate:busy", b"x", None).await.unwrap();
    store.write("cs:revoked:jti:told", b"x", None).await.unwrap();
    assert_eq!(changed(&mut feed).await, "cs:revoked:jti:told");
    store.write_record("cs:device:told", &[("a", "1")], &[]).await.unwrap();
    assert_eq!(changed(&mut feed).await, "cs:device:told");
    store.delete(&["cs:revoked:jti:told".to_owned()]).await.unwrap();
    assert_eq!(changed(&mut feed).await, "cs:revoked:jti:told");
    store.write("cs:reinstated:jti:told", b"x", None).await.unwrap();
    assert_eq!(changed(&mut feed).await, "cs:reinstated:jti:told");
}

async fn changed(feed: &mut mpsc::Receiver<FeedEvent>) -> String {
    loop {
        match timeout(Duration::from_secs(5), feed.recv()).await.unwrap().unwrap() {
            FeedEvent::Changed(keys) if keys.len() == 1 => return keys[0].clone(),
            FeedEvent::Alive(_) => {}
            event => panic!("{event:?}"),
        }
    }
}

fn open(url: &str) -> Arc<dyn Store> {
    Redis::open(url, &CancellationToken::new()).unwrap()
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    let clock = Clock::system();
    contract(Arc::new(Memory::new(clock.steady()))).await;
}

#[tokio::test]
async fn the_file_keeps_the_contract_and_what_was_acknowledged() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let store = file(folder.path(), &clock).unwrap();
    contract(Arc::clone(&store) as Arc<dyn Store>).await;
    let error = file(folder.path(), &clock).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    store.write("cs:revoked:jti:kept", b"reason", Some(Duration::from_secs(600))).await.unwrap();
    store.write_record("cs:device:kept", &[("user", "ann")], &[]).await.unwrap();
    drop(store);
    let store = reopened(|| file(folder.path(), &clock)).await;
    let held = read(&*store, "cs:revoked:jti:kept").await.unwrap();
    assert_eq!(held.value, b"reason");
    assert!(held.life.unwrap() > Duration::from_secs(590), "{:?}", held.life);
    assert_eq!(store.record("cs:device:kept", &["user"]).await.unwrap().unwrap().len(), 1);
    assert_eq!(read(&*store, "cs:t:short").await.map(|held| held.value), Some(b"y".to_vec()));
}

fn file(folder: &std::path::Path, clock: &Clock) -> Result<Arc<File>, countersign::store::StoreError> {
    let wall = clock.clone();
    File::open(folder, clock.steady(), move || wall.now())
}

/// Row C3: whichever way the wall clock goes, what was to live for an hour does, and after a restart too.
#[tokio::test]
async fn c03_a_step_of_the_clock_ends_no_key_of_an_embedded_store() {
    let (folder, hour) = (tempfile::tempdir().unwrap(), Duration::from_secs(3600));
    let start = UnixTime::from_secs(1_900_000_000);
    let clock = Clock::manual(start);
    let (memory, kept) = (Memory::new(clock.steady()), file(folder.path(), &clock).unwrap());
    let key = "cs:revoked:jti:kept";
    let lives = async |store: &dyn Store| read(store, key).await.map(|held| held.life.unwrap());
    for store in [&memory as &dyn Store, &*kept] {
        store.write(key, b"x", Some(hour)).await.unwrap();
        clock.set(start.plus(24 * hour));
        assert_eq!(lives(store).await, Some(hour), "during a step forward");
        // Whatever has ended leaves the file with the next change.
        store.write("cs:revoked:jti:other", b"x", None).await.unwrap();
        clock.set(start.minus(24 * hour));
        assert_eq!(lives(store).await, Some(hour), "and after one back");
        clock.set(start);
    }
    clock.advance(hour / 2);
    drop(kept);
    let kept = reopened(|| file(folder.path(), &clock)).await;
    assert_eq!(lives(&*kept).await, Some(hour / 2));
    clock.advance(hour / 2);
    assert_eq!((lives(&memory).await, lives(&*kept).await), (None, None));
}

/// The file is closed by the thread that writes it, a moment after the store is dropped.
async fn reopened(open: impl Fn() -> Result<Arc<File>, countersign::store::StoreError>) -> Arc<File> {
    for _ in 0..100 {
        if let Ok(store) = open() {
            return store;
        }
        sleep(Duration::from_millis(20)).await;
    }
    open().unwrap()
}

/// Writes as fast as it can and says what was acknowledged: what the next test kills.
#[tokio::test]
#[ignore = "run by `what_the_file_acknowledged_survives_kill_nine` in a process of its own"]
async fn write_until_killed() {
    use std::io::Write;
    let (folder, clock) = (std::env::var("COUNTERSIGN_TEST_FOLDER").unwrap(), Clock::system());
    let store = file(folder.as_ref(), &clock).unwrap();
    for index in 0_u64.. {
        store.write(&format!("cs:revoked:jti:k{index}"), b"x", None).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {index}").and_then(|()| out.flush()).unwrap();
    }
}

#[tokio::test]
async fn what_the_file_acknowledged_survives_kill_nine() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "write_until_killed", "--nocapture"])
        .env("COUNTERSIGN_TEST_FOLDER", folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = |line: String| line.split_once("acknowledged ")?.1.trim().parse::<u64>().ok();
    let acknowledged: Vec<u64> = lines.filter_map(number).take(100).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let clock = Clock::system();
    let store = file(folder.path(), &clock).unwrap();
    assert_eq!(acknowledged.len(), 100);
    for index in acknowledged {
        assert!(read(&*store, &format!("cs:revoked:jti:k{index}")).await.is_some(), "{index}");
    }
}

#[tokio::test]
async fn a_single_redis_keeps_the_contract() {
    let server = redis::Redis::start().await;
    contract(open(&server.url())).await;
}

#[tokio::test]
async fn redis_with_tls_and_an_acl_user_keeps_the_contract() {
    let (_server, url) = redis::with_tls_and_acl().await;
    contract(open(&url)).await;
}

#[tokio::test]
async fn redis_behind_a_sentinel_keeps_the_contract() {
    let servers = redis::Sentinel::start().await;
    contract(open(&servers.url())).await;
}

#[tokio::test]
async fn sentinels_with_a_password_are_asked_with_it_and_without_it_the_log_names_the_option() {
    let servers = redis::Sentinel::with_password(Some("s3cr+t")).await;
    let without = open(&servers.url());
    let why = without.warnings().await.unwrap_err().to_string();
    assert!(why.contains("NOAUTH") && why.contains("`sentinel_password` in `store.url`"), "{why}");
    let wrong = open(&format!("{}?sentinel_password=other", servers.url()));
    let why = wrong.warnings().await.unwrap_err().to_string();
    assert!(why.contains("WRONGPASS") && why.contains("`sentinel_password`") && !why.contains("other"), "{why}");

    let store = open(&format!("{}?sentinel_password=s3cr%2Bt", servers.url()));
    connected(&store).await;
    let listens = || servers.ask(&["CLIENT", "LIST"]).contains("sub=1");
    redis::until(SOON, listens).await;
}

/// The host of the master goes, and with it the sentinel that the URL names first.
#[tokio::test]
async fn a_sentinel_that_does_not_answer_holds_up_no_write() {
    let servers = redis::Sentinel::start().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hosts = format!("{},127.0.0.1:{}", silent.local_addr().unwrap(), servers.sentinel.port);
    let store = open(&format!("redis-sentinel://{hosts}/mymaster"));
    connected(&store).await;
    let begun = Instant::now();
    let written = store.raise_replicated("cs:notice:account:sub:s", "1 disabled", None).await;
    assert_eq!(written, Ok((true, Some(true))));
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn certificates_that_are_renewed_while_it_runs_are_taken_up() {
    for scheme in ["rediss", "rediss-cluster"] {
        let mut servers = redis::Mutual::start(scheme == "rediss-cluster").await;
        let store = open(&servers.url(scheme));
        connected(&store).await;
        servers.renew().await;
        connected(&store).await;
        store.write("cs:t:renewed", b"x", None).await.unwrap();
        assert_eq!(servers.cli(&["EXISTS", "cs:t:renewed"]), "1", "{scheme}");
        // The feed and what waits for replicas have connections of their own.
        let mut feed = store.feed();
        let first = timeout(SOON, feed.recv()).await.unwrap();
        assert!(matches!(first, Some(FeedEvent::Connected { .. })), "{first:?}");
        assert!(store.raise_replicated("cs:t:raised", "1", None).await.unwrap().0);
    }
}

#[tokio::test]
async fn a_redis_cluster_keeps_the_contract() {
    let cluster = redis::Cluster::start().await;
    contract(open(&cluster.url_as_user())).await;
}

#[tokio::test]
async fn a_scan_of_a_cluster_asks_once_which_nodes_there_are() {
    let cluster = redis::Cluster::start().await;
    let store = open(&cluster.url());
    redis::until(Duration::from_secs(10), || cluster.nodes.iter().all(|node| node.calls("client|tracking") > 0)).await;
    for index in 0..300 {
        store.write(&format!("cs:t:page:{index}"), b"x", None).await.unwrap();
    }
    let asked = || cluster.nodes.iter().map(|node| node.calls("cluster|slots")).sum::<u64>();
    let (before, mut cursor, mut pages, mut found) = (asked(), String::new(), 0, 0);
    loop {
        let (keys, next) = store.scan("cs:t:page:", &cursor, 10).await.unwrap();
        (pages, found) = (pages + 1, found + keys.len());
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    // The feed looks for other primaries now and then as well.
    assert!(found >= 300 && pages > 20 && asked() - before < pages / 2, "{} for {pages} pages", asked() - before);
}

/// Connections that a server has taken so far, this question's among them.
fn connections(server: &redis::Redis) -> u64 {
    let stats = server.cli(&["INFO", "stats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
    line.parse().unwrap()
}

#[tokio::test]
async fn writes_that_wait_for_a_replica_share_a_connection_and_are_asked_for_each() {
    let (master, replica) = redis::pair().await;
    let store = open(&master.url());
    connected(&store).await;
    redis::until(SOON, || master.calls("client|tracking") > 0).await;
    let (before, mut held) = (connections(&master), 0);
    for round in 0..5 {
        let keys: Vec<String> = (0..100).map(|index| format!("cs:notice:account:sub:{round}-{index}")).collect();
        let written = join_all(keys.iter().map(|key| store.raise_replicated(key, "1 disabled", None))).await;
        assert!(written.iter().all(|written| matches!(written, Ok((true, _)))), "{written:?}");
        assert!(written.iter().all(|written| matches!(written, Ok((_, Some(_))))), "asked for each: {written:?}");
        held += written.iter().filter(|written| matches!(written, Ok((_, Some(true))))).count();
    }
    assert!(held >= 400, "a busy machine may be late now and then: {held} of 500");
    assert_eq!(connections(&master) - before - 1, 1, "connections for 500 writes");
    assert_eq!(master.cli(&["DBSIZE"]), "500");

    // Whatever has become of the kept ones, the next write is made, and a replica asked.
    let before = master.calls("wait");
    assert!(before > 0);
    master.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    connected(&store).await;
    let (set, replicated) = store.raise_replicated("cs:notice:account:sub:last", "1 disabled", None).await.unwrap();
    assert!(set && replicated == Some(true) && master.calls("wait") == before + 1);

    replica.pause();
    let (before, begun) = (master.calls("wait"), Instant::now());
    let keys: Vec<String> = (0..16).map(|index| format!("cs:notice:account:sub:alone-{index}")).collect();
    let written = join_all(keys.iter().map(|key| store.raise_replicated(key, "1 disabled", None))).await;
    assert!(written.iter().all(|written| *written == Ok((true, Some(false)))), "{written:?}");
    assert!(begun.elapsed() < Duration::from_secs(1) && master.calls("wait") <= before + 3);
    replica.resume();
}

#[tokio::test]
async fn a_command_connection_that_breaks_under_many_commands_is_replaced_once() {
    let server = redis::Redis::start().await;
    let store = open(&format!("{}?timeout=5s", server.url()));
    connected(&store).await;
    redis::until(SOON, || server.calls("client|tracking") > 0).await;
    let clients = server.cli(&["CLIENT", "LIST"]);
    let commands = clients.lines().filter(|line| line.contains("redir=-1") && !line.contains("cmd=client"));
    let ids: Vec<_> = commands.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
    assert_eq!(ids.len(), 1, "{clients}");
    let (begun, followed) = (server.calls("hello"), server.calls("client|tracking"));

    // Writes stand still, so that all of them are under way when the connection ends.
    server.cli(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    let keys: Vec<String> = (0..50).map(|index| format!("cs:t:pending:{index}")).collect();
    let writes = join_all(keys.iter().map(|key| store.write(key, b"x", None)));
    let kill = async {
        let waiting = || {
            let client = server.cli(&["CLIENT", "LIST", "ID", ids[0]]);
            client.contains("cmd=set") && !client.contains("qbuf=0 ")
        };
        redis::until(SOON, waiting).await;
        server.cli(&["CLIENT", "KILL", "ID", ids[0]]);
    };
    let (written, ()) = tokio::join!(writes, kill);
    assert!(written.iter().all(|written| matches!(written, Err(error) if error.is_transient())), "{written:?}");
    server.cli(&["CLIENT", "UNPAUSE"]);
    connected(&store).await;
    // The feed begins anew with each connection that commands go over.
    redis::until(SOON, || server.calls("client|tracking") > followed).await;
    connected(&store).await;
    assert_eq!(server.calls("client|tracking"), followed + 1);
    assert_eq!(server.calls("hello"), begun + 2 * 2, "one for commands and one for the feed, each says it twice");
}
