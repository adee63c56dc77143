//! Rules are taken up when their files change, whole or not at all, however the files are changed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use countersign::{
    config::reload::{self, Counters},
    policy::{self, Options, Rules},
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

fn rules(id: &str) -> String {
    format!("resources:\n  - id: {id}\n    match: {{ paths: [\"/{id}\"] }}\n    access: public\n")
}

struct Watched {
    applied: Arc<Mutex<Vec<Rules>>>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

fn watch(paths: &[PathBuf]) -> Watched {
    let files = reload::read(paths).unwrap();
    let options = Options::default();
    assert!(policy::load(&files, options.clone()).is_ok());
    let applied = Arc::new(Mutex::new(Vec::new()));
    let stop = CancellationToken::new();
    let sink = Arc::clone(&applied);
    let apply = move |rules| sink.lock().push(rules);
    let (counters, done) = reload::watch(paths.to_vec(), files, options, apply, stop.clone());
    Watched { applied, counters, stop, done }
}

impl Watched {
    async fn until(&self, what: &str, test: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !test(self) {
            assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {:?}", self.counters);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn applied(&self) -> usize {
        self.applied.lock().len()
    }

    fn last_has(&self, id: &str) -> bool {
        self.applied.lock().last().is_some_and(|rules| rules.resource(id).is_some())
    }
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_file_that_is_written_or_replaced_is_taken_up() {
    let folder = folder();
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules("one")).unwrap();
    let watched = watch(std::slice::from_ref(&file));
    settle().await;
    fs::write(&file, rules("two")).unwrap();
    watched.until("written", |w| w.last_has("two")).await;
    let new = folder.path().join("new");
    fs::write(&new, rules("three")).unwrap();
    fs::rename(&new, &file).unwrap();
    watched.until("replaced", |w| w.last_has("three")).await;
    watched.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), watched.done).await.unwrap().unwrap();
}

#[tokio::test]
async fn rules_that_are_still_being_written_are_not_taken_up() {
    let folder = folder();
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules("one")).unwrap();
    let watched = watch(std::slice::from_ref(&file));
    settle().await;
    let (half, whole) = (rules("app"), rules("app") + rules("admin").trim_start_matches("resources:\n"));
    fs::write(&file, half).unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    fs::write(&file, whole).unwrap();
    watched.until("whole", |w| w.last_has("app")).await;
    assert!(watched.applied.lock().iter().all(|rules| rules.resource("admin").is_some()), "half of it was in force");
}

#[tokio::test]
async fn what_changed_between_the_start_and_the_first_look_is_taken_up() {
    let folder = folder();
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules("one")).unwrap();
    // Before the task that watches has run.
    let watched = watch(std::slice::from_ref(&file));
    fs::write(&file, rules("two")).unwrap();
    watched.until("at once", |w| w.last_has("two")).await;
}

#[tokio::test]
async fn what_cannot_be_used_leaves_the_last_good_rules_and_is_counted_once() {
    let folder = folder();
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules("one")).unwrap();
    let watched = watch(std::slice::from_ref(&file));
    settle().await;
    fs::write(&file, "resources: [{ id: 1 }]\n").unwrap();
    watched.until("refused", |w| w.counters.failed.get() == 1).await;
    assert_eq!((watched.applied(), watched.counters.current.get()), (0, 0.0));
    fs::write(folder.path().join("other"), "x").unwrap();
    settle().await;
    settle().await;
    assert_eq!(watched.counters.failed.get(), 1, "told once");
    fs::remove_file(&file).unwrap();
    watched.until("gone", |w| w.counters.failed.get() == 2).await;
    assert_eq!(watched.applied(), 0, "no file is not an empty file");
    fs::write(&file, rules("one")).unwrap();
    watched.until("back", |w| w.last_has("one")).await;
    assert_eq!(watched.counters.current.get(), 1.0);
}

#[tokio::test]
async fn a_configmap_is_taken_up_when_its_link_is_swapped() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let publish = |version: &str, id: &str| {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("rules.yaml"), rules(id)).unwrap();
        symlink(version, path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
    };
    publish("..2026_01", "one");
    symlink("..data/rules.yaml", path("rules.yaml")).unwrap();
    let files = reload::read(&[folder.path().to_owned()]).unwrap();
    assert_eq!(files.len(), 1, "hidden folders are not read twice: {files:?}");
    let watched = watch(&[folder.path().to_owned()]);
    let by_file = watch(&[path("rules.yaml")]);
    settle().await;
    for (version, id) in [("..2026_02", "two"), ("..2026_03", "three")] {
        publish(version, id);
        watched.until("swapped", |w| w.last_has(id)).await;
        by_file.until("swapped", |w| w.last_has(id)).await;
    }
}

