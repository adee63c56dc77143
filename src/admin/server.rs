//! The listener: gRPC with health and reflection, TLS where configured.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Server,
    server::{ServerTlsConfig, TcpIncoming},
};
use tonic_health::pb::health_server::SERVICE_NAME as HEALTH_NAME;

use super::{Administration, behavior::BehaviorService, fleet::FleetService, sessions::SessionService};
use crate::wire::{
    ADMIN_DESCRIPTORS,
    admin::{
        admin_server::{AdminServer, SERVICE_NAME},
        behavior_server::{BehaviorServer, SERVICE_NAME as BEHAVIOR_NAME},
        devices_server::{DevicesServer, SERVICE_NAME as FLEET_NAME},
        sessions_server::{SERVICE_NAME as SESSIONS_NAME, SessionsServer},
    },
};

/// A message with one device or one CheckRequest is far smaller.
const MAX_MESSAGE: usize = 4 * 1024 * 1024 + 64 * 1024;

/// Why the admin API does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "admin API: `{0}` is reachable from other machines, and neither client certificates nor tokens are configured"
    )]
    Unguarded(SocketAddr),
    #[error("admin API: cannot listen")]
    Listen(#[source] std::io::Error),
    #[error("admin API: reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("admin API: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves on `listener` until `stop`, then finishes what is under way. `guarded`: client certificates or tokens with roles
/// are configured.
///
/// # Errors
///
/// When it may not listen there, or TLS or the listener fails.
pub async fn serve(
    administration: Arc<Administration>,
    listener: TcpListener,
    tls: Option<ServerTlsConfig>,
    guarded: bool,
    stop: CancellationToken,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Listen)?;
    if !address.ip().is_loopback() && !guarded {
        return Err(Error::Unguarded(address));
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<AdminServer<Administration>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(ADMIN_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(SERVICE_NAME)
            .with_service_name(FLEET_NAME)
            .with_service_name(SESSIONS_NAME)
            .with_service_name(HEALTH_NAME)
            .with_service_name(BEHAVIOR_NAME)
    };
    let fleet = DevicesServer::new(FleetService(Arc::clone(&administration))).max_decoding_message_size(MAX_MESSAGE);
    let behavior = BehaviorServer::new(BehaviorService(Arc::clone(&administration)));
    let sessions = SessionsServer::new(SessionService(Arc::clone(&administration)));
    let service = AdminServer::from_arc(administration).max_decoding_message_size(MAX_MESSAGE);
    let mut server = Server::builder()
        .timeout(Duration::from_secs(10))
        .concurrency_limit_per_connection(64)
        .max_concurrent_streams(64)
        .http2_keepalive_interval(Some(Duration::from_secs(30)));
    if let Some(tls) = tls {
        server = server.tls_config(tls)?;
    }
    let drained = async move {
        stop.cancelled().await;
        health.set_not_serving::<AdminServer<Administration>>().await;
    };
    server
        .add_service(service)
        .add_service(fleet)
        .add_service(behavior)
        .add_service(sessions)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), drained)
        .await?;
    Ok(())
}
