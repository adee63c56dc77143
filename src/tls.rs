//! TLS of the ports we listen on: certificate, key and authorities for clients, as files say, and anew when those change.
//!
//! A change is for connections that come after it; those that are open go on. Files that cannot be used change nothing, and
//! that is told: certificates that live an hour are replaced while somebody connects. A certificate that is out of its time
//! does not replace one that is in its time, but keeps nobody from starting: what it is worth, clients decide.

#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::WebPkiClientVerifier,
};
use x509_parser::time::ASN1Time;

use crate::domain::metric::{Counter, Gauge, Page, Source};

/// PEM files of a port. With `client_ca`, a client without a certificate of one of those is refused.
#[derive(Clone, Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

/// What is wrong with the files of a port, and with which, where it is one alone.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Problem {
    pub file: Option<PathBuf>,
    pub why: String,
}

impl Problem {
    fn of(path: &Path, why: &impl ToString) -> Self {
        let why = format!("`{}` cannot be used: {}", path.display(), why.to_string());
        Self { file: Some(path.to_owned()), why }
    }

    /// In words, and with nothing of what stands in the file: it may be a key.
    fn of_pem(path: &Path, error: &pem::Error) -> Self {
        let why = match error {
            pem::Error::MissingSectionEnd { end_marker } => {
                format!("it breaks off: the line `-----END {}-----` is missing", end_marker.escape_ascii())
            }
            pem::Error::IllegalSectionStart { .. } => "a line `-----BEGIN …` does not end in `-----`".into(),
            pem::Error::Base64Decode(_) => "what stands between two lines `-----…-----` is not Base64".into(),
            pem::Error::NoItemsFound => "it holds no private key".into(),
            other => other.to_string(),
        };
        Self::of(path, &why)
    }
}

impl Files {
    /// Tries whether they can be used, without a port, and says what is odd about the certificate. Needs the process'
    /// cryptography to be installed.
    ///
    /// # Errors
    ///
    /// What [`Tls::open`] would refuse.
    pub fn check(&self) -> Result<Option<String>, Problem> {
        let made = Made::of(&Read::from(self)?, self)?;
        Ok(made.lives.out_of_time(now()).map(|why| format!("`{}`: {why}", self.certificate.display())))
    }
}

#[derive(Debug)]
struct Known {
    in_force: Mark,
    lives: Lifetime,
    /// Why what was tried last could not be used: told once, not at every look.
    refused: Option<String>,
}

/// TLS of one port.
#[derive(Debug)]
pub struct Tls {
    /// Which: a label.
    port: &'static str,
    files: Files,
    current: ArcSwap<ServerConfig>,
    known: Mutex<Known>,
    /// Seconds since 1970.
    expiry: Gauge,
    reloaded: Counter,
    failed: Counter,
}

