//! Continuous verification: how long evidence lasts at each level of trust, and when a session must be looked at again.

use std::time::Duration;

use super::{
    outcome::{Decision, Detail, Finding, Findings, SessionEffect},
    posture::{Lack, Posture, Sensitivity, Subject, posture},
    reason::Reason,
    scene::Scene,
};
use crate::domain::{Fact, TrustLevel, UnixTime};

/// Seconds that evidence lasts at a level of trust.
const fn interval(level: TrustLevel) -> u64 {
    match level {
        TrustLevel::Untrusted => 300,
        TrustLevel::Low => 900,
        TrustLevel::Medium | TrustLevel::Privileged => 1800,
        TrustLevel::High => 3600,
    }
}

/// No interval is shorter than the token's life, up to this many seconds: within it, evidence cannot have been renewed.
const LONGEST_FLOOR: u64 = 3600;

/// Adds what the session says against the request: ended, out of reach, due for verification.
pub(super) fn apply(scene: &Scene<'_>, findings: &mut Findings) {
    match &scene.facts.session {
        Fact::Known { value: session, .. } if session.ended => {
            findings.push(Finding::new(Reason::SessionEnded, None));
        }
        Fact::Known { value: session, .. } if session.over_limit => {
            findings.push(Finding::new(Reason::TooManySessions, None));
        }
        Fact::Known { .. } => {}
        lacking => {
            if let Some(lack) = Lack::of(lacking)
                && let Posture::Refuse(reason) = posture(Subject::Session, lack, Sensitivity::Weighed)
            {
                let detail = if let Lack::Unavailable(why) = lack { Detail::Missing(why) } else { Detail::None };
                findings.push(Finding::new(reason, None).with(detail));
            }
        }
    }
    if next(scene).is_some_and(|due| due < scene.facts.now) {
        findings.push(Finding::new(Reason::ReverificationDue, None).with(Detail::Age(scene.age as u64)));
    }
}

/// When the evidence must be renewed; `None` for services and where nobody asks.
fn next(scene: &Scene<'_>) -> Option<UnixTime> {
    if scene.is_service() || !scene.rules.options().reverify || matches!(scene.facts.session, Fact::NotAsked) {
        return None;
    }
    let life = scene.identity.expires_at.since(scene.issued_at()).as_secs();
    let seconds = interval(scene.trust.level).max(life.min(LONGEST_FLOOR));
    Some(evidence_at(scene).plus(Duration::from_secs(seconds)))
}

/// When evidence was last renewed: a token issued, a step-up passed. Where privilege is asked for, only the person counts.
fn evidence_at(scene: &Scene<'_>) -> UnixTime {
    let now = scene.facts.now;
    if scene.what_if != super::scene::WhatIf::default() {
        return now.minus(Duration::from_secs(scene.what_if.authenticated.unwrap_or(0)));
    }
    if scene.target.min_trust_level == TrustLevel::Privileged {
        return now.minus(Duration::from_secs_f64(scene.age));
    }
    let session = scene.session();
    let passed = session.and_then(|session| session.stepped_up).map(|(_, at)| at);
    let renewed = session.map(|session| session.verified_at);
    [passed, renewed].into_iter().flatten().fold(scene.issued_at(), UnixTime::max).min(now)
}

/// Writes how long the answer may be relied on into an allow.
pub(super) fn limits(scene: &Scene<'_>, decision: &mut Decision) {
    let now = scene.facts.now;
    let durations = scene.target.policies.iter().filter_map(|policy| policy.constraints.session_duration);
    let over =
        durations.min().map(|longest| now.plus(longest.saturating_sub(Duration::from_secs_f64(scene.session_age()))));
    let next = next(scene);
    let first = [over, next].into_iter().flatten().fold(scene.identity.ends_at(now), UnixTime::min);
    decision.next_verification = next;
    // A certificate that nobody showed, only vouched for, has no end that is known.
    if first == UnixTime::MAX {
        return;
    }
    let left = first.since(now);
    decision.session_ttl = Some(left.as_secs());
    let streams = scene.facts.request.long_lived || scene.target.resources.iter().any(|resource| resource.streaming);
    // 0 could be read as "no limit".
    decision.stream_limit = streams.then(|| u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1));
}

/// What the session must remember, where step-up guards applied (`challenged`) or a rule ended it (`ends`).
pub(super) fn effect(scene: &Scene<'_>, ends: bool, challenged: bool, unsatisfied: bool) -> SessionEffect {
    if ends {
        return SessionEffect::End;
    }
    match (challenged, scene.session()) {
        (false, _) => SessionEffect::Keep,
        (true, _) if unsatisfied => SessionEffect::Challenged,
        (true, Some(session)) if session.stepped_up.is_none() && scene.answers_challenge(session) => {
            scene.auth_time().map_or(SessionEffect::Keep, |at| SessionEffect::SteppedUp(scene.methods, at))
        }
        (true, _) => SessionEffect::Keep,
    }
}
