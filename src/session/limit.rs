//! How many sessions a person may have at the same time. Asked at the first request of a session that is allowed
//! otherwise, and only where there is a limit: one that is refused or challenged has no place, and ends no other.
//!
//! Each session first enters its subject's index, where the store gives it a number in the same step; then the index is
//! read. Whoever has a number sees all smaller ones, so every replica counts in the order of entering, whatever its clock
//! says, and only that order decides: a session is refused for older ones, and ends none but older ones.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Sessions, Visit, key::SessionKey, live::Live, record::Session, settings::OnExcess};
use crate::{
    domain::{Fact, Facts, Identity, SessionState, SubjectKind, TrustLevel, Unavailable, UnixTime},
    store::{StoreError, keys},
};

/// A session that has just begun may not have a record yet.
const NEW: Duration = Duration::from_secs(60);

/// A field of the index that is no session: how many ever entered it.
const COUNT: &str = "count";

/// One of a subject's sessions.
struct Member {
    key: SessionKey,
    place: Place,
    record: Option<Session>,
}

/// Where a session stands among those of its subject: a field of the index. What the version before wrote has no number,
/// and is older than what has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    number: u64,
    began: UnixTime,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (began, number) = text.split_once(' ').unwrap_or((text, "0"));
        Some(Self { number: number.parse().ok()?, began: UnixTime::from_millis(began.parse().ok()?) })
    }
}

impl Sessions {
    /// Counts a session whose first request would be allowed, where there is a limit: ends others for it, and returns their
    /// names in notices. `None`: it has no place, or cannot be counted, and `facts` say so.
    pub async fn admit(&self, visit: &Visit, facts: &mut Facts, deadline: Instant) -> Option<Vec<String>> {
        match self.settings.max_concurrent.filter(|_| !visit.placed) {
            Some(limit) => Box::pin(self.admit_within(limit, visit, facts, deadline)).await,
            None => Some(Vec::new()),
        }
    }

    async fn admit_within(
        &self,
        limit: u32,
        visit: &Visit,
        facts: &mut Facts,
        deadline: Instant,
    ) -> Option<Vec<String>> {
        let Some(identity) = facts.identity().filter(|identity| identity.kind == SubjectKind::Person).cloned() else {
            return Some(Vec::new());
        };
        let counted = self.count(visit, limit as usize, facts.now);
        facts.session = match tokio::time::timeout_at(deadline, counted).await {
            Ok(Ok(Counted::Fits(ended))) => return Some(ended),
            Ok(Ok(Counted::Refused)) => Fact::known(refused(&identity, facts.now), facts.now),
            Ok(Err(error)) => Fact::Unavailable(error.unavailable()),
            Err(_) => Fact::Unavailable(Unavailable::Timeout),
        };
        None
    }

    async fn count(&self, visit: &Visit, limit: usize, now: UnixTime) -> Result<Counted, StoreError> {
        let key = visit.key;
        let (index, own) = (keys::session_index(&key.subject_text()), key.session_text());
        let (mut members, mut gone) = self.enter(&index, visit, now).await?;
        if gone.contains(&key) {
            // It was here long ago, and comes back as the newest.
            self.store.write_record(&index, &[], &[&own]).await?;
            (members, gone) = self.enter(&index, visit, now).await?;
            // What is in the store of it is the one before.
            if visit.renews && gone.contains(&key) {
                gone.retain(|gone| *gone != key);
                members.push(Member { key, place: Place { number: u64::MAX, began: now }, record: None });
            }
        }
        members.sort_unstable_by_key(|member| (member.place, member.key));
        let mut leaving: Vec<String> = gone.iter().map(SessionKey::session_text).collect();
        let counted = match self.settings.on_excess {
            // One that is not there any more was refused a moment ago, at another of its requests.
            OnExcess::Refuse if members.iter().take(limit).all(|member| member.key != key) => {
                leaving.push(own);
                self.counters.refused.increment();
                Counted::Refused
            }
            OnExcess::Refuse => Counted::Fits(Vec::new()),
            OnExcess::EndOldest => {
                let excess = members.len().saturating_sub(limit);
                let oldest = members.into_iter().take(excess).take_while(|member| member.key != key);
                let oldest: Vec<_> = oldest.collect();
                leaving.extend(oldest.iter().map(|member| member.key.session_text()));
                Counted::Fits(oldest.into_iter().map(|member| self.make_room(member)).collect())
            }
        };
        if !leaving.is_empty() {
            let leaving: Vec<&str> = leaving.iter().map(String::as_str).collect();
            self.store.write_record(&index, &[], &leaving).await?;
        }
        Ok(counted)
    }

    /// Enters a session, unless it is there, and reads them all: those of the subject that still run, and those that do not.
    async fn enter(
        &self,
        index: &str,
        visit: &Visit,
        now: UnixTime,
    ) -> Result<(Vec<Member>, Vec<SessionKey>), StoreError> {
        let own = visit.key;
        let (field, began) = (own.session_text(), now.as_millis().to_string());
        self.store.enlist(index, &field, COUNT, &began, Some(self.settings.keep.get())).await?;
        let fields = self.store.whole_record(index).await?.unwrap_or_default();
        let known: Vec<(SessionKey, Place)> =
            fields.iter().filter_map(|(session, place)| Some((own.sibling(session)?, Place::parse(place)?))).collect();
        let wanted: Vec<String> = known.iter().map(|(key, _)| keys::session(&key.text())).collect();
        let records = self.store.read(&wanted).await?;
        let (mut members, mut gone) = (Vec::new(), Vec::new());
        for ((key, place), record) in known.into_iter().zip(records) {
            let record = record.ok().flatten().and_then(|held| Session::parse(&held.value));
            let runs = match &record {
                Some(session) => session.ended.is_none() && !self.is_over(session, now),
                None => now.since(place.began) < NEW,
            };
            if runs {
                members.push(Member { key, place, record });
            } else {
                gone.push(key);
            }
        }
        Ok((members, gone))
    }

    fn is_over(&self, session: &Session, now: UnixTime) -> bool {
        self.settings.idle.is_some_and(|idle| now.since(session.seen_at) > idle.get())
    }

    /// Ends a session for a newer one. Says its name in notices.
    fn make_room(&self, member: Member) -> String {
        let live = self.known.get(&member.key).or_else(|| Some(Arc::new(Live::new(member.key, member.record?))));
        if let Some(live) = live {
            live.with(|held| {
                let why = held.session.end(|| "max_concurrent".into(), self.clock.now());
                self.ended(&held.session, &why, false);
            });
            self.write_at_once(&live);
        }
        member.key.text()
    }
}

/// What counting came to.
enum Counted {
    /// The names of those that were ended for it.
    Fits(Vec<String>),
    Refused,
}

fn refused(identity: &Identity, now: UnixTime) -> SessionState {
    let begun = SessionState::begun(now, identity.issued_at, TrustLevel::Privileged);
    SessionState { over_limit: true, ..begun }
}
