//! Checks that the parts of a set of rules fit together. Everything that does not is said, not only the first.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    model::{Access, AuthenticatedBy, RuleSet},
    roles::is_permission_pattern,
    route::{Pattern, Routes},
};
use crate::domain::host::canonical_host;

/// What does not fit, and which part of the set it stands in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {message}")]
pub struct Problem {
    pub part: Part,
    pub message: String,
    /// What to do about it, where one can say.
    pub hint: Option<String>,
}

/// A place in a set of rules: a list, a position in it, and the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub list: List,
    pub position: usize,
    /// A field, and the position within it where it is a list.
    pub field: &'static str,
    pub item: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    Guards,
    Sessions,
    Resources,
    Roles,
    Policies,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = match self.list {
            List::Guards => "guards",
            List::Sessions => "sessions",
            List::Resources => "resources",
            List::Roles => "roles",
            List::Policies => "policies",
        };
        write!(f, "{list}[{}].{}", self.position, self.field)?;
        self.item.map_or(Ok(()), |item| write!(f, "[{item}]"))
    }
}

/// Collects problems.
struct Check<'s> {
    set: &'s RuleSet,
    /// Ids of the policies that there are.
    policies: HashSet<&'s str>,
    found: Vec<Problem>,
}

/// The routes of a set in which everything fits.
pub(super) fn check(set: &RuleSet) -> Result<Routes, Vec<Problem>> {
    let policies = set.policies.iter().map(|policy| policy.id.as_str()).collect();
    let mut check = Check { set, policies, found: Vec::new() };
    check.ids();
    check.roles();
    check.guards();
    check.sessions();
    check.policies();
    check.resources();
    let routes = check.routes();
    if check.found.is_empty() { Ok(routes) } else { Err(check.found) }
}

