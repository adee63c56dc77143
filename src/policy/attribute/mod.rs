//! Attribute policies in Cedar: validated against a schema when loaded, sliced by scope, remembered by what they read.
//!
//! A verdict is a pure function of exactly the inputs that the policies read, so it is remembered under those. A policy
//! that fails to evaluate might have been a `forbid`: any error refuses. What a policy reads and cannot be given is no
//! absence: a claim that Cedar has no word for is such an error, and a fact that cannot be looked up leaves open what the
//! policy says.

mod compile;
mod entities;
mod inputs;
mod names;
mod reads;

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use cedar_policy::{
    ActionConstraint, Authorizer, Context, Effect, Entities, EntityId, EntityTypeName, EntityUid, Policy, PolicySet,
    Request, Response,
};
use moka::sync::Cache;
use smallvec::SmallVec;

pub use compile::SCHEMA;
pub(super) use compile::Texts;
pub use inputs::{Question, Untold};

use self::{
    entities::{Asked, Hierarchy},
    inputs::{Input, Lacking, express, write_text},
    reads::{Reads, by_role},
};
use super::model::Options;
use crate::{document::Diagnostic, domain::RuleId};

/// How many octets of memory the verdicts, and the slices, take at most. Keys hold what callers send: paths, claims.
const VERDICTS: u64 = 16 << 20;
const SLICES: u64 = 32 << 20;
/// What an entry takes besides its key, and each policy of a slice, about.
const ENTRY: usize = 160;
const POLICY: usize = 1024;

/// What attribute policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeVerdict {
    /// The determining policy.
    Permit(RuleId),
    /// Nobody permits, nobody forbids.
    Silent,
    Forbid(RuleId),
    /// A policy failed to evaluate.
    Failed(RuleId),
    /// It hangs on a fact that cannot be had. `forbid`: a policy that might forbid; without one, `permit` might.
    Untold {
        fact: Untold,
        forbid: Option<RuleId>,
        permit: Option<RuleId>,
    },
}

/// Compiled attribute policies, with their memory.
#[derive(Debug)]
pub struct AttributePolicies {
    /// By name, so that equal inputs name equal reasons.
    policies: Vec<Arc<Said>>,
    /// What all of them read.
    reads: Reads,
    hierarchy: Hierarchy,
    warnings: Vec<Diagnostic>,
    slices: Cache<Box<[u8]>, Arc<Slice>>,
    verdicts: Cache<Box<[u8]>, AttributeVerdict>,
}

/// One policy, and what it reads.
#[derive(Debug)]
struct Said {
    id: RuleId,
    policy: Policy,
    reads: Reads,
}

/// Policies whose scope can match.
#[derive(Debug)]
struct Slice {
    set: PolicySet,
    said: Vec<Arc<Said>>,
}

/// Keys are built on the stack where they are short.
type Key = SmallVec<[u8; 256]>;

impl AttributePolicies {
    /// # Errors
    ///
    /// Every problem of the texts.
    pub(super) fn compile(texts: &Texts<'_>, options: &Options) -> Result<Self, Vec<Diagnostic>> {
        let compile::Compiled { policies, hierarchy, warnings } = compile::compile(texts, options)?;
        let mut reads = Reads::default();
        policies.iter().for_each(|said| reads.join(&said.reads));
        let mut policies: Vec<_> = policies.into_iter().map(Arc::new).collect();
        policies.sort_by(|one, other| one.id.as_str().cmp(other.id.as_str()));
        let slices = bounded(SLICES, |slice: &Arc<Slice>| slice.said.len().saturating_mul(POLICY));
        let verdicts = bounded(VERDICTS, |_| 0);
        Ok(Self { policies, reads, hierarchy, warnings, slices, verdicts })
    }

    pub(super) fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// What the policies say of one request: remembered, or evaluated.
    pub fn verdict(&self, question: &Question<'_>) -> AttributeVerdict {
        let mut key = Key::new();
        scope_key(question, &mut key);
        let scope = key.len();
        self.inputs_key(question, &mut key);
        if let Some(known) = self.verdicts.get(&key[..]) {
            return known;
        }
        let verdict = self.evaluate(question, &key[..scope]);
        self.verdicts.insert(key.into_boxed_slice(), verdict.clone());
        verdict
    }

