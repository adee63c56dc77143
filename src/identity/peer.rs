//! The peer of the connection as mutual TLS shows it: its principal, its certificate, its SPIFFE id.
//!
//! Envoy has verified the certificate where its listener says so (`trusted_ca`); it is read here, not judged.

use std::{borrow::Cow, sync::Arc};

use foldhash::quality::RandomState;
use moka::sync::Cache;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    credentials::Credentials,
    jwk::sha256,
    settings::{WorkloadSettings, XfccTrust},
    text::is_clean,
    xfcc,
};
use crate::domain::{UnixTime, Workload};

/// Longest certificate that is read, URL-encoded.
const MAX_CERTIFICATE: usize = 64 * 1024;
/// Octets that remembered peers may take: whoever may connect can show any number of certificates.
const PEERS: u64 = 32 * 1024 * 1024;
/// About what a peer takes besides its key.
const PEER: usize = 512;

/// A certificate as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    pub sha256: [u8; 32],
    uris: Vec<String>,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
}

/// A peer, with what was read of its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub workload: Option<Workload>,
    pub sha256: Option<[u8; 32]>,
    /// Bounds of the certificate's life, where the certificate itself is there.
    pub life: Option<(UnixTime, UnixTime)>,
}

/// Peers by exactly what Envoy sent of them.
#[derive(Debug)]
pub(super) struct Peers {
    known: Cache<Box<[u8]>, Arc<Peer>, RandomState>,
    settings: WorkloadSettings,
}

impl Peers {
    pub(super) fn new(settings: WorkloadSettings) -> Self {
        let hour = std::time::Duration::from_secs(3600);
        Self {
            known: Cache::<Box<[u8]>, Arc<Peer>>::builder()
                .max_capacity(PEERS)
                .weigher(|key, _| u32::try_from(key.len() + PEER).unwrap_or(u32::MAX))
                .time_to_idle(hour)
                .build_with_hasher(RandomState::default()),
            settings,
        }
    }

    /// The peer, or `None` where the request shows none that may be believed.
    pub(super) fn peer(&self, credentials: &Credentials<'_>) -> Option<Arc<Peer>> {
        let forwarded = match &self.settings.xfcc {
            // Whoever else calls can write any element: nobody, rather than the proxy or what the header says.
            XfccTrust::Hops { by, .. } if credentials.principal != by.as_bytes() => return None,
            XfccTrust::Hops { .. } => true,
            _ => credentials.principal.is_empty() && credentials.certificate.is_empty(),
        };
        if forwarded {
            let header = credentials.xfcc.only_line()?;
            return xfcc::trusted(header, &self.settings.xfcc).map(|element| Arc::new(self.of_element(&element)));
        }
        if let Some(peer) = self.hashed(credentials) {
            return Some(peer);
        }
        if credentials.certificate.len() > MAX_CERTIFICATE {
            return None;
        }
        let key: Cow<'_, [u8]> = match (credentials.principal, credentials.certificate) {
            (principal, []) => principal.into(),
            (principal, certificate) => [principal, b"\0", certificate].concat().into(),
        };
        if let Some(peer) = self.known.get(&*key) {
            return Some(peer);
        }
        let peer = Arc::new(self.read(credentials));
        self.known.insert(key.into_owned().into(), peer.clone());
        Some(peer)
    }

    /// Where the principal comes without its certificate (Istio never sends one) and the listener sanitises, the header about
    /// this very connection knows its hash.
    fn hashed(&self, credentials: &Credentials<'_>) -> Option<Arc<Peer>> {
        if self.settings.xfcc != XfccTrust::SanitizeSet || !credentials.certificate.is_empty() {
            return None;
        }
        let element = xfcc::trusted(credentials.xfcc.only_line()?, &self.settings.xfcc)?;
        let same = element.principal().map(str::as_bytes) == Some(credentials.principal);
        same.then(|| Arc::new(self.of_element(&element)))
    }

    /// The certificate itself, URL-encoded; empty where none is sent of this peer: with hops, the one there is the proxy's.
    pub(super) const fn certificate<'a>(&self, credentials: &Credentials<'a>) -> &'a [u8] {
        match self.settings.xfcc {
            XfccTrust::Hops { .. } => &[],
            XfccTrust::Never | XfccTrust::SanitizeSet => credentials.certificate,
        }
    }

    fn read(&self, credentials: &Credentials<'_>) -> Peer {
        let certificate = certificate(credentials.certificate);
        let sha256 = certificate.as_ref().map(|certificate| certificate.sha256);
        let principal = std::str::from_utf8(credentials.principal).ok().filter(|text| is_clean(text));
        // Of a certificate without a URI the principal is its DNS name or subject, whatever these may look like.
        let uri = principal.filter(|principal| match &certificate {
            Some(certificate) => certificate.uris.iter().any(|uri| uri == principal),
            None => credentials.certificate.is_empty(),
        });
        Peer {
            workload: principal.map(|principal| self.workload(principal, uri, sha256)),
            sha256,
            life: certificate.map(|certificate| (certificate.not_before, certificate.not_after)),
        }
    }

    fn of_element(&self, element: &xfcc::Element) -> Peer {
        let principal = element.principal().filter(|text| is_clean(text));
        let workload = principal.map(|principal| self.workload(principal, element.uri.as_deref(), element.hash));
        Peer { workload, sha256: element.hash, life: None }
    }

    /// A SPIFFE id is a URI of the certificate: no other name makes one a workload of a trust domain.
    fn workload(&self, principal: &str, uri: Option<&str>, sha256: Option<[u8; 32]>) -> Workload {
        let domain = uri.and_then(spiffe_trust_domain);
        let trusted = domain.filter(|domain| self.settings.trust_domains.iter().any(|trusted| trusted == domain));
        Workload {
            principal: principal.into(),
            cert_sha256: sha256.map(|sum| hex::encode(sum).into()),
            trust_domain: trusted.map(Into::into),
            out_of_time: false,
        }
    }
}

