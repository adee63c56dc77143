//! The calls: who may, what is asked, what is done, what is told of it.

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use prost::Message as _;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::{
    Access, Role,
    access::{Actor, Denied},
    devices::{answer, changes, id, timestamp},
    fleet::Fleet,
    ports::{Devices, Explainer, Instance, Journal, RevocationEntry, Revocations},
    sessions::SessionDesk,
};
use crate::{
    behavior::Behaviors,
    clock::Clock,
    domain::{DecisionId, DeviceId, DeviceRecord, DeviceStatus, RevocationKind},
    store::{StoreError, StoreErrorKind},
    telemetry::audit::AdminRecord,
    wire::admin::{
        DeleteDeviceRequest, DeleteDeviceResponse, Device, ExplainRequest, Explanation, GetDeviceRequest, Kind,
        ListDevicesRequest, ListDevicesResponse, ListRevocationsRequest, ListRevocationsResponse, PutDeviceRequest,
        ReinstateRequest, ReinstateResponse, Revocation, RevokeRequest, RevokeResponse, StatusRequest, StatusResponse,
        SuspendDeviceRequest, admin_server::Admin, explain_request::What,
    },
};

const MAX_REASON: usize = 256;
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// The service and what it administers.
#[derive(Debug)]
pub struct Administration {
    pub access: Access,
    pub clock: Clock,
    pub revocations: Arc<dyn Revocations>,
    pub devices: Arc<dyn Devices>,
    pub explainer: Arc<dyn Explainer>,
    pub instance: Arc<dyn Instance>,
    pub journal: Arc<dyn Journal>,
    /// The registry for the calls about the fleet; `None`: they are not served.
    pub fleet: Option<Fleet>,
    /// `None`: behaviour is not looked at.
    pub behaviors: Option<Arc<Behaviors>>,
    /// Sessions, likewise.
    pub sessions: Option<SessionDesk>,
    /// Writes that are under way, whether or not anybody still waits for their answer.
    pub writes: TaskTracker,
}

/// The service; a name of its own, since one process serves several on one port.
#[derive(Clone, Debug)]
pub(super) struct AdminService(pub(super) Arc<Administration>);

impl Administration {
    pub(super) fn reader<T>(&self, request: &Request<T>) -> Result<Actor, Status> {
        self.access.admit(request, Role::Reader).map_err(|denied| denied.status)
    }

    /// Admits a write, does it, and tells of it: done, refused or failed. Once it has begun it goes on to its end and its record,
    /// also when the caller has hung up or his time is over.
    pub(super) async fn write<T, R, W>(
        self: &Arc<Self>,
        request: Request<T>,
        needed: Role,
        what: Write,
        work: W,
    ) -> Result<Response<R>, Status>
    where
        T: Send + 'static,
        R: Send + 'static,
        W: for<'w> FnOnce(&'w Self, T, &'w mut String) -> BoxFuture<'w, Result<R, Status>> + Send + 'static,
    {
        let actor = match self.access.admit_and_record(&request, needed) {
            Ok(actor) => actor,
            Err(Denied { actor, peer, status, record }) => {
                if record.is_some() {
                    let actor = Actor { name: actor, role: Role::Reader, peer };
                    self.record(actor, what, "refused", record);
                }
                return Err(status);
            }
        };
        let desk = Arc::clone(self);
        let written = self.writes.spawn(async move {
            let mut detail = String::new();
            let work = work(&desk, request.into_inner(), &mut detail);
            // A defect of ours is no reason to keep quiet about what may have been written.
            let result = AssertUnwindSafe(work).catch_unwind().await;
            let result = result.unwrap_or_else(|_| Err(Status::internal("the write broke off: see the log")));
            let (outcome, detail) = match &result {
                Ok(_) => ("done", Some(detail).filter(|detail| !detail.is_empty())),
                Err(status) => ("failed", Some(status.message().to_owned())),
            };
            desk.record(actor, what, outcome, detail);
            result.map(Response::new)
        });
        written.await.unwrap_or_else(|_| Err(Status::unavailable("the process ends")))
    }

    fn record(&self, actor: Actor, what: Write, outcome: &str, detail: Option<String>) {
        self.journal.record(AdminRecord {
            at: self.clock.now(),
            actor: actor.name,
            peer: actor.peer.map(|peer| peer.to_string()),
            action: what.action.to_owned(),
            target: what.target,
            outcome: outcome.to_owned(),
            detail,
        });
    }

    async fn known(&self, id: &DeviceId) -> Result<DeviceRecord, Status> {
        self.devices
            .get(id)
            .await
            .map_err(|error| failure(&error))?
            .ok_or_else(|| Status::not_found(format!("device `{id}` is not registered")))
    }
}

