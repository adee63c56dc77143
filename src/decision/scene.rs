//! One request of a known caller as rules see it: facts, derived values, and what a what-if changes of them.

use super::{
    inputs::{self, CERTIFIED, is_certified_service, trust_inputs},
    outcome::{self, DeviceProblem},
    posture::{Lack, Posture, Sensitivity, Subject, posture},
    target::Target,
};
use crate::{
    domain::{
        AuthMethods, Behavior, DeviceProof, DeviceRecord, DeviceSighting, DeviceStatus, Evidence, Fact, Facts,
        Identity, Lines, NetworkKind, Place, Possession, RiskModel, RiskScore, SessionState, Signal, SignalName,
        SubjectKind, TrustLevel, TrustScore, Unavailable, UnixTime,
    },
    policy::{Rules, model::DeviceMode},
    risk::fixed,
    trust,
};

/// A strong authentication no older than this counts as fresh, in seconds: what a step-up asks for as `max_age`.
pub(super) const FRESH: u64 = 300;
/// How far a score must lie above a level's bound to lift a session to it at once, and how long, in seconds, a smaller
/// excess must last.
pub(super) const LIFT_MARGIN: f64 = 0.05;
const LIFT_AFTER: u64 = 300;

/// Changes to the facts that a step-up would bring: "what if".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WhatIf {
    pub(super) methods: AuthMethods,
    /// A new authentication, so many seconds ago.
    pub(super) authenticated: Option<u64>,
    /// The authentication happened in this context, after whatever guard asked for it.
    pub(super) stepped_up: bool,
}

/// What is known of the device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Device<'a> {
    /// Nobody looks.
    Ignored,
    Unknown(Unavailable),
    /// None named, or one that the registry does not know.
    Unregistered,
    /// A contradiction, and the record where there is one.
    Contradicted(DeviceProblem, Option<&'a DeviceRecord>),
    Registered(&'a DeviceSighting, &'a DeviceRecord),
}

impl<'a> Device<'a> {
    fn of(fact: &'a Fact<DeviceSighting>, identity: &Identity, mode: DeviceMode) -> Self {
        if mode == DeviceMode::Never {
            return Self::Ignored;
        }
        match fact {
            Fact::Known { value, .. } => Self::seen(value, identity),
            Fact::Absent if identity.device.is_some() => Self::Contradicted(DeviceProblem::OwedToToken, None),
            Fact::Absent => Self::Unregistered,
            Fact::Unavailable(why) => Self::Unknown(*why),
            Fact::NotAsked if mode == DeviceMode::Always => Self::Unknown(Unavailable::NotReady),
            Fact::NotAsked => Self::Ignored,
        }
    }

    fn seen(sighting: &'a DeviceSighting, identity: &Identity) -> Self {
        let record = sighting.record.as_deref();
        match (contradiction(sighting, identity), record) {
            (Some(problem), record) => Self::Contradicted(problem, record),
            (None, Some(record)) => Self::Registered(sighting, record),
            (None, None) => Self::Unregistered,
        }
    }

    fn record(self) -> Option<&'a DeviceRecord> {
        match self {
            Self::Contradicted(_, record) => record,
            Self::Registered(_, record) => Some(record),
            Self::Ignored | Self::Unknown(_) | Self::Unregistered => None,
        }
    }
}

/// The registered device of a caller, where nothing that is known contradicts it: what an upstream may be told of. Where
/// nobody asks for a device nobody is refused for one, and what a header says of it is only what a header says.
pub fn known_device(facts: &Facts) -> Option<&DeviceSighting> {
    let sighting = facts.device.value().filter(|sighting| sighting.record.is_some())?;
    contradiction(sighting, facts.identity()?).is_none().then_some(sighting)
}

