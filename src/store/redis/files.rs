//! The PEM files that a store's URL names, read anew for each connection: certificates that live an hour are replaced, and so
//! is the server's authority. Files that cannot be used change nothing, and that is told: the last good ones stay.

use std::{fs, sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{Client, ClientTlsConfig, TlsCertificates};

use super::address::Wrong;

/// How often they are looked at for the sake of connections that go on with what they began with.
const LOOK: Duration = Duration::from_secs(2);

/// What the URL names.
#[derive(Default)]
pub(super) struct Files {
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

/// What they hold.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    ca: Option<Vec<u8>>,
    own: Option<(Vec<u8>, Vec<u8>)>,
}

impl Files {
    /// What they hold, if it can be used. Not for a runtime's thread.
    pub(super) fn read(&self) -> Result<Held, Wrong> {
        let ca = self.ca.as_deref().map(read).transpose()?;
        let own = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let held = Held { ca, own };
        let tried = held.certificates().map(|held| Client::build_with_tls("rediss://localhost", held)).transpose();
        tried.map_err(|error| {
            let why = super::reply::failure(&error).detail;
            format!("`ca`, `certificate` and `key` cannot be used: {why}")
        })?;
        Ok(held)
    }
}

impl Held {
    pub(super) fn certificates(&self) -> Option<TlsCertificates> {
        let own = self.own.clone();
        let client_tls = own.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        (self.ca.is_some() || client_tls.is_some()).then(|| TlsCertificates { client_tls, root_cert: self.ca.clone() })
    }
}

pub(super) struct Certificates {
    files: Arc<Files>,
    known: Mutex<Known>,
}

struct Known {
    good: Held,
    /// Why what was tried last could not be used: told once, not at every look.
    refused: Option<Wrong>,
}

impl Certificates {
    pub(super) fn open(files: Files) -> Result<Self, Wrong> {
        let good = files.read()?;
        Ok(Self { files: Arc::new(files), known: Mutex::new(Known { good, refused: None }) })
    }

    /// What the files hold now, or held when they could be used last.
    pub(super) async fn current(&self) -> Held {
        if self.known.lock().good == Held::default() {
            return Held::default();
        }
        let files = Arc::clone(&self.files);
        let read = tokio::task::spawn_blocking(move || files.read()).await;
        let known = &mut *self.known.lock();
        match read {
            Ok(Ok(held)) => *known = Known { good: held, refused: None },
            Ok(Err(why)) if known.refused.as_ref() != Some(&why) => {
                tracing::error!("TLS to the store: new files are not taken up, the last good ones stay: {why}");
                known.refused = Some(why);
            }
            // The runtime ends.
            Ok(Err(_)) | Err(_) => {}
        }
        known.good.clone()
    }

    /// Returns when the files hold something else than `used` that can be used.
    pub(super) async fn changed(&self, used: &Held) {
        if *used == Held::default() {
            return std::future::pending().await;
        }
        while self.current().await == *used {
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn read(path: &str) -> Result<Vec<u8>, Wrong> {
    let unreadable = |error: std::io::Error| Wrong::from(format!("`{path}` cannot be read: {error}"));
    // Not even opened: a pipe would be waited for for ever.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("`{path}` is no regular file").into());
    }
    fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_cannot_be_used_change_nothing_and_new_ones_that_can_are_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let authority = || rcgen::generate_simple_self_signed(vec!["authority".to_owned()]).unwrap().cert.pem();
        let (old, new) = (authority(), authority());
        fs::write(&path, &old).unwrap();
        let ca = Some(path.to_str().unwrap().to_owned());
        let certificates = Certificates::open(Files { ca, ..Files::default() }).unwrap();
        let current = async || certificates.current().await.ca.unwrap();
        assert_eq!(current().await, old.as_bytes());
        fs::write(&path, "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(current().await, old.as_bytes());
        fs::remove_file(&path).unwrap();
        assert_eq!(current().await, old.as_bytes());
        let used = certificates.current().await;
        fs::write(&path, &new).unwrap();
        tokio::time::timeout(10 * LOOK, certificates.changed(&used)).await.unwrap();
        assert_eq!(current().await, new.as_bytes());
    }
}
