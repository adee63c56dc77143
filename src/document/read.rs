//! A `serde` reader over [`Node`]s that reports every problem.
//!
//! A serde reader stops at its first error. This one is run again without the offending field or item, until nothing is
//! left to find: quadratic only in the number of problems, which is bounded. Keys that a struct does not know are always
//! errors, whether or not it says `deny_unknown_fields`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::{
    Diagnostic, Entry, Node, Value,
    error::{Error, unknown_key},
    node::key_step,
};

/// Beyond this a file is not mended but written anew.
const MAX_PROBLEMS: usize = 200;

/// What can be read with every offending part left out, and the problems.
pub(super) fn salvage<T: DeserializeOwned>(root: &Node, path: &str) -> (Option<T>, Vec<Diagnostic>) {
    let mut pass = Pass::default();
    let mut problems = Vec::new();
    let mut value = None;
    while problems.len() + pass.unknown.borrow().len() < MAX_PROBLEMS {
        match T::deserialize(Reader { node: root, path: &Path::Root(path), pass: &pass }) {
            Ok(read) => {
                value = Some(read);
                break;
            }
            Err(error) => {
                let error = error.or_at(|| path.to_owned(), &root.at);
                let Some((place, at)) = error.place.clone() else { break };
                if !pass.explains(&place, &error) {
                    problems.push(Diagnostic { hint: error.hint, ..Diagnostic::error(at, &place, error.message) });
                }
                if place == path || !pass.dropped.insert(place) {
                    break;
                }
            }
        }
    }
    problems.extend(pass.unknown.into_inner().into_values().map(|unknown| unknown.diagnostic));
    Diagnostic::sort(&mut problems);
    (value, problems)
}

/// What is left out of this pass, and the unknown keys met so far, by path.
#[derive(Default)]
struct Pass {
    dropped: HashSet<String>,
    unknown: RefCell<BTreeMap<String, Unknown>>,
}

struct Unknown {
    diagnostic: Diagnostic,
    /// The field that was probably meant, as a path.
    meant: Option<String>,
}

impl Pass {
    /// Whether `error` only follows from what was left out, or from a misspelt key.
    fn explains(&self, place: &str, error: &Error) -> bool {
        let below =
            |path: &str| path.strip_prefix(place).is_some_and(|rest| place.is_empty() || rest.starts_with(['.', '[']));
        match error.missing {
            Some(field) => {
                let field = extended(place, &key_step(field));
                self.dropped.contains(&field)
                    || self.unknown.borrow().values().any(|unknown| unknown.meant.as_ref() == Some(&field))
            }
            None => self.dropped.iter().any(|path| below(path)),
        }
    }

