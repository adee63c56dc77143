//! "Why?": a decision and its facts as a structure and as text, for somebody who built neither.
//!
//! For operators and auditors only: it holds what a caller must never see.

mod answer;
mod words;

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use self::words::{factor_values, remedy, subject};
pub use self::{
    answer::{factor, remedies, spoken, why},
    words::in_words,
};
use super::{
    audit::{Recorded, rfc3339},
    log::clean,
};
use crate::{
    decision::{Class, Decision, Reason, Verdict, evidence},
    domain::{Evidence, Fact, Facts, Lines, RiskScore, SignalName, Unavailable, UnixTime},
};

/// Longest text of one line that a caller had a hand in, in characters.
const LONGEST: usize = 2048;

/// Why a decision was as it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    pub id: String,
    pub time: String,
    /// `allow`, `deny` or `step_up`.
    pub verdict: String,
    pub status: u16,
    pub reason: Option<Reason>,
    /// The reason in a sentence.
    pub message: Option<&'static str>,
    pub rule: Option<String>,
    /// `GET shop.example/orders/7`.
    pub request: String,
    pub resource: Option<String>,
    pub policy: Option<String>,
    /// Who asked, in words.
    pub subject: String,
    /// Everything that spoke against it, in the order of the rules.
    pub findings: Vec<Found>,
    pub risk: Scored,
    pub trust: Scored,
    pub factors: Factors,
    /// What each factor held, in words, in the order of [`Factors`].
    pub factor_values: Vec<(&'static str, String)>,
    pub rules: String,
    /// What would have helped, in words.
    pub remedy: Option<String>,
}

/// One thing that spoke against a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub reason: Reason,
    pub class: Class,
    #[serde(default)]
    pub rule: Option<String>,
    #[serde(default)]
    pub detail: Option<String>,
}

/// A score with the lines that it is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    pub score: f64,
    pub level: String,
    pub lines: Vec<ScoreLine>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreLine {
    pub name: String,
    pub points: f64,
    /// Audit lines leave it out, since it follows from their facts; older ones hold it.
    #[serde(default)]
    pub evidence: String,
}

/// What is known of each fact: whether, from where, how old.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Factors {
    pub credential: Factor,
    pub workload: Factor,
    pub revocation: Factor,
    pub notice: Factor,
    pub device: Factor,
    pub place: Factor,
    pub behavior: Factor,
    pub session: Factor,
    pub quota: Factor,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Factor {
    pub state: FactorState,
    /// Only of what was looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Unavailable>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorState {
    Known,
    Absent,
    Unavailable,
    #[default]
    NotAsked,
}

impl Factors {
    pub fn of(facts: &Facts) -> Self {
        let now = facts.now;
        Self {
            credential: Factor::of(&facts.credential, now, "the issuer's keys"),
            workload: Factor::of(&facts.workload, now, "Envoy's mTLS"),
            revocation: Factor::of(&facts.revocation, now, "revocation list"),
            notice: Factor::of(&facts.notice, now, "security events"),
            device: Factor::of(&facts.device, now, "device registry"),
            place: Factor::of(&facts.place, now, "location databases and lists"),
            behavior: Factor::of(&facts.behavior, now, "the subject's profile"),
            session: Factor::of(&facts.session, now, "session record"),
            quota: Factor::of(&facts.quota, now, "rate limiter"),
        }
    }

