//! A key set of one issuer: by `kid`, members read one by one, so that one that is not understood takes no other with it.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Algorithm, json,
    jwk::{KeyProblem, VerifyingKey},
};

/// More members than this are not read: no issuer needs them, and each costs a parse.
const MAX_KEYS: usize = 256;

/// Keys by `kid`. One `kid` may stand for several keys only where their algorithms differ.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: HashMap<Box<str>, Vec<VerifyingKey>>,
    pub ignored: Vec<Ignored>,
}

/// A member left aside: its `kid`, where it has one, and why.
pub(super) type Ignored = (Option<String>, KeyProblem);

/// Why a document is no key set that may replace the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetProblem {
    #[error("not a JSON object with an array `keys`")]
    Malformed,
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
    #[error("no usable key")]
    Empty,
}

impl KeySet {
    /// Every member that is usable: perhaps none, see [`Self::usable`].
    ///
    /// # Errors
    ///
    /// No key set.
    pub(super) fn parse(text: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetProblem> {
        let members = members(text).ok_or(KeySetProblem::Malformed)?;
        if members.len() > MAX_KEYS {
            return Err(KeySetProblem::TooMany);
        }
        let mut set = Self::default();
        let mut clashes = Vec::new();
        for member in members {
            match json::parse(member.get().as_bytes()) {
                Ok(jwk) => set.add(&jwk, allowed, &mut clashes),
                Err(_) => set.ignored.push((None, KeyProblem::Malformed)),
            }
        }
        for (kid, algorithms) in clashes {
            set.drop_clash(kid, &algorithms);
        }
        Ok(set)
    }

    /// # Errors
    ///
    /// None of its members is usable: it takes no other's place.
    pub(super) fn usable(self) -> Result<Self, KeySetProblem> {
        if self.keys.is_empty() { Err(KeySetProblem::Empty) } else { Ok(self) }
    }

    /// What is left without the keys of these names.
    pub(super) fn without(mut self, kids: &[&str]) -> Self {
        self.keys.retain(|kid, _| !kids.contains(&&**kid));
        self
    }

    /// The key that `kid` names for `algorithm`. `Err`: whether the `kid` is known at all.
    pub(super) fn find(&self, kid: &str, algorithm: Algorithm) -> Result<&VerifyingKey, bool> {
        let candidates = self.keys.get(kid).ok_or(false)?;
        candidates.iter().find(|key| key.verifies(algorithm)).ok_or(true)
    }

    /// Whether this very key is still here under this `kid` and verifies `algorithm`.
    pub(super) fn holds(&self, kid: &str, algorithm: Algorithm, thumbprint: &[u8; 32]) -> bool {
        self.find(kid, algorithm).is_ok_and(|key| key.thumbprint == *thumbprint)
    }

    /// Whether both sets verify exactly the same tokens.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let listed = |set: &Self| {
            let mut list: Vec<_> = set
                .keys
                .iter()
                .flat_map(|(kid, keys)| keys.iter().map(move |key| (kid.clone(), key)))
                .flat_map(|(kid, key)| {
                    let verified = Algorithm::ALL.into_iter().filter(|algorithm| key.verifies(*algorithm));
                    verified.map(move |algorithm| (kid.clone(), algorithm, key.thumbprint)).collect::<Vec<_>>()
                })
                .collect();
            list.sort();
            list
        };
        listed(self) == listed(other)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    fn add(&mut self, member: &Value, allowed: &[Algorithm], clashes: &mut Vec<(Box<str>, Vec<Algorithm>)>) {
        let kid = member.get("kid").and_then(Value::as_str).filter(|kid| !kid.is_empty());
        let key = match (VerifyingKey::from_jwk(member, allowed), kid) {
            (Err(problem), _) => return self.ignored.push((kid.map(str::to_owned), problem)),
            (Ok(_), None) => return self.ignored.push((None, KeyProblem::NoKeyId)),
            (Ok(key), Some(_)) => key,
        };
        let kid: Box<str> = kid.unwrap_or_default().into();
        let same_kid = self.keys.entry(kid.clone()).or_default();
        let shared: Vec<_> = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| key.verifies(*algorithm) && same_kid.iter().any(|other| other.verifies(*algorithm)))
            .collect();
        let repeated = same_kid.iter().any(|other| other.thumbprint == key.thumbprint);
        if !shared.is_empty() && repeated {
            return;
        }
        same_kid.push(key);
        if !shared.is_empty() {
            clashes.push((kid, shared));
        }
    }

    /// Two different keys for one `kid` and algorithm: which one is meant cannot be known, so neither is.
    fn drop_clash(&mut self, kid: Box<str>, algorithms: &[Algorithm]) {
        if let Some(keys) = self.keys.get_mut(&kid) {
            keys.retain(|key| !algorithms.iter().any(|algorithm| key.verifies(*algorithm)));
            if keys.is_empty() {
                self.keys.remove(&kid);
            }
        }
        self.ignored.push((Some(kid.into()), KeyProblem::DuplicateKeyId));
    }
}

