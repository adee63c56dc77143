//! The threat model names tests; each of them must be there, and each row of J, H, P, D, R, C, E and S must be in it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashSet, fs, path::Path};

fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_and_file_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let mut text = String::new();
    sources(&root.join("src"), &mut text);
    sources(&root.join("tests"), &mut text);
    let functions: HashSet<&str> = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next()).collect();
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3
            && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
    };
    let is_file = |word: &&str| (word.starts_with("tests/") || word.starts_with("src/")) && !word.contains(' ');
    let settings = ["path_with_escaped_slashes_action"];
    let names: Vec<&str> = quoted(&model).filter(is_name).filter(|name| !settings.contains(name)).collect();
    assert!(names.len() > 40, "the test reads the table: {names:?}");
    let gone: Vec<_> = names.into_iter().filter(|name| !functions.contains(name)).collect();
    assert!(gone.is_empty(), "no such tests: {gone:#?}");
    let gone: Vec<_> = quoted(&model).filter(is_file).filter(|file| !root.join(file).exists()).collect();
    assert!(gone.is_empty(), "no such files: {gone:#?}");
}

#[test]
fn every_row_of_the_catalogue_has_a_test_or_a_sentence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let catalogue = [("J", 30), ("H", 14), ("P", 15), ("D", 9), ("R", 12), ("C", 10), ("E", 10), ("S", 14)];
    let rows = catalogue.iter().flat_map(|(kind, last)| (1..=*last).map(move |n| format!("| {kind}{n} |")));
    for row in rows {
        let line = model.lines().find(|line| line.starts_with(&row)).unwrap_or_default();
        assert_eq!(line.matches('|').count(), 5, "{row} has four columns");
        let test = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let named = quoted(test).next().is_some();
        let says = ["accepted", "Accepted", "as ", "As ", "none", "review", "advisories"]
            .iter()
            .any(|word| test.contains(word));
        assert!(named || says, "{row} has no test and no sentence: {test}");
    }
}
