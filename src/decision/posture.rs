//! What the lack of a fact means: one table, tested row by row. Nowhere else is absence given a meaning.
//!
//! Defaults fail closed. A fact that was never asked for (not configured) is neutral only where the table says so.

use super::reason::Reason;
use crate::domain::{Fact, Unavailable};

/// The facts a decision is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Credential,
    Revocation,
    /// What others have told about the subject, the session, the device.
    Notice,
    Device,
    Place,
    Behavior,
    Session,
    Quota,
}

impl Subject {
    pub const ALL: [Self; 8] = [
        Self::Credential,
        Self::Revocation,
        Self::Notice,
        Self::Device,
        Self::Place,
        Self::Behavior,
        Self::Session,
        Self::Quota,
    ];
}

/// How a fact is lacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lack {
    Absent,
    /// Could not be looked up, or what is at hand is too old.
    Unavailable(Unavailable),
    NotAsked,
}

impl Lack {
    /// How `fact` is lacking; `None` where it is known.
    pub fn of<T>(fact: &Fact<T>) -> Option<Self> {
        match fact {
            Fact::Known { .. } => None,
            Fact::Absent => Some(Self::Absent),
            Fact::Unavailable(why) => Some(Self::Unavailable(*why)),
            Fact::NotAsked => Some(Self::NotAsked),
        }
    }
}

/// Whether the answer hangs on the fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sensitivity {
    /// No rule of this request reads it; it only weighs in scores.
    Weighed,
    /// A rule that could refuse reads it: a policy's condition, `device: always`, a guard that denies, an attribute
    /// policy.
    Required,
}

/// What the lack means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posture {
    /// As if the question did not exist.
    Neutral,
    /// As if it had been looked up and nothing were there.
    Nothing,
    /// As nothing, and three points of risk.
    Penalty,
    /// Refused, for this reason.
    Refuse(Reason),
}

