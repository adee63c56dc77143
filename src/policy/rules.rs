//! The rules in force: an immutable snapshot, checked as a whole, swapped as a whole.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::FixedState;

use super::{
    attribute::AttributePolicies,
    build::{self, Problem},
    model::{Defaults, Guard, Options, Policy, Resource, RuleSet, SessionRule},
    roles::Roles,
    route::{Route, Routes},
};
use crate::domain::{Method, RiskModel};

/// Rules that fit together. Cheap to ask, never changed.
#[derive(Debug)]
pub struct Rules {
    version: Arc<str>,
    defaults: Defaults,
    options: Options,
    guards: Vec<Guard>,
    sessions: Vec<SessionRule>,
    resources: Vec<Resource>,
    policies: Vec<Policy>,
    by_policy: HashMap<Arc<str>, usize, FixedState>,
    by_resource: HashMap<Arc<str>, usize, FixedState>,
    roles: Roles,
    routes: Routes,
    attributes: Option<AttributePolicies>,
}

impl Rules {
    /// Checks that the parts fit together and makes them quick to ask.
    ///
    /// # Errors
    ///
    /// Everything that does not fit: double ids, unknown policies, ties, patterns that cannot be.
    pub fn build(
        version: &str,
        set: RuleSet,
        attributes: Option<AttributePolicies>,
        options: Options,
    ) -> Result<Self, Vec<Problem>> {
        let routes = build::check(&set)?;
        let RuleSet { defaults, guards, sessions, resources, roles, policies } = set;
        let by_policy = index(policies.iter().map(|policy| policy.id.as_str()));
        let by_resource = index(resources.iter().map(|resource| &*resource.id));
        let roles = Roles::new(&roles);
        let version = version.into();
        Ok(Self {
            version,
            defaults,
            options,
            guards,
            sessions,
            resources,
            policies,
            by_policy,
            by_resource,
            roles,
            routes,
            attributes,
        })
    }

    /// Names this very set of rules: a digest of their text.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    pub const fn defaults(&self) -> Defaults {
        self.defaults
    }

    pub const fn options(&self) -> &Options {
        &self.options
    }

    pub const fn risk_model(&self) -> RiskModel {
        self.options.risk_model
    }

    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// What becomes of sessions whose evidence changes.
    pub fn sessions(&self) -> &[SessionRule] {
        &self.sessions
    }

    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The resource that a request is for. Host and path are canonical.
    pub fn route(&self, host: &str, path: &str, method: &Method) -> Route<'_> {
        self.routes.find(&self.resources, host, path, method)
    }

    pub fn policy(&self, id: &str) -> Option<&Policy> {
        self.by_policy.get(id).map(|position| &self.policies[*position])
    }

    pub fn resource(&self, id: &str) -> Option<&Resource> {
        self.by_resource.get(id).map(|position| &self.resources[*position])
    }

    /// The roles that are defined, in no order.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.names()
    }

    /// Whether a role that a token asserts holds a permission.
    pub fn role_grants(&self, role: &str, permission: &str) -> bool {
        self.roles.grants(role, permission)
    }

    pub const fn attribute_policies(&self) -> Option<&AttributePolicies> {
        self.attributes.as_ref()
    }
}

fn index<'a>(ids: impl Iterator<Item = &'a str>) -> HashMap<Arc<str>, usize, FixedState> {
    ids.enumerate().map(|(position, id)| (id.into(), position)).collect()
}
