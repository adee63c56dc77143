//! Properties of the whole model: explanations tell the truth, runs repeat to the bit, replicas agree.

use proptest::prelude::*;

use super::{
    Action, Engine, Event, Evidence, Key, Model, Profile, Term,
    engine::Capacity,
    event::{Device, Place, Strength},
    fixture::{DAY, MONDAY, acquainted, alice, pass, score, thief},
    learn::Outcome,
};

/// Requests of a few users, ordinary and strange, in an order that a seed decides.
fn stream(seed: u64, length: usize) -> Vec<(Event, Outcome)> {
    let mut state = seed | 1;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut now = MONDAY;
    (0..length)
        .map(|_| {
            now += next(400) as f64;
            let user = next(5);
            let subject = Key(user + 1);
            let session = subject.within(&format!("{}", (now / 7000.0) as u64 * 4 + next(2)));
            let base = if next(8) == 0 { thief(now, "") } else { alice(now, "") };
            let device = Device { id: [None, Some(Key(next(3) + 1))][(next(9) > 0) as usize], ..base.device };
            let action = Action::of(["GET", "POST"][next(2) as usize], &format!("/a{}/b", next(9)));
            let strength = [Strength::Weak, Strength::Strong, Strength::Service][next(3) as usize];
            let place = [None, base.place][(next(6) > 0) as usize];
            let event = Event { subject, session, device, action, strength, place, anonymous: next(9) == 0, ..base };
            let outcomes = [Outcome::Allowed, Outcome::Challenged, Outcome::StepUpPassed, Outcome::StepUpFailed];
            (event, if next(6) == 0 { outcomes[next(4) as usize] } else { Outcome::Allowed })
        })
        .collect()
}

