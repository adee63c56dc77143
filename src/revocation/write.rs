//! Writing revocations: what the admin API, the command line and signals call.

use std::time::Duration;

use super::{
    Revocations,
    scan::ByHand,
    standing::{Scope, Standing, UNDOING, Undo, is_workload, judge},
};
use crate::{
    domain::{RevocationKind, UnixTime},
    store::{StoreError, StoreErrorKind, Widened, keys},
};

/// Longest id that is written, in octets: that of a claim.
const MAX_ID: usize = 4096;

/// How long a replica may be away from the store, at the least, and still learn of a reinstatement when it is back: what has
/// no end is remembered for ever, and would be written back.
const AWAY: Duration = Duration::from_secs(365 * 24 * 3600);

/// One revocation as the store holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub kind: RevocationKind,
    pub id: String,
    /// The reason; empty where it was not given, or where the value is a time.
    pub reason: String,
    /// Of a subject: tokens issued at or before this time. `None`: every token.
    pub issued_until: Option<UnixTime>,
    /// What is left of it; `None`: it has no end.
    pub life: Option<Duration>,
    /// The key cannot be read: whatever it names is answered with 503.
    pub unreadable: bool,
}

/// How far clocks that are kept may be apart, and how far ahead of ours another's is believed.
const CLOCKS_APART: Duration = Duration::from_secs(2);
const MOST_APART: Duration = Duration::from_secs(300);

impl Revocations {
    /// Revokes. A subject: every token issued up to now, by the later of our clock and the store's; its reason is then only for the audit record. Without `life`,
    /// a token, session or subject is revoked for the longest life a token can have, a device until it is reinstated. So is a
    /// workload, with the certificates that it obtains by itself meanwhile.
    /// What was revoked before stays so, for as long as it was. Says what is in force now.
    ///
    /// # Errors
    ///
    /// When the store did not acknowledge it: then nothing was promised. An empty or over-long id is refused.
    pub async fn revoke(
        &self,
        kind: RevocationKind,
        id: &str,
        reason: &str,
        life: Option<Duration>,
    ) -> Result<Listed, StoreError> {
        let life = life.or_else(|| self.usual_life(kind, id));
        let until = match kind {
            RevocationKind::Subject if !is_workload(id) => Some(self.now_anywhere().await.as_secs()),
            _ => None,
        };
        let (scope, value) = match until {
            Some(secs) => (Scope::IssuedUntil(secs), secs.to_string()),
            // Alone it would be a time.
            None if Scope::parse(kind, reason) != Scope::Everything => {
                (Scope::Everything, format!("revoked: {reason}"))
            }
            None => (Scope::Everything, reason.to_owned()),
        };
        let Widened { set, life, .. } = self.widen((kind, id), scope, &value, life).await?;
        let (id, reason, issued_until) = (id.to_owned(), reason.to_owned(), until.map(UnixTime::from_secs));
        let written = Listed { kind, id, reason, issued_until, life, unreadable: false };
        if set {
            return Ok(written);
        }
        // Revoked it is in any case: that what says more cannot be read now is no failure.
        Ok(self.stands(kind, &written.id).await.ok().flatten().unwrap_or(written))
    }

    /// The later of our clock and the store's: "up to now" is meant for every replica, also where ours is slow.
    async fn now_anywhere(&self) -> UnixTime {
        let ours = self.clock.now();
        let stores = match self.store.now().await {
            Ok(stores) => stores.unwrap_or(ours),
            Err(error) => {
                tracing::warn!(%error, "the store does not tell its time: a subject's revocation is dated by our clock alone");
                ours
            }
        };
        let apart = stores.since(ours).max(ours.since(stores));
        if apart > CLOCKS_APART {
            tracing::warn!(
                ?apart,
                "our clock and the store's differ: tokens revoked by their age are counted by the later one"
            );
        }
        stores.clamp(ours, ours.plus(MOST_APART))
    }

