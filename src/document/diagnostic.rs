//! A problem in a file that somebody wrote, and where it stands.

use std::{fmt, ops::Range, sync::Arc};

use serde::Serialize;

/// A file as it was read, or an environment variable (then `text` is empty and positions are 0).
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    pub name: Arc<str>,
    pub text: Arc<str>,
}

impl Source {
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), text: text.into() })
    }
}

/// A place in a [`Source`].
#[derive(Clone, PartialEq, Eq)]
pub struct Mark {
    pub source: Arc<Source>,
    /// Counted from 1; 0 where the source has no lines (an environment variable, a file that cannot be opened).
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
    /// Octets of the source's text that are meant.
    pub span: Range<usize>,
}

impl Mark {
    /// A place that has no lines: a variable, or the file as a whole.
    pub const fn whole(source: Arc<Source>) -> Self {
        Self { source, line: 0, column: 0, span: 0..0 }
    }

    /// The place of `span` (octets; cut to the text and to whole characters) in `source`.
    pub fn at(source: &Arc<Source>, span: Range<usize>) -> Self {
        let text = &source.text;
        let start = floor(text, span.start);
        let before = &text[..start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let end = floor(text, span.end).max(start);
        Self { source: Arc::clone(source), line: small(line), column: small(column), span: start..end }
    }
}

fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source.name)?;
        if self.line > 0 { write!(f, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// What was written cannot be used.
    Error,
    /// It can be used, and probably does not say what was meant.
    Warning,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem, with its place. `Display` is the one-line form; [`super::render`] draws it as a compiler does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub at: Mark,
    /// `identity.issuers[0].audiences`; empty for the file as a whole.
    pub path: String,
    /// Lower case, no full stop, what was written in backticks; never a secret.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub fn error(at: Mark, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at, path: path.into(), message: message.into(), hint: None }
    }

    pub fn warning(at: Mark, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, path, message) }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn file(&self) -> &str {
        &self.at.source.name
    }

    pub const fn line(&self) -> u32 {
        self.at.line
    }

    pub const fn column(&self) -> u32 {
        self.at.column
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Sorts as a reader goes through the files: by file, then by place.
    pub fn sort(diagnostics: &mut [Self]) {
        diagnostics.sort_by(|a, b| {
            (&a.at.source.name, a.at.line, a.at.column, a.severity, &a.path).cmp(&(
                &b.at.source.name,
                b.at.line,
                b.at.column,
                b.severity,
                &b.path,
            ))
        });
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.at, self.severity.as_str())?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " (help: {hint})"))
    }
}

/// A problem found in a typed value, which no longer knows its lines: [`super::Node::diagnose`] finds the place again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// Relative to the value that was checked: `issuers[0].audiences`.
    pub path: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path: path.into(), message: message.into(), hint: None }
    }

    pub fn warning(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, message) }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same problem seen from one level up.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        self.path = join(parent, &self.path);
        self
    }
}

/// `a` and `b[0]` make `a.b[0]`; either may be empty.
pub(super) fn join(parent: &str, child: &str) -> String {
    match (parent.is_empty(), child.is_empty() || child.starts_with('[')) {
        (true, _) => child.to_owned(),
        (false, true) => format!("{parent}{child}"),
        (false, false) => format!("{parent}.{child}"),
    }
}
