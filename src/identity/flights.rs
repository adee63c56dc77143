//! One verification per token at a time: whoever comes while it is under way waits for its result.
//!
//! The work belongs to nobody: a caller that goes away takes nothing with it, and a panic ends the flight, so that those who
//! wait are told.

use std::{collections::HashMap, sync::Arc};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::domain::Unavailable;

type Arrival<T> = watch::Receiver<Option<Result<T, Unavailable>>>;
type Waiting<T> = HashMap<Arc<str>, Arrival<T>, RandomState>;

/// Verifications under way, by token.
#[derive(Debug)]
pub(super) struct Flights<T>(Arc<Mutex<Waiting<T>>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
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
        let mut arrival = self.join(token, deadline, begin)?;
        match timeout_at(deadline, arrival.wait_for(Option::is_some)).await {
            Ok(Ok(value)) => value.clone().unwrap_or(Err(Unavailable::Internal)),
            Ok(Err(_)) => Err(Unavailable::Internal),
            Err(_) => Err(Unavailable::Timeout),
        }
    }

    fn join(
        &self,
        token: &str,
        deadline: Instant,
        begin: impl FnOnce(Flight<T>) -> bool,
    ) -> Result<Arrival<T>, Unavailable> {
        let (sender, arrival) = watch::channel(None);
        let token: Arc<str> = token.into();
        {
            let mut waiting = self.0.lock();
            if let Some(arrival) = waiting.get(&token) {
                return Ok(arrival.clone());
            }
            waiting.insert(token.clone(), arrival.clone());
        }
        // Ends when dropped, also where it never took off: so the lock must not be held here.
        let flight = Flight { landing: Landing { flights: self.0.clone(), token }, sender, deadline };
        if begin(flight) { Ok(arrival) } else { Err(Unavailable::Overloaded) }
    }
}

/// The duty to bring one result home. Dropped without one (a panic), those who wait are told so.
pub(super) struct Flight<T> {
    landing: Landing<T>,
    sender: watch::Sender<Option<Result<T, Unavailable>>>,
    deadline: Instant,
}

impl<T> Flight<T> {
    pub(super) const fn token(&self) -> &Arc<str> {
        &self.landing.token
    }

    /// Does `work`, unless nobody waits any more: in an overload, what is late already is not done.
    pub(super) fn work(self, work: impl FnOnce(&Arc<str>) -> T) {
        let late = Instant::now() >= self.deadline;
        let result = if late { Err(Unavailable::Timeout) } else { Ok(work(self.token())) };
        self.land(result);
    }

    pub(super) fn land(self, result: Result<T, Unavailable>) {
        drop(self.landing);
        self.sender.send_replace(Some(result));
    }
}

/// Ends the flight.
struct Landing<T> {
    flights: Arc<Mutex<Waiting<T>>>,
    token: Arc<str>,
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.token);
    }
}
