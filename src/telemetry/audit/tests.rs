//! The chain over real files: what verifies, what does not, and what is said of it.

use std::{fs, io::Write, path::PathBuf, sync::mpsc::Receiver, time::Duration};

use tempfile::TempDir;

use super::{
    sample::{clock, decision, files, settings, write},
    *,
};
use crate::{
    decision::Verdict,
    domain::UnixTime,
    policy::{Options, RuleSet, Rules},
};

/// A chain of ten writes, closed in order. Lines: start, 4 writes, checkpoint, 4, checkpoint, 2, stop.
fn ten_writes(settings: &Settings) -> Vec<PathBuf> {
    let auditor = Auditor::start(settings, clock()).unwrap();
    (0..10).for_each(|number| auditor.admin(write(number)));
    auditor.close();
    files(settings)
}

fn lines(path: &PathBuf) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn rewrite(path: &PathBuf, lines: &[String]) {
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// What verification says after `change` was made to the lines of an honest file.
fn tampered(change: impl FnOnce(&mut Vec<String>)) -> Problem {
    let directory = TempDir::new().unwrap();
    let files = ten_writes(&settings(&directory));
    let mut all = lines(&files[0]);
    change(&mut all);
    rewrite(&files[0], &all);
    verify(&files, None).unwrap().problem.expect("tampering must be found")
}

#[test]
fn an_untouched_chain_verifies_and_is_signed_to_its_end() {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    let files = ten_writes(&settings);
    let key = SigningKey::open(settings.key.as_ref().unwrap()).unwrap().public();
    let report = verify(&files, Some(key)).unwrap();
    assert_eq!((&report.problem, &report.torn), (&None, &vec![]));
    let [chain] = &report.chains[..] else { panic!("one chain: {report:?}") };
    assert_eq!((chain.first, chain.last, chain.signed_to, chain.stopped), (1, 14, 14, true));
    assert_eq!(chain.instance, "one");
}

#[test]
fn the_first_altered_record_is_named() {
    let problem = tampered(|lines| lines[3] = lines[3].replace("device:2", "device:9"));
    assert_eq!((problem.line, problem.seq, problem.kind), (4, 4, ProblemKind::Altered));
}

#[test]
fn a_record_whose_hash_was_made_anew_is_named_by_the_one_after_it() {
    let problem = tampered(|lines| {
        let content = lines[3].replace("device:2", "device:9");
        let content = &content[..content.rfind(chain::HASH_MARK).unwrap()];
        lines[3] = format!("{content}{}{}\"}}", chain::HASH_MARK, hex::encode(chain::hash_of(content.as_bytes())));
    });
    assert_eq!((problem.line, problem.seq, problem.kind), (4, 4, ProblemKind::Rechained));
}

#[test]
fn removed_records_are_named() {
    let problem = tampered(|lines| drop(lines.drain(2..4)));
    assert_eq!((problem.line, problem.kind), (3, ProblemKind::Removed { first: 3, last: 4 }));
}

#[test]
fn a_removed_beginning_is_found() {
    let problem = tampered(|lines| drop(lines.drain(..1)));
    assert_eq!((problem.line, problem.kind), (1, ProblemKind::Removed { first: 1, last: 1 }));
}

#[test]
fn records_that_changed_places_are_named() {
    let problem = tampered(|lines| lines.swap(2, 3));
    assert_eq!((problem.line, problem.seq, problem.kind), (3, 3, ProblemKind::Reordered { after: 4 }));
}

#[test]
fn a_record_that_is_there_twice_is_named() {
    let problem = tampered(|lines| lines.insert(4, lines[2].clone()));
    assert_eq!((problem.line, problem.seq, problem.kind), (5, 3, ProblemKind::Reordered { after: 4 }));
}

#[test]
fn a_chain_made_anew_with_another_key_fails_at_its_first_line() {
    let directory = TempDir::new().unwrap();
    let honest = settings(&directory);
    let key = SigningKey::open(honest.key.as_ref().unwrap()).unwrap().public();
    let forged = Settings { key: None, ..honest };
    let report = verify(&ten_writes(&forged), Some(key)).unwrap();
    assert!(matches!(report.problem.unwrap().kind, ProblemKind::ForeignKey(_)));
}

#[test]
fn a_chain_made_anew_from_the_middle_fails_at_its_next_checkpoint() {
    let problem = tampered(|lines| {
        let honest: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut previous = honest[2]["hash"].as_str().unwrap().to_owned();
        for (line, record) in lines.iter_mut().zip(&honest).skip(3) {
            let content = line.replace("device:2", "device:9");
            let content = &content[..content.rfind(chain::HASH_MARK).unwrap()];
            let content = content.replace(record["prev"].as_str().unwrap(), &previous);
            previous = hex::encode(chain::hash_of(content.as_bytes()));
            let signature = record.get("signature").and_then(|signature| signature.as_str());
            let signature = signature.map(|text| format!("{}{text}", chain::SIGNATURE_MARK)).unwrap_or_default();
            *line = format!("{content}{}{previous}{signature}\"}}", chain::HASH_MARK);
        }
    });
    assert_eq!(problem.seq, 6);
    assert!(matches!(problem.kind, ProblemKind::Signature { since: 2, .. }), "{problem}");
}

#[test]
fn a_chain_stripped_of_its_checkpoints_is_found() {
    let directory = TempDir::new().unwrap();
    let key = SigningKey::generate().unwrap();
    let mut chain = Chain::new(key.clone()).unwrap();
    let mut text = Vec::new();
    let opening =
        serde_json::json!({"instance": "one", "public_key": key.public().to_string(), "checkpoint_records": 4});
    chain.seal("start", "t", &opening, true, &mut text).unwrap();
    (0..5).for_each(|number| chain.seal("admin", "t", &write(number), false, &mut text).unwrap());
    let path = directory.path().join("a.jsonl");
    fs::write(&path, text).unwrap();
    assert_eq!(verify(&[path], None).unwrap().problem.unwrap().kind, ProblemKind::NoCheckpoint(5));
}

#[test]
fn a_last_line_cut_short_is_torn_and_not_tampering() {
    let directory = TempDir::new().unwrap();
    let files = ten_writes(&settings(&directory));
    let text = fs::read_to_string(&files[0]).unwrap();
    fs::write(&files[0], &text[..text.len() - 40]).unwrap();
    let report = verify(&files, None).unwrap();
    assert_eq!(report.problem, None);
    assert_eq!(report.torn, [(files[0].clone(), 14)]);
    assert_eq!((report.chains[0].last, report.chains[0].stopped), (13, false));
}

#[test]
fn the_next_chain_tells_that_the_one_before_was_cut_off() {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    let first = ten_writes(&settings)[0].clone();
    ten_writes(&settings);
    let all = files(&settings);
    assert_eq!(all.len(), 2);
    assert_eq!(verify(&all, None).unwrap().problem, None);
    rewrite(&first, &lines(&first)[..8]);
    let problem = verify(&all, None).unwrap().problem.unwrap();
    assert_eq!((problem.seq, problem.kind), (8, ProblemKind::CutOff(14)));
}

/// Lines `from` to the end made anew without a key, and `added` more.
fn forge(path: &PathBuf, from: usize, added: usize) {
    let mut all = lines(path);
    let template = all[1].clone();
    all.extend(std::iter::repeat_n(template, added));
    let mut before: serde_json::Value = serde_json::from_str(&all[from - 1]).unwrap();
    for (index, line) in all.iter_mut().enumerate().skip(from) {
        let is: serde_json::Value = serde_json::from_str(line).unwrap();
        let content = line[..line.rfind(chain::HASH_MARK).unwrap()].replace("device:", "forged:");
        let content = content.replace(is["prev"].as_str().unwrap(), before["hash"].as_str().unwrap());
        let content = content.replace(&format!("\"seq\":{}", is["seq"]), &format!("\"seq\":{}", index + 1));
        let hash = hex::encode(chain::hash_of(content.as_bytes()));
        *line = format!("{content}{}{hash}\"}}", chain::HASH_MARK);
        before = serde_json::from_str(line).unwrap();
    }
    rewrite(path, &all);
}

/// A chain killed at line 8 (signed to 6), and the one after it.
fn killed_and_started_again(directory: &TempDir) -> (Settings, PathBuf) {
    let settings = settings(directory);
    let first = ten_writes(&settings)[0].clone();
    rewrite(&first, &lines(&first)[..8]);
    ten_writes(&settings);
    (settings, first)
}

#[test]
fn a_tail_made_anew_is_found_by_the_next_chain_also_when_lines_were_added() {
    for added in 0..2 {
        let directory = TempDir::new().unwrap();
        let (settings, first) = killed_and_started_again(&directory);
        let key = SigningKey::open(settings.key.as_ref().unwrap()).unwrap().public();
        assert_eq!(verify(&files(&settings), Some(key)).unwrap().problem, None);
        forge(&first, 6, added);
        let problem = verify(&files(&settings), Some(key)).unwrap().problem.map(|problem| problem.kind);
        assert_eq!(problem, Some(ProblemKind::MadeAnew { seq: 8 }), "{added} added");
    }
}

#[test]
fn lines_added_to_a_chain_that_had_ended_are_found() {
    let directory = TempDir::new().unwrap();
    let (settings, first) = killed_and_started_again(&directory);
    forge(&first, 8, 1);
    let problem = verify(&files(&settings), None).unwrap().problem.map(|problem| problem.kind);
    assert_eq!(problem, Some(ProblemKind::Added { after: 8 }));
    // In order or not: nothing comes after a stop.
    let directory = TempDir::new().unwrap();
    let stopped = ten_writes(&self::settings(&directory))[0].clone();
    forge(&stopped, 14, 1);
    let problem = verify(&[stopped], None).unwrap().problem.unwrap();
    assert_eq!((problem.line, problem.kind), (15, ProblemKind::Added { after: 14 }));
}

#[test]
fn processes_of_one_name_may_overlap() {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    let old = Auditor::start(&settings, clock()).unwrap();
    old.admin(write(1));
    assert!(old.flush());
    let new = Auditor::start(&settings, clock()).unwrap();
    (0..20).for_each(|number| old.admin(write(number)));
    new.admin(write(2));
    old.close();
    new.close();
    let report = verify(&files(&settings), None).unwrap();
    assert_eq!((report.problem, report.chains.len()), (None, 2));
}

#[test]
fn a_stop_in_a_full_file_is_its_last_line() {
    let directory = TempDir::new().unwrap();
    let settings = Settings { rotate_bytes: 1, ..settings(&directory) };
    let auditor = Auditor::start(&settings, clock()).unwrap();
    auditor.admin(write(1));
    auditor.close();
    assert!(verify(&files(&settings), None).unwrap().chains[0].stopped);
}

#[test]
fn a_start_follows_the_newest_file_that_has_a_line_whatever_the_process() {
    let directory = TempDir::new().unwrap();
    let settings = Settings { instance: None, ..settings(&directory) };
    let name = settings.instance_name();
    assert!(!name.ends_with(&std::process::id().to_string()), "{name}");
    ten_writes(&settings);
    fs::write(directory.path().join(format!("audit-{name}-9999999999999-1.jsonl")), "").unwrap();
    fs::write(directory.path().join(format!("audit-{name}-9999999999999-2.jsonl")), "{\"chain\":").unwrap();
    let followed = sink::last_line(&settings, &name).unwrap();
    assert!(followed.contains("\"kind\":\"stop\""), "{followed}");
}

#[test]
fn a_chain_that_is_not_given_is_missed_by_the_one_that_follows_it() {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    let mut in_order: Vec<PathBuf> = Vec::new();
    for _ in 0..3 {
        ten_writes(&settings);
        in_order.extend(files(&settings).into_iter().filter(|file| !in_order.contains(file)).collect::<Vec<_>>());
    }
    let [first, second, third] = <[PathBuf; 3]>::try_from(in_order).unwrap();
    let kind = |report: Report| report.problem.map(|problem| problem.kind);
    let missed = |given: &[PathBuf]| kind(verify(given, None).unwrap());
    assert!(matches!(missed(&[second.clone(), third.clone()]), Some(ProblemKind::NotGiven { seq: 14, .. })));
    // Old files may be put away, but nothing out of the middle.
    let rest = |given: &[PathBuf]| kind(verify_rest(given, None).unwrap());
    assert_eq!(rest(&[second, third.clone()]), None);
    assert_eq!(rest(std::slice::from_ref(&third)), None);
    assert!(matches!(rest(&[first.clone(), third]), Some(ProblemKind::NotGiven { .. })));
    assert_eq!(missed(&[first]), None);
}

#[test]
fn a_compressed_file_is_read_or_refused_and_never_counted_as_lines_of_the_log() {
    let directory = TempDir::new().unwrap();
    let plain = ten_writes(&settings(&directory))[0].clone();
    let packed = directory.path().join("archived");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&fs::read(&plain).unwrap()).unwrap();
    let octets = encoder.finish().unwrap();
    fs::write(&packed, &octets).unwrap();
    let report = verify(std::slice::from_ref(&packed), None).unwrap();
    assert_eq!((report.problem, report.chains[0].last, report.of_log), (None, 14, 0));
    fs::write(&packed, &octets[..octets.len() / 2]).unwrap();
    assert!(verify(std::slice::from_ref(&packed), None).unwrap_err().to_string().contains("archived"));
    fs::write(&packed, b"\x28\xb5\x2f\xfdwhatever").unwrap();
    let error = verify(&[packed], None).unwrap_err().to_string();
    assert!(error.ends_with("compressed with zstd: unpack it first"), "{error}");
}

