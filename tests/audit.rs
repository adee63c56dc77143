//! Records of decisions, end to end: written, verified, explained, replayed; and what must never stand in them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(dead_code, reason = "the decision's tests share their world")]

#[path = "decision/world.rs"]
mod world;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use countersign::{
    clock::Clock,
    decision::{Decision, Reason, decide},
    domain::{
        AuthMethod, Credential, DeviceRecord, Fact, Facts, Place, Revocation, RevocationKind, Unavailable,
        metric::{Page, Source, Value},
        path::PathProblem,
    },
    policy::{RuleSet, Rules},
    replay::Report,
    telemetry::{
        audit::{AuditRecord, Auditor, ProblemKind, Recorded, Settings, Sink, fingerprint, verify},
        shadow::Shadows,
    },
};
use tempfile::TempDir;
use world::{NOW, facts, fixed, known, laptop, methods, shop, sighting, with_identity};

/// Stands for a token's id: if it is found anywhere, somebody could revoke or recognise the token.
const CANARY: &str = "canary-jti-7f3a";

fn settings(folder: &TempDir) -> Settings {
    Settings {
        sink: Sink::File,
        directory: Some(folder.path().into()),
        instance: Some("test".into()),
        ..Settings::default()
    }
}

fn record(facts: Facts, rules: &Rules) -> AuditRecord {
    AuditRecord {
        decision: Box::new(decide(&facts, rules)),
        facts: Box::new(facts),
        rules: Arc::clone(rules.version()),
        latency: Duration::from_micros(42),
        trace_id: Some(0xabc),
        detail: None,
        risk: None,
        shadow: None,
    }
}

/// Facts of every kind of outcome.
fn cases() -> Vec<Facts> {
    let changed = |change: fn(&mut Facts)| {
        let mut facts = facts("GET", "/orders/7");
        with_identity(&mut facts, |identity| identity.token_id = CANARY.into());
        change(&mut facts);
        facts
    };
    vec![
        changed(|_| ()),
        changed(|facts| facts.revocation = known(Revocation::Revoked(RevocationKind::Session))),
        changed(|facts| facts.revocation = Fact::Unavailable(Unavailable::Store)),
        changed(|facts| facts.device = Fact::Absent),
        changed(|facts| facts.device = known(sighting(DeviceRecord { compliant: Some(false), ..laptop() }))),
        changed(|facts| with_identity(facts, |identity| identity.methods = methods(&[AuthMethod::Password]))),
        changed(|facts| facts.credential = Fact::Absent),
        changed(|facts| {
            facts.place = known(Place {
                country: Some("FR".into()),
                position: Some((48.856_613, 2.352_222)),
                unusual: true,
                allowed: true,
                ..Place::default()
            });
        }),
        facts("GET", "/public/logo.png"),
        facts("DELETE", "/orders/7"),
        facts("GET", "/a/../b"),
    ]
}

fn written(settings: &Settings, records: Vec<AuditRecord>) -> (PathBuf, String) {
    let auditor = Auditor::start(settings, Clock::system()).unwrap();
    records.into_iter().for_each(|record| auditor.record(record));
    auditor.close();
    let folder = settings.directory.as_ref().unwrap();
    let file = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    (file, text)
}

fn recorded(text: &str) -> Vec<Recorded> {
    text.lines().filter_map(|line| Recorded::parse(line).unwrap()).collect()
}

#[test]
fn a_record_holds_everything_that_was_judged_and_judges_the_same_again() {
    let folder = TempDir::new().unwrap();
    let rules = fixed(shop());
    let (file, text) = written(&settings(&folder), cases().into_iter().map(|facts| record(facts, &rules)).collect());
    assert_eq!(verify(&[file], None).unwrap().problem, None);
    let read = recorded(&text);
    assert_eq!(read.len(), cases().len());
    for (read, mut facts) in read.into_iter().zip(cases()) {
        let decision = decide(&read.facts, &rules);
        assert_eq!((decision.verdict, decision.reason), {
            let live = decide(&facts, &rules);
            (live.verdict, live.reason)
        });
        assert_eq!(read.reason, decision.reason);
        assert_eq!(read.latency_us, 42);
        if let Some(identity) = facts.identity() {
            let hidden = fingerprint(identity.token_id.as_str());
            with_identity(&mut facts, |identity| identity.token_id = hidden.into());
        }
        assert_eq!(read.facts, facts);
    }
}

