//! What is measured: servers as processes of their own, what the kernel says they used, and how each is set up.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    redis::Redis,
    request::{AUDIENCE, ISSUER},
    support::{
        countersign::{self, Countersign},
        ports,
        process::{Process, eventually},
    },
};

/// A server that can be asked, and whose process can be watched.
pub struct Contestant {
    pub name: &'static str,
    pub address: SocketAddr,
    pub process: u32,
    /// Kept so that it ends with us.
    pub countersign: Option<Countersign>,
    _process: Option<Process>,
}

/// How much of Countersign is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Identity, revocation, permissions.
    Core,
    /// Device, place, risk, trust, policies, audit and metrics as well.
    Unsigned,
    /// And the signed assertion for the upstream.
    Everything,
}

/// Where Countersign keeps things.
#[derive(Clone, Copy)]
pub enum Store<'a> {
    Embedded,
    Redis(&'a Redis),
}

/// The always-allow server of [`floor`](super::floor), as a process of its own.
pub fn floor(folder: &Path) -> Contestant {
    of_ours(folder, "floor", "floor", &[])
}

/// The server of [`bound`](super::bound), with an answer and a record of so many octets.
pub fn bound(folder: &Path, name: &'static str, answer: usize, record: usize) -> Contestant {
    let file = folder.join(name).with_extension("jsonl");
    of_ours(folder, name, "bound", &[&answer.to_string(), &record.to_string(), &file.display().to_string()])
}

/// This program as a server.
fn of_ours(folder: &Path, name: &'static str, mode: &str, arguments: &[&str]) -> Contestant {
    let address = ports::local(ports::free());
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    let process = Process::start(folder, name, command.args([mode, &address.to_string()]).args(arguments));
    eventually(&format!("the {name} listens"), || std::net::TcpStream::connect(address).ok());
    Contestant { name, address, process: process.id(), countersign: None, _process: Some(process) }
}

/// Countersign as `scope` and `store` say, in a folder of its own below `folder`, ready.
pub fn countersign(folder: &Path, name: &'static str, scope: Scope, store: Store<'_>, keys: &str) -> Contestant {
    start(folder, name, &mut |folder| setup(folder, scope, store, keys))
}

/// Countersign as `setup` says.
pub fn start(folder: &Path, name: &'static str, setup: &mut dyn FnMut(&Path) -> countersign::Setup) -> Contestant {
    let folder = home(folder, name);
    fs::create_dir_all(&folder).expect("the folder is writable");
    let server = Countersign::start(&folder, &setup(&folder));
    server.wait_ready();
    Contestant { name, address: server.authz, process: server.process.id(), countersign: Some(server), _process: None }
}

/// Where the server of this name keeps its files.
pub fn home(folder: &Path, name: &str) -> PathBuf {
    folder.join(name.replace([' ', ','], "-"))
}

/// The configuration of `scope`; `answer` stays as it is by default.
pub fn setup(folder: &Path, scope: Scope, store: Store<'_>, keys: &str) -> countersign::Setup {
    let rules = match scope {
        Scope::Core => include_str!("rules/core.yaml"),
        Scope::Unsigned | Scope::Everything => include_str!("rules/everything.yaml"),
    };
    let mut setup = countersign::Setup::new(folder, rules);
    let key_set = folder.join("jwks.json");
    fs::write(&key_set, keys).expect("the folder is writable");
    let config = &mut setup.config;
    config["identity"] = json!({
        "issuers": [{
            "issuer": ISSUER, "audiences": [AUDIENCE], "jwks": key_set, "algorithms": ["RS256", "ES256", "EdDSA"],
            "leeway": "0s",
        }],
        "key_sets": { "refresh": "1s", "min_refresh": "1s" },
    });
    config["store"] = json!({ "url": match store {
        Store::Embedded => format!("file://{}", folder.join("store").display()),
        Store::Redis(redis) => redis.url(),
    }});
    match scope {
        Scope::Core => {
            config["risk"] = json!({ "model": "none" });
            config["location"] = json!({ "enabled": false });
            config["session"] = json!({ "reverify": "off" });
            config["audit"] = json!({ "sink": "none" });
        }
        Scope::Unsigned | Scope::Everything => {
            config["risk"] = json!({ "model": "statistical" });
            config["client"] = json!({ "trusted_hops": 2 });
            config["location"] = json!({ "known_networks": { "office": { "cidrs": ["203.0.113.0/24"] } } });
            config["audit"] = json!({ "sink": "file", "directory": audit(folder) });
        }
    }
    if scope != Scope::Everything {
        // A signature for each new token, and two thirds of the answer's octets.
        config["assertion"] = json!({ "enabled": false });
    }
    setup
}

fn audit(folder: &Path) -> PathBuf {
    let audit = folder.join("audit");
    fs::create_dir_all(&audit).expect("the folder is writable");
    audit
}

impl Contestant {
    /// User and system time of the process so far.
    pub fn cpu(&self) -> Duration {
        cpu(self.process)
    }

    /// Resident memory in MiB.
    pub fn memory(&self) -> f64 {
        memory(self.process)
    }

    /// Countersign itself, where this is one.
    pub fn server(&self) -> &Countersign {
        self.countersign.as_ref().expect("a Countersign")
    }

    /// The sum of a metric over the labels that hold `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        self.server().metric(name, label)
    }

    /// Octets of an audit record as this contestant writes them, on average so far.
    pub fn record_length(&self, folder: &Path) -> usize {
        let files = fs::read_dir(home(folder, self.name).join("audit")).expect("it writes an audit");
        let octets: u64 = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum();
        (octets as f64 / self.metric("countersign_audit_records", "")) as usize
    }

    /// Calls the admin API.
    pub fn admin(&self, method: &str, request: &Value) {
        self.server().admin(method, request).unwrap_or_else(|error| panic!("{method}: {error}"));
    }
}

/// User and system time of a process so far.
pub fn cpu(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name may hold spaces and ends with the last parenthesis; `utime` is the 12th field after it.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every Linux that this runs on.
    Duration::from_millis(ticks * 10)
}

/// Resident memory of a process in MiB.
pub fn memory(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
