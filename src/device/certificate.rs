//! Client certificates as they speak of devices: which device one names, who vouches for it, when its time is over.
//!
//! Envoy has proved possession of the key; whether the certificate comes from an authority for devices is verified here,
//! once for each certificate, and remembered. Only a certificate that verified names a device.

use std::{borrow::Cow, fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use moka::sync::Cache;
use rustls::{
    RootCertStore,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime as PkiTime, pem::PemObject as _};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use crate::domain::{DeviceId, UnixTime};

/// Longest certificate that is read, URL-encoded.
const MAX_CERTIFICATE: usize = 64 * 1024;
/// How many certificates are remembered, and for how long at most: an authority's own time ends too.
const REMEMBERED: u64 = 100_000;
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// A client certificate, as far as it speaks of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The device that it names in a URI, where an authority vouches for it.
    pub device: Option<DeviceId>,
    /// Whether one of the configured authorities vouches for it; `None`: none are configured.
    pub vouched: Option<bool>,
    /// First and last moment of its life; `None` where the certificate itself was not sent.
    pub life: Option<(UnixTime, UnixTime)>,
}

impl ClientCertificate {
    /// Whether `now` is outside its life. What is not known to have ended has not.
    pub fn is_out_of_time(&self, now: UnixTime) -> bool {
        self.life.is_some_and(|(from, to)| now < from || now > to)
    }
}

/// Why authorities for device certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("devices: {} cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("devices: {} holds no certificate in PEM", .0.display())]
    Empty(PathBuf),
    #[error("devices: an authority's certificate cannot be used: {0}")]
    Unusable(String),
}

/// Reads certificates, verifies them against the authorities, and remembers what it found.
pub struct Certificates {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// `spiffe://<trust domain>/device/`.
    prefix: Option<String>,
    known: Cache<Arc<str>, Arc<ClientCertificate>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Certificates {
    /// `files`: PEM files with authorities. `own`: ours, as DER. Devices are named below `spiffe://<trust_domain>/device/`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or holds nothing that can be an authority.
    pub fn new(files: &[PathBuf], own: Option<&[u8]>, trust_domain: Option<&str>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        let mut add =
            |der: CertificateDer<'_>| roots.add(der.into_owned()).map_err(|error| Error::Unusable(error.to_string()));
        if let Some(der) = own {
            add(CertificateDer::from(der))?;
        }
        for path in files {
            let pem = fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            let found: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
            if found.is_empty() {
                return Err(Error::Empty(path.clone()));
            }
            found.into_iter().try_for_each(&mut add)?;
        }
        let known = Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build();
        let prefix = trust_domain.map(device_prefix);
        Ok(Self { verifier: verifier(roots)?, prefix, known })
    }

    /// What the certificate with this thumbprint says. `encoded` is the certificate as Envoy sends it (URL-encoded PEM),
    /// empty where it sends none: such a certificate is vouched for by nobody.
    pub fn read(&self, thumbprint: &str, encoded: &[u8], now: UnixTime) -> Arc<ClientCertificate> {
        if let Some(known) = self.known.get(thumbprint) {
            return known;
        }
        let vouched = self.verifier.as_ref().map(|_| false);
        let read = self.parse(encoded, now).unwrap_or(ClientCertificate { vouched, ..Default::default() });
        let read = Arc::new(read);
        // Without the certificate there is nothing to remember, and a later request may send it.
        if read.life.is_some() {
            self.known.insert(thumbprint.into(), Arc::clone(&read));
        }
        read
    }

    /// What a certificate says that one of our authorities vouches for; `None` where none does.
    pub(super) fn verified(&self, der: &CertificateDer<'_>, now: UnixTime) -> Option<ClientCertificate> {
        self.parse_der(der, now).filter(|certificate| certificate.vouched == Some(true))
    }

    fn parse(&self, encoded: &[u8], now: UnixTime) -> Option<ClientCertificate> {
        if encoded.is_empty() || encoded.len() > MAX_CERTIFICATE {
            return None;
        }
        let pem: Cow<'_, [u8]> = percent_encoding::percent_decode(encoded).into();
        self.parse_der(&CertificateDer::from_pem_slice(&pem).ok()?, now)
    }

    fn parse_der(&self, der: &CertificateDer<'_>, now: UnixTime) -> Option<ClientCertificate> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let time = |at: x509_parser::time::ASN1Time| UnixTime::from_secs(u64::try_from(at.timestamp()).unwrap_or(0));
        let life = (time(parsed.validity().not_before), time(parsed.validity().not_after));
        let vouched = self.verifier.as_deref().map(|verifier| is_vouched(verifier, der, life, now));
        let device = if vouched == Some(true) { self.device(&parsed) } else { None };
        Some(ClientCertificate { device, vouched, life: Some(life) })
    }

    /// The one device that the certificate names; more than one name of ours is none.
    fn device(&self, certificate: &X509Certificate<'_>) -> Option<DeviceId> {
        let prefix = self.prefix.as_deref()?;
        let names = certificate.subject_alternative_name().ok()??;
        let mut ids = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(prefix),
            _ => None,
        });
        let id = ids.next().filter(|id| !id.is_empty())?;
        if ids.next().is_some() {
            return None;
        }
        Some(DeviceId::from(id))
    }
}

/// What the URI of a device's certificate begins with.
pub(super) fn device_prefix(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/device/")
}

fn verifier(roots: RootCertStore) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    if roots.is_empty() {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map(|verifier| Some(verifier as _)).map_err(|error| Error::Unusable(error.to_string()))
}

/// Whether the chain holds. The leaf's own time is asked about on each request, not here: one that ended is still ours.
fn is_vouched(
    verifier: &dyn ClientCertVerifier,
    leaf: &CertificateDer<'_>,
    (from, to): (UnixTime, UnixTime),
    now: UnixTime,
) -> bool {
    let at = |time: UnixTime| PkiTime::since_unix_epoch(Duration::from_secs(time.as_secs()));
    let moment = if now < from || now > to { from } else { now };
    let verified = verifier.verify_client_cert(leaf, &[], at(moment));
    if let Err(error) = &verified {
        tracing::debug!(%error, "a client certificate does not come from an authority for devices");
    }
    verified.is_ok()
}
