//! JSON as tokens may carry it: no member twice at any depth (compared after unescaping), bounded nesting, nothing after it.
//!
//! `serde_json` alone keeps the last of two members; an attacker and another verifier may have meant the first.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, de::StrRead};

/// Deepest nesting of arrays and objects that is read.
const MAX_DEPTH: u16 = 16;

/// Strict: a duplicate anywhere refuses the whole text.
///
/// # Errors
///
/// Not JSON, a member twice, too deep, or bytes after the value.
pub(super) fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    let depth = Cell::new(0);
    let mut reader = reader(text)?;
    let value = Strict { depth: &depth }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// The members of an object in the order of its text. Each look-up goes through them one by one: for the dozens that a token
/// has that is faster than to hash their names, there and when they are read.
#[derive(Debug, Default)]
pub(super) struct Object(Vec<(String, Value)>);

impl Object {
    /// As [`parse`], of a text that is an object.
    ///
    /// # Errors
    ///
    /// Where [`parse`] has one, or the text is JSON of another kind.
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let depth = Cell::new(0);
        let mut reader = reader(text)?;
        let object = reader.deserialize_map(Members(Strict { depth: &depth }))?;
        reader.end()?;
        Ok(object)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(super) fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Each name against those before it while they are few, which needs no memory; sorted where they are many.
    fn has_a_name_twice(&self) -> bool {
        const FEW: usize = 32;
        let names = || self.0.iter().map(|(name, _)| name.as_str());
        if self.0.len() <= FEW {
            return names().enumerate().any(|(index, name)| names().take(index).any(|earlier| earlier == name));
        }
        let mut names: Vec<&str> = names().collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }
}

impl From<Map<String, Value>> for Object {
    fn from(members: Map<String, Value>) -> Self {
        Self(members.into_iter().collect())
    }
}

/// Reads an [`Object`]; what is in it as [`Strict`] does.
struct Members<'d>(Strict<'d>);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
        self.0.enter()?;
        let mut object = Object(Vec::with_capacity(24));
        while let Some(name) = access.next_key()? {
            object.0.push((name, access.next_value_seed(self.0)?));
        }
        self.0.leave();
        if object.has_a_name_twice() { Err(A::Error::custom("a member stands twice")) } else { Ok(object) }
    }
}

/// Looks once whether the whole text is UTF-8, rather than at each string by itself.
fn reader(text: &[u8]) -> Result<serde_json::Deserializer<StrRead<'_>>, serde_json::Error> {
    let text = std::str::from_utf8(text).map_err(serde_json::Error::custom)?;
    Ok(serde_json::Deserializer::from_str(text))
}

#[derive(Clone, Copy)]
struct Strict<'d> {
    depth: &'d Cell<u16>,
}

impl Strict<'_> {
    fn enter<E: Error>(&self) -> Result<(), E> {
        self.depth.set(self.depth.get() + 1);
        if self.depth.get() > MAX_DEPTH { Err(E::custom("nested too deep")) } else { Ok(()) }
    }

    fn leave(&self) {
        self.depth.set(self.depth.get() - 1);
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        self.leave();
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut members = Map::new();
        let mut twice = false;
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(self)?;
            twice |= members.insert(name, value).is_some();
        }
        self.leave();
        if twice { Err(A::Error::custom("a member stands twice")) } else { Ok(members.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_stands_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"a":1,"a":2}]}"#,
            r#"{"x":{"y":{"a":1,"b":2,"a":3}}}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err() && Object::parse(text.as_bytes()).is_err(), "{text}");
        }
        let text = br#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#;
        assert!(parse(text).is_ok() && Object::parse(text).is_ok());
        for count in 1..80 {
            let mut names: Vec<String> = (0..count).map(|number| format!("\"name-{number}\":{number}")).collect();
            assert!(Object::parse(format!("{{{}}}", names.join(",")).as_bytes()).is_ok(), "{count}");
            names.push("\"name-0\":0".to_owned());
            assert!(Object::parse(format!("{{{}}}", names.join(",")).as_bytes()).is_err(), "{count}");
        }
    }

    #[test]
    fn an_object_is_read_as_any_value_is() {
        for text in ["{}", r#"{"a":1,"b":{"c":[null,true,1.5,"x"]},"\u0063":"y"}"#] {
            let (object, value) = (Object::parse(text.as_bytes()).unwrap(), parse(text.as_bytes()).unwrap());
            for name in ["a", "b", "c", "d"] {
                assert_eq!((object.get(name), object.contains_key(name)), (value.get(name), value.get(name).is_some()));
            }
            assert_eq!(object.0, Object::from(value.as_object().unwrap().clone()).0);
        }
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(Object::parse(deep(15).as_bytes()).is_ok());
        for text in ["[]", "1", "\"a\"", "null", "{} ", "{}x", "{", &deep(16)] {
            assert_eq!(Object::parse(text.as_bytes()).is_ok(), text == "{} ", "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_nothing_may_follow() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(deep(16).as_bytes()).is_ok());
        assert!(parse(deep(17).as_bytes()).is_err());
        assert!(parse(deep(5000).as_bytes()).is_err());
        for text in [b"{\"a\":\"\xff\"}".as_slice(), b"{\"a\":1}\xff", b"\xff"] {
            assert!(parse(text).is_err() && Object::parse(text).is_err(), "{}", text.escape_ascii());
        }
        for text in ["{} {}", "{}x", "", "{\"a\":1e400}", "{\"a\":NaN}", "{\"a\":\"\\ud800\"}", "\u{feff}{}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
