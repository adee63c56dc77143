//! OpenTelemetry spans, joined to Envoy's `traceparent`. A span costs about 2 µs, so whether there is one is decided first:
//! a check that is not sampled gets `None` and pays a few nanoseconds.
//!
//! Spans carry names and outcomes, never a subject, a path or a header.

mod export;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
        Tracer as _, TracerProvider,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig, tonic_types::transport};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use self::export::Telling;
use super::TraceSettings;
use crate::{
    clock::Clock,
    domain::{
        DecisionId,
        metric::{Counter, Page, Source},
    },
};

/// Why traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("traces: cannot read the certificates `{path}`")]
    Ca { path: PathBuf, source: io::Error },
    #[error("traces: cannot start the exporter's runtime")]
    Runtime(#[source] io::Error),
    #[error("traces: cannot set up the exporter")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// Begins spans. Cheap where traces are off.
#[derive(Debug)]
pub struct Tracer {
    exporting: Option<Exporting>,
    clock: Clock,
    follow_parent: bool,
    /// Of 2^32: roots below it are sampled.
    threshold: u64,
    max_per_second: u64,
    /// The second in the upper half, how many were sampled in it in the lower.
    window: AtomicU64,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
pub struct Counters {
    pub sampled: Counter,
    /// Would have been sampled, and `max_per_second` was reached.
    pub limited: Counter,
    /// Spans that the collector took.
    pub sent: Counter,
    /// Spans of exports that failed.
    pub lost: Counter,
}

struct Exporting {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// The exporter's connection lives here: dropped last.
    _runtime: tokio::runtime::Runtime,
}

impl fmt::Debug for Exporting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporting")
    }
}

/// A W3C `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace_id: u128,
    pub parent_id: u64,
    pub sampled: bool,
}

impl TraceParent {
    /// `None` where the text is none: then a trace of our own begins, as the recommendation asks.
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.trim().split_at_checked(2)?;
        let known = match hexadecimal(version)? {
            0 => rest.len() == 53,
            0xff => false,
            _ => rest.len() == 53 || rest.as_bytes().get(53) == Some(&b'-'),
        };
        let mut parts = rest.strip_prefix('-')?.split('-');
        let (trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?);
        if !known || trace_id.len() != 32 || parent_id.len() != 16 || flags.len() != 2 {
            return None;
        }
        let (trace_id, parent_id) = (hexadecimal(trace_id)?, u64::try_from(hexadecimal(parent_id)?).ok()?);
        let sampled = hexadecimal(flags)? & 1 == 1;
        (trace_id != 0 && parent_id != 0).then_some(Self { trace_id, parent_id, sampled })
    }
}

