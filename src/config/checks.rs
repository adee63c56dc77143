//! What a typed configuration can still have wrong: values that do not fit one another, or are not safe together.

use std::{net::SocketAddr, time::Duration};

use super::{Address, Config};
use crate::{
    document::{Diagnostic, Entry, Node, Problem, Value},
    policy::country_warning,
    store::{self, RedisUrl},
};

/// Takes out sections that this version has nothing for, and says so.
pub(super) fn not_yet(root: &mut Node, sections: &[&str]) -> Vec<Diagnostic> {
    let Value::Map(entries) = &mut root.value else { return Vec::new() };
    let (refused, kept): (Vec<_>, Vec<_>) =
        std::mem::take(entries).into_iter().partition(|entry| sections.contains(&&*entry.key));
    *entries = kept;
    let refuse = |entry: &Entry| {
        Diagnostic::error(entry.key_at.clone(), &*entry.key, "not available in this version")
            .hint("take the section out")
    };
    refused.iter().map(refuse).collect()
}

pub(super) fn all(config: &Config) -> Vec<Problem> {
    let mut found = listen(config);
    found.extend(store_url(config));
    if config.rules.is_empty() {
        found.push(Problem::warning("rules", "no rules: everything is refused").hint("name files or folders"));
    }
    found.extend(owned("admin", config.admin.problems()));
    found.extend(identity(config));
    found.extend(staleness(config));
    found.extend(owned("check", config.check.problems()));
    found.extend(owned("answer", config.answer.problems()));
    found.extend(owned("location", config.location.problems()));
    found.extend(countries(config));
    found.extend(owned("assertion", config.assertion.problems()));
    found.extend(keys_in_clear(config));
    found.extend(owned("devices", config.devices.problems()));
    if config.identity.workloads.trust_domains.contains(&config.devices.trust_domain) {
        let message = "the same as one of `identity.workloads`: a device's certificate would be a workload's identity";
        found.push(Problem::error("devices.trust_domain", message).hint("give devices a trust domain of their own"));
    }
    found.extend(owned("session", config.session.problems()));
    found.extend(owned("signals", config.signals.problems()));
    found.extend(owned("ops", config.ops.problems()));
    found.extend(owned("audit", config.audit.problems()));
    found.extend(owned("telemetry", config.telemetry.problems()));
    found
}

fn identity(config: &Config) -> Vec<Problem> {
    let mut found: Vec<Problem> = config
        .identity
        .problems()
        .into_iter()
        .map(|problem| Problem::error(problem.path, problem.message).under("identity"))
        .collect();
    if config.identity.issuers.is_empty() && config.identity.workloads.trust_domains.is_empty() {
        let message = "no issuers and no trust domains: nobody can be known, only public resources are reachable";
        found.push(Problem::warning("identity", message));
    }
    found
}

/// Codes that no country has. Those that are no codes at all are errors of the section.
fn countries(config: &Config) -> Vec<Problem> {
    let location = &config.location;
    let mut found = Vec::new();
    for (field, codes) in
        [("allowed_countries", &location.allowed_countries), ("expected_countries", &location.expected_countries)]
    {
        let written = |code: &str| code.len() == 2 && code.bytes().all(|octet| octet.is_ascii_uppercase());
        let codes = codes.iter().enumerate().filter(|(_, code)| written(code));
        found.extend(codes.filter_map(|(i, code)| country_warning(&format!("location.{field}[{i}]"), code)));
    }
    found
}

/// What a module says of its own section.
fn owned<P: Into<String>>(section: &str, problems: Vec<(P, String)>) -> Vec<Problem> {
    problems.into_iter().map(|(path, message)| Problem::error(path, message).under(section)).collect()
}

/// Redis is shared, and read by more than us: backups, replicas, whoever looks for something else.
fn keys_in_clear(config: &Config) -> Option<Problem> {
    let shared = config.store.url.expose().starts_with("redis");
    let message =
        "without it the signing keys lie in Redis in clear: whoever can read it can sign assertions as Countersign";
    let clear = config.assertion.enabled && config.assertion.secret.is_none();
    (shared && clear)
        .then(|| Problem::warning("assertion.secret", message).hint("the same 32 characters or more on every replica"))
}