/// The table.
pub const fn posture(subject: Subject, lack: Lack, sensitivity: Sensitivity) -> Posture {
    use Lack::{Absent, NotAsked, Unavailable};
    use Posture::{Neutral, Nothing, Penalty, Refuse};
    use Sensitivity::{Required, Weighed};
    match (subject, lack, sensitivity) {
        (Subject::Credential, Absent, _) => Refuse(Reason::NoCredentials),
        (Subject::Credential, Unavailable(_) | NotAsked, _) => Refuse(Reason::CredentialsUnknown),
        // "Not revoked" is something one knows, never something one lacks.
        (Subject::Revocation, Absent | Unavailable(_) | NotAsked, _) => Refuse(Reason::RevocationUnknown),
        // An account may have been disabled: not knowing is not "all is well".
        (Subject::Notice, Unavailable(_), _) => Refuse(Reason::SignalsUnknown),
        (Subject::Notice, Absent | NotAsked, _) => Neutral,
        (Subject::Device, Absent, Required) => Refuse(Reason::DeviceNotRegistered),
        (Subject::Device, Absent, Weighed) => Nothing,
        (Subject::Device, Unavailable(_) | NotAsked, Required) => Refuse(Reason::DeviceUnknown),
        (Subject::Device, Unavailable(_), Weighed) => Nothing,
        (Subject::Device, NotAsked, Weighed) => Neutral,
        (Subject::Place, Unavailable(_), Required) => Refuse(Reason::LocationUnknown),
        (Subject::Place, Unavailable(_), Weighed) => Penalty,
        (Subject::Place, Absent | NotAsked, Required) => Nothing,
        (Subject::Place, Absent | NotAsked, Weighed) => Neutral,
        (Subject::Behavior, Unavailable(_), _) => Penalty,
        (Subject::Behavior, Absent | NotAsked, _) => Neutral,
        // A session may have been ended: not knowing is not "still running".
        (Subject::Session, Unavailable(_), _) => Refuse(Reason::SessionUnknown),
        (Subject::Session, Absent, _) => Nothing,
        (Subject::Session, NotAsked, _) => Neutral,
        // Dry decisions run before the quota is taken; a permit needs it (`authorize`).
        (Subject::Quota, NotAsked, Weighed) => Neutral,
        (Subject::Quota, Absent | Unavailable(_), _) | (Subject::Quota, NotAsked, Required) => {
            Refuse(Reason::QuotaUnknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAY: Lack = Lack::Unavailable(Unavailable::Timeout);

    #[test]
    fn the_table_row_by_row() {
        use Posture::{Neutral, Nothing, Penalty, Refuse};
        use Sensitivity::{Required, Weighed};
        for (subject, sensitivity, absent, unavailable, not_asked) in [
            (
                Subject::Credential,
                Weighed,
                Refuse(Reason::NoCredentials),
                Refuse(Reason::CredentialsUnknown),
                Refuse(Reason::CredentialsUnknown),
            ),
            (
                Subject::Credential,
                Required,
                Refuse(Reason::NoCredentials),
                Refuse(Reason::CredentialsUnknown),
                Refuse(Reason::CredentialsUnknown),
            ),
            (
                Subject::Revocation,
                Weighed,
                Refuse(Reason::RevocationUnknown),
                Refuse(Reason::RevocationUnknown),
                Refuse(Reason::RevocationUnknown),
            ),
            (
                Subject::Revocation,
                Required,
                Refuse(Reason::RevocationUnknown),
                Refuse(Reason::RevocationUnknown),
                Refuse(Reason::RevocationUnknown),
            ),
            (Subject::Notice, Weighed, Neutral, Refuse(Reason::SignalsUnknown), Neutral),
            (Subject::Notice, Required, Neutral, Refuse(Reason::SignalsUnknown), Neutral),
            (Subject::Device, Weighed, Nothing, Nothing, Neutral),
            (
                Subject::Device,
                Required,
                Refuse(Reason::DeviceNotRegistered),
                Refuse(Reason::DeviceUnknown),
                Refuse(Reason::DeviceUnknown),
            ),
            (Subject::Place, Weighed, Neutral, Penalty, Neutral),
            (Subject::Place, Required, Nothing, Refuse(Reason::LocationUnknown), Nothing),
            (Subject::Behavior, Weighed, Neutral, Penalty, Neutral),
            (Subject::Behavior, Required, Neutral, Penalty, Neutral),
            (Subject::Session, Weighed, Nothing, Refuse(Reason::SessionUnknown), Neutral),
            (Subject::Session, Required, Nothing, Refuse(Reason::SessionUnknown), Neutral),
            (Subject::Quota, Weighed, Refuse(Reason::QuotaUnknown), Refuse(Reason::QuotaUnknown), Neutral),
            (
                Subject::Quota,
                Required,
                Refuse(Reason::QuotaUnknown),
                Refuse(Reason::QuotaUnknown),
                Refuse(Reason::QuotaUnknown),
            ),
        ] {
            assert_eq!(posture(subject, Lack::Absent, sensitivity), absent, "{subject:?} absent {sensitivity:?}");
            assert_eq!(posture(subject, AWAY, sensitivity), unavailable, "{subject:?} unavailable {sensitivity:?}");
            assert_eq!(
                posture(subject, Lack::NotAsked, sensitivity),
                not_asked,
                "{subject:?} not asked {sensitivity:?}"
            );
        }
    }

    #[test]
    fn too_old_means_the_same_as_out_of_reach() {
        for subject in Subject::ALL {
            for sensitivity in [Sensitivity::Weighed, Sensitivity::Required] {
                let stale = posture(subject, Lack::Unavailable(Unavailable::Stale), sensitivity);
                assert_eq!(stale, posture(subject, AWAY, sensitivity), "{subject:?}");
            }
        }
    }

    #[test]
    fn out_of_reach_is_never_better_than_absent_where_a_rule_reads_the_fact() {
        for subject in Subject::ALL {
            let refused = |lack| matches!(posture(subject, lack, Sensitivity::Required), Posture::Refuse(_));
            assert!(!refused(Lack::Absent) || refused(AWAY), "{subject:?}");
        }
    }
}
