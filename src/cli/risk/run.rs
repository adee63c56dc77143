//! Reads, scores, learns, writes: the loop of `risk replay` and `risk plot`.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Input, RiskError,
    line::{Feedback, Id, Recorded},
    plot,
    report::{self, Report},
};
use crate::risk::statistical::{Advice, Capacity, Engine, Model, Outcome, Scored};

/// How many bad lines are named before the rest is only counted.
const NAMED: usize = 10;

/// `risk replay`.
pub(super) fn replay(input: &Input, out: &Path) -> Result<(), RiskError> {
    // Before anything is written: a wrong name must not cost the scores of last time.
    readable(input)?;
    let failed = |source: io::Error| RiskError::Write { path: out.to_owned(), source };
    let sink: Box<dyn Write> =
        if out == Path::new("-") { Box::new(io::stdout()) } else { Box::new(File::create(out).map_err(failed)?) };
    let mut table = csv::Writer::from_writer(sink);
    let written = |error: csv::Error| failed(io::Error::other(error));
    table.write_record(["id", "score", "risk", "hypothesis", "reasons"]).map_err(written)?;
    let model = Model::default();
    let report = score(input, |id, assessment, risk| {
        let score = assessment.evidence.score().to_string();
        let risk = format!("{risk:.2}");
        let reasons = report::reasons(assessment, &model);
        table.write_record([&id.0, &score, &risk, report::hypothesis(assessment), &reasons]).map_err(written)
    })?;
    table.flush().map_err(failed)?;
    eprint!("{}", report.0);
    report.1
}

/// Whether what is named can be read at all.
fn readable(input: &Input) -> Result<(), RiskError> {
    let events = (input.events != Path::new("-")).then_some(&input.events);
    for path in events.into_iter().chain(&input.feedback) {
        let missing = |source: io::Error| RiskError::Read { path: path.clone(), source };
        // A folder can be opened, and fails at the first read.
        if std::fs::metadata(path).map_err(missing)?.is_dir() {
            return Err(missing(io::ErrorKind::IsADirectory.into()));
        }
        // A pipe is read once, by who asks for its lines.
        if std::fs::metadata(path).map_err(missing)?.is_file() {
            File::open(path).map_err(missing)?;
        }
    }
    Ok(())
}

/// `risk plot`.
pub(super) fn plot(input: &Input, out: &Path) -> Result<(), RiskError> {
    let (report, bad) = score(input, |_, _, _| Ok(()))?;
    let picture = plot::svg(&report);
    std::fs::write(out, picture).map_err(|source| RiskError::Write { path: out.to_owned(), source })?;
    eprint!("{report}");
    bad
}

/// Scores a whole input in its order, then says whether every line could be read.
fn score(
    input: &Input,
    mut each: impl FnMut(&Id, &Scored, f64) -> Result<(), RiskError>,
) -> Result<(Report, Result<(), RiskError>), RiskError> {
    let feedback = input.feedback.as_deref().map(read_feedback).transpose()?.unwrap_or_default();
    let unreadable = |source: io::Error| RiskError::Read { path: input.events.clone(), source };
    let (mut reader, bar) = open(input).map_err(unreadable)?;
    let mut engine = Engine::new(Model::default(), Capacity::default());
    let (mut report, mut last, mut bad, mut total) = (Report::default(), 0.0_f64, 0, 0);
    let (mut bytes, mut number) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut bytes).map_err(unreadable)? > 0 {
        bar.inc(bytes.len() as u64);
        let line = String::from_utf8_lossy(&bytes).trim().to_owned();
        bytes.clear();
        number += 1;
        if line.is_empty() {
            continue;
        }
        total += 1;
        match Recorded::parse(&line) {
            Ok(None) => total -= 1,
            Ok(Some(mut recorded)) => {
                report.out_of_order += u64::from(recorded.event.now < last);
                last = last.max(recorded.event.now);
                recorded.event.now = last;
                let (assessment, risk) = step(&mut engine, &mut report, &recorded, &feedback);
                each(&recorded.id, &assessment, risk)?;
            }
            Err(problem) => {
                bad += 1;
                if bad <= NAMED {
                    bar.suspend(|| {
                        eprintln!("countersign: `{}` line {}: {problem}", input.events.display(), number);
                    });
                }
            }
        }
    }
    bar.finish_and_clear();
    report.lines = Some(engine.lines());
    Ok((report, if bad == 0 { Ok(()) } else { Err(RiskError::BadLines(bad, total)) }))
}

/// Scores one request, challenges it if need be, and learns from what came of it.
fn step(
    engine: &mut Engine,
    report: &mut Report,
    recorded: &Recorded,
    feedback: &HashMap<Id, Option<bool>>,
) -> (Scored, f64) {
    let assessment = engine.assess(&recorded.event);
    let risk = engine.lines().risk(assessment.evidence.score());
    let advice = engine.advise(&assessment);
    report.count(&recorded.event, &assessment, advice, engine.model());
    let outcome = match advice {
        _ if recorded.outcome.is_some() => recorded.outcome.unwrap_or(Outcome::Denied),
        Advice::Allow => Outcome::Allowed,
        Advice::Refuse => Outcome::Denied,
        Advice::Challenge => {
            // The only place where a result is looked at: after this very request was challenged.
            let result = feedback.get(&recorded.id).copied().flatten();
            report.count_result(result);
            result.map_or(Outcome::Challenged, |ok| if ok { Outcome::StepUpPassed } else { Outcome::StepUpFailed })
        }
    };
    engine.learn(&recorded.event, &assessment, outcome);
    (assessment, risk)
}

fn open(input: &Input) -> io::Result<(Box<dyn BufRead>, ProgressBar)> {
    if input.events == Path::new("-") {
        return Ok((Box::new(BufReader::new(io::stdin())), ProgressBar::hidden()));
    }
    let file = File::open(&input.events)?;
    let bar = if input.quiet { ProgressBar::hidden() } else { ProgressBar::new(file.metadata()?.len()) };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3}% {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    Ok((Box::new(BufReader::with_capacity(1 << 18, file)), bar))
}

fn read_feedback(path: &Path) -> Result<HashMap<Id, Option<bool>>, RiskError> {
    let unreadable = |source: io::Error| RiskError::Read { path: path.to_owned(), source };
    let reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut results = HashMap::new();
    for (number, line) in reader.lines().enumerate() {
        let line = line.map_err(unreadable)?;
        if line.trim().is_empty() {
            continue;
        }
        let feedback: Feedback = serde_json::from_str(&line).map_err(|error| RiskError::Feedback {
            path: path.to_owned(),
            line: number + 1,
            problem: error.to_string(),
        })?;
        results.insert(feedback.id, feedback.stepup_ok);
    }
    Ok(results)
}
