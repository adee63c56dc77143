//! Rules that load and probably do not say what was meant: unreachable, unbound, or not to be met as things are.

use std::{borrow::Cow, collections::HashSet, iter::once, sync::Arc};

use super::{Loader, Origin};
use crate::{
    document::{Diagnostic, Problem, closest},
    domain::{Method, PolicyId, RiskModel, country},
    policy::{
        Rules,
        model::{
            Access, ActionKind, AllowedLocation, AuthenticatedBy, LocationState, Policy, Resource, SessionRule, When,
        },
        route::Route,
    },
};

pub(super) fn of(rules: &Rules, loader: &Loader<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut warn = |origin: &Origin<'_>, path: &str, message: String| {
        found.push(origin.node.diagnose(&origin.path, Problem::warning(path, message)));
    };
    // The default guards stand in no file: only those that were written have an origin.
    for (guard, origin) in rules.guards().iter().zip(&loader.guards) {
        guard_warnings(rules, &guard.when, |path, message| warn(origin, path, message));
    }
    if let Some(first) = loader.guards.first().filter(|_| ignores_countries(rules)) {
        let message = "`location.allowed_countries` is looked at by no guard: none says `location: not_allowed`";
        warn(first, "when", message.to_owned());
    }
    for (rule, origin) in rules.sessions().iter().zip(&loader.sessions) {
        guard_warnings(rules, &rule.when.request, |path, message| warn(origin, path, message));
        session_warnings(rules, rule, |path, message| warn(origin, path, message));
    }
    let all = rules.resources().iter().flat_map(|resource| &resource.paths);
    let deepest = all.map(|path| path.matches('/').count()).max().unwrap_or_default();
    for (resource, origin) in rules.resources().iter().zip(&loader.resources) {
        resource_warnings(rules, resource, deepest, |path, message| warn(origin, path, message));
    }
    let bound: HashSet<&PolicyId> = rules.resources().iter().filter_map(|resource| resource.policy.as_ref()).collect();
    for (policy, origin) in rules.policies().iter().zip(&loader.policies) {
        if !bound.contains(&policy.id) {
            let message = "unbound: no resource names this policy, only a route's `policy` extension could";
            warn(origin, "id", message.to_owned());
        }
        policy_warnings(rules, policy, |path, message| warn(origin, path, message));
    }
    for (policy, origin) in rules.policies().iter().zip(&loader.policies) {
        let unmatched = unmatched_places(rules, policy).into_iter();
        found.extend(unmatched.map(|problem| origin.node.diagnose(&origin.path, problem)));
    }
    found
}

/// Names and codes in `allowed_locations` that no place has.
fn unmatched_places(rules: &Rules, policy: &Policy) -> Vec<Problem> {
    let mut found = Vec::new();
    for (i, place) in policy.conditions.allowed_locations.iter().enumerate() {
        let path = format!("conditions.allowed_locations[{i}]");
        match (place, &rules.options().known_networks) {
            (AllowedLocation::Country(codes), _) => {
                found.extend(codes.iter().filter_map(|code| country_warning(&path, code)));
            }
            (AllowedLocation::KnownSecureLocation(names), Some(known)) => found.extend(networks(&path, names, known)),
            _ => {}
        }
    }
    found
}

/// What to say of a country's code of two capitals that is assigned to none.
pub fn country_warning(path: &str, code: &str) -> Option<Problem> {
    if country::exists(code) {
        return None;
    }
    let problem = Problem::warning(path, format!("can never match: ISO 3166-1 assigns `{code}` to no country"));
    Some(match country::meant(code) {
        Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
        None => problem,
    })
}

fn networks(path: &str, names: &[Arc<str>], known: &[Arc<str>]) -> Vec<Problem> {
    if names.is_empty() && known.is_empty() {
        return vec![Problem::warning(
            path,
            "can never match: `location.known_networks` of the configuration is empty",
        )];
    }
    let unknown = names.iter().filter(|name| !known.contains(name));
    let tell = |name: &Arc<str>| {
        let message = format!("can never match: `location.known_networks` of the configuration has no `{name}`");
        let problem = Problem::warning(path, message);
        match closest(name, known.iter().map(|known| &**known)) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem,
        }
    };
    unknown.map(tell).collect()
}

/// Whether countries are named that requests may come from, and guards were written that let them come from anywhere.
fn ignores_countries(rules: &Rules) -> bool {
    let looks = |when: &When| when.location == Some(LocationState::NotAllowed);
    rules.options().allowed_countries && !rules.guards().iter().any(|guard| looks(&guard.when))
}

fn session_warnings(rules: &Rules, rule: &SessionRule, mut warn: impl FnMut(&str, String)) {
    let options = rules.options();
    if (rule.when.place_changed && !options.countries) || (rule.when.network_changed && !options.location) {
        warn("when", "never applies: places are not looked up, or there is no database of countries".to_owned());
    }
    if options.risk_model == RiskModel::None && (rule.when.risk_above_ceiling || rule.when.anomaly.is_some()) {
        warn("when", "never applies: every risk is 0 (`risk.model: none`)".to_owned());
    }
}

