//! How a private key lies in the store: sealed with AES-256-GCM where there is a secret, else in clear. What other secrets
//! sealed, named as such, is opened too.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    error::Unspecified,
    hkdf,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::Secret;

const CONTEXT: &[u8] = b"countersign assertion keys v1";
/// What tells one secret from another, where both seal keys in one store.
const MARK: &[u8] = b"countersign assertion keys v1: which secret";

pub(super) struct Vault {
    own: Lock,
    /// What is opened besides. Nothing is closed with it.
    others: Vec<Lock>,
    /// Of ours, then of the others.
    marks: Vec<String>,
}

/// `None`: there is no secret.
struct Lock(Option<RandomizedNonceKey>);

/// A stored key. Base64.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Stored {
    Clear { pkcs8: String },
    Sealed { nonce: String, octets: String },
}

impl Vault {
    /// `others`: what is opened besides, an empty one for keys in clear.
    pub(super) fn new(secret: Option<&Secret>, others: &[Secret]) -> Result<Self, Unspecified> {
        let others = others.iter().map(|other| Some(other).filter(|other| !other.expose().is_empty()));
        let mut marks = Vec::new();
        for secret in std::iter::once(secret).chain(others.clone()) {
            let mark = mark(secret)?;
            if !marks.contains(&mark) {
                marks.push(mark);
            }
        }
        Ok(Self { own: Lock::new(secret)?, others: others.map(Lock::new).collect::<Result<_, _>>()?, marks })
    }

    /// The value for the store. `name` is its key there: a sealed value opens under that name only.
    pub(super) fn close(&self, name: &str, pkcs8: &[u8]) -> Option<Vec<u8>> {
        self.own.close(name, pkcs8)
    }

    /// What [`Vault::close`] was given, here or where one of the other secrets is in use. `None`: not ours, altered, or sealed
    /// with a secret that is not known. Where there is a secret, a key in clear is none, unless the other secrets say so:
    /// whoever can write to the store could have put it there.
    pub(super) fn open(&self, name: &str, value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        std::iter::once(&self.own).chain(&self.others).find_map(|lock| lock.open(name, value))
    }

    /// Say which secrets are known here, ours first, and nothing of them.
    pub(super) fn marks(&self) -> impl Iterator<Item = &str> {
        self.marks.iter().map(String::as_str)
    }
}

fn mark(secret: Option<&Secret>) -> Result<String, Unspecified> {
    Ok(match secret {
        None => "clear".to_owned(),
        Some(secret) => hex::encode(&derived(secret, MARK)?[..8]),
    })
}

fn derived(secret: &Secret, context: &[u8]) -> Result<Zeroizing<[u8; 32]>, Unspecified> {
    let mut key = Zeroizing::new([0; 32]);
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret.expose().as_bytes());
    extracted.expand(&[context], hkdf::HKDF_SHA256)?.fill(&mut *key)?;
    Ok(key)
}

impl Lock {
    fn new(secret: Option<&Secret>) -> Result<Self, Unspecified> {
        let Some(secret) = secret else { return Ok(Self(None)) };
        Ok(Self(Some(RandomizedNonceKey::new(&AES_256_GCM, &*derived(secret, CONTEXT)?)?)))
    }

    fn close(&self, name: &str, pkcs8: &[u8]) -> Option<Vec<u8>> {
        let stored = match &self.0 {
            None => Stored::Clear { pkcs8: STANDARD.encode(pkcs8) },
            Some(key) => {
                let mut octets = pkcs8.to_vec();
                let nonce = key.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut octets).ok()?;
                Stored::Sealed { nonce: STANDARD.encode(nonce.as_ref()), octets: STANDARD.encode(octets) }
            }
        };
        serde_json::to_vec(&stored).ok()
    }

    fn open(&self, name: &str, value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match (serde_json::from_slice(value).ok()?, &self.0) {
            (Stored::Clear { pkcs8 }, None) => STANDARD.decode(pkcs8).ok().map(Zeroizing::new),
            (Stored::Sealed { nonce, octets }, Some(key)) => {
                let nonce = Nonce::try_assume_unique_for_key(&STANDARD.decode(nonce).ok()?).ok()?;
                let mut octets = Zeroizing::new(STANDARD.decode(octets).ok()?);
                let opened = key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut octets).ok()?;
                Some(Zeroizing::new(opened.to_vec()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_with_its_secret_and_under_its_name_only() {
        let vault = |secret: Option<&str>| Vault::new(secret.map(Secret::new).as_ref(), &[]).unwrap();
        let (ours, other, none) = (vault(Some(&"a".repeat(32))), vault(Some(&"b".repeat(32))), vault(None));
        let sealed = ours.close("k:1", b"private").unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains(&STANDARD.encode("private")));
        assert_eq!(ours.open("k:1", &sealed).as_deref().map(Vec::as_slice), Some(&b"private"[..]));
        assert!(ours.open("k:2", &sealed).is_none());
        assert!(other.open("k:1", &sealed).is_none());
        assert!(none.open("k:1", &sealed).is_none());
        let clear = none.close("k:1", b"private").unwrap();
        assert!(none.open("k:1", &clear).is_some());
        assert!(ours.open("k:1", &clear).is_none(), "a planted key must not be taken");
        assert!(ours.open("k:1", b"nonsense").is_none());
        let (mark, marks) = (|vault: &Vault| vault.marks[0].clone(), |vault: &Vault| vault.marks.clone());
        assert!(mark(&ours) != mark(&other) && marks(&none) == ["clear"] && mark(&ours).len() == 16);

        let both = Vault::new(Some(&Secret::new("b".repeat(32))), &[Secret::new("a".repeat(32))]).unwrap();
        assert!(both.open("k:1", &sealed).is_some() && both.open("k:2", &sealed).is_none());
        assert!(both.open("k:1", &clear).is_none());
        assert_eq!(marks(&both), [mark(&other), mark(&ours)]);
        assert!(ours.open("k:1", &both.close("k:1", b"private").unwrap()).is_none(), "closed with its own");
        let first = Vault::new(Some(&Secret::new("b".repeat(32))), &[Secret::new("")]).unwrap();
        assert!(first.open("k:1", &clear).is_some());
    }
}
