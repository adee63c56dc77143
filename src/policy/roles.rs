//! Which permissions a role holds. Wildcards have a meaning here, never in a token.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use foldhash::fast::FixedState;

/// Role → what it may do, ready to be asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles(HashMap<Arc<str>, Permissions, FixedState>);

#[derive(Clone, Debug, Default)]
struct Permissions {
    /// `*`.
    all: bool,
    exact: HashSet<Arc<str>, FixedState>,
    /// `orders:` of `orders:*`.
    prefixes: Vec<Arc<str>>,
}

impl Roles {
    pub(super) fn new(roles: &BTreeMap<Arc<str>, Vec<Arc<str>>>) -> Self {
        Self(roles.iter().map(|(role, held)| (role.clone(), Permissions::new(held))).collect())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|role| &**role)
    }

    /// Whether `role` holds `permission`. A role nobody defined holds nothing.
    pub(super) fn grants(&self, role: &str, permission: &str) -> bool {
        self.0.get(role).is_some_and(|held| held.contains(permission))
    }
}

impl Permissions {
    fn new(held: &[Arc<str>]) -> Self {
        let mut permissions = Self::default();
        for permission in held {
            match permission.strip_suffix('*') {
                Some("") => permissions.all = true,
                Some(prefix) => permissions.prefixes.push(prefix.into()),
                None => {
                    permissions.exact.insert(permission.clone());
                }
            }
        }
        permissions
    }

    fn contains(&self, permission: &str) -> bool {
        self.all
            || self.exact.contains(permission)
            || self.prefixes.iter().any(|prefix| permission.len() > prefix.len() && permission.starts_with(&**prefix))
    }
}

/// Whether `text` may stand in `roles:`: words and colons, with at most one `*`, alone or after a final colon.
pub(super) fn is_permission_pattern(text: &str) -> bool {
    let exact = text.strip_suffix('*').unwrap_or(text);
    let wildcard = exact.len() < text.len();
    !text.is_empty() && !exact.contains('*') && (!wildcard || exact.is_empty() || exact.ends_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles() -> Roles {
        Roles::new(&BTreeMap::from([
            ("clerk".into(), vec!["orders:read".into(), "invoices:*".into()]),
            ("admin".into(), vec!["*".into()]),
        ]))
    }

    #[test]
    fn exact_prefix_and_all_grant_what_they_say() {
        for (role, permission, held) in [
            ("clerk", "orders:read", true),
            ("clerk", "orders:read:all", false),
            ("clerk", "orders:write", false),
            ("clerk", "invoices:pay", true),
            ("clerk", "invoices:", false),
            ("clerk", "invoicespay", false),
            ("admin", "anything", true),
            ("nobody", "orders:read", false),
            ("*", "orders:read", false),
        ] {
            assert_eq!(roles().grants(role, permission), held, "{role} {permission}");
        }
    }

    #[test]
    fn a_star_stands_alone_or_after_a_colon() {
        for (text, fine) in
            [("*", true), ("a:*", true), ("a:b", true), ("a*", false), ("*:a", false), ("a:**", false), ("", false)]
        {
            assert_eq!(is_permission_pattern(text), fine, "{text:?}");
        }
    }
}