    /// What the store holds at one id.
    async fn stands(&self, kind: RevocationKind, id: &str) -> Result<Option<Listed>, StoreError> {
        let entries = self.store.read(&[keys::revoked(kind, id)]).await?;
        Ok(entries.first().and_then(|entry| listed(kind, id, &judge((kind, id), entry, &Ok(None)))))
    }

    /// How long a revocation lasts that says nothing else; `None`: until it is taken back.
    pub fn usual_life(&self, kind: RevocationKind, id: &str) -> Option<Duration> {
        let outlives_tokens = match kind {
            RevocationKind::Device => true,
            RevocationKind::Subject => is_workload(id),
            RevocationKind::Token | RevocationKind::Session => false,
        };
        (!outlives_tokens).then_some(*self.settings.max_lifetime)
    }

    /// Revokes every token of a subject that was issued at or before `until`, and never fewer than were before.
    ///
    /// # Errors
    ///
    /// When the store did not acknowledge it: then nothing was promised. An empty or over-long id is refused.
    pub async fn revoke_until(&self, subject: &str, until: UnixTime) -> Result<(), StoreError> {
        let (secs, life) = (until.as_secs(), Some(*self.settings.max_lifetime));
        self.widen((RevocationKind::Subject, subject), Scope::IssuedUntil(secs), &secs.to_string(), life).await?;
        Ok(())
    }

    /// Writes a revocation, known here at once.
    async fn widen(
        &self,
        (kind, id): (RevocationKind, &str),
        scope: Scope,
        value: &str,
        life: Option<Duration>,
    ) -> Result<Widened, StoreError> {
        checked(id)?;
        let ticket = self.known.ticket(kind, id);
        let widened = self.store.widen(&keys::revoked(kind, id), value, life).await?;
        let Widened { life, replicated, .. } = widened;
        if replicated == Some(false) {
            self.counters.unreplicated.increment();
            tracing::warn!(
                kind = kind.as_str(),
                "no replica of the store has acknowledged a revocation: a failover now could lose it where nobody has heard of it"
            );
        }
        // Where something stands that says more, the feed tells of it.
        let standing = Standing::Revoked { scope, reason: value.into(), life, beside: None };
        let seen = self.seen(ticket, 0);
        if !self.known.settle(kind, id, &standing, seen) {
            // The feed told of it before the answer came, or was lost, and a failover may have lost the revocation where
            // nobody else has read it.
            self.known.keep(kind, id, &standing, seen);
            self.look_again(kind, id).await;
        }
        Ok(widened)
    }

    /// Whether a revocation was taken back before it was known here: the feed does not tell of that once more. Where the store
    /// does not answer it stands.
    async fn look_again(&self, kind: RevocationKind, id: &str) {
        let ticket = self.known.ticket(kind, id);
        let standings = self.standings(&[(kind, id)]).await;
        if let Ok([standing @ Standing::Reinstated(_)]) = standings.as_deref() {
            self.known.settle(kind, id, standing, self.seen(ticket, 0));
        }
    }

    /// Takes a revocation back, on every replica, unless it is revoked again meanwhile. Says whether the store held one, or it
    /// was remembered here.
    ///
    /// # Errors
    ///
    /// When the store did not acknowledge it.
    pub async fn reinstate(&self, kind: RevocationKind, id: &str) -> Result<bool, StoreError> {
        checked(id)?;
        let life = Some(self.undone_for());
        let (ticket, known) = (self.known.ticket(kind, id), self.known.remembers(kind, id));
        let (key, undo) = (keys::reinstated(kind, id), Undo::fresh());
        self.store.write(&key, UNDOING, life).await?;
        let was_there = self.store.delete(&[keys::revoked(kind, id)]).await? > 0 || known;
        // INVARIANT: written when the revocation is gone. Whoever sees it beside one sees a later one.
        self.store.write(&key, undo.value().as_bytes(), life).await?;
        self.known.settle(kind, id, &Standing::Reinstated(Some(undo)), self.seen(ticket, 0));
        Ok(was_there)
    }

