//! The calls about the fleet: enrolment, posture, import, search. Each write is admitted and told of as in `service`.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::{
    Administration, Role,
    devices::{answer, changes, id, timestamp},
    ports::DeviceChanges,
    service::{Write, cut, failure, life, page_size, reason},
};
use crate::{
    device::{
        Devices as Registry, Filter, Found,
        enroll::{AuthorityError, EnrollError, Enrolled, Enrollment, Issue, Posture},
    },
    domain::{DeviceId, DeviceRecord, DeviceStatus, RevocationKind, UnixTime},
    store::StoreError,
    trust::device::State,
    wire::admin::{self as wire, devices_server::Devices},
};

/// Records in one import call, and how many are written at the same time.
const MAX_IMPORT: usize = 1000;
const AT_ONCE: usize = 32;

/// What the calls about the fleet work on.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub registry: Arc<Registry>,
    /// `None`: enrolment is not configured.
    pub enrollment: Option<Arc<Enrollment>>,
}

/// The service; a name of its own, since one process serves both on one port.
#[derive(Clone, Debug)]
pub(super) struct FleetService(pub(super) Arc<Administration>);

impl Administration {
    fn fleet(&self) -> Result<&Fleet, Status> {
        self.fleet.as_ref().ok_or_else(|| Status::unimplemented("this process has no registry of devices"))
    }

    fn enrollment(&self) -> Result<&Enrollment, Status> {
        let enrollment = self.fleet()?.enrollment.as_deref();
        enrollment.ok_or_else(|| Status::failed_precondition("enrolment is off: set `devices.enrollment`"))
    }
}

fn device(id: &str) -> String {
    format!("device:{}", cut(id))
}