    /// What is read beyond kind, roles, action and resource.
    fn inputs_key(&self, question: &Question<'_>, key: &mut Key) {
        if self.reads.subject || self.hierarchy.callers {
            write_text(question.identity.issuer.as_str(), key);
            write_text(question.identity.subject.as_str(), key);
        }
        for name in &self.reads.principal {
            Input::write(question.principal(name).as_ref(), key);
        }
        for name in &self.reads.resource {
            Input::write(question.resource(name).as_ref(), key);
        }
        for name in &self.reads.context {
            Input::write(question.context(name).as_ref(), key);
        }
    }

    fn evaluate(&self, question: &Question<'_>, scope: &[u8]) -> AttributeVerdict {
        let failed = || AttributeVerdict::Failed("attribute-policies".into());
        let Some((request, entities)) = self.ask(question) else { return failed() };
        let slice = match self.slices.get(scope) {
            Some(slice) => slice,
            None => {
                let Some(slice) = self.slice(&request, &entities) else { return failed() };
                let slice = Arc::new(slice);
                self.slices.insert(scope.into(), Arc::clone(&slice));
                slice
            }
        };
        let answer = |policies: &PolicySet| told(&Authorizer::new().is_authorized(&request, policies, &entities));
        match question.lacking(&self.reads) {
            None => answer(&slice.set),
            Some(_) => {
                // A slice holds what is said of other callers, too.
                let fits = |said: &&Said| !matches!(fits(&said.policy, &request, &entities), Some((false, _)));
                let own = slice.said.iter().map(AsRef::as_ref).filter(fits);
                without_lacking(question, own, answer).unwrap_or_else(failed)
            }
        }
    }

    /// The request and its entities; `None` where Cedar cannot take them.
    fn ask(&self, question: &Question<'_>) -> Option<(Request, Entities)> {
        let principal = uid(question.kind(), question.identity.subject.as_str())?;
        let action = uid("Action", question.method.as_str())?;
        let resource = uid("Resource", &question.resource.id)?;
        let context = express(&self.reads.context, |name| question.context(name));
        let context = Context::from_pairs(context).ok()?;
        let roles = question.identity.roles.iter().map(|role| uid("Role", role.as_str())).collect::<Option<_>>()?;
        // A method that no schema knows does whatever it does.
        let write = uid("Action", "write").filter(|_| !self.hierarchy.knows(&action));
        let asked = [
            Asked {
                uid: principal.clone(),
                attributes: express(&self.reads.principal, |name| question.principal(name)),
                parents: roles,
            },
            Asked { uid: action.clone(), attributes: BTreeMap::new(), parents: write.into_iter().collect() },
            Asked {
                uid: resource.clone(),
                attributes: express(&self.reads.resource, |name| question.resource(name)),
                parents: Vec::new(),
            },
        ];
        let entities = self.hierarchy.around(asked, question.identity.issuer.as_str())?;
        let request = Request::new(principal, action, resource, context, None).ok()?;
        Some((request, entities))
    }

    /// The policies whose scope can match: the others never contribute and never fail.
    fn slice(&self, request: &Request, entities: &Entities) -> Option<Slice> {
        let matching = self.policies.iter().filter(|said| {
            // INVARIANT: a slice is found by kind and roles. Where those do not tell who a scope fits, it fits whoever asks.
            let whoever = self.hierarchy.callers || !by_role(&said.policy);
            fits(&said.policy, request, entities).is_some_and(|(who, what)| (who || whoever) && what)
        });
        let said: Vec<_> = matching.cloned().collect();
        let set = PolicySet::from_policies(said.iter().map(|said| said.policy.clone())).ok()?;
        Some(Slice { set, said })
    }
}

/// Whether the scope of a policy fits who asks, and what for.
fn fits(policy: &Policy, request: &Request, entities: &Entities) -> Option<(bool, bool)> {
    use cedar_policy::{PrincipalConstraint as P, ResourceConstraint as R};
    let (principal, action, resource) = (request.principal()?, request.action()?, request.resource()?);
    let within = |inner: &EntityUid, outer: &EntityUid| inner == outer || entities.is_ancestor_of(outer, inner);
    let of = |is: &EntityTypeName, who: &EntityUid| who.type_name() == is;
    let who = match policy.principal_constraint() {
        P::Any => true,
        P::Eq(one) => one == *principal,
        P::In(group) => within(principal, &group),
        P::Is(kind) => of(&kind, principal),
        P::IsIn(kind, group) => of(&kind, principal) && within(principal, &group),
    };
    let what = match policy.resource_constraint() {
        R::Any => true,
        R::Eq(one) => one == *resource,
        R::In(group) => within(resource, &group),
        R::Is(kind) => of(&kind, resource),
        R::IsIn(kind, group) => of(&kind, resource) && within(resource, &group),
    };
    let how = match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(one) => one == *action,
        ActionConstraint::In(groups) => groups.iter().any(|group| within(action, group)),
    };
    Some((who, what && how))
}

