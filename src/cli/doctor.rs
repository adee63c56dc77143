//! `countersign doctor`: looks at a running instance and its configuration, and says what to do.

use std::{net::SocketAddr, path::Path, process::ExitCode, time::Duration};

use clap::Args;
use prost_types::Timestamp;
use tonic::{Code, Request, transport::Endpoint};

use super::{
    client::{self, Connection, Failure, reachable},
    environment,
    revoke::printable,
};
use crate::{
    clock::Clock,
    config::{self, Address, Config},
    wire::admin::{StatusRequest, StatusResponse},
};

/// Check a running instance and its configuration: store, keys, feed, clock, rules, what Envoy sees.
///
/// Exits 0 when all is well, 1 when something needs doing; warnings do not count.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    connection: Connection,
}

/// Longer than this without a question from Envoy is worth a word.
const SILENCE: i64 = 300;

/// A server that hangs still takes connections: so long is waited for each answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What there is to say of somebody who answers otherwise, or not.
const NOT_OURS: &str = "is it Countersign that listens there, and does it run (not stopped, not out of CPU)?";

/// Clocks further apart than this break tokens.
const CLOCK: u64 = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Warning,
    Bad,
}

/// What was found, line by line.
#[derive(Default)]
struct Findings {
    bad: usize,
    warnings: usize,
}

impl Findings {
    fn say(&mut self, mark: Mark, what: &str, detail: impl AsRef<str>, remedy: &str) {
        let word = match mark {
            Mark::Good => "ok  ",
            Mark::Warning => "warn",
            Mark::Bad => "BAD ",
        };
        println!("{word}  {what:<14} {}", printable(detail.as_ref()));
        if mark != Mark::Good && !remedy.is_empty() {
            println!("      {:<14} → {remedy}", "");
        }
        self.bad += usize::from(mark == Mark::Bad);
        self.warnings += usize::from(mark == Mark::Warning);
    }

    fn good(&mut self, what: &str, detail: impl AsRef<str>) {
        self.say(Mark::Good, what, detail, "");
    }
}

impl Doctor {
    pub(super) fn run(self) -> ExitCode {
        client::run(async {
            let mut findings = Findings::default();
            let config = self.connection.config().and_then(|file| configuration(&file, &mut findings));
            if let Some(config) = &config {
                certificates(config, &mut findings);
                authz(&config.listen.authz, config.listen.authz_tls.is_some(), &mut findings).await;
                http(config.listen.http, &mut findings).await;
            }
            instance(&self.connection, &mut findings).await;
            println!("\n{} to mend, {} to look at", findings.bad, findings.warnings);
            if findings.bad == 0 { Ok(()) } else { Err(Failure::failed("something needs doing")) }
        })
    }
}

/// "1 warning", "2 warnings".
fn several(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

fn held(resources: u64, policies: u64) -> String {
    let policies = if policies == 1 { "1 policy".to_owned() } else { format!("{policies} policies") };
    format!("{}, {policies}", several(resources, "resource"))
}

fn configuration(file: &Path, findings: &mut Findings) -> Option<Config> {
    let hint = format!("countersign check-config --config {}", file.display());
    let (config, warnings) = match config::load(file, &environment()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            findings.say(Mark::Bad, "configuration", several(problems.len() as u64, "problem"), &hint);
            return None;
        }
    };
    match config.load_rules() {
        Ok((loaded, files)) if warnings.is_empty() && loaded.warnings.is_empty() => {
            let held = held(loaded.rules.resources().len() as u64, loaded.rules.policies().len() as u64);
            findings.good("configuration", format!("{} of rules, {held}", several(files.len() as u64, "file")));
        }
        Ok((loaded, _)) => {
            let count = warnings.len() + loaded.warnings.len();
            let first = warnings.iter().chain(&loaded.warnings).next().map(ToString::to_string).unwrap_or_default();
            findings.say(
                Mark::Warning,
                "configuration",
                format!("{}, such as {first}", several(count as u64, "warning")),
                &hint,
            );
        }
        Err(problems) => {
            findings.say(
                Mark::Bad,
                "rules",
                format!("{}: a restart would fail", several(problems.len() as u64, "problem")),
                &hint,
            );
        }
    }
    Some(config)
}

