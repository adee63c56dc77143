//! One verification per token at a time: whoever comes while it is under way waits for its result.
//!
//! The work belongs to nobody: a caller that goes away takes nothing with it, and a panic ends the flight, so that those who
//! wait are told.

use std::{collections::HashMap, sync::Arc};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::domain::Unavailable;

type Landed<T> = Result<T, Unavailable>;
/// Those who wait for each flight.
type Waiting<T> = HashMap<Arc<str>, Vec<oneshot::Sender<Landed<T>>>, RandomState>;

/// Verifications under way, by token.
#[derive(Debug)]
pub(super) struct Flights<T>(Arc<Mutex<Waiting<T>>>);

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

    fn join(
        &self,
        token: &str,
        deadline: Instant,
        begin: impl FnOnce(Flight<T>) -> bool,
    ) -> Result<oneshot::Receiver<Landed<T>>, Unavailable> {
        let (sender, arrival) = oneshot::channel();
        let token: Arc<str> = {
            let mut waiting = self.0.lock();
            if let Some(others) = waiting.get_mut(token) {
                others.push(sender);
                return Ok(arrival);
            }
            let token: Arc<str> = token.into();
            waiting.insert(token.clone(), vec![sender]);
            token
        };
        // Ends when dropped, also where it never took off: so the lock must not be held here.
        let flight = Flight { landing: Landing { flights: self.0.clone(), token, ended: false }, deadline };
        if begin(flight) { Ok(arrival) } else { Err(Unavailable::Overloaded) }
    }
}

/// The duty to bring one result home. Dropped without one (a panic), those who wait are told so.
pub(super) struct Flight<T> {
    landing: Landing<T>,
    deadline: Instant,
}

impl<T: Clone> Flight<T> {
    pub(super) const fn token(&self) -> &Arc<str> {
        &self.landing.token
    }

    /// Does `work`, unless nobody waits any more: in an overload, what is late already is not done.
    pub(super) fn work(self, work: impl FnOnce(&Arc<str>) -> T) {
        let late = Instant::now() >= self.deadline;
        let result = if late { Err(Unavailable::Timeout) } else { Ok(work(self.token())) };
        self.land(result);
    }

    pub(super) fn land(mut self, result: Result<T, Unavailable>) {
        let waiting = self.landing.end();
        let results = std::iter::repeat_n(result, waiting.len());
        for (waiting, result) in waiting.into_iter().zip(results) {
            // Who does not wait any more went away, or was too late.
            let _ = waiting.send(result);
        }
    }
}

/// Ends the flight, once.
struct Landing<T> {
    flights: Arc<Mutex<Waiting<T>>>,
    token: Arc<str>,
    ended: bool,
}

impl<T> Landing<T> {
    /// Hands over those who wait: told nothing, they know that nobody will. Who comes now begins another flight, which is
    /// none of ours.
    fn end(&mut self) -> Vec<oneshot::Sender<Landed<T>>> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        self.flights.lock().remove(&self.token).unwrap_or_default()
    }
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        self.end();
    }
}
