//! A device's certificate request, read with suspicion: only its key is taken, and only after it proved to hold it.

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use x509_parser::{
    certification_request::X509CertificationRequest, prelude::FromDer as _, public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// Longest request, in octets of PEM: an RSA key of 8192 bits fits.
const MAX_PEM: usize = 16 * 1024;
const LEAST_RSA_BITS: usize = 2048;
const MOST_RSA_BITS: usize = 8192;

/// Why a certificate request is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestProblem {
    #[error("the certificate request is no PKCS#10 in PEM, or has more than one part")]
    Malformed,
    #[error("the certificate request is longer than {MAX_PEM} octets")]
    TooLarge,
    #[error("the certificate request is not signed by its own key, or by an algorithm that is not taken")]
    NotSelfSigned,
    #[error("an RSA key must have from {LEAST_RSA_BITS} to {MOST_RSA_BITS} bits, and this one has {0}")]
    RsaSize(usize),
    #[error("the key must be RSA, P-256, P-384 or Ed25519")]
    KeyKind,
}

/// A request that was found good: its key, and its hash for signatures about it.
#[derive(Clone, Debug)]
pub(super) struct SigningRequest {
    pub(super) key: rcgen::SubjectPublicKeyInfo,
    /// Hexadecimal SHA-256 of the request in DER.
    pub(super) sha256: String,
}

impl SigningRequest {
    /// Reads a request in PEM. Its names, attributes and extensions are not even looked at.
    pub(super) fn parse(pem: &str) -> Result<Self, RequestProblem> {
        if pem.len() > MAX_PEM {
            return Err(RequestProblem::TooLarge);
        }
        let mut found = CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes());
        let (Some(Ok(der)), None) = (found.next(), found.next()) else { return Err(RequestProblem::Malformed) };
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| RequestProblem::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestProblem::Malformed);
        }
        let info = &request.certification_request_info.subject_pki;
        strong_enough(info)?;
        request.verify_signature().map_err(|_| RequestProblem::NotSelfSigned)?;
        let key = rcgen::SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| RequestProblem::KeyKind)?;
        Ok(Self { key, sha256: hex::encode(digest::digest(&digest::SHA256, &der)) })
    }
}

fn strong_enough(info: &SubjectPublicKeyInfo<'_>) -> Result<(), RequestProblem> {
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const ED25519: &str = "1.3.101.112";
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => match key.key_size() {
            bits if (LEAST_RSA_BITS..=MOST_RSA_BITS).contains(&bits) => Ok(()),
            bits => Err(RequestProblem::RsaSize(bits)),
        },
        Ok(PublicKey::EC(_)) => {
            let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            let taken = curve.is_some_and(|curve| [P256, P384].contains(&curve.to_id_string().as_str()));
            if taken { Ok(()) } else { Err(RequestProblem::KeyKind) }
        }
        _ if info.algorithm.algorithm.to_id_string() == ED25519 => Ok(()),
        _ => Err(RequestProblem::KeyKind),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn request(key: &KeyPair) -> String {
        CertificateParams::new(vec!["evil.example".to_owned()]).unwrap().serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn keys_of_the_three_kinds_are_taken() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert!(SigningRequest::parse(&request(&key)).is_ok(), "{algorithm:?}");
        }
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        assert!(SigningRequest::parse(&request(&rsa)).is_ok());
    }

    #[test]
    fn other_keys_and_texts_are_refused_by_name() {
        let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        assert_eq!(SigningRequest::parse(&request(&p521)).unwrap_err(), RequestProblem::KeyKind);
        let key = KeyPair::generate().unwrap();
        let twice = format!("{}{}", request(&key), request(&key));
        for text in
            ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", &twice]
        {
            assert_eq!(SigningRequest::parse(text).unwrap_err(), RequestProblem::Malformed, "{text}");
        }
        assert_eq!(SigningRequest::parse(&"x".repeat(MAX_PEM + 1)).unwrap_err(), RequestProblem::TooLarge);
    }

    #[test]
    fn somebody_elses_key_in_a_request_is_refused() {
        let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let der = CertificateSigningRequestDer::from_pem_slice(request(&own).as_bytes()).unwrap();
        let swapped: Vec<u8> = {
            // The raw points have one length, so the other key can be put in its place.
            let (from, to) = (own.public_key_raw(), other.public_key_raw());
            let at = der.windows(from.len()).position(|window| window == from).unwrap();
            [&der[..at], to, &der[at + to.len()..]].concat()
        };
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, swapped);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{base64}\n-----END CERTIFICATE REQUEST-----\n");
        assert_eq!(SigningRequest::parse(&pem).unwrap_err(), RequestProblem::NotSelfSigned);
    }
}