impl Check<'_> {
    fn problem(&mut self, list: List, position: usize, field: &'static str, message: impl Into<String>) {
        self.item_problem(Part { list, position, field, item: None }, message, None);
    }

    fn item_problem(&mut self, part: Part, message: impl Into<String>, hint: Option<&str>) {
        self.found.push(Problem { part, message: message.into(), hint: hint.map(str::to_owned) });
    }

    /// Ids are unique over guards, rules for sessions and resources together, and over policies by themselves: a resource
    /// and its policy often bear one name. A reason names a rule by its id alone, and then does not tell which of the two.
    fn ids(&mut self) {
        let set = self.set;
        let guards = set.guards.iter().enumerate().map(|(i, guard)| (List::Guards, i, guard.id.as_str()));
        let sessions = set.sessions.iter().enumerate().map(|(i, rule)| (List::Sessions, i, rule.id.as_str()));
        let resources = set.resources.iter().enumerate().map(|(i, resource)| (List::Resources, i, &*resource.id));
        let policies = set.policies.iter().enumerate().map(|(i, policy)| (List::Policies, i, policy.id.as_str()));
        let mut seen: HashMap<(bool, &str), List> = HashMap::new();
        for (list, position, id) in guards.chain(sessions).chain(resources).chain(policies) {
            if id.is_empty() || !id.bytes().all(|c| c.is_ascii_graphic()) || id.len() > 128 {
                self.problem(list, position, "id", "an id is 1 to 128 visible ASCII characters");
            } else if seen.insert((list == List::Policies, id), list).is_some() {
                self.problem(list, position, "id", format!("the id `{id}` is taken"));
            }
        }
    }

    fn roles(&mut self) {
        let set = self.set;
        for (position, (role, permissions)) in set.roles.iter().enumerate() {
            if role.is_empty() || role.contains('*') {
                self.problem(
                    List::Roles,
                    position,
                    "",
                    format!("`{role}` is no role: wildcards stand for permissions only"),
                );
            }
            for (item, permission) in permissions.iter().enumerate() {
                if !is_permission_pattern(permission) {
                    let part = Part { list: List::Roles, position, field: "", item: Some(item) };
                    let hint = Some("write `orders:read`, `orders:*` or `*`");
                    self.item_problem(part, format!("`{permission}` is no permission"), hint);
                }
            }
        }
    }

    fn guards(&mut self) {
        let set = self.set;
        for (position, guard) in set.guards.iter().enumerate() {
            if guard.when == super::model::When::default() {
                self.problem(List::Guards, position, "when", "a guard without a condition would stop everything");
            }
            if guard.when.risk_at_least.is_some_and(|risk| !(0.0..=10.0).contains(&risk)) {
                self.problem(List::Guards, position, "risk_at_least", "risk runs from 0 to 10");
            }
        }
    }

    fn sessions(&mut self) {
        let set = self.set;
        for (position, rule) in set.sessions.iter().enumerate() {
            if rule.when == super::model::SessionWhen::default() {
                self.problem(List::Sessions, position, "when", "a rule without a condition would touch every session");
            }
            if rule.when.request.risk_at_least.is_some_and(|risk| !(0.0..=10.0).contains(&risk)) {
                self.problem(List::Sessions, position, "risk_at_least", "risk runs from 0 to 10");
            }
        }
    }

    fn policies(&mut self) {
        let set = self.set;
        for (position, policy) in set.policies.iter().enumerate() {
            if policy.actions.is_empty() {
                self.problem(List::Policies, position, "actions", "a policy without an action decides nothing");
            }
            if policy.constraints.session_duration.is_some_and(|longest| longest < Duration::from_secs(1)) {
                let message = "a `session_duration` of less than 1s lets nobody in: no login is that young";
                self.problem(List::Policies, position, "actions", message);
            }
            if policy.conditions.min_trust_score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
                self.problem(List::Policies, position, "min_trust_score", "trust runs from 0 to 1");
            }
            if policy.conditions.max_risk.is_some_and(|risk| !(0.0..=10.0).contains(&risk)) {
                self.problem(List::Policies, position, "max_risk", "risk runs from 0 to 10");
            }
            for (item, limit) in policy.rate_limits.iter().enumerate() {
                if limit.limit == 0 || limit.window.is_zero() {
                    let part = Part { list: List::Policies, position, field: "rate_limits", item: Some(item) };
                    self.item_problem(part, "a limit of nothing, or over no time, lets nobody in", Some("use `deny`"));
                } else if policy.rate_limits.iter().take(item).any(|before| before == limit) {
                    let part = Part { list: List::Policies, position, field: "rate_limits", item: Some(item) };
                    self.item_problem(part, "the same limit stands here twice: each request would count twice", None);
                }
            }
        }
    }

    fn resources(&mut self) {
        let set = self.set;
        for (position, resource) in set.resources.iter().enumerate() {
            if resource.paths.is_empty() {
                self.problem(List::Resources, position, "paths", "a resource needs a path");
            }
            if resource.methods.as_ref().is_some_and(Vec::is_empty) {
                self.problem(List::Resources, position, "methods", "an empty list of methods matches nothing");
            }
            for (item, host) in resource.hosts.iter().enumerate() {
                if canonical_host(host).as_deref() != Some(&**host) {
                    let part = Part { list: List::Resources, position, field: "hosts", item: Some(item) };
                    self.item_problem(
                        part,
                        format!("`{host}` is no host name"),
                        Some("write it in lower case, without port"),
                    );
                }
            }
            if resource.permission.as_deref().is_some_and(|name| name.is_empty() || name.contains('*')) {
                self.problem(
                    List::Resources,
                    position,
                    "permission",
                    "a resource names one permission, without wildcards",
                );
            }
            self.references(position);
        }
    }

    fn references(&mut self, position: usize) {
        let set = self.set;
        let resource = &set.resources[position];
        if let Some(id) = &resource.policy
            && !self.policies.contains(id.as_str())
        {
            self.problem(List::Resources, position, "policy", format!("there is no policy `{id}`"));
        }
        if resource.access == Access::Authenticated && resource.permission.is_some() {
            let part = Part { list: List::Resources, position, field: "permission", item: None };
            let message = "`permission` is never looked at where `access` is `authenticated`: whoever is known gets in";
            let hint =
                "leave `access` out for those who hold the permission, or `permission` for everybody who is known";
            self.item_problem(part, message, Some(hint));
        }
        if resource.access == Access::Public {
            let asks = [
                ("authenticated_by", resource.authenticated_by != AuthenticatedBy::Any),
                ("permission", resource.permission.is_some()),
                ("policy", resource.policy.is_some()),
                ("min_trust_level", resource.min_trust_level.is_some()),
                ("device", resource.device.is_some()),
                ("streaming", resource.streaming),
            ];
            for (field, _) in asks.into_iter().filter(|(_, asked)| *asked) {
                let message = format!("`{field}` is never looked at on a public resource");
                self.problem(List::Resources, position, field, message);
            }
        }
    }

    fn routes(&mut self) -> Routes {
        let set = self.set;
        let mut routes = Routes::new();
        for (position, resource) in set.resources.iter().enumerate() {
            for (item, path) in resource.paths.iter().enumerate() {
                let inserted = Pattern::parse(path).map_err(|problem| problem.to_string()).and_then(|pattern| {
                    let place = (position, item);
                    routes.insert(&pattern, resource, place).map_err(|other| tie(path, &set.resources[other].id))
                });
                if let Err(message) = inserted {
                    let part = Part { list: List::Resources, position, field: "paths", item: Some(item) };
                    self.item_problem(part, message, None);
                }
            }
        }
        routes
    }
}

fn tie(path: &str, other: &Arc<str>) -> String {
    format!("`{path}` ties with the resource `{other}`: same path, host and a common method")
}
