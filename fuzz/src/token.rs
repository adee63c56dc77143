//! Tokens. The first octet chooses: a text as it is (never accepted: nobody can sign), or a header and a payload, parted
//! by a line feed, that are signed with the issuer's own key; what is then accepted must be what the reference accepts.

use std::sync::LazyLock;

use countersign::{
    domain::UnixTime,
    identity::{
        Algorithm, IssuerSettings,
        mint::{SigningKey, key_set},
        probe::Target,
    },
};

use super::reference::claims::Profile;

pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "api.example.com";
pub const NOW: u64 = 1_900_000_000;

/// The same key in every process, so that a corpus keeps its meaning. It guards nothing.
pub fn key() -> &'static SigningKey {
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| {
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend([7; 32]);
        SigningKey::from_pkcs8(Algorithm::EdDsa, "ed", &der).expect("32 octets are an Ed25519 key")
    });
    &KEY
}

fn target() -> &'static Target {
    static TARGET: LazyLock<Target> = LazyLock::new(|| {
        let mut issuer = IssuerSettings::new(ISSUER, [AUDIENCE]);
        issuer.algorithms = Algorithm::ALL.to_vec();
        Target::new(issuer, key_set([key()]).as_bytes(), UnixTime::from_secs(NOW)).expect("a key set")
    });
    &TARGET
}

pub fn run(data: &[u8]) {
    let now = UnixTime::from_secs(NOW);
    let Some((kind, rest)) = data.split_first() else { return };
    if *kind != b'S' {
        let token = String::from_utf8_lossy(data);
        assert!(!target().accepts(&token, now), "accepted without a signature of ours: {token}");
        return;
    }
    let cut = rest.iter().position(|octet| *octet == b'\n').unwrap_or(rest.len());
    let (header, payload) = (&rest[..cut], rest.get(cut + 1..).unwrap_or_default());
    let (Ok(header), Ok(payload)) = (std::str::from_utf8(header), std::str::from_utf8(payload)) else { return };
    let token = key().sign_text(header, payload).expect("Ed25519 signs anything");
    let profile = Profile { issuer: ISSUER, audience: AUDIENCE, kid: "ed", now: NOW as f64 };
    let expected = token.len() <= 16 * 1024 && profile.accepts(header.as_bytes(), payload.as_bytes());
    assert_eq!(target().accepts(&token, now), expected, "{header}\n{payload}");
    // One bit of the signature, and it is nobody's.
    if expected {
        let flipped = if token.as_bytes()[token.len() - 2] == b'A' { "B" } else { "A" };
        let mut forged = token;
        forged.replace_range(forged.len() - 2..forged.len() - 1, flipped);
        assert!(!target().accepts(&forged, now), "accepted with another signature");
    }
}
