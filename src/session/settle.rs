//! What a decision means for the session it was made in: a beginning, newer evidence, a level, a challenge, an end.

use std::sync::Arc;

use super::{
    Sessions, Visit,
    live::{Held, Live},
    record::Session,
};
use crate::{
    decision::{Class, Decision, SessionEffect},
    domain::{Facts, Identity, SessionStart, SubjectKind, UnixTime},
};

/// What came of a request, for its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The session was ended just now; its name in notices, and why.
    pub ended: Option<(String, Arc<str>)>,
    /// A step-up that was asked for here has been passed just now.
    pub passed: bool,
    /// An authentication is asked for here, and has not been given.
    pub challenged: bool,
    /// An authentication was seen here, before it was seen in any other context.
    pub authenticated: bool,
}

/// How soon others must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    None,
    Behind,
    AtOnce,
}

impl Sessions {
    /// Remembers what `decision` means for the session. Waits for nothing.
    pub fn settle(&self, visit: &Visit, facts: &Facts, decision: &Decision) -> Settled {
        let Some(identity) = facts.identity() else { return Settled::default() };
        let ends = decision.session == SessionEffect::End || facts.session.value().is_some_and(|known| known.ended);
        // Nothing begins with credentials that do not hold, nor while what matters is unknown.
        let holds =
            !matches!(decision.class, Some(Class::Malformed | Class::Credentials | Class::Revoked | Class::Unknown));
        if !(holds || ends) || facts.session.value().is_some_and(|known| known.over_limit) {
            return Settled::default();
        }
        let (live, new) = match &visit.live {
            Some(live) => (Arc::clone(live), false),
            None => self.begin(visit, identity, facts, decision),
        };
        let (mut settled, urgency) = live.with(|held| {
            let renewed = visit.renews && held.is_over_for(identity, &self.settings, facts.now);
            if renewed {
                held.renew(begun(identity, facts, decision), &self.settings, facts.now);
                self.counters.begun.increment();
            }
            // What a token of the session before comes to is nothing to this one.
            if held.session.is_after(identity) {
                return (Settled::default(), Urgency::None);
            }
            let before = held.session.ended.is_some();
            let mut settled = held.settle(visit, identity, facts, decision, ends);
            if let (false, Some(why)) = (before, &held.session.ended) {
                settled.ended = Some((visit.key.text(), Arc::clone(why)));
                self.ended(&held.session, why, false);
            }
            let urgency = match held.urgency(&settled, new, self.settings.write_interval.get(), facts.now) {
                _ if renewed => Urgency::AtOnce,
                urgency => urgency,
            };
            (settled, urgency)
        });
        if settled.challenged && visit.context.carried.is_none() && identity.kind == SubjectKind::Person {
            self.carry(visit, asked_at(identity, facts.now));
        }
        match urgency {
            Urgency::None => {}
            Urgency::Behind => self.write_behind(&live),
            Urgency::AtOnce => self.write_at_once(&live),
        }
        if settled.passed {
            self.counters.passed.increment();
        }
        if let Some((_, why)) = &settled.ended {
            tracing::info!(%why, "a session was ended");
        }
        settled.challenged = decision.session == SessionEffect::Challenged;
        settled
    }

    fn begin(&self, visit: &Visit, identity: &Identity, facts: &Facts, decision: &Decision) -> (Arc<Live>, bool) {
        let mut new = false;
        let live = self.known.get_with(visit.key, || {
            new = true;
            let live = Live::new(visit.key, begun(identity, facts, decision));
            // The store was just asked: it has none.
            live.was_read(self.epoch(), tokio::time::Instant::now(), || true);
            Arc::new(live)
        });
        if new {
            self.counters.begun.increment();
        }
        (live, new)
    }
}

fn begun(identity: &Identity, facts: &Facts, decision: &Decision) -> Session {
    let judged = (decision.trust.raw_level, decision.trust.score, decision.risk.score);
    let mut session = Session::begin(identity, start(facts), judged, facts.now);
    session.unplaced = !decision.is_allow();
    session
}

fn start(facts: &Facts) -> SessionStart {
    let place = facts.place.value();
    SessionStart {
        device: facts.device.value().map(|device| device.id.clone()),
        country: place.and_then(|place| place.country.clone()),
        asn: place.and_then(|place| place.asn),
    }
}

/// When a question counts as put. `auth_time` counts whole seconds, so an authentication in the second of the question
/// may have come before it. The one at hand did: it is no answer, and the question counts as put in the second after it.
fn asked_at(identity: &Identity, now: UnixTime) -> UnixTime {
    let next = |time: UnixTime| UnixTime::from_secs(time.as_secs().saturating_add(1));
    identity.auth_time.filter(|time| time.as_secs() >= now.as_secs()).map_or(now, next)
}

impl Held {
    fn settle(
        &mut self,
        visit: &Visit,
        identity: &Identity,
        facts: &Facts,
        decision: &Decision,
        ends: bool,
    ) -> Settled {
        let (session, now) = (&mut self.session, facts.now);
        let mut settled = Settled::default();
        if ends {
            let why = || match &decision.rule {
                Some(rule) if decision.session == SessionEffect::End => rule.as_str().into(),
                _ => "idle".into(),
            };
            session.end(why, now);
            return settled;
        }
        session.unplaced &= !decision.is_allow();
        session.seen_at = session.seen_at.max(now);
        // That a token was asked about is no evidence.
        let renewed = if identity.issue_unstated { identity.auth_time } else { Some(identity.issued_at) };
        session.verified_at = renewed.map_or(session.verified_at, |at| at.max(session.verified_at));
        session.auth_time = session.auth_time.max(identity.auth_time);
        session.methods = session.methods.union(identity.methods);
        settled.authenticated = session.saw_authentication(identity.auth_time, &visit.context, now);
        (session.trust, session.risk) = (decision.trust.score, decision.risk.score);
        session.take_level(decision, now);
        if let Some(carried) = visit.context.carried {
            session.mark_mut(visit.context.id()).challenged_at.get_or_insert(carried);
        }
        match decision.session {
            SessionEffect::Keep | SessionEffect::End => {}
            SessionEffect::Challenged => {
                let mark = session.mark_mut(visit.context.id());
                settled.challenged = mark.challenged_at.is_none();
                mark.challenged_at.get_or_insert_with(|| asked_at(identity, now));
            }
            SessionEffect::SteppedUp(methods, at) => {
                session.mark_mut(visit.context.id()).passed = Some((methods, at));
                session.verified_at = session.verified_at.max(at);
                settled.passed = true;
            }
        }
        settled
    }

    fn urgency(&mut self, settled: &Settled, new: bool, interval: std::time::Duration, now: UnixTime) -> Urgency {
        let renewed = settled.authenticated && !new;
        if settled.challenged || settled.passed || settled.ended.is_some() || renewed {
            self.written = now;
            return Urgency::AtOnce;
        }
        if new || now.since(self.written) >= interval {
            self.written = now;
            return Urgency::Behind;
        }
        Urgency::None
    }
}

impl Session {
    /// The level that counted, and whether the score has been above it all the while.
    fn take_level(&mut self, decision: &Decision, now: UnixTime) {
        if decision.trust.level != self.level {
            (self.level, self.level_since, self.rising_since) = (decision.trust.level, now, None);
        } else if decision.trust.raw_level > self.level {
            self.rising_since.get_or_insert(now);
        } else {
            self.rising_since = None;
        }
    }
}
