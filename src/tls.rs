//! TLS of the ports we listen on: certificate, key and authorities for clients, as files say, and anew when those change.
//!
//! A change is for connections that come after it; those that are open go on. Files that cannot be used change nothing, and
//! that is told: certificates that live an hour are replaced while somebody connects.

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
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

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
}

impl Files {
    /// Tries whether they can be used, without a port. Needs the process' cryptography to be installed.
    ///
    /// # Errors
    ///
    /// What [`Tls::open`] would refuse.
    pub fn check(&self) -> Result<(), Problem> {
        Made::of(&Read::from(self)?, self).map(drop)
    }
}

/// TLS of one port.
#[derive(Debug)]
pub struct Tls {
    /// Which: a label.
    port: &'static str,
    files: Files,
    current: ArcSwap<ServerConfig>,
    /// Of what is in force, and of what was tried last and could not be used: told once, not at every look.
    read: Mutex<(Mark, Option<String>)>,
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
        let expiry = Gauge::default();
        expiry.set(made.expiry);
        Ok(Arc::new(Self {
            port,
            current: ArcSwap::from_pointee(made.config),
            read: Mutex::new((read.mark(), None)),
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

    /// Takes up what the files hold now, if that is something new and can be used. Reads files: not for a runtime's thread.
    pub fn reload(&self) {
        let (in_force, refused) = &mut *self.read.lock();
        let read = Read::from(&self.files);
        if read.as_ref().is_ok_and(|read| read.mark() == *in_force) {
            *refused = None;
            return;
        }
        match read.and_then(|read| Ok((read.mark(), Made::of(&read, &self.files)?))) {
            Ok((mark, made)) => {
                self.current.store(Arc::new(made.config));
                self.expiry.set(made.expiry);
                self.reloaded.increment();
                (*in_force, *refused) = (mark, None);
                tracing::info!(port = self.port, "TLS: new files were taken up for new connections");
            }
            Err(problem) if refused.as_ref() == Some(&problem.why) => {}
            Err(problem) => {
                self.failed.increment();
                tracing::error!(
                    port = self.port,
                    "TLS: new files are not taken up, the last good ones stay: {problem}"
                );
                *refused = Some(problem.why);
            }
        }
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
        let read = |path: &PathBuf| fs::read(path).map_err(|error| Problem::of(path, &error));
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
    expiry: f64,
}

impl Made {
    fn of(read: &Read, files: &Files) -> Result<Self, Problem> {
        let chain = certificates(&read.certificate, &files.certificate)?;
        let expiry = chain.first().map_or(Ok(0.0), |leaf| expiry(leaf, &files.certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&read.key).map_err(|error| Problem::of(&files.key, &error))?;
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
        Ok(Self { config, expiry })
    }
}

fn certificates(octets: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(octets).collect();
    let found = found.map_err(|error| Problem::of(path, &error))?;
    if found.is_empty() { Err(Problem::of(path, &"it holds no certificate")) } else { Ok(found) }
}

fn expiry(leaf: &CertificateDer<'_>, path: &Path) -> Result<f64, Problem> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|error| Problem::of(path, &error))?;
    Ok(leaf.validity().not_after.timestamp() as f64)
}
