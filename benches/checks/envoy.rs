//! Through a real Envoy, one worker, whose route answers by itself: what authorization adds to a request, and what each
//! header of our answer costs Envoy. Driven by h2load over HTTP/1.1.

use std::{fs, io, net::SocketAddr, path::Path, process::Command};

use serde_json::{Value, json};

use super::{
    Options,
    compare::enrol,
    redis::Redis,
    request::{self, DEVICE, FINGERPRINT, Issuer, PATH},
    servers::{self, Contestant, Scope, Store},
    support::{
        ports,
        process::{Process, eventually},
        tool,
    },
    table::{Sample, Table},
};

/// Connections of the client; each has one request under way.
const CONNECTIONS: usize = 8;

struct Chain {
    envoy: Process,
    door: SocketAddr,
    authz: Contestant,
}

pub fn run(folder: &Path, options: &Options, issuer: &Issuer, redis: &Redis) -> io::Result<String> {
    let keys = issuer.key_set();
    let bare = json!({ "headers": [], "metadata": "refused" });
    let mut slim = |folder: &Path| {
        let mut setup = servers::setup(folder, Scope::Everything, Store::Redis(redis), &keys);
        setup.config["answer"] = bare.clone();
        setup
    };
    let contestants = [
        servers::floor(folder),
        servers::countersign(folder, "core, default answer", Scope::Core, Store::Embedded, &keys),
        servers::countersign(folder, "everything, default answer", Scope::Everything, Store::Redis(redis), &keys),
        servers::start(folder, "everything, bare answer", &mut slim),
    ];
    let chains: Vec<Chain> = contestants.into_iter().enumerate().map(|(i, authz)| chain(folder, i, authz)).collect();
    let token = request::token(&issuer.rs256, 0);
    for chain in &chains {
        enrol(&chain.authz);
        load(chain, folder, &token, 1)?;
    }
    let names = || chains.iter().map(|chain| chain.authz.name);
    let mut authz =
        Table::new(format!("Through Envoy, {CONNECTIONS} connections (CPU of the authorization server)"), names());
    let mut envoy = Table::new("The same, CPU and memory of Envoy", names());
    let seconds = options.seconds.ceil() as u64;
    for round in 0..options.rounds {
        for index in 0..chains.len() {
            let row = (index + round) % chains.len();
            let chain = &chains[row];
            let before = (chain.authz.cpu(), servers::cpu(chain.envoy.id()));
            let (mut sample, requests) = load(chain, folder, &token, seconds)?;
            let per = 1e5 / requests as f64;
            sample.cpu = (chain.authz.cpu() - before.0).as_secs_f64() * per;
            sample.memory = chain.authz.memory();
            authz.add(row, sample);
            sample.cpu = (servers::cpu(chain.envoy.id()) - before.1).as_secs_f64() * per;
            sample.memory = servers::memory(chain.envoy.id());
            envoy.add(row, sample);
        }
        println!("round {} of {}", round + 1, options.rounds);
    }
    Ok(format!("{}\n{}", authz.markdown(), envoy.markdown()))
}

fn chain(folder: &Path, index: usize, authz: Contestant) -> Chain {
    let door = ports::local(ports::free());
    let file = folder.join(format!("envoy-{index}.json"));
    fs::write(&file, bootstrap(door, authz.address).to_string()).expect("the folder is writable");
    let mut command = Command::new(tool("envoy-1.40.0/bin/envoy"));
    command.arg("-c").arg(file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"]);
    let envoy = Process::start(folder, &format!("envoy-{index}"), &mut command);
    eventually("Envoy listens", || std::net::TcpStream::connect(door).ok());
    Chain { envoy, door, authz }
}

/// As in the samples: `ext_authz` and nothing else, a route that answers 200 by itself.
fn bootstrap(door: SocketAddr, authz: SocketAddr) -> Value {
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let address = |of: SocketAddr| json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}});
    let filter = json!({
        "@type": kind("filters.http.ext_authz.v3.ExtAuthz"), "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "5s"},
    });
    let manager = json!({
        "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in", "use_remote_address": true,
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": filter},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": kind("filters.http.router.v3.Router")}},
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}}}]}]},
    });
    let http2 = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": kind("upstreams.http.v3.HttpProtocolOptions"), "explicit_http_config": {"http2_protocol_options": {}}}});
    json!({"static_resources": {
        "listeners": [{"address": address(door), "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        "clusters": [{
            "name": "authz", "type": "STATIC", "connect_timeout": "1s", "typed_extension_protocol_options": http2,
            "load_assignment": {"cluster_name": "authz", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(authz)}}]}]},
        }],
    }})
}

/// What came of it, but for CPU and memory; and how many requests there were.
fn load(chain: &Chain, folder: &Path, token: &str, seconds: u64) -> io::Result<(Sample, usize)> {
    let log = folder.join("h2load.log");
    // h2load appends.
    let _ = fs::remove_file(&log);
    let mut command = Command::new(tool("bin/h2load"));
    command.args(["--h1", "-t", "1", "-c", &CONNECTIONS.to_string(), "-D", &seconds.to_string()]);
    command.arg(format!("--log-file={}", log.display()));
    for (name, value) in request::browser(&format!("Bearer {token}"), DEVICE, FINGERPRINT) {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    let output = command.arg(format!("http://{}{PATH}", chain.door)).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let refused = text.lines().find(|line| line.starts_with("status codes:")).unwrap_or_default();
    assert!(refused.contains(" 0 3xx, 0 4xx, 0 5xx"), "{}: not all were allowed: {text}", chain.authz.name);
    let mut latencies: Vec<f64> =
        fs::read_to_string(&log)?.lines().filter_map(|line| line.split('\t').nth(2)?.trim().parse().ok()).collect();
    latencies.sort_by(f64::total_cmp);
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or(f64::NAN);
    let per_second = latencies.len() as f64 / seconds as f64;
    Ok((Sample { per_second, p50: at(50), p99: at(99), cpu: 0.0, memory: 0.0 }, latencies.len()))
}