/// What a write is called in the audit record.
pub(super) struct Write {
    pub(super) action: &'static str,
    pub(super) target: String,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let what = Write { action: "revoke", target: target(request.get_ref().kind, &request.get_ref().id) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    let (kind, id, reason) = (kind(asked.kind)?, id(&asked.id)?, reason(&asked.reason)?);
                    let life = asked.life.map(life).transpose()?;
                    reason.clone_into(detail);
                    let entry =
                        desk.revocations.revoke(kind, id, reason, life).await.map_err(|error| failure(&error))?;
                    Ok(RevokeResponse { revocation: Some(spoken(entry)) })
                })
            })
            .await
    }

    async fn reinstate(&self, request: Request<ReinstateRequest>) -> Result<Response<ReinstateResponse>, Status> {
        let what = Write { action: "reinstate", target: target(request.get_ref().kind, &request.get_ref().id) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    let (kind, id, reason) = (kind(asked.kind)?, id(&asked.id)?, reason(&asked.reason)?);
                    reason.clone_into(detail);
                    let was_revoked =
                        desk.revocations.reinstate(kind, id, reason).await.map_err(|error| failure(&error))?;
                    Ok(ReinstateResponse { was_revoked })
                })
            })
            .await
    }

    async fn list_revocations(
        &self,
        request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        self.0.reader(&request)?;
        let asked = request.into_inner();
        let kind = if asked.kind == 0 { None } else { Some(kind(asked.kind)?) };
        let count = page_size(asked.page_size);
        let (entries, next) = self
            .0
            .revocations
            .list(kind, &asked.contains, &asked.page_token, count)
            .await
            .map_err(|error| failure(&error))?;
        Ok(Response::new(ListRevocationsResponse {
            revocations: entries.into_iter().map(spoken).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn put_device(&self, request: Request<PutDeviceRequest>) -> Result<Response<Device>, Status> {
        let named = request.get_ref().device.as_ref().map(|device| device.id.clone()).unwrap_or_default();
        let what = Write { action: "device.put", target: format!("device:{}", cut(&named)) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    let device = asked.device.ok_or_else(|| Status::invalid_argument("`device` is missing"))?;
                    let changes = changes(&device, &asked.clear)?;
                    let id = DeviceId::from(id(&device.id)?);
                    if asked.create_only && desk.devices.get(&id).await.map_err(|error| failure(&error))?.is_some() {
                        return Err(Status::already_exists(format!("device `{id}` is registered already")));
                    }
                    if changes.set.is_empty() && changes.clear.is_empty() {
                        return Err(Status::invalid_argument("no field is set"));
                    }
                    let names = changes.set.iter().map(|(name, _)| *name).chain(changes.clear.iter().copied());
                    *detail = names.collect::<Vec<_>>().join(", ");
                    let record = desk.devices.write(&id, &changes).await.map_err(|error| failure(&error))?;
                    Ok(answer(&id, &record))
                })
            })
            .await
    }

    async fn get_device(&self, request: Request<GetDeviceRequest>) -> Result<Response<Device>, Status> {
        self.0.reader(&request)?;
        let id = DeviceId::from(id(&request.get_ref().id)?);
        let record = self.0.known(&id).await?;
        Ok(Response::new(answer(&id, &record)))
    }

    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        self.0.reader(&request)?;
        let asked = request.into_inner();
        if !asked.status.is_empty() && DeviceStatus::parse(&asked.status).is_none() {
            return Err(Status::invalid_argument("`status` must be `active`, `suspended` or `revoked`"));
        }
        let count = page_size(asked.page_size);
        let (found, next) =
            self.0.devices.list(&asked.id_prefix, &asked.page_token, count).await.map_err(|error| failure(&error))?;
        let devices =
            found.iter().filter(|(_, record)| matches(&asked, record)).map(|(id, record)| answer(id, record)).collect();
        Ok(Response::new(ListDevicesResponse { devices, next_page_token: next.unwrap_or_default() }))
    }

    async fn suspend_device(&self, request: Request<SuspendDeviceRequest>) -> Result<Response<Device>, Status> {
        let what = Write { action: "device.suspend", target: format!("device:{}", cut(&request.get_ref().id)) };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    reason(&asked.reason)?.clone_into(detail);
                    let id = DeviceId::from(id(&asked.id)?);
                    desk.known(&id).await?;
                    let reason = Some(asked.reason).filter(|reason| !reason.trim().is_empty());
                    let device =
                        Device { status: Some("suspended".into()), status_reason: reason, ..Device::default() };
                    let clear =
                        if device.status_reason.is_none() { vec!["status_reason".to_owned()] } else { Vec::new() };
                    let changes = changes(&device, &clear)?;
                    let record = desk.devices.write(&id, &changes).await.map_err(|error| failure(&error))?;
                    Ok(answer(&id, &record))
                })
            })
            .await
    }

    async fn delete_device(
        &self,
        request: Request<DeleteDeviceRequest>,
    ) -> Result<Response<DeleteDeviceResponse>, Status> {
        let what = Write { action: "device.delete", target: format!("device:{}", cut(&request.get_ref().id)) };
        self.0
            .write(request, Role::Admin, what, |desk, asked, _| {
                Box::pin(async move {
                    let id = DeviceId::from(id(&asked.id)?);
                    if desk.devices.delete(&id).await.map_err(|error| failure(&error))? {
                        return Ok(DeleteDeviceResponse {});
                    }
                    Err(Status::not_found(format!("device `{id}` is not registered")))
                })
            })
            .await
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<Explanation>, Status> {
        self.0.reader(&request)?;
        let ExplainRequest { what, client_address } = request.into_inner();
        let client = client_address.map(|text| text.parse::<IpAddr>()).transpose();
        let client = client.map_err(|_| Status::invalid_argument("`client_address` is no IP address"))?;
        let explanation = match what {
            Some(What::Request(check)) => self.0.explainer.explain(&check.encode_to_vec(), client).await,
            Some(What::DecisionId(text)) => {
                let id = DecisionId::parse(&text)
                    .ok_or_else(|| Status::invalid_argument("a decision id is 32 hexadecimal digits"))?;
                self.0.explainer.recorded(id).await.ok_or_else(|| {
                    Status::not_found(format!("decision {id} is not remembered here: look it up in the audit records"))
                })?
            }
            None => return Err(Status::invalid_argument("`request` or `decision_id` is needed")),
        };
        Ok(Response::new(explanation))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.0.reader(&request)?;
        Ok(Response::new(self.0.instance.status().await))
    }
}

