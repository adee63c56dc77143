//! The whole of it: Envoy, Countersign, an issuer's keys and an upstream, started for one test and ended with it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    countersign::{self, Countersign},
    envoy::{self, Envoy},
    http::Request,
    ports,
    process::Process,
    tls, tokens,
};

/// Rules that most tests are content with.
pub const RULES: &str = include_str!("rules.yaml");

/// A stack in the making.
#[derive(Debug)]
pub struct Builder {
    folder: TempDir,
    versions: Vec<&'static str>,
    extensions: Vec<(String, Value)>,
    authority: Option<String>,
    door: envoy::Door,
    traces: Option<SocketAddr>,
    appends: bool,
    istio: bool,
    pub countersign: countersign::Setup,
}

impl Builder {
    pub fn new() -> Self {
        Self::with_rules(RULES)
    }

    pub fn with_rules(rules: &str) -> Self {
        let folder = TempDir::with_prefix("countersign-e2e-").expect("a temporary folder");
        let countersign = countersign::Setup::new(folder.path(), rules);
        Self {
            folder,
            versions: vec![envoy::NEW],
            extensions: Vec::new(),
            authority: None,
            door: envoy::Door::Plain,
            appends: false,
            istio: false,
            traces: None,
            countersign,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Both Envoys, the newest first.
    pub fn both_envoys(mut self) -> Self {
        self.versions = vec![envoy::NEW, envoy::OLD];
        self
    }

    /// The oldest Envoy alone.
    pub fn oldest_envoy(mut self) -> Self {
        self.versions = vec![envoy::OLD];
        self
    }

    /// None: a test starts its own.
    pub fn no_envoy(mut self) -> Self {
        self.versions.clear();
        self
    }

    /// Gives routes under `prefix` these `context_extensions`.
    pub fn extensions(mut self, prefix: &str, extensions: Value) -> Self {
        self.extensions.push((prefix.to_owned(), extensions));
        self
    }

    /// Envoy traces every request and tells this collector.
    pub fn traced(mut self, collector: SocketAddr) -> Self {
        self.traces = Some(collector);
        self
    }

    /// The TLS listener of Envoy keeps and adds to what a proxy in front says of client certificates.
    pub fn appends(mut self) -> Self {
        self.appends = true;
        self
    }

    /// Envoys tell of client certificates as gateways of Istio do.
    pub fn istio(mut self) -> Self {
        self.istio = true;
        self
    }

    /// The `:authority` with which Envoy calls Countersign.
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// Countersign speaks TLS on 9191 and wants a certificate; Envoy shows one, or none.
    pub fn mutual_tls(mut self, shown: bool) -> Self {
        tls::write_server(self.folder.path());
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let (certificate, key, client_ca) = (file("tls-server.pem"), file("tls-server.key"), file("tls-ca.pem"));
        self.door = envoy::Door::Tls { shown };
        self.set("/listen/authz_tls", json!({"certificate": certificate, "key": key, "client_ca": client_ca}))
    }

    /// Countersign listens on a Unix socket in the folder of the test.
    pub fn unix_socket(mut self) -> Self {
        let path = self.folder.path().join("authz.sock");
        self.door = envoy::Door::Unix(path.clone());
        self.set("/listen/authz", format!("unix:{}", path.display()))
    }

    /// Changes the configuration, by a JSON pointer.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut at = &mut self.countersign.config;
        for key in pointer.trim_start_matches('/').split('/') {
            at = match key.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[key],
            };
        }
        *at = value.into();
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.countersign.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts everything and waits until it is ready.
    pub fn start(self) -> Stack {
        let stack = self.start_unready();
        stack.countersign.wait_ready();
        stack
    }

    /// Starts everything; Countersign may not be ready yet.
    pub fn start_unready(self) -> Stack {
        let folder = self.folder.path().to_owned();
        let upstream = ports::local(ports::free());
        let mut echo = Process::start(
            &folder,
            "echo",
            countersign::binary().args(["echo", "--listen", &upstream.to_string(), "--name", "upstream"]),
        );
        let countersign = Countersign::start(&folder, &self.countersign);
        let envoys = self.versions.iter().map(|version| {
            let setup = envoy::Setup {
                version,
                authz: countersign.authz,
                upstream,
                extensions: self.extensions.clone(),
                authority: self.authority.clone(),
                door: self.door.clone(),
                traces: self.traces,
                appends: self.appends,
                istio: self.istio,
            };
            Envoy::start(&folder, &setup)
        });
        let envoys = envoys.collect();
        echo.wait_for_output("listening on");
        Stack { envoys, countersign, upstream, _echo: echo, folder, _guard: self.folder }
    }
}

/// A running stack. When it ends, no token that was minted, and no secret, may stand in anything Countersign wrote.
#[derive(Debug)]
pub struct Stack {
    pub envoys: Vec<Envoy>,
    pub countersign: Countersign,
    /// Answers with what it was sent.
    pub upstream: SocketAddr,
    _echo: Process,
    pub folder: PathBuf,
    _guard: TempDir,
}

impl Stack {
    pub fn start() -> Self {
        Builder::new().start()
    }

    /// A request through the newest Envoy.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.envoys[0].http, method, target)
    }

    /// As [`Stack::request`], over TLS; `uri` stands in the client's certificate, where it shows one.
    pub fn tls(&self, method: &str, target: &str, uri: Option<&str>) -> Request {
        Request::new(self.envoys[0].tls, method, target).tls(uri)
    }

    /// As [`Stack::tls`], with this very certificate.
    pub fn tls_as(&self, method: &str, target: &str, identity: &tls::ClientIdentity) -> Request {
        Request::new(self.envoys[0].tls, method, target).tls_as(identity)
    }

    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    /// Every way in: each Envoy, with each encoding of headers.
    pub fn doors(&self) -> Vec<(String, SocketAddr)> {
        let name = |envoy: &Envoy, door: &str| format!("{door} of the Envoy at {}", envoy.http);
        self.envoys
            .iter()
            .flat_map(|envoy| [(name(envoy, "headers"), envoy.http), (name(envoy, "header_map"), envoy.raw)])
            .collect()
    }

    /// Fails when a payload or signature of a token, or a secret, stands in what Countersign wrote or shows.
    pub fn assert_nothing_leaked(&self) {
        let metrics = Request::new(self.countersign.http, "GET", "/metrics").try_send();
        let shown = metrics.map(|answer| answer.body).unwrap_or_default();
        assert!(!tokens::leaked(shown.as_bytes()), "part of a token stands in the metrics");
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let written = name.starts_with("countersign.") && name != "countersign.yaml";
            if written || name.contains("audit") || name.contains("trace") {
                let text = fs::read(entry.path()).unwrap_or_default();
                assert!(!tokens::leaked(&text), "part of a token stands in {name}");
            }
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_nothing_leaked();
        }
    }
}
