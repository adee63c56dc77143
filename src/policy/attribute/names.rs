//! The names that requests are asked about with: what a schema must have, and whom a name means.

use cedar_policy::{EntityUid, Schema};

use super::uid;
use crate::{domain::Method, policy::model::Options};

/// Kinds of callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Callers {
    pub(super) users: bool,
    pub(super) services: bool,
}

impl Callers {
    /// By the name of a type, in whatever namespace.
    pub(super) fn of(kind: &str) -> Self {
        let name = kind.rsplit("::").next().unwrap_or_default();
        Self { users: name == "User", services: name == "Service" }
    }

    /// Those of whom several may have one name: each issuer of tokens names users and services, a trust domain services.
    pub(super) fn ambiguous(options: &Options) -> Self {
        let (issuers, domains) = (options.issuers.len(), options.trust_domains.len());
        Self { users: issuers > 1, services: issuers + domains > 1 }
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self { users: self.users || other.users, services: self.services || other.services }
    }

    pub(super) const fn meet(self, other: Self) -> bool {
        (self.users && other.users) || (self.services && other.services)
    }
}

pub(super) fn kind(uid: &EntityUid) -> Callers {
    Callers::of(uid.type_name().basename())
}

pub(super) fn is_caller(uid: &EntityUid) -> bool {
    kind(uid) != Callers::default()
}

/// What a schema lacks of the names that requests are asked about with: a policy would be validated against names that no
/// request has, and what it forbids be allowed.
pub(super) fn missing(schema: &Schema) -> Vec<String> {
    let types = ["User", "Service", "Role", "Resource"].into_iter();
    let types = types.filter(|kind| !schema.entity_types().any(|known| known.to_string() == *kind));
    let groups = ["read", "write"].map(|name| uid("Action", name)).into_iter().flatten();
    let groups = groups.filter(|group| !schema.actions().any(|known| known == group)).map(|group| group.to_string());
    let methods = Method::COMMON.iter().filter_map(|method| uid("Action", method.as_str()));
    let methods = methods.flat_map(|action| {
        let asked = ["User", "Service"].into_iter().filter(|kind| !applies(schema, kind, &action));
        asked.map(|kind| format!("{action} for `{kind}` and `Resource`")).collect::<Vec<_>>()
    });
    types.map(|kind| format!("`{kind}`")).chain(groups).chain(methods).collect()
}

fn applies(schema: &Schema, kind: &str, action: &EntityUid) -> bool {
    let mut known = schema.request_envs();
    known.any(|known| {
        known.action() == action && known.principal().to_string() == kind && known.resource().to_string() == "Resource"
    })
}