fn certificates(config: &Config, findings: &mut Findings) {
    for problem in config::inspect::out_of_time(config) {
        let remedy = "replace certificate and key: they are taken up without a restart";
        findings.say(Mark::Warning, "certificate", format!("{}: {}", problem.path, problem.message), remedy);
    }
}

/// Envoy's door: does gRPC health answer SERVING?
async fn authz(address: &Address, tls: bool, findings: &mut Findings) {
    let Address::Tcp(address) = address else {
        findings.say(Mark::Warning, "authz port", "a Unix socket: not looked at", "");
        return;
    };
    if tls {
        findings.say(Mark::Warning, "authz port", format!("{address} asks for TLS: not looked at"), "");
        return;
    }
    let endpoint = Endpoint::from_shared(format!("http://{}", reachable(*address)));
    let channel = match endpoint {
        Ok(endpoint) => endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await,
        Err(error) => Err(error),
    };
    let Ok(channel) = channel else {
        let remedy = "is `countersign serve` running? See its log for a port that is taken";
        findings.say(Mark::Bad, "authz port", format!("nobody answers at {address}"), remedy);
        return;
    };
    let asked = tonic_health::pb::HealthCheckRequest::default();
    match tonic_health::pb::health_client::HealthClient::new(channel).check(asked).await {
        Ok(answer) if answer.get_ref().status == 1 => findings.good("authz port", format!("{address} serves")),
        Ok(_) => findings.say(
            Mark::Bad,
            "authz port",
            format!("{address} says NOT_SERVING"),
            "it starts, drains or is not ready: see below",
        ),
        Err(status) => findings.say(Mark::Bad, "authz port", format!("{address}: {}", status.message()), NOT_OURS),
    }
}

async fn http(address: SocketAddr, findings: &mut Findings) {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
    let url = format!("http://{}/readyz", reachable(address));
    let answer = match client {
        Ok(client) => client.get(url).send().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) if answer.status().is_success() => findings.good("readiness", format!("{address} is ready")),
        Ok(answer) => {
            let text = answer.text().await.unwrap_or_default();
            let first: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
            findings.say(
                Mark::Bad,
                "readiness",
                format!("not ready: {first}"),
                "Kubernetes sends it no traffic until it is",
            );
        }
        Err(_) => findings.say(
            Mark::Bad,
            "readiness",
            format!("nobody answers at {address}"),
            "is `countersign serve` running?",
        ),
    }
}

async fn instance(connection: &Connection, findings: &mut Findings) {
    let mut client = match connection.connect().await {
        Ok(client) => client,
        Err(failure) => {
            findings.say(
                Mark::Bad,
                "admin API",
                failure.to_string(),
                "give `--admin ADDRESS`, or `--config FILE` of the server",
            );
            return;
        }
    };
    let mut question = Request::new(StatusRequest {});
    question.set_timeout(PATIENCE);
    match client.status(question).await {
        Ok(answer) => status(&answer.into_inner(), findings),
        Err(status) => {
            let remedy = match status.code() {
                Code::Unauthenticated | Code::PermissionDenied => "give `--token-file FILE`",
                _ => NOT_OURS,
            };
            findings.say(Mark::Bad, "admin API", Failure::from(status).to_string(), remedy);
        }
    }
}

fn status(status: &StatusResponse, findings: &mut Findings) {
    findings.good("version", format!("{}, store {}", status.version, status.store));
    if status.ready {
        findings.good("ready", "rules loaded, store reached");
    }
    for why in &status.not_ready {
        findings.say(Mark::Bad, "ready", format!("not yet: {why}"), "");
    }
    clock(status, findings);
    rules(status, findings);
    feed(status, findings);
    keys(status, findings);
    for warning in &status.warnings {
        findings.say(Mark::Warning, "server", warning, "");
    }
    envoy(status, findings);
}