#[test]
fn no_record_log_or_explanation_holds_a_tokens_id() {
    let folder = TempDir::new().unwrap();
    let rules = fixed(shop());
    let settings = settings(&folder);
    let auditor = Auditor::start(&settings, Clock::system()).unwrap();
    let id = cases()[1].request.id;
    auditor.record(record(cases()[1].clone(), &rules));
    assert!(auditor.flush());
    let kept = auditor.recent(id).unwrap();
    let explained = kept.explanation();
    auditor.close();
    let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    for text in [
        fs::read_to_string(file).unwrap(),
        explained.to_string(),
        serde_json::to_string(&explained).unwrap(),
        format!("{kept:?}"),
        format!("{:?}", auditor.recent_refusals(10)),
    ] {
        assert!(!text.contains(CANARY), "{text}");
    }
    assert_eq!(auditor.recent_refusals(10).len(), 1);
}

#[test]
fn an_explanation_answers_why_and_reads_the_same_from_the_record() {
    let folder = TempDir::new().unwrap();
    let rules = fixed(shop());
    let records: Vec<_> = cases().into_iter().map(|facts| record(facts, &rules)).collect();
    let live: Vec<_> = records.iter().map(AuditRecord::explanation).collect();
    let (_, text) = written(&settings(&folder), records);
    for (live, read) in live.iter().zip(recorded(&text)) {
        let mut from_record = read.explanation();
        assert!(!live.to_string().is_empty());
        from_record.remedy.clone_from(&live.remedy);
        assert_eq!(live.to_string(), from_record.to_string());
    }
    let text = live[4].to_string();
    for words in [
        "DENY  GET shop.example/orders/7  (answered 403)",
        "rule         untrusted_device",
        "ada of https://issuer.example (a person), authenticated by password, mfa_totp 60 s ago",
        "the device is not compliant",
        "not revoked (from revocation list, just now)",
        "place        not asked",
    ] {
        assert!(text.contains(words), "`{words}` is not in\n{text}");
    }
}

/// A line of the time when what was false, null or followed from the facts was written out.
#[test]
fn an_older_line_reads_as_a_newer_one_does() {
    let line = include_str!("audit/before.jsonl");
    let old = Recorded::parse(line).unwrap().unwrap();
    let facts = serde_json::to_string(&old.facts).unwrap();
    for left_out in ["\"encrypted\":false", "null", "\"evidence\""] {
        assert!(line.contains(left_out) && !facts.contains(left_out), "`{left_out}` is in {facts}");
    }
    assert_eq!(serde_json::from_str::<Facts>(&facts).unwrap(), old.facts);

    let mut new: serde_json::Value = serde_json::from_str(line).unwrap();
    new["facts"] = serde_json::from_str(&facts).unwrap();
    new.as_object_mut().unwrap().remove("findings");
    for score in ["risk", "trust"] {
        for line in new[score]["lines"].as_array_mut().unwrap() {
            line.as_object_mut().unwrap().remove("evidence");
        }
    }
    let new = Recorded::parse(&new.to_string()).unwrap().unwrap();
    assert_eq!(new.explanation(), old.explanation());
}