/// What in a sighting cannot be true of the device it names, most telling first.
fn contradiction(sighting: &DeviceSighting, identity: &Identity) -> Option<DeviceProblem> {
    let differs = sighting.differs_from_token || identity.device.as_ref().is_some_and(|owed| *owed != sighting.id);
    let record = sighting.record.as_deref();
    let of = |test: fn(&DeviceRecord) -> bool| record.is_some_and(test);
    let other_owner = record.and_then(|record| record.user.as_ref()).is_some_and(|owner| *owner != identity.subject);
    [
        (differs, DeviceProblem::DiffersFromToken),
        (other_owner, DeviceProblem::OtherOwner),
        (of(|record| record.status == DeviceStatus::Revoked), DeviceProblem::Revoked),
        (of(|record| record.status == DeviceStatus::Suspended), DeviceProblem::Suspended),
        (sighting.evidence.certificate_expired, DeviceProblem::CertificateExpired),
        (sighting.key_differs, DeviceProblem::KeyDiffers),
        (sighting.fingerprint_differs, DeviceProblem::FingerprintDiffers),
        (of(|record| record.jailbroken == Some(true)), DeviceProblem::Jailbroken),
        (of(|record| record.compliant == Some(false)), DeviceProblem::NotCompliant),
    ]
    .into_iter()
    .find_map(|(seen, problem)| seen.then_some(problem))
}

