//! Real Envoys: a configuration with one listener for each way of asking, and the process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{
    http::Request,
    ports,
    process::{Process, eventually},
    tls,
};

/// The newest Envoy that is tested.
pub const NEW: &str = "1.40.0";
/// The oldest.
pub const OLD: &str = "1.36.4";

/// How an Envoy reaches Countersign.
#[derive(Clone, Debug, Default)]
pub enum Door {
    #[default]
    Plain,
    /// TLS by the run's authority, with a certificate of ours shown or none.
    Tls {
        shown: bool,
    },
    Unix(PathBuf),
}

/// What an Envoy of a test needs to know.
#[derive(Clone, Debug)]
pub struct Setup {
    pub version: &'static str,
    pub authz: SocketAddr,
    pub upstream: SocketAddr,
    /// Path prefixes with the `context_extensions` of their routes.
    pub extensions: Vec<(String, Value)>,
    /// `:authority` of the calls to Countersign, where it is not the cluster's name.
    pub authority: Option<String>,
    pub door: Door,
    /// A collector over OTLP/gRPC that every request is told to.
    pub traces: Option<SocketAddr>,
    /// The TLS listener stands behind [`super::front::Front`]: what that says of client certificates is kept and added to.
    pub appends: bool,
    /// As at a gateway of Istio: no certificate is sent, and the header about it is set anew.
    pub istio: bool,
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    pub process: Process,
    /// Sends request headers as the `headers` map.
    pub http: SocketAddr,
    /// Sends them as `header_map` (`encode_raw_headers`).
    pub raw: SocketAddr,
    /// As `http`, over TLS; a client certificate of the run's authority may be shown.
    pub tls: SocketAddr,
    /// Network `ext_authz`: plain TCP, no HTTP attributes.
    pub tcp: SocketAddr,
    access_log: PathBuf,
}

impl Envoy {
    /// Starts the pinned Envoy of `setup.version`. One that is not installed is a failure, never a skip.
    pub fn start(folder: &Path, setup: &Setup) -> Self {
        let binary = super::tool(&format!("envoy-{}/bin/envoy", setup.version));
        let ports: Vec<u16> = (0..5).map(|_| ports::free()).collect();
        let access_log = folder.join(format!("envoy-{}.access", setup.version));
        let file = folder.join(format!("envoy-{}.json", setup.version));
        tls::write_server(folder);
        let config = configuration(setup, &ports, &access_log);
        fs::write(&file, config.to_string()).expect("the folder is writable");
        let process = Process::start(
            folder,
            &format!("envoy-{}", setup.version),
            Command::new(binary).arg("-c").arg(&file).args([
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "-l",
                "warning",
                "--file-flush-interval-msec",
                "20",
            ]),
        );
        let mut envoy = Self {
            process,
            http: ports::local(ports[0]),
            raw: ports::local(ports[1]),
            tcp: ports::local(ports[2]),
            tls: ports::local(ports[4]),
            access_log,
        };
        let admin = ports::local(ports[3]);
        eventually("Envoy is ready", || {
            assert!(envoy.process.is_running(), "Envoy ended:\n{}", envoy.process.output());
            let ready = Request::new(admin, "GET", "/ready").try_send().ok()?;
            (ready.status == 200).then_some(())
        });
        super::record_real(&format!("envoy-{}", setup.version));
        envoy
    }

    /// The access log's entry of the request that carried `x-test: mark`.
    pub fn access(&self, mark: &str) -> Value {
        eventually("the access log has the request", || {
            let text = fs::read_to_string(&self.access_log).unwrap_or_default();
            text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|entry| entry["mark"] == mark)
        })
    }
}

pub(super) const PREFIX: &str = "type.googleapis.com/envoy.extensions";

fn configuration(setup: &Setup, ports: &[u16], access_log: &Path) -> Value {
    json!({
        "admin": {"address": address(ports::local(ports[3]))},
        "static_resources": {
            "listeners": [
                http_listener("http", ports[0], false, setup, access_log),
                http_listener("raw", ports[1], true, setup, access_log),
                tcp_listener(ports[2], setup),
                tls_listener(ports[4], setup, access_log),
            ],
            "clusters": clusters(setup, access_log),
        },
    })
}

fn clusters(setup: &Setup, access_log: &Path) -> Vec<Value> {
    let collector = setup.traces.map(|to| cluster("collector", to, true));
    let others = [authz_cluster(setup, access_log), cluster("upstream", setup.upstream, false)];
    others.into_iter().chain(collector).collect()
}

fn tracing() -> Value {
    json!({
        "random_sampling": {"value": 100.0},
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}, "timeout": "1s"},
            "service_name": "edge",
        }},
    })
}