#[tonic::async_trait]
impl Devices for FleetService {
    async fn create_enrollment_code(
        &self,
        request: Request<wire::CreateEnrollmentCodeRequest>,
    ) -> Result<Response<wire::EnrollmentCode>, Status> {
        let what = Write { action: "device.code", target: format!("user:{}", cut(&request.get_ref().user)) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    let device_id = named(&asked.device_id);
                    detail.push_str(device_id.unwrap_or_default());
                    let life = asked.life.map(life).transpose()?;
                    let made = desk.enrollment()?.invite(&asked.user, device_id, life).await;
                    let (code, expires) = made.map_err(|error| refused(&error))?;
                    Ok(wire::EnrollmentCode { code: code.expose().to_owned(), expires: Some(timestamp(expires)) })
                })
            })
            .await
    }

    async fn enroll(&self, request: Request<wire::EnrollRequest>) -> Result<Response<wire::Enrolled>, Status> {
        let what = Write { action: "device.enroll", target: device(&request.get_ref().device_id) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    let posture = posture(asked.posture);
                    let enrollment = desk.enrollment()?;
                    let enrolled =
                        enrollment.enroll_as_operator(&asked.user, named(&asked.device_id), &asked.csr, &posture).await;
                    let enrolled = enrolled.map_err(|error| refused(&error))?;
                    *detail = format!("{} of {}", enrolled.id, cut(&asked.user));
                    Ok(granted(enrolled, enrollment))
                })
            })
            .await
    }

    async fn renew(&self, request: Request<wire::RenewRequest>) -> Result<Response<wire::Enrolled>, Status> {
        let what = Write { action: "device.renew", target: device(&request.get_ref().device_id) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, _| {
                Box::pin(async move {
                    let (id, posture) = (DeviceId::from(id(&asked.device_id)?), posture(asked.posture));
                    let enrollment = desk.enrollment()?;
                    let renewed = enrollment.renew_as_operator(&id, &asked.csr, &posture).await;
                    Ok(granted(renewed.map_err(|error| refused(&error))?, enrollment))
                })
            })
            .await
    }

    async fn update_posture(
        &self,
        request: Request<wire::UpdatePostureRequest>,
    ) -> Result<Response<wire::PostureResult>, Status> {
        let what = Write { action: "device.posture", target: device(&request.get_ref().device_id) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    let id = DeviceId::from(id(&asked.device_id)?);
                    let posture = posture(asked.posture);
                    if let Some(field) = posture.malformed() {
                        return Err(Status::invalid_argument(format!("`{field}` cannot be read")));
                    }
                    let updated = desk.fleet()?.registry.update_posture(&id, posture).await;
                    let (record, issues) = updated.map_err(|error| failure(&error))?.ok_or_else(|| unknown(&id))?;
                    let codes: Vec<&str> = issues.iter().map(|issue| issue.code).collect();
                    *detail = if codes.is_empty() { "compliant".to_owned() } else { codes.join(", ") };
                    let issues = issues.into_iter().map(spoken).collect();
                    Ok(wire::PostureResult { device: Some(answer(&id, &record)), issues })
                })
            })
            .await
    }

    async fn import(&self, request: Request<wire::ImportRequest>) -> Result<Response<wire::ImportResponse>, Status> {
        let devices = &request.get_ref().devices;
        let ends = devices.first().zip(devices.last());
        let ends = ends.map(|(first, last)| format!("{}..{}", cut(&first.id), cut(&last.id))).unwrap_or_default();
        let what = Write { action: "device.import", target: format!("devices:{ends}") };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    if asked.devices.len() > MAX_IMPORT {
                        return Err(Status::invalid_argument(format!("at most {MAX_IMPORT} devices in one call")));
                    }
                    let answer = import(&desk.fleet()?.registry, asked.devices).await?;
                    *detail = format!("{} written, {} refused", answer.written, answer.refused.len());
                    Ok(answer)
                })
            })
            .await
    }

    async fn search(&self, request: Request<wire::SearchRequest>) -> Result<Response<wire::SearchResponse>, Status> {
        self.0.reader(&request)?;
        let asked = request.into_inner();
        let state = match asked.state.as_str() {
            "" => None,
            word => Some(State::parse(word).ok_or_else(|| {
                Status::invalid_argument("`state` is `provisional`, `trusted`, `suspended` or `revoked`")
            })?),
        };
        let filter = Filter {
            user: named(&asked.user).map(str::to_owned),
            state,
            compliant: asked.compliant,
            id_prefix: asked.id_prefix,
            seen_before: asked.seen_before.map(time),
            seen_after: asked.seen_after.map(time),
        };
        let registry = &self.0.fleet()?.registry;
        let found = registry.search(&filter, &asked.page_token, page_size(asked.page_size)).await;
        let (found, next) = found.map_err(|error| failure(&error))?;
        let devices = if asked.as_written {
            written(registry, &found).await.map_err(|error| failure(&error))?
        } else {
            found.iter().map(shown).collect()
        };
        Ok(Response::new(wire::SearchResponse { devices, next_page_token: next.unwrap_or_default() }))
    }

    async fn summary(&self, request: Request<wire::SummaryRequest>) -> Result<Response<wire::SummaryResponse>, Status> {
        self.0.reader(&request)?;
        let Some(census) = self.0.fleet()?.registry.census() else {
            return Ok(Response::new(wire::SummaryResponse::default()));
        };
        let census = census.as_ref().clone();
        Ok(Response::new(wire::SummaryResponse {
            counted: Some(timestamp(census.counted)),
            devices: census.devices,
            by_state: census.by_state.into_iter().collect(),
            by_compliance: census.by_compliance.into_iter().collect(),
            malformed: census.malformed,
        }))
    }

    async fn revoke_device(
        &self,
        request: Request<wire::RevokeDeviceRequest>,
    ) -> Result<Response<wire::Device>, Status> {
        let what = Write { action: "device.revoke", target: device(&request.get_ref().id) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    let (id, reason) = (id(&asked.id)?, reason(&asked.reason)?);
                    reason.clone_into(detail);
                    // The revocation first: it holds without a record, and where the second step fails.
                    let revoked = desk.revocations.revoke(RevocationKind::Device, id, reason, None).await;
                    revoked.map_err(|error| failure(&error))?;
                    desk.set_status(&DeviceId::from(id), "revoked", reason).await
                })
            })
            .await
    }

    async fn activate_device(
        &self,
        request: Request<wire::ActivateDeviceRequest>,
    ) -> Result<Response<wire::Device>, Status> {
        let what = Write { action: "device.activate", target: device(&request.get_ref().id) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    let (id, reason) = (id(&asked.id)?, reason(&asked.reason)?);
                    reason.clone_into(detail);
                    let written = desk.set_status(&DeviceId::from(id), "active", reason).await?;
                    let undone = desk.revocations.reinstate(RevocationKind::Device, id, reason).await;
                    undone.map_err(|error| failure(&error))?;
                    Ok(written)
                })
            })
            .await
    }
}

impl Administration {
    /// Of a device that is registered; one that is not stays so.
    async fn set_status(&self, id: &DeviceId, status: &str, reason: &str) -> Result<wire::Device, Status> {
        let registry = &self.fleet()?.registry;
        let because = [("status", status), ("status_reason", reason)];
        let written = if reason.trim().is_empty() {
            registry.write(id, &because[..1], &["status_reason"]).await
        } else {
            registry.write(id, &because, &[]).await
        };
        match written.map_err(|error| failure(&error))? {
            Some(record) => Ok(answer(id, &record)),
            None if status == "revoked" => {
                Ok(answer(id, &DeviceRecord { status: DeviceStatus::Revoked, ..DeviceRecord::default() }))
            }
            None => Err(unknown(id)),
        }
    }
}