#[test]
fn rotated_files_verify_together_in_any_order_and_each_alone() {
    let directory = TempDir::new().unwrap();
    let settings = Settings { rotate_bytes: 1500, ..settings(&directory) };
    let auditor = Auditor::start(&settings, clock()).unwrap();
    for number in 0..10 {
        auditor.admin(write(number));
        assert!(auditor.flush());
    }
    auditor.close();
    let mut all = files(&settings);
    assert!(all.len() > 2, "{all:?}");
    all.reverse();
    assert_eq!(verify(&all, None).unwrap().problem, None);
    for file in &all {
        assert_eq!(verify_rest(std::slice::from_ref(file), None).unwrap().problem, None);
    }
    all.sort();
    let kind = verify(&all[1..], None).unwrap().problem.unwrap().kind;
    assert!(matches!(kind, ProblemKind::Removed { first: 1, .. }), "{kind:?}");
    all.remove(1);
    assert!(matches!(verify_rest(&all, None).unwrap().problem.unwrap().kind, ProblemKind::Removed { .. }));
    assert!(matches!(verify(&all, None).unwrap().problem.unwrap().kind, ProblemKind::Removed { .. }));
}

#[test]
fn a_full_queue_loses_records_and_a_signed_gap_says_how_many() {
    let shared = Arc::new(Shared::new(64));
    let (sender, queue) = sync_channel(64);
    let auditor = auditor(sender, &shared, None);
    assert!(auditor.has_room());
    (0..100).for_each(|number| auditor.admin(write(number)));
    assert!(!auditor.has_room());
    assert!(auditor.must_refuse(true));
    assert!(!auditor.must_refuse(false));
    assert_eq!((auditor.counters().recorded.get(), auditor.counters().lost.get()), (64, 36));

    let (_directory, files) = written(&auditor, shared, queue);
    assert!(auditor.has_room());
    let report = verify(&files, None).unwrap();
    assert_eq!((report.problem, report.chains[0].lost), (None, 36));
}

