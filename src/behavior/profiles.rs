//! The state of the model for all threads of a process: subjects in shards, each behind its own lock, and what
//! everyone has in common behind one that is written in batches. Bounded memory; no lock is held across an await.
//!
//! Where there is a ledger, a past that is not in memory may be in the store: such a subject is not judged, and nothing is
//! learned of it, until the ledger has said what there is.

use parking_lot::{Mutex, RwLock};

use super::Settings;
use crate::{
    domain::{
        Behavior, Place,
        metric::{Page, Source, Value},
    },
    risk::statistical::{
        Binding, Capacity, Event, Familiar, Globals, Key, Learned, Lines, Model, Outcome, Past, Profile, Scored, Term,
        assess, behavior_score, binding::Context, bounded::Bounded, globals::Record, learn, summary,
    },
};

/// Subjects are spread over this many locks.
const SHARDS: usize = 64;
/// Requests whose shared counts are applied together.
const BATCH: usize = 64;
/// Seconds after which a session in use is written down again: a fraction of how long it is kept.
const RENEWAL: f64 = 4.0 * 3600.0;
/// Nats over which a term is called by its name in [`Behavior`].
const UNUSUAL_TIME: f64 = 0.9;
const RAPID: f64 = 1.0;

/// Profiles of subjects, their sessions, and what they have in common.
#[derive(Debug)]
pub struct Profiles {
    model: Model,
    shards: Box<[Mutex<Shard>]>,
    globals: RwLock<Globals>,
    lines: RwLock<(u64, Lines)>,
    /// Shared counts that wait to be applied.
    pending: Mutex<Vec<Learned>>,
    /// A ledger knows the pasts that are not here.
    kept: bool,
}

#[derive(Debug)]
struct Shard {
    profiles: Bounded<Known<Profile>>,
    sessions: Bounded<Known<Binding>>,
}

/// A past, and how it came here.
#[derive(Clone, Debug, Default)]
struct Known<T> {
    past: T,
    /// What there is in the ledger is part of it.
    whole: bool,
    /// Number of the latest news that is part of it.
    as_of: u64,
    /// When it was written into the ledger last, where that has to be known.
    written: f64,
}

/// A scored request: what the decision reads, and what learning needs afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    pub behavior: Behavior,
    event: Event,
    scored: Scored,
    familiar: Familiar,
}

impl Observed {
    /// What was scored.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// S of the model, in nats.
    pub fn score(&self) -> f64 {
        self.scored.evidence.score()
    }

    /// Whether a step-up was passed in this context.
    pub fn is_proven(&self) -> bool {
        self.scored.proven()
    }

    /// Fills in what only the subject's past knows of a place.
    pub fn complete(&self, place: &mut Place) {
        place.known_to_subject = self.familiar.network;
        place.unusual |= self.familiar.country_is_new;
        place.impossible_travel |= self.familiar.impossible_travel;
    }
}

impl Profiles {
    /// No past yet, and room for as much as `settings` say. `kept`: there is a ledger.
    pub fn new(settings: &Settings, kept: bool) -> Self {
        Self { kept, ..Self::with_model(Model::default(), settings.capacity()) }
    }

    /// As [`Profiles::new`], with constants of one's own and without a ledger.
    pub(super) fn with_model(model: Model, capacity: Capacity) -> Self {
        let shard = || Shard {
            profiles: Bounded::with_capacity(capacity.profiles.div_ceil(SHARDS)),
            sessions: Bounded::with_capacity(capacity.sessions.div_ceil(SHARDS)),
        };
        Self {
            model,
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            globals: RwLock::new(Globals::default()),
            lines: RwLock::new((0, model.calibration().initial)),
            pending: Mutex::new(Vec::with_capacity(BATCH)),
            kept: false,
        }
    }

