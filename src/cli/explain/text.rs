//! An explanation on a terminal: the answer first, then what it rests on.

use std::fmt::Write as _;

use crate::{
    cli::revoke::{printable, when},
    wire::admin::{Explanation, Finding, Line},
};

const WIDTH: usize = 96;

pub(super) fn render(answer: &Explanation, colour: bool) -> String {
    let mut text = String::new();
    head(&mut text, answer);
    remedies(&mut text, answer);
    findings(&mut text, answer);
    factors(&mut text, answer);
    scores(&mut text, answer);
    foot(&mut text, answer);
    // Whatever callers and rules brought along, a terminal sees no control character of theirs.
    let text: String = text.split_inclusive('\n').map(clean).collect();
    if colour { coloured(&text, &answer.verdict) } else { text }
}

fn clean(line: &str) -> String {
    line.strip_suffix('\n').map_or_else(|| printable(line), |line| format!("{}\n", printable(line)))
}

fn coloured(text: &str, verdict: &str) -> String {
    let code = match verdict {
        "allow" => "1;32",
        "step-up" | "step_up" => "1;33",
        _ => "1;31",
    };
    let (word, rest) = text.split_at(text.find(' ').unwrap_or_default());
    format!("\u{1b}[{code}m{word}\u{1b}[0m{rest}")
}

fn head(text: &mut String, answer: &Explanation) {
    let verdict = answer.verdict.replace('_', "-").to_uppercase();
    let (method, host, path) = (shown(&answer.method), &answer.host, &answer.path);
    line(text, format_args!("{verdict}  {method} {host}{path}  (answered {})", answer.status));
    if !answer.subject.is_empty() {
        line(text, format_args!("        asked by {}", answer.subject));
    }
    line(text, format_args!("\nWhy?"));
    wrapped(text, "  ", "  ", &answer.why);
    if !answer.reason.is_empty() {
        line(text, format_args!("  reason: {}", answer.reason));
    }
}

/// What spoke against the request beside what answered.
pub(super) fn others(answer: &Explanation) -> impl Iterator<Item = &Finding> {
    let first = answer.findings.iter().position(|finding| finding.reason == answer.reason);
    answer.findings.iter().enumerate().filter(move |(at, _)| Some(*at) != first).map(|(_, finding)| finding)
}

fn findings(text: &mut String, answer: &Explanation) {
    if others(answer).next().is_none() {
        return;
    }
    line(text, format_args!("\nWhat else spoke against it"));
    for finding in others(answer) {
        let mut words = finding.message.trim_end_matches('.').to_owned();
        if !finding.detail.is_empty() {
            // Writing into a `String` cannot fail.
            let _ = write!(words, ": {}", finding.detail);
        }
        let rule = if finding.rule.is_empty() { String::new() } else { format!(", rule `{}`", finding.rule) };
        let _ = write!(words, "  [{}{rule}]", finding.reason);
        wrapped(text, "  - ", "    ", &words);
    }
}

fn remedies(text: &mut String, answer: &Explanation) {
    if answer.remedies.is_empty() {
        return;
    }
    line(text, format_args!("\nWhat would help"));
    for remedy in &answer.remedies {
        wrapped(text, "  - ", "    ", remedy);
    }
}

fn factors(text: &mut String, answer: &Explanation) {
    line(text, format_args!("\nWhat was known"));
    for factor in answer.factors.iter().filter(|factor| factor.state != "not_asked") {
        let age = factor.age.as_ref().map(age).unwrap_or_default();
        let value = match factor.state.as_str() {
            "known" => factor.value.clone(),
            "absent" => format!("nothing there {}", factor.value),
            _ if factor.value.is_empty() => "could not be looked up".to_owned(),
            _ => format!("could not be looked up: {}", factor.value),
        };
        let mark = if factor.counted_against { "!" } else { " " };
        wrapped(text, &format!("{mark} {:<12}", factor.name), &" ".repeat(14), &format!("{value}{age}"));
    }
    if let Some(names) = not_asked(answer) {
        wrapped(text, "  not asked   ", &" ".repeat(14), &names);
    }
}

/// Facts that nothing asked for: no rule of this request reads them, or that part is not configured.
pub(super) fn not_asked(answer: &Explanation) -> Option<String> {
    let names: Vec<&str> =
        answer.factors.iter().filter(|factor| factor.state == "not_asked").map(|factor| factor.name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Points as they read well: a zero has no sign.
pub(super) fn points(points: f64) -> String {
    if points.abs() < 0.005 { "0.00".to_owned() } else { format!("{points:+.2}") }
}

/// What stands behind a line, unless that is no more than that it was seen.
pub(super) fn evidence(line: &Line) -> &str {
    if line.evidence == "seen" { "" } else { &line.evidence }
}

fn scores(text: &mut String, answer: &Explanation) {
    if answer.risk_lines.is_empty() && answer.trust_lines.is_empty() {
        return;
    }
    line(text, format_args!("\nRisk   {:.1} of 10 ({})", answer.risk, answer.risk_level));
    lines(text, &answer.risk_lines);
    line(text, format_args!("Trust  {:.2} of 1 ({})", answer.trust, answer.trust_level));
    lines(text, &answer.trust_lines);
}

fn lines(text: &mut String, lines: &[Line]) {
    for entry in lines {
        let name = entry.name.replace('_', " ");
        let row = format!("  {:>6}  {name:<26} {}", points(entry.points), evidence(entry));
        line(text, format_args!("{}", row.trim_end()));
    }
}

fn foot(text: &mut String, answer: &Explanation) {
    let mut parts = Vec::new();
    for (name, value) in [("resource", &answer.resource), ("policy", &answer.policy), ("rules", &answer.rules_version)]
    {
        if !value.is_empty() {
            parts.push(format!("{name} {value}"));
        }
    }
    if answer.verdict == "allow" && !answer.restrictions.is_empty() {
        parts.push(format!("restrictions {}", answer.restrictions.join(", ")));
    }
    let time = answer.time.as_ref().map(when).unwrap_or_default();
    let when = if answer.recorded { format!("decided {time}") } else { "decided just now, without effect".to_owned() };
    line(text, format_args!("\n{}\n{when}, decision {}", parts.join(" · "), answer.decision_id));
}

fn shown(method: &str) -> &str {
    if method.is_empty() { "connection to" } else { method }
}

/// `, 3 s old`; nothing for what is of this very moment.
pub(super) fn age(age: &prost_types::Duration) -> String {
    match (age.seconds, age.nanos / 1_000_000) {
        (0, 0) => String::new(),
        (0, millis) => format!("  ({millis} ms old)"),
        (seconds, _) if seconds < 180 => format!("  ({seconds} s old)"),
        (seconds, _) => format!("  ({} min old)", seconds / 60),
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing into a `String` cannot fail.
    let _ = writeln!(text, "{arguments}");
}

/// `words` behind `first`, broken at spaces, continued behind `next`.
fn wrapped(text: &mut String, first: &str, next: &str, words: &str) {
    let mut row = first.to_owned();
    let mut empty = true;
    for word in words.split(' ') {
        if !empty && row.chars().count() + 1 + word.chars().count() > WIDTH {
            line(text, format_args!("{}", row.trim_end()));
            next.clone_into(&mut row);
            empty = true;
        }
        if !empty {
            row.push(' ');
        }
        row.push_str(word);
        empty = false;
    }
    line(text, format_args!("{}", row.trim_end()));
}
