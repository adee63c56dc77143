//! An Envoy in front of a stack's Envoy: it asks nobody, and says by XFCC whose certificate it was shown.

use std::{fs, net::SocketAddr, process::Command};

use serde_json::json;

use super::{
    envoy::{self, PREFIX},
    http::Request,
    ports,
    process::{Process, eventually},
    stack::Stack,
    tls::{self, ClientIdentity},
};

/// A running one; `tls` takes clients with certificates and without.
#[derive(Debug)]
pub struct Front {
    pub tls: SocketAddr,
    /// What it shows to the Envoy behind it.
    pub identity: ClientIdentity,
    _process: Process,
}

impl Front {
    /// Starts one that is `uri` to both sides, before the TLS listener of the stack's newest Envoy.
    pub fn start(stack: &Stack, uri: &str) -> Self {
        let folder = &stack.folder;
        let identity = tls::write_front(folder, uri);
        let (front, admin) = (ports::local(ports::free()), ports::local(ports::free()));
        let file = |name: &str| json!({"filename": folder.join(name)});
        let context = json!({
            "tls_certificates": [{"certificate_chain": file("front.pem"), "private_key": file("front.key")}],
            "validation_context": {"trusted_ca": file("tls-ca.pem")},
        });
        let socket = |kind: &str| {
            let kind = format!("{PREFIX}.transport_sockets.tls.v3.{kind}TlsContext");
            json!({"name": "tls", "typed_config": {"@type": kind, "common_tls_context": context}})
        };
        let mut inner = envoy::cluster("inner", stack.envoys[0].tls, false);
        inner["transport_socket"] = socket("Upstream");
        let manager = json!({
            "@type": format!("{PREFIX}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "front",
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"subject": true, "uri": true},
            "http_filters": [{"name": "envoy.filters.http.router",
                "typed_config": {"@type": format!("{PREFIX}.filters.http.router.v3.Router")}}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "inner"}}]}]},
        });
        let config = json!({
            "admin": {"address": envoy::address(admin)},
            "static_resources": {
                "listeners": [{
                    "name": "front",
                    "address": envoy::address(front),
                    "filter_chains": [{
                        "transport_socket": socket("Downstream"),
                        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                    }],
                }],
                "clusters": [inner],
            },
        });
        let path = folder.join("front.json");
        fs::write(&path, config.to_string()).expect("the folder is writable");
        let mut command = Command::new(super::tool(&format!("envoy-{}/bin/envoy", envoy::NEW)));
        command.arg("-c").arg(&path).args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]);
        let mut process = Process::start(folder, "front", &mut command);
        eventually("the Envoy in front is ready", || {
            assert!(process.is_running(), "it ended:\n{}", process.output());
            let ready = Request::new(admin, "GET", "/ready").try_send().ok()?;
            (ready.status == 200).then_some(())
        });
        Self { tls: front, identity, _process: process }
    }
}
