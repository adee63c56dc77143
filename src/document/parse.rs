//! YAML to [`Node`]s, by serde-saphyr, whose budgets bound what a file may cost.

use std::{fmt, sync::Arc};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    Error, Location, Spanned,
    budget::{Budget, BudgetBreach},
};

use super::{Diagnostic, Entry, Mark, Node, Source, Value};

pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Diagnostic> {
    if source.text.trim().is_empty() {
        return Ok(Node { value: Value::Null, at: Mark::at(source, 0..0) });
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        legacy_octal_numbers: false,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(&source.text, options) {
        Ok(root) => Ok(node(&Places::of(source), root)),
        Err(error) => Err(refusal(source, &error)),
    }
}

fn refusal(source: &Arc<Source>, error: &Error) -> Diagnostic {
    let at =
        error.location().map_or_else(|| Mark::whole(Arc::clone(source)), |location| Places::of(source).mark(location));
    let message = in_our_words(error.without_snippet()).unwrap_or_else(|| library_words(error));
    let problem = Diagnostic::error(at, "", message);
    match error.without_snippet() {
        Error::DuplicateMappingKey { .. } => problem.hint("keep one of the two"),
        Error::MultipleDocuments { .. } => problem.hint("take the `---` out, or write a file for each"),
        _ => problem,
    }
}

/// What the library says of its own workings and options, said of the file.
fn in_our_words(error: &Error) -> Option<String> {
    Some(match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` is given twice"),
        Error::DuplicateMappingKey { key: None, .. } => "a key is given twice".to_owned(),
        Error::MultipleDocuments { .. } => "one file holds one YAML document, and here a second begins".to_owned(),
        Error::RecursiveReferencesRequireWeakTypes { .. } => "an anchor refers to itself".to_owned(),
        Error::Budget { breach, .. } => too_large(breach),
        // What an alias repeats counts each time.
        Error::AliasError { error, .. } if matches!(**error, Error::Budget { .. }) => ALIASES.to_owned(),
        Error::AliasError { error, .. } => return in_our_words(error),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => ALIASES.to_owned(),
        _ => return None,
    })
}

fn too_large(breach: &BudgetBreach) -> String {
    let Budget { max_nodes, max_depth, max_total_scalar_bytes, .. } = Budget::default();
    let most = match breach {
        BudgetBreach::Depth { .. } => return format!("nested more than {max_depth} levels deep"),
        BudgetBreach::Events { .. } | BudgetBreach::Nodes { .. } => {
            format!("{max_nodes} keys, values, lists and maps in all")
        }
        BudgetBreach::ScalarBytes { .. } => format!("{max_total_scalar_bytes} octets of keys and values"),
        _ => return ALIASES.to_owned(),
    };
    format!("larger than a file of this kind may be: at most {most}")
}

const ALIASES: &str = "aliases and anchors make it larger than a file of this kind may be";

/// What is wrong with the YAML itself, as the library says it, without the place.
fn library_words(error: &Error) -> String {
    let text = error.without_snippet().to_string();
    let message = text.split(" at line ").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message).lines().next().unwrap_or_default();
    let message = message.split_once(": ").filter(|(head, _)| head.starts_with("line ")).map_or(message, |(_, m)| m);
    message.trim().to_owned()
}

/// A source with the octet at which each line starts, so that a place costs its line and not the file before it.
struct Places<'s> {
    source: &'s Arc<Source>,
    starts: Vec<usize>,
}

impl<'s> Places<'s> {
    fn of(source: &'s Arc<Source>) -> Self {
        let ends = source.text.match_indices('\n').map(|(end, _)| end + 1);
        Self { source, starts: std::iter::once(0).chain(ends).collect() }
    }

    fn mark(&self, location: Location) -> Mark {
        let text = &self.source.text;
        let line = usize::try_from(location.line()).unwrap_or_default();
        let column = usize::try_from(location.column()).unwrap_or_default();
        if line == 0 {
            return Mark::whole(Arc::clone(self.source));
        }
        let line_start = self.starts.get(line - 1).copied().unwrap_or(text.len());
        let rest = &text[line_start..];
        let content = rest.lines().next().unwrap_or_default();
        let offset = content.char_indices().nth(column.saturating_sub(1)).map_or(content.len(), |(offset, _)| offset);
        let start = line_start + offset;
        let end = start + token(&content[offset..]);
        Mark { source: Arc::clone(self.source), line: number(line), column: number(column.max(1)), span: start..end }
    }
}

/// Length of the scalar, or of the opening of a collection, at the beginning of `text`: what is underlined.
fn token(text: &str) -> usize {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote {
        return text[1..].find(quote).map_or(text.len(), |end| end + 2);
    }
    if text.starts_with(['{', '[']) {
        return 1;
    }
    let end = text.find(": ").or_else(|| text.strip_suffix(':').map(str::len)).unwrap_or(text.len());
    let end = text[..end].find(" #").unwrap_or(end);
    let end = text[..end].find([',', ']', '}']).unwrap_or(end);
    text[..end].trim_end().len()
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn node(places: &Places<'_>, raw: Spanned<Raw>) -> Node {
    let at = places.mark(raw.referenced);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Signed(value) => Value::Signed(value),
        Raw::Unsigned(value) => Value::Unsigned(value),
        Raw::Float(value) => Value::Float(value),
        Raw::Text(value) => Value::Text(value.into()),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(places, item)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key_at: places.mark(key.referenced),
                    key: key.value.into(),
                    node: node(places, value),
                })
                .collect(),
        ),
    };
    Node { value, at }
}

/// What the YAML reader hands over.
enum Raw {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(u64::try_from(value).map_or(Raw::Signed(value), Raw::Unsigned))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
