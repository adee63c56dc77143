//! Cases beside the rules: facts in, verdict and reasons out. What `countersign policy test DIR` runs.
//!
//! A file of cases is YAML with a `cases:` list; what every case of the file shares stands under `given:`. Each section
//! (`request`, `caller`, `device`, …) of a case replaces the one of `given` whole. Pure: nothing is opened, nothing granted.

mod expect;
mod facts;
mod shape;

use std::sync::Arc;

use serde::Serialize;

use super::{Decision, decide};
use crate::{
    document::{Diagnostic, Document, Mark, Node, Problem, Value, closest},
    domain::Facts,
    policy::{OF_CASES, Rules, SourceFile},
};

/// What became of every case, in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub results: Vec<CaseResult>,
}

impl Report {
    pub fn failures(&self) -> usize {
        self.results.iter().filter(|result| !result.passed()).count()
    }

    pub fn all_passed(&self) -> bool {
        self.failures() == 0
    }
}

/// One case, what was decided, and where that differs from what was expected.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    pub name: Arc<str>,
    #[serde(skip)]
    pub at: Mark,
    /// `allow`, or `deny: token_revoked (rule)`.
    pub outcome: String,
    /// One line for each expectation that was not met; empty: passed.
    pub differences: Vec<String>,
    pub decision: Decision,
}

impl CaseResult {
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

const SECTIONS: [&str; 12] = [
    "name", "request", "caller", "proof", "workload", "revoked", "device", "place", "behavior", "session", "quota",
    "expect",
];

/// Runs the cases of all `files` that hold some.
///
/// # Errors
///
/// Every problem of the files: sections and values that are not understood, cases that expect nothing.
pub fn run(files: &[SourceFile], rules: &Rules) -> Result<Report, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let mut report = Report::default();
    for file in files.iter().filter(|file| file.is_yaml()) {
        let Ok(document) = Document::parse(file.name.clone(), file.text.clone()) else { continue };
        let Some(cases) = document.root.get("cases") else { continue };
        unknown_keys(&document.root, "", &OF_CASES, &mut problems);
        // What is left blank would be known, and ordinary.
        problems.extend(document.root.gaps(""));
        let given = document.root.get("given");
        if !matches!(cases.value, Value::List(_)) {
            problems
                .push(cases.diagnose("cases", Problem::error("", format!("expected a list, found {}", cases.kind()))));
        }
        for (i, node) in cases.items().iter().enumerate() {
            let case = Case { node, given, path: format!("cases[{i}]") };
            report.results.extend(case.run(rules, &mut problems));
        }
    }
    if problems.is_empty() {
        return Ok(report);
    }
    Diagnostic::sort(&mut problems);
    Err(problems)
}

fn unknown_keys(node: &Node, path: &str, known: &[&str], problems: &mut Vec<Diagnostic>) {
    for entry in node.entries().iter().filter(|entry| !known.contains(&&*entry.key)) {
        let hint = closest(&entry.key, known.iter().copied())
            .map_or_else(|| format!("known here: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
        let message = format!("unknown key `{}`", entry.key);
        problems.push(Diagnostic::error(entry.key_at.clone(), path, message).hint(hint));
    }
}

/// One case as it is written, over what the file gives.
struct Case<'d> {
    node: &'d Node,
    given: Option<&'d Node>,
    path: String,
}

impl<'d> Case<'d> {
    fn section(&self, name: &str) -> Option<&'d Node> {
        self.node.get(name).or_else(|| self.given?.get(name))
    }

    fn run(&self, rules: &Rules, problems: &mut Vec<Diagnostic>) -> Option<CaseResult> {
        let before = problems.len();
        unknown_keys(self.node, &self.path, &SECTIONS, problems);
        if let Some(given) = self.given {
            unknown_keys(given, "given", &SECTIONS, problems);
        }
        let name = self.node.get("name").and_then(Node::text);
        let expected = self.section("expect");
        for (key, there) in [("name", name.is_some()), ("expect", expected.is_some())] {
            if !there {
                let message = format!("a case needs `{key}`");
                problems.push(self.node.diagnose(&self.path, Problem::error("", message)));
            }
        }
        let facts = self.facts(problems);
        let expected: Option<expect::Expect> =
            expected.and_then(|node| node.read_into(&format!("{}.expect", self.path), problems));
        let (name, expected) = (name?, expected?);
        if problems.len() > before {
            return None;
        }
        let decision = decide(&facts, rules);
        let differences = expect::differences(&expected, &decision);
        let outcome = expect::outcome(&decision);
        Some(CaseResult { name: name.into(), at: self.node.at.clone(), outcome, differences, decision })
    }

    fn facts(&self, problems: &mut Vec<Diagnostic>) -> Facts {
        let mut reader = facts::Reader { path: &self.path, problems };
        reader.facts(|name| self.section(name))
    }
}
