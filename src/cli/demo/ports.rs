//! Where the parts of the demo listen: the ports of the contract, unless told otherwise.

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use tokio::net::TcpListener;

use super::DemoError;

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Ports {
    /// Envoy: where the requests go.
    #[arg(long, default_value_t = 10000)]
    pub(super) envoy_port: u16,
    /// Countersign: ext_authz.
    #[arg(long, default_value_t = 9191)]
    pub(super) authz_port: u16,
    /// Countersign: administration.
    #[arg(long, default_value_t = 9192)]
    pub(super) admin_port: u16,
    /// Countersign: health, metrics, keys.
    #[arg(long, default_value_t = 9193)]
    pub(super) http_port: u16,
    /// The demo's issuer.
    #[arg(long, default_value_t = 9195)]
    pub(super) issuer_port: u16,
    /// The upstream that echoes.
    #[arg(long, default_value_t = 9196)]
    pub(super) upstream_port: u16,
    /// Envoy's own administration.
    #[arg(long, default_value_t = 9901)]
    pub(super) envoy_admin_port: u16,
}

impl Ports {
    /// Each port with its placeholder in the templates and the option that changes it.
    pub(super) const fn all(&self) -> [(u16, &'static str, &'static str); 7] {
        [
            (self.envoy_port, "ENVOY", "--envoy-port"),
            (self.authz_port, "AUTHZ", "--authz-port"),
            (self.admin_port, "ADMIN", "--admin-port"),
            (self.http_port, "HTTP", "--http-port"),
            (self.issuer_port, "ISSUER_PORT", "--issuer-port"),
            (self.upstream_port, "UPSTREAM", "--upstream-port"),
            (self.envoy_admin_port, "ENVOY_ADMIN", "--envoy-admin-port"),
        ]
    }

    /// Where requests go.
    pub(super) fn base(&self) -> String {
        format!("http://{}", local(self.envoy_port))
    }

    /// Says which port is taken, before anything is started.
    pub(super) async fn check_free(&self) -> Result<(), DemoError> {
        for (port, _, option) in self.all() {
            if let Err(source) = TcpListener::bind(local(port)).await {
                return Err(DemoError::Port { port, option, source });
            }
        }
        Ok(())
    }
}

pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
