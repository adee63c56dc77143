//! Renewing a certificate: the wish is signed by the key of the certificate in use, is fresh, and counts once.

use std::time::Duration;

use aws_lc_rs::{digest, signature};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{
    prelude::{FromDer as _, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

use super::EnrollError;
use crate::domain::UnixTime;

/// How far the clock of a device may be from ours.
pub(super) const SKEW: Duration = Duration::from_secs(300);
const MAX_PEM: usize = 16 * 1024;

/// A device's wish for a new certificate, as it sends it.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// The certificate in use, in PEM.
    pub certificate: String,
    /// A certificate request in PEM, with the same key or a new one.
    pub csr: String,
    /// Unix seconds, by the clock of the device.
    pub time: u64,
    /// Base64: the signature over [`message`] by the key of `certificate`.
    pub signature: String,
}

/// What a device signs: `countersign-renew:v1:<id>:<time>:<SHA-256 of the request in DER>`.
pub fn message(id: &str, time: u64, csr_sha256: &str) -> String {
    format!("countersign-renew:v1:{id}:{time}:{csr_sha256}")
}

/// The certificate in use, as far as it can be told without looking anything up.
pub(super) struct InUse {
    der: CertificateDer<'static>,
    pub(super) sha256: String,
}

impl InUse {
    pub(super) fn parse(pem: &str) -> Result<Self, EnrollError> {
        if pem.len() > MAX_PEM {
            return Err(EnrollError::Certificate);
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| EnrollError::Certificate)?;
        let sha256 = hex::encode(digest::digest(&digest::SHA256, &der));
        Ok(Self { der: der.into_owned(), sha256 })
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Whether its key signed `message`.
    pub(super) fn signed(&self, message: &str, base64: &str) -> Result<(), EnrollError> {
        let (_, certificate) = X509Certificate::from_der(&self.der).map_err(|_| EnrollError::Certificate)?;
        let key = certificate.public_key();
        let signature = STANDARD.decode(base64.trim()).map_err(|_| EnrollError::Signature)?;
        let algorithm = algorithm(key).ok_or(EnrollError::Certificate)?;
        signature::UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
            .verify(message.as_bytes(), &signature)
            .map_err(|_| EnrollError::Signature)
    }
}

/// SHA-256 with every kind of key but Ed25519, which has its own: what `openssl dgst -sha256 -sign` makes.
fn algorithm(key: &SubjectPublicKeyInfo<'_>) -> Option<&'static dyn signature::VerificationAlgorithm> {
    let curve = || key.algorithm.parameters.as_ref()?.as_oid().ok().map(|curve| curve.to_id_string());
    match key.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        "1.3.101.112" => Some(&signature::ED25519),
        "1.2.840.10045.2.1" => match curve()?.as_str() {
            "1.2.840.10045.3.1.7" => Some(&signature::ECDSA_P256_SHA256_ASN1),
            "1.3.132.0.34" => Some(&signature::ECDSA_P384_SHA256_ASN1),
            _ => None,
        },
        _ => None,
    }
}

/// Whether `time` (Unix seconds, by the device's clock) is now, give or take.
pub(super) fn is_fresh(time: u64, now: UnixTime) -> bool {
    now.as_secs().abs_diff(time) <= SKEW.as_secs()
}
