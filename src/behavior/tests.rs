//! Facts become events without inventing anything; threads share one past; a subject can be forgotten.

use std::{net::IpAddr, sync::Arc};

use crate::{
    behavior::{Observation, Profiles, TokenKeys, event, key},
    domain::{
        AuthMethod, AuthMethods, DeviceId, DeviceProof, DeviceRecord, DeviceSighting, Fact, Identity, Issuer,
        NetworkKind, Place, SessionId, SubjectId, SubjectKind, TokenId, Unavailable, UnixTime,
        metric::{Page, Source, Value},
    },
    risk::statistical::{
        Agent, Capacity, Event, Key, Model, Outcome,
        event::{Proof, Strength},
    },
};

const MONDAY: UnixTime = UnixTime::from_secs(1_768_204_800);

fn identity() -> Identity {
    Identity {
        issuer: Issuer::new("https://issuer.example"),
        subject: SubjectId::new("alice"),
        kind: SubjectKind::Person,
        token_id: TokenId::new("t1"),
        session: SessionId::new("derived"),
        session_claimed: false,
        client_id: None,
        methods: AuthMethods::NONE.with(AuthMethod::Password),
        acr: None,
        auth_time: Some(MONDAY),
        issued_at: MONDAY,
        issue_unstated: false,
        expires_at: MONDAY,
        valid_until: None,
        roles: Vec::new(),
        permissions: Vec::new(),
        scopes: Vec::new(),
        device: None,
        confirmation: None,
        audience: Arc::from("api"),
        attributes: Default::default(),
    }
}

fn place(network: NetworkKind) -> Place {
    Place { country: Some(Arc::from("NO")), position: Some((59.9, 10.7)), asn: Some(2119), network, ..Place::default() }
}

fn sighting(proof: DeviceProof, key_differs: bool) -> DeviceSighting {
    DeviceSighting {
        id: DeviceId::new("laptop"),
        record: Some(Arc::new(DeviceRecord::default())),
        proof,
        fingerprint_differs: false,
        key_differs,
        differs_from_token: false,
        evidence: Default::default(),
    }
}

fn seen(identity: &Identity, place: Fact<Place>, device: Fact<DeviceSighting>, methods: AuthMethods) -> Event {
    seen_from("84.16.20.7", identity, (place, device), methods)
}

fn seen_from(
    address: &str,
    identity: &Identity,
    (place, device): (Fact<Place>, Fact<DeviceSighting>),
    methods: AuthMethods,
) -> Event {
    let client: Option<IpAddr> = address.parse().ok();
    event(&Observation {
        now: MONDAY,
        keys: &TokenKeys::default(),
        identity,
        methods,
        client,
        place: &place,
        device: &device,
        agent: Agent::parse("curl/8.7.1"),
        method: "GET",
        path: "/orders/17",
        pattern: None,
    })
}

fn known<T>(value: T) -> Fact<T> {
    Fact::Known { value, as_of: MONDAY }
}

#[test]
fn what_could_not_be_asked_is_unknown_to_the_model() {
    let event = seen(&identity(), Fact::NotAsked, Fact::Absent, AuthMethods::NONE);
    assert!(event.place.is_none() && event.asn.is_none() && event.device.id.is_none() && !event.anonymous);
    assert_eq!(event.strength, Strength::Weak);
}

#[test]
fn addresses_inside_are_neutral_and_tunnels_are_named() {
    let at = |network| seen(&identity(), known(place(network)), Fact::Absent, AuthMethods::NONE);
    for inside in [NetworkKind::Private, NetworkKind::Corporate] {
        assert!(at(inside).address.is_none() && at(inside).place.is_none());
    }
    assert!(at(NetworkKind::Ordinary).address.is_some() && !at(NetworkKind::Ordinary).anonymous);
    assert!(at(NetworkKind::Vpn).anonymous && at(NetworkKind::Tor).anonymous);
}

#[test]
fn a_private_address_needs_no_database_to_be_neutral() {
    let at = |address: &str| seen_from(address, &identity(), (Fact::NotAsked, Fact::Absent), AuthMethods::NONE).address;
    for inside in
        ["10.244.1.7", "172.16.0.9", "192.168.1.4", "100.64.3.3", "127.0.0.1", "169.254.1.1", "fd00::1", "fe80::1"]
    {
        assert_eq!((at(inside), at(&format!("::ffff:{inside}"))), (None, None), "{inside}");
    }
    assert!(at("84.16.20.7").is_some() && at("2001:db8::1").is_some());
}