/// How long a revocation may go unnoticed where the feed is silent before that deserves a word.
const STALE: Duration = Duration::from_secs(60);

fn staleness(config: &Config) -> Option<Problem> {
    let allowed = config.revocation.max_staleness.get();
    let message = "a revoked token may pass for as long as this where the feed of changes is silent";
    (allowed > STALE).then(|| Problem::warning("revocation.max_staleness", message).hint("the default is 5s"))
}

fn listen(config: &Config) -> Vec<Problem> {
    let listen = &config.listen;
    let mut found = Vec::new();
    let tcp = |address: &Address| if let Address::Tcp(address) = address { Some(*address) } else { None };
    let ports = [("authz", tcp(&listen.authz)), ("admin", Some(listen.admin)), ("http", Some(listen.http))];
    for (i, (name, address)) in ports.iter().enumerate() {
        for (other, earlier) in &ports[..i] {
            if let (Some(a), Some(b)) = (address, earlier)
                && collide(*a, *b)
            {
                found.push(Problem::error(format!("listen.{name}"), format!("`{a}` is where `{other}` listens too")));
            }
        }
    }
    let elsewhere = !listen.admin.ip().is_loopback();
    if elsewhere && !config.admin_is_guarded() {
        let message =
            format!("`{}` is reachable from other machines, and nothing says who may administer", listen.admin);
        found.push(
            Problem::error("listen.admin", message)
                .hint("listen on 127.0.0.1, or configure `listen.admin_tls` with `client_ca`, or `admin.tokens`"),
        );
    } else if elsewhere && listen.admin_tls.is_none() {
        let message = "tokens cross the network without TLS";
        found.push(Problem::warning("listen.admin", message).hint("configure `listen.admin_tls`"));
    }
    if matches!(listen.authz, Address::Unix(_)) && listen.authz_tls.is_some() {
        let message = "a Unix socket speaks no TLS, and asks nobody for a certificate";
        found.push(
            Problem::error("listen.authz_tls", message)
                .hint("leave it out: who may open the socket's folder may connect"),
        );
    }
    if !config.admin.clients.is_empty() && listen.admin_tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
        let message = "no certificate is ever asked for: `listen.admin_tls` has no `client_ca`";
        found.push(Problem::error("admin.clients", message));
    }
    found
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified())))
}

fn store_url(config: &Config) -> Vec<Problem> {
    let url = config.store.url.expose();
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "memory" if url == "memory://" => vec![
            Problem::warning("store.url", "`memory://` forgets every revocation when the process ends")
                .hint("use `file:///…` on one machine, Redis for several"),
        ],
        "file" if config.store.folder().is_some() => Vec::new(),
        "file" => {
            let message = "a file store is named by its absolute path: `file:///var/lib/countersign`";
            vec![Problem::error("store.url", message)]
        }
        "redis" | "rediss" | "redis-cluster" | "rediss-cluster" | "redis-sentinel" | "rediss-sentinel" => redis(url),
        _ => {
            vec![Problem::error("store.url", "not a store").hint(
                "`memory://`, `file:///path`, `redis://`, `rediss://`, `redis-cluster://` or `redis-sentinel://`",
            )]
        }
    }
}

fn redis(url: &str) -> Vec<Problem> {
    let RedisUrl { remote, tls, login } = match store::redis_url(url) {
        Ok(read) => read,
        Err(why) => return vec![Problem::error("store.url", why).hint("`redis://user:password@host:6379/0`")],
    };
    if !remote {
        return Vec::new();
    }
    let mut found = Vec::new();
    if !tls {
        let message = "Redis on another host without TLS: whoever can read or write the wire can undo a revocation";
        found.push(Problem::warning("store.url", message).hint("use `rediss://`"));
    }
    if !login {
        let message = "Redis on another host without a password: whoever reaches it can undo a revocation";
        found.push(Problem::warning("store.url", message));
    }
    found
}
