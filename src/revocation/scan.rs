//! Reading revocations from the store: those that were told of, all there are, and what to do when some are gone.

use std::{collections::HashMap, sync::atomic::Ordering};

use backon::Retryable as _;

use super::{
    OnLoss, Revocations,
    known::{Lost, Missing},
    standing::{Standing, is_by_hand, is_undone, judge},
};
use crate::{
    domain::RevocationKind,
    store::{StoreError, Ticket, keys, patience},
};

/// Keys asked for in one page of a scan.
const PAGE: usize = 1000;

/// How the values begin that replicas write to [`keys::CANARY`]; a random number follows, so that a new one shows.
/// What somebody wrote by hand begins otherwise, and ends a refusal.
const OURS: &[u8] = b"countersign:";

/// Readings of a key that is overtaken again and again, before checks are left to ask for themselves.
const ROUNDS: usize = 5;

pub(super) type At = (RevocationKind, Box<str>);

/// What the feed told of, or what is to be looked at again.
pub(super) type Dirty = HashMap<At, Told>;

/// Which key of a revocation the feed told of last. Both together are a revocation (see [`judge`]); but where a
/// reinstatement was written by hand, without deleting the revocation's key, it has to be settled which came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// That of the reinstatement: one by hand is carried out.
    Reinstated,
    /// That of the revocation, or the order is not known: the revocation counts.
    Revoked,
    /// Nothing was told since it was read with the reinstatement beside it, which could have been on its way then.
    Since,
}

/// What a scan brought.
#[derive(Debug)]
pub(super) struct Scanned {
    /// How many there are. `None`: only what was lost was looked at again.
    pub(super) found: Option<usize>,
    /// Beside which there is a reinstatement by hand.
    pub(super) by_hand: Vec<At>,
    /// Revocations that were remembered here and gone there, or less there.
    pub(super) restored: usize,
    /// Everything was read, and the store does not take what it has lost.
    pub(super) unwritten: Option<Unwritten>,
}

/// What could not be written to the store, or, of its canary, be read.
#[derive(Debug, thiserror::Error)]
#[error("`{key}`: {error}")]
pub(super) struct Unwritten {
    /// Without the id.
    key: String,
    #[source]
    error: StoreError,
}

/// Reads what the feed told of, and the key of a canary with it. Gives back what was overtaken, the follower knows whether
/// there is news of it, and what is to be looked at once more.
pub(super) async fn read(revocations: &Revocations, batch: &Dirty, canary: Option<&str>) -> Result<Dirty, StoreError> {
    let told: Vec<_> = batch.iter().map(|((kind, id), told)| (*kind, &**id, *told)).collect();
    let Settled { by_hand, overtaken } = settle(revocations, &told, canary, 0).await?;
    let mut left: Dirty = overtaken.into_iter().map(|(kind, id, told)| ((kind, id.into()), told)).collect();
    for by_hand in by_hand {
        match by_hand.told {
            (_, _, Told::Reinstated) => revocations.carry_out(&by_hand).await?,
            (kind, id, Told::Revoked) => _ = left.insert((kind, id.into()), Told::Since),
            (_, _, Told::Since) => revocations.outdo(&by_hand).await?,
        }
    }
    Ok(left)
}

/// Reads everything under `cs:revoked:`, then looks at what is remembered and was not found, or not as it should be.
pub(super) async fn scan(revocations: &Revocations, scan: u64) -> Result<Scanned, StoreError> {
    let room = revocations.known.room();
    let (mut cursor, mut found, mut by_hand, dropped) = (String::new(), 0, Vec::new(), room.dropped());
    loop {
        let scan_page = || revocations.store.scan(keys::REVOKED, &cursor, PAGE);
        let (page, next) = scan_page.retry(patience()).when(StoreError::is_transient).await?;
        let told: Vec<_> = page
            .iter()
            .filter_map(|key| keys::parse_revocation(keys::REVOKED, key))
            .map(|(kind, id)| (kind, id, Told::Revoked))
            .collect();
        found += told.len();
        let settle_page = || settle_all(revocations, &told, scan);
        by_hand.extend(settle_page.retry(patience()).when(StoreError::is_transient).await?);
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    room.whole(dropped);
    let mended = mend(revocations, scan).await?;
    Ok(Scanned { found: Some(found), by_hand, ..mended })
}

/// Looks at what is remembered and `scan` did not find, and at the store's canary. Fails only where something cannot be
/// read; a store that takes no writes is still known as a whole.
pub(super) async fn mend(revocations: &Revocations, scan: u64) -> Result<Scanned, StoreError> {
    let (restored, unrestored) = restore(revocations, scan).await?;
    let no_canary = look_for_canary(revocations).await?;
    Ok(Scanned { found: None, by_hand: Vec::new(), restored, unwritten: unrestored.or(no_canary) })
}

/// Whether somebody has said that the data is back (see [`OnLoss::Refuse`]), or has brought it back, canary and all.
pub(super) async fn is_restored(revocations: &Revocations) -> bool {
    let Ok(Some(canary)) = canary(revocations).await else { return false };
    let restored = !canary.starts_with(OURS) || revocations.canary.lock().as_ref() == Some(&canary);
    if restored {
        tracing::warn!("`{}` is back: serving again", keys::CANARY);
        *revocations.canary.lock() = Some(canary);
        revocations.refusing.store(false, Ordering::Release);
    }
    restored
}

/// A revocation, and what was told of it.
type Asked<'i> = (RevocationKind, &'i str, Told);