#[test]
fn a_session_goes_by_sid_and_otherwise_by_its_token() {
    let of = |identity: &Identity| seen(identity, Fact::Absent, Fact::Absent, AuthMethods::NONE).session;
    let other = Identity { token_id: TokenId::new("t2"), ..identity() };
    assert_ne!(of(&identity()), of(&other));
    let ends = |identity: &Identity| seen(identity, Fact::Absent, Fact::Absent, AuthMethods::NONE).ends;
    assert_eq!(ends(&other), Some(other.expires_at.as_secs() as f64), "and ends with it");
    assert_eq!(ends(&Identity { session_claimed: true, ..identity() }), None);
    let claimed = |token: &str| Identity { token_id: TokenId::new(token), session_claimed: true, ..identity() };
    assert_eq!(of(&claimed("t1")), of(&claimed("t2")));
}

#[test]
fn another_key_than_the_devices_own_is_a_missing_proof() {
    let proof =
        |p, differs| seen(&identity(), Fact::Absent, known(sighting(p, differs)), AuthMethods::NONE).device.proof;
    assert_eq!(proof(DeviceProof::Key, false), Proof::Proved);
    assert_eq!(proof(DeviceProof::IdOnly, true), Proof::Missing);
    assert_eq!(proof(DeviceProof::Fingerprint, false), Proof::Named);
}

#[test]
fn a_hardware_key_alone_is_strong_and_a_service_is_a_service() {
    let key = AuthMethods::NONE.with(AuthMethod::HardwareKey);
    assert_eq!(seen(&identity(), Fact::Absent, Fact::Absent, key).strength, Strength::Strong);
    let service = Identity { kind: SubjectKind::Service, ..identity() };
    assert_eq!(seen(&service, Fact::Absent, Fact::Absent, AuthMethods::NONE).strength, Strength::Service);
}

#[test]
fn a_past_is_learned_and_forgotten() {
    let event = usual();
    let profiles = Profiles::with_model(Model::default(), Capacity { profiles: 100, sessions: 100 });
    let first = profiles.observe(event).unwrap();
    assert!(first.behavior.score.is_none() && first.behavior.new_device.is_none(), "no history yet");
    assert!(first.behavior.assessment.is_some_and(|told| told.cold_start), "and little to go by");
    profiles.settle(&first, Outcome::Allowed);
    let second = profiles.observe(event).unwrap();
    assert_eq!(second.behavior.new_device, Some(false));
    assert!(second.behavior.assessment.is_some_and(|told| told.after_step_up <= told.score));
    assert!(profiles.forget(event.subject) && profiles.profile(event.subject).is_none());
}

#[test]
fn whoever_asks_again_after_a_challenge_is_not_known_by_then() {
    let event = usual();
    let profiles = Profiles::with_model(Model::default(), Capacity { profiles: 100, sessions: 100 });
    for _ in 0..5 {
        let observed = profiles.observe(event).unwrap();
        assert!(observed.behavior.score.is_none());
        profiles.settle(&observed, Outcome::Challenged);
    }
}

#[test]
fn a_place_is_unusual_or_impossible_only_against_a_history() {
    let profiles = Profiles::with_model(Model::default(), Capacity { profiles: 100, sessions: 100 });
    let home = usual();
    let away = Event {
        now: home.now + 5400.0,
        session: home.subject.within("away"),
        asn: Some(45609),
        address: "103.6.156.9".parse().ok(),
        place: home.place.map(|_| crate::risk::statistical::event::Place {
            country: *b"IN",
            position: Some((12.9, 77.6)),
            radius_km: 20.0,
        }),
        ..home
    };
    let completed = |event| {
        let mut completed = Place::default();
        profiles.observe(event).unwrap().complete(&mut completed);
        (completed.known_to_subject, completed.unusual, completed.impossible_travel)
    };
    assert_eq!(completed(away), (None, false, false), "nobody knows this subject");
    profiles.settle(&profiles.observe(home).unwrap(), Outcome::Allowed);
    assert_eq!(completed(home), (Some(true), false, false));
    assert_eq!(completed(away), (Some(false), true, true));
    let later = Event { now: home.now + 30.0 * 3600.0, ..away };
    assert_eq!(completed(later), (Some(false), true, false), "there is time to fly");
    profiles.settle(&profiles.observe(away).unwrap(), Outcome::StepUpPassed);
    assert_eq!(completed(away), (Some(true), false, false), "a step-up was passed there");
}

#[test]
fn a_history_without_places_makes_none_unusual() {
    let profiles = Profiles::with_model(Model::default(), Capacity { profiles: 100, sessions: 100 });
    let inside = Event { address: None, place: None, asn: None, ..usual() };
    profiles.settle(&profiles.observe(inside).unwrap(), Outcome::Allowed);
    let mut outside = Place::default();
    profiles.observe(usual()).unwrap().complete(&mut outside);
    assert_eq!((outside.known_to_subject, outside.unusual), (None, false));
}