fn clock(status: &StatusResponse, findings: &mut Findings) {
    let here = Clock::system().now().as_secs();
    let there = status.now.as_ref().and_then(|now| u64::try_from(now.seconds).ok()).unwrap_or_default();
    let apart = here.abs_diff(there);
    if apart <= CLOCK {
        findings.good("clock", "as here");
    } else {
        findings.say(
            Mark::Bad,
            "clock",
            format!("{apart} s apart from this machine's"),
            "synchronise both (chrony, systemd-timesyncd)",
        );
    }
}

fn rules(status: &StatusResponse, findings: &mut Findings) {
    let Some(rules) = &status.rules else { return };
    let held = held(rules.resources.into(), rules.policies.into());
    let since = since(rules.loaded.as_ref(), status).map(|age| format!(", for {age}")).unwrap_or_default();
    let detail = format!("version {}, {held}{since}", rules.version);
    if rules.error.is_empty() {
        findings.good("rules in force", detail);
    } else {
        let remedy = "mend the files; they are taken up at once. `countersign check-config` says where";
        findings.say(
            Mark::Bad,
            "rules in force",
            format!("{detail}; the files could not be used: {}", rules.error),
            remedy,
        );
    }
}

fn feed(status: &StatusResponse, findings: &mut Findings) {
    let Some(feed) = &status.feed else { return };
    let heard = feed.age.as_ref().map(|age| format!(", heard {} ago", span(age.seconds))).unwrap_or_default();
    let detail = format!("{}{heard}, {} known", feed.state, several(feed.revocations, "revocation"));
    match feed.state.as_str() {
        "live" => findings.good("feed", detail),
        "scanning" => findings.say(Mark::Warning, "feed", detail, "wait: until it is live, each check asks the store"),
        _ => {
            let remedy = "the store does not push: is Redis up, and may this user CLIENT TRACKING, SCAN and PING?";
            findings.say(Mark::Bad, "feed", detail, remedy);
        }
    }
}

fn keys(status: &StatusResponse, findings: &mut Findings) {
    for set in &status.key_sets {
        let confirmed = since(set.fetched.as_ref(), status).map(|age| format!(", fetched {age} ago"));
        let held = format!("{}: {}{}", set.issuer, several(set.keys.into(), "key"), confirmed.unwrap_or_default());
        match (set.keys, set.error.as_str()) {
            (1.., "") => findings.good("keys", held),
            (0, "") => {
                findings.say(Mark::Bad, "keys", format!("{held}: the first fetch is under way"), "wait, and ask again");
            }
            (0, error) => {
                let remedy = "its tokens are answered 503 until there are some: can this machine reach its `jwks`?";
                findings.say(Mark::Bad, "keys", format!("{held}: {error}"), remedy);
            }
            (1.., error) => {
                let remedy = "its tokens are refused once these keys are too old (`identity.key_sets.max_age`): can this machine reach its `jwks`?";
                findings.say(Mark::Bad, "keys", format!("{held}, the last fetch failed: {error}"), remedy);
            }
        }
    }
}

/// Between two moments of the server's clock.
fn since(time: Option<&Timestamp>, status: &StatusResponse) -> Option<String> {
    Some(span(status.now.as_ref()?.seconds.saturating_sub(time?.seconds)))
}

fn span(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{} s", seconds.max(0)),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn envoy(status: &StatusResponse, findings: &mut Findings) {
    let total: u64 = status.decisions.values().sum();
    let mut verdicts: Vec<String> =
        status.decisions.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
    verdicts.sort();
    if total == 0 {
        let remedy =
            "is the ext_authz filter in Envoy's listener, before the router, and its cluster this address (HTTP/2)?";
        findings.say(Mark::Warning, "Envoy", "has not asked since the start", remedy);
        return;
    }
    let age = status.last_check.as_ref().map_or(0, |age| age.seconds);
    let detail = format!("{} ({}), the last {} ago", several(total, "question"), verdicts.join(", "), span(age));
    if age > SILENCE {
        findings.say(Mark::Warning, "Envoy", detail, "is traffic still routed here?");
    } else {
        findings.good("Envoy", detail);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_is_told_as_one() {
        let told = [0, 1, 2].map(|count| super::several(count, "warning"));
        assert_eq!(told, ["0 warnings", "1 warning", "2 warnings"]);
    }
}