    pub fn all(&self) -> [(&'static str, &Factor); 9] {
        [
            ("credential", &self.credential),
            ("workload", &self.workload),
            ("revocation", &self.revocation),
            ("notice", &self.notice),
            ("device", &self.device),
            ("place", &self.place),
            ("behavior", &self.behavior),
            ("session", &self.session),
            ("quota", &self.quota),
        ]
    }
}

impl Factor {
    fn of<T>(fact: &Fact<T>, now: UnixTime, source: &'static str) -> Self {
        let source = Some(source);
        match fact {
            Fact::Known { as_of, .. } => {
                let age_ms = u64::try_from(now.since(*as_of).as_millis()).ok();
                Self { state: FactorState::Known, source, age_ms, why: None }
            }
            Fact::Absent => Self { state: FactorState::Absent, source, ..Self::default() },
            Fact::Unavailable(why) => {
                Self { state: FactorState::Unavailable, source, why: Some(*why), ..Self::default() }
            }
            Fact::NotAsked => Self::default(),
        }
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.unwrap_or("nowhere");
        match (self.state, self.age_ms, self.why) {
            (FactorState::Known, Some(age), _) if age >= 1000 => write!(f, "from {source}, {} s old", age / 1000),
            (FactorState::Known, ..) => write!(f, "from {source}, just now"),
            (FactorState::Absent, ..) => write!(f, "nothing there ({source})"),
            (FactorState::Unavailable, _, why) => {
                write!(f, "could not be looked up ({source}): {}", why.map_or("unknown", Unavailable::as_str))
            }
            (FactorState::NotAsked, ..) => f.write_str("not asked"),
        }
    }
}

impl Explanation {
    /// Of a decision just made.
    pub fn of(facts: &Facts, decision: &Decision, rules: &str) -> Self {
        let (risk, trust) = (&decision.risk, &decision.trust);
        let findings = decision.findings.iter().map(|finding| Found {
            reason: finding.reason,
            class: finding.class,
            rule: finding.rule.as_ref().map(ToString::to_string),
            detail: in_words(&finding.detail),
        });
        Self {
            verdict: verdict_word(decision.verdict).into(),
            status: decision.status(),
            reason: decision.reason,
            message: decision.reason.map(Reason::message),
            rule: decision.rule.as_ref().map(ToString::to_string),
            resource: decision.resource.as_deref().map(Into::into),
            policy: decision.policy.as_ref().map(ToString::to_string),
            findings: findings.collect(),
            risk: Scored::of(risk.score.get(), risk.level.as_str(), &risk.lines),
            trust: Scored::of(trust.score.get(), trust.level.as_str(), &trust.lines),
            rules: rules.into(),
            remedy: remedy(decision),
            ..Self::of_facts(facts)
        }
    }

    /// Of a decision read back from an audit line, as it was made then.
    pub(super) fn recorded(record: &Recorded) -> Self {
        let device = record.trust.lines.iter().find(|line| line.name == SignalName::Device.as_str());
        let evidence =
            evidence(&record.facts, RiskScore::new(record.risk.score), device.map_or(0.0, |line| line.points));
        Self {
            time: record.time.clone(),
            verdict: record.verdict.clone(),
            status: record.status,
            reason: record.reason,
            message: record.reason.map(Reason::message),
            rule: record.rule.clone(),
            resource: record.resource.clone(),
            policy: record.policy.clone(),
            findings: record.findings.clone(),
            risk: record.risk.with_evidence(&evidence),
            trust: record.trust.with_evidence(&evidence),
            rules: record.rules.as_ref().into(),
            factors: Factors::of(&record.facts),
            ..Self::of_facts(&record.facts).with_detail(record.detail.as_deref())
        }
    }

    /// With what records say of why credentials were refused, which no fact holds.
    #[must_use]
    pub fn with_detail(mut self, detail: Option<&str>) -> Self {
        let credential = self.factor_values.iter_mut().find(|(of, _)| *of == "credential");
        if let (Some(detail), Some((_, value))) = (detail.map(spoken), credential)
            && !value.ends_with(&detail)
        {
            value.push_str(": ");
            value.push_str(&clean(&detail, LONGEST));
        }
        self
    }

