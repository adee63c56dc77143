//! People, devices and places for the tests of the model.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    Action, Agent, Engine, Event, Key,
    engine::Capacity,
    event::{Device, Place, Proof, Strength, roles_key},
    learn::Outcome,
    model::Model,
};

/// A Monday, 08:00 UTC, in the middle of a generation.
pub(super) const MONDAY: f64 = 1_768_204_800.0;
pub(super) const DAY: f64 = 86_400.0;

const LAPTOP: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
const THIEF: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// Alice at her desk in Oslo, with a second factor.
pub(super) fn alice(now: f64, session: &str) -> Event {
    let subject = Key::of("alice");
    Event {
        now,
        subject,
        session: subject.within(session),
        ends: None,
        strength: Strength::Strong,
        address: Some(IpAddr::V4(Ipv4Addr::new(84, 16, 20, 7))),
        place: Some(Place { country: *b"NO", position: Some((59.91, 10.75)), radius_km: 20.0 }),
        asn: Some(2119),
        anonymous: false,
        device: Device { id: Some(Key::of("laptop")), proof: Proof::Named, compliant: Some(true), ..Device::default() },
        agent: Agent::parse(LAPTOP),
        action: Action::of("GET", "/orders"),
        roles: roles_key(["clerk"]),
    }
}

/// Somebody else with Alice's password: another device, another country.
pub(super) fn thief(now: f64, session: &str) -> Event {
    Event {
        strength: Strength::Weak,
        address: Some(IpAddr::V4(Ipv4Addr::new(41, 58, 3, 9))),
        place: Some(Place { country: *b"NG", position: Some((6.5, 3.4)), radius_km: 50.0 }),
        asn: Some(29465),
        device: Device { id: Some(Key::of("elsewhere")), proof: Proof::Named, ..Device::default() },
        agent: Agent::parse(THIEF),
        ..alice(now, session)
    }
}

/// What Alice does on an ordinary day, in turn.
pub(super) const WORK: [&str; 4] = ["/orders", "/orders/17", "/invoices", "/search"];

/// An engine that has known Alice for three weeks of five sessions of four requests, and twenty colleagues.
pub(super) fn acquainted() -> Engine {
    let mut engine = Engine::new(Model::default(), Capacity { profiles: 1000, sessions: 5000 });
    for day in 0..20 {
        for colleague in 0..20 {
            let subject = Key::of(&format!("colleague-{colleague}"));
            let session = subject.within(&format!("c{day}"));
            let device = Device { id: Some(subject), ..alice(0.0, "").device };
            visit(&mut engine, day, |now| Event { subject, session, device, ..alice(now, "") });
        }
        visit(&mut engine, day, |now| alice(now, &format!("s{day}")));
    }
    engine
}

/// Has ten people of another role take actions, one in six hours, so that they are foreign to Alice and not new.
pub(super) fn keepers(engine: &mut Engine, paths: &[&str]) {
    for n in 0..10 {
        for (turn, path) in paths.iter().enumerate() {
            let subject = Key::of(&format!("keeper-{n}"));
            let now = MONDAY - 3.0 * DAY + f64::from(n) * 60.0 + turn as f64 * 6.0 * 3600.0;
            let event = Event {
                subject,
                session: subject.within(path),
                device: Device { id: Some(subject), ..alice(0.0, "").device },
                action: Action::of("GET", path),
                roles: roles_key(["keeper"]),
                ..alice(now, "")
            };
            pass(engine, &event, Outcome::StepUpPassed);
        }
    }
}

fn visit(engine: &mut Engine, day: i32, person: impl Fn(f64) -> Event) {
    for (turn, path) in WORK.iter().enumerate() {
        let now = MONDAY - 20.0 * DAY + f64::from(day) * DAY + 30.0 * turn as f64;
        let event = Event { action: Action::of("GET", path), ..person(now) };
        pass(engine, &event, Outcome::Allowed);
    }
}

/// Scores a request, lets `outcome` come of it, and returns its score.
pub(super) fn pass(engine: &mut Engine, event: &Event, outcome: Outcome) -> f64 {
    let assessment = engine.assess(event);
    engine.learn(event, &assessment, outcome);
    assessment.evidence.score()
}

/// The score of a request, without learning from it.
pub(super) fn score(engine: &Engine, event: &Event) -> f64 {
    engine.clone().assess(event).evidence.score()
}
