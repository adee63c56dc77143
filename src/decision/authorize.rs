//! The only door to an allow: live facts in, a permit or a refusal out.
//!
//! What-if, shadow, explain and replay call [`decide`], which mints nothing. A [`Permit`] exists only where [`assess`]
//! judged facts that were gathered for the very request being answered, and no quota was left untaken.

use super::{
    judge::{decide_for, limiting},
    outcome::{Decision, Detail, Finding, QuotaWanted},
    posture::{Lack, Posture, Sensitivity, Subject, posture},
    reason::Reason,
    target::Target,
};
use crate::domain::{Fact, Facts, Quota};

/// Facts gathered now, for the request that is being answered. Not `Clone`: they are good for one judgement.
#[derive(Debug)]
pub struct LiveFacts<'a> {
    facts: &'a Facts,
    target: Target<'a>,
}

impl<'a> LiveFacts<'a> {
    /// For the pipeline alone, right after gathering. Recorded, changed or imagined facts have no business here; `target` is
    /// that of the facts' own request.
    pub const fn gathered(facts: &'a Facts, target: Target<'a>) -> Self {
        Self { facts, target }
    }
}

/// Proof that a request was judged on live facts and allowed. Only this module makes one.
#[derive(Debug)]
pub struct Permit(Box<Decision>);

impl Permit {
    /// The decision behind it: always an allow.
    pub const fn decision(&self) -> &Decision {
        &self.0
    }

    pub fn into_decision(self) -> Box<Decision> {
        self.0
    }
}

/// What live facts lead to.
#[derive(Debug)]
pub enum Outcome {
    Permit(Permit),
    /// Would be allowed, once a token is taken from each limit.
    Pending(Pending),
    Refusal(Box<Decision>),
}

/// An allow that waits for its quota.
#[derive(Debug)]
pub struct Pending {
    decision: Box<Decision>,
    wanted: QuotaWanted,
}

impl Pending {
    /// What is decided where the quota is taken: always an allow.
    pub const fn decision(&self) -> &Decision {
        &self.decision
    }

    pub const fn wanted(&self) -> &QuotaWanted {
        &self.wanted
    }

    /// Ends in a permit only where the quota was taken. The outcome of the taking belongs into `Facts::quota`, too.
    ///
    /// # Errors
    ///
    /// The refusal: 429 where the limit is reached, 503 where it cannot be known.
    pub fn settle(self, quota: &Fact<Quota>) -> Result<Permit, Box<Decision>> {
        let Self { mut decision, wanted } = self;
        let finding = match quota {
            Fact::Known { value, .. } if value.allowed => return Ok(Permit(decision)),
            Fact::Known { value, .. } => {
                decision.retry_after = Some(value.retry_after.max(1));
                Finding::new(Reason::RateLimited, None)
            }
            lacking => unknown(lacking),
        };
        decision.findings.push(Finding { rule: limiting(&wanted), ..finding });
        decision.answer();
        Err(decision)
    }
}

fn unknown(quota: &Fact<Quota>) -> Finding {
    let lack = Lack::of(quota).unwrap_or(Lack::NotAsked);
    let reason = match posture(Subject::Quota, lack, Sensitivity::Required) {
        Posture::Refuse(reason) => reason,
        Posture::Neutral | Posture::Nothing | Posture::Penalty => Reason::QuotaUnknown,
    };
    let detail = if let Lack::Unavailable(why) = lack { Detail::Missing(why) } else { Detail::None };
    Finding::new(reason, None).with(detail)
}

/// Judges live facts. The quota, where one is wanted, is taken by the caller between this and [`Pending::settle`].
#[expect(clippy::needless_pass_by_value, reason = "live facts are used up: one gathering, one judgement")]
pub fn assess(live: LiveFacts<'_>) -> Outcome {
    let decision = decide_for(live.facts, &live.target);
    if !decision.is_allow() {
        return Outcome::Refusal(decision);
    }
    match &decision.quota {
        Some(wanted) => {
            let wanted = wanted.clone();
            Outcome::Pending(Pending { decision, wanted })
        }
        None => Outcome::Permit(Permit(decision)),
    }
}

/// Judges live facts whose quota, if one is wanted, was taken before.
///
/// # Errors
///
/// The refusal.
pub fn authorize(live: LiveFacts<'_>) -> Result<Permit, Box<Decision>> {
    let quota = &live.facts.quota;
    match assess(live) {
        Outcome::Permit(permit) => Ok(permit),
        Outcome::Pending(pending) => pending.settle(quota),
        Outcome::Refusal(decision) => Err(decision),
    }
}
