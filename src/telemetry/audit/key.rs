//! The Ed25519 key that signs checkpoints: from a file, or made for this process alone.
//!
//! The private key never leaves this type and is never shown; the file is readable by its owner only.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::Error;
use crate::private;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

#[derive(Clone)]
pub struct SigningKey(Arc<Ed25519KeyPair>);

impl SigningKey {
    /// A key that lives as long as the process. Its public half stands in the first line of the chain.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(Arc::new(Ed25519KeyPair::generate().map_err(|_| Error::Crypto)?)))
    }

    /// The key in `path` (PKCS#8 PEM); made there, mode 0600, where there is no such file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let found = Self::find(path).map_err(|source| Error::Key { path: path.into(), source })?;
        found.map_or_else(|| Self::create(path), Ok)
    }

    /// The key in `path`, if there is such a file.
    pub(super) fn find(path: &Path) -> io::Result<Option<Self>> {
        let text = match private::open(path).and_then(io::read_to_string) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let none = || io::Error::new(io::ErrorKind::InvalidData, "it holds no Ed25519 private key (PKCS#8 PEM)");
        Self::from_pem(&text).ok_or_else(none).map(Some)
    }

    fn create(path: &Path) -> Result<Self, Error> {
        let key = Self::generate()?;
        let pkcs8 = key.0.to_pkcs8v1().map_err(|_| Error::Crypto)?;
        let pem = format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(pkcs8.as_ref()));
        let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = written.and_then(|mut file| file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()));
        match written {
            Ok(()) => Ok(key),
            // Another replica was quicker: its key is ours.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::open(path),
            Err(source) => Err(Error::Key { path: path.into(), source }),
        }
    }

    fn from_pem(text: &str) -> Option<Self> {
        let body = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let pkcs8 = STANDARD.decode(body).ok()?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).ok().map(|pair| Self(Arc::new(pair)))
    }

    /// The signature over `text`, base64.
    pub fn sign(&self, text: &str) -> String {
        STANDARD.encode(self.0.sign(text.as_bytes()))
    }

    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(key)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

/// The half that verifies; shown as base64 of its 32 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    pub fn parse(text: &str) -> Option<Self> {
        STANDARD.decode(text.trim()).ok()?.try_into().ok().map(Self)
    }

    /// Whether `signature` (base64) is this key's over `text`.
    pub fn verifies(&self, text: &str, signature: &str) -> bool {
        STANDARD.decode(signature).is_ok_and(|signature| {
            UnparsedPublicKey::new(&ED25519, &self.0).verify(text.as_bytes(), &signature).is_ok()
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}
