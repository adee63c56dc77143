//! One check from beginning to end: read → authenticate → route → gather → decide → take quota and place → record.
//!
//! The only place where facts of different stages meet. Nothing here judges: what a missing fact means stands in
//! `decision::posture`.

mod behavior;
mod counters;
mod gather;
mod outcome;
mod request;
mod session;

use std::{hash::BuildHasher as _, net::IpAddr, sync::Arc, time::Instant as Stopwatch};

use arc_swap::ArcSwap;
use foldhash::quality::FixedState;
use rand::Rng as _;
use smallvec::SmallVec;
use tokio::time::Instant;

pub use self::{counters::Counters, outcome::Outcome};
use self::{counters::Stage, outcome::Beside, request::Message};
use crate::{
    assertion::{Assertions, Subject},
    behavior::Behaviors,
    clock::Clock,
    decision::{self, LiveFacts, Permit, Target},
    device::Devices,
    domain::{
        AccessRequest, DecisionId, Fact, Facts, Unavailable, UnixTime,
        metric::{Page, Source},
        path::PathProblem,
    },
    identity::{self, Authenticator},
    location::Locator,
    notice::Notices,
    policy::Rules,
    quota::Quotas,
    revocation::Revocations,
    session::Sessions,
    telemetry::{
        audit::{AuditRecord, Auditor},
        trace::{Span, TraceParent, Tracer},
    },
};

/// Everything a check needs, put together by `app`.
#[derive(Debug)]
pub struct Pipeline {
    pub clock: Clock,
    pub authenticator: Arc<Authenticator>,
    pub revocations: Arc<Revocations>,
    pub notices: Arc<Notices>,
    pub sessions: Arc<Sessions>,
    pub devices: Arc<Devices>,
    pub locator: Arc<Locator>,
    /// `None`: risk is not scored, and nobody's behaviour is looked at.
    pub behaviors: Option<Arc<Behaviors>>,
    pub quotas: Arc<Quotas>,
    pub rules: Arc<ArcSwap<Rules>>,
    pub assertions: Arc<Assertions>,
    pub auditor: Arc<Auditor>,
    pub tracer: Arc<Tracer>,
    pub counters: Arc<Counters>,
    /// How many proxies of ours append to `X-Forwarded-For`; `None`: the client is the peer of the connection.
    pub trusted_hops: Option<usize>,
}

impl Pipeline {
    /// Answers one CheckRequest that was asked at `started`. Never fails: what goes wrong is a fact, and facts are decided on.
    /// `parent`: the `traceparent` of the call itself, where traces are on.
    pub async fn check(&self, message: &[u8], parent: Option<&[u8]>, started: Instant, deadline: Instant) -> Outcome {
        let started = started.into_std();
        let now = self.clock.now();
        let id = decision_id(now);
        let rules = self.rules.load();
        let Ok(Message { request, carried, remove, traceparent }) = Message::read(message, id, self.trusted_hops)
        else {
            let facts = nothing_known(now, request::unread(id, PathProblem::Unreadable));
            return Box::pin(self.judge_unlooked(facts, Beside::default(), &rules, started)).await;
        };
        let span = self.span(parent, traceparent, id);
        let mut beside = Beside { trace: span.as_deref().map(Span::trace_id), span, remove, ..Beside::default() };
        let mut facts = nothing_known(now, request);
        let target = Target::of(&facts.request, &rules);
        if let Some(carried) = &carried {
            self.gather(carried, &mut facts, &mut beside, &target, deadline).await;
        }
        let ending = self.decide(&mut facts, target, &beside, deadline).await;
        let mut outcome = self.conclude(facts, ending, &rules, beside, started);
        if let Some(mut span) = outcome.beside.span.take() {
            span.note("verdict", outcome.decision().verdict.as_str());
            span.note("reason", outcome.decision().reason.map_or("none", decision::Reason::code));
        }
        outcome
    }

    /// The call's own `traceparent` is Envoy's span of this very question. The request's is whatever stood in it before Envoy's
    /// router writes its own: the client's, where no proxy before has put one there.
    fn span(&self, call: Option<&[u8]>, request: Option<&[u8]>, id: DecisionId) -> Option<Box<Span>> {
        if !self.tracer.is_on() {
            return None;
        }
        let parse =
            |text: Option<&[u8]>| text.and_then(|text| std::str::from_utf8(text).ok()).and_then(TraceParent::parse);
        self.tracer.begin(parse(call).or_else(|| parse(request)), id).map(Box::new)
    }