#[tokio::test]
async fn files_that_come_and_go_in_a_folder_are_taken_up_together() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("a.yaml", &rules("one"));
    let watched = watch(&[folder.path().to_owned()]);
    settle().await;
    fs::create_dir(folder.path().join("deep")).unwrap();
    write("b.yaml", &rules("two"));
    write("notes.txt", "not rules");
    write("deep/c.yml", &rules("three"));
    watched.until("all", |w| w.last_has("one") && w.last_has("two") && w.last_has("three")).await;
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    watched.until("removed", |w| w.last_has("one") && !w.last_has("two")).await;
}

#[tokio::test]
async fn rules_that_are_gone_altogether_leave_the_last_good_ones() {
    let folder = folder();
    let rules_folder = folder.path().join("rules");
    fs::create_dir(&rules_folder).unwrap();
    fs::write(rules_folder.join("a.yaml"), rules("one")).unwrap();
    let watched = watch(std::slice::from_ref(&rules_folder));
    settle().await;
    fs::write(rules_folder.join("x.cases.yaml"), "cases: []\n").unwrap();
    fs::remove_file(rules_folder.join("a.yaml")).unwrap();
    watched.until("empty", |w| w.counters.failed.get() == 1).await;
    assert!(watched.applied.lock().iter().all(|rules| rules.resource("one").is_some()));
    assert_eq!(watched.counters.current.get(), 0.0);
    fs::write(rules_folder.join("a.yaml"), "resources: []\n").unwrap();
    watched.until("none on purpose", |w| w.counters.current.get() == 1.0).await;
    assert!(watched.applied.lock().last().unwrap().resources().is_empty());
}

#[tokio::test]
async fn a_pipe_among_the_rules_holds_nothing_up() {
    let folder = folder();
    let pipe = folder.path().join("z.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink("z.yaml", folder.path().join("y.yaml")).unwrap();
    fs::write(folder.path().join("a.yaml"), rules("one")).unwrap();
    let watched = watch(&[folder.path().to_owned()]);
    settle().await;
    fs::write(folder.path().join("a.yaml"), rules("two")).unwrap();
    watched.until("beside a pipe", |w| w.last_has("two")).await;
    let found = reload::read(std::slice::from_ref(&pipe)).unwrap_err();
    assert!(found[0].message.ends_with("it is no regular file"), "{found:?}");
}

#[test]
fn a_file_that_is_named_must_be_of_a_known_kind() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    for name in ["rules.txt", "rules", "R.YAML", "s.Cedar", "notes.md"] {
        fs::write(path(name), "").unwrap();
    }
    let found = reload::read(&[path("rules.txt"), path("rules"), path("R.YAML")]).unwrap_err();
    assert_eq!(found.len(), 2, "{found:?}");
    for found in found {
        assert!(found.message.contains("its name ends in none of .yaml, .yml, .cedar"), "{found}");
    }
    let read = reload::read(&[folder.path().to_owned()]).unwrap();
    let names: Vec<_> = read.iter().map(|file| file.name.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["R.YAML", "s.Cedar"]);
    assert!(read[0].is_yaml() && read[1].is_cedar());
}

#[test]
fn what_cannot_be_read_is_said_of_each_path() {
    let found = reload::read(&["/nowhere/a".into(), "/nowhere/b".into()]).unwrap_err();
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["/nowhere/a", "/nowhere/b"].map(|path| format!("{path}: error: cannot be read: no such file or directory"))
    );
    let folder = folder();
    symlink(".", folder.path().join("loop")).unwrap();
    assert!(reload::read(&[folder.path().to_owned()]).is_err(), "a loop of links ends");
    fs::write(folder.path().join("x.yaml"), [0xff, 0xfe]).unwrap();
    let found = reload::read(&[Path::new(folder.path()).join("x.yaml")]).unwrap_err();
    assert!(found[0].message.contains("utf-8"), "{found:?}");
}
