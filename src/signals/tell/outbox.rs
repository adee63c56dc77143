//! What waits to be told to one receiver: a numbered queue in the store, so that it outlives this process and the receiver's
//! absence, and one replica at a time that empties it.
//!
//! A number is taken, then its token is written; whoever dies in between leaves a hole, which is passed over after a while.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::{Store, StoreError, StoreErrorKind, keys};

/// How long a replica that has said nothing more is believed to be at it.
pub(super) const TURN: Duration = Duration::from_secs(10);

/// One token to be: signed when it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// The last part of its event's URI, for counters and the audit.
    pub(super) event: String,
    /// Whom it is about, as in the audit record of the decision.
    pub(super) target: String,
    pub(super) claims: Value,
}

/// The queue of one receiver.
#[derive(Debug)]
pub(super) struct Outbox {
    store: Arc<dyn Store>,
    /// Tells its keys from those of other receivers; of the same address and audience, on every replica.
    name: String,
    /// How long something waits before it is given up.
    life: Duration,
    /// Who we are, among replicas.
    instance: String,
}

impl Outbox {
    pub(super) fn new(store: Arc<dyn Store>, url: &str, audience: &str, life: Duration) -> Self {
        let hash = digest(&SHA256, format!("{url}\n{audience}").as_bytes());
        let name = hex::encode(&hash.as_ref()[..8]);
        Self { store, name, life, instance: hex::encode(rand::random::<[u8; 8]>()) }
    }

    /// Numbers: the last that was done with, and the last that was given out.
    pub(super) async fn extent(&self) -> Result<(u64, u64), StoreError> {
        let done = self.value(&keys::signal_out_done(&self.name)).await?;
        let done = done.and_then(|value| String::from_utf8_lossy(&value).trim().parse().ok()).unwrap_or(0);
        let record = self.store.record(&keys::signal_out(&self.name), &["last"]).await?.unwrap_or_default();
        let last = record.iter().find(|(name, _)| name == "last").and_then(|(_, value)| value.parse().ok());
        Ok((done, last.unwrap_or(0).max(done)))
    }

    /// Appends one, durable when this returns.
    pub(super) async fn push(&self, waiting: &Waiting) -> Result<(), StoreError> {
        let malformed = |detail: &str| StoreError::new(StoreErrorKind::Malformed, detail);
        let value = serde_json::to_vec(waiting).map_err(|_| malformed("a token that is no JSON"))?;
        let numbers = self.store.add(&keys::signal_out(&self.name), &[("last", 1)], None).await?;
        let number = numbers.first().and_then(|number| u64::try_from(*number).ok());
        let number = number.ok_or_else(|| malformed("the queue's number"))?;
        self.store.write(&keys::signal_out_item(&self.name, number), &value, Some(self.life)).await
    }

    /// What has this number. `None`: a hole, or its life is over.
    pub(super) async fn get(&self, number: u64) -> Result<Option<Waiting>, StoreError> {
        let value = self.value(&keys::signal_out_item(&self.name, number)).await?;
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    /// Done with everything up to this number: it is not looked at again.
    pub(super) async fn done(&self, number: u64) -> Result<(), StoreError> {
        self.store.raise(&keys::signal_out_done(&self.name), &number.to_string(), None).await?;
        self.store.delete(&[keys::signal_out_item(&self.name, number)]).await.map(drop)
    }

    /// Whether it is now our turn to send.
    pub(super) async fn take_turn(&self) -> Result<bool, StoreError> {
        self.store.create(&keys::signal_turn(&self.name), self.instance.as_bytes(), Some(TURN)).await
    }

    /// Whether it still is; for as long again, if so.
    pub(super) async fn keep_turn(&self) -> Result<bool, StoreError> {
        let ours = self.instance.as_bytes();
        self.store.replace(&keys::signal_turn(&self.name), ours, ours, TURN).await
    }

    /// Where it is ours. Another's stays.
    pub(super) async fn leave_turn(&self) -> Result<(), StoreError> {
        self.store.exchange(&keys::signal_turn(&self.name), self.instance.as_bytes(), None).await.map(drop)
    }

    async fn value(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let entry = self.store.read(&[key.to_owned()]).await?.pop().transpose()?;
        Ok(entry.flatten().map(|held| held.value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{clock::Clock, domain::UnixTime, store::memory::Memory};

    fn waiting(text: &str) -> Waiting {
        Waiting { event: "session-revoked".into(), target: text.into(), claims: json!({"jti": text}) }
    }

    #[tokio::test]
    async fn whoever_comes_too_late_leaves_the_turn_of_another_alone() {
        let clock = Clock::manual(UnixTime::from_secs(1_790_000_000));
        let now = clock.clone();
        let store: Arc<dyn Store> = Arc::new(Memory::new(move || now.now()));
        let outbox = || Outbox::new(Arc::clone(&store), "u", "a", Duration::from_secs(60));
        let (late, next) = (outbox(), outbox());
        assert!(late.take_turn().await.unwrap());
        clock.advance(TURN * 2 / 3);
        assert!(late.keep_turn().await.unwrap());
        clock.advance(TURN * 2 / 3);
        assert!(!next.take_turn().await.unwrap(), "it was kept for as long again");
        clock.advance(TURN);
        assert!(next.take_turn().await.unwrap(), "it was over");
        late.leave_turn().await.unwrap();
        assert!(!late.keep_turn().await.unwrap() && !outbox().take_turn().await.unwrap(), "it is still the next one's");
        assert!(next.keep_turn().await.unwrap());
    }

    #[tokio::test]
    async fn what_is_pushed_comes_in_order_and_once_and_one_has_the_turn() {
        let store: Arc<dyn Store> = Arc::new(Memory::new(|| UnixTime::from_secs(1_790_000_000)));
        let outbox = |url| Outbox::new(Arc::clone(&store), url, "a", Duration::from_secs(60));
        let (ours, theirs, other) = (outbox("u"), outbox("u"), outbox("v"));
        ours.push(&waiting("one")).await.unwrap();
        theirs.push(&waiting("two")).await.unwrap();
        assert_eq!(ours.extent().await.unwrap(), (0, 2));
        assert_eq!(other.extent().await.unwrap(), (0, 0), "each receiver has its own");
        assert_eq!(theirs.get(1).await.unwrap(), Some(waiting("one")));
        theirs.done(1).await.unwrap();
        assert_eq!(ours.extent().await.unwrap(), (1, 2));
        assert_eq!(ours.get(2).await.unwrap(), Some(waiting("two")));
        ours.done(2).await.unwrap();
        theirs.done(1).await.unwrap();
        assert_eq!(ours.extent().await.unwrap(), (2, 2), "an older one never takes back a newer");

        assert!(ours.take_turn().await.unwrap() && !theirs.take_turn().await.unwrap());
        assert!(ours.keep_turn().await.unwrap() && !theirs.keep_turn().await.unwrap());
        ours.leave_turn().await.unwrap();
        assert!(!ours.keep_turn().await.unwrap(), "what is nobody's is not kept");
        assert!(theirs.take_turn().await.unwrap());
    }
}