#[test]
fn a_decision_is_lost_to_a_full_queue_and_a_gap_says_so() {
    let shared = Arc::new(Shared::new(64));
    let (sender, queue) = sync_channel(64);
    let auditor = auditor(sender, &shared, None);
    (0..100).for_each(|number| auditor.record(decision(number, 1, Verdict::Deny)));
    assert_eq!((auditor.counters().recorded.get(), auditor.counters().lost.get()), (64, 36));

    let (_directory, files) = written(&auditor, shared, queue);
    let report = verify(&files, None).unwrap();
    assert_eq!((report.problem, report.chains[0].lost), (None, 36));
    let read = lines(&files[0]).iter().filter_map(|line| Recorded::parse(line).unwrap()).count();
    assert_eq!((read, auditor.recent_refusals(100).len()), (64, 64));
}

#[test]
fn every_refusal_is_kept_for_explain_and_one_allow_each_millisecond() {
    for (sink, shadowed) in [(Sink::File, false), (Sink::None, false), (Sink::File, true), (Sink::None, true)] {
        let directory = TempDir::new().unwrap();
        let settings = Settings { sink, ..settings(&directory) };
        let auditor = Auditor::start(&settings, clock()).unwrap();
        if shadowed {
            let shadow = Rules::build("shadow", RuleSet::default(), None, Options::default()).unwrap();
            auditor.shadows().take_up(shadow);
        }
        let verdicts = [Verdict::Allow, Verdict::Allow, Verdict::Deny, Verdict::Deny];
        (0..).zip(verdicts).for_each(|(number, verdict)| auditor.record(decision(number, 7, verdict)));
        auditor.record(decision(4, 8, Verdict::Allow));
        assert!(auditor.flush());
        let kept: Vec<u128> =
            (0..5).filter(|id| auditor.recent(DecisionId::new(if *id < 4 { 7 } else { 8 }, *id)).is_some()).collect();
        assert_eq!(kept, [0, 2, 3, 4], "{sink:?}, shadowed: {shadowed}");
        auditor.close();
        let written: usize = files(&settings)
            .iter()
            .map(|path| lines(path).iter().filter(|line| line.contains("decision")).count())
            .sum();
        assert_eq!(written, if sink == Sink::File { 5 } else { 0 });
    }
}

