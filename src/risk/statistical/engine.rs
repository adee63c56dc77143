//! The model of one process, or of one shard of its subjects: all its state, within bounded memory.
//!
//! Score first, learn after. Deterministic: the same events give the same scores, bit for bit. Shards and
//! replicas keep each other informed by exchanging [`Learned`].

use super::{
    assess::{self, Scored},
    binding::Binding,
    bounded::Bounded,
    calibrate::{Calibration, Lines},
    event::{Event, Key},
    globals::Globals,
    learn::{self, Learned, Outcome, Past},
    model::Model,
    profile::Profile,
};

/// How much an engine may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Profiles, about 1 KiB each.
    pub profiles: usize,
    /// Sessions, about 350 bytes each.
    pub sessions: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { profiles: 200_000, sessions: 400_000 }
    }
}

/// What the model's own lines say of a request. Policies may be stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Under the step-up line, or challenged and proven before.
    Allow,
    /// Over the step-up line: ask who it is.
    Challenge,
    /// Over the refusal line: no challenge buys access.
    Refuse,
}

/// The statistical model and all its state.
#[derive(Debug, Clone)]
pub struct Engine {
    model: Model,
    calibration: Calibration,
    lines: Lines,
    /// Hour of the day when the lines were last looked up.
    hour: u64,
    profiles: Bounded<Profile>,
    bindings: Bounded<Binding>,
    globals: Globals,
}

impl Engine {
    /// An engine that knows nobody yet.
    #[must_use]
    pub fn new(model: Model, capacity: Capacity) -> Self {
        let calibration = model.calibration();
        Self {
            model,
            calibration,
            lines: calibration.initial,
            hour: 0,
            profiles: Bounded::with_capacity(capacity.profiles),
            bindings: Bounded::with_capacity(capacity.sessions),
            globals: Globals::default(),
        }
    }

    /// Scores a request. Nothing is learned until [`Engine::learn`].
    pub fn assess(&mut self, event: &Event) -> Scored {
        let profile = self.profiles.entry(event.subject);
        let binding = self.bindings.entry(event.session);
        assess::assess(&self.model, profile, &self.globals, binding, event)
    }

    /// What the lines in force say of a scored request.
    #[must_use]
    pub fn advise(&self, assessment: &Scored) -> Advice {
        let score = assessment.evidence.score();
        if score >= self.lines.deny {
            Advice::Refuse
        } else if score >= self.lines.step && !assessment.proven() {
            Advice::Challenge
        } else {
            Advice::Allow
        }
    }

    /// Learns from a scored request, and returns what other replicas should know of it.
    pub fn learn(&mut self, event: &Event, assessment: &Scored, outcome: Outcome) -> Learned {
        let past = Past { profile: self.profiles.entry(event.subject), binding: self.bindings.entry(event.session) };
        let learned = learn::learn(past, self.lines, event, assessment, outcome);
        self.globals.apply_all(&learned);
        self.look_up_lines(event.now);
        learned
    }

    /// Takes over what another replica learned. Each of them must be taken once.
    pub fn merge(&mut self, learned: &Learned) {
        self.profiles.entry(learned.subject).merge(learned);
        self.bindings.entry(learned.session).merge(&learned.context);
        self.globals.apply_all(learned);
        self.look_up_lines(learned.at);
    }

    /// Lines in force.
    #[must_use]
    pub fn lines(&self) -> Lines {
        self.lines
    }

    /// The constants.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What everyone has in common.
    #[must_use]
    pub fn globals(&self) -> &Globals {
        &self.globals
    }

    /// The profile of a subject, when it is held.
    #[must_use]
    pub fn profile(&self, subject: Key) -> Option<&Profile> {
        self.profiles.get(subject)
    }

    /// Puts back a profile that was stored elsewhere.
    pub fn restore(&mut self, subject: Key, profile: Profile) {
        *self.profiles.entry(subject) = profile;
    }

    /// Forgets a subject (privacy). Its sessions end by themselves.
    pub fn forget(&mut self, subject: Key) -> bool {
        self.profiles.remove(subject).is_some()
    }

    /// Profiles and sessions held.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.profiles.len(), self.bindings.len())
    }

    /// Lines follow the counts once an hour, so that one request more or less does not move them.
    fn look_up_lines(&mut self, now: f64) {
        let hour = (now / 3600.0) as u64;
        if hour > self.hour {
            self.hour = hour;
            self.lines = self.globals.tops().lines(&self.calibration, now);
        }
    }
}
