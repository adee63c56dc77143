//! `countersign session watch`: one replica, once a second. On a terminal a page that renews itself; else one JSON line.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Write as _},
};

use clap::Args;
use serde_json::json;

use super::super::{
    client::{Connection, Failure},
    revoke::{printable, when},
};
use crate::wire::admin::{Overview, WatchRequest};

/// Reasons that are shown.
const TOP: usize = 8;
/// Clears the terminal and goes to its corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Look once and end.
    #[arg(long)]
    once: bool,
    /// One JSON object a second, also on a terminal.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Watch {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut overviews = self.connection.connect_sessions().await?.watch(WatchRequest {}).await?.into_inner();
        let as_page = !self.json && (self.once || io::stdout().is_terminal());
        let mut before: Option<Overview> = None;
        while let Some(overview) = overviews.message().await? {
            let text = if as_page { page(&overview, before.as_ref()) } else { line(&overview) };
            let clear = if as_page && !self.once { CLEAR } else { "" };
            // Whoever read it is gone: so are we.
            if writeln!(io::stdout(), "{clear}{text}").is_err() || self.once {
                return Ok(());
            }
            before = Some(overview);
        }
        Err(Failure::failed("the server has ended"))
    }
}

fn line(overview: &Overview) -> String {
    let refusals = overview.refusals.iter().map(|refusal| {
        json!({
            "time": refusal.time.as_ref().map(when), "decision_id": refusal.decision_id, "verdict": refusal.verdict,
            "reason": refusal.reason, "subject": refusal.subject, "resource": refusal.resource,
        })
    });
    json!({
        "now": overview.now.as_ref().map(when),
        "decisions": overview.decisions,
        "reasons": overview.reasons,
        "sessions": overview.sessions,
        "feed": overview.feed,
        "revocations": overview.revocations,
        "refusals": refusals.collect::<Vec<_>>(),
    })
    .to_string()
}

fn page(overview: &Overview, before: Option<&Overview>) -> String {
    let mut text = format!(
        "{}   feed {}   revocations {}\n\n",
        overview.now.as_ref().map(when).unwrap_or_default(),
        overview.feed,
        overview.revocations
    );
    text.push_str("decisions          a second      since start\n");
    let seconds = before.map_or(1.0, |before| elapsed(before, overview));
    for verdict in ["allow", "deny", "step-up"] {
        let total = count(&overview.decisions, verdict);
        let rate = before.map(|before| (total - count(&before.decisions, verdict)) as f64 / seconds);
        let rate = rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
        text.push_str(&format!("  {verdict:<14} {rate:>10}   {total:>14}\n"));
    }
    text.push_str("\nsessions by level of trust\n");
    for level in ["privileged", "high", "medium", "low", "untrusted", "ended"] {
        text.push_str(&format!("  {level:<14} {:>10}\n", count(&overview.sessions, level)));
    }
    text.push_str("\nreasons since start\n");
    let mut reasons: Vec<_> = overview.reasons.iter().collect();
    reasons.sort_unstable_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    for (reason, count) in reasons.into_iter().take(TOP) {
        text.push_str(&format!("  {reason:<32} {count:>8}\n"));
    }
    text.push_str("\nlast refusals (`countersign explain --decision ID`)\n");
    for refusal in &overview.refusals {
        text.push_str(&format!(
            "  {}  {}  {}  {} {}\n",
            refusal.time.as_ref().map(when).unwrap_or_default(),
            refusal.decision_id,
            refusal.reason,
            if refusal.subject.is_empty() { "-".to_owned() } else { printable(&refusal.subject) },
            printable(&refusal.resource),
        ));
    }
    text
}

fn count(counts: &HashMap<String, u64>, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or_default()
}

fn elapsed(before: &Overview, now: &Overview) -> f64 {
    let seconds = |time: &Option<prost_types::Timestamp>| {
        time.as_ref().map_or(0.0, |time| time.seconds as f64 + f64::from(time.nanos) / 1e9)
    };
    (seconds(&now.now) - seconds(&before.now)).max(0.1)
}