    /// What [`Pipeline::check`] would answer now, by which version of the rules, and why credentials were refused, without taking
    /// quota, using up a proof of possession, recording or counting anything. Whether a session that begins would have a place
    /// is not looked at. `client`: judged as the client's address instead of the one that the message tells.
    pub async fn explain(
        &self,
        message: &[u8],
        client: Option<IpAddr>,
        deadline: Instant,
    ) -> (Facts, decision::Decision, Arc<str>, Option<&'static str>) {
        let now = self.clock.now();
        let id = decision_id(now);
        let rules = self.rules.load();
        let mut facts = nothing_known(now, request::unread(id, PathProblem::Unreadable));
        let mut beside = Beside::default();
        if let Ok(Message { request, mut carried, .. }) = Message::read(message, id, self.trusted_hops) {
            if let Some(carried) = &mut carried {
                carried.credentials.only_look = true;
            }
            facts.request = request;
            facts.request.client = client.map(|client| client.to_canonical()).or(facts.request.client);
            if let Some(carried) = &carried {
                let target = Target::of(&facts.request, &rules);
                self.gather(carried, &mut facts, &mut beside, &target, deadline).await;
            }
        }
        let decision = *self.foresee(&mut facts, &rules, deadline).await;
        (*facts, decision, Arc::clone(rules.version()), beside.detail.map(identity::Detail::as_str))
    }

    /// What [`Self::decide`] would come to: the quota is looked at and not taken.
    async fn foresee(&self, facts: &mut Facts, rules: &Rules, deadline: Instant) -> Box<decision::Decision> {
        let decision = Box::new(decision::decide(facts, rules));
        if !decision.is_allow() {
            return decision;
        }
        if let Err(refusal) = self.audited(&decision) {
            return refusal;
        }
        let Some(wanted) = &decision.quota else { return decision };
        facts.quota = self.quotas.look(wanted, facts, deadline).await;
        let live = LiveFacts::gathered(facts, Target::of(&facts.request, rules));
        decision::authorize(live).map_or_else(|refusal| refusal, Permit::into_decision)
    }

    /// The answer when too many checks are under way: nothing is looked up, so that only what is public is let through; else 503.
    pub async fn shed(&self, message: &[u8]) -> Outcome {
        self.counters.shed();
        let now = self.clock.now();
        let id = decision_id(now);
        let (request, remove) = Message::read(message, id, self.trusted_hops).map_or_else(
            |_| (request::unread(id, PathProblem::Unreadable), SmallVec::new()),
            |message| (message.request, message.remove),
        );
        let mut facts = nothing_known(now, request);
        facts.credential = Fact::Unavailable(Unavailable::Overloaded);
        let beside = Beside { remove, ..Beside::default() };
        self.judge_unlooked(facts, beside, &self.rules.load(), Stopwatch::now()).await
    }

    /// The answer to a question that is larger than any that is read: 400.
    pub async fn too_large(&self) -> Outcome {
        let now = self.clock.now();
        let facts = nothing_known(now, request::unread(decision_id(now), PathProblem::TooLarge));
        self.judge_unlooked(facts, Beside::default(), &self.rules.load(), Stopwatch::now()).await
    }

    /// The answer to a call whose message cannot be had, or whose check has ended in a panic: 503. No message is read and nothing
    /// is judged, so that what went wrong does not go wrong again.
    pub fn refuse(&self, why: Unavailable) -> Outcome {
        match why {
            Unavailable::Internal => self.counters.panicked(),
            Unavailable::Overloaded => self.counters.shed(),
            _ => {}
        }
        let now = self.clock.now();
        let mut facts = nothing_known(now, request::unread(decision_id(now), PathProblem::Unreadable));
        facts.credential = Fact::Unavailable(why);
        Outcome {
            facts,
            ending: Err(decision::Decision::refusal(decision::Reason::CredentialsUnknown)),
            rules: Arc::clone(self.rules.load().version()),
            beside: Beside::default(),
            started: Stopwatch::now(),
        }
    }

    /// Counts an outcome and hands its record to the audit. The answer has been written from it by now.
    pub fn record(&self, outcome: Outcome) {
        let Outcome { facts, ending, rules, beside, started, .. } = outcome;
        let allowed = ending.is_ok();
        let decision = ending.map_or_else(|refusal| refusal, Permit::into_decision);
        if allowed && let (Some(device), Some(who)) = (facts.device.value(), facts.identity()) {
            self.devices.note_seen(device, &who.subject, facts.now);
        }
        let took = started.elapsed();
        self.counters.count(&decision);
        self.counters.time(Stage::Total, took);
        self.auditor.record(AuditRecord {
            facts,
            decision,
            rules,
            latency: took,
            trace_id: beside.trace,
            detail: beside.detail.map(identity::Detail::as_str),
            risk: beside.risk,
            shadow: None,
        });
    }