fn small() -> Engine {
    Engine::new(Model::default(), Capacity { profiles: 100, sessions: 500 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn without_its_top_reason_a_request_scores_lower(nats in prop::array::uniform17(-5.0_f64..6.0)) {
        let model = Model::default();
        let evidence = Evidence::weigh(nats, &model);
        if let Some(top) = evidence.reasons(&model)[0] {
            prop_assert!(evidence.without(top.term, &model).score() < evidence.score());
        }
        for pair in evidence.reasons(&model).windows(2) {
            if let [Some(first), Some(second)] = pair {
                prop_assert!(first.nats >= second.nats);
            }
        }
    }

    #[test]
    fn worse_evidence_never_lowers_the_score(nats in prop::array::uniform17(-5.0_f64..6.0), term in 0..Term::COUNT, more in 0.0_f64..4.0) {
        let model = Model::default();
        let mut worse = nats;
        worse[term] += more;
        prop_assert!(Evidence::weigh(worse, &model).score() >= Evidence::weigh(nats, &model).score());
    }

    #[test]
    fn every_request_over_the_line_names_a_reason_that_counts(seed in any::<u64>()) {
        let mut engine = small();
        for (event, outcome) in stream(seed, 300) {
            let assessment = engine.assess(&event);
            let evidence = assessment.evidence;
            prop_assert!(evidence.score().is_finite());
            if engine.lines().risk(evidence.score()) >= 5.0 {
                let top = evidence.reasons(engine.model())[0];
                prop_assert!(top.is_some_and(|top| evidence.without(top.term, engine.model()).score() < evidence.score()));
            }
            engine.learn(&event, &assessment, outcome);
        }
    }

    #[test]
    fn the_same_stream_scores_the_same_to_the_bit(seed in any::<u64>()) {
        let run = || {
            let mut engine = small();
            stream(seed, 200).iter().map(|(event, outcome)| pass(&mut engine, event, *outcome).to_bits()).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn deltas_commute(seed in any::<u64>(), turn in 0_usize..200) {
        let mut engine = small();
        let mut deltas = Vec::new();
        for (event, outcome) in stream(seed, 120) {
            let assessment = engine.assess(&event);
            // Few enough values that no slot is evicted: eviction is where replicas may differ for a while.
            let learned = engine.learn(&event, &assessment, outcome);
            if event.subject == Key(1) {
                deltas.extend(learned.profile.as_slice().iter().copied());
            }
        }
        let totals = |order: &[super::delta::Delta]| {
            let mut profile = Profile::default();
            order.iter().for_each(|delta| profile.apply(*delta));
            let mut all: Vec<String> = profile.deltas().map(|delta| format!("{:?}", (delta.field, delta.units))).collect();
            all.sort();
            all
        };
        let mut turned = deltas.clone();
        turned.reverse();
        let middle = turn % turned.len().max(1);
        turned.rotate_left(middle);
        prop_assert_eq!(totals(&deltas), totals(&turned));
    }
}

#[test]
fn a_profile_fits_in_a_kibibyte_and_everything_shared_in_one_megabyte() {
    assert!(size_of::<Profile>() <= 1024, "{}", size_of::<Profile>());
    assert!(acquainted().globals().bytes() < 1_000_000, "{}", acquainted().globals().bytes());
}

#[test]
fn a_thief_is_challenged_and_alice_is_not() {
    let engine = acquainted();
    assert!(score(&engine, &thief(MONDAY, "x")) >= engine.lines().step);
    assert!(score(&engine, &alice(MONDAY, "y")) < engine.lines().step - 2.0);
}

#[test]
fn a_copied_token_is_seen_through_its_second_context() {
    let mut engine = acquainted();
    pass(&mut engine, &alice(MONDAY, "s"), Outcome::Allowed);
    let copied = Event { strength: Strength::Strong, ..thief(MONDAY + 300.0, "s") };
    let evidence = engine.assess(&copied).evidence;
    assert_eq!(evidence.hypothesis(), super::Hypothesis::SessionTheft);
    assert!(evidence.score() >= engine.lines().deny);
}

#[test]
fn nothing_known_is_nothing_held_against_anybody() {
    let mut engine = acquainted();
    let bare = |now: f64, n: i32| Event {
        address: None,
        place: None,
        asn: None,
        subject: Key::of("bare"),
        session: Key::of(&format!("bare{n}")),
        ..alice(now, "")
    };
    for n in 0..10 {
        pass(&mut engine, &bare(MONDAY + f64::from(n) * DAY, n), Outcome::Allowed);
    }
    let evidence = engine.assess(&bare(MONDAY + 11.0 * DAY, 11)).evidence;
    assert_eq!(
        (evidence.nats(Term::Network), evidence.nats(Term::Travel), evidence.nats(Term::Share)),
        (0.0, 0.0, 0.0)
    );
    assert!(evidence.score() < engine.lines().step);
}

/// Somebody new on a network that no database knows, the device unnamed.
fn newcomer(number: u32, strength: Strength) -> Event {
    let subject = Key::of(&format!("newcomer-{number}"));
    let device = Device { id: None, ..alice(0.0, "").device };
    let address = "10.244.1.9".parse().ok();
    let now = MONDAY + f64::from(number);
    Event { subject, session: subject.within("s"), strength, device, address, place: None, asn: None, ..alice(now, "") }
}

#[test]
fn without_databases_a_network_of_many_is_more_usual_not_less() {
    for strength in [Strength::Service, Strength::Strong] {
        let mut engine = Engine::new(Model::default(), Capacity { profiles: 1000, sessions: 5000 });
        for number in 0..400 {
            let event = newcomer(number, strength);
            let evidence = engine.assess(&event).evidence;
            assert!(evidence.nats(Term::Network) < 0.01, "{number}: {}", evidence.nats(Term::Network));
            assert!(engine.lines().risk(evidence.score()) < 5.0, "{number}");
            pass(&mut engine, &event, Outcome::Allowed);
        }
    }
}

#[test]
fn without_databases_another_network_is_a_little_unusual_and_the_own_one_usual() {
    let mut engine = Engine::new(Model::default(), Capacity { profiles: 1000, sessions: 5000 });
    let at = |n: u32, address: &str| {
        let event = newcomer(0, Strength::Strong);
        let session = event.subject.within(&format!("s{n}"));
        Event { session, address: address.parse().ok(), now: MONDAY + f64::from(n) * DAY, ..event }
    };
    for n in 0..100 {
        pass(&mut engine, &at(n, "10.244.1.9"), Outcome::Allowed);
    }
    let nats = |address: &str| engine.clone().assess(&at(100, address)).evidence.nats(Term::Network);
    assert!(nats("10.244.1.7") < 0.0, "{}", nats("10.244.1.7"));
    assert!((0.5..2.0).contains(&nats("10.9.9.9")), "{}", nats("10.9.9.9"));
}

#[test]
fn a_service_need_not_name_a_device() {
    let engine = acquainted();
    let nats = |strength| engine.clone().assess(&newcomer(1, strength)).evidence.nats(Term::DeviceMissing);
    assert_eq!(nats(Strength::Service), 0.0);
    assert!(nats(Strength::Strong) > 0.0);
    let new = Event { strength: Strength::Service, ..thief(MONDAY, "x") };
    assert!(engine.clone().assess(&new).evidence.nats(Term::Device) <= 0.0);
}

#[test]
fn mapped_and_v6_addresses_have_networks() {
    let at = |text: &str| Event { address: text.parse().ok(), ..alice(MONDAY, "a") }.network();
    assert_eq!(at("::ffff:84.16.20.7"), at("84.16.20.99"));
    assert_eq!(at("2001:db8:1::1"), at("2001:db8:1:2::9"));
    assert_ne!(at("2001:db8:1::1"), at("2001:db8:2::1"));
}

#[test]
fn a_known_egress_far_away_stays_quiet() {
    let mut engine = acquainted();
    let egress = |now: f64, session: &str| Event {
        address: "203.0.113.5".parse().ok(),
        asn: Some(64500),
        place: Some(Place { country: *b"US", position: Some((40.7, -74.0)), radius_km: 10.0 }),
        ..alice(now, session)
    };
    pass(&mut engine, &alice(MONDAY, "m"), Outcome::Allowed);
    assert!(engine.assess(&egress(MONDAY + 600.0, "e0")).evidence.nats(Term::Travel) > 2.0);
    pass(&mut engine, &egress(MONDAY + 600.0, "e0"), Outcome::StepUpPassed);
    pass(&mut engine, &alice(MONDAY + 3600.0, "h"), Outcome::Allowed);
    assert!(engine.assess(&egress(MONDAY + 4200.0, "e1")).evidence.nats(Term::Travel) < 0.5);
}

#[test]
fn a_forgotten_subject_leaves_no_profile() {
    let mut engine = acquainted();
    assert!(engine.forget(Key::of("alice")));
    assert!(engine.profile(Key::of("alice")).is_none() && !engine.forget(Key::of("alice")));
}

/// The same request where no rule asks for the device, or the registry does not answer.
fn unseen(event: Event) -> Event {
    Event { device: Device { unseen: true, ..Device::default() }, ..event }
}

/// Contexts keep their doubts in single precision.
fn is(nats: f64, expected: f64) -> bool {
    (nats - expected).abs() < 1e-6
}

#[test]
fn a_device_that_nobody_looked_at_is_neither_missing_nor_another() {
    let mut engine = acquainted();
    let model = *engine.model();
    for (turn, looked) in [true, false, true, false].into_iter().enumerate() {
        let event = alice(MONDAY + turn as f64 * 20.0, "s");
        let event = if looked { event } else { unseen(event) };
        let evidence = engine.assess(&event).evidence;
        for term in [Term::DeviceMissing, Term::DeviceMismatch, Term::SessionClient, Term::SessionNetwork] {
            assert_eq!(evidence.nats(term), 0.0, "{turn}: {term:?}");
        }
        assert!(is(evidence.nats(Term::Device), if looked { model.dev_known } else { 0.0 }), "{turn}");
        assert_eq!(evidence.nats(Term::SessionDevice), if turn > 0 { model.no_change } else { 0.0 }, "{turn}");
        pass(&mut engine, &event, Outcome::Allowed);
    }
}

#[test]
fn a_session_that_begins_unseen_takes_the_first_device_and_no_other() {
    let mut engine = acquainted();
    let other = Device { id: Some(Key::of("other")), ..alice(0.0, "").device };
    pass(&mut engine, &unseen(alice(MONDAY, "s")), Outcome::Allowed);
    let named = engine.assess(&alice(MONDAY + 10.0, "s")).evidence;
    assert!(is(named.nats(Term::Device), engine.model().dev_known), "{named:?}");
    assert_eq!(named.nats(Term::SessionDevice), engine.model().no_change);
    pass(&mut engine, &alice(MONDAY + 10.0, "s"), Outcome::Allowed);
    let moved = engine.assess(&Event { device: other, ..alice(MONDAY + 20.0, "s") }).evidence;
    assert!(moved.nats(Term::SessionDevice) > 3.0 && moved.nats(Term::Device) > 0.0, "{moved:?}");
    // Nor where the session went on unseen in between: on another network, and with the other device there.
    let away = |now: f64| Event { address: "84.16.99.7".parse().ok(), ..alice(now, "s") };
    pass(&mut engine, &unseen(away(MONDAY + 30.0)), Outcome::Allowed);
    let stolen = Event { device: other, ..away(MONDAY + 40.0) };
    assert!(engine.assess(&stolen).evidence.nats(Term::SessionDevice) > 3.0);
    pass(&mut engine, &stolen, Outcome::Allowed);
    assert!(!engine.profile(Key::of("alice")).is_some_and(|profile| profile.knows_device(Key::of("other").0)));
}

#[test]
fn unseen_sessions_teach_nothing_of_devices_and_hold_nothing_against_them() {
    let subject = Key::of("carol");
    let at = |n: i32| {
        let session = subject.within(&n.to_string());
        Event { subject, session, ..alice(MONDAY + f64::from(n) * 3.0 * 3600.0, "") }
    };
    let mut engine = acquainted();
    for n in 0..40 {
        pass(&mut engine, &unseen(at(n)), Outcome::Allowed);
    }
    let named = engine.assess(&at(41)).evidence;
    assert!(named.nats(Term::Device) < 1.5, "{}", named.nats(Term::Device));
    let none = Event { device: Device::default(), ..at(41) };
    assert!(engine.assess(&none).evidence.nats(Term::DeviceMissing) < 1.5);
    // Once it is looked at, it is learned: also in a session that began unseen.
    pass(&mut engine, &unseen(at(42)), Outcome::Allowed);
    pass(&mut engine, &at(42), Outcome::Allowed);
    assert!(engine.profile(subject).is_some_and(|profile| profile.knows_device(Key::of("laptop").0)));
}

#[test]
fn a_device_cannot_be_named_so_that_it_counts_as_not_looked_at() {
    let event = Event { device: Device { id: Some(Key(u64::from(u32::MAX))), ..Device::default() }, ..alice(0.0, "") };
    assert!(super::binding::Surroundings::of(&event).is_looked());
    assert!(!super::binding::Surroundings::of(&unseen(event)).is_looked());
}

#[test]
fn a_flight_is_measured_between_what_both_positions_may_be() {
    let mut engine = acquainted();
    let roughly = |now: f64, session: &str, longitude: f32, radius_km: f32| {
        let place = Some(Place { country: *b"NO", position: Some((59.9, longitude)), radius_km });
        Event { place, asn: Some(64500), address: "203.0.113.5".parse().ok(), ..alice(now, session) }
    };
    // Some 1,700 km apart, an hour between: but the first is known to be anywhere within 1,600.
    pass(&mut engine, &roughly(MONDAY, "a", 10.0, 1600.0), Outcome::StepUpPassed);
    let next = |radius| roughly(MONDAY + 3600.0, "b", 40.0, radius);
    assert_eq!(engine.assess(&next(10.0)).evidence.nats(Term::Travel), 0.0);
    pass(&mut engine, &roughly(MONDAY + 60.0, "c", 10.0, 10.0), Outcome::StepUpPassed);
    assert!(engine.assess(&next(10.0)).evidence.nats(Term::Travel) > 1.0);
}

#[test]
fn stronger_than_usual_is_no_weakness() {
    let mut engine = acquainted();
    let person = |n: i32, strength| {
        let subject = Key::of("dora");
        Event { subject, session: subject.within(&n.to_string()), strength, ..alice(MONDAY + f64::from(n) * DAY, "") }
    };
    for n in 0..20 {
        pass(&mut engine, &person(n, Strength::Weak), Outcome::Allowed);
    }
    assert!(engine.assess(&person(21, Strength::Strong)).evidence.nats(Term::Auth) <= 0.0);
}

#[test]
fn a_service_is_in_many_places_and_a_person_is_not() {
    for strength in [Strength::Service, Strength::Strong] {
        let mut engine = acquainted();
        let subject = Key::of("deploy");
        let home = |session: &str| Event { subject, session: subject.within(session), strength, ..alice(MONDAY, "") };
        for n in 0..5 {
            pass(&mut engine, &home(&n.to_string()), Outcome::Allowed);
        }
        let away = |now: f64| Event {
            now,
            address: "103.6.156.9".parse().ok(),
            asn: Some(45609),
            place: Some(Place { country: *b"NO", position: Some((69.6, 18.9)), radius_km: 10.0 }),
            ..home("0")
        };
        let evidence = engine.assess(&away(MONDAY + 60.0)).evidence;
        for term in [Term::Network, Term::Travel, Term::SessionNetwork] {
            assert_eq!(evidence.nats(term) > 0.0, strength == Strength::Strong, "{strength:?} {term:?}: {evidence:?}");
        }
    }
}

#[test]
fn a_session_inside_is_where_it_was_and_another_device_there_is_seen() {
    let mut engine = acquainted();
    let inside = |now: f64, session: &str| Event { address: None, place: None, asn: None, ..alice(now, session) };
    let moved = |engine: &Engine, event: &Event, term| engine.clone().assess(event).evidence.nats(term);
    pass(&mut engine, &inside(MONDAY, "in"), Outcome::Allowed);
    let stolen = Event { device: Device::default(), agent: thief(0.0, "").agent, ..inside(MONDAY + 9.0, "in") };
    assert!(moved(&engine, &stolen, Term::SessionDevice) > 3.0 && moved(&engine, &stolen, Term::SessionClient) > 2.0);
    assert_eq!(moved(&engine, &inside(MONDAY + 9.0, "in"), Term::SessionNetwork), 0.0);
    // Going in is quiet; a way out to where the user never was is not.
    pass(&mut engine, &alice(MONDAY, "out"), Outcome::Allowed);
    let quiet = engine.model().change_network * engine.model().quiet_network;
    assert!(is(moved(&engine, &inside(MONDAY + 9.0, "out"), Term::SessionNetwork), quiet));
    let left = Event { address: "103.6.156.9".parse().ok(), ..alice(MONDAY + 9.0, "in") };
    assert!(is(moved(&engine, &left, Term::SessionNetwork), engine.model().change_network));
}