    /// Scores a verified request. Nothing is learned until [`Profiles::settle`] says what came of it. `None`: its past may be
    /// in the ledger.
    pub fn observe(&self, event: Event) -> Option<Observed> {
        let mut shard = self.shard(event.subject).lock();
        let Shard { profiles, sessions } = &mut *shard;
        let (profile, session) = (profiles.entry(event.subject), sessions.entry(event.session));
        if self.kept && !(profile.whole && session.whole) {
            return None;
        }
        let profile = &profile.past;
        let scored = assess(&self.model, profile, &self.globals.read(), &session.past, &event);
        let known = !profile.is_empty();
        let new_device = event.device.id.map(|id| !profile.knows_device(id.0));
        let familiar = Familiar::of(profile, &scored, &self.model);
        drop(shard);
        let evidence = &scored.evidence;
        let behavior = Behavior {
            unusual_time: evidence.nats(Term::Time) >= UNUSUAL_TIME,
            rapid_requests: evidence.nats(Term::Rate) >= RAPID,
            new_device: new_device.filter(|_| known),
            score: behavior_score(&scored, scored.is_acquainted()),
            assessment: Some(summary(&scored, self.lines(), &self.model)),
        };
        Some(Observed { behavior, event, scored, familiar })
    }

    /// Learns what came of a request, and returns what other replicas should hear, and whether the session is to be written
    /// down: it changed, or it was not for long.
    pub fn settle(&self, observed: &Observed, outcome: Outcome) -> (Learned, bool) {
        let Observed { event, scored, .. } = observed;
        let mut shard = self.shard(event.subject).lock();
        let Shard { profiles, sessions } = &mut *shard;
        let (profile, session) = (profiles.entry(event.subject), sessions.entry(event.session));
        let past = Past { profile: &mut profile.past, binding: &mut session.past };
        let before = past.binding.find(scored.surroundings()).copied();
        let learned = learn(past, self.lines(), event, scored, outcome);
        let Context { surroundings, standing, learned: weight, learned_device, .. } = learned.context;
        let same = before.is_some_and(|before| {
            (before.surroundings, before.standing) == (surroundings, standing)
                && (before.learned, before.learned_device) == (weight, learned_device)
        });
        // What is in use must not end in the ledger: whoever came next would own the session.
        let tell = !same || event.now - session.written >= RENEWAL;
        if tell {
            session.written = event.now;
        }
        drop(shard);
        self.share(&learned);
        (learned, tell)
    }

    /// Takes over what another replica learned, in news of this number. Each must be taken once.
    pub fn hear(&self, learned: &Learned, number: u64) {
        let mut shard = self.shard(learned.subject).lock();
        if let Some(held) = shard.profiles.get_mut(learned.subject)
            && held.whole
            && held.as_of < number
        {
            held.past.merge(learned);
        }
        if let Some(held) = shard.sessions.get_mut(learned.session)
            && held.whole
        {
            held.past.merge(&learned.context);
        }
        drop(shard);
        self.share(learned);
    }

    /// Whether the pasts of a subject and of a session are here.
    pub fn holds(&self, subject: Key, session: Key) -> (bool, bool) {
        let shard = self.shard(subject).lock();
        let whole = shard.profiles.get(subject).is_some_and(|held| held.whole || !self.kept);
        (whole, shard.sessions.get(session).is_some_and(|held| held.whole || !self.kept))
    }

    /// Takes over what the ledger holds of a subject, news up to `as_of` included. What is here already stays.
    pub fn recall(&self, subject: Key, past: Profile, as_of: u64) {
        let mut shard = self.shard(subject).lock();
        let held = shard.profiles.entry(subject);
        if !held.whole {
            *held = Known { past, whole: true, as_of, written: 0.0 };
        }
    }

    /// Takes over the contexts that the ledger holds of a session.
    pub fn recall_session(&self, subject: Key, session: Key, contexts: &[Context]) {
        let mut shard = self.shard(subject).lock();
        let held = shard.sessions.entry(session);
        contexts.iter().for_each(|context| held.past.merge(context));
        // A context is written as it was at its latest request.
        held.written = contexts.iter().fold(held.written, |latest, context| latest.max(context.at));
        held.whole = true;
    }

    /// The lines in force.
    pub fn lines(&self) -> Lines {
        self.lines.read().1
    }