fn usual() -> Event {
    let strong = AuthMethods::NONE.with(AuthMethod::HardwareKey);
    seen(&identity(), known(place(NetworkKind::Ordinary)), known(sighting(DeviceProof::Key, false)), strong)
}

#[test]
fn pasts_that_made_room_are_counted_and_not_gauged() {
    let mut page = Page::default();
    Profiles::with_model(Model::default(), Capacity { profiles: 100, sessions: 100 }).collect(&mut page);
    let evicted = page.families().iter().find(|family| family.name == "countersign_behavior_evicted").unwrap();
    assert!(evicted.samples.iter().all(|sample| matches!(sample.value, Value::Counter(0))), "{evicted:?}");
}

#[test]
fn a_device_that_was_not_looked_up_is_not_one_that_is_not_there() {
    let of = |device| seen(&identity(), Fact::Absent, device, AuthMethods::NONE).device;
    assert!(of(Fact::NotAsked).unseen && of(Fact::Unavailable(Unavailable::Store)).unseen);
    assert!(!of(Fact::Absent).unseen && of(Fact::Absent).id.is_none());
    assert!(!of(known(sighting(DeviceProof::IdOnly, false))).unseen);
}

#[test]
fn subjects_go_by_their_sha256_and_parts_do_not_run_together() {
    let of = |issuer: &str, subject: &str| key(&Issuer::new(issuer), &SubjectId::new(subject));
    // The first octets of SHA-256 over each part after its length: stores hold these.
    assert_eq!(of("https://issuer.example", "alice"), Key(0x38cb_41f8_2812_1bcc));
    assert_ne!(of("a", "bc"), of("ab", "c"));
    assert_eq!(usual().subject, of("https://issuer.example", "alice"), "as administration finds it");
    let session = |claimed| Identity { session: SessionId::new("t1"), session_claimed: claimed, ..identity() };
    let of = |identity: &Identity| seen(identity, Fact::Absent, Fact::Absent, AuthMethods::NONE).session;
    assert_ne!(of(&session(true)), of(&session(false)), "a token is not the session of its name");
}

/// Reads pages of a site whose readers read them all: each page is a word.
fn reads(profiles: &Profiles, told: bool, (reader, page): (u32, u32), now: UnixTime) -> f64 {
    let identity = Identity {
        subject: SubjectId::new(format!("reader-{reader}")),
        token_id: TokenId::new(format!("t{}", now.as_secs() / 3600)),
        methods: AuthMethods::NONE.with(AuthMethod::HardwareKey),
        ..identity()
    };
    let path = match page % 4 {
        0 => "/".to_owned(),
        _ => {
            format!("/wiki/About_{}", page.to_string().bytes().map(|digit| char::from(digit + 49)).collect::<String>())
        }
    };
    let event = event(&Observation {
        now,
        keys: &TokenKeys::default(),
        identity: &identity,
        methods: identity.methods,
        client: "84.16.20.7".parse().ok(),
        place: &known(place(NetworkKind::Ordinary)),
        device: &known(sighting(DeviceProof::Key, false)),
        agent: Agent::parse("curl/8.7.1"),
        method: "GET",
        path: &path,
        pattern: told.then_some(if page % 4 == 0 { "/" } else { "/wiki/{title}" }),
    });
    let observed = profiles.observe(event).unwrap();
    profiles.settle(&observed, Outcome::Allowed);
    observed.behavior.assessment.map_or(0.0, |told| told.score.get())
}

#[test]
fn whoever_reads_page_after_page_of_a_wiki_does_nothing_unusual() {
    let riskiest = |told: bool| {
        let profiles = Profiles::with_model(Model::default(), Capacity { profiles: 1000, sessions: 10_000 });
        let minute = |n: u32| MONDAY.plus(std::time::Duration::from_secs(u64::from(n) * 60));
        for turn in 0..60 {
            for reader in 0..40 {
                reads(&profiles, told, (reader, (turn + reader) % 40), minute(turn * 60 + reader));
            }
        }
        let fresh = (0..30).map(|page| reads(&profiles, told, (7, 100 + page), minute(3600 + page)));
        fresh.fold(0.0, f64::max)
    };
    assert!(riskiest(true) < 5.0, "{}", riskiest(true));
    let untold = riskiest(false);
    assert!((5.0..8.0).contains(&untold), "where nothing tells that they are pages: {untold}");
}

#[test]
fn a_session_in_use_is_written_down_again() {
    let profiles = Profiles::with_model(Model::default(), Capacity { profiles: 100, sessions: 100 });
    let hours = |n: f64| Event { now: usual().now + n * 3600.0, ..usual() };
    let told = |n| profiles.settle(&profiles.observe(hours(n)).unwrap(), Outcome::Allowed).1;
    assert_eq!([0.0, 0.1, 1.0, 3.0, 4.5, 5.0, 9.0].map(told), [true, false, false, false, true, false, true]);
}
