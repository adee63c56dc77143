//! Problems drawn as a compiler draws them: the line, what is meant underlined, what to do.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity, secrets::masked};

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