    fn of_facts(facts: &Facts) -> Self {
        let request = &facts.request;
        let path = request.path.as_ref().map_or_else(|problem| format!(" ({problem})"), ToString::to_string);
        Self {
            id: request.id.to_string(),
            time: rfc3339(facts.now),
            request: clean(&format!("{} {}{path}", request.method.as_str(), request.host), LONGEST),
            subject: clean(&subject(facts), LONGEST),
            factors: Factors::of(facts),
            factor_values: factor_values(facts).into_iter().map(|(of, text)| (of, clean(&text, LONGEST))).collect(),
            verdict: String::new(),
            status: 0,
            reason: None,
            message: None,
            rule: None,
            resource: None,
            policy: None,
            findings: Vec::new(),
            risk: Scored::of(0.0, "low", &Lines::new()),
            trust: Scored::of(0.0, "untrusted", &Lines::new()),
            rules: String::new(),
            remedy: None,
        }
    }
}

impl Scored {
    fn of(score: f64, level: &str, lines: &Lines) -> Self {
        let lines = lines.iter().map(|line| ScoreLine {
            name: line.name.to_string(),
            points: line.points,
            evidence: line.evidence.to_string(),
        });
        // Adding nothing turns a negative zero into one that reads well.
        Self { score: score + 0.0, level: level.into(), lines: lines.collect() }
    }

    /// With the evidence of the lines of the same name, where a record does not hold it.
    fn with_evidence(&self, evidence: &Lines) -> Self {
        let mut scored = self.clone();
        for line in scored.lines.iter_mut().filter(|line| line.evidence.is_empty()) {
            let same = evidence.iter().find(|known| known.name.as_str() == line.name);
            line.evidence = same.map_or(Evidence::Seen, |known| known.evidence).to_string();
        }
        scored
    }
}

/// The word that records use: the one of the answer's header, with an underscore.
pub(super) const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::StepUp => "step_up",
    }
}
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}  (answered {})", self.verdict.to_uppercase(), self.request, self.status)?;
        if let (Some(reason), Some(message)) = (self.reason, self.message) {
            writeln!(f, "because      {}: {message}", reason.code())?;
        }
        if let Some(rule) = &self.rule {
            writeln!(f, "rule         {rule}")?;
        }
        if let Some(remedy) = &self.remedy {
            writeln!(f, "would help   {remedy}")?;
        }
        writeln!(f, "who          {}", self.subject)?;
        let route = [("resource", &self.resource), ("policy", &self.policy)];
        route
            .iter()
            .filter_map(|(name, id)| Some((name, id.as_ref()?)))
            .try_for_each(|(name, id)| writeln!(f, "{name:<12} {id}"))?;
        writeln!(f, "decision     {} at {}, rules {}", self.id, self.time, self.rules)?;
        self.write_findings(f)?;
        self.write_factors(f)?;
        write_score(f, "risk", &self.risk, "of 10")?;
        write_score(f, "trust", &self.trust, "of 1")
    }
}

impl Explanation {
    fn write_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.findings.is_empty() {
            return writeln!(f, "\nNothing spoke against it.");
        }
        writeln!(f, "\nWhat spoke against it (the first class answers: malformed, credentials, revoked, refused, …):")?;
        for found in &self.findings {
            write!(f, "  {:<12} {}", found.class.as_str(), found.reason.code())?;
            found.rule.iter().try_for_each(|rule| write!(f, ", rule {rule}"))?;
            found.detail.iter().try_for_each(|detail| write!(f, ": {detail}"))?;
            f.write_char('\n')?;
        }
        Ok(())
    }

    fn write_factors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nWhat it was judged on:")?;
        for (name, factor) in self.factors.all() {
            let value = self.factor_values.iter().find(|(of, _)| *of == name).map(|(_, value)| value);
            match value {
                Some(value) => writeln!(f, "  {name:<12} {value} ({factor})")?,
                None => writeln!(f, "  {name:<12} {factor}")?,
            }
        }
        Ok(())
    }
}

fn write_score(f: &mut fmt::Formatter<'_>, name: &str, scored: &Scored, of: &str) -> fmt::Result {
    writeln!(f, "\nIts {name}: {:.2} {of} ({})", scored.score, scored.level)?;
    scored.lines.iter().try_for_each(|line| match line.evidence.as_str() {
        "seen" => writeln!(f, "  {:+6.2}  {}", line.points, line.name),
        evidence => writeln!(f, "  {:+6.2}  {} ({evidence})", line.points, line.name),
    })
}
