//! Entities that were given beside the policies, and which of them one request needs.
//!
//! Ancestors are computed once, when loaded. An evaluation comes to an entity from who asks, what for, from an entity that a
//! policy names, or from an attribute or tag of one of these: it is given those alone, however many there are.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    str::FromStr,
};

use cedar_policy::{Entities, Entity, EntityUid, EvalResult, RestrictedExpression};

use super::reads::is_caller;

#[derive(Debug)]
pub(super) struct Hierarchy {
    given: HashMap<EntityUid, Given>,
    /// Those that policies name.
    named: Vec<EntityUid>,
    /// Some caller is among them, or above one of them, or in an attribute: who asks matters beyond roles.
    pub(super) callers: bool,
}

#[derive(Debug)]
struct Given {
    entity: Entity,
    /// All its ancestors.
    above: HashSet<EntityUid>,
    tags: BTreeMap<String, RestrictedExpression>,
    /// The entities that its attributes and tags hold.
    leads: Vec<EntityUid>,
}

/// One of those a request asks about, with what the request tells of it.
pub(super) struct Asked {
    pub(super) uid: EntityUid,
    pub(super) attributes: BTreeMap<String, RestrictedExpression>,
    pub(super) parents: Vec<EntityUid>,
}

impl Hierarchy {
    /// Of what was given, the actions of the schema, and what policies name. `None`: a tag has a value without a text.
    pub(super) fn of(given: [&Entities; 2], named: impl Iterator<Item = EntityUid>) -> Option<Self> {
        let given = given.into_iter().flat_map(Entities::iter);
        let given: HashMap<_, _> =
            given.map(|entity| Some((entity.uid(), Given::of(entity)?))).collect::<Option<_>>()?;
        let known: HashSet<_> = named.filter(|uid| given.contains_key(uid)).collect();
        let callers = given.iter().any(|(uid, given)| {
            is_caller(uid) || given.above.iter().any(is_caller) || given.leads.iter().any(is_caller)
        });
        Some(Self { given, named: known.into_iter().collect(), callers })
    }

    /// The entities that one request needs; `None` where Cedar cannot take them.
    pub(super) fn around(&self, asked: [Asked; 3]) -> Option<Entities> {
        let uids = asked.each_ref().map(|asked| asked.uid.clone());
        let mut seen: HashSet<&EntityUid> = uids.iter().collect();
        let told = uids.iter().filter_map(|uid| self.given.get(uid));
        let mut open: Vec<&EntityUid> = self.named.iter().chain(told.flat_map(|given| &given.leads)).collect();
        let mut entities: Vec<Entity> = asked.into_iter().map(|asked| self.about(asked)).collect::<Option<_>>()?;
        while let Some(uid) = open.pop() {
            if let Some(given) = self.given.get(uid).filter(|_| seen.insert(uid)) {
                entities.push(given.entity.clone());
                open.extend(&given.leads);
            }
        }
        Entities::from_entities(entities, None).ok()
    }

    fn about(&self, asked: Asked) -> Option<Entity> {
        let Asked { uid, attributes, parents } = asked;
        let given = self.given.get(&uid);
        let mut all = given.map(|given| given.entity.clone().into_inner().1).unwrap_or_default();
        all.extend(attributes);
        let higher = parents.iter().chain([&uid]).filter_map(|parent| self.given.get(parent));
        let higher: HashSet<_> = higher.flat_map(|given| &given.above).chain(&parents).cloned().collect();
        let tags = given.map(|given| given.tags.clone()).unwrap_or_default();
        Entity::new_with_tags(uid, all, higher, tags).ok()
    }
}

impl Given {
    fn of(entity: &Entity) -> Option<Self> {
        let (_, _, above) = entity.clone().into_inner();
        let tags: BTreeMap<_, _> = entity
            .tags()
            .map(|(name, value)| Some((name.to_owned(), restricted(&value.ok()?)?)))
            .collect::<Option<_>>()?;
        let mut leads = Vec::new();
        let values = entity.attrs().chain(entity.tags()).filter_map(|(_, value)| value.ok());
        values.for_each(|value| follow(&value, &mut leads));
        Some(Self { entity: entity.clone(), above, tags, leads })
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
        let named = named.iter().map(|uid| uid.parse().unwrap());
        let parents = |roles: &[&str]| roles.iter().map(|uid| uid.parse().unwrap()).collect();
        let asked = asked.map(|(uid, roles)| Asked {
            uid: uid.parse().unwrap(),
            attributes: BTreeMap::from([("asked".to_owned(), RestrictedExpression::new_bool(true))]),
            parents: parents(roles),
        });
        Hierarchy::of([&given, &Entities::empty()], named).unwrap().around(asked).unwrap()
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
