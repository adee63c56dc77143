//! What a policy reads of a request, found in its text: verdicts are remembered by this, and by nothing else.
//!
//! INVARIANT: what is not seen to be independent of who asks reads who asks. Kind and roles are part of every key, so
//! only `is` and membership in roles are; any other use of `principal`, and any caller by name, is the subject.

use std::sync::Arc;

use cedar_policy::{Effect, Policy, PrincipalConstraint};
use serde_json::Value as Json;

use super::{
    inputs::{CONTEXT, PRINCIPAL, RESOURCE},
    names::{Callers, is_caller, kind},
};

/// Names that policies read, per variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Who asks, beyond kind and roles.
    pub(super) subject: bool,
    /// The policy asks who vouches for the subject.
    pub(super) issuer: bool,
    /// Callers that it names. Not those in the scope of a `forbid`: it forbids whoever has the name.
    pub(super) named: Callers,
    /// Who asks is compared with what the policy does not name.
    pub(super) compared: bool,
    pub(super) principal: Vec<Arc<str>>,
    pub(super) resource: Vec<Arc<str>>,
    pub(super) context: Vec<Arc<str>>,
}

impl Reads {
    /// `claims`: what may be read of a caller besides what every caller has.
    pub(super) fn of(policy: &Policy, claims: &[Arc<str>]) -> Self {
        let subject = !by_role(policy) || policy.entity_literals().iter().any(is_caller);
        let named = match policy.effect() {
            Effect::Permit => scope(policy),
            Effect::Forbid => Callers::default(),
        };
        let mut reader = Reader { claims, reads: Self { subject, named, ..Self::default() } };
        match policy.to_json() {
            Ok(json) => json.get("conditions").into_iter().for_each(|conditions| reader.conditions(conditions)),
            // What cannot be looked into may read everything.
            Err(_) => ["principal", "resource", "context"].iter().for_each(|variable| reader.whole(variable)),
        }
        reader.reads
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.subject |= other.subject;
        other.principal.iter().for_each(|name| add(&mut self.principal, name));
        other.resource.iter().for_each(|name| add(&mut self.resource, name));
        other.context.iter().for_each(|name| add(&mut self.context, name));
    }
}

/// Whether kind and roles alone tell if the scope of a policy fits who asks. Membership in anything else need not be one:
/// everybody is `in` themselves.
pub(super) fn by_role(policy: &Policy) -> bool {
    match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => true,
        PrincipalConstraint::In(group) | PrincipalConstraint::IsIn(_, group) => is_role(&group.type_name().to_string()),
        PrincipalConstraint::Eq(_) => false,
    }
}

/// The callers that the scope names.
fn scope(policy: &Policy) -> Callers {
    match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => Callers::default(),
        PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => kind(&uid),
    }
}

fn is_role(kind: &str) -> bool {
    kind == "Role"
}

struct Reader<'c> {
    claims: &'c [Arc<str>],
    reads: Reads,
}

impl Reader<'_> {
    fn conditions(&mut self, conditions: &Json) {
        let bodies = conditions.as_array().into_iter().flatten().filter_map(|condition| condition.get("body"));
        bodies.for_each(|body| self.expression(body));
    }

    /// An expression is one operator with its operands.
    fn expression(&mut self, json: &Json) {
        json.as_object().into_iter().flatten().for_each(|(operator, operands)| self.operation(operator, operands));
    }

    fn operation(&mut self, operator: &str, operands: &Json) {
        let left = operands.get("left").and_then(variable);
        // `has a.b` lists what it asks for, outermost first.
        let name = operands.get("attr").and_then(|attr| attr.as_str().or_else(|| attr.get(0)?.as_str()));
        match (operator, left, name) {
            ("." | "has", Some(variable), Some(name)) => {
                self.reads.issuer |= (variable, name) == ("principal", "issuer");
                self.name(variable, name);
            }
            ("in", Some("principal"), _) if operands.get("right").is_some_and(only_roles) => {}
            ("is", Some("principal"), _) if operands.get("in").is_none_or(only_roles) => {}
            ("==" | "!=" | "in" | "is" | "contains", ..) => {
                let named = values(operands).all(|operand| variable(operand).is_some() || is_literal(operand));
                values(operands).for_each(|operand| self.compared(operand, named));
            }
            ("__entity", ..) => {
                let kind = operands.get("type").and_then(Json::as_str).unwrap_or_default();
                self.reads.named = self.reads.named.and(Callers::of(kind));
            }
            ("Var", ..) => operands.as_str().into_iter().for_each(|variable| self.whole(variable)),
            ("Value", ..) => self.expression(operands),
            _ => values(operands).for_each(|operand| self.expression(operand)),
        }
    }

    /// What is compared may be read by its name alone. The names of resources and actions are part of every key.
    fn compared(&mut self, operand: &Json, named: bool) {
        match variable(operand) {
            Some("principal") => {
                self.reads.subject = true;
                self.reads.compared |= !named;
            }
            Some("resource" | "action") => {}
            _ => self.expression(operand),
        }
    }

    fn name(&mut self, variable: &str, name: &str) {
        match variable {
            "principal" => add(&mut self.reads.principal, name),
            "resource" => add(&mut self.reads.resource, name),
            "context" => add(&mut self.reads.context, name),
            _ => {}
        }
    }

    /// A variable that goes elsewhere may be read there, all of it.
    fn whole(&mut self, variable: &str) {
        let names: &[&str] = match variable {
            "principal" => {
                self.reads.subject = true;
                self.reads.compared = true;
                self.claims.iter().for_each(|claim| add(&mut self.reads.principal, claim));
                &PRINCIPAL
            }
            "resource" => &RESOURCE,
            "context" => &CONTEXT,
            _ => &[],
        };
        names.iter().for_each(|name| self.name(variable, name));
    }
}