/// What a container's runtime keeps of a server that writes records to one output and its log to the other.
#[test]
fn lines_of_the_log_among_records_are_passed_over_and_hide_nothing() {
    let folder = TempDir::new().unwrap();
    let rules = fixed(shop());
    let (file, text) = written(&settings(&folder), cases().into_iter().map(|facts| record(facts, &rules)).collect());
    let log = r#"{"time":"2026-11-28T17:38:32.839Z","level":"warn","message":"slow","target":"countersign"}"#;
    let text_beside = "countersign.yaml:3:15: warning: store.url: `memory://` forgets every revocation";
    let records: Vec<_> = text.lines().collect();
    let mixed = |without: &[usize]| {
        let kept = records.iter().enumerate().filter(|(at, _)| !without.contains(at));
        fs::write(&file, kept.map(|(_, line)| format!("{log}\n{text_beside}\n{line}\n")).collect::<String>()).unwrap();
        verify(std::slice::from_ref(&file), None).unwrap()
    };
    let report = mixed(&[]);
    assert_eq!((report.problem, report.of_log), (None, 2 * records.len()));
    let mut replayed = Report::new(&rules);
    replayed.read(&rules, fs::read(&file).unwrap().as_slice(), |_| ()).unwrap();
    assert_eq!((replayed.decisions, replayed.unreadable.len()), (cases().len() as u64, 0));

    // A record that was taken out is missed, log or no log; and what only looks like the log is none.
    let problem = mixed(&[2]).problem.map(|problem| problem.kind);
    assert_eq!(problem, Some(ProblemKind::Removed { first: 3, last: 3 }));
    for octet in ["x", "\u{7f}"] {
        fs::write(&file, text.replacen("\n{", &format!("\n{octet}"), 1)).unwrap();
        assert_eq!(verify(std::slice::from_ref(&file), None).unwrap().problem.map(|problem| problem.line), Some(2));
    }
    let disguised = text.replacen("\"kind\":\"decision\",", "\"level\":\"info\",", 1);
    fs::write(&file, disguised).unwrap();
    assert_eq!(verify(&[file], None).unwrap().problem.map(|problem| problem.line), Some(2));
}

#[test]
fn replay_counts_flips_by_route_and_rule() {
    let folder = TempDir::new().unwrap();
    let rules = fixed(shop());
    let (_, text) = written(&settings(&folder), cases().into_iter().map(|facts| record(facts, &rules)).collect());

    let mut same = Report::new(&rules);
    same.read(&rules, text.as_bytes(), |_| ()).unwrap();
    assert_eq!((same.decisions, same.flipped, same.reason_changed), (cases().len() as u64, 0, 0));

    let without_guards = RuleSet { guards: Vec::new(), ..shop() };
    let candidate = fixed(without_guards);
    let mut report = Report::new(&candidate);
    let torn = &text[..text.len() - 30];
    let text = format!("{}\n{{not json\n{torn}", torn.lines().next().unwrap());
    report.read(&candidate, text.as_bytes(), |_| ()).unwrap();
    assert_eq!(report.unreadable.len(), 1);
    assert!(report.flipped > 0, "{report}");
    assert_eq!(report.by_route["orders"].values().sum::<u64>(), report.flipped);
    assert!(report.by_rule.contains_key("untrusted_device"), "{report}");
    assert!(report.to_string().contains("deny → allow"), "{report}");
}

#[test]
fn refusals_that_no_rules_made_are_no_flips_for_replay() {
    let folder = TempDir::new().unwrap();
    let rules = fixed(shop());
    let refused = |reason, change: fn(&mut Facts)| {
        let mut facts = facts("GET", "/orders/7");
        change(&mut facts);
        AuditRecord { decision: Decision::refusal(reason), ..record(facts, &rules) }
    };
    let records = vec![
        record(facts("GET", "/orders/7"), &rules),
        refused(Reason::AuditUnavailable, |_| ()),
        refused(Reason::CredentialsUnknown, |facts| facts.request.path = Err(PathProblem::Unreadable)),
    ];
    let (_, text) = written(&settings(&folder), records);
    let mut report = Report::new(&rules);
    report.read(&rules, text.as_bytes(), |_| ()).unwrap();
    let Report { decisions, same, reason_changed, flipped, not_judged, .. } = report;
    assert_eq!((decisions, same, reason_changed, flipped, not_judged), (1, 1, 0, 0, 2));
}

