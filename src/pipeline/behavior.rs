//! Behaviour in a check: the request is compared with its subject's past before the decision, and becomes part of it after.
//!
//! A past in memory costs no allocation and does not park; one that is not there is waited for shortly (`crate::behavior`).

use tokio::time::Instant;

use super::{Pipeline, outcome::Beside};
use crate::{
    behavior::{Observation, Observed, TokenKeys, event},
    decision::Decision,
    domain::{Fact, Facts, Identity, Revocation, RiskModel},
    policy::Rules,
    risk::statistical::{Agent, Event},
};

impl Pipeline {
    /// Fills in what the past says of behaviour and place. Whose token is revoked, or might be, is nobody's past: it would
    /// let a thief wear out the patience with the owner.
    pub(super) async fn observe(
        &self,
        (keys, agent): (&TokenKeys, impl FnOnce() -> Agent),
        facts: &mut Facts,
        beside: &mut Beside,
        rules: &Rules,
        deadline: Instant,
    ) {
        let Some(behaviors) = &self.behaviors else { return };
        if !matches!(facts.revocation, Fact::Known { value: Revocation::Clear, .. }) {
            return;
        }
        let Some(identity) = facts.identity() else { return };
        let event = seen(agent(), keys, identity, facts);
        let mut observed = match behaviors.observe(event, deadline).await {
            Fact::Known { value, .. } => value,
            Fact::Unavailable(why) => {
                facts.behavior = Fact::Unavailable(why);
                return;
            }
            Fact::Absent | Fact::NotAsked => return,
        };
        if rules.risk_model() != RiskModel::Statistical {
            observed.behavior.assessment = None;
        }
        if let Fact::Known { value: place, .. } = &mut facts.place {
            observed.complete(place);
        }
        facts.behavior = Fact::known(observed.behavior, facts.now);
        beside.observed = Some(Box::new(observed));
    }

    /// Learns what came of an observed request, and returns what was looked at.
    pub(super) fn learn(&self, observed: Option<&Observed>, decision: &Decision) -> Option<Event> {
        let observed = observed?;
        self.behaviors.as_ref()?.settle(observed, decision.teaches());
        Some(*observed.event())
    }
}

/// The request as the model sees it. A step-up that was passed in this context counts as a method of the token.
fn seen(agent: Agent, keys: &TokenKeys, identity: &Identity, facts: &Facts) -> Event {
    let passed = facts.session.value().and_then(|session| session.stepped_up);
    event(&Observation {
        now: facts.now,
        identity,
        keys,
        methods: passed.map_or(identity.methods, |(methods, _)| identity.methods.union(methods)),
        client: facts.request.client,
        place: &facts.place,
        device: &facts.device,
        agent,
        method: facts.request.method.as_str(),
        path: facts.request.path.as_deref().unwrap_or_default(),
    })
}
