//! `countersign session`: the sessions that continuous verification remembers, and their end; and who gets in right now.

mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{self, Connection, Failure},
    revoke::{printable, when},
};
use crate::wire::admin::{EndSessionsRequest, ListSessionsRequest, Session, ShowSessionRequest};

/// List, show and end sessions; watch what is decided
///
/// A session is one login: the `sid` of its tokens, or what stands for one (`x-zt-session`). Examples:
///
///   countersign session list --subject alice
///   countersign session show 5f1c…
///   countersign session end 5f1c… --reason 'left her desk'
///   countersign session end --subject alice      all that she has; `revoke subject` also takes unused tokens
///   countersign session watch
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct SessionCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List sessions, one line each, or `--json`.
    List {
        /// Only this subject's.
        #[arg(long)]
        subject: Option<String>,
        /// Only this issuer's.
        #[arg(long)]
        issuer: Option<String>,
        /// Also those that were ended.
        #[arg(long)]
        ended: bool,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show everything that is known of a session.
    Show {
        /// As `list` and `x-zt-session` say it.
        id: String,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// End a session, or all of a subject: every replica refuses them at once.
    End {
        /// As `list` and `x-zt-session` say it.
        #[arg(required_unless_present = "subject", conflicts_with = "subject")]
        id: Option<String>,
        /// End all sessions of this subject.
        #[arg(long)]
        subject: Option<String>,
        /// Only this issuer's.
        #[arg(long)]
        issuer: Option<String>,
        /// For the record: who asked, which ticket.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show verdicts a second, reasons, sessions by trust and the last refusals of one replica, until interrupted.
    Watch(watch::Watch),
}

impl SessionCommand {
    pub(super) fn run(self) -> ExitCode {
        client::run(async {
            match self.action {
                Action::List { subject, issuer, ended, json, connection } => {
                    let asked = ListSessionsRequest {
                        subject: subject.unwrap_or_default(),
                        issuer: issuer.unwrap_or_default(),
                        ended,
                        page_size: 1000,
                        page_token: String::new(),
                    };
                    list(&connection, asked, json).await
                }
                Action::Show { id, json, connection } => {
                    let found = connection.connect_sessions().await?.show(ShowSessionRequest { id }).await?;
                    for (i, session) in found.into_inner().sessions.iter().enumerate() {
                        show(session, json, i > 0);
                    }
                    Ok(())
                }
                Action::End { id, subject, issuer, reason, connection } => {
                    let asked = EndSessionsRequest {
                        id: id.unwrap_or_default(),
                        subject: subject.unwrap_or_default(),
                        issuer: issuer.unwrap_or_default(),
                        reason,
                    };
                    end(&connection, asked).await
                }
                Action::Watch(watch) => watch.run().await,
            }
        })
    }
}

async fn list(connection: &Connection, mut asked: ListSessionsRequest, as_json: bool) -> Result<(), Failure> {
    let mut client = connection.connect_sessions().await?;
    loop {
        let page = client.list(asked.clone()).await?.into_inner();
        for session in &page.sessions {
            if as_json {
                println!("{}", Value::Object(fields(session).into_iter().map(|(k, v)| (k.to_owned(), v)).collect()));
            } else {
                println!("{}", line(session));
            }
        }
        asked.page_token = page.next_page_token;
        if asked.page_token.is_empty() {
            return Ok(());
        }
    }
}

async fn end(connection: &Connection, asked: EndSessionsRequest) -> Result<(), Failure> {
    let ended = connection.connect_sessions().await?.end(asked).await?.into_inner().sessions;
    if ended.is_empty() {
        return Err(Failure::failed("no such session is running"));
    }
    ended.iter().for_each(|session| println!("ended: {} of {}", printable(&session.id), printable(&session.subject)));
    Ok(())
}

/// What tells sessions apart at a glance.
fn line(session: &Session) -> String {
    let mut line = format!(
        "{}  {}  {} {:.2}  risk {:.1}",
        printable(&session.id),
        printable(&session.subject),
        session.trust_level,
        session.trust,
        session.risk
    );
    if let Some(seen) = &session.last_seen {
        line.push_str(&format!("  seen {}", when(seen)));
    }
    for (name, value) in [("from", &session.country), ("on", &session.device), ("ended:", &session.ended)] {
        if !value.is_empty() {
            line.push_str(&format!("  {name} {}", printable(value)));
        }
    }
    line
}

fn show(session: &Session, as_json: bool, again: bool) {
    let fields = fields(session);
    if as_json {
        let object = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        return println!("{}", Value::Object(object));
    }
    if again {
        println!();
    }
    for (name, value) in fields {
        let text = value.as_str().map_or_else(|| value.to_string(), printable);
        println!("{name:<15} {text}");
    }
}

/// What is known of a session, in the order in which one asks.
fn fields(session: &Session) -> Vec<(&'static str, Value)> {
    let text = |text: &String| Some(text).filter(|text| !text.is_empty()).map(|text| json!(text));
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| json!(when(time)));
    let known = [
        ("id", text(&session.id)),
        ("subject", text(&session.subject)),
        ("issuer", text(&session.issuer)),
        ("kind", text(&session.kind)),
        ("client", text(&session.client)),
        ("ended", text(&session.ended)),
        ("created", time(&session.created)),
        ("last_seen", time(&session.last_seen)),
        ("verified", time(&session.verified)),
        ("authenticated", time(&session.authenticated)),
        ("methods", Some(json!(session.methods.join(", ")))),
        ("trust_level", text(&session.trust_level)),
        ("trust", Some(json!(rounded(session.trust)))),
        ("risk", Some(json!(rounded(session.risk)))),
        ("risk_ceiling", Some(json!(rounded(session.risk_ceiling)))),
        ("device", text(&session.device)),
        ("country", text(&session.country)),
        ("asn", (session.asn > 0).then(|| json!(session.asn))),
        ("challenges", challenges(session)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn challenges(session: &Session) -> Option<Value> {
    let told = session.challenges.iter().map(|challenge| {
        let asked = challenge.asked.as_ref().map_or_else(|| "?".to_owned(), when);
        match &challenge.passed {
            Some(at) => format!("asked {asked}, passed {} by {}", when(at), challenge.methods.join(", ")),
            None => format!("asked {asked}, open"),
        }
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| json!(told.join("; ")))
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
