//! Hands the events of one feed to any number of listeners, in order and without waiting for them.
//!
//! A listener that does not keep up is dropped rather than waited for or lied to: its receiver ends, and it starts over.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{FeedEvent, keys::FEED_PREFIXES};

/// Events a listener may be behind.
const BACKLOG: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Hub(Mutex<State>);

#[derive(Debug)]
struct State {
    /// What a new listener is told first: the connection as it is, or nothing while there is none.
    connected: Option<FeedEvent>,
    epoch: u64,
    listeners: Vec<mpsc::Sender<FeedEvent>>,
}

impl Hub {
    /// A feed that is not connected yet.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(State { connected: None, epoch: 0, listeners: Vec::new() }))
    }

    /// A feed within this process: connected from the start, and never silent.
    pub(super) fn in_process() -> Self {
        let hub = Self::new();
        hub.connect(None);
        hub
    }

    pub(super) fn listen(&self) -> mpsc::Receiver<FeedEvent> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let mut state = self.0.lock();
        if let Some(connected) = &state.connected {
            // A new channel has room for one event.
            let _ = sender.try_send(connected.clone());
        }
        state.listeners.push(sender);
        receiver
    }

    /// Listening begins, in a new epoch.
    pub(super) fn connect(&self, patience: Option<Duration>) {
        let mut state = self.0.lock();
        state.epoch += 1;
        let event = FeedEvent::Connected { epoch: state.epoch, patience };
        state.connected = Some(event.clone());
        state.tell(&event);
    }

    pub(super) fn lose(&self) {
        let mut state = self.0.lock();
        if state.connected.take().is_some() {
            state.tell(&FeedEvent::Lost);
        }
    }

    pub(super) fn tell(&self, event: &FeedEvent) {
        self.0.lock().tell(event);
    }

    /// Tells of those of `keys` that a feed is about.
    pub(super) fn changed(&self, mut keys: Vec<String>) {
        keys.retain(|key| FEED_PREFIXES.iter().any(|prefix| key.starts_with(prefix)));
        if !keys.is_empty() {
            self.tell(&FeedEvent::Changed(keys));
        }
    }
}

impl State {
    fn tell(&mut self, event: &FeedEvent) {
        self.listeners.retain(|listener| listener.try_send(event.clone()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_listener_learns_that_the_feed_is_connected() {
        let hub = Hub::new();
        let mut early = hub.listen();
        hub.connect(None);
        let mut late = hub.listen();
        hub.changed(vec!["cs:revoked:jti:a".into(), "cs:rate:b".into()]);
        hub.lose();
        for listener in [&mut early, &mut late] {
            assert_eq!(listener.try_recv(), Ok(FeedEvent::Connected { epoch: 1, patience: None }));
            assert_eq!(listener.try_recv(), Ok(FeedEvent::Changed(vec!["cs:revoked:jti:a".into()])));
            assert_eq!(listener.try_recv(), Ok(FeedEvent::Lost));
        }
        assert!(hub.listen().try_recv().is_err());
    }

    #[test]
    fn a_listener_that_falls_behind_finds_its_feed_ended() {
        let hub = Hub::in_process();
        let mut listener = hub.listen();
        for _ in 0..=BACKLOG {
            hub.tell(&FeedEvent::Flushed);
        }
        let mut heard = 0;
        while listener.try_recv().is_ok() {
            heard += 1;
        }
        assert_eq!(heard, BACKLOG);
        assert!(listener.is_closed());
    }
}