    fn refuse_unknown(&self, parent: &Path<'_>, entry: &Entry, fields: &'static [&'static str]) {
        let path = Path::Key(parent, &entry.key).text();
        let (message, hint) = unknown_key(&entry.key, fields);
        let meant = super::closest(&entry.key, fields.iter().copied()).map(|near| Path::Key(parent, near).text());
        let diagnostic = Diagnostic::error(entry.key_at.clone(), &path, message).hint(hint);
        self.unknown.borrow_mut().entry(path).or_insert(Unknown { diagnostic, meant });
    }
}

/// Where the reader stands; spelt out only when something is wrong or was left out.
enum Path<'p> {
    Root(&'p str),
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn text(&self) -> String {
        match self {
            Self::Root(path) => (*path).to_owned(),
            Self::Key(parent, key) => extended(&parent.text(), &key_step(key)),
            Self::Index(parent, index) => format!("{}[{index}]", parent.text()),
        }
    }
}

fn extended(parent: &str, step: &str) -> String {
    super::diagnostic::join(parent, step)
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    path: &'a Path<'a>,
    pass: &'a Pass,
}

impl<'a> Reader<'a> {
    fn place<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.or_at(|| self.path.text(), &self.node.at))
    }

    fn is_dropped(&self, path: &Path<'_>) -> bool {
        !self.pass.dropped.is_empty() && self.pass.dropped.contains(&path.text())
    }

    fn visit_entries<'de, V: Visitor<'de>>(self, entries: &'a [Entry], visitor: V) -> Result<V::Value, Error> {
        let kept = entries.iter().filter(|entry| !self.is_dropped(&Path::Key(self.path, &entry.key))).collect();
        self.visit_kept(kept, visitor)
    }

    fn visit_kept<'de, V: Visitor<'de>>(self, kept: Vec<&'a Entry>, visitor: V) -> Result<V::Value, Error> {
        self.place(visitor.visit_map(Entries { reader: self, rest: kept.into_iter(), current: None }))
    }

    fn mismatch<'de, V: Visitor<'de>>(self, visitor: &V) -> Error {
        let unexpected = match &self.node.value {
            Value::Null => de::Unexpected::Unit,
            Value::Bool(value) => de::Unexpected::Bool(*value),
            Value::Signed(value) => de::Unexpected::Signed(*value),
            Value::Unsigned(value) => de::Unexpected::Unsigned(*value),
            Value::Float(value) => de::Unexpected::Float(*value),
            Value::Text(_) => de::Unexpected::Str(""),
            Value::List(_) => de::Unexpected::Seq,
            Value::Map(_) => de::Unexpected::Map,
        };
        let error: Error = de::Error::invalid_type(unexpected, visitor);
        error.or_at(|| self.path.text(), &self.node.at)
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(items) => visitor.visit_seq(Items { reader: self, rest: items.iter().enumerate() }),
            Value::Map(entries) => return self.visit_entries(entries, visitor),
        };
        self.place(result)
    }

    /// What may be left out may not be left blank: what became of nothing may have been a demand.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { Err(Error::blank()) } else { self.place(visitor.visit_some(self)) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.place(visitor.visit_newtype_struct(self))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => Err(Error::blank()),
            Value::Map(entries) => self.visit_entries(entries, visitor),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    /// A section with nothing under it is a section with its defaults.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = match &self.node.value {
            Value::Null => &[][..],
            Value::Map(entries) => entries,
            _ => return Err(self.mismatch(&visitor)),
        };
        let (known, unknown): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| fields.contains(&&*entry.key));
        for entry in unknown {
            self.pass.refuse_unknown(self.path, entry, fields);
        }
        let kept = known.into_iter().filter(|entry| !self.is_dropped(&Path::Key(self.path, &entry.key))).collect();
        self.visit_kept(kept, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (variant, content) = match &self.node.value {
            Value::Text(variant) => (variant, None),
            Value::Map(entries) if entries.len() == 1 => (&entries[0].key, Some(&entries[0].node)),
            _ => {
                let names = variants.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let message = format!("expected one of {names}, found {}", self.node.kind());
                return self.place(Err(Error::new(message, None)));
            }
        };
        self.place(visitor.visit_enum(Variant { reader: self, variant, content }))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct identifier
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        for (index, node) in self.rest.by_ref() {
            let path = Path::Index(self.reader.path, index);
            if !self.reader.is_dropped(&path) {
                let reader = Reader { node, path: &path, pass: self.reader.pass };
                return reader.place(seed.deserialize(reader)).map(Some);
            }
        }
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Entries<'a> {
    reader: Reader<'a>,
    rest: std::vec::IntoIter<&'a Entry>,
    current: Option<&'a Entry>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(entry) = self.rest.next() else { return Ok(None) };
        self.current = Some(entry);
        let path = Path::Key(self.reader.path, &entry.key);
        let key: de::value::StrDeserializer<'_, Error> = (*entry.key).into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.or_at(|| path.text(), &entry.key_at))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some(entry) = self.current.take() else { return Err(de::Error::custom("a value without its key")) };
        let path = Path::Key(self.reader.path, &entry.key);
        let reader = Reader { node: &entry.node, path: &path, pass: self.reader.pass };
        // A value that is nothing has no place worth showing: its key has.
        let at = if entry.node.is_null() { &entry.key_at } else { &entry.node.at };
        seed.deserialize(reader).map_err(|error| error.or_at(|| path.text(), at))
    }
}

struct Variant<'a> {
    reader: Reader<'a>,
    variant: &'a Arc<str>,
    content: Option<&'a Node>,
}

impl<'de, 'a> de::EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name: de::value::StrDeserializer<'_, Error> = (**self.variant).into_deserializer();
        let value = self.reader.place(seed.deserialize(name))?;
        Ok((value, self))
    }
}

impl Variant<'_> {
    fn content<T>(&self, read: impl FnOnce(Reader<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let Some(node) = self.content else {
            let message = format!("`{0}` needs a value: `{{ {0}: … }}`", self.variant);
            return self.reader.place(Err(Error::new(message, None)));
        };
        let path = Path::Key(self.reader.path, self.variant);
        let reader = Reader { node, path: &path, pass: self.reader.pass };
        reader.place(read(reader))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.content {
            None => Ok(()),
            Some(node) if node.is_null() => Ok(()),
            Some(_) => self.reader.place(Err(Error::new(format!("`{}` takes no value", self.variant), None))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        self.content(|reader| seed.deserialize(reader))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.content(|reader| reader.deserialize_seq(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.content(|reader| reader.deserialize_struct("", fields, visitor))
    }
}