    /// Of facts that hold no identity: nothing is taken for them, so nothing is waited for.
    async fn judge_unlooked(
        &self,
        mut facts: Box<Facts>,
        beside: Beside,
        rules: &Rules,
        started: Stopwatch,
    ) -> Outcome {
        let target = Target::of(&facts.request, rules);
        let ending = self.decide(&mut facts, target, &beside, Instant::now()).await;
        self.conclude(facts, ending, rules, beside, started)
    }

    /// Decides on live facts, and takes the quota where only that is missing; at last a place for a session that begins. A
    /// request that is refused for anything else must not end another session.
    async fn decide(
        &self,
        facts: &mut Facts,
        target: Target<'_>,
        beside: &Beside,
        deadline: Instant,
    ) -> Result<Permit, Box<decision::Decision>> {
        let _traced = beside.stage("decide");
        let rules = target.rules();
        let permit = match decision::assess(LiveFacts::gathered(facts, target)) {
            decision::Outcome::Permit(permit) => permit,
            decision::Outcome::Refusal(refusal) => return Err(refusal),
            decision::Outcome::Pending(pending) => {
                self.audited(pending.decision())?;
                let stage = Stopwatch::now();
                let _traced = beside.stage("quota");
                facts.quota = Box::pin(self.quotas.take(pending.wanted(), facts, deadline)).await;
                self.counters.time(Stage::Quota, stage.elapsed());
                pending.settle(&facts.quota)?
            }
        };
        self.audited(permit.decision())?;
        if self.admit(facts, beside, deadline).await {
            return Ok(permit);
        }
        decision::authorize(LiveFacts::gathered(facts, Target::of(&facts.request, rules)))
    }

    /// What a decision means for everything that remembers, and what the upstream is told of it.
    fn conclude(
        &self,
        facts: Box<Facts>,
        ending: Result<Permit, Box<decision::Decision>>,
        rules: &Rules,
        mut beside: Beside,
        started: Stopwatch,
    ) -> Outcome {
        let decision = ending.as_ref().map_or_else(|refusal| &**refusal, Permit::decision);
        beside.risk = self.learn(beside.observed.take().as_deref(), decision);
        if let Some(visit) = beside.visit.take() {
            self.settle(&visit, &facts, decision);
        }
        let signing = beside.stage("assertion");
        beside.assertion = ending.as_ref().ok().and_then(|permit| self.assertion(&facts, permit.decision(), rules));
        drop(signing);
        Outcome { facts, ending, rules: Arc::clone(rules.version()), beside, started }
    }

    /// The signed statement for the upstream: who asks, as it was judged.
    fn assertion(&self, facts: &Facts, decision: &decision::Decision, rules: &Rules) -> Option<Arc<str>> {
        let identity = facts.caller().filter(|_| self.assertions.is_enabled())?;
        let device = decision::known_device(facts);
        let subject = Subject {
            identity: Arc::clone(identity),
            session: identity.session.clone(),
            device: device.map(|device| device.id.clone()),
            trust_level: decision.trust.level,
            risk_level: decision.risk.level,
            audience: self.assertions.audience(&facts.request.host),
            policy: decision.policy.clone(),
            restrictions: decision.restrictions,
            rules: FixedState::default().hash_one(rules.version()),
        };
        self.assertions.assertion(&subject, facts.now)
    }

    /// Where a record must be written or there is no access, an audit that has no room is a refusal. Asked before quota is
    /// taken, so that none is used up for nothing, and once more after that wait.
    fn audited(&self, allowed: &decision::Decision) -> Result<(), Box<decision::Decision>> {
        if self.auditor.must_refuse(allowed.audit_required) {
            return Err(decision::Decision::refusal(decision::Reason::AuditUnavailable));
        }
        Ok(())
    }
}

impl Source for Pipeline {
    fn collect(&self, page: &mut Page) {
        self.counters.collect(page);
        self.quotas.counters().collect(page);
        self.devices.collect(page);
        self.notices.collect(page);
        self.sessions.collect(page);
        if let Some(behaviors) = &self.behaviors {
            behaviors.collect(page);
        }
    }
}

/// The facts of a request that nothing was looked up for.
///
/// Boxed, as decisions are: both are large, and pass through many hands.
fn nothing_known(now: UnixTime, request: AccessRequest) -> Box<Facts> {
    Box::new(Facts {
        now,
        request,
        credential: Fact::Absent,
        workload: Fact::Absent,
        revocation: Fact::NotAsked,
        notice: Fact::NotAsked,
        device: Fact::NotAsked,
        place: Fact::NotAsked,
        behavior: Fact::NotAsked,
        session: Fact::NotAsked,
        quota: Fact::NotAsked,
    })
}

fn decision_id(now: UnixTime) -> DecisionId {
    DecisionId::new(now.as_millis(), rand::rng().random())
}
