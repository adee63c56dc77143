//! Runs the shipped `countersign risk replay` over a stream and reads what it wrote.

use std::{ffi::OsStr, fs, path::Path, process::Command};

use serde_json::Value;

use super::{
    figures::Truth,
    stream::{self, DAY, Request, WARM_UP},
};

/// A stream with its truth.
pub(crate) struct Stream {
    pub(crate) requests: Vec<Request>,
}

/// What a run wrote.
pub(crate) struct Run {
    /// The whole table, as written.
    pub(crate) table: String,
    pub(crate) scores: Vec<f64>,
}

/// A stream of our own.
pub(crate) fn own(seed: u64) -> Stream {
    Stream { requests: stream::generate(seed, 360) }
}

impl Stream {
    fn evaluated(&self) -> impl Iterator<Item = (usize, &Request)> {
        self.requests.iter().enumerate().filter(|(_, request)| request.at >= WARM_UP)
    }

    /// The truth of every request after the warm-up.
    pub(crate) fn truth(&self) -> Vec<Truth> {
        let truth = |(_, request): (usize, &Request)| Truth {
            day: (request.at / DAY) as i64,
            user: request.user.clone(),
            session: request.session.clone(),
            service: false,
            attack: request.attack.map(|(kind, number)| (kind.to_owned(), number.to_string())),
        };
        self.evaluated().map(truth).collect()
    }

    /// The scores of the same requests.
    pub(crate) fn after_warm_up(&self, scores: &[f64]) -> Vec<f64> {
        self.evaluated().map(|(id, _)| scores[id]).collect()
    }
}

/// Scores a stream of our own, with the results of challenges.
pub(crate) fn score_own(stream: &Stream) -> Run {
    score(stream, |_, passes| passes)
}

/// Scores a stream of our own; `result` says what a challenge of a request would bring.
pub(crate) fn score(stream: &Stream, result: impl Fn(usize, bool) -> bool) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let (events, feedback) = (folder.path().join("events.jsonl"), folder.path().join("feedback.jsonl"));
    let numbered = || stream.requests.iter().enumerate();
    let lines: Vec<String> = numbered().map(|(id, request)| request.line(id)).collect();
    let results = numbered().map(|(id, r)| format!("{{\"id\":{id},\"stepup_ok\":{}}}\n", result(id, r.passes)));
    fs::write(&events, lines.join("\n")).unwrap();
    fs::write(&feedback, results.collect::<String>()).unwrap();
    replay(&events, &feedback, folder.path())
}

fn replay(events: &Path, feedback: &Path, folder: &Path) -> Run {
    let out = folder.join("scores.csv");
    let done = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["risk", "replay", "--quiet", "--events"])
        .arg(events)
        .arg("--feedback")
        .arg(feedback)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let table = fs::read_to_string(&out).unwrap();
    let score = |row: &str| row.split(',').nth(1).and_then(|score| score.parse().ok()).unwrap();
    let scores = table.lines().skip(1).map(score).collect();
    Run { table, scores }
}

/// A stream of a simulator that is not ours: truth and scores after its warm-up.
pub(crate) fn outside(simulator: &OsStr, seed: &str, settings: &[&str]) -> (Vec<Truth>, Vec<f64>) {
    let folder = tempfile::tempdir().unwrap();
    let [labelled, events, feedback] = ["all", "events", "feedback"].map(|name| folder.path().join(name));
    let mut command = Command::new("python3");
    command.arg(simulator).args(["--seed", seed, "--out"]).arg(&labelled);
    settings.iter().for_each(|setting| {
        command.args(["--set", setting]);
    });
    assert!(command.status().unwrap().success());
    let (mut truth, mut plain, mut results) = (Vec::new(), String::new(), String::new());
    for line in fs::read_to_string(&labelled).unwrap().lines() {
        let mut event: Value = serde_json::from_str(line).unwrap();
        truth.push(truth_of(&event));
        results += &format!("{{\"id\":{},\"stepup_ok\":{}}}\n", event["id"], event["stepup_ok"]);
        let fields = event.as_object_mut().unwrap();
        ["label", "campaign", "stepup_ok"].iter().for_each(|name| drop(fields.remove(*name)));
        plain += &format!("{event}\n");
    }
    fs::write(&events, plain).unwrap();
    fs::write(&feedback, results).unwrap();
    let run = replay(&events, &feedback, folder.path());
    let first = truth[0].day;
    truth.into_iter().zip(run.scores).filter(|(truth, _)| truth.day >= first + 7).unzip()
}

fn truth_of(event: &Value) -> Truth {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let kind = text("label").strip_prefix("attack:").map(str::to_owned);
    Truth {
        day: (event["t"].as_f64().unwrap() / DAY) as i64,
        user: text("user"),
        session: text("jti"),
        service: event["roles"].as_array().is_some_and(|roles| roles.iter().any(|role| role == "service")),
        attack: kind.map(|kind| (kind, text("campaign"))),
    }
}
