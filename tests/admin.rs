//! The admin API over a real connection: who may do what, what is told of it, and what it answers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use countersign::{
    admin::{
        Access, Administration, ClientSettings, Error, Port, Role, Settings, TokenSettings, make_token,
        ports::{DeviceChanges, Devices, Explainer, Instance, Journal, Page, RevocationEntry, Revocations},
    },
    clock::Clock,
    domain::{DecisionId, DeviceId, DeviceRecord, DeviceStatus, RevocationKind, Secret, UnixTime},
    store::{StoreError, StoreErrorKind},
    telemetry::audit::AdminRecord,
    tls::{Files, Tls},
    wire::{
        admin::{
            DeleteDeviceRequest, Device, ExplainRequest, Explanation, ExportProfileRequest, GetDeviceRequest, Kind,
            ListDevicesRequest, ListRevocationsRequest, Overview, PutDeviceRequest, ReinstateRequest, RevokeRequest,
            StatusRequest, StatusResponse, SuspendDeviceRequest, admin_client::AdminClient,
            behavior_client::BehaviorClient, explain_request::What,
        },
        owned,
    },
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Code, Request,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

const ADMIN: &str = "cst_test_admin_0123456789";
const OPERATOR: &str = "cst_test_operator_0123456789";
const READER: &str = "cst_test_reader_0123456789";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Everything behind the API, as maps.
#[derive(Debug, Default)]
struct World {
    revoked: Mutex<BTreeMap<(RevocationKind, String), RevocationEntry>>,
    devices: Mutex<BTreeMap<String, DeviceRecord>>,
    records: Mutex<Vec<AdminRecord>>,
    explained: Mutex<Vec<(Vec<u8>, Option<IpAddr>)>>,
    down: Mutex<bool>,
    gate: Mutex<Option<Arc<Gate>>>,
}

/// What holds revocations up.
#[derive(Debug, Default)]
struct Gate {
    reached: Notify,
    opened: Notify,
}

impl World {
    fn up(&self) -> Result<(), StoreError> {
        if *self.down.lock() { Err(StoreError::new(StoreErrorKind::Unreachable, "no connection")) } else { Ok(()) }
    }

    fn told(&self) -> Vec<String> {
        let records = self.records.lock();
        records
            .iter()
            .map(|r| {
                format!("{} {} {} {} {}", r.actor, r.action, r.target, r.outcome, r.detail.as_deref().unwrap_or("-"))
            })
            .collect()
    }
}

#[async_trait]
impl Revocations for World {
    async fn revoke(
        &self,
        kind: RevocationKind,
        id: &str,
        reason: &str,
        life: Option<Duration>,
    ) -> Result<RevocationEntry, StoreError> {
        self.up()?;
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.opened.notified().await;
        }
        let expires = life.map(|life| UnixTime::from_secs(1000).plus(life));
        let entry = RevocationEntry { kind, id: id.into(), reason: reason.into(), issued_until: None, expires };
        self.revoked.lock().insert((kind, id.into()), entry.clone());
        Ok(entry)
    }

    async fn reinstate(&self, kind: RevocationKind, id: &str, _: &str) -> Result<bool, StoreError> {
        self.up()?;
        Ok(self.revoked.lock().remove(&(kind, id.into())).is_some())
    }

    async fn list(
        &self,
        kind: Option<RevocationKind>,
        contains: &str,
        after: &str,
        count: usize,
    ) -> Result<Page<RevocationEntry>, StoreError> {
        let revoked = self.revoked.lock();
        let matching = revoked.values().filter(|e| kind.is_none_or(|kind| kind == e.kind) && e.id.contains(contains));
        let mut rest = matching.filter(|e| e.id.as_str() > after);
        let page: Vec<_> = rest.by_ref().take(count).cloned().collect();
        let next = rest.next().and(page.last()).map(|last| last.id.clone());
        Ok((page, next))
    }
}

#[async_trait]
impl Devices for World {
    async fn get(&self, id: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        self.up()?;
        Ok(self.devices.lock().get(id.as_str()).cloned())
    }

