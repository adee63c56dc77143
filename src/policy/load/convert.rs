//! From the shape of a file to the model. What cannot be said in serde's types is checked here, each problem with the
//! path of the field it stands in.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{places, raw};
use crate::{
    document::{Problem, closest},
    domain::{DeviceProof, Method, NetworkKind, host::canonical_host, span::Span},
    policy::model::{
        Conditions, Constraints, DeviceRequirement, Guard, PatchRequirement, Policy, RateLimit, RateScope, Resource,
        Restrictions, SessionOutcome, SessionRule, SessionWhen, When,
    },
};

const REQUIREMENT_KEYS: [&str; 8] =
    ["managed", "compliant", "jailbroken", "disk_encrypted", "patch_level", "os", "proof", "min_trust_score"];
const CONSTRAINT_KEYS: [&str; 9] = [
    "require_justification",
    "require_signed_requests",
    "validate_jwt",
    "encrypt_in_transit",
    "audit_all_access",
    "enable_session_recording",
    "monitor_usage",
    "encrypt_at_rest",
    "prevent_download",
];

const fn network(raw: raw::GuardNetwork) -> NetworkKind {
    match raw {
        raw::GuardNetwork::Vpn => NetworkKind::Vpn,
        raw::GuardNetwork::Hosting => NetworkKind::Hosting,
        raw::GuardNetwork::Tor => NetworkKind::Tor,
    }
}

pub(super) fn session(raw: &raw::Session, problems: &mut Vec<Problem>) -> SessionRule {
    let when = &raw.when;
    let request = When {
        risk_at_least: when.risk_at_least,
        risk_level: when.risk_level,
        device: when.device,
        location: when.location,
        network: when.network.map(network),
        subject: when.subject,
    };
    let when = SessionWhen {
        request,
        risk_above_ceiling: when.risk_above_ceiling,
        place_changed: when.place_changed,
        network_changed: when.network_changed,
        device_changed: when.device_changed,
        anomaly: when.anomaly,
    };
    let outcome = match &raw.outcome {
        raw::Outcome::Reauthenticate => SessionOutcome::Reauthenticate,
        raw::Outcome::VerifyIdentity => SessionOutcome::VerifyIdentity,
        raw::Outcome::StepUpAuthentication => SessionOutcome::StepUpAuthentication,
        raw::Outcome::VerifyLocation => SessionOutcome::VerifyLocation,
        raw::Outcome::EndSession => SessionOutcome::EndSession,
        raw::Outcome::ReducePrivileges(names) => {
            if names.is_empty() {
                problems.push(Problem::error("outcome.reduce_privileges", "which restrictions?"));
            }
            SessionOutcome::ReducePrivileges(restrictions(names, "outcome.reduce_privileges", problems))
        }
    };
    SessionRule { id: raw.id.as_str().into(), when, outcome }
}

fn restrictions(names: &[String], path: &str, problems: &mut Vec<Problem>) -> Restrictions {
    names.iter().enumerate().fold(Restrictions::default(), |all, (i, name)| {
        all.with(name).unwrap_or_else(|| {
            problems.push(unknown("restriction", name, &Restrictions::NAMES).under(&format!("{path}[{i}]")));
            all
        })
    })
}

pub(super) fn guard(raw: &raw::Guard) -> Guard {
    let raw::When { risk_at_least, risk_level, device, location, network: kind, subject } = raw.when;
    let network = kind.map(network);
    let when = When { risk_at_least, risk_level, device, location, network, subject };
    Guard { id: raw.id.as_str().into(), when, action: raw.action }
}

pub(super) fn resource(raw: &raw::Resource, problems: &mut Vec<Problem>) -> Resource {
    let mut hosts = Vec::new();
    if raw.matches.hosts.stands_empty() {
        let problem = Problem::error("match.hosts", "an empty list of hosts would stand for every host");
        problems.push(problem.hint("leave `hosts` out for every host"));
    }
    for (i, host) in raw.matches.hosts.items().iter().enumerate() {
        match canonical_host(host) {
            // Everything after the name, or after the brackets of an address.
            Some(_) if host.rsplit(']').next().is_some_and(|rest| rest.contains(':')) => {
                let message = format!("`{host}` names a port, and ports are not compared");
                let problem = Problem::error(format!("match.hosts[{i}]"), message);
                problems.push(problem.hint("write the name alone: it stands for every port"));
            }
            Some(host) => hosts.push(Arc::from(&*host)),
            None => problems.push(
                Problem::error(format!("match.hosts[{i}]"), format!("`{host}` is no host name"))
                    .hint("leave `hosts` out for every host; there are no wildcards"),
            ),
        }
    }
    let methods = raw.matches.methods.as_ref().map(|names| {
        let check = |(i, name): (usize, &String)| method(name, &format!("match.methods[{i}]"), problems);
        names.iter().enumerate().map(check).collect()
    });
    Resource {
        id: raw.id.as_str().into(),
        hosts,
        paths: raw.matches.paths.iter().map(|path| path.as_str().into()).collect(),
        methods,
        access: raw.access,
        authenticated_by: raw.authenticated_by,
        permission: raw.permission.as_deref().map(Into::into),
        policy: raw.policy.as_deref().map(Into::into),
        data_classification: raw.data_classification,
        min_trust_level: raw.min_trust_level,
        device: raw.device,
        streaming: raw.streaming,
    }
}

