//! Sends spans, and tells where that fails: the OpenTelemetry crates keep it to themselves.
//!
//! Runs on the exporter's own thread: no check waits for it.

use std::{sync::Arc, time::Duration};

use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use parking_lot::Mutex;

use super::Counters;
use crate::{clock::Clock, domain::UnixTime};

/// Between two log lines about one outage.
const QUIET: Duration = Duration::from_secs(60);

/// An exporter whose failures are counted and told.
#[derive(Debug)]
pub(super) struct Telling<E> {
    inner: E,
    counters: Arc<Counters>,
    clock: Clock,
    /// When an outage was told of last; `None`: there is none.
    told: Mutex<Option<UnixTime>>,
}

impl<E> Telling<E> {
    pub(super) const fn new(inner: E, counters: Arc<Counters>, clock: Clock) -> Self {
        Self { inner, counters, clock, told: Mutex::new(None) }
    }

    fn sent(&self, spans: u64) {
        self.counters.sent.add(spans);
        if self.told.lock().take().is_some() {
            tracing::info!("traces are exported again");
        }
    }

    fn lost(&self, spans: u64, error: &OTelSdkError) {
        self.counters.lost.add(spans);
        let (now, mut told) = (self.clock.now(), self.told.lock());
        if told.is_none_or(|last| now.since(last) >= QUIET) {
            *told = Some(now);
            tracing::warn!(%error, lost = self.counters.lost.get(), "traces cannot be exported to `telemetry.traces.endpoint`");
        }
    }
}

impl<E: SpanExporter> SpanExporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.inner.export(batch).await;
        match &result {
            Ok(()) => self.sent(spans),
            Err(error) => self.lost(spans, error),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    /// Fails while it is told to.
    #[derive(Clone, Debug, Default)]
    struct Fake(Arc<AtomicBool>);

    impl SpanExporter for Fake {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            match self.0.load(Ordering::Acquire) {
                true => Err(OTelSdkError::InternalFailure("connection refused".to_owned())),
                false => Ok(()),
            }
        }
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_outage_is_told_once_a_minute_and_when_it_is_over() {
        let (log, clock) = (Log::default(), Clock::manual(UnixTime::from_secs(1000)));
        let out = log.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || out.clone()).finish();
        let _guard = tracing::subscriber::set_default(lines);
        let (fake, counters) = (Fake::default(), Arc::new(Counters::default()));
        let exporter = Telling::new(fake.clone(), Arc::clone(&counters), clock.clone());
        exporter.export(Vec::new()).await.unwrap();
        fake.0.store(true, Ordering::Release);
        for _ in 0..13 {
            exporter.export(Vec::new()).await.unwrap_err();
            clock.advance(Duration::from_secs(5));
        }
        fake.0.store(false, Ordering::Release);
        exporter.export(Vec::new()).await.unwrap();
        let told = String::from_utf8(log.0.lock().clone()).unwrap();
        let told: Vec<_> = told.lines().collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[..2].iter().all(|line| line.contains("WARN") && line.contains("connection refused")), "{told:?}");
        assert!(told[2].contains("exported again"), "{told:?}");
    }
}
