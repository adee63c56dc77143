//! One session as it is remembered, and its record in the store: JSON with a version.

use std::{cmp::Ordering, sync::Arc};

use serde::{Deserialize, Serialize};

use super::key::{Context, ContextId};
use crate::domain::{
    AuthMethods, Identity, Issuer, RiskScore, SessionId, SessionStart, SessionState, SubjectId, SubjectKind,
    TrustLevel, TrustScore, UnixTime,
};

/// The shape of the record. A record of another version is malformed, never a new session.
const VERSION: u8 = 1;

/// Contexts that are remembered of one session. Of more, those where nothing was passed go first.
const MAX_CONTEXTS: usize = 4;

/// How far risk may rise above where it began, and between which bounds the ceiling lies.
const RISE: f64 = 3.0;
const CEILING: (f64, f64) = (5.0, 8.0);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    #[serde(rename = "v")]
    version: u8,
    /// Which of its name it is: another one begins only where tokens name no session (see [`Identity::begins_after`]).
    #[serde(default)]
    generation: u32,
    /// When the one before it ended: tokens up to then are of that one.
    #[serde(default)]
    after: Option<UnixTime>,
    pub issuer: Issuer,
    pub subject: SubjectId,
    pub id: SessionId,
    pub kind: SubjectKind,
    pub client: Option<Arc<str>>,
    pub created_at: UnixTime,
    pub verified_at: UnixTime,
    pub seen_at: UnixTime,
    pub level: TrustLevel,
    pub level_since: UnixTime,
    pub rising_since: Option<UnixTime>,
    /// Of the last request.
    pub trust: TrustScore,
    pub risk: RiskScore,
    pub risk_ceiling: RiskScore,
    pub start: SessionStart,
    pub methods: AuthMethods,
    pub auth_time: Option<UnixTime>,
    /// The newest authentication that was seen in it; `None`: nobody noted where.
    #[serde(default)]
    authentication: Option<Authentication>,
    /// Why it was ended.
    pub ended: Option<Arc<str>>,
    /// When; `None` where nobody noted it.
    #[serde(default)]
    pub ended_at: Option<UnixTime>,
    /// No request of it was allowed yet: it does not count among those of its subject.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unplaced: bool,
    pub(super) contexts: Vec<Mark>,
}

/// An authentication, and where it was first seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Authentication {
    time: UnixTime,
    seen_at: UnixTime,
    context: ContextId,
}

impl Authentication {
    /// Of two, the newer one; of one that was seen in two places, the first.
    fn order(&self) -> (UnixTime, std::cmp::Reverse<UnixTime>, &ContextId) {
        (self.time, std::cmp::Reverse(self.seen_at), &self.context)
    }
}

/// What happened in one context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) id: ContextId,
    pub(super) challenged_at: Option<UnixTime>,
    pub(super) passed: Option<(AuthMethods, UnixTime)>,
}

impl Session {
    /// A session at its first request, judged to have this trust and risk.
    pub(super) fn begin(
        identity: &Identity,
        start: SessionStart,
        (level, trust, risk): (TrustLevel, TrustScore, RiskScore),
        now: UnixTime,
    ) -> Self {
        let ceiling = (risk.get() + RISE).clamp(CEILING.0, CEILING.1);
        Self {
            version: VERSION,
            generation: 0,
            after: None,
            issuer: identity.issuer.clone(),
            subject: identity.subject.clone(),
            id: identity.session.clone(),
            kind: identity.kind,
            client: identity.client_id.clone(),
            created_at: now,
            verified_at: identity.issued_at,
            seen_at: now,
            level,
            level_since: now,
            rising_since: None,
            trust,
            risk,
            risk_ceiling: RiskScore::new(ceiling),
            start,
            methods: identity.methods,
            auth_time: identity.auth_time,
            authentication: None,
            ended: None,
            ended_at: None,
            unplaced: false,
            contexts: Vec::new(),
        }
    }

    /// The one that begins after this one's end, under the same name.
    pub(super) fn next(&self, begun: Self, end: Option<UnixTime>) -> Self {
        Self { generation: self.generation.saturating_add(1), after: self.after.max(end), ..begun }
    }

    /// Whether a token is of one before it.
    pub(super) fn is_after(&self, identity: &Identity) -> bool {
        self.after.is_some_and(|end| !identity.begins_after(end))
    }