/// The members as they are written: what is odd about one of them is its own matter.
#[derive(Deserialize)]
struct Document<'t> {
    #[serde(borrow)]
    keys: Vec<&'t RawValue>,
}

/// The members of a document that is an object with an array `keys`.
fn members(text: &[u8]) -> Option<Vec<&RawValue>> {
    let text = std::str::from_utf8(text).ok()?;
    // Serde would read such a structure from an array as well.
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let document: Document<'_> = serde_json::from_str(text).ok()?;
    Some(document.keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::mint::SigningKey;

    fn good() -> Value {
        SigningKey::generate(Algorithm::ES256, "good").unwrap().jwk()
    }

    fn read(members: &str) -> Result<KeySet, KeySetProblem> {
        KeySet::parse(format!("{{\"keys\":[{members}]}}").as_bytes(), &Algorithm::ALL)
    }

    #[test]
    fn a_member_that_is_not_read_takes_no_other_with_it() {
        let good = good();
        let deep = format!("{}{}", "[".repeat(20), "]".repeat(20));
        for odd in [
            r#"{"kid":"odd","x-note":"\ud800"}"#,
            r#"{"kid":"odd","x-note":1e999}"#,
            r#"{"kid":"odd","kid":"odd"}"#,
            &format!(r#"{{"kid":"odd","x-note":{deep}}}"#),
        ] {
            for members in [format!("{odd},{good}"), format!("{good},{odd}")] {
                let set = read(&members).unwrap();
                assert!(set.find("good", Algorithm::ES256).is_ok(), "{odd}");
                assert_eq!(set.ignored, [(None, KeyProblem::Malformed)], "{odd}");
            }
            assert_eq!(read(odd).unwrap().usable().unwrap_err(), KeySetProblem::Empty, "{odd}");
        }
    }

    #[test]
    fn a_text_that_is_no_object_with_one_array_of_keys_is_malformed() {
        let good = good();
        for text in [
            format!("[[{good}]]"),
            format!(r#"{{"keys":{good}}}"#),
            format!(r#"{{"keys":[{good}],"keys":[{good}]}}"#),
            format!(r#"{{"keys":[{good}],"\u006beys":[]}}"#),
            format!(r#"{{"keys":[{good}]}}x"#),
            format!(r#"{{"keys":[{good},]}}"#),
            format!(r#"{{"keys":[{good}]"#),
            "{}".to_owned(),
            "null".to_owned(),
        ] {
            let problem = KeySet::parse(text.as_bytes(), &Algorithm::ALL).unwrap_err();
            assert_eq!(problem, KeySetProblem::Malformed, "{text}");
        }
        let octets = [format!(r#"{{"keys":[{good}],"x":""#).as_bytes(), b"\xff\"}"].concat();
        assert_eq!(KeySet::parse(&octets, &Algorithm::ALL).unwrap_err(), KeySetProblem::Malformed);
        let many = vec!["{}"; MAX_KEYS + 1].join(",");
        assert_eq!(read(&many).unwrap_err(), KeySetProblem::TooMany);
    }
}
