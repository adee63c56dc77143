use countersign::{
    decision::cases,
    domain::RiskModel,
    policy::{Options, SourceFile, load},
};

use crate::rules_files::folder;

fn run(name: &str) -> cases::Report {
    let files = folder(name);
    let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
    let rules = load(&files, options).unwrap().rules;
    cases::run(&files, &rules).unwrap()
}

#[test]
fn golden_cases_come_out_as_written() {
    for (name, at_least) in [("three", 35), ("sessions", 18)] {
        let report = run(name);
        assert!(report.results.len() >= at_least);
        let failed: Vec<_> = report.results.iter().filter(|result| !result.passed()).collect();
        for result in &failed {
            eprintln!("{}: {}: {}\n    {}", result.at, result.name, result.outcome, result.differences.join("\n    "));
        }
        assert!(failed.is_empty(), "{} of {}", failed.len(), report.results.len());
        assert!(report.all_passed());
    }
}

#[test]
fn a_case_that_does_not_hold_says_how() {
    let rules = load(&[], Options::default()).unwrap().rules;
    let text = "cases:\n  - name: wrong\n    expect: { verdict: allow, status: 200 }\n";
    let report = cases::run(&[SourceFile::new("x.yaml", text)], &rules).unwrap();
    assert_eq!(report.failures(), 1);
    assert_eq!(report.results[0].outcome, "deny: no_matching_resource");
    assert_eq!(report.results[0].differences, ["verdict: expected allow, got deny", "status: expected 200, got 403"]);
}

#[test]
fn cases_that_cannot_be_read_are_refused_with_their_lines() {
    let rules = load(&[], Options::default()).unwrap().rules;
    let text = "\
given: { devise: none, session: }
cases:
  - expect: { verdict: allow }
  - name: b
  - { name: c, revoked: perhaps, expect: { verdict: maybe } }
  - { name: e, place: , expect: { verdict: allow } }
  - { name: d, caller: { rols: [] }, expect: { verdict: deny, reason: because } }
";
    let found = cases::run(&[SourceFile::new("x.yaml", text)], &rules).unwrap_err();
    let told: Vec<_> = found.iter().map(ToString::to_string).collect();
    let starts = [
        "x.yaml:1:10: error: given: unknown key `devise` (help: did you mean `device`?)",
        "x.yaml:1:24: error: given.session: nothing stands after it",
        "x.yaml:3:5: error: cases[0]: a case needs `name`",
        "x.yaml:4:5: error: cases[1]: a case needs `expect`",
        "x.yaml:5:25: error: cases[2].revoked: expected one of `no`, `token`",
        "x.yaml:5:53: error: cases[2].expect.verdict: `maybe` is not one of",
        "x.yaml:6:16: error: cases[3].place: nothing stands after it",
        "x.yaml:7:26: error: cases[4].caller.rols: unknown key `rols` (help: did you mean `roles`?)",
        "x.yaml:7:71: error: cases[4].expect.reason: `because` is not one of",
    ];
    for start in starts {
        assert!(told.iter().any(|one| one.starts_with(start)), "{start}\n{told:#?}");
    }
}

#[test]
fn a_case_that_says_no_session_is_the_first_request_of_one() {
    let rules = "resources: [{ id: me, match: { paths: ['/me'] }, access: authenticated }]";
    let rules = load(&[SourceFile::new("rules.yaml", rules)], Options::default()).unwrap().rules;
    let abroad = "request: { path: /me }\n    place: { country: FR, unusual: true }";
    for (session, verdict, reason) in [
        ("", "step_up", ", reason: mfa_required"),
        ("session: none", "step_up", ", reason: mfa_required"),
        ("session: not_asked", "allow", ""),
    ] {
        let expected = format!("expect: {{ verdict: {verdict}{reason} }}");
        let text = format!("cases:\n  - name: abroad\n    {abroad}\n    {session}\n    {expected}\n");
        let report = cases::run(&[SourceFile::new("x.yaml", text.as_str())], &rules).unwrap();
        assert_eq!(report.results[0].differences, Vec::<String>::new(), "{session}: {}", report.results[0].outcome);
    }
}
