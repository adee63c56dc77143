//! The whole of a check without a listener, for fuzzers and tests: bytes of a CheckRequest in, bytes of a CheckResponse out.
//!
//! Put together by the same code as `serve`. Nothing here is used by the service.

use std::sync::Arc;

use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Auditor, Config, Error, Parts, Pipeline, Tracer};
use crate::{
    clock::Clock,
    domain::{Unavailable, UnixTime},
    extauthz::response,
    pipeline::Outcome,
};

/// A service that is asked by calling it. Its clock stands still until it is moved.
#[derive(Debug)]
pub struct Probe {
    runtime: Runtime,
    pipeline: Arc<Pipeline>,
    config: Config,
    _background: DropGuard,
}

impl Probe {
    /// # Errors
    ///
    /// As `serve`, of the same configuration.
    pub fn start(config: Config, now: UnixTime) -> Result<Self, Error> {
        // A second installation in one process changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = Clock::manual(now);
        let (rules, _) = config.load_rules().map_err(Error::Rules)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        let background = CancellationToken::new();
        let tracer = Arc::new(Tracer::start(&config.telemetry.traces, clock.clone())?);
        let auditor = Auditor::start(&config.audit, clock.clone())?;
        let parts = Parts::start(&config, rules.rules, clock, tracer, auditor, &background);
        let pipeline = runtime.block_on(parts)?.pipeline;
        Ok(Self { runtime, pipeline, config, _background: background.drop_guard() })
    }

    pub fn clock(&self) -> &Clock {
        &self.pipeline.clock
    }

    /// Whether there was a permit, and what Envoy would be told.
    pub fn check(&self, message: &[u8]) -> (bool, Vec<u8>) {
        let asked = Instant::now();
        let deadline = asked + self.config.check.deadline.get();
        let outcome = self.runtime.block_on(self.pipeline.check(message, None, asked, deadline));
        self.answer(outcome)
    }

    /// As [`Self::check`], with more checks under way than there may be.
    pub fn shed(&self, message: &[u8]) -> (bool, Vec<u8>) {
        self.answer(self.runtime.block_on(self.pipeline.shed(message)))
    }

    /// What is answered where no message can be had, or a check panicked.
    pub fn refuse(&self, why: Unavailable) -> (bool, Vec<u8>) {
        self.answer(self.pipeline.refuse(why))
    }

    fn answer(&self, outcome: Outcome) -> (bool, Vec<u8>) {
        let mut answer = Vec::new();
        let challenges = self.pipeline.authenticator.challenges();
        response::write(&outcome, &self.config.answer, challenges, &mut answer);
        let permitted = outcome.permit().is_some();
        self.pipeline.record(outcome);
        (permitted, answer)
    }
}