fn kind(kind: i32) -> Result<RevocationKind, Status> {
    match Kind::try_from(kind) {
        Ok(Kind::Token) => Ok(RevocationKind::Token),
        Ok(Kind::Session) => Ok(RevocationKind::Session),
        Ok(Kind::Subject) => Ok(RevocationKind::Subject),
        Ok(Kind::Device) => Ok(RevocationKind::Device),
        Ok(Kind::Unspecified) | Err(_) => {
            Err(Status::invalid_argument("`kind` must be KIND_TOKEN, KIND_SESSION, KIND_SUBJECT or KIND_DEVICE"))
        }
    }
}

const fn spoken_kind(kind: RevocationKind) -> Kind {
    match kind {
        RevocationKind::Token => Kind::Token,
        RevocationKind::Session => Kind::Session,
        RevocationKind::Subject => Kind::Subject,
        RevocationKind::Device => Kind::Device,
    }
}

fn spoken(entry: RevocationEntry) -> Revocation {
    Revocation {
        kind: spoken_kind(entry.kind).into(),
        id: entry.id,
        reason: entry.reason,
        issued_until: entry.issued_until.map(timestamp),
        expires: entry.expires.map(timestamp),
    }
}

/// How the audit record names what was revoked. A token's id is hashed there: whoever reads records shall not use it.
fn target(asked: i32, id: &str) -> String {
    match kind(asked) {
        Ok(RevocationKind::Token) => {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
            format!("jti:sha256:{}", hex::encode(hash))
        }
        Ok(kind) => format!("{}:{}", kind.as_str(), cut(id)),
        Err(_) => "?".to_owned(),
    }
}

/// As much of what was sent as a record needs.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

pub(super) fn reason(text: &str) -> Result<&str, Status> {
    if text.chars().count() <= MAX_REASON && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    Err(Status::invalid_argument(format!("`reason` must be at most {MAX_REASON} characters on one line")))
}

pub(super) fn life(life: prost_types::Duration) -> Result<Duration, Status> {
    let life = Duration::try_from(life).map_err(|_| Status::invalid_argument("`life` must not be negative"))?;
    if life < Duration::from_secs(1) {
        return Err(Status::invalid_argument("`life` must be at least 1s"));
    }
    Ok(life)
}

pub(super) fn page_size(asked: u32) -> usize {
    if asked == 0 { DEFAULT_PAGE } else { usize::try_from(asked).map_or(MAX_PAGE, |size| size.min(MAX_PAGE)) }
}

fn matches(asked: &ListDevicesRequest, record: &DeviceRecord) -> bool {
    let user = asked.user.is_empty() || record.user.as_ref().is_some_and(|user| user.as_str() == asked.user);
    let status = asked.status.is_empty() || DeviceStatus::parse(&asked.status) == Some(record.status);
    let compliant = asked.compliant.is_none() || record.compliant == asked.compliant;
    user && status && compliant
}

/// What went wrong at the store, as a status. Its detail never holds a value or a credential.
pub(super) fn failure(error: &StoreError) -> Status {
    let message = error.to_string();
    match error.kind {
        StoreErrorKind::Unreachable | StoreErrorKind::Timeout => Status::unavailable(message),
        StoreErrorKind::Malformed => Status::data_loss(message),
        StoreErrorKind::Refused => Status::failed_precondition(message),
        // No scan of ours has another cursor than the caller's.
        StoreErrorKind::Cursor => Status::invalid_argument("`page_token` must be a `next_page_token` of the same list"),
    }
}