/// Writes what can be written; the rest is named. A store that fails ends it: nothing is known of what was under way.
async fn import(registry: &Registry, devices: Vec<wire::Device>) -> Result<wire::ImportResponse, Status> {
    let mut response = wire::ImportResponse::default();
    let mut sound = Vec::with_capacity(devices.len());
    for (index, device) in (0..).zip(devices) {
        match id(&device.id).and_then(|id| Ok((DeviceId::from(id), changes(&device, &[])?))) {
            Ok((_, changes)) if changes.set.is_empty() => {
                let message = "no field is set".to_owned();
                response.refused.push(wire::import_response::Refused { index, message });
            }
            Ok((id, changes)) => sound.push((index, id, changes)),
            Err(status) => {
                let message = status.message().to_owned();
                response.refused.push(wire::import_response::Refused { index, message });
            }
        }
    }
    let writes = sound.into_iter().map(|(index, id, changes)| put(registry, index, id, changes));
    let mut writes = stream::iter(writes).buffer_unordered(AT_ONCE);
    while let Some((index, written)) = writes.next().await {
        match written {
            Ok(()) => response.written += 1,
            Err(error) if error.is_transient() => return Err(failure(&error)),
            Err(error) => {
                response.refused.push(wire::import_response::Refused { index, message: error.to_string() });
            }
        }
    }
    response.refused.sort_by_key(|refused| refused.index);
    Ok(response)
}

async fn put(registry: &Registry, index: u32, id: DeviceId, changes: DeviceChanges) -> (u32, Result<(), StoreError>) {
    let set: Vec<(&str, &str)> = changes.set.iter().map(|(name, value)| (*name, value.as_str())).collect();
    (index, registry.import(&id, &set, &changes.clear).await)
}

fn named(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn posture(posture: Option<wire::Posture>) -> Posture {
    let told = posture.unwrap_or_default();
    Posture {
        managed: told.managed,
        disk_encrypted: told.disk_encrypted,
        screen_lock: told.screen_lock,
        antivirus: told.antivirus,
        jailbroken: told.jailbroken,
        os: told.os,
        os_version: told.os_version,
        patch_level: told.patch_level,
    }
}

fn granted(enrolled: Enrolled, enrollment: &Enrollment) -> wire::Enrolled {
    wire::Enrolled {
        device: Some(answer(&enrolled.id, &enrolled.record)),
        expires: Some(timestamp(enrolled.certificate.expires)),
        certificate: enrolled.certificate.pem,
        authority: enrollment.authority().pem().to_owned(),
        renew_after: Some(timestamp(enrolled.renew_after)),
    }
}

fn shown(found: &Found) -> wire::search_response::Found {
    let line = |line: &crate::trust::device::Line| wire::Line {
        name: line.name.to_owned(),
        points: line.points,
        evidence: String::new(),
    };
    wire::search_response::Found {
        device: Some(answer(&found.id, &found.record)),
        state: found.state.as_str().to_owned(),
        trust: found.trust.get(),
        trust_lines: found.lines.iter().map(line).collect(),
        last_seen: found.last_seen.map(timestamp),
        posture_stale: found.posture_stale,
    }
}

/// With the records as they are written. One that is gone, or cannot be read, since it was found is left out.
async fn written(registry: &Registry, found: &[Found]) -> Result<Vec<wire::search_response::Found>, StoreError> {
    let reads: Vec<_> = found.iter().map(|found| registry.as_written(&found.id)).collect();
    let records: Vec<_> = stream::iter(reads).buffered(AT_ONCE).collect().await;
    let mut devices = Vec::with_capacity(found.len());
    for (found, record) in found.iter().zip(records) {
        match record {
            Ok(Some((record, said))) => {
                let device = wire::Device { said: said.into_iter().collect(), ..answer(&found.id, &record) };
                devices.push(wire::search_response::Found { device: Some(device), ..shown(found) });
            }
            Err(error) if error.is_transient() => return Err(error),
            Ok(None) | Err(_) => {}
        }
    }
    Ok(devices)
}

fn spoken(issue: Issue) -> wire::Issue {
    wire::Issue { code: issue.code.to_owned(), message: issue.message, remediation: issue.remediation }
}

fn time(time: prost_types::Timestamp) -> UnixTime {
    UnixTime::from_secs(u64::try_from(time.seconds).unwrap_or(0))
}

fn unknown(id: &DeviceId) -> Status {
    Status::not_found(format!("device `{id}` is not registered"))
}

/// A refusal to enrol, as a status.
fn refused(error: &EnrollError) -> Status {
    let message = error.to_string();
    match error {
        EnrollError::Request(_) | EnrollError::Posture(_) | EnrollError::Id | EnrollError::User | EnrollError::Life => {
            Status::invalid_argument(message)
        }
        EnrollError::NotEnrolled => Status::not_found(message),
        EnrollError::Store(error) => failure(error),
        EnrollError::Changed => Status::aborted(message),
        EnrollError::Authority(AuthorityError::Over) => Status::failed_precondition(message),
        EnrollError::Authority(_) | EnrollError::Random => Status::internal(message),
        _ => Status::failed_precondition(message),
    }
}