    async fn write(&self, id: &DeviceId, changes: &DeviceChanges) -> Result<DeviceRecord, StoreError> {
        self.up()?;
        let mut devices = self.devices.lock();
        let record = devices.entry(id.as_str().into()).or_default();
        for (name, value) in &changes.set {
            match *name {
                "user" => record.user = Some(value.as_str().into()),
                "cert_sha256" => record.cert_sha256 = Some(value.as_str().into()),
                "compliant" => record.compliant = value.parse().ok(),
                "status" => record.status = DeviceStatus::parse(value).unwrap(),
                "status_reason" => assert_eq!(value, "lost"),
                other => panic!("{other}"),
            }
        }
        for name in &changes.clear {
            assert_eq!(*name, "compliant");
            record.compliant = None;
        }
        Ok(record.clone())
    }

    async fn delete(&self, id: &DeviceId) -> Result<bool, StoreError> {
        Ok(self.devices.lock().remove(id.as_str()).is_some())
    }

    async fn list(
        &self,
        prefix: &str,
        cursor: &str,
        count: usize,
    ) -> Result<Page<(DeviceId, DeviceRecord)>, StoreError> {
        let devices = self.devices.lock();
        if !cursor.is_empty() && !devices.contains_key(cursor) {
            return Err(StoreError::new(StoreErrorKind::Cursor, "of another list"));
        }
        let mut rest = devices.iter().filter(|(id, _)| id.starts_with(prefix) && id.as_str() > cursor);
        let page: Vec<_> = rest.by_ref().take(count).map(|(id, r)| (DeviceId::from(id.as_str()), r.clone())).collect();
        let next = rest.next().and(page.last()).map(|(id, _)| id.as_str().to_owned());
        Ok((page, next))
    }
}

#[async_trait]
impl Explainer for World {
    async fn explain(&self, request: &[u8], client: Option<IpAddr>) -> Explanation {
        self.explained.lock().push((request.to_vec(), client));
        Explanation { verdict: "deny".into(), ..Explanation::default() }
    }

    async fn recorded(&self, id: DecisionId) -> Option<Explanation> {
        (id == DecisionId::new(0, 7)).then(|| Explanation { recorded: true, ..Explanation::default() })
    }
}

#[async_trait]
impl Instance for World {
    async fn status(&self) -> StatusResponse {
        StatusResponse { ready: true, ..StatusResponse::default() }
    }

    async fn overview(&self) -> Overview {
        Overview::default()
    }
}

impl Journal for World {
    fn record(&self, record: AdminRecord) {
        self.records.lock().push(record);
    }
}

struct Server {
    world: Arc<World>,
    address: SocketAddr,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<Result<(), Error>>,
}

