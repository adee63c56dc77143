//! The PEM files that a store's URL names, read anew for each connection: certificates that live an hour are replaced, and so
//! is the server's authority. Files that cannot be used change nothing, and that is told: the last good ones stay.

use std::{fs, sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{ClientTlsConfig, TlsCertificates};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

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
        held.check()?;
        Ok(held)
    }
}

impl Held {
    /// What connecting would find out only when there is no connection any more.
    fn check(&self) -> Result<(), Wrong> {
        let mut roots = RootCertStore::empty();
        for authority in self.ca.as_deref().map_or(Ok(Vec::new()), |pem| certificates("ca", pem))? {
            roots.add(authority).map_err(|error| unusable("ca", &error))?;
        }
        let Some((certificate, key)) = &self.own else { return Ok(()) };
        let (chain, key) = (certificates("certificate", certificate)?, PrivateKeyDer::from_pem_slice(key));
        let key = key.map_err(|error| unusable("key", &error))?;
        let made = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        made.map(drop).map_err(|error| format!("`certificate` and `key` do not fit together: {error}").into())
    }

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

fn certificates(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| unusable(name, &error))?;
    if found.is_empty() { Err(unusable(name, &"it holds no certificate")) } else { Ok(found) }
}

fn unusable(name: &str, why: &impl std::fmt::Display) -> Wrong {
    format!("`{name}` cannot be used: {why}").into()
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
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let pair = || {
            let made = rcgen::generate_simple_self_signed(vec!["name".to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let write = |name: &str, pem: &str| fs::write(path(name), pem).unwrap();
        let ((old, old_key), (new, new_key)) = (pair(), pair());
        write("ca", &old);
        write("certificate", &old);
        write("key", &old_key);
        let files = || Files { ca: Some(path("ca")), certificate: Some(path("certificate")), key: Some(path("key")) };
        let certificates = Certificates::open(files()).unwrap();
        let stays = async || {
            let held = certificates.current().await;
            (held.ca.unwrap(), held.own.unwrap().0) == (old.clone().into_bytes(), old.clone().into_bytes())
        };
        assert!(stays().await);
        for (name, pem, why) in [
            ("ca", "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n", "`ca` cannot be used"),
            ("ca", "", "it holds no certificate"),
            ("certificate", "", "it holds no certificate"),
            ("certificate", new.as_str(), "do not fit together"),
            ("key", "", "`key` cannot be used"),
        ] {
            let before = fs::read(path(name)).unwrap();
            write(name, pem);
            let Err(said) = files().read() else { panic!("{name} is taken: {pem:?}") };
            assert!(said.contains(why), "{said}");
            assert!(stays().await, "{name}: {pem:?}");
            fs::write(path(name), before).unwrap();
        }
        fs::remove_file(path("ca")).unwrap();
        assert!(stays().await);
        let used = certificates.current().await;
        for (name, pem) in [("ca", &new), ("certificate", &new), ("key", &new_key)] {
            write(name, pem);
        }
        tokio::time::timeout(10 * LOOK, certificates.changed(&used)).await.unwrap();
        assert!(!stays().await);
    }
}