/// A revocation's key beside which somebody has written a reinstatement by hand, and what both say.
pub(super) struct ByHand<'i> {
    pub(super) told: Asked<'i>,
    pub(super) revoked: Vec<u8>,
    pub(super) reinstated: Vec<u8>,
}

/// What became of one reading.
struct Settled<'i> {
    by_hand: Vec<ByHand<'i>>,
    /// News came while the answer was on its way: it counts for nothing.
    overtaken: Vec<Asked<'i>>,
}

/// Reads both keys of each, in one round trip, and takes them into memory.
async fn settle<'i>(
    revocations: &Revocations,
    asked: &[Asked<'i>],
    extra: Option<&str>,
    scan: u64,
) -> Result<Settled<'i>, StoreError> {
    let subjects: Vec<_> = asked.iter().map(|(kind, id, _)| (*kind, *id)).collect();
    let tickets: Vec<Ticket> = subjects.iter().map(|(kind, id)| revocations.known.ticket(*kind, id)).collect();
    let entries = revocations.read(&subjects, extra).await?;
    let (mut by_hand, mut overtaken) = (Vec::new(), Vec::new());
    for ((at, pair), ticket) in asked.iter().zip(entries.chunks_exact(2)).zip(tickets) {
        let (kind, id, _) = *at;
        let standing = judge((kind, id), &pair[0], &pair[1]);
        if standing == Standing::Unreadable {
            tracing::warn!(kind = kind.as_str(), "a revocation's key cannot be read: answered with 503");
        }
        if !revocations.known.settle(kind, id, &standing, revocations.seen(ticket, scan)) {
            overtaken.push(*at);
        } else if let (Ok(Some(revoked)), Ok(Some(reinstated))) = (&pair[0], &pair[1])
            && is_by_hand(&reinstated.value)
        {
            let (revoked, reinstated) = (revoked.value.clone(), reinstated.value.clone());
            by_hand.push(ByHand { told: *at, revoked, reinstated });
        }
    }
    Ok(Settled { by_hand, overtaken })
}