fn guard_warnings(rules: &Rules, when: &When, mut warn: impl FnMut(&str, String)) {
    let options = rules.options();
    if !options.location && (when.location.is_some() || when.network.is_some()) {
        warn(
            "when",
            "never applies: places are not looked up (`location` is off, or has neither databases nor networks)"
                .to_owned(),
        );
    }
    let reads_risk = when.risk_at_least.is_some_and(|least| least > 0.0) || when.risk_level.is_some();
    if options.risk_model == RiskModel::None && reads_risk {
        warn("when", "never applies: every risk is 0 (`risk.model: none`)".to_owned());
    }
}

fn resource_warnings(rules: &Rules, resource: &Resource, deepest: usize, mut warn: impl FnMut(&str, String)) {
    let nothing_grants = resource.access == Access::Authorized
        && resource.permission.is_none()
        && resource.policy.is_none()
        && rules.attribute_policies().is_none();
    if nothing_grants {
        let message =
            "nothing can ever grant access: name a `permission` or a `policy`, or write `access: authenticated`";
        warn("", message.to_owned());
    }
    for (i, path) in resource.paths.iter().enumerate() {
        if !reachable(rules, resource, path, deepest) {
            warn(&format!("match.paths[{i}]"), "unreachable: more specific rules take every request".to_owned());
        }
    }
    let options = rules.options();
    let wants_workload = matches!(resource.authenticated_by, AuthenticatedBy::Workload | AuthenticatedBy::Both);
    // Without issuers either, who vouches is not known here.
    if wants_workload && options.trust_domains.is_empty() && !options.issuers.is_empty() {
        let message = "can never be met: nobody is known as a workload (`identity.workloads.trust_domains` is empty)";
        warn("authenticated_by", message.to_owned());
    }
    let Some(policy) = resource.policy.as_ref().and_then(|id| rules.policy(id.as_str())) else { return };
    let covered = &policy.conditions.data_classification;
    if !covered.is_empty() && !resource.data_classification.is_some_and(|own| covered.contains(&own)) {
        let own = resource.data_classification.map_or("none", |own| own.as_str());
        let message = format!("can never be met: the policy does not cover this resource's classification ({own})");
        warn("policy", message);
    }
}

/// Whether some request that the path, hosts and methods describe is decided by this resource. No pattern has more segments
/// than `deepest`.
fn reachable(rules: &Rules, resource: &Resource, path: &str, deepest: usize) -> bool {
    let Some(above) = path.strip_suffix("**") else { return decides(rules, resource, &sample(path)) };
    // The folder itself with its slash, then what lies one, two, … segments below it, without a slash at its end and with one.
    let above = sample(above);
    let below = (1..=deepest + 1).map(|count| format!("{above}{}", vec![ANY; count].join("/")));
    let mut ways = once(above.clone()).chain(below.flat_map(|path| [format!("{path}/"), path]));
    ways.any(|path| decides(rules, resource, &path))
}

/// A segment, or a host, that no rule names.
const ANY: &str = "~any~";

/// A path that the pattern describes.
fn sample(pattern: &str) -> String {
    let sample = |segment| if str::starts_with(segment, '{') { ANY } else { segment };
    pattern.split('/').map(sample).collect::<Vec<_>>().join("/")
}

fn decides(rules: &Rules, resource: &Resource, path: &str) -> bool {
    let path = crate::domain::path::canonical_path(path).map(Cow::into_owned).unwrap_or_default();
    let methods = resource.methods.as_deref().unwrap_or(&Method::COMMON);
    let mut hosts = resource.hosts.iter().map(|host| &**host).chain(resource.hosts.is_empty().then_some(ANY));
    hosts.any(|host| {
        let own = |found: &Resource| found.id == resource.id;
        methods.iter().any(|method| matches!(rules.route(host, &path, method), Route::Resource(found, _) if own(found)))
    })
}

fn policy_warnings(rules: &Rules, policy: &Policy, mut warn: impl FnMut(&str, String)) {
    let options = rules.options();
    let places = &policy.conditions.allowed_locations;
    let met = |place: &AllowedLocation| match place {
        AllowedLocation::Cidr(_) => true,
        AllowedLocation::Country(_) => options.location && options.countries,
        _ => options.location,
    };
    if !places.is_empty() && !places.iter().any(met) {
        let message = "can never be met: places are not looked up, or there is no database of countries";
        warn("conditions.allowed_locations", message.to_owned());
    }
    if options.risk_model == RiskModel::None && policy.conditions.max_risk.is_some() {
        warn("conditions.max_risk", "always met: every risk is 0 (`risk.model: none`)".to_owned());
    }
    let denies = policy.actions.contains(&ActionKind::Deny);
    if denies && policy.actions.len() > 1 {
        warn("actions", "`deny` is always the answer: the other actions are unreachable".to_owned());
    }
    if policy.constraints.audit_all_access && !options.audit {
        let message = "can never be met: `audit_all_access` demands records, and there are none (`audit.sink: none`)";
        warn("actions", message.to_owned());
    }
    let bare = policy.constraints == crate::policy::model::Constraints::default();
    if policy.actions.contains(&ActionKind::ConditionalAllow) && bare {
        warn("actions", "`conditional_allow` without constraints or requirements is a plain `allow`".to_owned());
    }
}