fn http_listener(name: &str, port: u16, raw: bool, setup: &Setup, access_log: &Path) -> Value {
    let mut manager = json!({
        "@type": format!("{PREFIX}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "use_remote_address": true,
        "normalize_path": false,
        // A client that spoofs every name in every spelling sends many.
        "common_http_protocol_options": {"max_headers_count": 1000},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": [{
            "name": "file",
            "typed_config": {
                "@type": format!("{PREFIX}.access_loggers.file.v3.FileAccessLog"),
                "path": access_log,
                "log_format": {"json_format": {
                    "mark": "%REQ(X-TEST)%",
                    "status": "%RESPONSE_CODE%",
                    "flags": "%RESPONSE_FLAGS%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "upstream": "%UPSTREAM_HOST%",
                    "metadata": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%",
                }},
            },
        }],
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": ext_authz("http", raw, setup)},
            {"name": "envoy.filters.http.router",
             "typed_config": {"@type": format!("{PREFIX}.filters.http.router.v3.Router")}},
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes(setup)}]},
    });
    if setup.traces.is_some() {
        manager["tracing"] = tracing();
    }
    json!({
        "name": name,
        "address": address(ports::local(port)),
        "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    })
}

fn tls_listener(port: u16, setup: &Setup, access_log: &Path) -> Value {
    let file = |name: &str| json!({"filename": access_log.with_file_name(name)});
    let mut listener = http_listener("tls", port, false, setup, access_log);
    if setup.appends {
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        manager["forward_client_cert_details"] = json!("APPEND_FORWARD");
        manager["set_current_client_cert_details"] = json!({"uri": true});
    }
    if setup.istio {
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        manager["forward_client_cert_details"] = json!("SANITIZE_SET");
        manager["set_current_client_cert_details"] = json!({"subject": true, "cert": true, "dns": true, "uri": true});
    }
    listener["filter_chains"][0]["transport_socket"] = json!({
        "name": "tls",
        "typed_config": {
            "@type": format!("{PREFIX}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": false,
            "common_tls_context": {
                "tls_certificates": [{"certificate_chain": file("tls-server.pem"), "private_key": file("tls-server.key")}],
                "validation_context": {"trusted_ca": file("tls-ca.pem")},
            },
        },
    });
    listener
}

fn tcp_listener(port: u16, setup: &Setup) -> Value {
    let proxy = json!({
        "@type": format!("{PREFIX}.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "tcp", "cluster": "upstream",
    });
    json!({
        "name": "tcp",
        "address": address(ports::local(port)),
        "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.ext_authz", "typed_config": ext_authz("network", false, setup)},
            {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    })
}

fn ext_authz(kind: &str, raw: bool, setup: &Setup) -> Value {
    let mut target = json!({"cluster_name": "authz"});
    if let Some(authority) = &setup.authority {
        target["authority"] = json!(authority);
    }
    let mut config = json!({
        "@type": format!("{PREFIX}.filters.{kind}.ext_authz.v3.ExtAuthz"),
        "transport_api_version": "V3",
        "failure_mode_allow": false,
        // Longer than in the samples: the machine of a test run is busy.
        "grpc_service": {"envoy_grpc": target, "timeout": "5s"},
        "stat_prefix": "countersign",
    });
    if kind == "http" {
        config["validate_mutations"] = json!(true);
        config["encode_raw_headers"] = json!(raw);
        config["include_peer_certificate"] = json!(!setup.istio);
    }
    config
}

fn routes(setup: &Setup) -> Vec<Value> {
    let route = |prefix: &str| json!({"match": {"prefix": prefix}, "route": {"cluster": "upstream"}});
    let special = setup.extensions.iter().map(|(prefix, extensions)| {
        let mut route = route(prefix);
        route["typed_per_filter_config"] = json!({"envoy.filters.http.ext_authz": {
            "@type": format!("{PREFIX}.filters.http.ext_authz.v3.ExtAuthzPerRoute"),
            "check_settings": {"context_extensions": extensions},
        }});
        route
    });
    special.chain([route("/")]).collect()
}

pub(super) fn cluster(name: &str, to: SocketAddr, http2: bool) -> Value {
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(to)}}]}]},
    });
    if http2 {
        cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{PREFIX}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": {"http2_protocol_options": {}},
        }});
    }
    cluster
}

fn authz_cluster(setup: &Setup, beside: &Path) -> Value {
    let mut cluster = cluster("authz", setup.authz, true);
    match &setup.door {
        Door::Plain => {}
        Door::Unix(path) => {
            let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
            *cluster.pointer_mut(endpoint).expect("written above") = json!({"pipe": {"path": path}});
        }
        Door::Tls { shown } => {
            let file = |name: &str| json!({"filename": beside.with_file_name(name)});
            let mut context =
                json!({"alpn_protocols": ["h2"], "validation_context": {"trusted_ca": file("tls-ca.pem")}});
            if *shown {
                let pair = json!({"certificate_chain": file("tls-server.pem"), "private_key": file("tls-server.key")});
                context["tls_certificates"] = json!([pair]);
            }
            cluster["transport_socket"] = json!({"name": "tls", "typed_config": {
                "@type": format!("{PREFIX}.transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": "localhost", "common_tls_context": context,
            }});
        }
    }
    cluster
}

pub(super) fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