/// The files that the writer makes of a queue, and the folder that they are in.
fn written(auditor: &Auditor, shared: Arc<Shared>, queue: Receiver<Message>) -> (TempDir, Vec<PathBuf>) {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    let writer = writer(&settings, shared, queue, sink::Sink::open(&settings, "one", UnixTime::EPOCH).unwrap());
    auditor.close();
    writer.run();
    let files = files(&settings);
    (directory, files)
}

fn auditor(queue: SyncSender<Message>, shared: &Arc<Shared>, writer: Option<thread::JoinHandle<()>>) -> Auditor {
    Auditor {
        queue,
        shared: Arc::clone(shared),
        writer: Mutex::new(writer),
        on_full: OnFull::Allow,
        unwritten: false,
        chain: String::new(),
    }
}

fn writer(settings: &Settings, shared: Arc<Shared>, queue: Receiver<Message>, sink: sink::Sink) -> Writer {
    Writer {
        queue,
        shared,
        chain: Chain::new(SigningKey::generate().unwrap()).unwrap(),
        sink,
        clock: clock(),
        instance: "one".into(),
        settings: settings.clone(),
        follows: None,
        pending: Vec::new(),
        time: (UnixTime::EPOCH, rfc3339(UnixTime::EPOCH)),
        unsigned: 0,
        signed_at: Instant::now(),
    }
}

