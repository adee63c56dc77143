//! Problems drawn as a compiler draws them: the line, what is meant underlined, what to do.

use std::borrow::Cow;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity};

/// Words in a key whose value is never shown.
const SECRET_KEYS: [&str; 6] = ["password", "secret", "authorization", "private_key", "credential", "pepper"];

/// One problem with its line. `colour` for terminals.
pub fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = if diagnostic.path.is_empty() {
        diagnostic.message.clone()
    } else {
        format!("{}: {}", diagnostic.path, diagnostic.message)
    };
    let at = &diagnostic.at;
    let text = masked(&at.source.text);
    let mut group = if at.line == 0 || at.source.text.is_empty() {
        Group::with_title(level.primary_title(format!("{}: {title}", at.source.name)))
    } else {
        let annotation = AnnotationKind::Primary.span(at.span.clone());
        let snippet = Snippet::source(text).path(&*at.source.name).annotation(annotation);
        level.primary_title(title).element(snippet)
    };
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// All of them, in order, and a line that counts them. Empty where there are none.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&render(diagnostic, colour));
        text.push_str("\n\n");
    }
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let counted = [(errors, "error"), (diagnostics.len() - errors, "warning")];
    let counted: Vec<String> = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    if !counted.is_empty() {
        text.push_str(&counted.join(", "));
        text.push('\n');
    }
    text
}

/// The text with secrets starred out, octet for octet, so that positions stay true. Reports end up in logs.
fn masked(text: &str) -> Cow<'_, str> {
    let mut masked: Option<Vec<u8>> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        for range in secrets(line) {
            let bytes = masked.get_or_insert_with(|| text.as_bytes().to_vec());
            bytes[start + range.start..start + range.end].fill(b'*');
        }
        start += line.len();
    }
    masked.and_then(|bytes| String::from_utf8(bytes).ok()).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The value after a key that names a secret, and the password of every URL.
fn secrets(line: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let content = line.trim_end().len();
    let lower = line.to_ascii_lowercase();
    for key in SECRET_KEYS {
        if let Some(at) = lower.find(key)
            && let Some(colon) = line[at..].find(": ")
        {
            found.push(at + colon + 2..content);
        }
    }
    for (scheme, _) in line.match_indices("://") {
        let authority = scheme + 3;
        let end = line[authority..].find(['/', ' ', '"', '\'', '\n']).map_or(line.len(), |end| authority + end);
        if let Some(sign) = line[authority..end].rfind('@')
            && let Some(colon) = line[authority..authority + sign].find(':')
        {
            found.push(authority + colon + 1..authority + sign);
        }
    }
    found.retain(|range| range.start < range.end);
    found
}
