//! A process that is killed while it writes leaves a chain that verifies.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use countersign::{
    clock::Clock,
    domain::UnixTime,
    telemetry::audit::{AdminRecord, Auditor, Settings, Sink, verify},
};
use tempfile::TempDir;

const FOLDER: &str = "COUNTERSIGN_TEST_AUDIT_FOLDER";

/// The process that is killed: records without end.
#[test]
#[ignore = "the other test starts it"]
fn record_until_killed() {
    let directory = Some(PathBuf::from(env::var(FOLDER).unwrap()));
    let settings = Settings {
        sink: Sink::File,
        directory,
        instance: Some("killed".into()),
        rotate_bytes: 1 << 20,
        ..Settings::default()
    };
    let auditor = Auditor::start(&settings, Clock::system()).unwrap();
    for number in 0_u64.. {
        auditor.admin(AdminRecord {
            at: UnixTime::from_secs(1_800_000_000),
            actor: "test".into(),
            peer: None,
            action: "revoke".into(),
            target: format!("device:{number}"),
            outcome: "done".into(),
            detail: None,
        });
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn after_a_kill_in_full_flight_every_chain_verifies() {
    let folder = TempDir::new().unwrap();
    for round in 1..=5_u32 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "record_until_killed", "--ignored"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while files(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>()
            < u64::from(round) * 400_000
        {
            assert!(child.try_wait().unwrap().is_none(), "it must run until it is killed");
            thread::park_timeout(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let report = verify(&files(folder.path()), None).unwrap();
    assert_eq!(report.problem, None);
    assert_eq!(report.chains.len(), 5);
    assert!(report.chains.iter().all(|chain| !chain.stopped && chain.last > 100 && chain.signed_to > 0), "{report:?}");
}