/// Where something that is read cannot be given: what the policies say that do not read it, and what the others might.
fn without_lacking<'p>(
    question: &Question<'_>,
    policies: impl Iterator<Item = &'p Said>,
    answer: impl Fn(&PolicySet) -> AttributeVerdict,
) -> Option<AttributeVerdict> {
    let (mut rest, mut open) = (Vec::new(), Vec::new());
    for Said { id, policy, reads } in policies {
        match question.lacking(reads) {
            None => rest.push(policy.clone()),
            Some(Lacking::Claim) => return Some(AttributeVerdict::Failed(id.clone())),
            Some(Lacking::Fact(fact)) => open.push((policy.effect(), id.clone(), fact)),
        }
    }
    let told = answer(&PolicySet::from_policies(rest).ok()?);
    let first = |effect| open.iter().find(|(its, ..)| *its == effect).map(|(_, id, fact)| (id.clone(), *fact));
    let (forbid, permit) = (first(Effect::Forbid), first(Effect::Permit));
    Some(match (told, forbid, permit) {
        (told @ (AttributeVerdict::Forbid(_) | AttributeVerdict::Failed(_)), ..)
        | (told @ AttributeVerdict::Permit(_), None, _)
        | (told, None, None) => told,
        (AttributeVerdict::Permit(id), Some((forbid, fact)), _) => {
            AttributeVerdict::Untold { fact, forbid: Some(forbid), permit: Some(id) }
        }
        (_, Some((forbid, fact)), permit) => {
            AttributeVerdict::Untold { fact, forbid: Some(forbid), permit: permit.map(|(id, _)| id) }
        }
        (_, None, Some((id, fact))) => AttributeVerdict::Untold { fact, forbid: None, permit: Some(id) },
    })
}

/// A memory of at most so many octets; `size`: those of a value.
fn bounded<V: Clone + Send + Sync + 'static>(
    octets: u64,
    size: impl Fn(&V) -> usize + Send + Sync + 'static,
) -> Cache<Box<[u8]>, V> {
    let weigh = move |octets: usize, value: &V| octets.saturating_add(ENTRY).saturating_add(size(value));
    let builder = Cache::<Box<[u8]>, V>::builder().max_capacity(octets);
    builder.weigher(move |key, value| u32::try_from(weigh(key.len(), value)).unwrap_or(u32::MAX)).build()
}

/// Kind, roles, action and resource: what scopes are matched by.
fn scope_key(question: &Question<'_>, key: &mut Key) {
    write_text(question.kind(), key);
    write_text(question.method.as_str(), key);
    write_text(&question.resource.id, key);
    key.extend((question.identity.roles.len() as u64).to_be_bytes());
    question.identity.roles.iter().for_each(|role| write_text(role.as_str(), key));
}

fn told(response: &Response) -> AttributeVerdict {
    let diagnostics = response.diagnostics();
    if let Some(error) = diagnostics.errors().next() {
        let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
        return AttributeVerdict::Failed(error.policy_id().to_string().into());
    }
    // Smallest first, so that equal inputs name equal reasons.
    let first = diagnostics.reason().map(ToString::to_string).min().map(RuleId::from);
    match (response.decision(), first) {
        (cedar_policy::Decision::Allow, Some(id)) => AttributeVerdict::Permit(id),
        (cedar_policy::Decision::Deny, Some(id)) => AttributeVerdict::Forbid(id),
        (_, None) => AttributeVerdict::Silent,
    }
}

fn uid(kind: &str, id: &str) -> Option<EntityUid> {
    Some(EntityUid::from_type_name_and_id(EntityTypeName::from_str(kind).ok()?, EntityId::new(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_by_octets_however_long_its_keys_are() {
        let memory = bounded(1 << 20, |size: &usize| *size);
        for number in 0..2_000_usize {
            let mut key = vec![0; 8 << 10];
            key.extend(number.to_be_bytes());
            memory.insert(key.into_boxed_slice(), 0);
        }
        memory.run_pending_tasks();
        assert!((1..=128).contains(&memory.entry_count()), "{}", memory.entry_count());
        memory.insert(Box::from(&b"large"[..]), 2 << 20);
        memory.run_pending_tasks();
        assert!(memory.weighted_size() <= 1 << 20);
    }
}
