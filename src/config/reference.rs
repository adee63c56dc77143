//! The reference page and the JSON Schema, made from the `Settings` of the modules: their doc comments are the text.

use std::fmt::Write as _;

use schemars::schema_for;
use serde_json::{Map, Value, json};

use super::Config;
use crate::document::{self, Document, Node};

/// The JSON Schema of the configuration file, for editors.
pub fn schema() -> String {
    let mut text = serde_json::to_string_pretty(&made()).unwrap_or_default();
    text.push('\n');
    text
}

fn made() -> Value {
    let mut schema = serde_json::to_value(schema_for!(Config)).unwrap_or_default();
    refuse_null(&mut schema);
    schema
}

/// To serde an `Option` may be `null`. Here it is left out, and a key with nothing after it is an error.
fn refuse_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            if let Some(Value::Array(kinds)) = fields.get_mut("type") {
                kinds.retain(|kind| kind != "null");
            }
            fields.values_mut().for_each(refuse_null);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null() && *item != json!({ "type": "null" }));
            items.iter_mut().for_each(refuse_null);
        }
        _ => {}
    }
}

/// The reference page, in Markdown.
pub fn page() -> String {
    let schema = made();
    let defaults = serde_saphyr::to_string(&Config::default()).unwrap_or_default();
    let defaults = Document::parse("defaults", defaults).map(|document| document.root).ok();
    let mut page = Page { schema: &schema, text: INTRODUCTION.to_owned() };
    for (name, section) in ordered(properties(&schema), defaults.as_ref()) {
        let default = defaults.as_ref().and_then(|root| root.get(name));
        page.section(name, section, default);
    }
    page.text
}

const INTRODUCTION: &str = "<!-- Made by `countersign docs`; edit the doc comments of the settings instead. -->
# Configuration

One YAML file, named by `countersign serve --config FILE`. Unknown keys are errors; all problems are told at once, each with
its file, line and path; `countersign check-config --config FILE` tells them without starting. Relative paths are relative to
the folder of the file. Lengths of time carry their unit: `150ms`, `30s`, `5m`, `24h`, `7d`. A key with nothing after it is an
error, since a template may have lost what was meant; only a section that has defaults for all it holds may stand empty.

Every key can be set by the environment, over the file: `COUNTERSIGN__` and the path in capitals, joined by two underscores;
items of a list by their number; values are YAML, and a variable that holds nothing is an error. `COUNTERSIGN__STORE__URL=rediss://redis:6379/0`,
`COUNTERSIGN__IDENTITY__ISSUERS__0__AUDIENCES='[api.example.com]'`.

Editors know the same from [countersign.schema.json](countersign.schema.json).
";

struct Page<'s> {
    schema: &'s Value,
    text: String,
}

impl<'s> Page<'s> {
    fn section(&mut self, name: &str, section: &'s Value, default: Option<&Node>) {
        let resolved = self.resolve(section);
        self.add(format_args!("\n## `{name}`\n\n"));
        for text in [describe(section), describe(resolved)].into_iter().flatten().take(1) {
            self.add(format_args!("{text}\n\n"));
        }
        if properties(resolved).next().is_none() {
            let kind = self.kind(section);
            self.add(format_args!("Type: {kind}. Default: {}.\n", written(default)));
            return;
        }
        self.add(format_args!("| key | type | default | |\n|---|---|---|---|\n"));
        self.rows(name, resolved, default);
    }

