//! Administration, put together: who may, and what it is about.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Error, Parts,
    news::NewsDesk,
    ports::{DevicePort, ExplainPort, InstancePort, RevocationPort},
};
use crate::{
    admin::{self, Access, Administration, SessionDesk, ports::Journal},
    config::Config,
    domain::Secret,
    pipeline::Pipeline,
    tls::Tls,
};

impl Parts {
    pub(super) fn administration(
        &self,
        config: &Config,
        instance: InstancePort,
        stop: &CancellationToken,
    ) -> Result<Arc<Administration>, Error> {
        let made = if config.admin.tokens.is_empty() { Some(made_token(config)?) } else { None };
        let listens = config.listen.admin.ip();
        let access = Access::new(&config.admin, made.as_ref(), listens).map_err(Error::Access)?;
        let Pipeline { clock, revocations, devices, auditor, .. } = &*self.pipeline;
        let news = NewsDesk::new(self.teller.clone(), &self.pipeline);
        Ok(Arc::new(Administration {
            access,
            clock: clock.clone(),
            revocations: Arc::new(RevocationPort { revocations: Arc::clone(revocations), clock: clock.clone(), news }),
            devices: Arc::new(DevicePort { devices: Arc::clone(devices) }),
            explainer: Arc::new(ExplainPort(Arc::clone(&self.pipeline))),
            instance: Arc::new(instance),
            journal: Arc::clone(auditor) as Arc<dyn Journal>,
            sessions: Some(SessionDesk {
                registry: Arc::clone(&self.pipeline.sessions),
                notices: Arc::clone(&self.pipeline.notices),
                stop: stop.clone(),
            }),
            fleet: Some(admin::Fleet { registry: Arc::clone(devices), enrollment: self.enrollment.clone() }),
            behaviors: self.pipeline.behaviors.clone(),
            writes: TaskTracker::new(),
        }))
    }
}

/// The admin token, made at the first start.
fn made_token(config: &Config) -> Result<Secret, Error> {
    let folder = config.state_dir().ok_or(Error::NoStateDir)?;
    let made = admin::make_token(&folder).map_err(|source| Error::Token { folder, source })?;
    if made.fresh {
        tracing::info!(path = %made.path.display(), "a token for the admin API was made");
    }
    Ok(made.token)
}

pub(super) async fn admin_port(config: &Config, tls: Option<Arc<Tls>>) -> Result<admin::Port, Error> {
    let address = config.listen.admin;
    let listening = TcpListener::bind(address).await;
    let listener = listening.map_err(|source| Error::Listen { what: "the admin API", address, source })?;
    Ok(admin::Port::new(listener, tls, config.admin_is_guarded())?)
}

pub(super) async fn serve_admin(port: admin::Port, administration: Arc<Administration>, stop: CancellationToken) {
    if let Err(error) = port.serve(administration, stop).await {
        tracing::error!(%error, "the admin API ended");
    }
}
