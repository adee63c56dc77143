//! Our own authority for device certificates: its key is read once from a file that nobody else may read, and never leaves.

use std::{
    fmt, fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::{
    request::SigningRequest,
    settings::{SHORTEST, Settings},
};
use crate::{device::certificate::device_prefix, domain::UnixTime, private};

/// How far a device's clock may be behind ours.
const BACKDATED: Duration = Duration::from_secs(300);
/// Life of an authority that we make ourselves.
const OWN_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A certificate and a key are far smaller.
const MAX_FILE: u64 = 256 * 1024;

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("devices.enrollment: {} cannot be read or made: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("devices.enrollment: {} holds no {what} in PEM", .path.display())]
    Missing { path: PathBuf, what: &'static str },
    #[error("devices.enrollment: the authority cannot sign: {0}")]
    Unfit(&'static str),
    #[error("devices.enrollment: the authority's certificate has expired: replace it, and start again")]
    Over,
    #[error("devices.enrollment: the authority cannot be used: {0}")]
    Library(#[from] rcgen::Error),
    #[error("devices.enrollment: no randomness: {0}")]
    Random(&'static str),
}

/// A certificate that was just signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub pem: String,
    /// Lower-case hexadecimal SHA-256 of the certificate.
    pub sha256: String,
    pub expires: UnixTime,
}

/// Signs certificates of devices.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    ends: UnixTime,
    prefix: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads the authority that `settings` name, or makes one where that is asked for and there is none.
    ///
    /// # Errors
    ///
    /// One clear line for whatever is missing, open to others, or unfit.
    pub fn open(settings: &Settings, trust_domain: &str, now: UnixTime) -> Result<Self, AuthorityError> {
        let path = settings.authority.as_deref().ok_or(AuthorityError::Unfit("`authority` is not set"))?;
        if settings.generate_authority && !path.exists() {
            generate(path, trust_domain, now)?;
            tracing::warn!(path = %path.display(), "an authority for device certificates was made; its key is in that file");
        }
        let key_path = settings.authority_key.as_deref().unwrap_or(path);
        let certificate = read(path, key_path == path)?;
        let key = if key_path == path { certificate.clone() } else { read(key_path, true)? };
        let missing = |path: &Path, what| AuthorityError::Missing { path: path.to_owned(), what };
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| missing(path, "certificate"))?;
        let key = private_key(&key).ok_or_else(|| missing(key_path, "private key that can be used"))?;
        Self::of(der.into_owned(), key, trust_domain, now)
    }

    fn of(der: CertificateDer<'static>, key: KeyPair, domain: &str, now: UnixTime) -> Result<Self, AuthorityError> {
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| AuthorityError::Unfit("no X.509 certificate"))?;
        if !parsed.is_ca() {
            return Err(AuthorityError::Unfit("its certificate is not one of an authority (CA:TRUE is missing)"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Unfit("certificate and key do not belong together"));
        }
        let ends = UnixTime::from_secs(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0));
        if ends <= now {
            return Err(AuthorityError::Over);
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        let pem = pem_of(&der);
        Ok(Self { issuer, certificate: der, pem, ends, prefix: device_prefix(domain) })
    }

    /// The authority's certificate, for whoever verifies devices.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// As [`Authority::der`], in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When its certificate ends.
    pub const fn ends(&self) -> UnixTime {
        self.ends
    }

    /// Whether it still lasts long enough for a certificate that is of any use.
    ///
    /// # Errors
    ///
    /// That it does not.
    pub(super) fn lasts(&self, now: UnixTime) -> Result<(), AuthorityError> {
        if now.plus(SHORTEST) <= self.ends { Ok(()) } else { Err(AuthorityError::Over) }
    }

    /// A certificate for device `id`: one name, one use, a short life, and nothing of what the request asked for.
    pub(super) fn sign(
        &self,
        id: &str,
        request: &SigningRequest,
        life: Duration,
        now: UnixTime,
    ) -> Result<Issued, AuthorityError> {
        self.lasts(now)?;
        let expires = now.plus(life).min(self.ends);
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, id.chars().take(64).collect::<String>());
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| AuthorityError::Random("no serial number"))?;
        serial[0] &= 0x7F;
        let uri = format!("{}{id}", self.prefix);
        let uri = uri.try_into().map_err(|_| AuthorityError::Unfit("the device's id does not fit into a URI"))?;
        let mut params = CertificateParams::default();
        set_life(&mut params, now.minus(BACKDATED), expires);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.distinguished_name = name;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&request.key, &self.issuer)?;
        let sha256 = hex::encode(digest::digest(&digest::SHA256, signed.der()));
        Ok(Issued { pem: signed.pem(), sha256, expires: UnixTime::from_secs(expires.as_secs()) })
    }
}

fn set_life(params: &mut CertificateParams, from: UnixTime, to: UnixTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from.as_secs());
    params.not_after = epoch + Duration::from_secs(to.as_secs());
}

/// Makes an authority and its key in one file of mode 0600. Of several processes one makes it, and all read the same.
fn generate(path: &Path, trust_domain: &str, now: UnixTime) -> Result<(), AuthorityError> {
    let key = KeyPair::generate()?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("Countersign devices of {trust_domain}"));
    let mut params = CertificateParams::default();
    set_life(&mut params, now.minus(BACKDATED), now.plus(OWN_LIFE));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    let text = Zeroizing::new(format!("{}{}", certificate.pem(), *Zeroizing::new(key.serialize_pem())));
    write_once(path, text.as_bytes()).map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

/// Written aside and linked: whoever sees the name sees the whole file, and the first to link wins.
fn write_once(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A name that nobody else has: in containers on one volume every process may have the same number.
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
    let aside = folder.join(format!(".authority.{}", hex::encode(random)));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    let linked = fs::hard_link(&aside, path);
    fs::remove_file(&aside)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn read(path: &Path, secret: bool) -> Result<Zeroizing<String>, AuthorityError> {
    let failed = |source| AuthorityError::File { path: path.to_owned(), source };
    let file = if secret { private::open(path) } else { fs::File::open(path) }.map_err(failed)?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The private key among the parts of a PEM text.
fn private_key(text: &str) -> Option<KeyPair> {
    let start = text.find("-----BEGIN ").into_iter().chain(text.match_indices("\n-----BEGIN ").map(|(at, _)| at + 1));
    start
        .map(|at| &text[at..])
        .find(|part| part.lines().next().is_some_and(|line| line.ends_with("PRIVATE KEY-----")))
        .and_then(|part| KeyPair::from_pem(&Zeroizing::new(part.to_owned())).ok())
}

fn pem_of(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_lies_beside_it_a_new_authority_is_written_whole_and_the_first_stays() {
        let folder = std::env::temp_dir().join(format!("countersign-authority-{}", hex::encode(random())));
        fs::create_dir(&folder).unwrap();
        let others = folder.join(format!(".authority.{}", std::process::id()));
        fs::write(&others, "another process of this number writes here").unwrap();
        let path = folder.join("ca.pem");
        write_once(&path, b"first").unwrap();
        write_once(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read(&others).unwrap(), b"another process of this number writes here");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "nothing of ours is left beside it");
        fs::remove_dir_all(&folder).unwrap();
    }

    fn random() -> [u8; 8] {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        random
    }
}
