//! What the two keys of a revocation say together: `cs:revoked:<kind>:<id>` and `cs:reinstated:<kind>:<id>`.
//!
//! The rule is of both values alone, so that every replica says the same, whatever it heard of and in whichever order: where
//! the first stands, it is revoked; the second takes back where it stands alone. Which of two changes came last is settled
//! at the store: a revocation sets the first key; `revoke --undo` deletes it, and only then writes the second. So the two
//! together are a revocation that came after, or at the same time. A second key written by hand beside the first takes
//! nothing back by itself: the follower that hears of it carries it out (see [`Told`](super::scan::Told)).

use std::{num::NonZeroU64, time::Duration};

use tokio::time::Instant;

use crate::{
    domain::{Identity, RevocationKind},
    store::Entry,
};

/// What `revoke --undo` writes before it deletes the revocation's key: one that is cut short is whole or has not begun.
pub(super) const UNDOING: &[u8] = b"deleted";

/// The number at the end of what `revoke --undo` writes when the key is gone; no two are alike. One that was seen beside a
/// revocation is older than that, and takes nothing back when the revocation's key has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undo(NonZeroU64);

impl Undo {
    pub(super) fn fresh() -> Self {
        Self(rand::random())
    }

    pub(super) fn value(self) -> String {
        format!("deleted {:016x}", self.0)
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let number = std::str::from_utf8(value).ok()?.strip_prefix("deleted ")?;
        u64::from_str_radix(number, 16).ok().and_then(NonZeroU64::new).map(Self)
    }
}

/// Whether somebody else wrote this reinstatement.
pub(super) fn is_by_hand(reinstated: &[u8]) -> bool {
    reinstated != UNDOING && Undo::parse(reinstated).is_none()
}

/// Whether this reinstatement, seen beside a revocation, may be about to take it back.
pub(super) fn is_undone(reinstated: &[u8]) -> bool {
    reinstated == UNDOING || is_by_hand(reinstated)
}

/// How much of a value is kept as the reason, in octets.
const MAX_REASON: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    Nothing,
    Revoked {
        scope: Scope,
        reason: Box<str>,
        life: Option<Duration>,
        /// The reinstatement that stands beside it, and is older.
        beside: Option<Undo>,
    },
    /// `None`: by hand, or one that is under way.
    Reinstated(Option<Undo>),
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
    pub(super) fn parse(kind: RevocationKind, value: &str) -> Self {
        let number = || value.trim().parse::<f64>().ok().filter(|secs| secs.is_finite() && *secs >= 0.0);
        match kind {
            // A cast of a float saturates.
            RevocationKind::Subject => number().map_or(Self::Everything, |secs| Self::IssuedUntil(secs as u64)),
            RevocationKind::Token | RevocationKind::Session | RevocationKind::Device => Self::Everything,
        }
    }
}

impl Standing {
    /// Whether nothing stands that changes what is known, where `beside` stood beside the revocation before.
    pub(super) fn is_nothing_new(&self, beside: Option<Undo>) -> bool {
        match self {
            Self::Nothing => true,
            Self::Reinstated(Some(undo)) => beside == Some(*undo),
            Self::Reinstated(None) | Self::Revoked { .. } | Self::Unreadable => false,
        }
    }
}

/// Whether this subject gets its next certificate by itself, in the same name.
pub(super) fn is_workload(subject: &str) -> bool {
    subject.starts_with("spiffe://")
}

