//! The composition root: builds the parts in order, runs them, and stops them in reverse.
//!
//! The only place that names a store adapter. Reads top to bottom like a table of contents.

mod administration;
mod events;
mod fleet;
mod news;
mod ports;
pub mod probe;
mod process;
mod readiness;
mod sources;
mod status;
mod stores;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    administration::{admin_port, serve_admin},
    news::NewsDesk,
    ports::InstancePort,
    readiness::Readiness,
};

use crate::{
    admin,
    assertion::{self, Assertions},
    behavior::Behaviors,
    clock::Clock,
    config::{self, Config, reload, watch},
    device::{self, enroll::Enrollment},
    document::Diagnostic,
    domain::{RiskModel, metric::Source},
    enrollment, extauthz,
    identity::{self, Authenticator},
    location::Locator,
    notice::Notices,
    ops,
    pipeline::{self, Pipeline},
    policy::{Rules, SourceFile},
    quota::Quotas,
    revocation::Revocations,
    session::Sessions,
    signals::{Signals, Teller},
    store::Watch,
    telemetry::{
        audit::{self, Auditor},
        log,
        trace::{self, Tracer},
    },
    tls::{self, Files, Tls},
};

/// Why `serve` could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the rules cannot be used")]
    Rules(Vec<Diagnostic>),
    #[error(transparent)]
    Store(#[from] stores::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Authz(#[from] extauthz::Error),
    #[error(transparent)]
    Admin(#[from] admin::Error),
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen { what: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Audit(#[from] audit::Error),
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Trace(#[from] trace::Error),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Devices(#[from] device::Error),
    #[error(transparent)]
    Enrollment(#[from] device::enroll::AuthorityError),
    #[error("assertion: {0}")]
    Assertion(#[from] assertion::Error),
    #[error("admin: {0}")]
    Access(String),
    #[error("admin: no home folder to keep the token in: set `admin.state_dir`")]
    NoStateDir,
    #[error("admin: cannot make a token in {}: {source}: set `admin.state_dir` to a folder of ours", .folder.display())]
    Token { folder: PathBuf, source: io::Error },
    #[error("TLS (`listen.{port}_tls`): {problem}")]
    Tls { port: &'static str, problem: tls::Problem },
}

/// Longest time that background work may take to end after everything else has.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Runs Countersign until SIGTERM or SIGINT.
///
/// # Errors
///
/// One clear line for whatever cannot be opened, read or bound.
pub fn serve(config: Config) -> Result<(), Error> {
    // A second installation in one process (tests) changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Checks have runtimes of their own, one a core; this one is for everything else.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("background")
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    process::outlive_hangup(&runtime).map_err(Error::Runtime)?;
    let clock = Clock::system();
    log::init(&config.telemetry.log, clock.clone())?;
    process::allow_open_files();
    let opened = runtime.block_on(Opened::open(&config))?;
    let tracer = Arc::new(Tracer::start(&config.telemetry.traces, clock.clone())?);
    let auditor = Auditor::start(&config.audit, clock.clone())?;
    let result = runtime.block_on(run(config, opened, clock, Arc::clone(&tracer), Arc::clone(&auditor)));
    runtime.shutdown_timeout(LAST_WORDS);
    auditor.close();
    tracer.close(LAST_WORDS);
    result
}

/// What is refused most often, rules and ports, opened before the audit writes that there was a start.
struct Opened {
    rules: Rules,
    files: Vec<SourceFile>,
    authz: extauthz::Server,
    admin: admin::Port,
    http: ops::Listener,
    tls: Vec<Arc<Tls>>,
}

impl Opened {
    async fn open(config: &Config) -> Result<Self, Error> {
        let (loaded, files) = config.load_rules().map_err(Error::Rules)?;
        for warning in &loaded.warnings {
            tracing::warn!("rules: {warning}");
        }
        let authz_tls = tls("authz", config.listen.authz_tls.as_ref())?;
        let admin_tls = tls("admin", config.listen.admin_tls.as_ref())?;
        let place = place(config, authz_tls.clone());
        let authz = extauthz::Server::bind(place, config.check.clone(), config.answer.clone()).await?;
        let admin = admin_port(config, admin_tls.clone()).await?;
        let http = ops::Listener::bind(config.listen.http, config.ops.max_connections)
            .await
            .map_err(|source| Error::Listen { what: "health and metrics", address: config.listen.http, source })?;
        let tls = authz_tls.into_iter().chain(admin_tls).collect();
        Ok(Self { rules: loaded.rules, files, authz, admin, http, tls })
    }
}

async fn run(
    config: Config,
    opened: Opened,
    clock: Clock,
    tracer: Arc<Tracer>,
    auditor: Arc<Auditor>,
) -> Result<(), Error> {
    let stop = CancellationToken::new();
    let background = CancellationToken::new();
    let Opened { rules, files, authz, admin, http, tls } = opened;
    let parts = Parts::start(&config, rules, clock, tracer, auditor, &background).await?;
    let clock = parts.pipeline.clock.clone();
    let rules_since = Arc::new(AtomicU64::new(clock.now().as_millis()));
    let (in_force, since) = (Arc::clone(&parts.pipeline.rules), Arc::clone(&rules_since));
    let apply = move |rules| {
        in_force.store(Arc::new(rules));
        since.store(clock.now().as_millis(), Ordering::Relaxed);
    };
    let (reloads, _) = reload::watch(config.rules.clone(), files, config.rule_options(), apply, background.clone());
    let mut tasks = JoinSet::new();
    let readiness = Readiness::new(&parts.pipeline, &stop);
    let mut sources =
        sources::sources(&parts.pipeline, &parts.signals, parts.enrollment.as_ref(), &reloads, &readiness);
    sources::of_teller(&mut sources, parts.teller.as_ref(), &parts.pipeline);
    sources.metrics.extend([Arc::clone(&parts.watch) as Arc<dyn Source>, authz.metrics()]);
    sources.metrics.extend(parts.shadow(&config, &background));
    for tls in tls {
        sources.metrics.push(Arc::clone(&tls) as Arc<dyn Source>);
        let (paths, found) = (tls.paths(), Arc::clone(&tls));
        tokio::spawn(watch::whenever(paths, move || found.found(), move |_, _| tls.reload(), background.clone()));
    }
    let mut router = ops::router(sources, config.ops.clone()).merge(parts.signals.router());
    if let Some(teller) = &parts.teller {
        router = router.merge(teller.router());
    }
    if let Some(enrollment) = &parts.enrollment {
        let auditor = Arc::clone(&parts.pipeline.auditor);
        router = router.merge(enrollment::router(Arc::clone(enrollment), auditor, parts.pipeline.clock.clone()));
    }
    let instance = InstancePort {
        pipeline: Arc::clone(&parts.pipeline),
        readiness: readiness.clone(),
        reloads,
        rules_since,
        watch: Arc::clone(&parts.watch),
        store: stores::name(&config.store),
        started: parts.pipeline.clock.now(),
    };
    let administration = parts.administration(&config, instance, &background)?;
    tasks.spawn(ops::serve(http, router, background.clone()));
    tasks.spawn(serve_admin(admin, administration, background.clone()));

    tracing::info!(
        authz = %config.listen.authz,
        admin = %config.listen.admin,
        http = %config.listen.http,
        rules = %parts.pipeline.rules.load().version(),
        "countersign {} serves",
        env!("CARGO_PKG_VERSION"),
    );
    process::stop_on_signal(stop.clone());
    let result = authz.serve(Arc::clone(&parts.pipeline), readiness.had_once(), stop).await;

    if let Some(behaviors) = &parts.pipeline.behaviors {
        behaviors.close(LAST_WORDS).await;
    }
    background.cancel();
    let ended = async {
        tokio::join!(parts.pipeline.sessions.stopped(), parts.pipeline.notices.stopped());
        while tasks.join_next().await.is_some() {}
    };
    if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
        tracing::warn!("background work did not end in time");
    }
    result.map_err(Into::into)
}

/// What checks and administration are made of.
struct Parts {
    pipeline: Arc<Pipeline>,
    enrollment: Option<Arc<Enrollment>>,
    signals: Arc<Signals>,
    /// Who tells others what was decided here; `None` where nobody is to be told.
    teller: Option<Arc<Teller>>,
    watch: Arc<Watch>,
}

impl Parts {
    async fn start(
        config: &Config,
        rules: Rules,
        clock: Clock,
        tracer: Arc<Tracer>,
        auditor: Arc<Auditor>,
        background: &CancellationToken,
    ) -> Result<Self, Error> {
        let store = stores::open(&config.store, &clock, background).await?;
        let authenticator =
            Authenticator::start(config.identity.clone(), clock.clone(), Arc::clone(&store), background.clone())
                .await?;
        let revocations =
            Revocations::start(Arc::clone(&store), config.revocation_settings(), clock.clone(), background.clone());
        let notices = Notices::start(
            Arc::clone(&store),
            clock.clone(),
            config.revocation.max_staleness.get(),
            config.revocation.max_entries,
            background.clone(),
        );
        let sessions = Sessions::start(
            Arc::clone(&store),
            config.session.clone(),
            clock.clone(),
            config.revocation.max_staleness.get(),
            background.clone(),
        );
        let (devices, enrollment) = fleet::start(&config.devices, &store, &clock, background)?;
        let locator = Locator::open(config.location.clone());
        locator.watch(background.clone());
        let behaviors = (config.risk.model != RiskModel::None).then(|| {
            // A store that dies with the process holds nothing that memory does not.
            let kept = (stores::name(&config.store) != "memory").then(|| Arc::clone(&store));
            Behaviors::start(&config.behavior, kept, &clock, background)
        });
        let assertions = Assertions::new(config.assertion.clone(), Arc::clone(&store))?;
        if config.assertion.enabled {
            assertions.watch(clock.clone(), background.clone());
        }
        let pipeline = Arc::new(Pipeline {
            assertions,
            clock,
            authenticator,
            revocations,
            notices,
            sessions,
            devices,
            locator,
            behaviors,
            quotas: Quotas::new(Arc::clone(&store)),
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            auditor,
            tracer,
            counters: Arc::new(pipeline::Counters::default()),
            trusted_hops: config.client.trusted_hops,
        });
        let watch = Watch::start(Arc::clone(&store), Watch::EVERY, background.clone());
        let teller = events::teller(config, &pipeline, Arc::clone(&store), background)?;
        if teller.is_some() {
            let desk = NewsDesk::new(teller.clone(), &pipeline);
            pipeline.devices.tell(Arc::new(desk.clone()));
            tokio::spawn(desk.sessions(pipeline.sessions.ends()));
        }
        let signals = events::start(config, &pipeline, store, background);
        Ok(Self { pipeline, enrollment, signals, teller, watch })
    }

    /// Starts the shadow rules, where there are some.
    fn shadow(&self, config: &Config, stop: &CancellationToken) -> Option<Arc<dyn Source>> {
        if config.shadow_rules.is_empty() {
            return None;
        }
        let auditor = Arc::clone(&self.pipeline.auditor);
        let apply = move |rules| auditor.shadows().take_up(rules);
        let (paths, options) = (config.shadow_rules.clone(), config.rule_options());
        Some(reload::watch_shadow(paths, options, apply, stop.clone()))
    }
}

fn place(config: &Config, tls: Option<Arc<Tls>>) -> extauthz::Place {
    match &config.listen.authz {
        config::Address::Unix(path) => extauthz::Place::Unix(path.clone()),
        config::Address::Tcp(address) => extauthz::Place::Tcp(*address, tls),
    }
}

fn tls(port: &'static str, files: Option<&config::Tls>) -> Result<Option<Arc<Tls>>, Error> {
    let Some(config::Tls { certificate, key, client_ca }) = files.cloned() else { return Ok(None) };
    let open = Tls::open(port, Files { certificate, key, client_ca });
    open.map(Some).map_err(|problem| Error::Tls { port, problem })
}
