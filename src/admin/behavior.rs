//! The calls about behaviour: what is remembered of a subject, and forgetting it. Both are told of, as writes are.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    Administration, Role,
    devices::timestamp,
    service::{Write, cut, failure},
};
use crate::{
    behavior::{Behaviors, Export},
    domain::{Issuer, SubjectId, UnixTime},
    wire::admin::{self as wire, behavior_server::Behavior},
};

/// Longest issuer and subject, in characters.
const MAX_NAME: usize = 512;

/// The service; a name of its own, since one process serves all on one port.
#[derive(Clone, Debug)]
pub(super) struct BehaviorService(pub(super) Arc<Administration>);

impl Administration {
    fn behaviors(&self) -> Result<&Behaviors, Status> {
        let off = || Status::failed_precondition("behaviour is not looked at: `risk.model` is `none`");
        self.behaviors.as_deref().ok_or_else(off)
    }
}

#[tonic::async_trait]
impl Behavior for BehaviorService {
    async fn export_profile(
        &self,
        request: Request<wire::ExportProfileRequest>,
    ) -> Result<Response<wire::Profile>, Status> {
        let what = Write { action: "profile.export", target: format!("subject:{}", cut(&request.get_ref().subject)) };
        self.0
            .write(request, Role::Reader, what, |desk, asked, detail| {
                Box::pin(async move {
                    *detail = format!("of {}", cut(&asked.issuer));
                    let (issuer, subject) = subject(&asked.issuer, &asked.subject)?;
                    let now = desk.clock.now().as_secs() as f64;
                    let found = desk.behaviors()?.export(&issuer, &subject, now).await;
                    let found = found.map_err(|error| failure(&error))?;
                    found.map(answer).ok_or_else(|| Status::not_found("nothing is remembered of this subject"))
                })
            })
            .await
    }

    async fn forget_profile(
        &self,
        request: Request<wire::ForgetProfileRequest>,
    ) -> Result<Response<wire::ForgetProfileResponse>, Status> {
        let what = Write { action: "profile.forget", target: format!("subject:{}", cut(&request.get_ref().subject)) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    *detail = format!("of {}", cut(&asked.issuer));
                    let (issuer, subject) = subject(&asked.issuer, &asked.subject)?;
                    let was_known = desk.behaviors()?.forget(&issuer, &subject).await;
                    let was_known = was_known.map_err(|error| failure(&error))?;
                    Ok(wire::ForgetProfileResponse { was_known })
                })
            })
            .await
    }
}

fn subject(issuer: &str, subject: &str) -> Result<(Issuer, SubjectId), Status> {
    for (name, text) in [("issuer", issuer), ("subject", subject)] {
        if text.is_empty() || text.chars().count() > MAX_NAME {
            return Err(Status::invalid_argument(format!("`{name}` must be 1 to {MAX_NAME} characters")));
        }
    }
    Ok((Issuer::new(issuer), SubjectId::new(subject)))
}

fn answer(export: Export) -> wire::Profile {
    let at = |seconds: f64| (seconds > 0.0).then(|| timestamp(UnixTime::from_millis((seconds * 1000.0) as u64)));
    let counts = export.counts.into_iter();
    let pace = export.pace;
    wire::Profile {
        counts: counts
            .map(|(what, key, observations)| wire::Count { what: what.to_owned(), key, observations })
            .collect(),
        last_position: export.sighting.map(|sighting| wire::LastPosition {
            at: at(sighting.at),
            latitude: f64::from(sighting.latitude),
            longitude: f64::from(sighting.longitude),
        }),
        pace: Some(wire::Pace {
            at: at(pace.at),
            surprise: f64::from(pace.surprise),
            fast: f64::from(pace.fast),
            slow: f64::from(pace.slow),
            fast_mark: f64::from(pace.fast_mark),
            slow_mark: f64::from(pace.slow_mark),
        }),
    }
}
