//! What a run says at its end: how often people would have been asked, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::risk::statistical::{
    Advice, Event, Key, Lines, Model, Scored,
    event::Strength,
    evidence::{Hypothesis, Term},
};

/// Width of a bucket of the histogram, in nats.
pub(super) const WIDTH: f64 = 0.5;
const DAY: f64 = 86_400.0;

/// One day of a run.
#[derive(Debug, Default)]
pub(super) struct Day {
    users: BTreeSet<Key>,
    challenged: BTreeSet<(Key, Key)>,
    refused: BTreeSet<(Key, Key)>,
}

impl Day {
    /// Persons seen.
    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// Sessions of persons that were asked for a step-up.
    pub(super) fn challenged(&self) -> usize {
        self.challenged.len()
    }
}

/// Everything counted in a run.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) events: u64,
    pub(super) out_of_order: u64,
    pub(super) days: BTreeMap<i64, Day>,
    /// Requests per half nat of score.
    pub(super) histogram: BTreeMap<i64, u64>,
    /// Challenged or refused requests per first reason.
    pub(super) reasons: BTreeMap<&'static str, u64>,
    challenged: BTreeSet<(Key, Key)>,
    refused: BTreeSet<(Key, Key)>,
    passed: u64,
    failed: u64,
    service_challenges: u64,
    pub(super) lines: Option<Lines>,
}

impl Report {
    /// Counts a scored request.
    pub(super) fn count(&mut self, event: &Event, assessment: &Scored, advice: Advice, model: &Model) {
        self.events += 1;
        let evidence = &assessment.evidence;
        *self.histogram.entry((evidence.score() / WIDTH).floor() as i64).or_default() += 1;
        if advice != Advice::Allow
            && let Some(reason) = evidence.reasons(model)[0]
        {
            *self.reasons.entry(reason.term.code()).or_default() += 1;
        }
        if event.strength == Strength::Service {
            self.service_challenges += u64::from(advice != Advice::Allow);
            return;
        }
        let day = self.days.entry((event.now / DAY) as i64).or_default();
        day.users.insert(event.subject);
        let session = (event.subject, event.session);
        match advice {
            Advice::Allow => {}
            Advice::Challenge => {
                day.challenged.insert(session);
                self.challenged.insert(session);
            }
            Advice::Refuse => {
                day.refused.insert(session);
                self.refused.insert(session);
            }
        }
    }

    /// Counts the result of a challenge.
    pub(super) fn count_result(&mut self, passed: Option<bool>) {
        match passed {
            Some(true) => self.passed += 1,
            Some(false) => self.failed += 1,
            None => {}
        }
    }

    /// Days on which a person was seen, summed over persons.
    pub(super) fn user_days(&self) -> usize {
        self.days.values().map(Day::users).sum()
    }

    /// Sessions asked for a step-up, per user and day.
    pub(super) fn challenges_per_user_day(&self) -> f64 {
        self.challenged.len() as f64 / self.user_days().max(1) as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "requests                  {}", self.events)?;
        writeln!(f, "user-days                 {}", self.user_days())?;
        writeln!(f, "sessions challenged       {}", self.challenged.len())?;
        writeln!(f, "challenges per user-day   {:.4}", self.challenges_per_user_day())?;
        writeln!(f, "sessions refused          {}", self.refused.len())?;
        writeln!(f, "challenges passed/failed  {}/{}", self.passed, self.failed)?;
        writeln!(f, "requests of services over the line  {}", self.service_challenges)?;
        if let Some(lines) = self.lines {
            writeln!(f, "lines at the end          step-up {:.2}, refusal {:.2} nats", lines.step, lines.deny)?;
        }
        if self.out_of_order > 0 {
            writeln!(f, "requests out of order     {} (scored as if they came at once)", self.out_of_order)?;
        }
        for (code, count) in &self.reasons {
            writeln!(f, "  {code:<32}{count:>8}")?;
        }
        Ok(())
    }
}

/// Reasons of a request as `CODE:nats`, the strongest first, joined by `;`.
pub(super) fn reasons(assessment: &Scored, model: &Model) -> String {
    let reasons = assessment.evidence.reasons(model);
    let parts: Vec<String> = reasons.iter().flatten().map(|r| format!("{}:{:.2}", r.term.code(), r.nats)).collect();
    parts.join(";")
}

/// The codes that a run may name, for the legend of the picture.
pub(super) fn codes() -> impl Iterator<Item = &'static str> {
    Term::ALL.into_iter().map(Term::code)
}

/// Names of the hypotheses.
pub(super) fn hypothesis(assessment: &Scored) -> &'static str {
    Hypothesis::name(assessment.evidence.hypothesis())
}
