//! How long what was seen is remembered, and what a later reading changes about it.

use std::time::Duration;

use tokio::time::Instant;

use super::{mark::Remembered, *};
use crate::{
    domain::UnixTime,
    revocation::standing::{KeyLife, Scope},
};

fn remembered(scope: Scope, until: Instant) -> Remembered {
    let until = Some(until);
    let reason = if scope == Scope::Everything { "left" } else { "5" };
    Remembered { scope, reason: reason.into(), until, key: KeyLife::Endless, held: scope, beside: None, scan: 1 }
}

/// Endless and of every token; then, undone in between where nobody heard of it, up to a time and for a minute.
#[test]
fn a_reinstatement_that_was_missed_ends_what_was_known_before_it() {
    let clock = Clock::manual(UnixTime::from_secs(1000));
    let (known, kind) = (Known::new(9, clock.clone()), RevocationKind::Subject);
    let (undo, now) = (Undo::fresh(), clock.instant());
    let minute = Duration::from_secs(60);
    let read = |standing: Standing| {
        let seen = Seen { max_lifetime: minute, scan: 0, ticket: known.ticket(kind, "ann"), live: true };
        assert!(known.settle(kind, "ann", &standing, seen));
        known.shard(kind, "ann").read().get("ann").and_then(|mark| mark.revoked.clone())
    };
    let revoked = |scope, life, beside| Standing::Revoked { scope, reason: "x".into(), life, beside };
    let before = read(revoked(Scope::Everything, None, None)).unwrap();
    assert_eq!((before.scope, before.until), (Scope::Everything, None));
    let after = read(revoked(Scope::IssuedUntil(5), Some(minute), Some(undo))).unwrap();
    assert_eq!((after.scope, after.until), (Scope::IssuedUntil(5), Some(now + minute)));
    let again = read(revoked(Scope::Everything, Some(minute), None)).unwrap();
    assert_eq!((again.scope, again.beside), (Scope::Everything, Some(undo)), "the reinstatement has ended");
    assert!(read(Standing::Reinstated(Some(undo))).is_some(), "it is older than the revocation");
    assert!(read(Standing::Nothing).is_some());
    assert_eq!(read(Standing::Reinstated(Some(Undo::fresh()))), None);
}

#[test]
fn an_endless_revocation_whose_key_is_gone_holds_for_as_long_as_a_token_of_then_can_live() {
    let clock = Clock::manual(UnixTime::from_secs(1000));
    let (known, kind, minute) = (Known::new(9, clock.clone()), RevocationKind::Subject, Duration::from_secs(60));
    let read = |standing: Standing| {
        let seen = Seen { max_lifetime: minute, scan: 0, ticket: known.ticket(kind, "ann"), live: true };
        assert!(known.settle(kind, "ann", &standing, seen));
        known.shard(kind, "ann").read().get("ann").and_then(|mark| mark.revoked.clone())
    };
    read(Standing::Revoked { scope: Scope::Everything, reason: "x".into(), life: None, beside: None });
    let gone = read(Standing::Nothing).unwrap();
    assert_eq!((gone.scope, gone.until), (Scope::Everything, Some(clock.instant() + minute)));
}

#[test]
fn a_later_reading_never_narrows_what_was_revoked_nor_shortens_how_long_it_is_remembered() {
    let (sooner, later) = (Instant::now(), Instant::now() + Duration::from_secs(10));
    let (narrow, wide) = (remembered(Scope::IssuedUntil(5), sooner), remembered(Scope::Everything, later));
    for merged in [narrow.clone().merge(&wide), wide.clone().merge(&narrow)] {
        assert_eq!((merged.scope, merged.until), (Scope::Everything, Some(later)));
        assert_eq!(merged.value(merged.scope), "left", "what is written back covers everything too");
    }
}
#[test]
fn c03_a_step_of_the_clock_ends_no_revocation_whose_key_stands() {
    let clock = Clock::manual(UnixTime::from_secs(1_900_000_000));
    let (known, kind, hour) = (Known::new(9, clock.clone()), RevocationKind::Subject, Duration::from_secs(3600));
    let life = Some(hour);
    let revoked = Standing::Revoked { scope: Scope::Everything, reason: "x".into(), life, beside: None };
    let seen = Seen { max_lifetime: hour, scan: 1, ticket: known.ticket(kind, "ann"), live: true };
    assert!(known.settle(kind, "ann", &revoked, seen));
    let before = clock.now();
    clock.set(before.plus(24 * hour));
    known.purge();
    assert!(known.remembers(kind, "ann"), "during the step");
    clock.set(before);
    assert!(known.remembers(kind, "ann"), "and after it");
    let lost = known.missing(2).pop().unwrap().lost.unwrap();
    assert_eq!(lost.life, Some(hour), "what is written back has its whole life");
    clock.advance(hour);
    known.purge();
    assert_eq!(known.len(), 0);
}

/// What a feed that is live tells of is deliberate; what a scan finds less than that has been lost.
#[test]
fn what_a_key_says_less_than_it_did_is_lost_unless_the_feed_told_of_it() {
    let clock = Clock::manual(UnixTime::from_secs(1000));
    let (known, kind, hour) = (Known::new(9, clock.clone()), RevocationKind::Subject, Duration::from_secs(3600));
    let until =
        |secs, life| Standing::Revoked { scope: Scope::IssuedUntil(secs), reason: "x".into(), life, beside: None };
    let settle = |standing: &Standing, scan, live| {
        let seen = Seen { max_lifetime: hour, scan, ticket: known.ticket(kind, "ann"), live };
        assert!(known.settle(kind, "ann", standing, seen));
        known.lacks(kind, "ann", standing).map(|lost| (lost.value, lost.life))
    };
    let life = Some(hour);
    assert_eq!(settle(&until(500, life), 0, true), None);
    assert_eq!(settle(&until(400, life), 0, true), None, "narrowed by hand");
    assert_eq!(settle(&until(400, life), 1, false), None, "and found so");
    assert_eq!(known.missing(1).len(), 0);
    assert_eq!(settle(&until(300, life), 2, false), Some(("400".to_owned(), life)), "what it said last");
    assert_eq!(known.missing(2).len(), 1, "looked at again");
    assert_eq!(settle(&until(300, Some(2 * hour)), 0, false), Some(("400".to_owned(), Some(2 * hour))));
    assert_eq!(settle(&until(400, life), 3, true), Some(("400".to_owned(), Some(2 * hour))), "it lived longer");
    known.suspect(kind, "ann");
    assert_eq!(settle(&until(100, life), 4, true), None, "told of");
    let undone =
        Standing::Revoked { scope: Scope::IssuedUntil(50), reason: "x".into(), life, beside: Some(Undo::fresh()) };
    assert_eq!(settle(&undone, 5, false), None, "reinstated, then revoked again");
    clock.advance(2 * hour);
    assert_eq!(settle(&until(20, life), 6, false), None, "it had ended");
}
