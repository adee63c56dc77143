//! Entities that were given beside the policies, and which of them one request needs.
//!
//! Ancestors are computed once, when loaded. An evaluation comes to an entity from who asks, what for, from an entity that a
//! policy names, or from an attribute or tag of one of these: it is given those alone, however many there are.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    str::FromStr,
};

use cedar_policy::{Entities, Entity, EntityUid, EvalResult, RestrictedExpression};

use super::names::{Callers, is_caller, kind};
use crate::policy::model::Options;

#[derive(Debug)]
pub(super) struct Hierarchy {
    given: HashMap<EntityUid, Given>,
    /// Those that policies name.
    named: HashSet<EntityUid>,
    /// Some caller is among them, or above one of them, or in an attribute: who asks matters beyond roles.
    pub(super) callers: bool,
    /// The callers in attributes and tags.
    pub(super) held: Callers,
}

#[derive(Debug)]
struct Given {
    entity: Entity,
    /// All its ancestors.
    above: HashSet<EntityUid>,
    tags: BTreeMap<String, RestrictedExpression>,
    /// The entities that its attributes and tags hold.
    leads: Vec<EntityUid>,
    /// Of a caller of whose name there may be several: who vouches for the one that is meant.
    issuer: Option<String>,
}

/// One of those a request asks about, with what the request tells of it.
pub(super) struct Asked {
    pub(super) uid: EntityUid,
    pub(super) attributes: BTreeMap<String, RestrictedExpression>,
    pub(super) parents: Vec<EntityUid>,
}

impl Hierarchy {
    /// Of what was given, and the actions of the schema. `None`: a tag has a value that cannot be handed on.
    pub(super) fn of(given: [&Entities; 2], ambiguous: Callers) -> Option<Self> {
        let given = given.into_iter().flat_map(Entities::iter);
        let given: HashMap<_, _> =
            given.map(|entity| Some((entity.uid(), Given::of(entity, ambiguous)?))).collect::<Option<_>>()?;
        let held = given.values().flat_map(|given| &given.leads).map(kind).fold(Callers::default(), Callers::and);
        let callers = held != Callers::default()
            || given.iter().any(|(uid, given)| is_caller(uid) || given.above.iter().any(is_caller));
        Some(Self { given, named: HashSet::new(), callers, held })
    }

    /// Policies name this one.
    pub(super) fn name(&mut self, uid: EntityUid) {
        if self.given.contains_key(&uid) {
            self.named.insert(uid);
        }
    }

    pub(super) fn knows(&self, uid: &EntityUid) -> bool {
        self.given.contains_key(uid)
    }

    /// Callers that say of no issuer in `options` that it is theirs, where several may vouch for their name.
    pub(super) fn of_nobody(&self, options: &Options) -> Vec<&EntityUid> {
        let known = |uid: &EntityUid, issuer: &str| {
            let domains = options.trust_domains.iter().filter(|_| kind(uid).services);
            options.issuers.iter().chain(domains).any(|known| **known == *issuer)
        };
        let lost = self.given.iter().filter(|(uid, given)| given.issuer.as_ref().is_some_and(|own| !known(uid, own)));
        lost.map(|(uid, _)| uid).collect()
    }

    /// The entities that a request of somebody whom `issuer` vouches for needs; `None` where Cedar cannot take them.
    pub(super) fn around(&self, asked: [Asked; 3], issuer: &str) -> Option<Entities> {
        let uids = asked.each_ref().map(|asked| asked.uid.clone());
        let mut seen: HashSet<&EntityUid> = uids.iter().collect();
        let told = uids.iter().filter_map(|uid| self.told(uid, issuer));
        let mut open: Vec<&EntityUid> = self.named.iter().chain(told.flat_map(|given| &given.leads)).collect();
        let mut entities: Vec<Entity> =
            asked.into_iter().map(|asked| self.about(asked, issuer)).collect::<Option<_>>()?;
        while let Some(uid) = open.pop() {
            if let Some(given) = self.given.get(uid).filter(|_| seen.insert(uid)) {
                entities.push(given.entity.clone());
                open.extend(&given.leads);
            }
        }
        Entities::from_entities(entities, None).ok()
    }

    /// What was given of one that is asked about. A caller with the name, and another issuer, is somebody else.
    fn told(&self, uid: &EntityUid, issuer: &str) -> Option<&Given> {
        self.given.get(uid).filter(|given| given.issuer.as_ref().is_none_or(|own| own == issuer))
    }

    fn about(&self, asked: Asked, issuer: &str) -> Option<Entity> {
        let Asked { uid, attributes, parents } = asked;
        let given = self.told(&uid, issuer);
        let mut all = given.map(|given| given.entity.clone().into_inner().1).unwrap_or_default();
        all.extend(attributes);
        let higher = parents.iter().filter_map(|parent| self.given.get(parent)).chain(given);
        let higher: HashSet<_> = higher.flat_map(|given| &given.above).chain(&parents).cloned().collect();
        let tags = given.map(|given| given.tags.clone()).unwrap_or_default();
        Entity::new_with_tags(uid, all, higher, tags).ok()
    }
}

impl Given {
    fn of(entity: &Entity, ambiguous: Callers) -> Option<Self> {
        let (_, _, above) = entity.clone().into_inner();
        let tags: BTreeMap<_, _> = entity
            .tags()
            .map(|(name, value)| Some((name.to_owned(), restricted(&value.ok()?)?)))
            .collect::<Option<_>>()?;
        let mut leads = Vec::new();
        let values = entity.attrs().chain(entity.tags()).filter_map(|(_, value)| value.ok());
        values.for_each(|value| follow(&value, &mut leads));
        let issuer = || match entity.attr("issuer") {
            Some(Ok(EvalResult::String(issuer))) => issuer,
            _ => String::new(),
        };
        let issuer = kind(&entity.uid()).meet(ambiguous).then(issuer);
        Some(Self { entity: entity.clone(), above, tags, leads, issuer })
    }
}

