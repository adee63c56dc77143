//! The real `countersign` binary with a configuration of its own on free ports.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    http::{Request, Response},
    ports,
    process::{Process, eventually},
    tokens,
};

/// The program under test.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_countersign"))
}

/// What `serve` is to be started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The whole configuration; JSON is YAML.
    pub config: Value,
    /// The rules, as YAML.
    pub rules: String,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

impl Setup {
    /// One issuer with its key set in a file, the fixed risk table, everything in memory.
    pub fn new(folder: &Path, rules: &str) -> Self {
        let keys = folder.join("jwks.json");
        fs::write(&keys, tokens::key_set().to_string()).expect("the folder is writable");
        let port = || ports::local(ports::free()).to_string();
        let config = json!({
            "listen": {"authz": port(), "admin": port(), "http": port()},
            // The machine of a test run is busy: no answer is late but one that a test holds up on purpose.
            "check": {"deadline": "1s"},
            "store": {"url": "memory://"},
            "identity": {"issuers": [{
                "issuer": tokens::ISSUER, "audiences": [tokens::AUDIENCE], "jwks": keys,
                "algorithms": ["RS256", "ES256", "EdDSA"],
            }]},
            "rules": [folder.join("rules.yaml")],
            "risk": {"model": "fixed"},
            "admin": {"state_dir": "state"},
        });
        Self { config, rules: rules.to_owned(), environment: Vec::new() }
    }
}

/// A running `countersign serve`.
#[derive(Debug)]
pub struct Countersign {
    pub process: Process,
    pub authz: SocketAddr,
    pub admin: SocketAddr,
    pub http: SocketAddr,
    folder: PathBuf,
}

impl Countersign {
    /// Starts it; it may not be ready yet.
    pub fn start(folder: &Path, setup: &Setup) -> Self {
        let config = folder.join("countersign.yaml");
        fs::write(&config, setup.config.to_string()).expect("the folder is writable");
        fs::write(folder.join("rules.yaml"), &setup.rules).expect("the folder is writable");
        let mut command = binary();
        command.arg("serve").arg("--config").arg(&config).current_dir(folder).env("HOME", folder);
        command.env_remove("XDG_STATE_HOME").env_remove("XDG_RUNTIME_DIR").env_remove("XDG_CONFIG_HOME");
        command.envs(setup.environment.iter().cloned());
        let process = Process::start(folder, "countersign", &mut command);
        let listen = |name: &str| {
            let text = setup.config["listen"][name].as_str().expect("an address");
            // Of a Unix socket there is none to tell.
            if text.starts_with("unix:") { ports::local(0) } else { text.parse().expect("host and port") }
        };
        Self {
            process,
            authz: listen("authz"),
            admin: listen("admin"),
            http: listen("http"),
            folder: folder.to_owned(),
        }
    }

    /// Waits until `/readyz` says so.
    pub fn wait_ready(&self) {
        eventually("Countersign is ready", || {
            let ended = fs::metadata(format!("/proc/{}/exe", self.process.id())).is_err();
            assert!(!ended, "Countersign ended:\n{}", self.process.output());
            (self.ready()? == 200).then_some(())
        });
    }

    /// The status of `/readyz`; `None` while nobody answers.
    pub fn ready(&self) -> Option<u16> {
        Request::new(self.http, "GET", "/readyz").try_send().ok().map(|answer| answer.status)
    }

    /// What gRPC health says of the whole on the Check port.
    pub fn health(&self) -> Option<String> {
        let answer = grpcurl(&[], self.authz, "grpc.health.v1.Health/Check", &json!({})).ok()?;
        answer["status"].as_str().map(str::to_owned)
    }

    pub fn get(&self, path: &str) -> Response {
        Request::new(self.http, "GET", path).send()
    }

    /// The sum of a metric over all of its labels that hold `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").body;
        text.lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Replaces the rules on disk, in one step.
    pub fn write_rules(&self, rules: &str) {
        let new = self.folder.join("rules.new");
        fs::write(&new, rules).expect("the folder is writable");
        fs::rename(&new, self.folder.join("rules.yaml")).expect("the folder is writable");
    }

    /// Runs another subcommand against it, as an operator on the same machine would.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = binary();
        command.args(arguments).current_dir(&self.folder).env("HOME", &self.folder);
        let output = command.output().expect("the binary runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Calls a method of the admin API with the token made at the first start, by grpcurl and reflection alone.
    pub fn admin(&self, method: &str, request: &Value) -> Result<Value, String> {
        self.administer(&admin_method(method), request)
    }

    /// As [`Countersign::admin`], of the service for devices.
    pub fn fleet(&self, method: &str, request: &Value) -> Result<Value, String> {
        self.administer(&format!("countersign.admin.v1.Devices/{method}"), request)
    }

    fn administer(&self, method: &str, request: &Value) -> Result<Value, String> {
        let token = fs::read_to_string(self.folder.join("state/admin.token")).expect("made at the first start");
        grpcurl(&["-H", &format!("authorization: Bearer {}", token.trim())], self.admin, method, request)
    }

    /// As [`Countersign::admin`], without a token.
    pub fn admin_as_nobody(&self, method: &str, request: &Value) -> Result<Value, String> {
        grpcurl(&[], self.admin, &admin_method(method), request)
    }

    /// Calls a method of another service of the admin API, with or without that token.
    pub fn admin_of(&self, service: &str, method: &str, request: &Value, known: bool) -> Result<Value, String> {
        let token = fs::read_to_string(self.folder.join("state/admin.token")).expect("made at the first start");
        let header = format!("authorization: Bearer {}", token.trim());
        let options: &[&str] = if known { &["-H", &header] } else { &[] };
        grpcurl(options, self.admin, &format!("countersign.admin.v1.{service}/{method}"), request)
    }

    /// Asks the `Check` itself, by grpcurl and reflection alone.
    pub fn check(&self, request: &Value) -> Result<Value, String> {
        grpcurl(&[], self.authz, "envoy.service.auth.v3.Authorization/Check", request)
    }

    /// Audit records written so far.
    pub fn audit(&self) -> Vec<Value> {
        let records = self.process.stdout();
        records.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

fn admin_method(name: &str) -> String {
    format!("countersign.admin.v1.Admin/{name}")
}

/// The answer, or what grpcurl says of its failure.
fn grpcurl(options: &[&str], to: SocketAddr, method: &str, request: &Value) -> Result<Value, String> {
    let mut command = Command::new(super::tool("bin/grpcurl"));
    command.args(["-plaintext", "-max-time", "60"]).args(options).args(["-d", "@", &to.to_string(), method]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("grpcurl runs");
    child.stdin.take().expect("piped").write_all(request.to_string().as_bytes()).expect("grpcurl reads");
    let output = child.wait_with_output().expect("grpcurl ends");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}
