//! What the tests of several files here are made with.

use std::{fs, path::PathBuf, time::Duration};

use tempfile::TempDir;

use super::{AdminRecord, AuditRecord, Recorded, Settings, Sink};
use crate::{
    clock::Clock,
    decision::{Decision, Reason, Verdict},
    domain::{DecisionId, Facts, UnixTime},
};

pub(super) fn settings(directory: &TempDir) -> Settings {
    Settings {
        sink: Sink::File,
        directory: Some(directory.path().into()),
        instance: Some("one".into()),
        checkpoint_records: 4,
        key: Some(directory.path().join("audit.key")),
        ..Settings::default()
    }
}

pub(super) fn clock() -> Clock {
    Clock::manual(UnixTime::from_secs(1_800_000_000))
}

pub(super) fn write(number: u32) -> AdminRecord {
    AdminRecord {
        at: UnixTime::from_secs(1_800_000_000),
        actor: "ops".into(),
        peer: None,
        action: "revoke".into(),
        target: format!("device:{number}"),
        outcome: "done".into(),
        detail: None,
    }
}

/// Facts of every kind.
pub(super) fn facts() -> Facts {
    Recorded::parse(include_str!("../../../tests/audit/before.jsonl")).unwrap().unwrap().facts
}

/// The record of a decision on all facts.
pub(super) fn decision(number: u128, millis: u64, verdict: Verdict) -> AuditRecord {
    let mut facts = facts();
    (facts.request.id, facts.now) = (DecisionId::new(millis, number), UnixTime::from_millis(millis));
    let decision = Box::new(Decision { verdict, ..*Decision::refusal(Reason::NoMatchingResource) });
    AuditRecord { decision, ..refusal(facts) }
}

pub(super) fn refusal(facts: Facts) -> AuditRecord {
    AuditRecord {
        facts: Box::new(facts),
        decision: Decision::refusal(Reason::NoMatchingResource),
        rules: "v".into(),
        latency: Duration::from_micros(10),
        trace_id: None,
        detail: None,
        risk: None,
        shadow: None,
    }
}

pub(super) fn files(settings: &Settings) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(settings.directory.as_ref().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    files
}
