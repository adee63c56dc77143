//! A certificate authority of the test run: what an Envoy's TLS listener shows, and what clients show to it.

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    key: String,
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "authority of the test run");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("it signs itself");
        let pem = key.serialize_pem();
        Authority { certificate, issuer: Issuer::new(params, key), key: pem }
    })
}

fn signed(names: Vec<SanType>, ends: Option<i64>) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, "somebody");
    params.subject_alt_names = names;
    if let Some(ends) = ends {
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(ends.unsigned_abs());
    }
    let certificate = params.signed_by(&key, &authority().issuer).expect("the authority signs");
    (certificate, key)
}

/// Writes `tls-ca.pem`, `tls-server.pem` and `tls-server.key` for a listener.
pub fn write_server(folder: &Path) {
    let (certificate, key) = signed(vec![SanType::DnsName("localhost".try_into().expect("a name"))], None);
    for (name, pem) in [
        ("tls-ca.pem", authority().certificate.pem()),
        ("tls-server.pem", certificate.pem()),
        ("tls-server.key", key.serialize_pem()),
    ] {
        fs::write(folder.join(name), pem).expect("the folder is writable");
    }
}

/// Writes `front.pem` and `front.key`, for a proxy that is `uri` on both of its sides.
pub fn write_front(folder: &Path, uri: &str) -> ClientIdentity {
    let names =
        [SanType::URI(uri.try_into().expect("a URI")), SanType::DnsName("localhost".try_into().expect("a name"))];
    let (certificate, key) = signed(names.into(), None);
    for (name, pem) in [("front.pem", certificate.pem()), ("front.key", key.serialize_pem())] {
        fs::write(folder.join(name), pem).expect("the folder is writable");
    }
    ClientIdentity { certificate: certificate.der().to_vec(), key: key.serialize_der() }
}

/// Writes certificate and key of the authority to `device-ca.pem`, for Countersign to sign with: listeners trust it.
pub fn write_device_authority(folder: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let (path, Authority { certificate, key, .. }) = (folder.join("device-ca.pem"), authority());
    fs::write(&path, format!("{}{key}", certificate.pem())).expect("the folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    path
}

/// What a client shows of itself: a certificate and its key.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl ClientIdentity {
    /// A certificate of the authority that names `uri`.
    pub fn named(uri: &str) -> Self {
        Self::signed(uri, None)
    }

    /// As [`ClientIdentity::named`], until this second since 1970.
    pub fn until(uri: &str, ends: i64) -> Self {
        Self::signed(uri, Some(ends))
    }

    fn signed(uri: &str, ends: Option<i64>) -> Self {
        let (certificate, key) = signed(vec![SanType::URI(uri.try_into().expect("a URI"))], ends);
        Self { certificate: certificate.der().to_vec(), key: key.serialize_der() }
    }

    /// A certificate that somebody signed for `key`.
    pub fn of(certificate: &str, key: &KeyPair) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        let der = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
        Self { certificate: der.to_vec(), key: key.serialize_der() }
    }

    /// Lower-case hexadecimal SHA-256 of the certificate.
    pub fn sha256(&self) -> String {
        hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.certificate))
    }
}

/// A TLS client that shows `identity`, where there is one.
pub fn client<S: std::io::Read + std::io::Write>(
    identity: Option<&ClientIdentity>,
    stream: S,
) -> StreamOwned<ClientConnection, S> {
    let mut roots = RootCertStore::empty();
    roots.add(authority().certificate.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("TLS 1.2 and 1.3").with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(ClientIdentity { certificate, key }) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone()));
            builder.with_client_auth_cert(vec![certificate.clone().into()], key).expect("the key fits")
        }
    };
    let name = "localhost".try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), stream)
}
