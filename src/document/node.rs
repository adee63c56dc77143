//! The tree of a document: values with the place where each stands.

use std::{borrow::Cow, sync::Arc};

use serde::de::DeserializeOwned;

use super::{Diagnostic, Mark, Problem, Source, diagnostic::join, parse, read};

/// A file read whole.
#[derive(Clone, Debug)]
pub struct Document {
    pub source: Arc<Source>,
    /// `Null` for an empty file.
    pub root: Node,
}

impl Document {
    /// Reads YAML. Duplicate keys, alias bombs, excessive depth and `yes` for a boolean are errors.
    ///
    /// # Errors
    ///
    /// The one problem that ended the reading: text that is no YAML has no second one.
    pub fn parse(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Result<Self, Diagnostic> {
        let source = Source::new(name, text);
        parse::parse(&source).map(|root| Self { source, root })
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub at: Mark,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(Arc<str>),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// Places are not compared: two nodes are equal when they say the same.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// A key with its place, and what it holds.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Arc<str>,
    pub key_at: Mark,
    pub node: Node,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.node == other.node
    }
}

impl Node {
    /// A typed value. `path` is where this node stands, for the messages (empty for a root).
    ///
    /// # Errors
    ///
    /// Every problem: unknown keys, values of a wrong type in each field and each item, missing fields.
    pub fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Vec<Diagnostic>> {
        let (value, problems) = self.salvage(path);
        value.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// As [`Node::read`], with what remains when every offending part is left out: to go on looking for problems, never
    /// to be used.
    pub fn salvage<T: DeserializeOwned>(&self, path: &str) -> (Option<T>, Vec<Diagnostic>) {
        read::salvage(self, path)
    }

    /// As [`Node::read`], collecting into `problems`.
    pub fn read_into<T: DeserializeOwned>(&self, path: &str, problems: &mut Vec<Diagnostic>) -> Option<T> {
        self.read(path).map_err(|found| problems.extend(found)).ok()
    }

    pub fn entries(&self) -> &[Entry] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    pub fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| &*entry.key == key)
    }

    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    pub const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The place of what `path` names, or of its nearest ancestor that was written.
    pub fn locate(&self, path: &str) -> &Mark {
        let mut node = self;
        let mut at = &self.at;
        for step in steps(path) {
            let next = match &step {
                Step::Key(key) => node.entry(key).map(|entry| (&entry.node, &entry.key_at)),
                Step::Index(index) => node.items().get(*index).map(|item| (item, &item.at)),
            };
            let Some((inner, mark)) = next else { break };
            node = inner;
            at = if matches!(node.value, Value::List(_) | Value::Map(_) | Value::Null) { mark } else { &node.at };
        }
        at
    }

    /// `problem`, found in the value read from this node at `path`, with its place.
    pub fn diagnose(&self, path: &str, problem: Problem) -> Diagnostic {
        Diagnostic {
            severity: problem.severity,
            at: self.locate(&problem.path).clone(),
            path: join(path, &problem.path),
            message: problem.message,
            hint: problem.hint,
        }
    }

    /// In words, for "expected …, found …". Never the value itself: it may be a secret.
    pub const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Signed(_) | Value::Unsigned(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// A step of a path such as `a.b[0]["x.y"]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'p> {
    Key(Cow<'p, str>),
    Index(usize),
}

/// A key as it stands in a path: quoted where it would be mistaken for something else.
pub fn key_step(key: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | '*' | ':');
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { format!("[{key:?}]") }
}

pub(super) fn steps(path: &str) -> Vec<Step<'_>> {
    let mut rest = path;
    let mut found = Vec::new();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let Some((key, after)) = quoted.split_once("\"]") else { break };
            found.push(Step::Key(key.replace("\\\"", "\"").into()));
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('[') {
            let Some((index, after)) = inner.split_once(']') else { break };
            let Ok(index) = index.parse() else { break };
            found.push(Step::Index(index));
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            if !key.is_empty() {
                found.push(Step::Key(key.into()));
            } else if !after.starts_with('[') {
                break;
            }
            rest = after;
        }
    }
    found
}