    /// Where the lines of this hour would lie, by what is known here.
    pub fn own_lines(&self, now: f64) -> Lines {
        self.globals.read().tops().lines(&self.model.calibration(), now)
    }

    /// Whether calibration could have put lines there.
    pub fn may_lie(&self, lines: Lines) -> bool {
        self.model.calibration().allows(lines)
    }

    /// Puts lines in force that all replicas agreed on.
    pub fn agree_on(&self, lines: Lines) {
        self.lines.write().1 = lines;
    }

    /// Everything that is remembered of a subject here.
    pub fn profile(&self, subject: Key) -> Option<Profile> {
        self.shard(subject).lock().profiles.get(subject).map(|held| held.past.clone()).filter(|past| !past.is_empty())
    }

    /// Forgets a subject. Its sessions end by themselves: they hold contexts, no history.
    pub fn forget(&self, subject: Key) -> bool {
        let forgotten = self.shard(subject).lock().profiles.remove(subject);
        forgotten.is_some_and(|held| !held.past.is_empty())
    }

    /// Forgets what may be outdated because news were missed: the ledger is asked again.
    pub fn doubt_all(&self) {
        for shard in &self.shards {
            shard.lock().profiles.values_mut().for_each(|held| *held = Known::default());
        }
    }

    /// What everyone has in common, to be written down.
    pub fn everyone(&self) -> Record {
        self.flush();
        self.globals.read().record()
    }

    /// Takes over what was written down of everyone.
    pub fn recall_everyone(&self, record: &Record) {
        *self.globals.write() = Globals::restored(record);
    }

    /// Applies the shared counts that wait.
    pub fn flush(&self) {
        self.apply(&mut self.pending.lock(), &mut self.globals.write());
    }

    /// Hands on what a request taught of everyone: at once where nobody reads it, else in batches.
    fn share(&self, learned: &Learned) {
        if learned.shared.as_slice().is_empty() {
            return;
        }
        let mut pending = self.pending.lock();
        pending.push(*learned);
        if pending.len() >= BATCH {
            self.apply(&mut pending, &mut self.globals.write());
        } else if let Some(mut globals) = self.globals.try_write() {
            self.apply(&mut pending, &mut globals);
        }
    }

    /// Without a ledger, the lines follow once an hour.
    fn apply(&self, waiting: &mut Vec<Learned>, globals: &mut Globals) {
        let Some(now) = waiting.last().map(|learned| learned.at) else { return };
        waiting.drain(..).for_each(|learned| globals.apply_all(&learned));
        let hour = (now / 3600.0) as u64;
        let mut lines = self.lines.write();
        if !self.kept && hour > lines.0 {
            *lines = (hour, globals.tops().lines(&self.model.calibration(), now));
        }
    }

    fn shard(&self, subject: Key) -> &Mutex<Shard> {
        &self.shards[(subject.0 >> 32) as usize % SHARDS]
    }
}

impl Source for Profiles {
    fn collect(&self, page: &mut Page) {
        let sum = |of: fn(&Shard) -> u64| self.shards.iter().map(|shard| of(&shard.lock())).sum::<u64>() as f64;
        let held = "Pasts held in memory for the risk model";
        page.gauge("countersign_behavior_held", held, &[("of", "subject")], sum(|shard| shard.profiles.len() as u64));
        page.gauge("countersign_behavior_held", held, &[("of", "session")], sum(|shard| shard.sessions.len() as u64));
        let evicted = "Pasts that made room for others";
        let count = |of: fn(&Shard) -> u64| Value::Counter(self.shards.iter().map(|shard| of(&shard.lock())).sum());
        page.add("countersign_behavior_evicted", evicted, &[("of", "subject")], count(|s| s.profiles.evicted()));
        page.add("countersign_behavior_evicted", evicted, &[("of", "session")], count(|s| s.sessions.evicted()));
        let Lines { step, deny } = self.lines();
        let line = "Where the lines of the statistical model lie, in nats";
        page.gauge("countersign_risk_line", line, &[("line", "step_up")], step);
        page.gauge("countersign_risk_line", line, &[("line", "refusal")], deny);
    }
}
