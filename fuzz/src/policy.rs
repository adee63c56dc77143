//! Rules and configuration as text, YAML parser included. Loads or says where it does not; a request without credentials is
//! then let through by nothing but a rule that says `public`.

use std::collections::BTreeMap;

use countersign::{
    document::{Diagnostic, render_all},
    policy::{Options, SourceFile, load, model::Access},
};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(text) = text.strip_prefix("#config\n") {
        match countersign::config::parse("config.yaml", text, &BTreeMap::new()) {
            Ok((_, warnings)) => shown(&warnings),
            Err(problems) => refused(&problems),
        }
        return;
    }
    match load(&[SourceFile::new("rules.yaml", text)], Options::default()) {
        Ok(loaded) => {
            shown(&loaded.warnings);
            let public = loaded.rules.resources().iter().filter(|one| one.access == Access::Public);
            assert!(
                public.count() == 0 || text.contains("public") || text.contains('\\') || text.contains('!'),
                "{text}"
            );
        }
        Err(problems) => refused(&problems),
    }
}

fn refused(problems: &[Diagnostic]) {
    assert!(problems.iter().any(Diagnostic::is_error), "refused without a word");
    shown(problems);
}

fn shown(diagnostics: &[Diagnostic]) {
    // Rendering cuts the file at positions that the parser gave.
    let text = render_all(diagnostics, false);
    assert!(diagnostics.is_empty() || !text.is_empty());
}
