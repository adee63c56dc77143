//! A length of time as operators write it: `150ms`, `30s`, `5m`, `24h`, `7d`.

use std::{borrow::Cow, fmt, ops::Deref, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration with a unit. A bare number is refused: nobody knows of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Span {
    pub const fn get(self) -> Duration {
        self.0
    }

    /// # Errors
    ///
    /// A message for the operator where the text is no length of time.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        number
            .parse::<u64>()
            .ok()
            .zip(scale)
            .and_then(|(number, scale)| number.checked_mul(scale))
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| format!("`{text}` is not a length of time such as `150ms`, `30s`, `5m`, `24h` or `7d`"))
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl Deref for Span {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (unit, scale) =
            UNITS.iter().rev().find(|(_, scale)| millis.is_multiple_of(u128::from(*scale))).unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", millis / u128::from(*scale))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as `30s`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h|d)$",
            "description": "a length of time with its unit: ms, s, m, h or d",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written_back() {
        for text in ["150ms", "30s", "5m", "24h", "7d", "1500ms"] {
            let span = Span::parse(text).unwrap();
            assert_eq!(Span::parse(&span.to_string()), Ok(span), "{text}");
        }
        assert_eq!(Span::parse("90s").unwrap().get(), Duration::from_secs(90));
        assert_eq!(Span::parse("24h").unwrap().to_string(), "1d");
    }

    #[test]
    fn what_has_no_unit_or_no_number_is_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "30 s", "1w", "99999999999999999999s", "18446744073709551615d"] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }
}
