//! What is counted of checks: verdicts by reason, and where the time went. Labels are bounded by our own words.

use std::time::Duration;

use crate::{
    decision::{Decision, Reason, Verdict},
    domain::metric::{Counter, Histogram, Page, Source},
};

/// Stages of a check that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Authenticate,
    Gather,
    Quota,
    Total,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Authenticate, Self::Gather, Self::Quota, Self::Total];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Gather => "gather",
            Self::Quota => "quota",
            Self::Total => "total",
        }
    }
}

/// Plain atomics; `ops` renders them.
#[derive(Debug)]
pub struct Counters {
    allowed: Counter,
    /// By [`Reason`], in its order; a step-up and a refusal for the same reason are told apart.
    refused: Vec<Counter>,
    stepped_up: Vec<Counter>,
    stages: [Histogram; Stage::ALL.len()],
    panics: Counter,
    shed: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        let by_reason = || Reason::ALL.iter().map(|_| Counter::default()).collect();
        Self {
            allowed: Counter::default(),
            refused: by_reason(),
            stepped_up: by_reason(),
            stages: Default::default(),
            panics: Counter::default(),
            shed: Counter::default(),
        }
    }
}

impl Counters {
    /// Decisions so far, by verdict.
    pub fn totals(&self) -> [(&'static str, u64); 3] {
        let sum = |counters: &[Counter]| counters.iter().map(Counter::get).sum();
        [("allow", self.allowed.get()), ("deny", sum(&self.refused)), ("step-up", sum(&self.stepped_up))]
    }

    /// Decisions so far that were not an allow, by the code of their reason; those that occurred.
    pub fn reasons(&self) -> Vec<(&'static str, u64)> {
        let counters = self.refused.iter().zip(&self.stepped_up);
        let counted = Reason::ALL.iter().zip(counters).map(|(reason, (refused, up))| {
            let count = refused.get() + up.get();
            (reason.code(), count)
        });
        counted.filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn count(&self, decision: &Decision) {
        let Some(reason) = decision.reason else { return self.allowed.increment() };
        let counters = if decision.verdict == Verdict::StepUp { &self.stepped_up } else { &self.refused };
        if let Some(counter) = counters.get(reason as usize) {
            counter.increment();
        }
    }

    pub(super) fn time(&self, stage: Stage, took: Duration) {
        self.stages[stage as usize].observe(took);
    }

    pub(super) fn panicked(&self) {
        self.panics.increment();
    }

    pub(super) fn shed(&self) {
        self.shed.increment();
    }
}

impl Source for Counters {
    fn collect(&self, page: &mut Page) {
        const VERDICTS: (&str, &str) = ("countersign_decisions", "Decisions by verdict and reason");
        page.counter(VERDICTS.0, VERDICTS.1, &[("verdict", "allow"), ("reason", "none")], &self.allowed);
        for (verdict, counters) in [("deny", &self.refused), ("step-up", &self.stepped_up)] {
            for (reason, counter) in Reason::ALL.iter().zip(counters) {
                if counter.get() > 0 {
                    page.counter(VERDICTS.0, VERDICTS.1, &[("verdict", verdict), ("reason", reason.code())], counter);
                }
            }
        }
        for stage in Stage::ALL {
            let histogram = &self.stages[stage as usize];
            let labels = [("stage", stage.as_str())];
            page.histogram("countersign_stage_seconds", "Time spent in a stage of the check", &labels, histogram);
        }
        page.counter("countersign_panics", "Checks that ended in a panic of ours", &[], &self.panics);
        page.counter("countersign_shed", "Checks refused unlooked because too many were under way", &[], &self.shed);
    }
}
