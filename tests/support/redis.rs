//! Real Redis servers for tests: single, with TLS and an ACL user, behind Sentinel, and a Cluster of three.
//!
//! Each runs on a free port of 127.0.0.1 in a folder of its own and is ended by its id on drop. A missing
//! `redis-server` fails the test: a store that was never tried against Redis has not been tested.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

const NEEDED: &str = "`redis-server` is needed on PATH: apt-get install redis-server";

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(10);

/// One server process.
pub struct Redis {
    pub port: u16,
    pub folder: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// A plain server that keeps nothing on disk.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(args: &[&str]) -> Self {
        // Another process may take the port between the two; then this one ends, and another port is tried.
        for _ in 0..5 {
            let mut server = Self {
                port: free_port(),
                folder: TempDir::new().unwrap(),
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                child: None,
            };
            if server.run().await {
                return server;
            }
        }
        panic!("redis-server does not start: {args:?}");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Starts it (again) on its port, with what its folder holds. Says whether it answers.
    pub async fn run(&mut self) -> bool {
        let has_port = self.args.iter().any(|arg| arg == "--port");
        let mut command = Command::new("redis-server");
        if !has_port {
            command.args(["--port", &self.port.to_string()]);
        }
        command.args(["--bind", "127.0.0.1", "--protected-mode", "no", "--save", "", "--daemonize", "no"]);
        command.args(["--dir", &self.folder.path().to_string_lossy(), "--logfile", "redis.log"]);
        for arg in &self.args {
            let arg = arg.replace("FOLDER", &self.folder.path().to_string_lossy());
            command.arg(arg.replace("PORT", &self.port.to_string()));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect(NEEDED));
        let end = Instant::now() + START;
        while Instant::now() < end {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            if self.answers().await {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    async fn answers(&self) -> bool {
        let tls = self.args.iter().any(|arg| arg == "--tls-port");
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)).await else { return false };
        if tls {
            return true;
        }
        let mut answer = [0; 7];
        let asked = async {
            stream.write_all(b"PING\r\n").await?;
            stream.read_exact(&mut answer).await
        };
        let asked = tokio::time::timeout(Duration::from_millis(500), asked).await;
        matches!(asked, Ok(Ok(_))) && (answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
    }

    /// `redis-cli` against this server. Fails the test if it cannot be run.
    pub fn cli(&self, args: &[&str]) -> String {
        cli(self.port, args)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub async fn restart(&mut self) {
        assert!(self.run().await, "redis-server does not come back");
    }

    /// The process stands still, its connections open: what a hung server or a cut cable looks like.
    pub fn pause(&self) {
        signal(self.id(), "-STOP");
    }

    pub fn resume(&self) {
        signal(self.id(), "-CONT");
    }

    /// Commands run so far, by name, without those that keep connections.
    pub fn commands(&self) -> Vec<(String, u64)> {
        let stats = self.cli(&["INFO", "commandstats"]);
        stats
            .lines()
            .filter_map(|line| {
                let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                Some((name.to_owned(), rest.split_once(',')?.0.parse().ok()?))
            })
            .collect()
    }

    pub fn calls(&self, command: &str) -> u64 {
        self.commands().iter().filter(|(name, _)| name == command).map(|(_, calls)| calls).sum()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A master, a replica and a sentinel with a quorum of one.
pub struct Sentinel {
    pub master: Redis,
    pub replica: Redis,
    pub sentinel: Redis,
    password: Option<&'static str>,
}

/// A server and its replica.
pub async fn pair() -> (Redis, Redis) {
    let master = Redis::start().await;
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    until(START, || replica.cli(&["INFO", "replication"]).contains("master_link_status:up")).await;
    (master, replica)
}

impl Sentinel {
    pub async fn start() -> Self {
        Self::with_password(None).await
    }

    /// With a password of the sentinel's own.
    pub async fn with_password(password: Option<&'static str>) -> Self {
        let (master, replica) = pair().await;
        let port = master.port.to_string();
        let sentinel_port = free_port();
        let folder = TempDir::new().unwrap();
        let config = folder.path().join("sentinel.conf");
        let text = format!(
            "port {sentinel_port}\nbind 127.0.0.1\nprotected-mode no\ndir {dir}\nlogfile sentinel.log\n\
             sentinel monitor mymaster 127.0.0.1 {port} 1\nsentinel down-after-milliseconds mymaster 500\n\
             sentinel failover-timeout mymaster 3000\n{guard}",
            dir = folder.path().display(),
            guard = password.map(|password| format!("requirepass {password}\n")).unwrap_or_default(),
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("redis-server")
            .arg(&config)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = Some(child.expect(NEEDED));
        let sentinel = Redis { port: sentinel_port, folder, args: Vec::new(), child };
        let servers = Self { master, replica, sentinel, password };
        until(START, || servers.knows("mymaster")).await;
        servers
    }

    /// Whether the sentinel has found the replica of a master.
    pub fn knows(&self, master: &str) -> bool {
        self.ask(&["SENTINEL", "MASTER", master]).contains("num-slaves\n1")
    }

    /// `redis-cli` against the sentinel.
    pub fn ask(&self, args: &[&str]) -> String {
        let login = self.password.map_or(Vec::new(), |password| vec!["--no-auth-warning", "-a", password]);
        self.sentinel.cli(&[&login, args].concat())
    }

    pub fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}/mymaster", self.sentinel.port)
    }

    /// The port of the node that the sentinel takes for the master.
    pub fn current(&self) -> u16 {
        let answer = self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
        answer.lines().nth(1).unwrap().parse().unwrap()
    }
}

/// Three primaries that share the slots.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let bus = free_port().to_string();
            nodes.push(
                Redis::with(&[
                    "--cluster-enabled",
                    "yes",
                    "--cluster-config-file",
                    "nodes.conf",
                    "--cluster-port",
                    &bus,
                    "--cluster-node-timeout",
                    "2000",
                ])
                .await,
            );
        }
        for (index, node) in nodes.iter().enumerate() {
            let (first, last) = (index * 5462, ((index + 1) * 5462 - 1).min(16383));
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for node in &nodes[1..] {
            let bus = node.args[5].clone();
            nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus]);
        }
        let whole = |node: &Redis| {
            let info = node.cli(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        until(START * 2, || nodes.iter().all(whole)).await;
        Self { nodes }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// As [`Self::url`], as the user whom `deploy/compose/users.acl` makes.
    pub fn url_as_user(&self) -> String {
        let users = include_str!("../../deploy/compose/users.acl").lines();
        let rules: Vec<_> = users.filter_map(|line| line.strip_prefix("user countersign ")).collect();
        for node in &self.nodes {
            let rules = rules.iter().flat_map(|line| line.split(' '));
            node.cli(&["ACL", "SETUSER", "countersign"].into_iter().chain(rules).collect::<Vec<_>>());
        }
        self.url().replace("://", "://countersign:local-mesh-only@")
    }

    pub fn cli(&self, args: &[&str]) -> String {
        self.nodes[0].cli(&[&["-c"], args].concat())
    }
}

/// A server that speaks TLS only, to an ACL user that may do no more than a replica needs. Gives its URL.
pub async fn with_tls_and_acl() -> (Redis, String) {
    let certificates = TempDir::new().unwrap();
    write_certificates(certificates.path());
    let file = |name: &str| certificates.path().join(name).to_string_lossy().into_owned();
    let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
    let user = [
        "on",
        ">s3cr:t@",
        "~cs:*",
        "resetchannels",
        "-@all",
        "+@read",
        "+@write",
        "+@connection",
        "+@transaction",
        "+eval",
        "+evalsha",
        "+script|load",
        "+time",
        "-@dangerous",
        "+ping",
    ];
    let mut args = vec!["--port", "0", "--tls-port", "PORT", "--tls-auth-clients", "no", "--tls-ca-cert-file", &ca];
    args.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key, "--user", "default", "off"]);
    args.extend(["--user", "countersign"]);
    args.extend(user);
    let server = Redis::with(&args).await;
    let kept = server.folder.path().join("client-ca.pem");
    fs::copy(&ca, &kept).unwrap();
    let url = format!("rediss://countersign:s3cr%3At%40@127.0.0.1:{}/0?ca={}", server.port, kept.display());
    (server, url)
}

/// A server that speaks TLS only, to those who show a certificate of its authority, which is another one whenever it is
/// `renew`ed.
pub struct Mutual {
    pub server: Redis,
    certificates: TempDir,
}

impl Mutual {
    /// With `cluster`, a cluster of this one server.
    pub async fn start(cluster: bool) -> Self {
        let certificates = TempDir::new().unwrap();
        write_certificates(certificates.path());
        let file = |name: &str| certificates.path().join(name).to_string_lossy().into_owned();
        let (ca, certificate, key, bus) =
            (file("ca.pem"), file("server.pem"), file("server.key"), free_port().to_string());
        let mut args =
            vec!["--port", "0", "--tls-port", "PORT", "--tls-ca-cert-file", &ca, "--tls-cert-file", &certificate];
        args.extend(["--tls-key-file", &key]);
        if cluster {
            args.extend(["--tls-cluster", "yes", "--cluster-enabled", "yes", "--cluster-port", &bus]);
            args.extend(["--cluster-config-file", "nodes.conf"]);
        }
        let server = Redis::with(&args).await;
        let started = Self { server, certificates };
        if cluster {
            started.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
            until(START, || started.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")).await;
        }
        started
    }

    fn file(&self, name: &str) -> String {
        self.certificates.path().join(name).to_string_lossy().into_owned()
    }

    pub fn url(&self, scheme: &str) -> String {
        let (ca, certificate, key) = (self.file("ca.pem"), self.file("client.pem"), self.file("client.key"));
        let port = self.server.port;
        format!("{scheme}://127.0.0.1:{port}?timeout=2s&ca={ca}&certificate={certificate}&key={key}")
    }

    pub fn cli(&self, args: &[&str]) -> String {
        let (ca, certificate, key) = (self.file("ca.pem"), self.file("client.pem"), self.file("client.key"));
        let tls = ["--tls", "--cacert", &ca, "--cert", &certificate, "--key", &key];
        self.server.cli(&[&tls, args].concat())
    }

    /// Every certificate is of another authority from now on, and the server knows no other.
    pub async fn renew(&mut self) {
        write_certificates(self.certificates.path());
        self.server.kill();
        self.server.restart().await;
    }
}

/// Of an authority, a server, and a client.
fn write_certificates(folder: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let authority = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for name in ["server", "client"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

pub fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(args).output();
    let output = output.expect("`redis-cli` is needed on PATH: apt-get install redis-tools");
    String::from_utf8_lossy(&output.stdout).trim_end().replace("\r\n", "\n")
}

fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until something is so; fails the test when it is not after `limit`.
pub async fn until(limit: Duration, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < end, "not so after {limit:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
