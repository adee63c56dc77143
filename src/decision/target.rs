//! What a request is for: the resource its path leads to, the policy that binds it, and what the route adds.
//!
//! The route's extensions may only tighten. Everything named must agree; the strictest of every demand holds.

use super::{outcome::Finding, reason::Reason};
use crate::{
    domain::{AccessRequest, Classification, RouteExtensions, Transport, TrustLevel, path::PathProblem},
    policy::{
        Route, Rules,
        model::{Access, AuthenticatedBy, DeviceMode, Policy, Resource},
    },
};

/// Resources and policies that must all agree, and the strictest of their demands.
#[derive(Debug)]
pub struct Target<'r> {
    /// By which it was found, and by which the request is judged.
    pub(super) rules: &'r Rules,
    /// The route's resource, and the one that an extension names besides.
    pub(super) resources: Few<&'r Resource, 2>,
    pub(super) policies: Few<&'r Policy, 3>,
    pub(super) access: Access,
    pub(super) authenticated_by: AuthenticatedBy,
    pub(super) min_trust_level: TrustLevel,
    pub(super) device: DeviceMode,
    pub(super) classification: Option<Classification>,
    /// The path of the route's resource that matched, as the rules write it.
    pattern: Option<&'r str>,
    /// Why there is nothing to reach, where there is not.
    pub(super) problem: Option<Finding>,
}

/// At most `N`, without allocating. (`SmallVec` would tie the lifetimes of what it holds.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Few<T, const N: usize>([Option<T>; N]);

impl<T: Copy, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self([None; N])
    }
}

impl<T: Copy, const N: usize> Few<T, N> {
    pub(super) fn iter(&self) -> impl Iterator<Item = T> + Clone {
        self.0.iter().copied().flatten()
    }

    pub(super) fn first(&self) -> Option<T> {
        self.0.first().copied().flatten()
    }

    /// False where there is no room.
    fn push(&mut self, item: T) -> bool {
        self.0.iter_mut().find(|slot| slot.is_none()).map(|slot| *slot = Some(item)).is_some()
    }
}

impl<'r> Target<'r> {
    /// Finds it: once for a request, for what must be looked up and for the judgement.
    pub fn of(request: &AccessRequest, rules: &'r Rules) -> Self {
        let mut target = Self {
            rules,
            resources: Few::default(),
            policies: Few::default(),
            access: Access::Public,
            authenticated_by: AuthenticatedBy::Any,
            min_trust_level: TrustLevel::Untrusted,
            device: DeviceMode::Never,
            classification: None,
            pattern: None,
            problem: None,
        };
        match target.find(request, rules).and_then(|()| target.extend(request, rules)) {
            Ok(()) => target,
            // Nothing to reach: nothing is public.
            Err(problem) => Self { access: Access::Authorized, problem: Some(problem), ..target },
        }
    }