/// A request of a caller whose credentials hold.
pub(super) struct Scene<'a> {
    pub(super) facts: &'a Facts,
    pub(super) rules: &'a Rules,
    pub(super) target: &'a Target<'a>,
    pub(super) identity: &'a Identity,
    pub(super) proof: Option<Possession>,
    pub(super) what_if: WhatIf,
    pub(super) methods: AuthMethods,
    /// Seconds since the authentication.
    pub(super) age: f64,
    pub(super) device: Device<'a>,
    /// A service's certificate stands for its device.
    pub(super) certified_service: bool,
    pub(super) risk: outcome::Risk,
    pub(super) trust: outcome::Trust,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        facts: &'a Facts,
        target: &'a Target<'a>,
        (identity, proof): (&'a Identity, Option<Possession>),
        what_if: WhatIf,
    ) -> Self {
        let certified_service = is_certified_service(facts, identity, proof);
        let mut scene = Self {
            facts,
            rules: target.rules,
            target,
            identity,
            proof,
            what_if,
            methods: AuthMethods::NONE,
            age: 0.0,
            device: Device::of(&facts.device, identity, target.device),
            certified_service,
            risk: outcome::Risk::default(),
            trust: outcome::Trust::default(),
        };
        scene.methods = scene.methods_used();
        scene.age = scene.seconds_since_authentication();
        scene.risk = scene.score_risk();
        scene.trust = scene.score_trust();
        scene
    }

    pub(super) fn is_service(&self) -> bool {
        self.identity.kind == SubjectKind::Service
    }

    pub(super) fn session(&self) -> Option<&'a SessionState> {
        self.facts.session.value()
    }

    pub(super) fn place(&self) -> Option<&'a Place> {
        self.facts.place.value()
    }

    fn behavior(&self) -> Option<&'a Behavior> {
        self.facts.behavior.value()
    }

    fn methods_used(&self) -> AuthMethods {
        inputs::methods_used(self.facts, self.identity, self.certified_service).union(self.what_if.methods)
    }

    pub(super) fn auth_time(&self) -> Option<UnixTime> {
        inputs::auth_time(self.facts, self.identity)
    }

    pub(super) fn issued_at(&self) -> UnixTime {
        inputs::issued_at(self.facts, self.identity)
    }

    fn authenticated_at(&self) -> UnixTime {
        inputs::authenticated_at(self.facts, self.identity)
    }

    fn seconds_since_authentication(&self) -> f64 {
        let since = self.facts.now.since(self.authenticated_at()).as_secs_f64();
        self.what_if.authenticated.map_or(since, |seconds| since.min(seconds as f64))
    }

    /// Seconds since the session began: since the authentication or, where the token hides it, since we first saw it.
    pub(super) fn session_age(&self) -> f64 {
        match self.session() {
            Some(session) if self.auth_time().is_none() && self.what_if.authenticated.is_none() => {
                self.age.max(self.facts.now.since(session.created_at).as_secs_f64())
            }
            _ => self.age,
        }
    }

    /// Whether a strong authentication was made in this context after a guard first asked for one.
    pub(super) fn stepped_up(&self) -> bool {
        if self.what_if.stepped_up {
            return true;
        }
        match &self.facts.session {
            Fact::Known { value: session, .. } => {
                session.stepped_up.is_some_and(|(used, _)| used.is_multi_factor()) || self.answers_challenge(session)
            }
            // Nothing remembers when it was asked for: a fresh one is all that can be told.
            Fact::NotAsked => self.methods.is_multi_factor() && self.auth_time().is_some() && self.age <= FRESH as f64,
            Fact::Absent | Fact::Unavailable(_) => false,
        }
    }

    /// Whether somebody authenticated, in whatever way, after a rule first asked for it here.
    pub(super) fn reauthenticated(&self) -> bool {
        let answered = self.session().is_some_and(|session| self.authenticated_since_challenge(session));
        self.what_if.authenticated.is_some() || self.stepped_up() || answered
    }

    /// Whether the authentication at hand is strong, newer than the question, and not known from another context.
    pub(super) fn answers_challenge(&self, session: &SessionState) -> bool {
        self.methods.is_multi_factor()
            && self.authenticated_since_challenge(session)
            && !self.authenticated_elsewhere(session)
    }

    fn authenticated_elsewhere(&self, session: &SessionState) -> bool {
        let elsewhere = session.authenticated_elsewhere.map(UnixTime::as_secs);
        let authenticated = self.auth_time().map(UnixTime::as_secs);
        elsewhere.zip(authenticated).is_some_and(|(elsewhere, authenticated)| authenticated <= elsewhere)
    }

    /// `auth_time` counts whole seconds, so the comparison does too.
    fn authenticated_since_challenge(&self, session: &SessionState) -> bool {
        let challenged = session.challenged_at.map(UnixTime::as_secs);
        let authenticated = self.auth_time().map(UnixTime::as_secs);
        challenged.zip(authenticated).is_some_and(|(challenged, authenticated)| authenticated >= challenged)
    }

    fn score_risk(&self) -> outcome::Risk {
        let (mut score, mut lines) = match (self.rules.risk_model(), self.behavior().and_then(|past| past.assessment)) {
            (RiskModel::None, _) => (RiskScore::default(), Lines::new()),
            (RiskModel::Statistical, Some(assessment)) if assessment.cold_start => {
                let (learned, fixed) = (self.learned_risk(&assessment), self.fixed_risk());
                if learned.0 > fixed.0 { learned } else { fixed }
            }
            (RiskModel::Statistical, Some(assessment)) => self.learned_risk(&assessment),
            (RiskModel::Statistical | RiskModel::Fixed, _) => self.fixed_risk(),
        };
        if let Some(risk) = self.facts.notice.value().and_then(|notice| notice.risk)
            && self.rules.risk_model() != RiskModel::None
        {
            lines.push(Signal::new(SignalName::ReportedRisk, risk.points(), Evidence::Seen));
            score = RiskScore::new(score.get() + risk.points());
        }
        outcome::Risk { score, level: score.level(), lines }
    }

    /// The model's score; its lines share the points by their weight.
    fn learned_risk(&self, assessment: &crate::domain::Assessment) -> (RiskScore, Lines) {
        let score = if self.stepped_up() { assessment.after_step_up } else { assessment.score };
        let against = || assessment.terms.iter().flatten().filter(|(_, nats)| *nats > 0.0);
        let sum: f64 = against().map(|(_, nats)| nats).sum();
        let line =
            |(name, nats): &(SignalName, f64)| Signal::new(*name, score.get() * nats / sum, Evidence::Nats(*nats));
        let mut lines: Lines = against().map(line).collect();
        let missing = fixed::unknown(SignalName::LocationUnknown, self.penalty(Subject::Place, &self.facts.place));
        lines.extend(missing);
        (RiskScore::new(score.get() + missing.map_or(0.0, |line| line.points)), lines)
    }

    /// The risk as it is before what a step-up takes from it.
    pub(super) fn unproven_risk(&self) -> f64 {
        let learned = self.behavior().and_then(|past| past.assessment).map_or(0.0, |told| told.score.get());
        if self.rules.risk_model() == RiskModel::Statistical {
            learned.max(self.risk.score.get())
        } else {
            self.risk.score.get()
        }
    }

    fn fixed_risk(&self) -> (RiskScore, Lines) {
        let risk = fixed::score(&self.fixed_inputs());
        (risk.score, risk.lines)
    }

    fn fixed_inputs(&self) -> fixed::Inputs {
        let record = self.device.record();
        let place = self.place();
        let past = self.behavior();
        let new_to_subject = past.is_some_and(|past| past.new_device == Some(true));
        fixed::Inputs {
            kind: self.identity.kind,
            multi_factor: self.methods.is_multi_factor(),
            new_device: match self.device {
                Device::Ignored => false,
                Device::Unregistered | Device::Unknown(_) | Device::Contradicted(_, None) => true,
                Device::Contradicted(_, Some(_)) | Device::Registered(..) => new_to_subject,
            },
            unusual_location: place.is_some_and(|place| place.unusual || place.impossible_travel),
            network: place.map_or(NetworkKind::Ordinary, |place| place.network),
            unusual_time: past.is_some_and(|past| past.unusual_time),
            rapid_requests: past.is_some_and(|past| past.rapid_requests),
            not_compliant: record.is_some_and(|record| record.compliant == Some(false)),
            jailbroken: record.is_some_and(|record| record.jailbroken == Some(true)),
            place_unavailable: self.penalty(Subject::Place, &self.facts.place),
            behavior_unavailable: self.penalty(Subject::Behavior, &self.facts.behavior),
        }
    }

    /// Why a fact is missing, where the posture table makes that cost points.
    fn penalty<T>(&self, subject: Subject, fact: &Fact<T>) -> Option<Unavailable> {
        let lack = Lack::of(fact)?;
        match (lack, posture(subject, lack, Sensitivity::Weighed)) {
            (Lack::Unavailable(why), Posture::Penalty) => Some(why),
            _ => None,
        }
    }

    fn score_trust(&self) -> outcome::Trust {
        let age = (!self.is_service()).then_some(self.age);
        let trust = trust::score(&trust_inputs(self.facts, self.methods, self.device_trust(), self.risk.score, age));
        let level = self.held_level(trust.score, trust.level);
        outcome::Trust { score: trust.score, level, raw_level: trust.level, lines: trust.lines }
    }

    /// Hysteresis: a session falls to a lower level at once. It rises with a new authentication, with a score clearly
    /// above the bound, or after the higher score has lasted; until then the lower level counts.
    fn held_level(&self, score: TrustScore, raw: TrustLevel) -> TrustLevel {
        let Some(session) = self.session().filter(|_| !self.is_service() && self.what_if == WhatIf::default()) else {
            return raw;
        };
        let lasted = session.rising_since.is_some_and(|since| self.facts.now.since(since).as_secs() >= LIFT_AFTER);
        if raw <= session.level || lasted || self.authenticated_at() >= session.level_since {
            return raw;
        }
        trust::level(TrustScore::new(score.get() - LIFT_MARGIN), self.methods).max(session.level)
    }

    fn device_trust(&self) -> Option<(TrustScore, DeviceProof)> {
        match self.device {
            Device::Registered(sighting, record) => {
                Some((trust::device::score(record, sighting.evidence, self.facts.now), sighting.proof))
            }
            Device::Unregistered | Device::Ignored if self.certified_service => Some(CERTIFIED),
            Device::Ignored | Device::Unknown(_) | Device::Unregistered | Device::Contradicted(..) => None,
        }
    }
}
