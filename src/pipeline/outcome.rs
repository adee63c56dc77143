//! What one check came to: the facts, and a permit or a refusal.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{
    behavior::Observed,
    decision::{Decision, Permit},
    domain::Facts,
    identity,
    risk::statistical::{Action, Agent},
    session::Visit,
    telemetry::trace::Span,
};

/// The end of one check. The answer is written from it, then the audit record.
#[derive(Debug)]
pub struct Outcome {
    pub(super) facts: Box<Facts>,
    pub(super) ending: Result<Permit, Box<Decision>>,
    pub(super) rules: Arc<str>,
    pub(super) beside: Beside,
    pub(super) started: std::time::Instant,
}

/// What is known of a request beside the facts that decide.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Header names that the upstream must not see.
    pub(super) remove: SmallVec<[Box<str>; 2]>,
    /// Why credentials were refused, for the audit alone.
    pub(super) detail: Option<identity::Detail>,
    /// The span of this check, where it is sampled.
    pub(super) span: Option<Box<Span>>,
    pub(super) trace: Option<u128>,
    pub(super) assertion: Option<Arc<str>>,
    /// The token came with the scheme DPoP.
    pub(super) by_dpop: bool,
    pub(super) dpop_nonce: Option<Arc<str>>,
    /// What the subject's past said, until the decision has settled what may be learned from it.
    pub(super) observed: Option<Box<Observed>>,
    /// The client software and the action that the risk model looked at, for the audit record.
    pub(super) risk: Option<(Agent, Action)>,
    /// The session's visit, until it is settled.
    pub(super) visit: Option<Visit>,
}

impl Beside {
    /// A stage of the check as it is traced; nothing at all where the check is not sampled.
    pub(super) fn stage(&self, name: &'static str) -> Option<Span> {
        self.span.as_ref().map(|span| span.child(name))
    }
}

impl Outcome {
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The decision on exactly these facts.
    pub fn decision(&self) -> &Decision {
        match &self.ending {
            Ok(permit) => permit.decision(),
            Err(refusal) => refusal,
        }
    }

    /// The proof that live facts were judged and found good. Only with it can an OK response be written.
    pub fn permit(&self) -> Option<&Permit> {
        self.ending.as_ref().ok()
    }

    /// Header names that the client sent and the upstream must not see.
    pub fn headers_to_remove(&self) -> &[Box<str>] {
        &self.beside.remove
    }

    /// The signed upstream assertion, where one is configured.
    pub fn assertion(&self) -> Option<&str> {
        self.beside.assertion.as_deref()
    }

    /// Whether the token came with the scheme DPoP, whatever became of it.
    pub fn is_by_dpop(&self) -> bool {
        self.beside.by_dpop
    }

    /// The nonce to demand, where DPoP nonces are on.
    pub fn dpop_nonce(&self) -> Option<&str> {
        self.beside.dpop_nonce.as_deref()
    }
}
