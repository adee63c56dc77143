//! Which adapter a store's address means. The one place where adapters have names.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config,
    store::{Store, StoreError, file, memory, redis},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the store cannot be opened: {0}")]
    Open(#[from] StoreError),
    #[error(
        "the store's address begins with none of memory://, file://, redis://, rediss://, redis-cluster://, redis-sentinel://"
    )]
    Scheme,
    #[error("a file store is named by its absolute path: file:///var/lib/countersign")]
    Folder,
}

/// Opens the store. A Redis that does not answer yet is no error: it is sought until it does.
pub(super) async fn open(
    settings: &config::Store,
    clock: &Clock,
    background: &CancellationToken,
) -> Result<Arc<dyn Store>, Error> {
    let url = settings.url.expose();
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("memory") => Ok(Arc::new(memory::Memory::new(clock.steady()))),
        Some("file") => {
            let folder = settings.folder().ok_or(Error::Folder)?;
            let wall = clock.clone();
            Ok(file::File::open(&folder, clock.steady(), move || wall.now())?)
        }
        Some("redis" | "rediss" | "redis-cluster" | "rediss-cluster" | "redis-sentinel" | "rediss-sentinel") => {
            Ok(redis::Redis::open(url, background)?)
        }
        _ => Err(Error::Scheme),
    }
}

/// The kind of store, without host or password.
pub(super) fn name(settings: &config::Store) -> &'static str {
    match settings.url.expose().split_once("://").map(|(scheme, _)| scheme) {
        Some("memory") => "memory",
        Some("file") => "file",
        _ => "redis",
    }
}
