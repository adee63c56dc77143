//! Behaviour in a check: the request is compared with its subject's past before the decision, and becomes part of it after.
//!
//! A past in memory costs no allocation and does not park; one that is not there is waited for shortly (`crate::behavior`).

use tokio::time::Instant;

use super::{Pipeline, outcome::Beside};
use crate::{
    behavior::{Observation, Observed, TokenKeys, event},
    decision::{Decision, Target},
    domain::{Fact, Facts, Revocation, RiskModel},
    risk::statistical::{Action, Agent},
};

impl Pipeline {
    /// Fills in what the past says of behaviour and place. Whose token is revoked, or might be, is nobody's past: it would
    /// let a thief wear out the patience with the owner.
    pub(super) async fn observe(
        &self,
        (keys, agent): (&TokenKeys, impl FnOnce() -> Agent),
        facts: &mut Facts,
        beside: &mut Beside,
        target: &Target<'_>,
        deadline: Instant,
    ) {
        let Some(behaviors) = &self.behaviors else { return };
        if !matches!(facts.revocation, Fact::Known { value: Revocation::Clear, .. }) {
            return;
        }
        let Some(seen) = Observation::of(facts, keys, agent(), target.pattern()) else { return };
        let event = event(&seen);
        let mut observed = match behaviors.observe(event, deadline).await {
            Fact::Known { value, .. } => value,
            Fact::Unavailable(why) => {
                facts.behavior = Fact::Unavailable(why);
                return;
            }
            Fact::Absent | Fact::NotAsked => return,
        };
        if target.rules().risk_model() != RiskModel::Statistical {
            observed.behavior.assessment = None;
        }
        if let Fact::Known { value: place, .. } = &mut facts.place {
            observed.complete(place);
        }
        facts.behavior = Fact::known(observed.behavior, facts.now);
        beside.observed = Some(Box::new(observed));
    }

    /// Learns what came of an observed request, and returns the client software and the action that were looked at.
    pub(super) fn learn(&self, observed: Option<&Observed>, decision: &Decision) -> Option<(Agent, Action)> {
        let observed = observed?;
        self.behaviors.as_ref()?.settle(observed, decision.teaches());
        let event = observed.event();
        Some((event.agent, event.action))
    }
}