pub(super) fn judge((kind, id): (RevocationKind, &str), revoked: &Entry, reinstated: &Entry) -> Standing {
    let (Ok(revoked), Ok(reinstated)) = (revoked, reinstated) else { return Standing::Unreadable };
    let undo = reinstated.as_ref().and_then(|held| Undo::parse(&held.value));
    let Some(held) = revoked else {
        return if reinstated.is_some() { Standing::Reinstated(undo) } else { Standing::Nothing };
    };
    let value = String::from_utf8_lossy(&held.value);
    let reason = value.chars().scan(0, |length, c| {
        *length += c.len_utf8();
        (*length <= MAX_REASON).then_some(c)
    });
    // A time without an end, beside a name that gets certificates by itself: no security event writes that. It is meant for good.
    let for_good = kind == RevocationKind::Subject && held.life.is_none() && is_workload(id);
    Standing::Revoked {
        scope: if for_good { Scope::Everything } else { Scope::parse(kind, &value) },
        reason: reason.collect::<String>().into(),
        life: held.life,
        beside: undo,
    }
}

/// What should be left of the key behind a remembered revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyLife {
    Endless,
    Until(Instant),
    /// It has ended or was deleted.
    Gone,
}

impl KeyLife {
    pub(super) fn longer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Until(one), Self::Until(two)) => Self::Until(one.max(two)),
            (Self::Endless, _) | (_, Self::Endless) => Self::Endless,
            (Self::Gone, known) | (known, Self::Gone) => known,
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
    fn a_workload_that_is_revoked_without_an_end_is_so_with_every_certificate() {
        let scope = |id, life| {
            let entry = Ok(Some(Held { value: b"1000".to_vec(), life }));
            match judge((RevocationKind::Subject, id), &entry, &Ok(None)) {
                Standing::Revoked { scope, .. } => scope,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(scope("spiffe://td/x", None), Scope::Everything);
        assert_eq!(scope("spiffe://td/x", Some(Duration::from_secs(9))), Scope::IssuedUntil(1000));
        assert_eq!(scope("ann", None), Scope::IssuedUntil(1000));
    }

    #[test]
    fn what_undo_has_finished_is_older_than_a_revocation_beside_it_and_nothing_else_is() {
        assert!(is_undone(UNDOING) && is_undone(b"") && is_undone(b"deleted by ann") && is_undone(b"deleted 0"));
        assert!(!is_undone(Undo::fresh().value().as_bytes()));
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
    fn a_revocation_that_stands_counts_and_a_reinstatement_where_it_stands_alone() {
        let judge = |revoked: &Entry, reinstated: &Entry| judge((RevocationKind::Token, "t"), revoked, reinstated);
        let undo = Undo::fresh();
        assert_eq!(judge(&Ok(None), &Ok(None)), Standing::Nothing);
        assert_eq!(judge(&Ok(None), &held(&undo.value())), Standing::Reinstated(Some(undo)));
        for value in ["by hand", "deleted", "deleted by Bob", "deleted 0", ""] {
            assert_eq!(judge(&Ok(None), &held(value)), Standing::Reinstated(None), "{value}");
            assert!(matches!(judge(&held("x"), &held(value)), Standing::Revoked { beside: None, .. }), "{value}");
            assert_eq!(is_by_hand(value.as_bytes()), value != "deleted", "{value}");
        }
        let Standing::Revoked { beside, .. } = judge(&held("x"), &held(&undo.value())) else { panic!("not revoked") };
        assert!(beside == Some(undo) && !is_by_hand(undo.value().as_bytes()) && undo != Undo::fresh());
    }

    #[test]
    fn what_cannot_be_read_is_never_not_revoked() {
        let bad: Entry = Err(StoreError::new(StoreErrorKind::Malformed, "list"));
        assert_eq!(judge((RevocationKind::Token, "t"), &bad, &Ok(None)), Standing::Unreadable);
        assert_eq!(judge((RevocationKind::Token, "t"), &Ok(None), &bad), Standing::Unreadable);
    }

    #[test]
    fn a_reason_is_the_beginning_of_the_value_in_whole_characters() {
        let reason = |value: &str| match judge((RevocationKind::Token, "t"), &held(value), &Ok(None)) {
            Standing::Revoked { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(&*reason("left"), "left");
        assert_eq!(*reason(&format!("x{}", "é".repeat(200))), format!("x{}", "é".repeat(127)));
    }
}
