//! `COUNTERSIGN__SECTION__KEY=value`: what the environment says over the file.
//!
//! Values are YAML (`COUNTERSIGN__IDENTITY__ISSUERS__0__AUDIENCES=[a, b]`); items of a list are named by number. A value
//! is never repeated in a message: secrets come this way.

use std::sync::Arc;

use super::Environment;
use crate::document::{Diagnostic, Document, Entry, Mark, Node, Source, Value};

const PREFIX: &str = "COUNTERSIGN__";

/// Lays the variables over `root`; what cannot be laid is a problem.
pub(super) fn apply(root: &mut Node, environment: &Environment) -> Vec<Diagnostic> {
    let mut overrides: Vec<Override<'_>> =
        environment.iter().filter_map(|(name, value)| Override::new(name, value)).collect();
    overrides.sort_by(|a, b| a.steps.cmp(&b.steps));
    overrides.iter().filter_map(|entry| entry.lay_over(root).err()).collect()
}

struct Override<'e> {
    steps: Vec<Step>,
    value: &'e str,
    at: Mark,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Index(usize),
    Key(Arc<str>),
}

impl<'e> Override<'e> {
    fn new(name: &str, value: &'e str) -> Option<Self> {
        let steps = name
            .strip_prefix(PREFIX)?
            .split("__")
            .map(|step| step.parse().map_or_else(|_| Step::Key(step.to_ascii_lowercase().into()), Step::Index))
            .collect();
        let at = Mark::whole(Source::new(format!("environment variable {name}"), ""));
        Some(Self { steps, value, at })
    }

    fn lay_over(&self, root: &mut Node) -> Result<(), Diagnostic> {
        let value = Document::parse(&*self.at.source.name, self.value)
            .map_err(|_| self.problem("is no YAML value").hint("put text in quotes inside the value: '\"…\"'"))?;
        if value.root.is_null() {
            let problem = self.problem("holds nothing, which would take away what the file says");
            return Err(problem.hint("give it a value, or remove the variable"));
        }
        let mut node = root;
        for (number, step) in self.steps.iter().enumerate() {
            node = self.descend(node, step, number + 1 == self.steps.len())?;
        }
        *node = value.root;
        self.re_mark(node);
        Ok(())
    }

    /// `last`: what stands there is the variable's from now on, and so is the key that leads to it.
    fn descend<'n>(&self, node: &'n mut Node, step: &Step, last: bool) -> Result<&'n mut Node, Diagnostic> {
        if node.is_null() {
            *node = Node { value: empty(step), at: self.at.clone() };
        }
        let kind = node.kind();
        match (&mut node.value, step) {
            (Value::Map(entries), Step::Key(key)) if !key.is_empty() => {
                let index = entries.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
                    entries.push(Entry { key: Arc::clone(key), key_at: self.at.clone(), node: self.nothing() });
                    entries.len() - 1
                });
                if last {
                    entries[index].key_at = self.at.clone();
                }
                Ok(&mut entries[index].node)
            }
            (Value::List(items), Step::Index(index)) => {
                let length = items.len();
                if *index == length {
                    items.push(self.nothing());
                }
                items.get_mut(*index).ok_or_else(|| self.problem(format!("names item {index} of a list of {length}")))
            }
            (_, Step::Index(index)) => Err(self.problem(format!("names item {index} of what is {kind}"))),
            (_, Step::Key(key)) => Err(self.problem(format!("names key `{key}` of what is {kind}"))),
        }
    }

    /// Positions inside a variable mean nothing to anybody.
    fn re_mark(&self, node: &mut Node) {
        node.at = self.at.clone();
        match &mut node.value {
            Value::List(items) => items.iter_mut().for_each(|item| self.re_mark(item)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.key_at = self.at.clone();
                    self.re_mark(&mut entry.node);
                }
            }
            _ => {}
        }
    }

    fn nothing(&self) -> Node {
        Node { value: Value::Null, at: self.at.clone() }
    }

    fn problem(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.at.clone(), "", message)
    }
}

const fn empty(step: &Step) -> Value {
    match step {
        Step::Index(_) => Value::List(Vec::new()),
        Step::Key(_) => Value::Map(Vec::new()),
    }
}
