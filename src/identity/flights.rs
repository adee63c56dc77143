//! One verification per token at a time: whoever comes while it is under way waits for its result.
//!
//! The work belongs to nobody: a caller that goes away takes nothing with it, and a panic ends the flight, so that those who
//! wait are told.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    thread,
};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::domain::Unavailable;

type Landed<T> = Result<T, Unavailable>;
type UnderWay<T> = HashMap<Arc<str>, Waiting<T>, RandomState>;

/// Those who wait for a flight.
#[derive(Debug)]
struct Waiting<T> {
    senders: Vec<oneshot::Sender<Landed<T>>>,
    /// The latest of theirs.
    deadline: Instant,
}

/// Verifications under way, by token.
#[derive(Debug)]
pub(super) struct Flights<T>(Arc<Mutex<UnderWay<T>>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + 'static> Flights<T> {
    /// Joins the flight of `token`, or begins one by handing a [`Flight`] to `begin`, which says whether it took off.
    ///
    /// # Errors
    ///
    /// It did not take off, the deadline came first, or the work panicked.
    pub(super) async fn run(
        &self,
        token: &str,
        deadline: Instant,
        begin: impl FnOnce(Flight<T>) -> bool,
    ) -> Result<T, Unavailable> {
        let arrival = self.join(token, deadline, begin)?;
        match timeout_at(deadline, arrival).await {
            Ok(Ok(landed)) => landed,
            Ok(Err(_)) => Err(Unavailable::Internal),
            Err(_) => Err(Unavailable::Timeout),
        }
    }

    /// Begins a flight of `token` that nobody waits for yet, unless one is under way.
    pub(super) fn ahead(&self, token: &str, deadline: Instant, begin: impl FnOnce(Flight<T>) -> bool) {
        let token: Arc<str> = token.into();
        {
            let mut under_way = self.0.lock();
            let Entry::Vacant(place) = under_way.entry(token.clone()) else { return };
            place.insert(Waiting { senders: Vec::new(), deadline });
        }
        begin(self.flight(token));
    }

    fn join(
        &self,
        token: &str,
        deadline: Instant,
        begin: impl FnOnce(Flight<T>) -> bool,
    ) -> Result<oneshot::Receiver<Landed<T>>, Unavailable> {
        let (sender, arrival) = oneshot::channel();
        let token: Arc<str> = {
            let mut under_way = self.0.lock();
            if let Some(waiting) = under_way.get_mut(token) {
                waiting.senders.push(sender);
                waiting.deadline = waiting.deadline.max(deadline);
                return Ok(arrival);
            }
            let token: Arc<str> = token.into();
            under_way.insert(token.clone(), Waiting { senders: vec![sender], deadline });
            token
        };
        if begin(self.flight(token)) { Ok(arrival) } else { Err(Unavailable::Overloaded) }
    }

    /// Ends when dropped, also where it never took off: so the lock must not be held around it.
    fn flight(&self, token: Arc<str>) -> Flight<T> {
        Flight { landing: Landing { flights: self.0.clone(), token, ended: false } }
    }
}

/// The duty to bring one result home. Dropped without one, those who wait are told why: it never took off, or it panicked.
pub(super) struct Flight<T: Clone> {
    landing: Landing<T>,
}

impl<T: Clone> Flight<T> {
    pub(super) const fn token(&self) -> &Arc<str> {
        &self.landing.token
    }

    /// Up to when somebody waits; whoever joins may move it.
    pub(super) fn deadline(&self) -> Instant {
        let under_way = self.landing.flights.lock();
        under_way.get(&self.landing.token).map_or_else(Instant::now, |waiting| waiting.deadline)
    }

    /// Does `work`, unless nobody waits any more: in an overload, what is late already is not done.
    pub(super) fn work(self, work: impl FnOnce(&Arc<str>) -> T) {
        let late = Instant::now() >= self.deadline();
        let result = if late { Err(Unavailable::Timeout) } else { Ok(work(self.token())) };
        self.land(result);
    }