fn settings(folder: &tempfile::TempDir) -> Settings {
    let file = folder.path().join("operator");
    fs::write(&file, format!("{OPERATOR}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, READER.as_bytes());
    let tokens = vec![
        TokenSettings { name: "ci".into(), role: Role::Operator, sha256: None, file: Some(file) },
        TokenSettings { name: "grafana".into(), role: Role::Reader, sha256: Some(hex::encode(hash)), file: None },
    ];
    let clients = vec![ClientSettings { name: "spiffe://example.org/ops".into(), role: Role::Operator }];
    Settings { state_dir: None, tokens, clients }
}

async fn start(tls: Option<Arc<Tls>>) -> Server {
    start_as_on(tls, LOOPBACK).await
}

/// As if the port were open on `listens`.
async fn start_as_on(tls: Option<Arc<Tls>>, listens: IpAddr) -> Server {
    let folder = tempfile::tempdir().unwrap();
    start_with(&settings(&folder), tls, listens).await
}

async fn start_with(settings: &Settings, tls: Option<Arc<Tls>>, listens: IpAddr) -> Server {
    let access = Access::new(settings, Some(&Secret::new(ADMIN)), listens).unwrap();
    let world = Arc::new(World::default());
    let administration = Administration {
        access,
        clock: Clock::manual(UnixTime::from_secs(1000)),
        revocations: Arc::clone(&world) as _,
        devices: Arc::clone(&world) as _,
        explainer: Arc::clone(&world) as _,
        instance: Arc::clone(&world) as _,
        journal: Arc::clone(&world) as _,
        fleet: None,
        behaviors: None,
        sessions: None,
        writes: TaskTracker::new(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let port = Port::new(listener, tls, true).unwrap();
    let done = tokio::spawn(port.serve(Arc::new(administration), stop.clone()));
    Server { world, address, stop, done }
}

impl Server {
    async fn client(&self) -> AdminClient<Channel> {
        AdminClient::new(Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap())
    }
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn revoke(id: &str) -> RevokeRequest {
    RevokeRequest { kind: Kind::Token.into(), id: id.into(), reason: "stolen".into(), life: None }
}

#[tokio::test]
async fn writes_need_a_token_and_reads_from_this_machine_do_not() {
    let server = start(None).await;
    let mut client = server.client().await;
    let refused = client.revoke(revoke("t1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("authorization: Bearer"), "{}", refused.message());
    assert!(server.world.revoked.lock().is_empty());
    assert!(client.status(StatusRequest {}).await.unwrap().get_ref().ready);
    assert_eq!(client.list_revocations(ListRevocationsRequest::default()).await.unwrap().get_ref().revocations, []);

    let entry = client.revoke(with(ADMIN, revoke("t1"))).await.unwrap().into_inner().revocation.unwrap();
    assert_eq!((entry.kind(), entry.id.as_str(), entry.reason.as_str()), (Kind::Token, "t1", "stolen"));
    let told = server.world.told();
    assert!(told[0].starts_with("local revoke jti:sha256:") && told[0].contains(" refused "), "{told:?}");
    assert!(told[1].starts_with("admin.token revoke jti:sha256:") && told[1].ends_with(" done stolen"), "{told:?}");
    assert!(!told.join("").contains("t1"), "a token's id is not for the records: {told:?}");
}

#[tokio::test]
async fn where_others_reach_the_port_this_machine_reads_nothing_without_credentials() {
    for (listens, reads) in
        [("0.0.0.0", false), ("192.0.2.7", false), ("::", false), ("::1", true), ("127.0.0.9", true)]
    {
        let server = start_as_on(None, listens.parse().unwrap()).await;
        let mut client = server.client().await;
        let told = client.status(StatusRequest {}).await.map_err(|refused| refused.code());
        assert_eq!(told.map(drop), if reads { Ok(()) } else { Err(Code::Unauthenticated) }, "{listens}");
        client.status(with(READER, StatusRequest {})).await.unwrap();
    }
}

#[tokio::test]
async fn a_role_may_what_it_says_and_no_more() {
    let server = start(None).await;
    let mut client = server.client().await;
    let refused = client.revoke(with(READER, revoke("t"))).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::PermissionDenied, "this needs role operator, and `grafana` has reader")
    );
    client.revoke(with(OPERATOR, revoke("t"))).await.unwrap();
    let device = Device { id: "d".into(), user: Some("u".into()), ..Device::default() };
    client.put_device(with(OPERATOR, PutDeviceRequest { device: Some(device), ..Default::default() })).await.unwrap();
    let delete = || DeleteDeviceRequest { id: "d".into() };
    assert_eq!(client.delete_device(with(OPERATOR, delete())).await.unwrap_err().code(), Code::PermissionDenied);
    client.delete_device(with(ADMIN, delete())).await.unwrap();
    assert_eq!(client.delete_device(with(ADMIN, delete())).await.unwrap_err().code(), Code::NotFound);
    let told = server.world.told();
    assert_eq!(told[0].split(' ').next(), Some("grafana"));
    assert_eq!(told[2], "ci device.put device:d done user");
    assert!(told[3].starts_with("ci device.delete device:d refused "), "{told:?}");
}

#[tokio::test]
async fn wrong_tokens_are_slowed_and_good_ones_are_not() {
    let server = start(None).await;
    let mut client = server.client().await;
    let mut codes = Vec::new();
    for _ in 0..40 {
        codes.push(client.revoke(with("cst_a_guess_of_some_length", revoke("t"))).await.unwrap_err().code());
    }
    assert_eq!(codes[0], Code::Unauthenticated);
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted));
    assert!(server.world.told().len() <= 15, "a flood must not fill the records");
    client.revoke(with(ADMIN, revoke("t"))).await.unwrap();
}

#[tokio::test]
async fn who_may_only_read_fills_no_disk_with_records() {
    let server = start(None).await;
    let mut client = server.client().await;
    for _ in 0..40 {
        assert_eq!(client.revoke(with(READER, revoke("t"))).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(client.revoke(revoke("t")).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let told = |actor: &str| server.world.told().iter().filter(|told| told.starts_with(actor)).count();
    assert_eq!((told("grafana "), told("local ")), (10, 10));

    // Beside those, and taking nothing off them.
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut client = BehaviorClient::new(endpoint.connect().await.unwrap());
    let mut export = async |token: &str| {
        let asked = ExportProfileRequest { issuer: "https://i".into(), subject: "ann".into() };
        client.export_profile(with(token, asked)).await.unwrap_err().code()
    };
    for _ in 0..10 {
        assert_eq!(export(READER).await, Code::FailedPrecondition, "there is no behaviour here");
    }
    assert_eq!((export(READER).await, export(OPERATOR).await), (Code::ResourceExhausted, Code::FailedPrecondition));
    assert_eq!(server.world.told().len(), 20 + 11);
}

#[tokio::test]
async fn an_empty_token_is_nobodys_whatever_hash_is_configured() {
    let nothing = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"");
    let token = TokenSettings { name: "ci".into(), role: Role::Admin, sha256: Some(hex::encode(nothing)), file: None };
    let settings = Settings { tokens: vec![token], ..Settings::default() };
    let server = start_with(&settings, None, LOOPBACK).await;
    let mut client = server.client().await;
    for token in ["", " ", "  "] {
        let refused = client.revoke(with(token, revoke("t"))).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "a token has 16 characters or more"));
    }
}

#[tokio::test]
async fn odd_authorization_is_refused_even_for_reads() {
    let server = start(None).await;
    let mut client = server.client().await;
    for value in ["Basic abc", "Bearer", "", "Bearer x"] {
        let mut request = Request::new(StatusRequest {});
        request.metadata_mut().insert("authorization", value.parse().unwrap());
        assert_eq!(client.status(request).await.unwrap_err().code(), Code::Unauthenticated, "{value}");
    }
    let mut twice = with(ADMIN, StatusRequest {});
    twice.metadata_mut().append("authorization", format!("Bearer {ADMIN}").parse().unwrap());
    assert_eq!(client.status(twice).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn what_is_asked_is_checked_and_the_answer_says_what_is_wrong() {
    let server = start(None).await;
    let mut client = server.client().await;
    let long = "x".repeat(257);
    for (asked, word) in [
        (RevokeRequest { kind: 0, id: "a".into(), ..Default::default() }, "kind"),
        (RevokeRequest { kind: 9, id: "a".into(), ..Default::default() }, "kind"),
        (RevokeRequest { kind: 1, id: String::new(), ..Default::default() }, "id"),
        (RevokeRequest { kind: 1, id: "a\nb".into(), ..Default::default() }, "id"),
        (RevokeRequest { kind: 1, id: long.clone(), ..Default::default() }, "id"),
        (RevokeRequest { kind: 1, id: "a".into(), reason: long, ..Default::default() }, "reason"),
        (
            RevokeRequest {
                kind: 1,
                id: "a".into(),
                life: Some(prost_types::Duration::default()),
                ..Default::default()
            },
            "life",
        ),
    ] {
        let refused = client.revoke(with(ADMIN, asked.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{asked:?}");
        assert!(refused.message().contains(word), "{}", refused.message());
    }
    let device = |change: fn(&mut Device)| {
        let mut device = Device { id: "d".into(), ..Device::default() };
        change(&mut device);
        PutDeviceRequest { device: Some(device), ..Default::default() }
    };
    for (asked, word) in [
        (PutDeviceRequest::default(), "device"),
        (device(|_| {}), "no field"),
        (device(|d| d.cert_sha256 = Some("abc".into())), "cert_sha256"),
        (device(|d| d.jkt = Some("abc".into())), "jkt"),
        (device(|d| d.status = Some("lost".into())), "status"),
        (device(|d| d.patch_level = Some("soon".into())), "patch_level"),
        (device(|d| d.trust_score = Some(f64::NAN)), "trust_score"),
        (device(|d| d.os = Some("a\u{1b}[2J".into())), "os"),
        (device(|d| d.id = " d".into()), "id"),
        (PutDeviceRequest { clear: vec!["colour".into()], ..device(|_| {}) }, "colour"),
        (PutDeviceRequest { clear: vec!["user".into()], ..device(|d| d.user = Some("u".into())) }, "both"),
    ] {
        let refused = client.put_device(with(ADMIN, asked.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{word}");
        assert!(refused.message().contains(word), "{word}: {}", refused.message());
    }
    assert!(server.world.devices.lock().is_empty() && server.world.revoked.lock().is_empty());
}

#[tokio::test]
async fn a_device_is_put_read_listed_suspended_and_cleared() {
    let server = start(None).await;
    let mut client = server.client().await;
    let certificate = "AB".repeat(32);
    for i in 0..5 {
        let device = Device {
            id: format!("laptop-{i}"),
            user: Some(if i < 3 { "ann" } else { "bob" }.into()),
            cert_sha256: Some(certificate.clone()),
            compliant: Some(i % 2 == 0),
            ..Device::default()
        };
        let put = PutDeviceRequest { device: Some(device), clear: vec![], create_only: true };
        let made = client.put_device(with(ADMIN, put.clone())).await.unwrap().into_inner();
        assert_eq!(made.cert_sha256, Some(certificate.to_ascii_lowercase()));
        assert_eq!(client.put_device(with(ADMIN, put)).await.unwrap_err().code(), Code::AlreadyExists);
    }
    let suspend = SuspendDeviceRequest { id: "laptop-0".into(), reason: "lost".into() };
    assert_eq!(client.suspend_device(with(OPERATOR, suspend)).await.unwrap().get_ref().status(), "suspended");
    let unknown = SuspendDeviceRequest { id: "nobody".into(), reason: String::new() };
    assert_eq!(client.suspend_device(with(OPERATOR, unknown)).await.unwrap_err().code(), Code::NotFound);
    let device = Some(Device { id: "laptop-1".into(), ..Device::default() });
    let clear = PutDeviceRequest { device, clear: vec!["compliant".into()], create_only: false };
    assert_eq!(client.put_device(with(OPERATOR, clear)).await.unwrap().get_ref().compliant, None);

    let get = client.get_device(GetDeviceRequest { id: "laptop-0".into() }).await.unwrap().into_inner();
    assert_eq!((get.user(), get.status()), ("ann", "suspended"));
    assert_eq!(client.get_device(GetDeviceRequest { id: "x".into() }).await.unwrap_err().code(), Code::NotFound);

    let mut asked = ListDevicesRequest { page_size: 2, ..Default::default() };
    let mut pages = Vec::new();
    loop {
        let page = client.list_devices(asked.clone()).await.unwrap().into_inner();
        pages.push(page.devices.iter().map(|d| d.id.clone()).collect::<Vec<_>>());
        asked.page_token = page.next_page_token;
        if asked.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [vec!["laptop-0", "laptop-1"], vec!["laptop-2", "laptop-3"], vec!["laptop-4"]]);
    let filtered =
        ListDevicesRequest { user: "ann".into(), status: "active".into(), compliant: Some(true), ..Default::default() };
    let found = client.list_devices(filtered).await.unwrap().into_inner().devices;
    assert_eq!(found.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["laptop-2"]);
    let weird = ListDevicesRequest { status: "weird".into(), ..Default::default() };
    let refused = client.list_devices(weird).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("`status`")), (Code::InvalidArgument, true));
    let elsewhere = ListDevicesRequest { page_token: "nonsense".into(), ..Default::default() };
    let refused = client.list_devices(elsewhere).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("`page_token`")), (Code::InvalidArgument, true));
}

#[tokio::test]
async fn a_store_that_is_down_is_unavailable_and_told_as_failed() {
    let server = start(None).await;
    let mut client = server.client().await;
    *server.world.down.lock() = true;
    assert_eq!(client.revoke(with(ADMIN, revoke("t"))).await.unwrap_err().code(), Code::Unavailable);
    assert!(server.world.told()[0].contains(" failed "), "{:?}", server.world.told());
}

#[tokio::test]
async fn reinstating_says_whether_there_was_something_to_take_back() {
    let server = start(None).await;
    let mut client = server.client().await;
    let asked = || ReinstateRequest { kind: Kind::Subject.into(), id: "ann".into(), reason: "cleared".into() };
    assert!(!client.reinstate(with(OPERATOR, asked())).await.unwrap().get_ref().was_revoked);
    let revoke = RevokeRequest { kind: Kind::Subject.into(), id: "ann".into(), ..Default::default() };
    client.revoke(with(OPERATOR, revoke)).await.unwrap();
    assert!(client.reinstate(with(OPERATOR, asked())).await.unwrap().get_ref().was_revoked);
    assert_eq!(server.world.told()[2], "ci reinstate sub:ann done cleared");
}

#[tokio::test]
async fn explain_takes_a_request_or_a_decision_id() {
    let server = start(None).await;
    let mut client = server.client().await;
    let http = owned::attribute_context::HttpRequest { method: "GET".into(), path: "/x".into(), ..Default::default() };
    let request = owned::attribute_context::Request { http: Some(http), ..Default::default() };
    let context = owned::AttributeContext { request: Some(request), ..Default::default() };
    let check = owned::CheckRequest { attributes: Some(context) };
    let asked = |client: Option<&str>| ExplainRequest {
        what: Some(What::Request(check.clone())),
        client_address: client.map(str::to_owned),
    };
    assert_eq!(client.explain(asked(None)).await.unwrap().get_ref().verdict, "deny");
    client.explain(asked(Some("203.0.113.7"))).await.unwrap();
    let from = |client: Option<&str>| (check.encode_to_vec(), client.map(|client| client.parse::<IpAddr>().unwrap()));
    assert_eq!(*server.world.explained.lock(), [from(None), from(Some("203.0.113.7"))]);
    assert_eq!(client.explain(asked(Some("home"))).await.unwrap_err().code(), Code::InvalidArgument);

    let by_id = |id: &str| ExplainRequest { what: Some(What::DecisionId(id.into())), client_address: None };
    assert!(client.explain(by_id(&DecisionId::new(0, 7).to_string())).await.unwrap().get_ref().recorded);
    let unknown = client.explain(by_id(&DecisionId::new(0, 8).to_string())).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(client.explain(by_id("x")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(client.explain(ExplainRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn it_does_not_listen_for_other_machines_without_a_guard() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = Port::new(listener, None, false).unwrap_err();
    assert!(matches!(error, Error::Unguarded(_)), "{error}");
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_found_before_anything_is_served() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let open = |key: &rcgen::KeyPair, ca: Option<&str>| {
        let files = tls_files(&folder, &certificate, &key.serialize_pem());
        ca.iter().for_each(|ca| fs::write(files.client_ca.as_ref().unwrap(), ca).unwrap());
        Tls::open("admin", Files { client_ca: files.client_ca.clone().filter(|_| ca.is_some()), ..files })
    };
    assert!(open(&key, None).is_ok());
    assert!(open(&key, Some(&certificate)).is_ok());
    let error = open(&rcgen::KeyPair::generate().unwrap(), None).unwrap_err();
    assert!(error.file.is_none() && error.why.contains("do not fit together"), "{error}");
    let error = open(&key, Some("no PEM")).unwrap_err();
    assert!(error.file.is_some_and(|file| file.ends_with("ca.pem")));
}

#[tokio::test]
async fn connections_that_say_nothing_take_a_bounded_number_of_places() {
    let server = start(None).await;
    let mut client = server.client().await;
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(server.address)).collect();
    let mut silent = futures_util::future::try_join_all(silent).await.unwrap();
    let mut turned_away = 0;
    for stream in &mut silent {
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 64])).await;
        turned_away += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert!(turned_away >= 200 - 128, "{turned_away}");
    assert!(client.status(StatusRequest {}).await.unwrap().get_ref().ready, "who came before is served");
    drop(silent);
    let newcomer = async {
        loop {
            let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
            if endpoint.connect().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), newcomer).await.unwrap();
}

#[tokio::test]
async fn a_write_whose_caller_hangs_up_is_done_and_recorded_all_the_same() {
    let server = start(None).await;
    let gate = Arc::<Gate>::default();
    *server.world.gate.lock() = Some(Arc::clone(&gate));
    let mut client = server.client().await;
    let mut caller = client.clone();
    let call = tokio::spawn(async move { caller.revoke(with(ADMIN, revoke("t1"))).await });
    gate.reached.notified().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // Behind the reset of that stream, on the same connection.
    assert!(client.status(StatusRequest {}).await.unwrap().get_ref().ready);
    drop(client);
    // What nobody waits for any more is waited for at the end.
    server.stop.cancel();
    gate.opened.notify_one();
    tokio::time::timeout(Duration::from_secs(5), server.done).await.unwrap().unwrap().unwrap();
    let told = server.world.told();
    assert!(matches!(&told[..], [one] if one.ends_with(" done stolen")), "{told:?}");
    assert_eq!(server.world.revoked.lock().len(), 1);
}

#[tokio::test]
async fn it_stops_when_told() {
    let server = start(None).await;
    let _client = server.client().await;
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.done).await.unwrap().unwrap().unwrap();
}

/// A certificate authority, and a certificate of it with `uri` and its key.
fn certificates(uri: &str) -> (String, String, String) {
    certificates_with(rcgen::SanType::URI(uri.try_into().unwrap()))
}

fn certificates_with(name: rcgen::SanType) -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.subject_alt_names.push(name);
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    (ca_pem, leaf.pem(), key.serialize_pem())
}

/// Writes the files of a port, but for `ca.pem`.
fn tls_files(folder: &tempfile::TempDir, certificate: &str, key: &str) -> Files {
    let path = |name: &str| folder.path().join(name);
    fs::write(path("tls.pem"), certificate).unwrap();
    fs::write(path("tls.key"), key).unwrap();
    Files { certificate: path("tls.pem"), key: path("tls.key"), client_ca: Some(path("ca.pem")) }
}

/// Whether somebody with this certificate, who trusts `server_ca`, is answered.
async fn answered(server: &Server, server_ca: &str, identity: Option<&Identity>) -> bool {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(server_ca)).domain_name("localhost");
    let tls = identity.iter().fold(tls, |tls, identity| tls.identity((*identity).clone()));
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap().tls_config(tls).unwrap();
    match endpoint.connect().await.map(AdminClient::new) {
        Ok(mut client) => client.revoke(revoke("t")).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_client_certificate_has_the_role_of_its_name_and_files_may_be_replaced() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (server_ca, certificate, key) = certificates("spiffe://example.org/countersign");
    let identity = |(ca, certificate, key): (String, String, String)| (ca, Identity::from_pem(certificate, key));
    let (client_ca, ops) = identity(certificates("spiffe://example.org/ops"));
    let (other_ca, stranger) = identity(certificates("spiffe://example.org/ops"));
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, &client_ca).unwrap();
    let tls = Tls::open("admin", tls_files(&folder, &certificate, &key)).unwrap();
    let server = start(Some(Arc::clone(&tls))).await;
    assert!(answered(&server, &server_ca, Some(&ops)).await);
    assert!(server.world.told()[0].starts_with("spiffe://example.org/ops revoke "));
    assert!(!answered(&server, &server_ca, Some(&stranger)).await, "a certificate of another authority");
    assert!(!answered(&server, &server_ca, None).await, "no certificate");

    // Files that cannot be used change nothing.
    fs::write(&ca, "no PEM").unwrap();
    tls.reload();
    assert!(answered(&server, &server_ca, Some(&ops)).await);
    let (new_server_ca, certificate, key) = certificates("spiffe://example.org/countersign");
    tls_files(&folder, &certificate, &key);
    fs::write(&ca, &other_ca).unwrap();
    tls.reload();
    assert!(answered(&server, &new_server_ca, Some(&stranger)).await);
    assert!(!answered(&server, &new_server_ca, Some(&ops)).await, "its authority is no longer trusted");
    assert!(!answered(&server, &server_ca, Some(&stranger)).await, "the old certificate is no longer shown");
}

#[tokio::test]
async fn a_dns_name_that_is_spelt_like_a_uri_has_no_role_of_its() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (server_ca, certificate, key) = certificates("spiffe://example.org/countersign");
    let files = tls_files(&folder, &certificate, &key);
    let name = "spiffe://example.org/ops".try_into().unwrap();
    let (client_ca, certificate, key) = certificates_with(rcgen::SanType::DnsName(name));
    fs::write(folder.path().join("ca.pem"), client_ca).unwrap();
    let server = start(Some(Tls::open("admin", files).unwrap())).await;
    assert!(!answered(&server, &server_ca, Some(&Identity::from_pem(certificate, key))).await);
    let told = server.world.told();
    assert!(told[0].starts_with("localhost revoke ") && told[0].contains(" refused "), "{told:?}");
}

#[test]
fn the_made_token_is_made_once_for_all_and_readable_by_us_alone() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("deep/state");
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| make_token(&state).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| made.fresh).count(), 1);
    assert!(made.iter().all(|other| other.token == made[0].token));
    let mode = fs::metadata(&made[0].path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing is left beside it");
    fs::set_permissions(&made[0].path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(make_token(&state).unwrap_err().to_string().contains("others can read it"));
}
