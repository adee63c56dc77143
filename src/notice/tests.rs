use crate::{
    domain::metric::{Page, Source as _, Value},
    store::memory::Memory,
};

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

fn start(clock: &Clock, max_entries: usize, cancel: &CancellationToken) -> (Arc<Notices>, Arc<dyn Store>) {
    let now = clock.clone();
    let store: Arc<dyn Store> = Arc::new(Memory::new(move || now.now()));
    let notices =
        Notices::start(Arc::clone(&store), clock.clone(), Duration::from_secs(5), max_entries, cancel.clone());
    (notices, store)
}

async fn until_live(notices: &Notices) {
    while !notices.is_live() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_not_taken_for_something_newer() {
    for listens in [true, false] {
        let cancel = CancellationToken::new();
        if !listens {
            cancel.cancel();
        }
        let (notices, store) = start(&Clock::manual(NOW), 100, &cancel);
        if listens {
            until_live(&notices).await;
        }
        let say = |word| notices.say((Kind::Subject, "ann"), word, NOW, None);
        let key = keys::notice("account", "sub", "ann");
        let far = (NOW.as_millis() + 1000) * 4;
        for garbage in ["disabled".to_owned(), format!("{far} weather"), format!("{far}")] {
            store.write(&key, garbage.as_bytes(), None).await.unwrap();
            let error = say(Word::Disabled).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Malformed, "{garbage}");
        }
        store.write(&key, format!("{far} enabled").as_bytes(), None).await.unwrap();
        assert_eq!(say(Word::Disabled).await, Ok(false), "this is newer");
        store.delete(&[key]).await.unwrap();
        assert_eq!(say(Word::Disabled).await, Ok(true));
    }
}

#[tokio::test]
async fn a_full_memory_shows_and_says_nothing_of_anybody() {
    let (notices, store) = start(&Clock::manual(NOW), 2, &CancellationToken::new());
    until_live(&notices).await;
    let full = || {
        let mut page = Page::default();
        notices.collect(&mut page);
        let family = page.families().iter().find(|family| family.name == "countersign_notices_full").unwrap();
        family.samples[0].value == Value::Gauge(1.0)
    };
    for id in ["ann", "bob"] {
        notices.say((Kind::Subject, id), Word::Disabled, NOW, None).await.unwrap();
    }
    assert!(!full() && notices.is_live());
    notices.say((Kind::Subject, "eve"), Word::Disabled, NOW, None).await.unwrap();
    assert!(full());
    // Until there is room, and all was read again.
    store.delete(&[keys::notice("account", "sub", "ann")]).await.unwrap();
    while full() {
        follow::read_all(&notices).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(notices.held.len(), 2);
}

#[tokio::test]
async fn a_word_that_is_insisted_on_outlives_who_said_it_and_the_end_waits_for_it() {
    let cancel = CancellationToken::new();
    let (notices, store) = start(&Clock::manual(NOW), 100, &cancel);
    until_live(&notices).await;
    let key = keys::notice("end", "login", "l1");
    store.write(&key, b"garbage", None).await.unwrap();
    let insisting = Arc::clone(&notices);
    // A worker of the Check port, whose runtime ends with its last call.
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { insisting.insist((Kind::Login, "l1".to_owned()), Word::Ended, NOW, None) });
    });
    tokio::task::spawn_blocking(move || worker.join().unwrap()).await.unwrap();
    cancel.cancel();
    let mut stopped = std::pin::pin!(notices.stopped());
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut stopped).await.is_err(), "not taken yet");
    store.delete(std::slice::from_ref(&key)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(3), stopped).await.unwrap();
    assert!(store.read(&[key]).await.unwrap()[0].as_ref().unwrap().is_some());
}

#[tokio::test]
async fn words_that_wait_to_be_taken_are_bounded_and_the_rest_are_counted() {
    let (notices, _store) = start(&Clock::manual(NOW), 100, &CancellationToken::new());
    for number in 0..insist::WAITING + 2 {
        notices.insist((Kind::Login, number.to_string()), Word::Ended, NOW, None);
    }
    assert_eq!(notices.counters.lost.get(), 2);
    notices.stopped().await;
    notices.insist((Kind::Login, "l1".to_owned()), Word::Ended, NOW, None);
    assert_eq!(notices.counters.lost.get(), 2, "there is room again");
}