/// As [`settle`], for a page of a scan: what was overtaken is read again. Gives those with a reinstatement by hand.
async fn settle_all(revocations: &Revocations, asked: &[Asked<'_>], scan: u64) -> Result<Vec<At>, StoreError> {
    let (mut left, mut found) = (asked.to_vec(), Vec::new());
    for _ in 0..ROUNDS {
        let Settled { by_hand, overtaken } = settle(revocations, &left, None, scan).await?;
        found.extend(by_hand.into_iter().map(|ByHand { told: (kind, id, _), .. }| (kind, id.into())));
        left = overtaken;
        if left.is_empty() {
            return Ok(found);
        }
    }
    left.iter().for_each(|(kind, id, _)| revocations.known.suspect(*kind, id));
    Ok(found)
}

/// Reads again what is remembered and was not found; writes back what should be there, and is not.
async fn restore(revocations: &Revocations, scan: u64) -> Result<(usize, Option<Unwritten>), StoreError> {
    let missing = revocations.known.missing(scan);
    let (mut restored, mut unwritten) = (0, None);
    for chunk in missing.chunks(PAGE) {
        let reread_chunk = || reread(revocations, chunk, scan);
        let lost = reread_chunk.retry(patience()).when(StoreError::is_transient).await?;
        for (Missing { kind, id, .. }, Lost { value, life }, gone) in lost {
            if unwritten.is_some() {
                break;
            }
            let key = keys::revoked(*kind, id);
            let written = if gone {
                revocations.store.create(&key, value.as_bytes(), life).await
            } else {
                revocations.store.widen(&key, &value, life).await.map(|_| true)
            };
            match written {
                Ok(written) => restored += usize::from(written),
                Err(error) => unwritten = Some(Unwritten { key: keys::revoked(*kind, "…"), error }),
            }
        }
    }
    if restored > 0 {
        tracing::error!(
            restored,
            "the store had lost revocations, or some of what they covered; they were written back"
        );
        revocations.counters.restored.add(restored as u64);
    }
    Ok((restored, unwritten))
}

/// As [`settle`], but what is gone and should not be is not taken for deleted: it is given back, to be written; so is what
/// says less than it did. With each, whether it is gone.
async fn reread<'m>(
    revocations: &Revocations,
    missing: &'m [Missing],
    scan: u64,
) -> Result<Vec<(&'m Missing, Lost, bool)>, StoreError> {
    let subjects: Vec<_> = missing.iter().map(|missing| (missing.kind, &*missing.id)).collect();
    let tickets: Vec<Ticket> = subjects.iter().map(|(kind, id)| revocations.known.ticket(*kind, id)).collect();
    let entries = revocations.read(&subjects, None).await?;
    let mut lost = Vec::new();
    for ((missing, pair), ticket) in missing.iter().zip(entries.chunks_exact(2)).zip(tickets) {
        let (kind, id, standing) = (missing.kind, &*missing.id, judge((missing.kind, &missing.id), &pair[0], &pair[1]));
        match &missing.lost {
            Some(held) if standing.is_nothing_new(missing.beside) => lost.push((missing, held.clone(), true)),
            _ => {
                revocations.known.settle(kind, id, &standing, revocations.seen(ticket, scan));
                // One that is being taken back, or was by hand, is given nothing.
                let undone = matches!(&pair[1], Ok(Some(held)) if is_undone(&held.value));
                let less = revocations.known.lacks(kind, id, &standing).filter(|_| !undone);
                lost.extend(less.map(|held| (missing, held, false)));
            }
        }
    }
    Ok(lost)
}

/// Notices a store that came back empty, or with other data: its canary is gone, or somebody has made a new one.
async fn look_for_canary(revocations: &Revocations) -> Result<Option<Unwritten>, StoreError> {
    let found = match canary(revocations).await {
        Ok(found) => found,
        Err(error) if error.is_transient() => return Err(error),
        Err(error) => return Ok(Some(Unwritten { key: keys::CANARY.to_owned(), error })),
    };
    let known = revocations.canary.lock().clone();
    // Told of once: while it refuses, what was known is kept.
    if is_emptied(found.as_deref(), known.as_deref()) && !revocations.refusing.load(Ordering::Acquire) {
        tracing::error!(on_loss = ?revocations.settings.on_loss, "the store came back empty, or with other data");
        revocations.counters.emptied.increment();
        revocations.refusing.store(revocations.settings.on_loss == OnLoss::Refuse, Ordering::Release);
    }
    let (found, unwritten) = match found {
        Some(found) => (Some(found), None),
        None => match make_canary(revocations).await {
            Ok(made) => (Some(made), None),
            Err(error) => (None, Some(Unwritten { key: keys::CANARY.to_owned(), error })),
        },
    };
    if !revocations.refusing.load(Ordering::Acquire) {
        *revocations.canary.lock() = found;
    }
    Ok(unwritten)
}

fn is_emptied(found: Option<&[u8]>, known: Option<&[u8]>) -> bool {
    match (found, known) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(found), Some(known)) => found != known && found.starts_with(OURS),
    }
}

/// Writes one, unless another replica was faster: then it is theirs.
async fn make_canary(revocations: &Revocations) -> Result<Vec<u8>, StoreError> {
    let fresh = [OURS, format!("{:016x}", rand::random::<u64>()).as_bytes()].concat();
    revocations.store.create(keys::CANARY, &fresh, None).await?;
    Ok(canary(revocations).await?.unwrap_or(fresh))
}

async fn canary(revocations: &Revocations) -> Result<Option<Vec<u8>>, StoreError> {
    let entry = revocations.store.read(&[keys::CANARY.to_owned()]).await?.pop();
    Ok(entry.transpose()?.flatten().map(|held| held.value))
}