    /// Ends it, unless it was ended before. Says why it was.
    pub(super) fn end(&mut self, why: impl FnOnce() -> Arc<str>, now: UnixTime) -> Arc<str> {
        if self.ended.is_none() {
            self.ended_at = Some(now);
        }
        Arc::clone(self.ended.get_or_insert_with(why))
    }

    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let session: Self = serde_json::from_slice(value).ok()?;
        (session.version == VERSION && session.contexts.len() <= MAX_CONTEXTS).then_some(session)
    }

    pub(super) fn render(&self) -> Vec<u8> {
        // Nothing in it can fail to be JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a decision reads, in one context; `mark`: what happened there.
    pub(super) fn state(&self, mark: Option<&Mark>, idle: bool) -> SessionState {
        SessionState {
            created_at: self.created_at,
            verified_at: self.verified_at,
            level: self.level,
            level_since: self.level_since,
            rising_since: self.rising_since,
            stepped_up: mark.and_then(|mark| mark.passed),
            challenged_at: mark.and_then(|mark| mark.challenged_at),
            authenticated_elsewhere: mark.and_then(|mark| self.authenticated_elsewhere(&mark.id)),
            risk_ceiling: Some(self.risk_ceiling),
            start: self.start.clone(),
            ended: self.ended.is_some() || idle,
            over_limit: false,
        }
    }

    fn authenticated_elsewhere(&self, id: &ContextId) -> Option<UnixTime> {
        self.authentication.as_ref().filter(|seen| seen.context != *id).map(|seen| seen.time)
    }

    /// Notes where an authentication newer than all others is first seen. Says whether it was.
    pub(super) fn saw_authentication(&mut self, time: Option<UnixTime>, context: &Context, now: UnixTime) -> bool {
        let Some(time) = time.filter(|time| self.authentication.as_ref().is_none_or(|seen| *time > seen.time)) else {
            return false;
        };
        self.authentication = Some(Authentication { time, seen_at: now, context: Arc::clone(context.id()) });
        true
    }

    /// What happened in each context: when an authentication was asked for, and by what and when it was given.
    pub fn challenges(&self) -> impl Iterator<Item = (Option<UnixTime>, Option<(AuthMethods, UnixTime)>)> {
        self.contexts.iter().map(|mark| (mark.challenged_at, mark.passed))
    }

    pub(super) fn mark(&self, id: &ContextId) -> Option<&Mark> {
        self.contexts.iter().find(|mark| mark.id == *id)
    }

    /// Room for what happens in a context.
    pub(super) fn mark_mut(&mut self, id: &ContextId) -> &mut Mark {
        if let Some(position) = self.contexts.iter().position(|mark| mark.id == *id) {
            return &mut self.contexts[position];
        }
        if self.contexts.len() >= MAX_CONTEXTS {
            let unpassed = self.contexts.iter().position(|mark| mark.passed.is_none());
            self.contexts.remove(unpassed.unwrap_or(0));
        }
        self.contexts.push(Mark { id: Arc::clone(id), challenged_at: None, passed: None });
        let last = self.contexts.len() - 1;
        &mut self.contexts[last]
    }

    /// Takes in what another replica knows of the same session: the earlier beginning, the newer evidence, every mark,
    /// and an end in any case.
    pub(super) fn merge(&mut self, other: Self) {
        match other.generation.cmp(&self.generation) {
            Ordering::Less => {}
            Ordering::Equal => self.take_in(other),
            Ordering::Greater => *self = other,
        }
    }

    fn take_in(&mut self, other: Self) {
        if other.seen_at > self.seen_at {
            (self.level, self.level_since, self.rising_since) = (other.level, other.level_since, other.rising_since);
            (self.trust, self.risk, self.seen_at) = (other.trust, other.risk, other.seen_at);
        }
        if other.created_at < self.created_at {
            (self.created_at, self.start, self.risk_ceiling) = (other.created_at, other.start, other.risk_ceiling);
        }
        self.verified_at = self.verified_at.max(other.verified_at);
        self.auth_time = self.auth_time.max(other.auth_time);
        self.methods = self.methods.union(other.methods);
        let seen = self.authentication.take().into_iter().chain(other.authentication);
        self.authentication = seen.max_by(|ours, theirs| ours.order().cmp(&theirs.order()));
        self.after = self.after.max(other.after);
        self.unplaced &= other.unplaced;
        self.ended_at = self.ended_at.max(other.ended_at);
        self.ended = self.ended.take().or(other.ended);
        for theirs in other.contexts {
            let ours = self.mark_mut(&theirs.id);
            ours.challenged_at = match (ours.challenged_at, theirs.challenged_at) {
                (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
                (ours, theirs) => ours.or(theirs),
            };
            ours.passed = ours.passed.into_iter().chain(theirs.passed).max_by_key(|(_, at)| *at);
        }
    }
}
