//! The answer of the model: a number of nats per named term, three hypotheses, one score, its reasons.
//!
//! A small `Copy` value of fixed size. Everything else (score, winner, reasons, what-if) is a pure
//! function of the terms, so that what is explained is what was scored.

use super::model::Model;

/// A named piece of evidence; positive nats speak for an attacker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Term {
    /// Country, autonomous system and network, against the user's own.
    Network,
    /// Device and client software, against the user's own.
    Device,
    /// No device named, against the user's own habit.
    DeviceMissing,
    /// Known device id with foreign software, or without the proof it always gives.
    DeviceMismatch,
    /// Authentication weaker than this user's.
    Auth,
    /// Too far for the time since the last verified position.
    Travel,
    /// Hour and day of the week.
    Time,
    /// Accumulated surprise of actions and their order.
    Behaviour,
    /// Requests of the last seconds.
    Rate,
    /// Requests of the last half hour.
    Volume,
    /// Other users away from home on the same address.
    Share,
    /// Not compliant or jailbroken.
    Posture,
    /// The session continues with another device (or, negative, with all it always had).
    SessionDevice,
    /// The session continues with other client software.
    SessionClient,
    /// The session continues from another network.
    SessionNetwork,
    /// The session alternates between contexts within minutes.
    SessionConcurrent,
    /// A challenge was failed in this context.
    ChallengeFailed,
}

impl Term {
    /// How many there are.
    pub const COUNT: usize = 17;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Network,
        Self::Device,
        Self::DeviceMissing,
        Self::DeviceMismatch,
        Self::Auth,
        Self::Travel,
        Self::Time,
        Self::Behaviour,
        Self::Rate,
        Self::Volume,
        Self::Share,
        Self::Posture,
        Self::SessionDevice,
        Self::SessionClient,
        Self::SessionNetwork,
        Self::SessionConcurrent,
        Self::ChallengeFailed,
    ];

    /// The reason code when this term speaks against the request.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Network => "NETWORK_UNUSUAL",
            Self::Device => "DEVICE_NEW",
            Self::DeviceMissing => "DEVICE_MISSING",
            Self::DeviceMismatch => "DEVICE_MISMATCH",
            Self::Auth => "AUTH_WEAKER_THAN_USUAL",
            Self::Travel => "IMPOSSIBLE_TRAVEL",
            Self::Time => "TIME_UNUSUAL",
            Self::Behaviour => "BEHAVIOUR_UNUSUAL",
            Self::Rate => "RATE_HIGH",
            Self::Volume => "VOLUME_HIGH",
            Self::Share => "ADDRESS_SHARED_BY_NEW_USERS",
            Self::Posture => "DEVICE_POSTURE",
            Self::SessionDevice => "SESSION_DEVICE_CHANGED",
            Self::SessionClient => "SESSION_CLIENT_CHANGED",
            Self::SessionNetwork => "SESSION_NETWORK_CHANGED",
            Self::SessionConcurrent => "SESSION_CONCURRENT",
            Self::ChallengeFailed => "CHALLENGE_FAILED",
        }
    }
}

/// What may be going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hypothesis {
    /// Somebody else holds the credentials.
    CredentialTheft,
    /// Somebody else holds the session.
    SessionTheft,
    /// The right person does the wrong thing.
    Abuse,
}

impl Hypothesis {
    /// All three, in the order of the odds.
    pub const ALL: [Self; 3] = [Self::CredentialTheft, Self::SessionTheft, Self::Abuse];

    /// Its stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CredentialTheft => "credential_theft",
            Self::SessionTheft => "session_theft",
            Self::Abuse => "abuse",
        }
    }
}

/// One line of an explanation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// The term.
    pub term: Term,
    /// What it adds to the winning hypothesis, in nats.
    pub nats: f64,
}

/// What the model says about one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Nats per term, in the order of [`Term::ALL`].
    nats: [f64; Term::COUNT],
    /// Log odds of the hypotheses, in the order of [`Hypothesis::ALL`].
    odds: [f64; 3],
    /// ln(e^H1 + e^H2 + e^H3), never clipped.
    score: f64,
}

impl Evidence {
    /// Weighs terms into hypotheses and a score.
    #[must_use]
    pub fn weigh(nats: [f64; Term::COUNT], model: &Model) -> Self {
        let odds = Hypothesis::ALL.map(|hypothesis| {
            Term::ALL.iter().fold(prior(hypothesis, model), |sum, term| {
                sum + contribution(hypothesis, *term, nats[*term as usize], model)
            })
        });
        Self { nats, odds, score: log_sum_exp(odds) }
    }

    /// Nats of one term.
    #[must_use]
    pub fn nats(&self, term: Term) -> f64 {
        self.nats[term as usize]
    }

    /// Nats of all terms, in the order of [`Term::ALL`].
    #[must_use]
    pub fn terms(&self) -> [f64; Term::COUNT] {
        self.nats
    }