fn method(name: &str, path: &str, problems: &mut Vec<Problem>) -> Method {
    if name.is_empty() || !name.bytes().all(|c| c.is_ascii_uppercase() || c == b'-') {
        let hint = format!("methods are compared exactly: `{}`", name.to_ascii_uppercase());
        problems.push(Problem::error(path, format!("`{name}` is no method")).hint(hint));
    }
    Method::parse(name)
}

pub(super) fn policy(raw: &raw::Policy, problems: &mut Vec<Problem>) -> Policy {
    let conditions = conditions(&raw.conditions, problems);
    let mut constraints = Constraints::default();
    for (i, action) in raw.actions.iter().enumerate() {
        constrain(&mut constraints, &action.constraints);
        require(&mut constraints, &action.requirements, &format!("actions[{i}].requirements"), problems);
    }
    let rate_limits = raw.rate_limits.iter().enumerate().map(|(i, limit)| {
        rate_scope(limit, raw.conditions.api_scopes.items(), &format!("rate_limits[{i}].scope"), problems);
        RateLimit { scope: RateScope::parse(&limit.scope), limit: limit.limit, window: limit.window.get() }
    });
    Policy {
        id: raw.id.as_str().into(),
        name: raw.name.as_deref().map(Into::into),
        conditions,
        rate_limits: rate_limits.collect(),
        actions: raw.actions.iter().map(|action| action.kind).collect(),
        constraints,
    }
}

/// A scope that is no word of ours must be one of the policy's own OAuth scopes: a misspelt word would limit nobody.
fn rate_scope(limit: &raw::RateLimit, scopes: &[String], path: &str, problems: &mut Vec<Problem>) {
    if matches!(RateScope::parse(&limit.scope), RateScope::ApiScope(_)) && !scopes.contains(&limit.scope) {
        let near = closest(&limit.scope, RateScope::WORDS);
        let hint = near.map_or_else(
            || format!("write one of {}, or one of the policy's `api_scopes`", RateScope::WORDS.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        problems.push(Problem::error(path, format!("unknown scope `{}`", limit.scope)).hint(hint));
    }
}

fn conditions(raw: &raw::Conditions, problems: &mut Vec<Problem>) -> Conditions {
    empty_lists(raw, problems);
    let place = |(i, raw): (usize, &raw::Location)| {
        places::location(raw, problems, &format!("conditions.allowed_locations[{i}]"))
    };
    let allowed_locations = raw.allowed_locations.items().iter().enumerate().map(place).collect();
    let mut device_requirements = Vec::new();
    for (i, one) in raw.device_requirements.items().iter().enumerate() {
        let path = format!("conditions.device_requirements[{i}]");
        if let Some((key, value)) = single(one, &path, problems) {
            match requirement(key, value) {
                Ok(requirement) => device_requirements.push(requirement),
                Err(problem) => problems.push(problem.under(&format!("{path}.{key}"))),
            }
        }
    }
    Conditions {
        min_trust_score: raw.min_trust_score,
        max_risk: raw.max_risk,
        min_trust_level: raw.min_trust_level,
        required_auth_methods: raw.required_auth_methods.items().iter().copied().collect(),
        allowed_locations,
        device_requirements,
        data_classification: raw.data_classification.items().to_vec(),
        api_scopes: raw.api_scopes.items().iter().map(|scope| scope.as_str().into()).collect(),
        without_restrictions: restrictions(
            raw.without_restrictions.items(),
            "conditions.without_restrictions",
            problems,
        ),
    }
}

/// A condition that lists nothing reads like one that lets nobody through, and would let everybody through.
fn empty_lists(raw: &raw::Conditions, problems: &mut Vec<Problem>) {
    for (key, empty) in [
        ("required_auth_methods", raw.required_auth_methods.stands_empty()),
        ("allowed_locations", raw.allowed_locations.stands_empty()),
        ("device_requirements", raw.device_requirements.stands_empty()),
        ("data_classification", raw.data_classification.stands_empty()),
        ("api_scopes", raw.api_scopes.stands_empty()),
        ("without_restrictions", raw.without_restrictions.stands_empty()),
    ] {
        if empty {
            let problem = Problem::error(format!("conditions.{key}"), "an empty list asks for nothing");
            problems.push(problem.hint("leave it out; the action `deny` lets nobody through"));
        }
    }
    for (i, scope) in raw.api_scopes.items().iter().enumerate() {
        if scope.is_empty() || !scope.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'"' | b'\\')) {
            let message = format!("`{scope}` is no scope: no token holds it");
            let problem = Problem::error(format!("conditions.api_scopes[{i}]"), message);
            problems.push(problem.hint("a scope has no spaces: write each as an item of its own"));
        }
    }
}

