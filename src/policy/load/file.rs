//! A file of rules, Cedar or cases, and how the three are told apart: by the end of its name and by its keys.

use std::sync::Arc;

use crate::document::{Diagnostic, Document, Entry, Mark, Node, Source};

/// The keys of a file of cases, which `policy test` runs. Such files lie beside the rules that they test.
pub const OF_CASES: [&str; 3] = ["cases", "given", "description"];

/// One file of rules: its name (a path, for messages and for `cedar:` to refer to) and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub name: Arc<str>,
    pub text: Arc<str>,
}

impl SourceFile {
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// YAML of rules or cases, as opposed to Cedar's files beside it.
    pub fn is_yaml(&self) -> bool {
        self.ends_in("yaml") || self.ends_in("yml")
    }

    pub fn is_cedar(&self) -> bool {
        self.ends_in("cedar")
    }

    /// Without a single word. A file that is being written looks like this for a moment: it must not pass for one that
    /// says nothing.
    pub(super) fn is_blank(&self) -> bool {
        (self.is_yaml() || self.is_cedar()) && self.text.trim().is_empty()
    }

    pub(super) fn blank(&self) -> Diagnostic {
        let at = Mark::whole(Source::new(Arc::clone(&self.name), Arc::clone(&self.text)));
        Diagnostic::error(at, "", "the file is empty").hint("remove it, or say in a comment why it holds nothing")
    }

    /// What to say of a file of Cedar that no `cedar:` reaches: what it forbids would be allowed without a word.
    pub(super) fn unreached(&self) -> Option<Diagnostic> {
        // One without a word has been told of.
        if !self.is_cedar() || self.is_blank() {
            return None;
        }
        let at = Mark::whole(Source::new(Arc::clone(&self.name), Arc::clone(&self.text)));
        let message = "no `cedar:` section reaches this file: its policies would not count";
        let hint = "let `cedar: { policies: … }` name it or its folder, or move it out of what `rules` lists";
        Some(Diagnostic::error(at, "", message).hint(hint))
    }

    /// Whether it is a file of rules. One that cannot be read counts: what it says must not be lost without a word.
    pub fn holds_rules(&self) -> bool {
        let of_cases = || {
            Document::parse(Arc::clone(&self.name), Arc::clone(&self.text))
                .is_ok_and(|document| has_cases(&document.root) && foreign(&document.root).next().is_none())
        };
        self.is_yaml() && !of_cases()
    }

    /// The name without folders and without its end.
    pub(in crate::policy) fn stem(&self) -> &str {
        let name = self.name.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }

    fn ends_in(&self, kind: &str) -> bool {
        self.name.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case(kind))
    }
}

pub(super) fn has_cases(root: &Node) -> bool {
    root.get("cases").is_some()
}

/// What stands in a file of cases and does not belong there.
pub(super) fn foreign(root: &Node) -> impl Iterator<Item = &Entry> {
    root.entries().iter().filter(|entry| !OF_CASES.contains(&&*entry.key))
}