#[test]
fn shadow_rules_are_counted_and_noted_where_they_differ() {
    let live_rules = fixed(shop());
    let numbers = Shadows::default();
    numbers.take_up(fixed(RuleSet { guards: Vec::new(), ..shop() }));
    let noted: Vec<_> = cases().iter().filter_map(|facts| numbers.judge(&record(facts.clone(), &live_rules))).collect();
    assert!(!noted.is_empty() && noted.iter().any(|shadow| shadow.verdict == "allow"));
    let mut page = Page::default();
    numbers.collect(&mut page);
    let family = page.families().iter().find(|family| family.name == "countersign_shadow_decisions").unwrap();
    let total: u64 = family
        .samples
        .iter()
        .map(|sample| match sample.value {
            Value::Counter(count) => count,
            _ => 0,
        })
        .sum();
    assert_eq!(total, cases().len() as u64);
}

#[test]
fn hostile_text_in_a_request_stays_inside_its_member() {
    let folder = TempDir::new().unwrap();
    let rules = fixed(shop());
    let hostile = "eve\r\n{\"kind\":\"decision\",\"verdict\":\"allow\"}\u{1b}[2K\u{202e}\",\"hash\":\"";
    let mut facts = facts("GET", "/orders/7");
    with_identity(&mut facts, |identity| identity.subject = hostile.into());
    facts.request.path = Ok(hostile.into());
    facts.request.host = hostile.into();
    let (file, text) = written(&settings(&folder), vec![record(facts, &rules)]);
    assert_eq!(text.lines().count(), 3);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
    assert_eq!(verify(&[file], None).unwrap().problem, None);
    let read = recorded(&text);
    assert!(matches!(&read[0].facts.credential, Fact::Known { value: Credential::Verified { identity, .. }, .. }
        if identity.subject.as_str() == hostile));
    let explained = read[0].explanation().to_string();
    assert!(!explained.contains(['\r', '\u{1b}', '\u{202e}']), "{explained:?}");
    assert_eq!(read[0].facts.now, NOW);
}

/// Prints what formatting and handing over costs the thread that made a record, and what a record costs in all:
/// `cargo test --release --test audit -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure_the_hand_off_and_the_writer() {
    const COUNT: u32 = 10_000;
    let folder = TempDir::new().unwrap();
    let rules = fixed(shop());
    let known = Recorded::parse(include_str!("audit/before.jsonl")).unwrap().unwrap().facts;
    let owner = known.identity().unwrap().subject.clone();
    let Facts { notice, device, place, behavior, session, .. } = known;
    let mut full = Facts { notice, device, place, behavior, session, ..facts("GET", "/orders/7") };
    with_identity(&mut full, |identity| identity.subject = owner);
    let records: Vec<_> = (0..COUNT).map(|_| record(full.clone(), &rules)).collect();
    let before = cpu();
    let auditor = Auditor::start(&settings(&folder), Clock::system()).unwrap();
    let begun = Instant::now();
    records.into_iter().for_each(|record| auditor.record(record));
    let handed = begun.elapsed();
    assert!(auditor.flush());
    let (written, used) = (begun.elapsed(), cpu() - before);
    auditor.close();
    let octets: u64 = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    println!(
        "formatted and handed over in {:?}, written in {:?}, {:?} of CPU, {} octets a record",
        handed / COUNT,
        written / COUNT,
        used / COUNT,
        octets / u64::from(COUNT)
    );
}

/// What the threads of this process have used.
fn cpu() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let used = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap());
    Duration::from_nanos(used.map(|used| used.split(' ').next().unwrap().parse::<u64>().unwrap()).sum())
}

/// `countersign … | head`: who has read enough closes the pipe.
#[test]
fn a_reader_who_goes_away_ends_a_command_quietly() {
    let folder = TempDir::new().unwrap();
    let (file, _) = written(&settings(&folder), Vec::new());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    let ended = command.args(["audit", "verify"]).arg(file).stdout(writer).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(128 + 13), "as a shell tells of SIGPIPE");
}
