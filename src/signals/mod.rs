//! Security events from others: OpenID Shared Signals (SSF) with CAEP and RISC events, and OpenID Connect back-channel logout.
//!
//! An identity provider or a device manager tells, signed; what it tells ends sessions, disables accounts, writes device
//! records, raises risk or demands a newer authentication, on every replica, before it is told that it was heard. A
//! transmitter that is not configured is told nothing but that; readiness waits for none of them.

mod counters;
mod effect;
mod event;
mod http;
mod logout;
mod poll;
mod receiver;
mod set;
mod settings;
mod stream;
mod subject;
mod tell;

use std::sync::Arc;

use axum::Router;
use tokio_util::sync::CancellationToken;

use self::{
    counters::Counters,
    logout::Provider,
    poll::Poller,
    receiver::{Receiver, Transmitter, Verified},
    stream::Stream,
};
pub use self::{
    event::{EventType, Reaction},
    receiver::Parts,
    settings::{Format, LogoutSettings, Reactions, Settings, SubjectSettings, TransmitterSettings},
    tell::{About, By, Means, News, ReceiverSettings, Standing, TYPE, Teller},
};
use crate::{
    domain::metric::{Page, Source},
    identity::{self, Fetcher, KeySetSettings, Signer, SignerSettings},
};

/// The receiver of security events, and all that runs for it.
#[derive(Debug)]
pub struct Signals {
    receiver: Arc<Receiver>,
}

impl Signals {
    /// Begins to keep the keys of transmitters until cancelled. Waits for nobody. `issuers`: those of access tokens. `counters`:
    /// where fetches of keys are counted.
    pub fn start(
        settings: Settings,
        key_sets: &KeySetSettings,
        issuers: Vec<String>,
        parts: Parts,
        counters: &Arc<identity::Counters>,
        cancel: &CancellationToken,
    ) -> Arc<Self> {
        let fetcher = Arc::new(Fetcher::new(key_sets.timeout.get(), key_sets.ca_file.clone()));
        let signer = |settings: SignerSettings| {
            Signer::start(&settings, key_sets, &fetcher, counters, parts.clock.clone(), cancel.clone())
        };
        let transmitters = settings.transmitters.iter().map(|known| Transmitter {
            signer: signer(SignerSettings {
                issuer: known.issuer.clone(),
                jwks: known.jwks.clone(),
                algorithms: known.algorithms.clone(),
                shared_signals: true,
            }),
            settings: known.clone(),
            asking: Arc::default(),
            verified: Verified::default(),
            critical: std::sync::OnceLock::new(),
        });
        let transmitters = transmitters.collect();
        let providers = settings.logout.iter().map(|known| Provider {
            signer: signer(SignerSettings {
                issuer: known.issuer.clone(),
                jwks: known.jwks.clone(),
                algorithms: known.algorithms.clone(),
                shared_signals: false,
            }),
            settings: known.clone(),
        });
        let providers = providers.collect();
        let receiver =
            Arc::new(Receiver { parts, settings, transmitters, providers, issuers, counters: Counters::default() });
        for (index, known) in receiver.transmitters.iter().enumerate() {
            let (receiver, fetcher, cancel) = (Arc::clone(&receiver), Arc::clone(&fetcher), cancel.clone());
            if known.settings.stream.is_some() {
                let stream = Stream { receiver, fetcher, index };
                tokio::spawn(async move { cancel.run_until_cancelled(stream.run()).await });
            } else if let Some(poller) = poller(known, receiver, fetcher) {
                tokio::spawn(async move { cancel.run_until_cancelled(poller.run()).await });
            }
        }
        Arc::new(Self { receiver })
    }

    /// The paths that transmitters and providers post to; none where none is configured.
    pub fn router(&self) -> Router {
        http::router(&self.receiver)
    }
}

/// Who asks a transmitter at the address that the configuration names.
fn poller(known: &Transmitter, receiver: Arc<Receiver>, fetcher: Arc<Fetcher>) -> Option<Poller> {
    let settings = known.settings.poll.clone()?;
    let url = identity::check_address(&settings.url).ok()?;
    let (issuer, asking) = (known.settings.issuer.clone(), Arc::clone(&known.asking));
    Some(Poller { receiver, fetcher, issuer, url, settings, asking, of_stream: false })
}

impl Source for Signals {
    fn collect(&self, page: &mut Page) {
        self.receiver.counters.collect(page);
        let now = self.receiver.parts.clock.now();
        let help = "Whether a transmitter's keys are at hand and may be relied on";
        for known in &self.receiver.transmitters {
            let ready = f64::from(u8::from(known.signer.is_ready(now)));
            page.gauge("countersign_signals_keys_ready", help, &[("transmitter", known.signer.issuer())], ready);
        }
        for known in &self.receiver.transmitters {
            about(known, page);
        }
    }
}

/// Of one transmitter: how asking goes, and how its stream was last verified. The label is an issuer of the configuration.
fn about(known: &Transmitter, page: &mut Page) {
    let name = known.signer.issuer();
    let Transmitter { settings, asking, verified, .. } = known;
    if settings.poll.is_some() || settings.stream.is_some() {
        const POLLS: &str = "Questions to a transmitter (RFC 8936)";
        let polls = "countersign_signals_polls";
        page.counter(polls, POLLS, &[("transmitter", name), ("outcome", "answered")], &asking.answered);
        page.counter(polls, POLLS, &[("transmitter", name), ("outcome", "failed")], &asking.failed);
        let help = "Single events of a transmitter that are over 1 MiB, each time one was met";
        page.counter("countersign_signals_polls_oversized", help, &[("transmitter", name)], &asking.oversized);
        let help = "When a transmitter last answered, in Unix seconds";
        page.gauge("countersign_signals_poll_last_seconds", help, &[("transmitter", name)], asking.last.get());
    }
    if settings.stream.is_some() {
        let labels = [("transmitter", name)];
        let help = "When a stream's verification event last came to this replica, in Unix seconds";
        page.gauge("countersign_signals_verified_seconds", help, &labels, verified.at.get());
        let help = "From asking for a verification event to its coming, in seconds";
        page.gauge("countersign_signals_verification_lag_seconds", help, &labels, verified.lag.get());
        let help = "Whether the transmitter has said that its stream is paused or disabled";
        page.gauge("countersign_signals_stream_stopped", help, &labels, verified.stopped.get());
    }
}
