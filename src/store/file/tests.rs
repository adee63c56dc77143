//! The file store on a disk that fills up: what is refused, what is kept for later, and what is said.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use redb::{StorageBackend, backends::InMemoryBackend};

use super::*;

/// A disk that is full or not. What is on it outlives each opening of it.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Platter>);

#[derive(Debug, Default)]
struct Platter {
    octets: InMemoryBackend,
    full: AtomicBool,
}

impl Disk {
    fn fill(&self, full: bool) {
        self.0.full.store(full, Ordering::Release);
    }

    fn room(&self) -> io::Result<()> {
        if self.0.full.load(Ordering::Acquire) { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }

    fn store(&self) -> Arc<File> {
        let disk = self.clone();
        let open: Open = Box::new(move || Builder::new().create_with_backend(disk.clone()));
        let now: Now = Arc::new(|| UnixTime::from_secs(1_800_000_000));
        File::over(open, Times { steady: Arc::clone(&now), wall: now }).unwrap()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.octets.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.octets.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.0.octets.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.octets.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.0.octets.write(offset, data)
    }
}

async fn held(store: &File, key: &str) -> Option<Vec<u8>> {
    store.read(&[key.to_owned()]).await.unwrap().pop().unwrap().unwrap().map(|held| held.value)
}

/// Until the store has no more to warn of.
async fn mended(store: &File) {
    for _ in 0..500 {
        if store.warnings().await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", store.warnings().await);
}

#[tokio::test]
async fn a_full_disk_is_got_over_and_what_was_refused_meanwhile_is_written() {
    let disk = Disk::default();
    let store = disk.store();
    store.write("cs:revoked:jti:before", b"x", None).await.unwrap();
    store.write("cs:revoked:jti:undone", b"x", None).await.unwrap();
    disk.fill(true);
    let error = store.write("cs:revoked:jti:during", b"x", None).await.unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    for _ in 0..3 {
        let error = store.write("cs:revoked:jti:during", b"y", None).await.unwrap_err();
        assert!(error.to_string().contains("No space left"), "said as it is, not as redb remembers it: {error}");
    }
    store.delete(&["cs:revoked:jti:undone".to_owned()]).await.unwrap_err();
    assert_eq!(held(&store, "cs:revoked:jti:during").await.unwrap(), b"y", "it bites at once");
    let warned = store.warnings().await.unwrap();
    assert!(warned.len() == 1 && warned[0].contains("No space left"), "{warned:?}");

    disk.fill(false);
    mended(&store).await;
    store.write("cs:revoked:jti:after", b"x", None).await.unwrap();
    drop(store);
    // Closed by the thread that writes it, a moment later.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let store = disk.store();
    assert_eq!(held(&store, "cs:revoked:jti:before").await.unwrap(), b"x");
    assert_eq!(held(&store, "cs:revoked:jti:during").await.unwrap(), b"y", "also after a restart");
    assert_eq!(held(&store, "cs:revoked:jti:undone").await, None);
    assert_eq!(held(&store, "cs:revoked:jti:after").await.unwrap(), b"x");
}

#[tokio::test]
async fn what_is_owed_when_the_store_is_dropped_is_written_then() {
    let disk = Disk::default();
    let store = disk.store();
    disk.fill(true);
    store.write("cs:revoked:jti:during", b"x", None).await.unwrap_err();
    disk.fill(false);
    drop(store);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(held(&disk.store(), "cs:revoked:jti:during").await.unwrap(), b"x");
}
