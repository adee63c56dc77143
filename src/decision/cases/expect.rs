//! What a case expects, and where a decision differs from it.

use serde::Deserialize;

use crate::{
    decision::{Decision, Grant, Reason, Verdict},
    domain::{PolicyId, RiskLevel, RuleId, TrustLevel},
};

/// Everything that is named must agree; the verdict must be named.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    verdict: ExpectedVerdict,
    /// The reason that answers.
    reason: Option<Reason>,
    /// Every reason that spoke against it, in any order.
    reasons: Option<Vec<Reason>>,
    rule: Option<String>,
    status: Option<u16>,
    policy: Option<String>,
    resource: Option<String>,
    /// `public`, `authenticated`, `policy`, `direct`, `role`, `attribute`; or with a name, as in `role clerk`.
    grant: Option<String>,
    restrictions: Option<Vec<String>>,
    /// `mfa`, `phishing-resistant`, `hardware`, `fresh`.
    step_up: Option<String>,
    scope: Option<String>,
    risk: Option<f64>,
    risk_level: Option<RiskLevel>,
    trust_level: Option<TrustLevel>,
    min_trust: Option<f64>,
    max_trust: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExpectedVerdict {
    Allow,
    Deny,
    #[serde(alias = "step-up")]
    StepUp,
}

impl ExpectedVerdict {
    const fn get(self) -> Verdict {
        match self {
            Self::Allow => Verdict::Allow,
            Self::Deny => Verdict::Deny,
            Self::StepUp => Verdict::StepUp,
        }
    }
}

/// The decision in one line.
pub(super) fn outcome(decision: &Decision) -> String {
    let verdict = decision.verdict.as_str();
    match (decision.reason, &decision.rule) {
        (Some(reason), Some(rule)) => format!("{verdict}: {reason} ({rule})"),
        (Some(reason), None) => format!("{verdict}: {reason}"),
        (None, _) => verdict.to_owned(),
    }
}

pub(super) fn differences(expect: &Expect, decision: &Decision) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, expected: Option<String>, actual: String| {
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            found.push(format!("{what}: expected {expected}, got {actual}"));
        }
    };
    let none = || "none".to_owned();
    let or_none = |text: Option<&str>| text.map_or_else(none, str::to_owned);
    compare("verdict", Some(expect.verdict.get().as_str().to_owned()), decision.verdict.as_str().to_owned());
    compare("reason", expect.reason.map(|reason| reason.to_string()), or_none(decision.reason.map(Reason::code)));
    compare("reasons", expect.reasons.clone().map(listed), listed(decision.findings.iter().map(|one| one.reason)));
    compare("rule", expect.rule.clone(), or_none(decision.rule.as_ref().map(RuleId::as_str)));
    compare("status", expect.status.map(|status| status.to_string()), decision.status().to_string());
    compare("policy", expect.policy.clone(), or_none(decision.policy.as_ref().map(PolicyId::as_str)));
    compare("resource", expect.resource.clone(), or_none(decision.resource.as_deref()));
    let with_name = expect.grant.as_ref().is_some_and(|text| text.contains(' '));
    compare(
        "grant",
        expect.grant.clone(),
        decision.grant.as_ref().map_or_else(none, |grant| granted(grant, with_name)),
    );
    let mut names: Vec<_> = decision.restrictions.iter().collect();
    names.sort_unstable();
    let expected = expect.restrictions.clone().map(|mut names| {
        names.sort_unstable();
        names.join(", ")
    });
    compare("restrictions", expected, names.join(", "));
    let asked = decision.step_up.map(|asked| asked.level.map_or("fresh", |level| level.as_str()));
    compare("step_up", expect.step_up.clone(), or_none(asked));
    compare("scope", expect.scope.clone(), or_none(decision.scope.as_deref()));
    compare("risk", expect.risk.map(|risk| format!("{risk:.1}")), format!("{:.1}", decision.risk.score.get()));
    compare("risk_level", expect.risk_level.map(|level| level.to_string()), decision.risk.level.to_string());
    compare("trust_level", expect.trust_level.map(|level| level.to_string()), decision.trust.level.to_string());
    let trust = decision.trust.score.get();
    if expect.min_trust.is_some_and(|least| trust < least) || expect.max_trust.is_some_and(|most| trust > most) {
        found.push(format!("trust: {trust:.2} is out of bounds"));
    }
    found
}

fn listed(reasons: impl IntoIterator<Item = Reason>) -> String {
    let mut codes: Vec<_> = reasons.into_iter().map(Reason::code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.join(", ")
}

fn granted(grant: &Grant, with_name: bool) -> String {
    let (word, name) = match grant {
        Grant::Public => ("public", None),
        Grant::Authenticated => ("authenticated", None),
        Grant::Policy(id) => ("policy", Some(id.as_str())),
        Grant::Direct => ("direct", None),
        Grant::Role(role) => ("role", Some(role.as_str())),
        Grant::Attribute(id) => ("attribute", Some(id.as_str())),
    };
    match name {
        Some(name) if with_name => format!("{word} {name}"),
        _ => word.to_owned(),
    }
}
