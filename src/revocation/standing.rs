//! What the two keys of a revocation say together: `cs:revoked:<kind>:<id>` and `cs:reinstated:<kind>:<id>`.

use std::time::Duration;

use crate::{
    domain::{Identity, RevocationKind},
    store::Entry,
};

/// What `revoke --undo` writes: it deletes the revocation's key as well, so a key found beside it is a newer revocation.
pub(super) const DELETED: &[u8] = b"deleted";

/// How much of a value is kept as the reason, in octets.
const MAX_REASON: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    Nothing,
    Revoked {
        scope: Scope,
        reason: Box<str>,
        life: Option<Duration>,
    },
    Reinstated,
    /// A key of another type, or too large: never "not revoked".
    Unreadable,
}

/// Which tokens a revocation is about. Ordered by how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// Tokens issued at or before this Unix time, in seconds.
    IssuedUntil(u64),
    Everything,
}

impl Scope {
    pub(super) fn covers(self, identity: &Identity) -> bool {
        match self {
            Self::IssuedUntil(secs) => identity.issue_unstated || identity.issued_at.as_secs() <= secs,
            Self::Everything => true,
        }
    }

    /// Only a subject's revocation speaks of time. What is no time covers everything.
    fn parse(kind: RevocationKind, value: &str) -> Self {
        let number = || value.trim().parse::<f64>().ok().filter(|secs| secs.is_finite() && *secs >= 0.0);
        match kind {
            // A cast of a float saturates.
            RevocationKind::Subject => number().map_or(Self::Everything, |secs| Self::IssuedUntil(secs as u64)),
            RevocationKind::Token | RevocationKind::Session | RevocationKind::Device => Self::Everything,
        }
    }
}

/// `revocation_is_newer`: the feed told of the revocation's key after it told of the reinstatement's, or not of that at all.
pub(super) fn judge(kind: RevocationKind, revoked: &Entry, reinstated: &Entry, revocation_is_newer: bool) -> Standing {
    let (Ok(revoked), Ok(reinstated)) = (revoked, reinstated) else { return Standing::Unreadable };
    match (revoked, reinstated) {
        (None, None) => Standing::Nothing,
        (None, Some(_)) => Standing::Reinstated,
        (Some(_), Some(undo)) if !revocation_is_newer && undo.value != DELETED => Standing::Reinstated,
        (Some(held), _) => {
            let value = String::from_utf8_lossy(&held.value);
            let reason = value.chars().scan(0, |length, c| {
                *length += c.len_utf8();
                (*length <= MAX_REASON).then_some(c)
            });
            Standing::Revoked {
                scope: Scope::parse(kind, &value),
                reason: reason.collect::<String>().into(),
                life: held.life,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Held, StoreError, StoreErrorKind};

    fn held(value: &str) -> Entry {
        Ok(Some(Held { value: value.as_bytes().to_vec(), life: None }))
    }

    #[test]
    fn a_subjects_value_is_a_time_or_means_every_token() {
        let scope = |value| Scope::parse(RevocationKind::Subject, value);
        assert_eq!(scope("1700000000"), Scope::IssuedUntil(1_700_000_000));
        assert_eq!(scope(" 1700000000.9\n"), Scope::IssuedUntil(1_700_000_000));
        assert_eq!(scope("99999999999"), Scope::IssuedUntil(99_999_999_999));
        for value in ["", "fired", "-1", "NaN", "inf", "0x10", "17 00"] {
            assert_eq!(scope(value), Scope::Everything, "{value}");
        }
        assert_eq!(Scope::parse(RevocationKind::Token, "17"), Scope::Everything);
    }

    #[test]
    fn a_token_of_an_unknown_age_is_covered_by_every_revocation_of_its_subject() {
        let record: serde_json::Value = serde_json::from_str(include_str!("../../tests/audit/before.jsonl")).unwrap();
        let identity = record.pointer("/facts/credential/known/value/verified/identity").unwrap();
        let mut identity: Identity = serde_json::from_value(identity.clone()).unwrap();
        let before = Scope::IssuedUntil(identity.issued_at.as_secs() - 1);
        assert!(!before.covers(&identity) && Scope::IssuedUntil(identity.issued_at.as_secs()).covers(&identity));
        identity.issue_unstated = true;
        assert!(before.covers(&identity));
    }

    #[test]
    fn only_a_reinstatement_takes_back_and_a_newer_revocation_outdoes_it() {
        let judge =
            |revoked: &Entry, reinstated: &Entry, newer| judge(RevocationKind::Token, revoked, reinstated, newer);
        assert_eq!(judge(&Ok(None), &Ok(None), true), Standing::Nothing);
        assert_eq!(judge(&Ok(None), &held("x"), true), Standing::Reinstated);
        assert_eq!(judge(&held("x"), &held("by hand"), false), Standing::Reinstated);
        assert!(matches!(judge(&held("x"), &held("by hand"), true), Standing::Revoked { .. }));
        assert!(matches!(judge(&held("x"), &held("deleted"), false), Standing::Revoked { .. }));
    }

    #[test]
    fn what_cannot_be_read_is_never_not_revoked() {
        let bad: Entry = Err(StoreError::new(StoreErrorKind::Malformed, "list"));
        assert_eq!(judge(RevocationKind::Token, &bad, &Ok(None), true), Standing::Unreadable);
        assert_eq!(judge(RevocationKind::Token, &Ok(None), &bad, true), Standing::Unreadable);
    }

    #[test]
    fn a_reason_is_the_beginning_of_the_value_in_whole_characters() {
        let reason = |value: &str| match judge(RevocationKind::Token, &held(value), &Ok(None), true) {
            Standing::Revoked { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(&*reason("left"), "left");
        assert_eq!(*reason(&format!("x{}", "é".repeat(200))), format!("x{}", "é".repeat(127)));
    }
}
