//! `countersign explain`: why a request is, or was, answered as it is. For people who did not build it.

mod html;
mod request;
mod text;

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    client::{self, Connection, Failure},
    is_coloured,
    revoke::printable,
};
use crate::{
    domain::DecisionId,
    telemetry::audit::Recorded,
    wire::{
        admin::{ExplainRequest, Explanation, explain_request::What},
        owned::CheckRequest,
    },
};

/// Explain why a request is allowed, refused or stepped up
///
/// Asks the running server. Without `--decision` the question is decided now, with what is known now, and nothing changes
/// by asking. Examples:
///
///   countersign explain --decision 0193…                     the id in `x-zt-decision-id` or in the answer's body
///   countersign explain --path /orders/7 --bearer t.jwt      as if Envoy had asked
///   countersign explain check-request.json                   a CheckRequest as Envoy sends it (protobuf JSON; `-`: stdin)
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Explain {
    /// A CheckRequest in JSON; `-` for standard input. The id of a decision, where there is no such file, is taken for `--decision`.
    #[arg(value_name = "FILE", conflicts_with_all = ["decision", "path"])]
    file: Option<PathBuf>,
    /// A decision that the server made and still remembers.
    #[arg(long, value_name = "ID", conflicts_with = "path")]
    decision: Option<String>,
    /// Look the decision up in these audit records instead of asking the server.
    #[arg(long, value_name = "FILE", requires = "decision", conflicts_with_all = ["html", "file"])]
    audit: Vec<PathBuf>,
    /// Write an HTML page to this file instead.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Print everything as JSON: facts, decision, rules version.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: request::Parts,
    #[command(flatten)]
    connection: Connection,
}

impl Explain {
    pub(super) fn run(self) -> ExitCode {
        client::run(async {
            if !self.audit.is_empty() {
                return self.look_up();
            }
            let asked = self.question()?;
            let answer = self.connection.connect().await?.explain(asked).await?.into_inner();
            self.show(&answer)
        })
    }

    /// From audit records alone: no server is asked.
    fn look_up(&self) -> Result<(), Failure> {
        let wanted = decision_id(self.decision.as_deref().unwrap_or_default())?;
        for path in &self.audit {
            let fail = |error: io::Error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
            for line in BufReader::new(fs::File::open(path).map_err(fail)?).lines() {
                let Ok(Some(recorded)) = Recorded::parse(&line.map_err(fail)?) else { continue };
                if recorded.id == wanted {
                    let why = recorded.explanation();
                    if self.json {
                        println!("{}", serde_json::to_string_pretty(&why).unwrap_or_default());
                    } else {
                        let text = why.to_string();
                        text.lines().for_each(|line| println!("{}", printable(line)));
                    }
                    return Ok(());
                }
            }
        }
        Err(Failure::failed(format!("decision {wanted} is not in these records")))
    }

    fn question(&self) -> Result<ExplainRequest, Failure> {
        let (what, client) = match (&self.decision, &self.file) {
            (Some(id), _) => (What::DecisionId(decision_id(id)?.to_string()), None),
            (None, Some(path)) => (id_or_request(path)?, None),
            (None, None) => (What::Request(self.request.build()?), self.request.client()),
        };
        Ok(ExplainRequest { what: Some(what), client_address: client.map(|client| client.to_string()) })
    }

    fn show(&self, answer: &Explanation) -> Result<(), Failure> {
        if self.json {
            println!("{:#}", as_json(answer));
            return Ok(());
        }
        if let Some(path) = &self.html {
            fs::write(path, html::page(answer))
                .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))?;
            println!("{}", path.display());
            return Ok(());
        }
        print!("{}", text::render(answer, is_coloured(&io::stdout())));
        Ok(())
    }
}

fn decision_id(text: &str) -> Result<DecisionId, Failure> {
    DecisionId::parse(text).ok_or_else(|| Failure::usage("a decision id is 32 hexadecimal digits"))
}

/// An id is often pasted bare.
fn id_or_request(path: &PathBuf) -> Result<What, Failure> {
    match path.to_str().and_then(DecisionId::parse) {
        Some(id) if !path.exists() => Ok(What::DecisionId(id.to_string())),
        _ => read(path).map(What::Request),
    }
}

fn read(path: &PathBuf) -> Result<CheckRequest, Failure> {
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    let text = text.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
    request::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn as_json(answer: &Explanation) -> Value {
    let inner = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    json!({
        "decision_id": answer.decision_id,
        "verdict": answer.verdict,
        "status": answer.status,
        "reason": answer.reason,
        "why": answer.why,
        "remedies": answer.remedies,
        "rules_version": answer.rules_version,
        "recorded": answer.recorded,
        "facts": inner(&answer.facts_json),
        "decision": inner(&answer.decision_json),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{super::EXIT_USAGE, *};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        explain: Explain,
    }

    #[test]
    fn records_need_the_id_of_a_decision_and_nothing_else() {
        let refused = Line::try_parse_from(["explain", "--audit", "records"]).unwrap_err().to_string();
        assert!(refused.contains("--decision <ID>") && !refused.contains("--path"), "{refused}");
        let refused = Line::try_parse_from(["explain", "--audit", "records", "0193"]).unwrap_err().to_string();
        assert!(refused.contains("'--audit <FILE>' cannot be used with '[FILE]'"), "{refused}");
        let line = Line::try_parse_from(["explain", "--audit", "records", "--decision", "0193"]).unwrap();
        assert_eq!(line.explain.audit, [PathBuf::from("records")]);
    }

    fn question(arguments: &[&str]) -> Result<ExplainRequest, Failure> {
        Line::try_parse_from([&["explain"], arguments].concat()).unwrap().explain.question()
    }

    #[test]
    fn the_address_given_is_the_one_judged_unless_a_header_says_it() {
        let asked = question(&["--path", "/x", "--address", "203.0.113.7"]).unwrap();
        assert_eq!(asked.client_address.as_deref(), Some("203.0.113.7"));
        let header = "X-Forwarded-For: 198.51.100.1, 10.0.0.1";
        let asked = question(&["--path", "/x", "--address", "203.0.113.7", "--header", header]).unwrap();
        assert_eq!(asked.client_address, None);
    }

    #[test]
    fn a_bare_id_asks_for_the_decision_unless_a_file_has_that_name() {
        let id = "0193a7c2d4e5f60718293a4b5c6d7e8f";
        let what = |argument: &str| question(&[argument]).unwrap().what;
        assert_eq!(what(id), question(&["--decision", id]).unwrap().what);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(id);
        fs::write(&file, r#"{"attributes": {"request": {"http": {"path": "/x"}}}}"#).unwrap();
        assert!(matches!(what(file.to_str().unwrap()), Some(What::Request(_))));
        assert_eq!(question(&["0193.json"]).unwrap_err().code(), EXIT_USAGE);
    }

    #[test]
    fn what_is_no_decision_id_is_bad_usage() {
        assert_eq!(question(&["--decision", "zzz"]).unwrap_err().code(), EXIT_USAGE);
    }
}
