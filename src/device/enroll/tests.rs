//! Enrolment against a store in memory, with a clock that is moved and a witness that writes down what is told.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    device::{self, Certificates, Change, Witness},
    store::{keys, memory::Memory},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const START: UnixTime = UnixTime::from_secs(1_795_000_000);

struct World {
    enrollment: Enrollment,
    devices: Arc<Devices>,
    store: Arc<Memory>,
    clock: Clock,
    heard: Arc<Heard>,
}

/// What is told; and once it is told to, it spoils the record meanwhile.
#[derive(Debug, Default)]
struct Heard {
    told: Mutex<Vec<Change>>,
    spoils: Mutex<Option<Arc<Memory>>>,
}

impl Heard {
    fn told(&self) -> Vec<Change> {
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Witness for Heard {
    async fn hear(&self, id: &DeviceId, change: Change, _: &str) {
        self.told.lock().unwrap().push(change);
        let spoiled = self.spoils.lock().unwrap().clone();
        if let Some(store) = spoiled {
            store.write_record(&keys::device(id.as_str()), &[("os_version", &"x".repeat(100_000))], &[]).await.unwrap();
        }
    }
}

/// With an authority that lasts so long.
fn world(authority_life: Duration) -> World {
    let clock = Clock::manual(START);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch;
    params.not_after = epoch + Duration::from_secs(START.plus(authority_life).as_secs());
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    fs::write(&path, format!("{}{}", params.self_signed(&key).unwrap().pem(), key.serialize_pem())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let settings = Settings { enabled: true, authority: Some(path), ..Settings::default() };
    let authority = Authority::open(&settings, "devices.test", START).unwrap();
    let now = clock.clone();
    let store = Arc::new(Memory::new(move || now.now()));
    let certificates = Certificates::new(&[], Some(authority.der()), Some("devices.test")).unwrap();
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let devices = Devices::start(
        Arc::clone(&shared),
        &device::Settings::default(),
        certificates,
        clock.clone(),
        CancellationToken::new(),
    );
    let heard = Arc::new(Heard::default());
    devices.tell(Arc::clone(&heard) as _);
    let enrollment = Enrollment::new(Arc::clone(&devices), shared, authority, settings, clock.clone());
    World { enrollment, devices, store, clock, heard }
}

fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

fn good() -> Posture {
    Posture {
        managed: Some(true),
        disk_encrypted: Some(true),
        screen_lock: Some(true),
        jailbroken: Some(false),
        patch_level: Some("current".into()),
        ..Posture::default()
    }
}

fn bad() -> Posture {
    Posture { jailbroken: Some(true), screen_lock: Some(false), ..good() }
}

/// What an agent holds: one key for all its certificates.
struct Agent {
    key: KeyPair,
    certificate: String,
}

impl World {
    async fn enrolled(&self) -> Agent {
        let (code, _) = self.enrollment.invite("alice", Some("laptop"), None).await.unwrap();
        let key = KeyPair::generate().unwrap();
        let (enrolled, _) = self.enrollment.enroll(code.expose(), &csr(&key), &good()).await.unwrap();
        Agent { key, certificate: enrolled.certificate.pem }
    }

    /// Asks with this certificate, a second later than before.
    async fn renew(&self, agent: &Agent, posture: &Posture) -> Result<Enrolled, EnrollError> {
        self.clock.advance(Duration::from_secs(1));
        let (csr, time) = (csr(&agent.key), self.clock.now().as_secs());
        let message = renewal_message("laptop", time, &SigningRequest::parse(&csr).unwrap().sha256);
        let signature = STANDARD.encode(agent.key.sign(message.as_bytes()).unwrap());
        let wish = Renewal { certificate: agent.certificate.clone(), csr, time, signature };
        self.enrollment.renew(&wish, posture).await
    }

    async fn others_say(&self, fields: &[(&str, &str)]) {
        self.store.write_record("cs:device:laptop", fields, &[]).await.unwrap();
    }

    async fn record(&self) -> DeviceRecord {
        self.devices.get(&"laptop".into()).await.unwrap().unwrap()
    }
}

fn codes(refused: Result<Enrolled, EnrollError>) -> Vec<&'static str> {
    match refused {
        Err(EnrollError::NotCompliant(issues)) => issues.iter().map(|issue| issue.code).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agents_renewal_lifts_nothing_that_others_said() {
    let world = world(DAY * 365);
    let agent = world.enrolled().await;
    assert_eq!((world.record().await.compliant, world.record().await.managed), (Some(true), None));
    world.others_say(&[("compliant", "0"), ("jailbroken", "1"), ("managed", "no")]).await;
    for _ in 0..2 {
        assert_eq!(codes(world.renew(&agent, &good()).await), ["jailbroken", "judged_not_compliant"]);
        let record = world.record().await;
        assert_eq!((record.compliant, record.jailbroken, record.managed), (Some(false), Some(true), Some(false)));
    }
    let (code, _) = world.enrollment.invite("alice", Some("laptop"), None).await.unwrap();
    let again = world.enrollment.enroll(code.expose(), &csr(&agent.key), &good()).await.map(|(enrolled, _)| enrolled);
    assert_eq!(codes(again), ["jailbroken", "judged_not_compliant"], "nor does another code");
    assert_eq!(world.heard.told(), [], "and nobody is told that it is compliant");

    world.others_say(&[("compliant", "1"), ("jailbroken", "0")]).await;
    assert_eq!((world.record().await.compliant, world.record().await.jailbroken), (Some(true), Some(false)), "at once");
    world.renew(&agent, &good()).await.unwrap();
}

#[tokio::test]
async fn what_an_operator_found_is_lifted_by_an_operator() {
    let world = world(DAY * 365);
    let agent = world.enrolled().await;
    let found = |locked| Posture { screen_lock: Some(locked), ..Posture::default() };
    let says = async |locked| world.devices.update_posture(&"laptop".into(), found(locked)).await.unwrap().unwrap();
    assert_eq!(says(false).await.0.compliant, Some(false));
    assert_eq!(codes(world.renew(&agent, &good()).await), ["no_screen_lock", "judged_not_compliant"]);
    assert_eq!((world.record().await.compliant, world.record().await.screen_lock), (Some(false), Some(false)));
    assert_eq!(world.heard.told(), [Change::Judged(false)]);
    says(true).await;
    world.renew(&agent, &good()).await.unwrap();
    assert_eq!(world.record().await.compliant, Some(true));
}

#[tokio::test]
async fn nobody_is_told_that_a_device_is_in_order_before_nothing_speaks_against_it() {
    let world = world(DAY * 365);
    let agent = world.enrolled().await;
    let unlocked = Posture { screen_lock: Some(false), ..good() };
    codes(world.renew(&agent, &unlocked).await);
    assert_eq!(world.heard.told(), [Change::Judged(false)]);
    world.others_say(&[("jailbroken", "1")]).await;
    assert_eq!(codes(world.renew(&agent, &good()).await), ["jailbroken"]);
    assert_eq!(world.heard.told(), [], "the lock is there, and it is jailbroken");
    let id = DeviceId::from("laptop");
    let change = async |set: &[(&str, &str)]| {
        world.devices.change(&id, set, &[]).await.unwrap();
        world.heard.told()
    };
    assert_eq!(change(&[("status", "suspended")]).await, [Change::Out]);
    assert_eq!(change(&[("status", "active")]).await, []);
    assert_eq!(change(&[("compliant", "true")]).await, []);
    assert_eq!(change(&[("jailbroken", "false")]).await, [Change::Said(true)]);
    assert_eq!(change(&[("jailbroken", "true")]).await, [Change::Said(false)]);
    assert_eq!(change(&[("os", "linux")]).await, []);
}

#[tokio::test]
async fn what_others_take_back_is_over_at_once() {
    let world = world(DAY * 365);
    let agent = world.enrolled().await;
    for (field, code) in [("disk_encrypted", "disk_not_encrypted"), ("screen_lock", "no_screen_lock")] {
        world.others_say(&[(field, "no")]).await;
        assert_eq!(codes(world.renew(&agent, &good()).await), [code]);
        world.others_say(&[(field, "yes")]).await;
        assert_eq!(world.record().await.compliant, Some(true), "the agent said nothing bad: {field}");
        world.renew(&agent, &good()).await.unwrap();
    }
}

#[tokio::test]
async fn what_only_the_agent_found_is_over_when_the_agent_says_so_whatever_an_operator_told_meanwhile() {
    let patched = |level: &str| Posture { patch_level: Some(level.into()), ..good() };
    for bad in [Posture { screen_lock: Some(false), ..good() }, patched("31")] {
        let world = world(DAY * 365);
        let agent = world.enrolled().await;
        codes(world.renew(&agent, &bad).await);
        let told = Posture { managed: Some(true), ..Posture::default() };
        let (record, issues) = world.devices.update_posture(&"laptop".into(), told).await.unwrap().unwrap();
        assert_eq!((record.compliant, issues.len()), (Some(false), 1), "the answer tells what is wrong: {issues:?}");
        let renewed = world.renew(&agent, &good()).await.unwrap();
        assert_eq!(renewed.record.compliant, Some(true));
    }
}

#[tokio::test]
async fn a_posture_that_others_do_not_believe_is_told_as_that() {
    let world = world(DAY * 365);
    world.enrolled().await;
    world.others_say(&[("compliant", "no")]).await;
    let told = Posture { screen_lock: Some(true), ..Posture::default() };
    let (record, issues) = world.devices.update_posture(&"laptop".into(), told).await.unwrap().unwrap();
    assert_eq!(record.compliant, Some(false));
    assert_eq!(issues.iter().map(|issue| issue.code).collect::<Vec<_>>(), ["judged_not_compliant"]);
}

#[tokio::test]
async fn what_others_said_grows_old_whatever_the_agent_says() {
    let world = world(DAY * 365);
    let mut agent = world.enrolled().await;
    let start = START.as_secs().to_string();
    let is_stale = async || world.record().await.posture_age(world.clock.now(), DAY * 30).1;
    for said in [&[][..], &[("managed", "yes"), ("compliant", "yes"), ("checked_at", &start)]] {
        world.others_say(said).await;
        for _ in 0..62 {
            world.clock.advance(DAY / 2);
            agent.certificate = world.renew(&agent, &good()).await.unwrap().certificate.pem;
        }
        assert_eq!(is_stale().await, !said.is_empty(), "{said:?}");
    }
}

#[tokio::test]
async fn a_verdict_of_others_is_as_old_as_it_is_and_no_older() {
    let world = world(DAY * 365);
    let (start, id) = (START.as_secs().to_string(), DeviceId::from("laptop"));
    world.enrolled().await;
    world.others_say(&[("posture_compliant", "true"), ("checked_at", &start)]).await;
    let is_stale = async || world.record().await.posture_age(world.clock.now(), DAY * 30).1;
    let agent_says_so = async || {
        let now = world.clock.now().as_secs().to_string();
        world.others_say(&[("agent_checked_at", &now), ("agent_patch_level", "41")]).await;
    };
    for judge in [true, false] {
        world.clock.advance(DAY * 60);
        agent_says_so().await;
        if judge {
            assert!(world.devices.heard(&id, true).await.unwrap());
        } else {
            assert!(is_stale().await, "sixty days after an event");
            world.devices.change(&id, &[("compliant", "true")], &[]).await.unwrap();
        }
        assert!(!is_stale().await, "an event, or an operator, has just judged");
        assert!(
            world.record().await.patch_level.is_some_and(|level| level == crate::domain::PatchLevel::Days(41)),
            "the agent's"
        );
    }
}

#[tokio::test]
async fn what_an_operator_finds_wrong_by_the_agents_word_is_the_agents_verdict() {
    let world = world(DAY * 365);
    let agent = world.enrolled().await;
    // Said when the requirements were others.
    world.others_say(&[("agent_screen_lock", "false"), ("agent_compliant", "true")]).await;
    let managed = Posture { managed: Some(true), ..Posture::default() };
    let (record, issues) = world.devices.update_posture(&"laptop".into(), managed).await.unwrap().unwrap();
    assert_eq!(issues.iter().map(|issue| issue.code).collect::<Vec<_>>(), ["no_screen_lock"]);
    assert_eq!(record.compliant, Some(false));
    assert_eq!(world.heard.told(), [Change::Judged(false)]);
    world.renew(&agent, &good()).await.unwrap();
    assert_eq!(world.record().await.compliant, Some(true));
}

#[tokio::test]
async fn an_operators_renewal_is_judged_by_what_is_known_and_does_no_harm_where_it_is_refused() {
    let world = world(DAY * 365);
    let agent = world.enrolled().await;
    let renew =
        async |posture: &Posture| world.enrollment.renew_as_operator(&"laptop".into(), &csr(&agent.key), posture).await;
    let before = world.record().await;
    assert_eq!(codes(renew(&Posture { screen_lock: Some(false), ..Posture::default() }).await), ["no_screen_lock"]);
    assert_eq!(world.record().await, before);
    world.clock.advance(DAY);
    let renewed = renew(&Posture::default()).await.unwrap();
    assert_eq!((renewed.record.compliant, renewed.record.checked_at), (Some(true), before.checked_at), "nobody looked");
    assert_eq!(world.heard.told(), []);
}

#[tokio::test]
async fn an_agent_that_was_not_compliant_comes_back_by_itself() {
    for before in [None, Some("true")] {
        let world = world(DAY * 365);
        let agent = world.enrolled().await;
        if let Some(before) = before {
            // As enrolment wrote it before an agent's word had a field of its own.
            let old =
                [("compliant", before), ("jailbroken", "false"), ("disk_encrypted", "true"), ("screen_lock", "true")];
            world.store.write_record("cs:device:laptop", &old, &record::of_agent().collect::<Vec<_>>()).await.unwrap();
        }
        assert_eq!(codes(world.renew(&agent, &bad()).await), ["no_screen_lock", "jailbroken"]);
        assert_eq!((world.record().await.compliant, world.record().await.jailbroken), (Some(false), Some(true)));
        let renewed = world.renew(&agent, &good()).await.unwrap();
        assert_eq!((renewed.record.compliant, renewed.record.jailbroken), (Some(true), Some(false)));
        assert_eq!(world.record().await, renewed.record);
        assert_eq!(world.heard.told(), [Change::Judged(false), Change::Judged(true)]);
    }
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_is_asked_for_again_with_the_certificate_at_hand() {
    let world = world(DAY * 365);
    let mut agent = world.enrolled().await;
    let overlap = Settings::default().overlap.get();
    let lost = world.renew(&agent, &good()).await.unwrap();
    world.clock.advance(overlap / 2);
    let received = world.renew(&agent, &good()).await.unwrap();
    let stranger = Agent { certificate: lost.certificate.pem, key: agent.key };
    assert!(matches!(world.renew(&stranger, &good()).await, Err(EnrollError::Certificate)), "dropped: nobody has it");
    agent = Agent { key: stranger.key, ..agent };
    let (previous, until) = received.record.previous_certificate.clone().unwrap();
    assert_eq!(
        *previous,
        *renewal::InUse::parse(&agent.certificate).unwrap().sha256,
        "requests under way are not cut off"
    );
    world.clock.set(until);
    assert!(matches!(world.renew(&agent, &good()).await, Err(EnrollError::Certificate)), "for a while");
    agent.certificate = received.certificate.pem;
    world.renew(&agent, &good()).await.unwrap();
}

#[tokio::test]
async fn what_an_operator_replaced_or_withdrew_renews_nothing() {
    let world = world(DAY * 365);
    let agent = world.enrolled().await;
    let refused = async || {
        let before = world.record().await;
        assert!(matches!(world.renew(&agent, &good()).await, Err(EnrollError::Certificate)));
        assert_eq!(world.record().await, before);
    };
    let id = DeviceId::from("laptop");
    world.renew(&agent, &good()).await.unwrap();
    world.devices.put(&id, &[], &["cert_sha256"]).await.unwrap();
    refused().await;
    let new = csr(&KeyPair::generate().unwrap());
    world.enrollment.renew_as_operator(&id, &new, &good()).await.unwrap();
    refused().await;

    let agent = world.enrolled().await;
    world.enrollment.renew_as_operator(&id, &new, &good()).await.unwrap();
    assert!(matches!(world.renew(&agent, &good()).await, Err(EnrollError::Certificate)));
}

#[tokio::test]
async fn what_was_decided_while_a_request_was_under_way_stands() {
    let world = world(DAY * 365);
    let agent = world.enrolled().await;
    let (id, csr) = (DeviceId::from("laptop"), csr(&agent.key));
    let checked = async || {
        let owner = ("alice", Some("laptop"));
        world.enrollment.checked(Speaker::Agent, owner, &csr, &good()).await.unwrap()
    };
    let admission = checked().await;
    world.others_say(&[("status", "suspended"), ("status_reason", "lost")]).await;
    let record = world.enrollment.admit(admission).await.unwrap().record;
    assert_eq!(
        (record.status, record.status_reason.as_deref()),
        (crate::domain::DeviceStatus::Suspended, Some("lost"))
    );

    world.others_say(&[("status", "active")]).await;
    let (admission, before) = (checked().await, world.devices.fields(&id).await.unwrap().unwrap());
    let (words, _) = world.devices.judged(Speaker::Agent, &good(), &before).unwrap();
    for (user, gone) in [("bob", false), ("alice", true)] {
        world.others_say(&[("user", user)]).await;
        if gone {
            assert!(world.devices.delete(&id).await.unwrap());
        }
        assert_eq!(world.devices.say(&id, before.clone(), &words, &[]).await.unwrap(), None);
        assert_eq!(world.devices.get(&id).await.unwrap().is_none(), gone);
    }
    assert!(matches!(world.enrollment.admit(admission).await, Err(EnrollError::Changed)));
    assert_eq!(world.devices.get(&id).await.unwrap(), None, "what was deleted stays so");
}

#[tokio::test]
async fn a_renewal_that_is_written_is_granted_also_where_it_cannot_be_read_back() {
    let world = world(DAY * 365);
    let agent = world.enrolled().await;
    codes(world.renew(&agent, &bad()).await);
    *world.heard.spoils.lock().unwrap() = Some(Arc::clone(&world.store));
    let renewed = world.renew(&agent, &good()).await.unwrap();
    assert!(world.devices.get(&"laptop".into()).await.is_err(), "it cannot be read");
    assert_eq!(renewed.record.cert_sha256.as_deref(), Some(renewed.certificate.sha256.as_str()));
    assert_eq!(renewed.record.compliant, Some(true));
}

#[tokio::test]
async fn an_authority_that_is_over_signs_nothing_and_uses_up_no_code() {
    let world = world(DAY);
    let agent = world.enrolled().await;
    let (code, _) = world.enrollment.invite("alice", None, Some(DAY * 3)).await.unwrap();
    world.clock.advance(DAY - Duration::from_secs(30));
    let renewed = world.renew(&agent, &good()).await;
    assert!(matches!(renewed, Err(EnrollError::Authority(AuthorityError::Over))), "{renewed:?}");
    let before = world.record().await;
    for _ in 0..2 {
        world.clock.advance(DAY);
        let refused = world.enrollment.enroll(code.expose(), &csr(&agent.key), &good()).await;
        assert!(matches!(refused, Err(EnrollError::Authority(AuthorityError::Over))), "{refused:?}");
    }
    assert_eq!(world.record().await.cert_sha256, before.cert_sha256);
}