    /// How long a reinstatement stands.
    fn undone_for(&self) -> Duration {
        AWAY.max(*self.settings.max_lifetime)
    }

    /// Whether nothing revokes this now. What cannot be read may, and so may what the store has lost and is remembered here.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub async fn is_clear(&self, kind: RevocationKind, id: &str) -> Result<bool, StoreError> {
        let standings = self.standings(&[(kind, id)]).await?;
        Ok(standings.iter().all(|standing| match standing {
            Standing::Nothing | Standing::Reinstated(_) => !self.known.withstands(kind, id, standing),
            Standing::Revoked { .. } | Standing::Unreadable => false,
        }))
    }

    /// Carries out a reinstatement that somebody wrote by hand beside the revocation: as [`Self::reinstate`] does. Of many
    /// replicas one does, and not where either value is another by now.
    pub(super) async fn carry_out(&self, by_hand: &ByHand<'_>) -> Result<(), StoreError> {
        let ByHand { told: (kind, id, _), revoked, reinstated } = by_hand;
        let (key, life) = (keys::reinstated(*kind, id), Some(self.undone_for()));
        if self.store.exchange(&key, reinstated, Some(UNDOING)).await? {
            self.store.exchange(&keys::revoked(*kind, id), revoked, None).await?;
            self.store.write(&key, Undo::fresh().value().as_bytes(), life).await?;
        }
        Ok(())
    }

    /// Marks a reinstatement by hand as older than the revocation beside it, so that it takes nothing back when that ends.
    pub(super) async fn outdo(&self, by_hand: &ByHand<'_>) -> Result<(), StoreError> {
        let ByHand { told: (kind, id, _), reinstated, .. } = by_hand;
        let undo = Undo::fresh().value();
        self.store.exchange(&keys::reinstated(*kind, id), reinstated, Some(undo.as_bytes())).await.map(drop)
    }

    /// A page of what the store holds, of one kind or of all. An empty cursor begins; `None` ends.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub async fn list(
        &self,
        kind: Option<RevocationKind>,
        cursor: &str,
        count: usize,
    ) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        let prefix = kind.map_or(keys::REVOKED.to_owned(), |kind| keys::revoked(kind, ""));
        let (found, next) = self.store.scan(&prefix, cursor, count).await?;
        let entries = self.store.read(&found).await?;
        let listed = found
            .iter()
            .zip(&entries)
            .filter_map(|(key, entry)| {
                let (kind, id) = keys::parse_revocation(keys::REVOKED, key)?;
                listed(kind, id, &judge((kind, id), entry, &Ok(None)))
            })
            .collect();
        Ok((listed, next))
    }
}

fn listed(kind: RevocationKind, id: &str, standing: &Standing) -> Option<Listed> {
    let id = id.to_owned();
    let blank = Listed { kind, id, reason: String::new(), issued_until: None, life: None, unreadable: false };
    match standing {
        Standing::Nothing | Standing::Reinstated(_) => None,
        Standing::Unreadable => Some(Listed { unreadable: true, ..blank }),
        Standing::Revoked { scope: Scope::IssuedUntil(secs), life, .. } => {
            Some(Listed { issued_until: Some(UnixTime::from_secs(*secs)), life: *life, ..blank })
        }
        Standing::Revoked { scope: Scope::Everything, reason, life, .. } => {
            Some(Listed { reason: reason.to_string(), life: *life, ..blank })
        }
    }
}

fn checked(id: &str) -> Result<(), StoreError> {
    match id.len() {
        1..=MAX_ID => Ok(()),
        _ => Err(StoreError::new(StoreErrorKind::Refused, format!("an id has 1 to {MAX_ID} octets"))),
    }
}
