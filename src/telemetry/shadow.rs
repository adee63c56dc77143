//! A second set of rules beside the live one: it decides nothing, and every difference is counted and recorded.
//!
//! The audit's writer asks it, after the answer is on its way: it costs a request nothing, and nothing that goes wrong
//! in it reaches one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arc_swap::ArcSwapOption;

use super::{
    audit::{AuditRecord, Shadow},
    explain::verdict_word,
};
use crate::{
    decision::{Decision, Needs, Reason, Target, decide},
    domain::{
        Fact, Facts,
        metric::{Counter, Page, Source},
        path::PathProblem,
    },
    policy::Rules,
};

/// The shadow rules, and how their verdicts differ from the live ones. One for the process.
#[derive(Debug, Default)]
pub struct Shadows {
    rules: ArcSwapOption<Rules>,
    same: Counter,
    /// The same verdict for another reason.
    reason: Counter,
    /// The shadow refuses what was allowed.
    refuses: Counter,
    /// The shadow allows what was refused.
    allows: Counter,
    /// Deny against step up.
    other: Counter,
    /// The shadow reads what the live rules never asked for.
    untold: Counter,
}

impl Shadows {
    /// Takes up another set of rules, from the next record on.
    pub fn take_up(&self, rules: Rules) {
        self.rules.store(Some(Arc::new(rules)));
    }

    /// Whether there are shadow rules, which want every decision.
    pub(super) fn is_on(&self) -> bool {
        self.rules.load().is_some()
    }

    /// The version in force; `None` where there are no shadow rules.
    pub fn version(&self) -> Option<Arc<str>> {
        self.rules.load().as_ref().map(|rules| Arc::clone(rules.version()))
    }

    /// Judges the facts of a decision again and counts. `Some`: what belongs into its record, since it differs.
    pub fn judge(&self, record: &AuditRecord) -> Option<Box<Shadow>> {
        let rules = self.rules.load();
        let rules = rules.as_ref()?;
        if is_not_by_rules(record.decision.reason, &record.facts) {
            return None;
        }
        // A panic would end the audit's writer, and with it the audit of the live decisions.
        let judged = catch_unwind(AssertUnwindSafe(|| decide(&record.facts, rules))).ok();
        match judged {
            Some(shadow) if !lacks(&record.facts, Target::of(&record.facts.request, rules).needs()) => {
                self.compare(&record.decision, &shadow, rules.version())
            }
            _ => {
                self.untold.increment();
                None
            }
        }
    }

    fn compare(&self, live: &Decision, shadow: &Decision, rules: &Arc<str>) -> Option<Box<Shadow>> {
        let same = live.verdict == shadow.verdict && live.reason == shadow.reason;
        let counter = match (live.is_allow(), shadow.is_allow()) {
            _ if same => &self.same,
            _ if live.verdict == shadow.verdict => &self.reason,
            (true, false) => &self.refuses,
            (false, true) => &self.allows,
            _ => &self.other,
        };
        counter.increment();
        (!same).then(|| {
            Box::new(Shadow {
                rules: Arc::clone(rules),
                verdict: verdict_word(shadow.verdict).into(),
                reason: shadow.reason,
                rule: shadow.rule.as_ref().map(ToString::to_string),
            })
        })
    }
}

/// Whether a decision was none of rules: refused although they allowed it, since it could not be recorded, or before they were
/// asked, since nobody read the request (late, one too many, or a check that panicked). There is nothing to compare with.
pub fn is_not_by_rules(reason: Option<Reason>, facts: &Facts) -> bool {
    let unread = reason == Some(Reason::CredentialsUnknown) && facts.request.path == Err(PathProblem::Unreadable);
    unread || reason == Some(Reason::AuditUnavailable)
}

/// Whether the shadow reads a fact that was not looked up because the live rules read none: it would refuse for want of
/// it, which says nothing about the rules.
fn lacks(facts: &Facts, shadow: Needs) -> bool {
    let known = facts.identity().is_some();
    known
        && ((shadow.device && matches!(facts.device, Fact::NotAsked))
            || (shadow.identity && matches!(facts.revocation, Fact::NotAsked)))
}

impl Source for Shadows {
    fn collect(&self, page: &mut Page) {
        let Self { rules, same, reason, refuses, allows, other, untold } = self;
        if rules.load().is_none() {
            return;
        }
        let differences = [
            ("none", same),
            ("reason", reason),
            ("would_refuse", refuses),
            ("would_allow", allows),
            ("deny_or_step_up", other),
            ("untold", untold),
        ];
        for (difference, counter) in differences {
            let help = "Decisions judged by the shadow rules too, by how their answer differs";
            page.counter("countersign_shadow_decisions", help, &[("difference", difference)], counter);
        }
    }
}