    /// The rules by which it was found.
    pub const fn rules(&self) -> &'r Rules {
        self.rules
    }

    /// The pattern of the rules that the path matched.
    pub const fn pattern(&self) -> Option<&'r str> {
        self.pattern
    }

    /// The classes of the resources that are bound to `policy`, by themselves or by the route's extension.
    pub(super) fn classes_under(
        &self,
        policy: &Policy,
        request: &AccessRequest,
    ) -> impl Iterator<Item = Option<Classification>> {
        let by_route = request.extensions.policy.as_deref() == Some(policy.id.as_str());
        let bound = move |(i, resource): &(usize, &Resource)| {
            (by_route && *i == 0) || resource.policy.as_ref().is_some_and(|id| *id == policy.id)
        };
        self.resources.iter().enumerate().filter(bound).map(|(_, resource)| resource.data_classification)
    }

    /// What must be looked up before the request can be judged.
    pub fn needs(&self) -> Needs {
        let identity = self.access != Access::Public;
        let workload = identity && self.authenticated_by.needs_workload();
        let device = identity && self.device != DeviceMode::Never;
        Needs { identity, device, workload, session: identity && reads_sessions(self.rules) }
    }

    fn find(&mut self, request: &AccessRequest, rules: &'r Rules) -> Result<(), Finding> {
        if request.transport == Transport::Tcp {
            return Err(Finding::new(Reason::SegmentDenied, None));
        }
        let path = match &request.path {
            Ok(path) => path,
            Err(problem) => {
                let reason = match problem {
                    PathProblem::TooLarge => Reason::MessageTooLarge,
                    _ => Reason::MalformedPath,
                };
                return Err(Finding::new(reason, None).with(super::Detail::Path(*problem)));
            }
        };
        match rules.route(&request.host, path, &request.method) {
            Route::Resource(resource, pattern) => {
                self.pattern = Some(pattern);
                self.add(resource, rules)
            }
            Route::MethodNotAllowed(resource) => {
                Err(Finding::new(Reason::MethodNotAllowed, Some((&*resource.id).into())))
            }
            Route::NotFound => Err(Finding::new(Reason::NoMatchingResource, None)),
        }
    }

    fn add(&mut self, resource: &'r Resource, rules: &'r Rules) -> Result<(), Finding> {
        self.access = self.access.max(resource.access);
        self.authenticated_by = self.authenticated_by.and(resource.authenticated_by);
        self.classification = self.classification.max(resource.data_classification);
        if resource.access != Access::Public {
            let defaults = rules.defaults();
            self.min_trust_level =
                self.min_trust_level.max(resource.min_trust_level.unwrap_or(defaults.min_trust_level));
            self.device = self.device.max(resource.device.unwrap_or(defaults.device));
        }
        if !self.resources.push(resource) {
            return Err(Finding::new(Reason::RouteMisconfigured, None));
        }
        match &resource.policy {
            Some(policy) => self.add_policy(policy.as_str(), rules),
            None => Ok(()),
        }
    }

    fn add_policy(&mut self, id: &str, rules: &'r Rules) -> Result<(), Finding> {
        let policy = rules.policy(id).ok_or_else(|| Finding::new(Reason::UnknownPolicy, None))?;
        if self.policies.iter().any(|known| std::ptr::eq(known, policy)) {
            return Ok(());
        }
        if !policy.conditions.device_requirements.is_empty() {
            self.device = self.device.max(DeviceMode::WhenPresent);
        }
        // One of each resource and one of the extension: there is always room. If there were not, refuse.
        if self.policies.push(policy) { Ok(()) } else { Err(Finding::new(Reason::RouteMisconfigured, None)) }
    }

    fn extend(&mut self, request: &AccessRequest, rules: &'r Rules) -> Result<(), Finding> {
        let extensions = &request.extensions;
        // A segment, too, is something that is not understood: a route that counts on it stays shut.
        if let Some(name) = not_understood(extensions) {
            return Err(Finding::new(Reason::RouteMisconfigured, None).with(super::Detail::Extension(name)));
        }
        if let Some(id) = &extensions.resource {
            let named = rules.resource(id).ok_or_else(|| Finding::new(Reason::UnknownResource, None))?;
            if !self.resources.iter().any(|known| std::ptr::eq(known, named)) {
                self.add(named, rules)?;
            }
        }
        self.classification = self.classification.max(extensions.data_classification);
        if let Some(id) = &extensions.policy {
            self.tighten_access(rules);
            self.add_policy(id, rules)?;
        }
        if let Some(level) = extensions.min_trust_level {
            self.tighten_access(rules);
            self.min_trust_level = self.min_trust_level.max(level);
        }
        Ok(())
    }

    /// A public resource on a route that asks for more is no longer public.
    fn tighten_access(&mut self, rules: &Rules) {
        if self.access == Access::Public {
            self.access = Access::Authenticated;
            self.min_trust_level = self.min_trust_level.max(rules.defaults().min_trust_level);
            self.device = self.device.max(rules.defaults().device);
        }
    }
}

/// What must be gathered before a request can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Anything at all: false for public resources. Where there is nothing to reach it is true: the refusal tells revoked
    /// tokens apart, and stands in the record and in the subject's past with all that is known, like any other.
    pub identity: bool,
    pub device: bool,
    /// The workload that hands the request on: it must be one, so it must not be revoked either.
    pub workload: bool,
    /// What is remembered of the session.
    pub session: bool,
}

/// Whether anything could ask what was remembered: verification anew, rules for sessions, a challenge of a guard or policy.
fn reads_sessions(rules: &Rules) -> bool {
    rules.options().reverify
        || !rules.sessions().is_empty()
        || !rules.guards().is_empty()
        || !rules.policies().is_empty()
}

/// The name of an extension that nothing here can follow.
fn not_understood(extensions: &RouteExtensions) -> Option<&'static str> {
    match extensions.malformed.as_deref() {
        Some("data_classification") => Some("data_classification"),
        Some("min_trust_level") => Some("min_trust_level"),
        Some(_) => Some("context_extensions"),
        None => extensions.segment.as_ref().map(|_| "segment"),
    }
}
