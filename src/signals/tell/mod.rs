//! The transmitter: what was decided here (a session ended, a device lost, a subject revoked) is told to receivers as CAEP events,
//! signed, pushed (RFC 8935), until each has said yes or no.
//!
//! Only what was decided *here* is told: never what others told us, so that two who tell one another never go round in circles.
//! Must never hold up a decision, and never lose what the store has acknowledged.

mod counters;
mod news;
mod outbox;
mod sender;
mod settings;

use std::sync::Arc;

use axum::{Json, Router, routing::get};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(super) use self::settings::problems;
use self::{
    counters::{Counters, Fate},
    news::Told,
    outbox::{Outbox, Waiting},
    sender::Sender,
};
pub use self::{
    news::{About, By, News, Standing},
    settings::ReceiverSettings,
};
use crate::{
    assertion::SharedKeys,
    clock::Clock,
    domain::metric::{Page, Source},
    identity::{Fetcher, KeySetSettings, check_address},
    store::{Store, StoreError, keys},
    telemetry::audit::{Auditor, fingerprint},
};

/// The header parameter `typ` of a security event token.
pub const TYPE: &str = "secevent+jwt";

/// What telling is made of.
#[derive(Debug)]
pub struct Means {
    pub store: Arc<dyn Store>,
    pub auditor: Arc<Auditor>,
    pub clock: Clock,
    /// RSA keys, for tokens of [`TYPE`].
    pub keys: SharedKeys,
}

/// Tells receivers.
#[derive(Debug)]
pub struct Teller {
    /// Our own name as a transmitter.
    issuer: String,
    /// Those of access tokens.
    issuers: Vec<String>,
    keys: Arc<SharedKeys>,
    store: Arc<dyn Store>,
    clock: Clock,
    receivers: Vec<Receiver>,
}

#[derive(Debug)]
struct Receiver {
    settings: ReceiverSettings,
    outbox: Arc<Outbox>,
    counters: Arc<Counters>,
    wake: Arc<Notify>,
}

impl Teller {
    /// Begins to send until cancelled. `None` where nobody is to be told. `issuers`: those of access tokens.
    pub fn start(
        settings: &super::Settings,
        key_sets: &KeySetSettings,
        issuers: Vec<String>,
        means: Means,
        cancel: &CancellationToken,
    ) -> Option<Arc<Self>> {
        let issuer = settings.issuer.clone().filter(|_| !settings.receivers.is_empty())?;
        let Means { store, auditor, clock, keys } = means;
        let keys = Arc::new(keys);
        let fetcher = Arc::new(Fetcher::new(key_sets.timeout.get(), key_sets.ca_file.clone()));
        let mut receivers = Vec::new();
        for known in &settings.receivers {
            let Ok(url) = check_address(&known.url) else { continue };
            let outbox = Outbox::new(Arc::clone(&store), &known.url, &known.audience, settings.max_age.get());
            let (outbox, counters, wake) = (Arc::new(outbox), Arc::<Counters>::default(), Arc::<Notify>::default());
            let sender = Sender {
                outbox: Arc::clone(&outbox),
                settings: known.clone(),
                url,
                keys: Arc::clone(&keys),
                fetcher: Arc::clone(&fetcher),
                clock: clock.clone(),
                auditor: Arc::clone(&auditor),
                counters: Arc::clone(&counters),
                wake: Arc::clone(&wake),
            };
            let cancel = cancel.clone();
            tokio::spawn(async move { cancel.run_until_cancelled(sender.run()).await });
            receivers.push(Receiver { settings: known.clone(), outbox, counters, wake });
        }
        let teller = Arc::new(Self { issuer, issuers, keys, store, clock, receivers });
        tokio::spawn(Arc::clone(&teller).look_after_keys(cancel.clone()));
        Some(teller)
    }

    async fn look_after_keys(self: Arc<Self>, cancel: CancellationToken) {
        let mut there = false;
        let told = |refreshed| {
            if refreshed && !std::mem::replace(&mut there, true) {
                self.receivers.iter().for_each(|receiver| receiver.wake.notify_one());
            }
        };
        self.keys.keep(&self.clock, &cancel, told).await;
    }