/// The one key of a one-key map.
fn single<'m>(
    map: &'m BTreeMap<String, Value>,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Option<(&'m str, &'m Value)> {
    let mut entries = map.iter();
    match (entries.next(), entries.next()) {
        (Some((key, value)), None) => Some((key, value)),
        _ => {
            let hint = "begin each with a `-` of its own";
            problems.push(Problem::error(path, "each item holds exactly one key").hint(hint));
            None
        }
    }
}

fn requirement(key: &str, value: &Value) -> Result<DeviceRequirement, Problem> {
    let wrong = |expected: &str| Problem::error("", format!("expected {expected}"));
    let flag = || value.as_bool().ok_or_else(|| wrong("true or false"));
    match key {
        "managed" => flag().map(DeviceRequirement::Managed),
        "compliant" => flag().map(DeviceRequirement::Compliant),
        "jailbroken" => flag().map(DeviceRequirement::Jailbroken),
        "disk_encrypted" => flag().map(DeviceRequirement::DiskEncrypted),
        "patch_level" => patch_level(value)
            .map(DeviceRequirement::PatchLevel)
            .ok_or_else(|| wrong("`current` or a number of days, such as `30` or `30d`")),
        "os" => systems(value).map(DeviceRequirement::Os).ok_or_else(|| wrong("the name of a system, or a list")),
        "proof" => serde_json::from_value::<DeviceProof>(value.clone())
            .map(DeviceRequirement::Proof)
            .map_err(|_| wrong("`id_only`, `fingerprint` or `key`")),
        "min_trust_score" => value
            .as_f64()
            .filter(|score| (0.0..=1.0).contains(score))
            .map(DeviceRequirement::MinTrustScore)
            .ok_or_else(|| wrong("a number from 0 to 1")),
        other => Err(unknown("device requirement", other, &REQUIREMENT_KEYS)),
    }
}

fn unknown(what: &str, word: &str, known: &[&str]) -> Problem {
    let hint = closest(word, known.iter().copied())
        .map_or_else(|| format!("known here: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
    Problem::error("", format!("unknown {what} `{word}`")).hint(hint)
}

fn patch_level(value: &Value) -> Option<PatchRequirement> {
    let days = |days: u64| u32::try_from(days).ok().map(PatchRequirement::Days);
    match value {
        Value::String(text) if text == "current" => Some(PatchRequirement::Current),
        Value::String(text) => Span::parse(text).ok().and_then(|span| days(span.get().as_secs() / (24 * 3600))),
        Value::Number(number) => number.as_u64().and_then(days),
        _ => None,
    }
}

fn systems(value: &Value) -> Option<Vec<Arc<str>>> {
    match value {
        Value::String(name) => Some(vec![name.as_str().into()]),
        Value::Array(names) if !names.is_empty() => names.iter().map(|name| name.as_str().map(Into::into)).collect(),
        _ => None,
    }
}

fn constrain(constraints: &mut Constraints, raw: &raw::Constraints) {
    if let Some(span) = raw.session_duration {
        let longest = constraints.session_duration.map_or(span.get(), |known| known.min(span.get()));
        constraints.session_duration = Some(longest);
    }
    for (key, set) in [
        ("require_justification", raw.require_justification),
        ("require_signed_requests", raw.require_signed_requests),
        ("validate_jwt", raw.validate_jwt),
        ("encrypt_in_transit", raw.encrypt_in_transit),
        ("audit_all_access", raw.audit_all_access),
        ("enable_session_recording", raw.enable_session_recording),
        ("monitor_usage", raw.monitor_usage),
        ("encrypt_at_rest", raw.encrypt_at_rest),
        ("prevent_download", raw.prevent_download),
    ] {
        if set {
            switch_on(constraints, key);
        }
    }
}

/// Switches a constraint on by its name: enforced, or handed on as a restriction.
fn switch_on(constraints: &mut Constraints, key: &str) {
    match key {
        "require_justification" => constraints.require_justification = true,
        "require_signed_requests" => constraints.require_signed_requests = true,
        "validate_jwt" => constraints.validate_jwt = true,
        "encrypt_in_transit" => constraints.encrypt_in_transit = true,
        "audit_all_access" => constraints.audit_all_access = true,
        restriction => {
            let more = Restrictions::default().with(restriction).unwrap_or_default();
            constraints.restrictions = constraints.restrictions.union(more);
        }
    }
}

fn require(
    constraints: &mut Constraints,
    requirements: &[BTreeMap<String, Value>],
    path: &str,
    problems: &mut Vec<Problem>,
) {
    for (i, one) in requirements.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some((key, value)) = single(one, &path, problems) else { continue };
        let path = format!("{path}.{key}");
        if !CONSTRAINT_KEYS.contains(&key) {
            problems.push(unknown("requirement", key, &CONSTRAINT_KEYS).under(&path));
            continue;
        }
        match value.as_bool() {
            Some(true) => switch_on(constraints, key),
            Some(false) => {}
            None => problems.push(Problem::error(path, "expected true or false")),
        }
    }
}
