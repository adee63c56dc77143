//! What goes wrong while a typed value is read from a [`super::Node`], in the words of somebody who writes YAML.

use std::fmt::{self, Display};

use serde::de::{Expected, Unexpected};

use super::{Mark, closest};

/// A problem on its way up to the nearest place.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) missing: Option<&'static str>,
    pub(super) place: Option<(String, Mark)>,
}

impl Error {
    pub(super) fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), hint, missing: None, place: None }
    }

    /// Of a key that may be left out, and stands there with nothing after it.
    pub(super) fn blank() -> Self {
        Self::new("nothing stands after it", Some("write what is meant, or leave it out".to_owned()))
    }

    /// Gives the error its place; the innermost one counts.
    pub(super) fn or_at(mut self, path: impl FnOnce() -> String, at: &Mark) -> Self {
        self.place.get_or_insert_with(|| (path(), at.clone()));
        self
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string(), None)
    }

    // The value itself is left out: it may be a secret, and its line is shown beside the message.
    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = words(&expected.to_string());
        let hint = match unexpected {
            _ if expected == "true or false" => Some("write `true` or `false`".to_owned()),
            Unexpected::Bool(_) | Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_)
                if expected == "text" =>
            {
                Some("put it in quotes".to_owned())
            }
            Unexpected::Str(_) if expected == "a list" => Some("write it as a list: `[…]`".to_owned()),
            Unexpected::Unit if expected == "a list" => Some("write `[]` for an empty list".to_owned()),
            _ => None,
        };
        Self::new(format!("expected {expected}, found {}", found(unexpected)), hint)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = words(&expected.to_string());
        let value = match unexpected {
            Unexpected::Signed(value) => format!("`{value}`"),
            Unexpected::Unsigned(value) => format!("`{value}`"),
            Unexpected::Float(value) => format!("`{value}`"),
            Unexpected::Bool(value) => format!("`{value}`"),
            other => found(other).to_owned(),
        };
        Self::new(format!("expected {expected}, found {value}"), None)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {length} items", words(&expected.to_string())), None)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = closest(variant, expected.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        Self::new(format!("`{variant}` is not one of {}", one_of(expected)), hint)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let (message, hint) = unknown_key(field, expected);
        Self::new(message, Some(hint))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::new(format!("`{field}` is missing"), None) }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("`{field}` is given twice"), None)
    }
}

/// Message and hint for a key that nobody reads.
pub(super) fn unknown_key(key: &str, known: &[&str]) -> (String, String) {
    let hint = closest(key, known.iter().copied())
        .map_or_else(|| format!("known here: {}", one_of(known)), |near| format!("did you mean `{near}`?"));
    (format!("unknown key `{key}`"), hint)
}

fn one_of(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

const fn found(unexpected: Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "text",
        Unexpected::Unit | Unexpected::Option => "nothing",
        Unexpected::Seq => "a list",
        Unexpected::Map | Unexpected::NewtypeStruct => "a map",
        _ => "something else",
    }
}

/// serde's names of types, in words.
fn words(expected: &str) -> String {
    match expected {
        "a boolean" => "true or false".to_owned(),
        "a string" | "str" | "string" | "an OsString" | "path string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "unit" => "nothing".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" | "u128" => "a whole number, 0 or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        other if other.contains("nonzero") => "a whole number, 1 or more".to_owned(),
        other if other.starts_with("struct ") => "a map".to_owned(),
        other if other.starts_with("enum ") || other.starts_with("tuple ") => "one of the named values".to_owned(),
        other => other.to_owned(),
    }
}