#[test]
fn a_full_disk_refuses_what_must_be_recorded_and_holds_up_nothing() {
    let directory = TempDir::new().unwrap();
    let shared = Arc::new(Shared::new(64));
    let (sender, queue) = sync_channel(64);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let writer = writer(&settings(&directory), Arc::clone(&shared), queue, sink::Sink::Stream(full));
    let auditor = auditor(sender, &shared, Some(thread::spawn(|| writer.run())));
    for _ in 0..1000 {
        auditor.admin(write(1));
        if !auditor.has_room() {
            break;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    assert!(auditor.must_refuse(true) && !auditor.must_refuse(false));
    assert!(auditor.counters().write_errors.get() > 0);
    assert!(!auditor.flush());
    let begun = Instant::now();
    auditor.close();
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn an_output_that_nobody_reads_holds_up_the_end_no_longer_than_it_may() {
    let directory = TempDir::new().unwrap();
    let shared = Arc::new(Shared::new(4096));
    let (sender, queue) = sync_channel(4096);
    let (_unread, pipe) = io::pipe().unwrap();
    let pipe = sink::Sink::Stream(fs::File::from(std::os::fd::OwnedFd::from(pipe)));
    let settings = Settings { checkpoint_records: 10_000, ..settings(&directory) };
    let writer = writer(&settings, Arc::clone(&shared), queue, pipe);
    let auditor = auditor(sender, &shared, Some(thread::spawn(|| writer.run())));
    (0..2000).for_each(|number| auditor.admin(write(number)));
    let begun = Instant::now();
    let unwritten = auditor.close_within(Duration::from_millis(300)).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    // A pipe takes 64 KiB of them at first.
    assert!((1000..=2000).contains(&unwritten), "{unwritten}");
}

#[test]
fn everything_recorded_before_the_close_is_written() {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    let auditor = Auditor::start(&settings, clock()).unwrap();
    (0..5000).for_each(|number| auditor.admin(write(number)));
    auditor.close();
    let written: usize = files(&settings).iter().map(|path| lines(path).len()).sum();
    let kinds = lines(&files(&settings)[0]).iter().filter(|line| line.contains("\"kind\":\"admin\"")).count();
    assert_eq!(kinds as u64, auditor.counters().recorded.get());
    assert!(written > 5000);
}

#[test]
fn a_key_file_that_others_can_read_is_refused_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("audit.key");
    let made = SigningKey::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(SigningKey::open(&path).unwrap().public(), made.public());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = SigningKey::open(&path).unwrap_err();
    assert!(error.to_string().contains("audit.key"), "{error}");
}

#[test]
fn what_a_caller_sends_cannot_begin_a_line_or_a_member() {
    let directory = TempDir::new().unwrap();
    let settings = settings(&directory);
    let auditor = Auditor::start(&settings, clock()).unwrap();
    let hostile = "x\r\n{\"kind\":\"stop\"}\u{1b}[31m\u{2028}\",\"hash\":\"00\",\"signature\":\"";
    auditor.admin(AdminRecord { target: hostile.into(), ..write(1) });
    auditor.close();
    let files = files(&settings);
    let text = fs::read_to_string(&files[0]).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
    assert_eq!(verify(&files, None).unwrap().problem, None);
    let record: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(record["target"], hostile);
}

#[test]
fn an_idle_chain_is_signed_after_a_while() {
    let directory = TempDir::new().unwrap();
    let settings = Settings { checkpoint_every: Duration::from_millis(20).into(), ..settings(&directory) };
    let auditor = Auditor::start(&settings, clock()).unwrap();
    auditor.admin(write(1));
    auditor.flush();
    thread::park_timeout(Duration::from_millis(200));
    let signed = lines(&files(&settings)[0]).iter().filter(|line| line.contains("\"kind\":\"checkpoint\"")).count();
    assert_eq!(signed, 1);
    auditor.close();
}
