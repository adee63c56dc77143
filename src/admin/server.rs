//! The port: gRPC with health and reflection, TLS where configured.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::pb::health_server::SERVICE_NAME as HEALTH_NAME;

use super::{
    Administration,
    behavior::BehaviorService,
    connections::{Limits, accepted, encrypted},
    fleet::FleetService,
    service::AdminService,
    sessions::SessionService,
};
use crate::{
    tls::Tls,
    wire::{
        ADMIN_DESCRIPTORS,
        admin::{
            admin_server::{AdminServer, SERVICE_NAME},
            behavior_server::{BehaviorServer, SERVICE_NAME as BEHAVIOR_NAME},
            devices_server::{DevicesServer, SERVICE_NAME as FLEET_NAME},
            sessions_server::{SERVICE_NAME as SESSIONS_NAME, SessionsServer},
        },
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

/// The port of the admin API, bound and not yet serving.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
}

impl Port {
    /// Whatever can be wrong with where it listens is found here. `guarded`: client certificates or
    /// tokens with roles are configured.
    ///
    /// # Errors
    ///
    /// When it may not listen there.
    pub fn new(listener: TcpListener, tls: Option<Arc<Tls>>, guarded: bool) -> Result<Self, Error> {
        let address = listener.local_addr().map_err(Error::Listen)?;
        if !address.ip().is_loopback() && !guarded {
            return Err(Error::Unguarded(address));
        }
        Ok(Self { listener, tls })
    }

    /// Serves until `stop`, then finishes what is under way, also what its caller has given up.
    ///
    /// # Errors
    ///
    /// When the reflection service cannot be built, or serving fails.
    pub async fn serve(self, administration: Arc<Administration>, stop: CancellationToken) -> Result<(), Error> {
        let Self { listener, tls } = self;
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<AdminServer<AdminService>>().await;
        let writes = administration.writes.clone();
        let fleet =
            DevicesServer::new(FleetService(Arc::clone(&administration))).max_decoding_message_size(MAX_MESSAGE);
        let behavior = BehaviorServer::new(BehaviorService(Arc::clone(&administration)));
        let sessions = SessionsServer::new(SessionService(Arc::clone(&administration)));
        let service = AdminServer::new(AdminService(administration)).max_decoding_message_size(MAX_MESSAGE);
        let drained = async move {
            stop.cancelled().await;
            health.set_not_serving::<AdminServer<AdminService>>().await;
        };
        let routes = Server::builder()
            .timeout(Duration::from_secs(10))
            .concurrency_limit_per_connection(64)
            .max_concurrent_streams(64)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .add_service(service)
            .add_service(fleet)
            .add_service(behavior)
            .add_service(sessions)
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let incoming = accepted(listener, Limits::USUAL);
        match tls {
            None => routes.serve_with_incoming_shutdown(incoming, drained).await?,
            Some(tls) => {
                routes.serve_with_incoming_shutdown(encrypted(incoming, tls, Limits::USUAL), drained).await?;
            }
        }
        // Those that nobody waits for any more: each ends with the store's own patience.
        writes.close();
        writes.wait().await;
        Ok(())
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(ADMIN_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(SERVICE_NAME)
        .with_service_name(FLEET_NAME)
        .with_service_name(SESSIONS_NAME)
        .with_service_name(HEALTH_NAME)
        .with_service_name(BEHAVIOR_NAME)
}