fn add(names: &mut Vec<Arc<str>>, name: &str) {
    if !names.iter().any(|known| &**known == name) {
        names.push(name.into());
    }
}

/// The operands, whatever they are called.
fn values(operands: &Json) -> impl Iterator<Item = &Json> {
    let listed = operands.as_array().into_iter().flatten();
    operands.as_object().into_iter().flat_map(|named| named.values()).chain(listed)
}

fn variable(expression: &Json) -> Option<&str> {
    expression.get("Var")?.as_str()
}

/// Whether an expression is what it is by itself. The type that `is` asks for is written as a text.
fn is_literal(expression: &Json) -> bool {
    let items = || expression.get("Set").and_then(Json::as_array);
    expression.is_string() || expression.get("Value").is_some() || items().is_some_and(|all| all.iter().all(is_literal))
}

/// Whether an expression is roles by name, and nothing else.
fn only_roles(expression: &Json) -> bool {
    let kind = || expression.get("Value")?.get("__entity")?.get("type")?.as_str();
    match expression.get("Set").and_then(Json::as_array) {
        Some(items) => items.iter().all(only_roles),
        None => kind().is_some_and(is_role),
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn reads(text: &str) -> Reads {
        Reads::of(&Policy::from_str(text).unwrap(), &["department".into()])
    }

    #[test]
    fn who_asks_is_read_unless_kind_and_roles_alone_tell() {
        for (scope, condition, subject) in [
            ("principal", "true", false),
            ("principal is User", "true", false),
            (r#"principal in Role::"a""#, "true", false),
            (r#"principal is User in Role::"a""#, "true", false),
            (r#"principal == User::"a""#, "true", true),
            (r#"principal in User::"a""#, "true", true),
            (r#"principal is User in User::"a""#, "true", true),
            (r#"principal in Shop::Role::"a""#, "true", true),
            ("principal", "principal is User", false),
            ("principal", r#"principal in Role::"a""#, false),
            ("principal", r#"principal in [Role::"a", Role::"b"] || resource in ResourceGroup::"g""#, false),
            ("principal", r#"principal is User in Role::"a" && principal.multi_factor"#, false),
            ("principal", r#"resource == Resource::"a" && action in Action::"read""#, false),
            ("principal", r#"principal in [Role::"a", User::"b"]"#, true),
            ("principal", r#"principal in Group::"g""#, true),
            ("principal", "principal in resource.readers", true),
            ("principal", "principal is User in resource.readers", true),
            ("principal", "resource.owner == principal", true),
            ("principal", "resource.readers.contains(principal)", true),
            ("principal", "[principal].containsAny(resource.readers)", true),
            ("principal", "resource in principal", true),
            ("principal", r#"principal.hasTag("t")"#, true),
            ("principal", "(if context.encrypted then principal else principal).multi_factor", true),
            ("principal", r#"{ "Var": principal }.Var == resource.owner"#, true),
            // As much whose attributes they are: whoever asks is the only caller who has any.
            ("principal", r#"User::"a".multi_factor"#, true),
            ("principal", r#"User::"a" in Role::"b""#, true),
        ] {
            let text = format!("permit ({scope}, action, resource) when {{ {condition} }};");
            assert_eq!(reads(&text).subject, subject, "{text}");
        }
    }

    #[test]
    fn what_is_read_by_detours_is_read() {
        for condition in [
            r#"principal has department && principal.department == "it""#,
            "principal has department.floor",
            r#"{ "Var": principal.department }.Var == "it""#,
            r#"{ "left": principal.department, "attr": 1 }.left == "it""#,
            r#"(if true then principal else principal).department == "it""#,
        ] {
            let found = reads(&format!("forbid (principal, action, resource) when {{ {condition} }};"));
            assert!(found.principal.iter().any(|name| &**name == "department"), "{condition}: {found:?}");
        }
        let compared = reads(r#"permit (principal, action, resource) when { principal == User::"a" };"#);
        assert!(compared.principal.is_empty(), "a comparison reads no attribute");
    }
}
