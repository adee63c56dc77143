//! An explanation as one HTML page: no script, nothing fetched, safe to mail around inside the company.

use std::fmt::Write as _;

use super::text::{age, evidence, not_asked, others, points};
use crate::{
    cli::revoke::when,
    wire::admin::{Explanation, Line},
};

const STYLE: &str = include_str!("page.css");

pub(super) fn page(answer: &Explanation) -> String {
    let mut page = String::new();
    let (kind, word) = match answer.verdict.as_str() {
        "allow" => ("allow", "Allowed"),
        "step-up" | "step_up" => ("step-up", "Step-up asked for"),
        _ => ("deny", "Refused"),
    };
    let request = format!("{} {}{}", escaped(&answer.method), escaped(&answer.host), escaped(&answer.path));
    add(
        &mut page,
        format_args!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{word}: {request}</title>\n<style>{STYLE}</style>\n<main>\n<header class=\"{kind}\"><p class=\"verdict\">{word}</p>\n\
         <h1>{request}</h1>\n<p>asked by {}</p></header>\n",
            escaped(&answer.subject)
        ),
    );
    add(&mut page, format_args!("<section><h2>Why?</h2><p class=\"why\">{}</p>\n", escaped(&answer.why)));
    if !answer.reason.is_empty() {
        add(
            &mut page,
            format_args!(
                "<p><small>reason <code>{}</code>, answered with {}</small></p>\n",
                escaped(&answer.reason),
                answer.status
            ),
        );
    }
    if !answer.remedies.is_empty() {
        let remedies = answer.remedies.iter().map(|remedy| format!("<li>{}</li>", escaped(remedy))).collect::<String>();
        add(&mut page, format_args!("<h2>What would help</h2><ul>{remedies}</ul>\n"));
    }
    add(&mut page, format_args!("</section>\n"));
    findings(&mut page, answer);
    factors(&mut page, answer);
    add(&mut page, format_args!("<div class=\"two\">\n"));
    score(
        &mut page,
        &format!("Risk {:.1} of 10, {}", answer.risk, escaped(&answer.risk_level)),
        answer.risk / 10.0,
        &answer.risk_lines,
    );
    score(
        &mut page,
        &format!("Trust {:.2} of 1, {}", answer.trust, escaped(&answer.trust_level)),
        answer.trust,
        &answer.trust_lines,
    );
    let time = answer.time.as_ref().map(when).unwrap_or_default();
    let when = if answer.recorded { format!("decided {time}") } else { format!("asked {time}, without effect") };
    add(
        &mut page,
        format_args!(
            "</div>\n<footer>{when} · decision {} · resource {} · policy {} · rules {}</footer>\n</main></html>\n",
            escaped(&answer.decision_id),
            named(&answer.resource),
            named(&answer.policy),
            named(&answer.rules_version)
        ),
    );
    page
}

fn findings(page: &mut String, answer: &Explanation) {
    if others(answer).next().is_none() {
        return;
    }
    add(page, format_args!("<section><h2>What else spoke against it</h2><table>\n"));
    for found in others(answer) {
        add(
            page,
            format_args!(
                "<tr><td>{}<br><small>{}</small></td><td><code>{}</code></td><td>{}</td></tr>\n",
                escaped(&found.message),
                escaped(&found.detail),
                escaped(&found.reason),
                named(&found.rule)
            ),
        );
    }
    add(page, format_args!("</table></section>\n"));
}

fn factors(page: &mut String, answer: &Explanation) {
    add(page, format_args!("<section><h2>What was known</h2><table>\n"));
    for factor in answer.factors.iter().filter(|factor| factor.state != "not_asked") {
        let state = factor.state.replace('_', " ");
        let class = if factor.counted_against { "against" } else { "" };
        add(
            page,
            format_args!(
                "<tr class=\"{class}\"><th>{}</th><td>{}</td><td>{}{}</td></tr>\n",
                escaped(&factor.name),
                escaped(&state),
                escaped(&factor.value),
                factor.age.as_ref().map(age).unwrap_or_default()
            ),
        );
    }
    if let Some(names) = not_asked(answer) {
        add(page, format_args!("<tr><th>not asked</th><td></td><td>{}</td></tr>\n", escaped(&names)));
    }
    add(page, format_args!("</table></section>\n"));
}

fn score(page: &mut String, title: &str, share: f64, lines: &[Line]) {
    add(
        page,
        format_args!(
            "<section><h2>{title}</h2><div class=\"bar\"><i style=\"width:{:.0}%\"></i></div><table>\n",
            (share * 100.0).clamp(0.0, 100.0)
        ),
    );
    for line in lines {
        add(
            page,
            format_args!(
                "<tr><td class=\"n\">{}</td><td>{}<br><small>{}</small></td></tr>\n",
                points(line.points),
                escaped(&line.name.replace('_', " ")),
                escaped(evidence(line))
            ),
        );
    }
    add(page, format_args!("</table></section>\n"));
}

fn add(page: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing into a `String` cannot fail.
    let _ = page.write_fmt(arguments);
}

fn named(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { format!("<code>{}</code>", escaped(text)) }
}

/// Everything here comes from requests and rules: none of it may become markup.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push('\u{FFFD}'),
            c => safe.push(c),
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::admin::{Factor, Finding};

    #[test]
    fn what_a_caller_sent_never_becomes_markup() {
        let evil = "<script>alert(1)</script>\"'\u{1b}";
        let text = || evil.to_owned();
        let finding = Finding { reason: text(), class: text(), rule: text(), message: text(), detail: text() };
        let factor = Factor { name: text(), state: text(), value: text(), ..Factor::default() };
        let line = Line { name: text(), evidence: text(), points: 1.0 };
        let answer = Explanation {
            subject: text(),
            method: text(),
            host: text(),
            path: text(),
            why: text(),
            remedies: vec![text()],
            resource: text(),
            policy: text(),
            rules_version: text(),
            decision_id: text(),
            risk_level: text(),
            findings: vec![finding],
            factors: vec![factor],
            risk_lines: vec![line.clone()],
            trust_lines: vec![line],
            ..Explanation::default()
        };
        let page = page(&answer);
        assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
        let text = super::super::text::render(&answer, false);
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