    pub(super) fn land(mut self, result: Result<T, Unavailable>) {
        self.landing.land(result);
    }
}

/// Ends the flight, once.
struct Landing<T: Clone> {
    flights: Arc<Mutex<UnderWay<T>>>,
    token: Arc<str>,
    ended: bool,
}

impl<T: Clone> Landing<T> {
    /// Who comes now begins another flight, which is none of ours.
    fn land(&mut self, result: Landed<T>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let waiting = self.flights.lock().remove(&self.token).map(|waiting| waiting.senders).unwrap_or_default();
        let results = std::iter::repeat_n(result, waiting.len());
        for (waiting, result) in waiting.into_iter().zip(results) {
            // Who does not wait any more went away, or was too late.
            let _ = waiting.send(result);
        }
    }
}

impl<T: Clone> Drop for Landing<T> {
    fn drop(&mut self) {
        let why = if thread::panicking() { Unavailable::Internal } else { Unavailable::Overloaded };
        self.land(Err(why));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_work_is_done_while_any_of_those_who_wait_has_time_left() {
        let flights = Flights::<u8>::default();
        let (past, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        let mut begun = None;
        let first = flights.join("t", past, |flight| begun.replace(flight).is_none()).unwrap();
        let second = flights.join("t", later, |_| false).unwrap();
        begun.take().unwrap().work(|_| 7);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(7), Ok(7)));
        let alone = flights.join("t", past, |flight| begun.replace(flight).is_none()).unwrap();
        begun.take().unwrap().work(|_| 7);
        assert_eq!(alone.await.unwrap(), Err(Unavailable::Timeout));
    }

    #[tokio::test]
    async fn c10_whoever_began_a_flight_and_goes_away_takes_nothing_with_it() {
        let flights = Arc::new(Flights::<u8>::default());
        let later = Instant::now() + Duration::from_secs(60);
        let (taken_off, under_way) = oneshot::channel();
        let of = Arc::clone(&flights);
        let leader = tokio::spawn(async move { of.run("t", later, |flight| taken_off.send(flight).is_ok()).await });
        let flight = under_way.await.unwrap();
        let of = Arc::clone(&flights);
        let follower = tokio::spawn(async move { of.run("t", later, |_| panic!("one is under way")).await });
        while flights.0.lock()["t"].senders.len() < 2 {
            tokio::task::yield_now().await;
        }
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        flight.land(Ok(7));
        assert_eq!(follower.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn who_joined_a_flight_that_never_took_off_is_told_of_the_overload_too() {
        let flights = Flights::<u8>::default();
        let later = Instant::now() + Duration::from_secs(60);
        let mut joined = None;
        let first = flights.join("t", later, |flight| {
            joined = flights.join("t", later, |_| false).ok();
            drop(flight);
            false
        });
        assert_eq!(first.err(), Some(Unavailable::Overloaded));
        assert_eq!(joined.unwrap().await.unwrap(), Err(Unavailable::Overloaded));
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_failure() {
        let flights = Flights::<u8>::default();
        let mut begun = None;
        let later = Instant::now() + Duration::from_secs(60);
        let waiting = flights.join("t", later, |flight| begun.replace(flight).is_none()).unwrap();
        let flight = begun.take().unwrap();
        tokio::spawn(async move { flight.work(|_| panic!("on purpose")) }).await.unwrap_err();
        assert_eq!(waiting.await.unwrap(), Err(Unavailable::Internal));
    }

    #[tokio::test]
    async fn what_is_begun_ahead_is_joined_by_those_who_come() {
        let flights = Flights::<u8>::default();
        let later = Instant::now() + Duration::from_secs(60);
        let mut begun = None;
        flights.ahead("t", later, |flight| begun.replace(flight).is_none());
        flights.ahead("t", later, |_| panic!("one is under way"));
        let joined = flights.join("t", later, |_| false).unwrap();
        begun.take().unwrap().land(Ok(7));
        assert_eq!(joined.await.unwrap(), Ok(7));
    }
}