impl Tls {
    /// # Errors
    ///
    /// Where a file cannot be read, or they do not fit together.
    pub fn open(port: &'static str, files: Files) -> Result<Arc<Self>, Problem> {
        let read = Read::from(&files)?;
        let made = Made::of(&read, &files)?;
        warn_of_time(port, made.lives, now());
        let expiry = Gauge::default();
        expiry.set(made.lives.ends as f64);
        Ok(Arc::new(Self {
            port,
            current: ArcSwap::from_pointee(made.config),
            known: Mutex::new(Known { in_force: read.mark(), lives: made.lives, refused: None }),
            expiry,
            reloaded: Counter::default(),
            failed: Counter::default(),
            files,
        }))
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// What to look at.
    pub fn paths(&self) -> Vec<PathBuf> {
        let Files { certificate, key, client_ca } = self.files.clone();
        [Some(certificate), Some(key), client_ca].into_iter().flatten().collect()
    }

    /// Tells what the files hold now from what they held before; `None`: they cannot be read. Reads files, as
    /// [`Tls::reload`] does.
    pub fn found(&self) -> Option<[u8; 32]> {
        Read::from(&self.files).ok().map(|read| read.mark())
    }

    /// Takes up what the files hold now, if that is something new and can be used. Reads files: not for a runtime's thread.
    pub fn reload(&self) {
        self.reload_at(now());
    }

    fn reload_at(&self, now: i64) {
        let known = &mut *self.known.lock();
        let read = Read::from(&self.files);
        if read.as_ref().is_ok_and(|read| read.mark() == known.in_force) {
            known.refused = None;
            return;
        }
        match read.and_then(|read| Ok((read.mark(), self.make(&read, known.lives, now)?))) {
            Ok((in_force, made)) => {
                self.current.store(Arc::new(made.config));
                self.expiry.set(made.lives.ends as f64);
                self.reloaded.increment();
                *known = Known { in_force, lives: made.lives, refused: None };
                tracing::info!(port = self.port, "TLS: new files were taken up for new connections");
                warn_of_time(self.port, made.lives, now);
            }
            Err(problem) if known.refused.as_ref() == Some(&problem.why) => {}
            Err(problem) => {
                self.failed.increment();
                tracing::error!(
                    port = self.port,
                    "TLS: new files are not taken up, the last good ones stay: {problem}"
                );
                known.refused = Some(problem.why);
            }
        }
    }

    /// What replaces a certificate that lives as said. Clients would refuse one that is out of its time, where they do not
    /// refuse the one they are shown now; what is not valid yet is tried again at the next look.
    fn make(&self, read: &Read, current: Lifetime, now: i64) -> Result<Made, Problem> {
        let made = Made::of(read, &self.files)?;
        match made.lives.out_of_time(now) {
            Some(why) if current.out_of_time(now).is_none() => Err(Problem::of(&self.files.certificate, &why)),
            _ => Ok(made),
        }
    }
}

fn warn_of_time(port: &'static str, lives: Lifetime, now: i64) {
    if let Some(why) = lives.out_of_time(now) {
        tracing::warn!(port, "TLS: the certificate in use is refused by clients that look at its time: {why}");
    }
}

impl Source for Tls {
    fn collect(&self, page: &mut Page) {
        let port = ("port", self.port);
        let help = "When the certificate of a port ends, in seconds since 1970";
        page.gauge("countersign_tls_expiry_timestamp_seconds", help, &[port], self.expiry.get());
        let (name, help) = ("countersign_tls_reloads", "Changes of the files of a port's TLS, by outcome");
        page.counter(name, help, &[port, ("outcome", "loaded")], &self.reloaded);
        page.counter(name, help, &[port, ("outcome", "failed")], &self.failed);
    }
}

/// By which files are told from what they were: no copy of a key is kept for that.
type Mark = [u8; 32];

/// What the files hold.
struct Read {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Read {
    fn from(files: &Files) -> Result<Self, Problem> {
        let read = |path: &PathBuf| {
            // Not even opened: a pipe would be waited for for ever.
            if fs::metadata(path).map_err(|error| Problem::of(path, &error))?.is_file() {
                fs::read(path).map_err(|error| Problem::of(path, &error))
            } else {
                Err(Problem::of(path, &"it is no regular file"))
            }
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_ref().map(read).transpose()?,
        })
    }

    fn mark(&self) -> Mark {
        let mut context = Context::new(&SHA256);
        for octets in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            context.update(&octets.len().to_be_bytes());
            context.update(octets);
        }
        let mut mark = [0; 32];
        mark.copy_from_slice(context.finish().as_ref());
        mark
    }
}

/// What becomes of them.
struct Made {
    config: ServerConfig,
    lives: Lifetime,
}

impl Made {
    fn of(read: &Read, files: &Files) -> Result<Self, Problem> {
        let chain = certificates(&read.certificate, &files.certificate)?;
        let lives = chain.first().map_or(Ok(Lifetime::default()), |leaf| Lifetime::of(leaf, &files.certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&read.key).map_err(|error| Problem::of_pem(&files.key, &error))?;
        let builder = ServerConfig::builder();
        let builder = match (&read.client_ca, &files.client_ca) {
            (Some(octets), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(octets, path)? {
                    roots.add(certificate).map_err(|error| Problem::of(path, &error))?;
                }
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| Problem::of(path, &error))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| Problem { file: None, why: format!("the files do not fit together: {error}") })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config, lives })
    }
}

fn certificates(octets: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(octets).collect();
    let found = found.map_err(|error| Problem::of_pem(path, &error))?;
    if found.is_empty() { Err(Problem::of(path, &"it holds no certificate")) } else { Ok(found) }
}

/// When a certificate may be used, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
struct Lifetime {
    begins: i64,
    ends: i64,
}

impl Lifetime {
    fn of(leaf: &CertificateDer<'_>, path: &Path) -> Result<Self, Problem> {
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|error| Problem::of(path, &error))?;
        let validity = leaf.validity();
        Ok(Self { begins: validity.not_before.timestamp(), ends: validity.not_after.timestamp() })
    }

    /// Why it is not to be used now.
    fn out_of_time(self, now: i64) -> Option<String> {
        let date = |seconds| jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".into(), |date| date.to_string());
        if now < self.begins {
            Some(format!("it is not valid before {}", date(self.begins)))
        } else if now > self.ends {
            Some(format!("it was valid until {}", date(self.ends)))
        } else {
            None
        }
    }
}

fn now() -> i64 {
    ASN1Time::now().timestamp()
}