impl Peer {
    /// Its workload as of `now`: one whose certificate is out of its time belongs to no trust domain.
    pub(super) fn workload(&self, now: UnixTime) -> Option<Workload> {
        let mut workload = self.workload.clone()?;
        if !self.is_in_time(now) {
            (workload.trust_domain, workload.out_of_time) = (None, true);
        }
        Some(workload)
    }

    /// What is not known to be over is not: where no certificate is sent (a header, or a listener that keeps it), the Envoy in
    /// front alone has seen it.
    pub(super) fn is_in_time(&self, now: UnixTime) -> bool {
        self.life.is_none_or(|(from, to)| from <= now && now < to)
    }
}

/// The first certificate of a URL-encoded PEM text.
pub(super) fn certificate(encoded: &[u8]) -> Option<Certificate> {
    if encoded.is_empty() {
        return None;
    }
    let pem: Cow<'_, [u8]> = percent_encoding::percent_decode(encoded).into();
    let der = CertificateDer::from_pem_slice(&pem).ok()?;
    let (rest, parsed) = X509Certificate::from_der(&der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let time = |at: x509_parser::time::ASN1Time| UnixTime::from_secs(u64::try_from(at.timestamp()).unwrap_or(0));
    let validity = parsed.validity();
    let names = parsed.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    Some(Certificate {
        sha256: sha256(&der),
        uris: names.into_iter().flatten().filter_map(uri).collect(),
        not_before: time(validity.not_before),
        not_after: time(validity.not_after),
    })
}

/// The trust domain of a well-formed SPIFFE id that names a workload.
pub fn spiffe_trust_domain(id: &str) -> Option<&str> {
    let rest = id.strip_prefix("spiffe://").filter(|_| id.len() <= 2048)?;
    let (domain, path) = rest.split_once('/')?;
    let path_sound = path.split('/').all(|segment| {
        !matches!(segment, "" | "." | "..") && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    });
    (is_trust_domain(domain) && path_sound).then_some(domain)
}

/// Whether `name` may be that of a SPIFFE trust domain.
pub(super) fn is_trust_domain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    !name.is_empty() && name.len() <= 255 && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_names_a_workload_in_a_trust_domain() {
        assert_eq!(spiffe_trust_domain("spiffe://td.example/ns/prod/sa/web"), Some("td.example"));
        for id in [
            "spiffe://td.example",
            "spiffe://td.example/",
            "spiffe://TD/ns",
            "spiffe:///ns",
            "https://td/ns",
            "spiffe://td/../x",
            "spiffe://td/a//b",
            "spiffe://td/a/",
            "spiffe://td/a?x",
            "spiffe://u@td/a",
            "spiffe://td:8/a",
            "spiffe://td/a%2fb",
            "",
        ] {
            assert_eq!(spiffe_trust_domain(id), None, "{id}");
        }
    }

    #[test]
    fn a_certificate_is_read_from_url_encoded_pem() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let pem = made.cert.pem();
        let encoded = percent_encoding::utf8_percent_encode(&pem, percent_encoding::NON_ALPHANUMERIC).to_string();
        let read = certificate(encoded.as_bytes()).unwrap();
        assert_eq!(read.sha256, sha256(made.cert.der()));
        assert!(read.not_after > read.not_before);
        for bad in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(certificate(bad.as_bytes()), None);
        }
    }

    #[test]
    fn peers_are_remembered_by_the_octets_they_take() {
        let peers = Peers::new(WorkloadSettings::default());
        let certificate = vec![b'x'; MAX_CERTIFICATE];
        for i in 0..600 {
            let principal = format!("spiffe://td/{i}");
            let (principal, certificate) = (principal.as_bytes(), &*certificate);
            assert!(peers.peer(&Credentials { principal, certificate, ..Credentials::default() }).is_some());
            peers.known.run_pending_tasks();
        }
        assert!(peers.known.weighted_size() <= PEERS && peers.known.entry_count() < 600);
    }

    #[test]
    fn where_no_certificate_is_sent_its_hash_is_taken_from_the_header_that_is_about_the_same_peer() {
        let hash = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";
        let of = |principal: &str| format!("By=spiffe://td/gw;Hash={hash};Subject=\"CN=x\";URI={principal}");
        let shown = |xfcc: XfccTrust, lines: &[String], certificate: &[u8]| {
            let peers = Peers::new(WorkloadSettings { xfcc, ..WorkloadSettings::default() });
            let mut header = crate::identity::credentials::HeaderValues::NONE;
            lines.iter().for_each(|line| header.push(line.as_bytes()));
            let principal = b"spiffe://td/laptop";
            let credentials = Credentials { principal, certificate, xfcc: header, ..Credentials::default() };
            let peer = peers.peer(&credentials).unwrap();
            assert_eq!(&*peer.workload.as_ref().unwrap().principal, "spiffe://td/laptop");
            peer.sha256.map(hex::encode)
        };
        let (own, other) = (of("spiffe://td/laptop"), of("spiffe://td/eve"));
        assert_eq!(shown(XfccTrust::SanitizeSet, std::slice::from_ref(&own), b"").as_deref(), Some(hash));
        for lines in [vec![], vec![other.clone()], vec![format!("{other},{own}")], vec![own.clone(), own.clone()]] {
            assert_eq!(shown(XfccTrust::SanitizeSet, &lines, b""), None, "{lines:?}");
        }
        assert_eq!(shown(XfccTrust::Never, std::slice::from_ref(&own), b""), None);
        assert_eq!(
            shown(XfccTrust::SanitizeSet, &[own], b"x"),
            None,
            "a certificate that is sent is the one that counts"
        );
    }

    #[test]
    fn outside_the_life_of_its_certificate_a_peer_belongs_to_no_trust_domain() {
        let at = UnixTime::from_secs;
        let (principal, trust_domain) = ("spiffe://td/a".into(), Some("td".into()));
        let workload = Workload { principal, cert_sha256: None, trust_domain, out_of_time: false };
        let peer = Peer { workload: Some(workload), sha256: None, life: Some((at(10), at(20))) };
        let belongs = |peer: &Peer, now| peer.workload(at(now)).unwrap().trust_domain.is_some();
        assert_eq!([9, 10, 19, 20].map(|now| belongs(&peer, now)), [false, true, true, false]);
        assert_eq!([9, 10, 19, 20].map(|now| peer.workload(at(now)).unwrap().out_of_time), [true, false, false, true]);
        assert!(belongs(&Peer { life: None, ..peer }, 30), "what is not known to be over is not");
    }
}
