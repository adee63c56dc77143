//! The threat model names tests; each of them must be run, and each row of the catalogue must name one or say `Accepted:`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashSet, fs, path::Path};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn model() -> String {
    fs::read_to_string(root().join("docs/threat-model.md")).unwrap()
}

/// Names of tests that a plain `cargo test` runs.
fn tests() -> HashSet<String> {
    let mut names = HashSet::new();
    for folder in ["src", "tests"] {
        collect(&root().join(folder), &mut names);
    }
    names
}

fn collect(folder: &Path, names: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(run_in(&fs::read_to_string(path).unwrap()));
        }
    }
}

/// Functions right below `#[test]`, without `#[ignore]` or `#[cfg]`.
fn run_in(text: &str) -> Vec<String> {
    let (mut names, mut attributes) = (Vec::new(), Vec::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if !line.starts_with("///") {
            let is = |start: &str| attributes.iter().any(|attribute: &&str| attribute.starts_with(start));
            let test = (is("#[test]") || is("#[tokio::test")) && !is("#[ignore") && !is("#[cfg");
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            names.extend(function.filter(|_| test).and_then(|rest| Some(rest.split('(').next()?.to_owned())));
            attributes.clear();
        }
    }
    names
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A row of the tables with numbers: its number and what stands under `test`.
fn rows(model: &str) -> impl Iterator<Item = (&str, &str)> {
    model.lines().filter_map(|line| {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let numbered = cells.starts_with(|c: char| c.is_ascii_uppercase()) && cells[1..].starts_with(char::is_numeric);
        let (number, rest) = cells.split_once(" | ").filter(|_| numbered)?;
        Some((number, rest.rsplit(" | ").next()?))
    })
}

#[test]
fn only_what_is_run_is_a_test() {
    let text = "#[test]\nfn a() {}\nfn b() {}\n#[test]\n#[ignore = \"no\"]\nfn c() {}\n#[tokio::test(x)]\n/// y\n\
                async fn d() {}\n#[cfg(z)]\n#[test]\nfn e() {}\n";
    assert_eq!(run_in(text), ["a", "d"]);
}

#[test]
fn every_test_and_file_that_the_threat_model_names_is_there() {
    let (model, tests) = (model(), tests());
    let is_name = |least: usize| {
        move |word: &&str| {
            word.matches('_').count() >= least
                && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        }
    };
    let settings = ["path_with_escaped_slashes_action"];
    let under_test = rows(&model).flat_map(|(_, test)| quoted(test).filter(is_name(2)));
    let named = quoted(&model).filter(is_name(3)).filter(|name| !settings.contains(name));
    let names: HashSet<&str> = under_test.chain(named).collect();
    assert!(names.len() > 200, "the test reads the tables: {names:?}");
    let gone: Vec<_> = names.into_iter().filter(|name| !tests.contains(*name)).collect();
    assert!(gone.is_empty(), "no such tests: {gone:#?}");
    let is_file = |word: &&str| (word.starts_with("tests/") || word.starts_with("src/")) && !word.contains(' ');
    let gone: Vec<_> = quoted(&model).filter(is_file).filter(|file| !root().join(file).exists()).collect();
    assert!(gone.is_empty(), "no such files: {gone:#?}");
}

#[test]
fn every_row_of_the_catalogue_has_a_test_or_is_accepted() {
    let (model, tests) = (model(), tests());
    let catalogue = [("J", 30), ("H", 14), ("P", 15), ("D", 9), ("R", 12), ("C", 10), ("E", 10), ("S", 14), ("T", 22)];
    for (kind, last) in catalogue {
        for number in (1..=last).map(|number| format!("{kind}{number}")) {
            assert_eq!(rows(&model).filter(|(row, _)| *row == number).count(), 1, "{number} has one row");
        }
    }
    for (row, test) in rows(&model) {
        let named = quoted(test).any(|name| tests.contains(name) || name.ends_with(".sh"));
        assert!(named || test.contains("Accepted: "), "{row} has no test and is not accepted: {test}");
    }
    for line in model.lines().filter(|line| rows(line).next().is_some()) {
        assert_eq!(line.replace("\\|", "").matches('|').count(), 5, "four columns: {line}");
    }
}