    fn rows(&mut self, path: &str, schema: &'s Value, default: Option<&Node>) {
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, property) in ordered(properties(schema), default) {
            let place = format!("{path}.{name}");
            let inner = self.resolve(property);
            let default = default.and_then(|node| node.get(name));
            let stated = if required.contains(&name) {
                "**required**".to_owned()
            } else {
                match (default, property.get("default")) {
                    (Some(default), _) => written(Some(default)),
                    (None, None) => "–".to_owned(),
                    (None, Some(value)) => format!("`{value}`"),
                }
            };
            let text = describe(property).or_else(|| describe(inner)).unwrap_or_default().replace('\n', " ");
            if properties(inner).next().is_some() {
                self.add(format_args!("| `{place}` | | | {} |\n", cell(&text)));
                self.rows(&place, inner, default);
                continue;
            }
            let kind = self.kind(property);
            self.add(format_args!("| `{place}` | {} | {} | {} |\n", cell(&kind), cell(&stated), cell(&text)));
            self.variants(&place, inner);
            if let Some((suffix, item)) = self.items(inner) {
                self.rows(&format!("{place}{suffix}"), item, None);
            }
        }
    }

    /// What the choices of an enum hold that are maps.
    fn variants(&mut self, path: &str, schema: &'s Value) {
        for variant in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            for (name, fields) in properties(variant) {
                let text = describe(variant).unwrap_or_default().replace('\n', " ");
                self.add(format_args!("| `{path}.{name}` | map | – | {} |\n", cell(&text)));
                self.rows(&format!("{path}.{name}"), fields, None);
            }
        }
    }

    /// What a list or a map holds, where those are maps themselves.
    fn items(&self, schema: &'s Value) -> Option<(&'static str, &'s Value)> {
        let list = schema.get("items").map(|items| ("[]", items));
        let map = || schema.get("additionalProperties").filter(|rest| rest.is_object()).map(|rest| (".NAME", rest));
        let (suffix, item) = list.or_else(map)?;
        let item = self.resolve(item);
        properties(item).next().is_some().then_some((suffix, item))
    }

    fn kind(&self, schema: &'s Value) -> String {
        let schema = self.resolve(schema);
        if let Some(words) = choices(schema) {
            return words.join(", ");
        }
        if schema.get("pattern").is_some_and(|pattern| pattern.as_str().is_some_and(|text| text.contains("(ms|s"))) {
            return "time".to_owned();
        }
        if let Some(items) = schema.get("items") {
            return format!("list of {}", self.kind(items));
        }
        if let Some(rest) = schema.get("additionalProperties").filter(|rest| rest.is_object()) {
            return format!("map of {}", self.kind(rest));
        }
        let kind = schema.get("type").and_then(|kind| match kind {
            Value::Array(kinds) => kinds.first()?.as_str(),
            kind => kind.as_str(),
        });
        match kind {
            Some("string") => "text".to_owned(),
            Some("integer") => "whole number".to_owned(),
            Some("boolean") => "`true`, `false`".to_owned(),
            Some("object") => "map".to_owned(),
            Some(other) => other.to_owned(),
            None => "see there".to_owned(),
        }
    }

    /// Behind `$ref`, and what stands around one.
    fn resolve(&self, schema: &'s Value) -> &'s Value {
        let mut schema = schema;
        for _ in 0..8 {
            if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
                schema = self.schema.pointer(name.trim_start_matches('#')).unwrap_or(&Value::Null);
            } else if let Some(one) = ["anyOf", "allOf"].iter().find_map(|key| single(schema.get(key)?)) {
                schema = one;
            } else {
                break;
            }
        }
        schema
    }

    fn add(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing into a `String` cannot fail.
        let _ = self.text.write_fmt(arguments);
    }
}

/// The one choice that there is.
fn single(choices: &Value) -> Option<&Value> {
    match &choices.as_array()?[..] {
        [one] => Some(one),
        _ => None,
    }
}

/// The words of an enum, as they are written.
fn choices(schema: &Value) -> Option<Vec<String>> {
    let quoted = |word: &str| format!("`{word}`");
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Some(words.iter().filter_map(Value::as_str).map(quoted).collect());
    }
    let variants = schema.get("oneOf").and_then(Value::as_array)?;
    let mut words = Vec::new();
    for variant in variants {
        match (variant.get("const"), variant.get("enum"), variant.get("properties")) {
            (Some(word), ..) => words.extend(word.as_str().map(quoted)),
            (_, Some(several), _) => words.extend(several.as_array()?.iter().filter_map(Value::as_str).map(quoted)),
            (.., Some(Value::Object(fields))) => words.extend(fields.keys().map(|key| format!("`{key}: {{…}}`"))),
            _ => return None,
        }
    }
    Some(words)
}

fn describe(schema: &Value) -> Option<String> {
    schema.get("description").and_then(Value::as_str).map(str::to_owned)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let fields: Option<&Map<String, Value>> = schema.get("properties").and_then(Value::as_object);
    fields.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// In the order in which the structs declare them, which the written defaults have and the schema has not.
fn ordered<'a>(
    fields: impl Iterator<Item = (&'a str, &'a Value)>,
    defaults: Option<&Node>,
) -> Vec<(&'a str, &'a Value)> {
    let place = |name: &str| {
        let entries = defaults.map(Node::entries).unwrap_or_default();
        entries.iter().position(|entry| &*entry.key == name).unwrap_or(usize::MAX)
    };
    let mut fields: Vec<_> = fields.collect();
    fields.sort_by_key(|(name, _)| place(name));
    fields
}

/// A default as somebody would write it.
fn written(default: Option<&Node>) -> String {
    match default.map(|node| &node.value) {
        None | Some(document::Value::Null) => "–".to_owned(),
        Some(document::Value::Bool(value)) => format!("`{value}`"),
        Some(document::Value::Signed(value)) => format!("`{value}`"),
        Some(document::Value::Unsigned(value)) => format!("`{value}`"),
        Some(document::Value::Float(value)) => format!("`{value}`"),
        Some(document::Value::Text(value)) if &**value == "***" => "see there".to_owned(),
        Some(document::Value::Text(value)) => format!("`{value}`"),
        Some(document::Value::List(items)) => {
            let items = items.iter().map(|item| written(Some(item)).replace('`', "")).collect::<Vec<_>>();
            format!("`[{}]`", items.join(", "))
        }
        Some(document::Value::Map(entries)) if entries.is_empty() => "`{}`".to_owned(),
        Some(document::Value::Map(_)) => "see below".to_owned(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