    /// S: the log odds that something is wrong, in nats.
    #[must_use]
    pub fn score(&self) -> f64 {
        self.score
    }

    /// Log odds of one hypothesis.
    #[must_use]
    pub fn odds(&self, hypothesis: Hypothesis) -> f64 {
        self.odds[hypothesis as usize]
    }

    /// The likeliest hypothesis.
    #[must_use]
    pub fn hypothesis(&self) -> Hypothesis {
        let higher = |best: Hypothesis, next: Hypothesis| if self.odds(next) > self.odds(best) { next } else { best };
        Hypothesis::ALL.into_iter().fold(Hypothesis::CredentialTheft, higher)
    }

    /// The three terms that add most to the likeliest hypothesis, the strongest first.
    #[must_use]
    pub fn reasons(&self, model: &Model) -> [Option<Reason>; 3] {
        let mut top = [None; 3];
        let winner = self.hypothesis();
        for term in Term::ALL {
            let nats = contribution(winner, term, self.nats(term), model);
            if nats > 0.0 {
                insert(&mut top, Reason { term, nats });
            }
        }
        top
    }

    /// The same request without what one term holds against it.
    #[must_use]
    pub fn without(&self, term: Term, model: &Model) -> Self {
        let mut nats = self.nats;
        nats[term as usize] = nats[term as usize].min(0.0);
        Self::weigh(nats, model)
    }

    /// The same request after a passed step-up: doubts about who it is are cleared, what is done is not.
    #[must_use]
    pub fn after_step_up(&self, model: &Model) -> Self {
        let mut nats = self.nats;
        for term in CLEARED_BY_STEP_UP {
            nats[term as usize] = nats[term as usize].min(0.0);
        }
        nats[Term::SessionDevice as usize] = model.no_change;
        Self::weigh(nats, model)
    }
}

/// What proving one's identity answers. Behaviour, rate, volume and posture are not among them.
const CLEARED_BY_STEP_UP: [Term; 11] = [
    Term::Network,
    Term::Device,
    Term::DeviceMissing,
    Term::DeviceMismatch,
    Term::Auth,
    Term::Travel,
    Term::Share,
    Term::SessionClient,
    Term::SessionNetwork,
    Term::SessionConcurrent,
    Term::ChallengeFailed,
];

fn prior(hypothesis: Hypothesis, model: &Model) -> f64 {
    match hypothesis {
        Hypothesis::CredentialTheft => model.prior_theft,
        Hypothesis::SessionTheft => model.prior_session,
        Hypothesis::Abuse => model.prior_abuse,
    }
}

/// What a term adds to a hypothesis. Never falls as the nats rise, which is what makes removing evidence lower the score.
fn contribution(hypothesis: Hypothesis, term: Term, nats: f64, model: &Model) -> f64 {
    match hypothesis {
        Hypothesis::CredentialTheft => in_credential_theft(term, nats, model),
        Hypothesis::SessionTheft => in_session_theft(term, nats, model),
        Hypothesis::Abuse => in_abuse(term, nats, model),
    }
}

fn in_credential_theft(term: Term, nats: f64, model: &Model) -> f64 {
    match term {
        Term::Behaviour => model.h1_b * nats,
        Term::Rate | Term::Volume => 0.0,
        Term::SessionDevice | Term::SessionClient | Term::SessionNetwork | Term::SessionConcurrent => 0.0,
        _ => nats,
    }
}

fn in_session_theft(term: Term, nats: f64, model: &Model) -> f64 {
    match term {
        Term::Network => model.h2_net * nats.max(-1.0),
        Term::Travel => model.h2_vel * nats,
        Term::Time => model.h2_time * nats,
        Term::Behaviour => model.h2_b * nats,
        Term::Device | Term::DeviceMissing | Term::DeviceMismatch => model.h2_dev * nats.max(0.0),
        Term::Auth | Term::Rate | Term::Volume | Term::Share | Term::Posture => 0.0,
        _ => nats,
    }
}

fn in_abuse(term: Term, nats: f64, model: &Model) -> f64 {
    match term {
        Term::Behaviour | Term::Rate | Term::Volume => nats,
        Term::Time => model.h3_time * nats,
        _ => 0.0,
    }
}

fn log_sum_exp(odds: [f64; 3]) -> f64 {
    let top = odds.into_iter().fold(f64::NEG_INFINITY, f64::max);
    top + odds.into_iter().map(|h| (h - top).exp()).sum::<f64>().ln()
}

fn insert(top: &mut [Option<Reason>; 3], reason: Reason) {
    let mut carried = Some(reason);
    for place in top {
        if carried.map_or(f64::NEG_INFINITY, |r| r.nats) > place.map_or(f64::NEG_INFINITY, |r| r.nats) {
            std::mem::swap(place, &mut carried);
        }
    }
}