    /// Queues news for whoever is to hear of it; durable when this returns. What cannot be queued is counted and said in the
    /// log: the decision itself stands.
    pub async fn tell(&self, news: &News) {
        self.note(&news.about).await;
        let (events, issued, txn) = (news.events(&self.issuers), self.clock.now().as_secs(), identifier());
        for receiver in &self.receivers {
            for event in events.iter().filter(|event| receiver.wants(event)) {
                let claims = json!({
                    "iss": self.issuer, "aud": receiver.settings.audience, "jti": identifier(), "iat": issued, "txn": txn,
                    "sub_id": event.subject, "events": { event.kind.uri(): event.claims },
                });
                receiver
                    .queue(&Waiting { event: event.kind.as_str().to_owned(), target: target(&news.about), claims })
                    .await;
            }
            receiver.wake.notify_one();
        }
    }

    /// Counts news that nobody can be told, and says so in the log.
    pub fn lose(&self, news: &News) {
        for receiver in &self.receivers {
            for event in news.events(&self.issuers).iter().filter(|event| receiver.wants(event)) {
                receiver.counters.count(Fate::Lost);
                let (audience, event) = (&receiver.settings.audience, event.kind.as_str());
                tracing::error!(receiver = audience, event, on = target(&news.about), "not told");
            }
        }
    }

    /// Whether others hold against a device what we told of it.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn holds_against(&self, device: &str) -> Result<bool, StoreError> {
        let held = self.store.read(&[keys::signal_told(device)]).await?.pop();
        // Something unreadable is something.
        Ok(!matches!(held, Some(Ok(None)) | None))
    }

    /// Remembers what others are to hold against a device, so that it is taken back by whatever mends the device.
    async fn note(&self, about: &About) {
        let noted = match about.standing() {
            Some((device, true)) => self.store.delete(&[keys::signal_told(device)]).await.map(drop),
            Some((device, false)) => self.store.write(&keys::signal_told(device), b"1", None).await,
            None => return,
        };
        if let Err(error) = noted {
            tracing::warn!(%error, on = target(about), "what others are told of a device cannot be remembered");
        }
    }

    /// Our keys, to verify with.
    pub fn jwks(&self) -> Value {
        self.keys.jwks()
    }

    /// What a receiver may ask about us (SSF 1.0, section 7). Streams are configured here, not by receivers.
    pub fn router(&self) -> Router {
        let Ok(issuer) = check_address(&self.issuer) else { return Router::new() };
        let mut jwks = issuer.clone();
        jwks.set_path("/.well-known/jwks.json");
        let metadata = json!({
            "spec_version": "1_0", "issuer": self.issuer, "jwks_uri": jwks.as_str(), "default_subjects": "ALL",
            "delivery_methods_supported": [super::stream::PUSH],
        });
        let path = format!("/.well-known/ssf-configuration{}", issuer.path().trim_end_matches('/'));
        Router::new().route(&path, get(|| async move { Json(metadata) }))
    }
}

impl Receiver {
    fn wants(&self, event: &Told) -> bool {
        self.settings.events.contains(&event.kind)
    }

    async fn queue(&self, waiting: &Waiting) {
        let queued = match self.outbox.extent().await {
            Ok((done, last)) if last - done >= self.settings.max_waiting => {
                self.counters.count(Fate::Dropped);
                tracing::error!(receiver = self.settings.audience, event = waiting.event, "too much waits: not told");
                return;
            }
            Ok((done, last)) => {
                self.counters.waiting.set((last + 1 - done) as f64);
                self.outbox.push(waiting).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = queued {
            self.counters.count(Fate::Lost);
            tracing::error!(%error, receiver = self.settings.audience, event = waiting.event, "cannot be queued: not told");
        }
    }
}

/// Whom it is about, for the audit. A token's id never stands there.
fn target(about: &About) -> String {
    let cut = |id: &String| id.chars().take(200).collect::<String>();
    match about {
        About::Session(id, _) => format!("session:{}", cut(id)),
        About::Subject(id) => format!("sub:{}", cut(id)),
        About::Token(id) => format!("token:{}", fingerprint(id)),
        About::Device(id, _) | About::Compliance(id, _) => format!("device:{}", cut(id)),
    }
}

fn identifier() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

impl Source for Teller {
    fn collect(&self, page: &mut Page) {
        for receiver in &self.receivers {
            receiver.counters.collect(&receiver.settings.audience, page);
        }
    }
}
