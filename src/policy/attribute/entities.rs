//! Entities that were given beside the policies: what they lead to.

use cedar_policy::{Entities, Entity, EntityUid, EvalResult};

use super::reads::is_caller;

/// Whether some caller is known to the hierarchy: as an entity, as one's ancestor, or in an attribute.
pub(super) fn name_callers(entities: &Entities) -> bool {
    let above = |entity: &Entity| entities.ancestors(&entity.uid()).is_some_and(|mut above| above.any(is_caller));
    entities.iter().any(|entity| is_caller(&entity.uid()) || above(entity) || leads(entity).iter().any(is_caller))
}

/// The entities that attributes and tags hold.
fn leads(entity: &Entity) -> Vec<EntityUid> {
    let mut found = Vec::new();
    let values = entity.attrs().chain(entity.tags()).filter_map(|(_, value)| value.ok());
    values.for_each(|value| follow(&value, &mut found));
    found
}

fn follow(value: &EvalResult, found: &mut Vec<EntityUid>) {
    match value {
        EvalResult::EntityUid(uid) => found.push(uid.clone()),
        EvalResult::Set(items) => items.iter().for_each(|item| follow(item, found)),
        EvalResult::Record(fields) => fields.iter().for_each(|(_, item)| follow(item, found)),
        EvalResult::Bool(_) | EvalResult::Long(_) | EvalResult::String(_) | EvalResult::ExtensionValue(_) => {}
    }
}
