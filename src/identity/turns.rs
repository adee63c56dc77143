//! Whose turn it is to be asked about. Tokens that nobody has vouched for yet wait among themselves, however many a caller
//! makes up: those that were good a moment ago have turns that no stranger takes.

use std::pin::pin;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

/// Strangers that wait, for each that may be asked about at once: those beyond it would hardly be in time, and whoever waits
/// takes up room among all checks.
const WAITING: usize = 32;

#[derive(Debug)]
pub(super) struct Turns {
    all: Semaphore,
    strangers: Semaphore,
    /// Where strangers wait.
    places: Semaphore,
}

/// While it is held, one question may be under way.
#[derive(Debug)]
pub(super) struct Turn<'t> {
    _all: SemaphorePermit<'t>,
    _stranger: Option<SemaphorePermit<'t>>,
}

impl Turns {
    /// `limit` questions at once; a quarter of them is kept for tokens that were good a moment ago.
    pub(super) fn new(limit: usize) -> Self {
        let strangers = limit - limit / 4;
        let places = strangers.saturating_mul(WAITING).min(Semaphore::MAX_PERMITS);
        Self { all: Semaphore::new(limit), strangers: Semaphore::new(strangers), places: Semaphore::new(places) }
    }

    /// Waits for a turn until `deadline`, which may move while it waits. `None`: there was none by then, or no place to wait.
    pub(super) async fn take(&self, stranger: bool, deadline: impl Fn() -> Instant) -> Option<Turn<'_>> {
        let mut turn = pin!(async {
            let stranger = if stranger { Some(self.behind_strangers().await?) } else { None };
            // INVARIANT: fewer strangers than there are turns ever come here, so nobody waits behind them.
            Some(Turn { _all: self.all.acquire().await.ok()?, _stranger: stranger })
        });
        loop {
            let until = deadline();
            match timeout_at(until, turn.as_mut()).await {
                Ok(turn) => return turn,
                Err(_) if deadline() > until => {}
                Err(_) => return None,
            }
        }
    }

    async fn behind_strangers(&self) -> Option<SemaphorePermit<'_>> {
        let _place = self.places.try_acquire().ok()?;
        self.strangers.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn strangers_leave_turns_for_those_who_were_good_a_moment_ago_and_wait_for_theirs() {
        let (turns, past) = (Turns::new(4), Instant::now());
        let later = move || past + Duration::from_secs(60);
        let mut strangers = Vec::new();
        for _ in 0..3 {
            strangers.push(turns.take(true, later).await.unwrap());
        }
        assert!(turns.take(true, || past).await.is_none(), "no turn in time");
        let known = turns.take(false, later).await.unwrap();
        assert!(turns.take(false, || past).await.is_none());
        let (next, ()) = tokio::join!(turns.take(true, later), async { drop(strangers.pop()) });
        assert!(next.is_some());
        drop(known);
    }

    #[tokio::test]
    async fn where_too_many_strangers_wait_the_next_is_told_so_at_once() {
        let (turns, past) = (Turns::new(1), Instant::now());
        let later = move || past + Duration::from_secs(60);
        let _taken = turns.take(true, later).await.unwrap();
        let waiting = futures_util::future::join_all((0..WAITING).map(|_| turns.take(true, later)));
        tokio::select! {
            biased;
            _ = waiting => panic!("there is no turn"),
            next = turns.take(true, later) => assert!(next.is_none()),
        }
    }
}