fn follow(value: &EvalResult, found: &mut Vec<EntityUid>) {
    match value {
        EvalResult::EntityUid(uid) => found.push(uid.clone()),
        EvalResult::Set(items) => items.iter().for_each(|item| follow(item, found)),
        EvalResult::Record(fields) => fields.iter().for_each(|(_, item)| follow(item, found)),
        EvalResult::Bool(_) | EvalResult::Long(_) | EvalResult::String(_) | EvalResult::ExtensionValue(_) => {}
    }
}

/// A value as an expression: Cedar hands out tags in one form and takes them in the other.
fn restricted(value: &EvalResult) -> Option<RestrictedExpression> {
    Some(match value {
        EvalResult::Bool(flag) => RestrictedExpression::new_bool(*flag),
        EvalResult::Long(number) => RestrictedExpression::new_long(*number),
        EvalResult::String(text) => RestrictedExpression::new_string(text.clone()),
        EvalResult::EntityUid(uid) => RestrictedExpression::new_entity_uid(uid.clone()),
        EvalResult::Set(items) => {
            RestrictedExpression::new_set(items.iter().map(restricted).collect::<Option<Vec<_>>>()?)
        }
        EvalResult::Record(fields) => {
            let fields = fields.iter().map(|(name, value)| Some((name.clone(), restricted(value)?)));
            RestrictedExpression::new_record(fields.collect::<Option<Vec<_>>>()?).ok()?
        }
        EvalResult::ExtensionValue(text) => RestrictedExpression::from_str(text).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn around(entities: &str, named: &[&str], asked: [(&str, &[&str]); 3]) -> Entities {
        let given = Entities::from_json_str(entities, None).unwrap();
        let parents = |roles: &[&str]| roles.iter().map(|uid| uid.parse().unwrap()).collect();
        let asked = asked.map(|(uid, roles)| Asked {
            uid: uid.parse().unwrap(),
            attributes: BTreeMap::from([("asked".to_owned(), RestrictedExpression::new_bool(true))]),
            parents: parents(roles),
        });
        let mut hierarchy = Hierarchy::of([&given, &Entities::empty()], Callers::default()).unwrap();
        named.iter().for_each(|uid| hierarchy.name(uid.parse().unwrap()));
        hierarchy.around(asked, "https://idp").unwrap()
    }

    #[test]
    fn a_request_is_given_the_entities_that_it_can_come_to_and_no_others() {
        let mut text = String::from(
            r#"[{ "uid": { "type": "Resource", "id": "r" }, "parents": [{ "type": "G", "id": "g" }],
                 "attrs": { "own": 1, "owners": [{ "team": { "__entity": { "type": "Team", "id": "a" } } }] },
                 "tags": { "t": "x", "from": { "__extn": { "fn": "ip", "arg": "10.0.0.0/8" } } } },
               { "uid": { "type": "Team", "id": "a" }, "parents": [], "attrs": {},
                 "tags": { "head": { "__entity": { "type": "User", "id": "h" } } } },
               { "uid": { "type": "User", "id": "h" }, "parents": [{ "type": "Role", "id": "low" }], "attrs": {} },
               { "uid": { "type": "G", "id": "g" }, "parents": [{ "type": "G", "id": "top" }], "attrs": {} },
               { "uid": { "type": "Role", "id": "low" }, "parents": [{ "type": "Role", "id": "high" }], "attrs": {} },
               { "uid": { "type": "Team", "id": "named" }, "parents": [], "attrs": {} }"#,
        );
        for number in 0..1_000 {
            let uid = format!(r#"{{ "type": "Resource", "id": "{number}" }}"#);
            write!(text, r#",{{ "uid": {uid}, "parents": [{{ "type": "G", "id": "g" }}], "attrs": {{}} }}"#).unwrap();
        }
        text.push(']');
        let asked = [(r#"User::"u""#, &[r#"Role::"low""#][..]), (r#"Action::"GET""#, &[]), (r#"Resource::"r""#, &[])];
        let found = around(&text, &[r#"Team::"named""#, r#"Team::"unknown""#], asked);
        let mut uids: Vec<_> = found.iter().map(|entity| entity.uid().to_string()).collect();
        uids.sort();
        let expected = [
            r#"Action::"GET""#,
            r#"Resource::"r""#,
            r#"Team::"a""#,
            r#"Team::"named""#,
            r#"User::"h""#,
            r#"User::"u""#,
        ];
        assert_eq!(uids, expected);
        let below = |one: &str, other: &str| found.is_ancestor_of(&other.parse().unwrap(), &one.parse().unwrap());
        assert!(below(r#"User::"u""#, r#"Role::"high""#) && below(r#"User::"h""#, r#"Role::"high""#));
        assert!(below(r#"Resource::"r""#, r#"G::"top""#) && !below(r#"User::"u""#, r#"G::"top""#));
        let resource = found.get(&r#"Resource::"r""#.parse().unwrap()).unwrap();
        let told = |value: Option<Result<EvalResult, _>>| value.unwrap().unwrap().to_string();
        assert_eq!([told(resource.attr("own")), told(resource.attr("asked"))], ["1", "true"]);
        assert_eq!([told(resource.tag("t")), told(resource.tag("from"))], [r#""x""#, r#"ip("10.0.0.0/8")"#]);
    }
}
