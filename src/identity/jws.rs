//! A compact JWS taken apart: sizes first, then segments, then the header. Nothing here is verified yet.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;

use super::{
    Detail,
    json::{self, Object},
};

/// Longest token, in octets.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Longest `kid`, in octets. It is only ever a map key.
const MAX_KID: usize = 512;

/// Base64url as RFC 7515 writes it: no padding, no white space, no left-over bits, so that every value has one spelling.
const CANONICAL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// Canonical base64url.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    CANONICAL.decode(text).ok()
}

pub(super) fn encode(bytes: &[u8]) -> String {
    CANONICAL.encode(bytes)
}

/// The three segments of a compact JWS; header and payload decoded and strictly parsed.
#[derive(Debug)]
pub(super) struct Jws<'t> {
    /// What was signed: the first two segments with their dot.
    pub input: &'t str,
    pub header: Object,
    pub signature: Vec<u8>,
    payload: &'t str,
}

impl<'t> Jws<'t> {
    /// # Errors
    ///
    /// Why this is no compact JWS with a JSON object for a header.
    pub(super) fn parse(token: &'t str) -> Result<Self, Detail> {
        if token.len() > MAX_TOKEN {
            return Err(Detail::TooLarge);
        }
        Self::parse_large(token)
    }

    /// For documents that were fetched and are bounded already.
    ///
    /// # Errors
    ///
    /// Why this is no compact JWS with a JSON object for a header.
    pub(super) fn parse_large(token: &'t str) -> Result<Self, Detail> {
        let mut segments = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(Detail::NotCompactJws);
        };
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(Detail::NotCompactJws);
        }
        let input = &token[..header.len() + 1 + payload.len()];
        let header = decode(header).ok_or(Detail::Encoding)?;
        let header = Object::parse(&header).map_err(|_| Detail::Json)?;
        let signature = decode(signature).ok_or(Detail::Encoding)?;
        Ok(Self { input, header, signature, payload })
    }

    /// The payload as a JSON object.
    ///
    /// # Errors
    ///
    /// Not canonical base64url, or not a strict JSON object.
    pub(super) fn payload(&self) -> Result<Value, Detail> {
        let bytes = decode(self.payload).ok_or(Detail::Encoding)?;
        let value = json::parse(&bytes).map_err(|_| Detail::Json)?;
        if value.is_object() { Ok(value) } else { Err(Detail::Json) }
    }

    /// As [`Self::payload`], for an access token.
    ///
    /// # Errors
    ///
    /// As there.
    pub(super) fn claims(&self) -> Result<Object, Detail> {
        let bytes = decode(self.payload).ok_or(Detail::Encoding)?;
        Object::parse(&bytes).map_err(|_| Detail::Json)
    }

    /// `alg` as it stands, when it is a string.
    pub(super) fn alg(&self) -> Option<&str> {
        self.header.get("alg").and_then(Value::as_str)
    }

    /// `kid`, when it is a string of reasonable length.
    pub(super) fn kid(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str).filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID)
    }

    /// Refuses what changes the meaning of a token and is not understood here: extensions that must be understood,
    /// unencoded payloads, nested tokens.
    ///
    /// # Errors
    ///
    /// Which header parameter it was.
    pub(super) fn refuse_extensions(&self) -> Result<(), Detail> {
        match ["crit", "b64", "cty"].iter().any(|name| self.header.contains_key(name)) {
            true => Err(Detail::HeaderExtension),
            false => Ok(()),
        }
    }

    /// `typ` without its `application/`, in lower case. `None`: absent.
    ///
    /// # Errors
    ///
    /// It is there and no string.
    pub(super) fn typ(&self) -> Result<Option<String>, Detail> {
        match self.header.get("typ") {
            None => Ok(None),
            Some(Value::String(typ)) => {
                let typ = typ.to_ascii_lowercase();
                Ok(Some(typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)))
            }
            Some(_) => Err(Detail::WrongType),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_one_spelling() {
        assert_eq!(decode("YQ"), Some(b"a".to_vec()));
        for twin in ["YR", "YQ=", "YQ==", "YQ\n", " YQ", "Y", "Y+", "Y/"] {
            assert_eq!(decode(twin), None, "{twin:?}");
        }
    }

    #[test]
    fn a_jws_has_three_full_segments() {
        for token in ["", ".", "..", "a.b", "a.b.c.d", "e30.e30.", "e30..YQ", ".e30.YQ", &".".repeat(8000)] {
            assert!(Jws::parse(token).is_err(), "{token:?}");
        }
        assert!(Jws::parse("e30.e30.YQ").is_ok());
        assert_eq!(Jws::parse(&format!("e30.{}.YQ", "a".repeat(MAX_TOKEN))).err(), Some(Detail::TooLarge));
    }
}
