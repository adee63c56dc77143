//! Turns scores and truth into the figures of docs/risk.md. The truth never reaches the scorer.

use std::collections::{BTreeMap, BTreeSet};

/// What is true of a request.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    pub(crate) day: i64,
    pub(crate) user: String,
    pub(crate) session: String,
    pub(crate) service: bool,
    /// Kind and campaign of the attack.
    pub(crate) attack: Option<(String, String)>,
}

/// The figures of one scorer on one stream. Rates are 0 to 1; "macro" is the mean over kinds of attack.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) auc: f64,
    pub(crate) auc_of: BTreeMap<String, f64>,
    /// Attack requests over the line at 0.02 step-ups per user and day, and campaigns with one.
    pub(crate) found: f64,
    pub(crate) campaigns: f64,
    pub(crate) campaigns_of: BTreeMap<String, f64>,
    /// Attack requests over the line that one request of a thousand honest ones is over.
    pub(crate) found_per_mille: f64,
    /// Honest requests of services over the line at 0.02 step-ups.
    pub(crate) services: f64,
}

/// Compares scores with the truth; what came before the end of the warm-up has been left out by the caller.
pub(crate) fn figures(truth: &[Truth], scores: &[f64]) -> Figures {
    let all = || truth.iter().zip(scores.iter().copied());
    let honest = sorted(all().filter(|(t, _)| t.attack.is_none()).map(|(_, s)| s).collect());
    let mut kinds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut campaigns: BTreeMap<(String, String, String), f64> = BTreeMap::new();
    let mut sessions: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    let mut user_days = BTreeSet::new();
    for (t, s) in all() {
        match &t.attack {
            Some((kind, campaign)) => {
                kinds.entry(kind.clone()).or_default().push(s);
                raise(campaigns.entry((kind.clone(), campaign.clone(), t.user.clone())), s);
            }
            None if !t.service => {
                user_days.insert((&t.user, t.day));
                raise(sessions.entry((&t.user, &t.session)), s);
            }
            None => {}
        }
    }
    let tops = sorted(sessions.into_values().collect());
    let line = threshold(&tops, 0.02 * user_days.len() as f64);
    let per_mille = threshold(&honest, 0.001 * honest.len() as f64);
    let over = |line: f64| mean(kinds.values().map(|of| share(of, line)));
    let auc_of: BTreeMap<String, f64> = kinds.iter().map(|(kind, of)| (kind.clone(), auc(of, &honest))).collect();
    let mut by_kind: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for ((kind, ..), top) in campaigns {
        by_kind.entry(kind).or_default().push(top);
    }
    let campaigns_of: BTreeMap<String, f64> =
        by_kind.iter().map(|(kind, of)| (kind.clone(), share(of, line))).collect();
    let services: Vec<f64> = all().filter(|(t, _)| t.service && t.attack.is_none()).map(|(_, s)| s).collect();
    Figures {
        auc: mean(auc_of.values().copied()),
        found: over(line),
        campaigns: mean(campaigns_of.values().copied()),
        found_per_mille: over(per_mille),
        services: if services.is_empty() { 0.0 } else { share(&services, line) },
        auc_of,
        campaigns_of,
    }
}

impl Figures {
    /// The head of the table that [`Figures::row`] fills.
    pub(crate) const HEAD: &str = "| stream | scorer | TPR at .02 | campaigns | AUC | TPR at .1 % | services |";

    pub(crate) fn row(&self, stream: &str, scorer: &str) -> String {
        let Self { found, campaigns, auc, found_per_mille, services, .. } = self;
        format!(
            "| {stream} | {scorer} | {found:.3} | {campaigns:.3} | {auc:.3} | {found_per_mille:.3} | {services:.4} |"
        )
    }
}

fn raise<K: Ord>(entry: std::collections::btree_map::Entry<'_, K, f64>, score: f64) {
    let top = entry.or_insert(f64::NEG_INFINITY);
    *top = top.max(score);
}

fn sorted(mut scores: Vec<f64>) -> Vec<f64> {
    scores.sort_by(f64::total_cmp);
    scores
}

/// The lowest score that at most `allowed` of these reach; equal scores are never split.
fn threshold(sorted: &[f64], allowed: f64) -> f64 {
    let mut line = f64::INFINITY;
    let mut start = sorted.len();
    while start > 0 {
        let value = sorted[start - 1];
        let first = sorted.partition_point(|score| *score < value);
        if (sorted.len() - first) as f64 > allowed {
            break;
        }
        (line, start) = (value, first);
    }
    line
}

fn share(scores: &[f64], line: f64) -> f64 {
    scores.iter().filter(|score| **score >= line).count() as f64 / scores.len() as f64
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    values.sum::<f64>() / count.max(1) as f64
}

/// The chance that an attack outranks an honest request; ties count one half.
fn auc(attacks: &[f64], honest: &[f64]) -> f64 {
    let rank = |score: &f64| {
        let (below, up_to) = (honest.partition_point(|h| h < score), honest.partition_point(|h| h <= score));
        (below + up_to) as f64 / 2.0
    };
    attacks.iter().map(rank).sum::<f64>() / (attacks.len() * honest.len()) as f64
}
