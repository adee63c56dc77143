//! What candidate rules would have said of decisions that were recorded: the flips, by route and by rule.
//!
//! It judges the facts of then with the rules of now, by the same pure function; it looks nothing up and mints nothing. What the
//! recorded rules did not ask about is `NotAsked` here too: a candidate that needs it is judged as when it cannot be had.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead},
};

use serde::Serialize;

use crate::{
    decision::{Decision, Reason, Verdict, decide},
    policy::Rules,
    telemetry::{audit::Recorded, shadow::is_not_by_rules},
};

/// How many flips are listed one by one; all are counted.
const LISTED: usize = 1000;

/// What became of the recorded decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Version of the candidate rules.
    pub rules: String,
    pub decisions: u64,
    /// Refusals beside those that no rules made: they could not be recorded, or nobody read the request.
    pub not_judged: u64,
    /// Same verdict and same reason.
    pub same: u64,
    /// Same verdict for another reason.
    pub reason_changed: u64,
    pub flipped: u64,
    /// By resource (`-` where none matched), then by change, such as `allow → deny`.
    pub by_route: BTreeMap<String, BTreeMap<String, u64>>,
    /// By the rule that decides now (or did then, where now nothing speaks against it), then by change.
    pub by_rule: BTreeMap<String, BTreeMap<String, u64>>,
    /// The first ones.
    pub flips: Vec<Flip>,
    /// Lines that say they are decisions and cannot be read: number and why.
    pub unreadable: Vec<(usize, String)>,
}

/// One decision that candidate rules would have made otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    pub id: String,
    pub time: String,
    pub request: String,
    pub before: Judged,
    pub after: Judged,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// `allow`, `deny` or `step_up`.
    pub verdict: String,
    pub reason: Option<Reason>,
    pub rule: Option<String>,
}

impl Report {
    pub fn new(rules: &Rules) -> Self {
        Self { rules: rules.version().to_string(), ..Self::default() }
    }

    /// Judges every decision in an audit file; lines of other kinds are passed over. `progress` is told the octets read.
    ///
    /// # Errors
    ///
    /// Where the input cannot be read.
    pub fn read(&mut self, rules: &Rules, mut input: impl BufRead, mut progress: impl FnMut(u64)) -> io::Result<()> {
        let mut text = String::new();
        for number in 1.. {
            text.clear();
            let octets = input.read_line(&mut text)?;
            if octets == 0 {
                break;
            }
            progress(octets as u64);
            match Recorded::parse(text.trim_end()) {
                Ok(Some(recorded)) => self.judge(rules, &recorded),
                Ok(None) => {}
                // A last line without its end was cut short by a kill: not a decision that was lost here.
                Err(_) if !text.ends_with('\n') => {}
                Err(error) => self.unreadable.push((number, error.to_string())),
            }
        }
        Ok(())
    }

    /// Judges one recorded decision.
    pub fn judge(&mut self, rules: &Rules, recorded: &Recorded) {
        if is_not_by_rules(recorded.reason, &recorded.facts) {
            self.not_judged += 1;
            return;
        }
        let decision = decide(&recorded.facts, rules);
        let (before, after) = (Judged::then(recorded), Judged::now(&decision));
        self.decisions += 1;
        if before.verdict == after.verdict {
            if before.reason == after.reason {
                self.same += 1;
            } else {
                self.reason_changed += 1;
            }
            return;
        }
        self.flipped += 1;
        let change = format!("{} → {}", before.verdict, after.verdict);
        let resource = decision.resource.as_deref().or(recorded.resource.as_deref()).unwrap_or("-");
        let rule = after.rule.as_deref().or(before.rule.as_deref()).unwrap_or("-");
        for (table, key) in [(&mut self.by_route, resource), (&mut self.by_rule, rule)] {
            *table.entry(key.to_owned()).or_default().entry(change.clone()).or_default() += 1;
        }
        if self.flips.len() < LISTED {
            let (id, time) = (recorded.id.to_string(), recorded.time.clone());
            self.flips.push(Flip { id, time, request: recorded.explanation().request, before, after });
        }
    }
}

impl Judged {
    fn then(recorded: &Recorded) -> Self {
        Self { verdict: recorded.verdict.clone(), reason: recorded.reason, rule: recorded.rule.clone() }
    }

    fn now(decision: &Decision) -> Self {
        let verdict = match decision.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::StepUp => "step_up",
        };
        let rule = decision.rule.as_ref().map(ToString::to_string);
        Self { verdict: verdict.into(), reason: decision.reason, rule }
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.verdict)?;
        self.reason.iter().try_for_each(|reason| write!(f, " {}", reason.code()))?;
        self.rule.iter().try_for_each(|rule| write!(f, " (rule {rule})"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decisions, not_judged, same, reason_changed, flipped, .. } = self;
        writeln!(f, "{decisions} decisions against rules {}:", self.rules)?;
        writeln!(f, "{same} the same, {reason_changed} for another reason, {flipped} flipped")?;
        if *not_judged > 0 {
            writeln!(f, "{not_judged} more were refusals of no rules: not recorded, or not read in time")?;
        }
        for (title, table) in [("by route", &self.by_route), ("by rule", &self.by_rule)] {
            if !table.is_empty() {
                writeln!(f, "\n{title}")?;
            }
            for (name, changes) in table {
                changes.iter().try_for_each(|(change, count)| writeln!(f, "  {name:<32} {change:<18} {count:>8}"))?;
            }
        }
        if !self.flips.is_empty() {
            writeln!(f, "\nthe first of them")?;
        }
        for Flip { id, request, before, after, .. } in self.flips.iter().take(20) {
            writeln!(f, "  {id}  {request}\n      {before}  →  {after}")?;
        }
        self.unreadable.iter().take(20).try_for_each(|(line, why)| writeln!(f, "line {line} cannot be read: {why}"))
    }
}