/// Lower case only, as the recommendation has it.
fn hexadecimal(text: &str) -> Option<u128> {
    let lower = text.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
    lower.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl Tracer {
    /// A tracer that never samples.
    pub fn off(clock: Clock) -> Self {
        Self::new(None, &TraceSettings::default(), clock, Arc::default())
    }

    /// Sets up the exporter, if there is an endpoint. Does not wait for a collector: one that is away loses spans, nothing else,
    /// and is told of in the log.
    ///
    /// # Errors
    ///
    /// Where the certificates cannot be read or the endpoint is none.
    pub fn start(settings: &TraceSettings, clock: Clock) -> Result<Self, Error> {
        let counters = Arc::<Counters>::default();
        let start = |endpoint| Exporting::start(settings, endpoint, &counters, &clock);
        let exporting = settings.endpoint.as_deref().map(start).transpose()?;
        Ok(Self::new(exporting, settings, clock, counters))
    }

    fn new(exporting: Option<Exporting>, settings: &TraceSettings, clock: Clock, counters: Arc<Counters>) -> Self {
        Self {
            exporting,
            clock,
            follow_parent: settings.follow_parent,
            threshold: (settings.ratio.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u64,
            max_per_second: u64::from(settings.max_per_second),
            window: AtomicU64::new(0),
            counters,
        }
    }

    /// Whether spans go anywhere.
    pub const fn is_on(&self) -> bool {
        self.exporting.is_some()
    }

    /// The span of one check, if it is sampled. `decision` also is the dice: its low bits are random.
    pub fn begin(&self, parent: Option<TraceParent>, decision: DecisionId) -> Option<Span> {
        let exporting = self.exporting.as_ref()?;
        let wanted = match parent {
            Some(parent) if self.follow_parent => parent.sampled,
            _ => u64::from(decision.random() as u32) < self.threshold,
        };
        if !wanted || !self.within_limit() {
            return None;
        }
        self.counters.sampled.increment();
        let context = parent.map_or_else(Context::new, remote_context);
        let builder = exporting
            .tracer
            .span_builder("check")
            .with_kind(SpanKind::Server)
            .with_attributes([KeyValue::new("countersign.decision_id", decision.to_string())]);
        let inner = builder.start_with_context(&exporting.tracer, &context);
        let context = Context::new().with_remote_span_context(inner.span_context().clone());
        Some(Span { inner, context, tracer: exporting.tracer.clone() })
    }

    fn within_limit(&self) -> bool {
        let second = self.clock.now().as_secs() & 0xffff_ffff;
        let updated = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
            if window >> 32 != second {
                return Some((second << 32) | 1);
            }
            (window & 0xffff_ffff < self.max_per_second).then_some(window + 1)
        });
        if updated.is_err() {
            self.counters.limited.increment();
        }
        updated.is_ok()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sends what waits and ends. Blocks up to the time limit: from a plain thread or `spawn_blocking` only, since the
    /// exporter needs its own runtime to move on meanwhile.
    pub fn close(&self, limit: Duration) {
        if let Some(exporting) = &self.exporting
            && let Err(error) = exporting.provider.shutdown_with_timeout(limit)
        {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

impl Exporting {
    fn start(settings: &TraceSettings, endpoint: &str, counters: &Arc<Counters>, clock: &Clock) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        // The exporter looks for a runtime when it is built, and keeps that one.
        let entered = runtime.enter();
        let mut exporter =
            SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(settings.timeout.get());
        if let Some(path) = &settings.ca {
            let pem = read_ca(path).map_err(|source| Error::Ca { path: path.clone(), source })?;
            let tls = transport::ClientTlsConfig::new().ca_certificate(transport::Certificate::from_pem(pem));
            exporter = exporter.with_tls_config(tls);
        }
        let exporter = exporter.build().map_err(Error::Exporter)?;
        let exporter = Telling::new(exporter, Arc::clone(counters), clock.clone());
        let resource = Resource::builder_empty()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            // Sampling was decided before; see `Tracer::begin`.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .build();
        drop(entered);
        Ok(Self { tracer: provider.tracer("countersign"), provider, _runtime: runtime })
    }
}

/// The PEM certificates that a collector's may come from.
///
/// # Errors
///
/// It cannot be read, or holds none.
pub fn read_ca(path: &Path) -> io::Result<Vec<u8>> {
    let pem = fs::read(path)?;
    match CertificateDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no certificate")),
    }
}

fn remote_context(parent: TraceParent) -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(parent.trace_id),
        SpanId::from(parent.parent_id),
        if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() },
        true,
        TraceState::default(),
    ))
}

/// A check, or a stage of one, as it is traced. Ends when it is dropped.
pub struct Span {
    inner: opentelemetry_sdk::trace::Span,
    context: Context,
    tracer: SdkTracer,
}

impl Span {
    /// A stage within this span.
    pub fn child(&self, stage: &'static str) -> Self {
        let inner = self.tracer.span_builder(stage).start_with_context(&self.tracer, &self.context);
        let context = Context::new().with_remote_span_context(inner.span_context().clone());
        Self { inner, context, tracer: self.tracer.clone() }
    }

    /// Notes an outcome: a verdict, a reason code, a state. Never what a caller sent.
    pub fn note(&mut self, name: &'static str, value: &'static str) {
        self.inner.set_attribute(KeyValue::new(name, value));
    }

    /// Something went wrong for us (a refusal is not an error).
    pub fn fail(&mut self, what: &'static str) {
        self.inner.set_status(Status::error(what));
    }

    pub fn trace_id(&self) -> u128 {
        u128::from_be_bytes(self.inner.span_context().trace_id().to_bytes())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({:032x})", self.trace_id())
    }
}

impl Source for Tracer {
    fn collect(&self, page: &mut Page) {
        page.counter("countersign_traces_sampled", "Checks that were traced", &[], &self.counters.sampled);
        page.counter(
            "countersign_traces_limited",
            "Checks not traced: too many each second",
            &[],
            &self.counters.limited,
        );
        let spans = "Spans by how their export ended";
        page.counter("countersign_traces_spans", spans, &[("outcome", "sent")], &self.counters.sent);
        page.counter("countersign_traces_spans", spans, &[("outcome", "lost")], &self.counters.lost);
    }
}
