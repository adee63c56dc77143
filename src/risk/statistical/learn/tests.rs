//! One test per rule of learning: what an attacker would teach us, and does not.

use crate::risk::statistical::{
    Action, Engine, Event, Key, Term,
    delta::Field,
    engine::Advice,
    epoch::Epoch,
    event::{Device, Place, Strength, roles_key},
    fixture::{DAY, MONDAY, WORK, acquainted, alice, keepers, pass, score, thief},
    learn::Outcome,
};

fn knows_device(engine: &Engine, device: &str) -> bool {
    engine.profile(Key::of("alice")).is_some_and(|profile| profile.knows_device(Key::of(device).0))
}

fn sessions(engine: &Engine) -> f64 {
    engine.profile(Key::of("alice")).map_or(0.0, |profile| profile.sessions(Epoch::of(MONDAY)))
}

#[test]
fn a_password_alone_never_teaches_a_device_or_a_network() {
    let mut engine = acquainted();
    let first = score(&engine, &thief(MONDAY, "x0"));
    let network = engine.assess(&thief(MONDAY, "x0")).evidence.nats(Term::Network);
    for attempt in 0..500 {
        let event = thief(MONDAY + f64::from(attempt) * 600.0, &format!("x{attempt}"));
        pass(&mut engine, &event, Outcome::Allowed);
    }
    assert!(!knows_device(&engine, "elsewhere"));
    let last = thief(MONDAY + 500.0 * 600.0, "later");
    assert!(engine.assess(&last).evidence.nats(Term::Network) >= network - 0.1);
    assert!(score(&engine, &last) > first - 1.5, "worn down from {first} to {}", score(&engine, &last));
}

#[test]
fn a_password_on_the_known_device_from_a_new_network_teaches_no_network() {
    let mut engine = acquainted();
    let copied = |n: i32| Event {
        device: alice(0.0, "").device,
        agent: alice(0.0, "").agent,
        ..thief(MONDAY + f64::from(n) * 900.0, &format!("c{n}"))
    };
    let before = engine.assess(&copied(0)).evidence.nats(Term::Network);
    for n in 0..200 {
        pass(&mut engine, &copied(n), Outcome::Allowed);
    }
    assert!(engine.assess(&copied(300)).evidence.nats(Term::Network) >= before - 0.1);
}

#[test]
fn a_password_in_familiar_surroundings_teaches_a_little() {
    let mut engine = acquainted();
    let before = sessions(&engine);
    pass(&mut engine, &Event { strength: Strength::Weak, ..alice(MONDAY, "weak") }, Outcome::Allowed);
    let gained = sessions(&engine) - before;
    assert!((0.2..0.4).contains(&gained), "{gained}");
}

#[test]
fn refused_and_failed_requests_teach_nothing() {
    for outcome in [Outcome::Denied, Outcome::StepUpFailed] {
        let mut engine = acquainted();
        let before = sessions(&engine);
        for n in 0..50 {
            let new = Device { id: Some(Key::of("new")), ..alice(0.0, "").device };
            pass(&mut engine, &Event { device: new, ..alice(MONDAY + f64::from(n), &format!("n{n}")) }, outcome);
        }
        assert!(!knows_device(&engine, "new"));
        assert_eq!(sessions(&engine), before);
    }
}

#[test]
fn a_stolen_session_teaches_nothing_though_its_authentication_was_strong() {
    let mut engine = acquainted();
    pass(&mut engine, &alice(MONDAY, "stolen"), Outcome::Allowed);
    for n in 0..100 {
        let event = Event { strength: Strength::Strong, ..thief(MONDAY + 60.0 + f64::from(n), "stolen") };
        pass(&mut engine, &event, Outcome::Allowed);
    }
    assert!(!knows_device(&engine, "elsewhere"));
}

#[test]
fn strong_authentication_over_the_refusal_line_teaches_nothing() {
    let mut engine = acquainted();
    let event = Event { anonymous: true, strength: Strength::Strong, ..thief(MONDAY, "phished") };
    let jailbroken = Event { device: Device { jailbroken: true, ..event.device }, ..event };
    assert!(pass(&mut engine, &jailbroken, Outcome::Allowed) >= engine.lines().deny);
    assert!(!knows_device(&engine, "elsewhere"));
}

#[test]
fn a_passed_step_up_teaches_and_quiets_its_context() {
    let mut engine = acquainted();
    let event = |n: f64| Event { strength: Strength::Strong, ..thief(MONDAY + n, "travel") };
    let challenged = pass(&mut engine, &event(0.0), Outcome::StepUpPassed);
    assert!(knows_device(&engine, "elsewhere"));
    assert!(score(&engine, &event(30.0)) < challenged - 3.0);
}

#[test]
fn a_session_cannot_talk_its_own_doubt_away() {
    let mut engine = acquainted();
    let new = Device { id: Some(Key::of("new")), ..alice(0.0, "").device };
    let event = |n: f64| Event { device: new, ..alice(MONDAY + n, "fresh") };
    let first = engine.assess(&event(0.0)).evidence.nats(Term::Device);
    for n in 0..20 {
        pass(&mut engine, &event(f64::from(n)), Outcome::Allowed);
    }
    assert!(knows_device(&engine, "new"), "strong authentication teaches the device");
    let later = engine.assess(&event(30.0)).evidence.nats(Term::Device);
    assert!(first > 0.0 && (later - first).abs() < 1e-6, "{first} became {later}");
}

#[test]
fn a_thousand_requests_of_a_session_have_one_vote() {
    let mut engine = acquainted();
    let before = sessions(&engine);
    for n in 0..1000 {
        pass(&mut engine, &alice(MONDAY + f64::from(n), "bot"), Outcome::Allowed);
    }
    let gained = sessions(&engine) - before;
    assert!(gained <= 1.1, "{gained}");
}

#[test]
fn one_session_cannot_make_a_strange_action_a_habit() {
    let strange = |n: f64, session: &str| Event { action: Action::of("POST", "/export"), ..alice(MONDAY + n, session) };
    let mut engine = acquainted();
    let naive = engine.assess(&strange(0.0, "a")).evidence.nats(Term::Behaviour);
    for n in 0..300 {
        pass(&mut engine, &strange(f64::from(n), "a"), Outcome::Allowed);
    }
    let next_day = engine.assess(&strange(DAY, "b")).evidence.nats(Term::Behaviour);
    assert!(naive > 1.0 && next_day > naive * 0.4, "{naive} became {next_day}");
}

#[test]
fn an_action_is_not_learned_while_behaviour_surprises() {
    let mut engine = acquainted();
    let teaches = |engine: &mut Engine, n: i32| {
        let action = Action::of("GET", &format!("/secrets/area-{}", (b'a' + n as u8) as char));
        let event = Event { action, ..alice(MONDAY + f64::from(n) * 2.0, "insider") };
        let assessment = engine.assess(&event);
        let learned = engine.learn(&event, &assessment, Outcome::Allowed);
        let action = learned.profile.as_slice().iter().any(|delta| matches!(delta.field, Field::Action(_)));
        (assessment.evidence.nats(Term::Behaviour), assessment.evidence.score(), action)
    };
    for n in 0..4 {
        let (surprise, score, learned) = teaches(&mut engine, n);
        assert!(score < engine.lines().deny || n > 2, "the refusal line is not what is tested here");
        assert_eq!(learned, surprise < 4.0 && score < engine.lines().deny, "{n}: {surprise}");
    }
}

#[test]
fn a_step_up_clears_identity_but_not_behaviour() {
    let mut engine = acquainted();
    keepers(&mut engine, &KEPT);
    for n in 0..60 {
        let action = Action::of("GET", KEPT[n % KEPT.len()]);
        pass(&mut engine, &Event { action, ..alice(MONDAY + n as f64 * 2.0, "insider") }, Outcome::StepUpPassed);
    }
    let event = Event { action: Action::of("GET", KEPT[3]), ..alice(MONDAY + 130.0, "insider") };
    assert!(score(&engine, &event) >= engine.lines().deny);
    let evidence = engine.assess(&event).evidence;
    assert!(evidence.after_step_up(engine.model()).score() >= engine.lines().deny);
}

#[test]
fn a_first_session_is_trusted_at_half_weight() {
    let mut engine = acquainted();
    let newcomer = Event { subject: Key::of("newcomer"), session: Key::of("first"), ..alice(MONDAY, "") };
    pass(&mut engine, &newcomer, Outcome::Allowed);
    let profile = engine.profile(Key::of("newcomer")).map(|profile| profile.sessions(Epoch::of(MONDAY)));
    assert!(profile.is_some_and(|sessions| (0.45..0.55).contains(&sessions)), "{profile:?}");
}

#[test]
fn a_failed_challenge_cannot_be_flushed_out_by_new_contexts() {
    let mut engine = acquainted();
    pass(&mut engine, &alice(MONDAY, "s"), Outcome::Allowed);
    pass(&mut engine, &thief(MONDAY + 1.0, "s"), Outcome::StepUpFailed);
    for n in 0..50 {
        let device = Device { id: Some(Key::of(&format!("d{n}"))), ..thief(0.0, "").device };
        pass(&mut engine, &Event { device, ..thief(MONDAY + 2.0 + f64::from(n), "s") }, Outcome::Challenged);
    }
    let again = engine.assess(&thief(MONDAY + 60.0, "s"));
    assert_eq!(again.evidence.nats(Term::ChallengeFailed), engine.model().fail);
}

#[test]
fn services_do_not_move_the_lines_of_people() {
    let mut engine = acquainted();
    let before = engine.globals().tops().sessions();
    for n in 0..50 {
        let event = Event { strength: Strength::Service, ..alice(MONDAY + f64::from(n), &format!("w{n}")) };
        pass(&mut engine, &event, Outcome::Allowed);
    }
    assert_eq!(engine.globals().tops().sessions(), before);
}

#[test]
fn one_subject_has_few_votes_a_day_on_the_lines() {
    let mut engine = acquainted();
    let before = engine.globals().tops().sessions();
    for n in 0..500 {
        pass(&mut engine, &alice(MONDAY + f64::from(n), &format!("v{n}")), Outcome::Allowed);
    }
    assert!(engine.globals().tops().sessions() - before <= 8);
}

#[test]
fn requests_that_are_scored_before_one_of_them_is_settled_all_count() {
    let mut engine = acquainted();
    keepers(&mut engine, &KEPT);
    let at_once: Vec<_> = (0..100).map(|n| alice(MONDAY + f64::from(n) * 0.01, "s")).collect();
    let scored: Vec<_> = at_once.iter().map(|event| engine.assess(event)).collect();
    // Settled in no order, as they come out of their queues.
    for n in (0..100).map(|n| n * 37 % 100) {
        engine.learn(&at_once[n], &scored[n], Outcome::Allowed);
    }
    let fast = engine.profile(Key::of("alice")).map_or(0.0, |profile| profile.pace().fast);
    assert!((95.0..105.0).contains(&fast), "{fast}");
    let strange = KEPT.map(|path| Event { action: Action::of("GET", path), ..alice(MONDAY + 2.0, "s") });
    let scored: Vec<_> = strange.iter().map(|event| engine.assess(event)).collect();
    let one = scored[0].evidence.nats(Term::Behaviour);
    for (event, scored) in strange.iter().zip(&scored) {
        engine.learn(event, scored, Outcome::Allowed);
    }
    let next = engine.assess(&strange[0]).evidence.nats(Term::Behaviour);
    assert!(one > 1.0 && next > one * 5.0, "{one} became {next}");
}

#[test]
fn a_refused_request_binds_no_session() {
    for outcome in [Outcome::Denied, Outcome::Challenged] {
        let mut engine = acquainted();
        pass(&mut engine, &thief(MONDAY, "s"), outcome);
        let own = engine.assess(&alice(MONDAY + 5.0, "s")).evidence;
        assert_eq!((own.nats(Term::SessionDevice), own.nats(Term::SessionNetwork)), (0.0, 0.0), "{outcome:?}");
        pass(&mut engine, &alice(MONDAY + 5.0, "s"), Outcome::Allowed);
        assert_eq!(
            engine.assess(&alice(MONDAY + 9.0, "s")).evidence.nats(Term::SessionDevice),
            engine.model().no_change
        );
        let elsewhere =
            Event { device: Device { id: Some(Key::of("x")), ..Device::default() }, ..thief(MONDAY + 10.0, "s") };
        assert!(engine.assess(&elsewhere).evidence.nats(Term::SessionDevice) > 3.0, "{outcome:?}");
    }
}

#[test]
fn refused_contexts_do_not_push_out_the_one_that_owns_the_session() {
    let mut engine = acquainted();
    pass(&mut engine, &alice(MONDAY, "s"), Outcome::Allowed);
    for n in 0..20 {
        let device = Device { id: Some(Key::of(&format!("d{n}"))), ..thief(0.0, "").device };
        pass(&mut engine, &Event { device, ..thief(MONDAY + 1.0 + f64::from(n), "s") }, Outcome::Denied);
    }
    assert_eq!(engine.assess(&alice(MONDAY + 60.0, "s")).evidence.nats(Term::SessionDevice), engine.model().no_change);
    assert!(engine.assess(&thief(MONDAY + 61.0, "s")).evidence.nats(Term::SessionDevice) > 3.0);
}

#[test]
fn colleagues_in_one_hotel_are_as_many_as_they_are_however_often_they_ask() {
    let mut engine = acquainted();
    let hotel = |colleague: i32, turn: i32| {
        let subject = Key::of(&format!("colleague-{colleague}"));
        let now = MONDAY + f64::from(turn) * 20.0 + f64::from(colleague);
        let place = Some(Place { country: *b"SE", position: Some((59.3, 18.0)), radius_km: 20.0 });
        let (session, address) = (subject.within("hotel"), "192.36.1.9".parse().ok());
        let device = Device { id: Some(subject), ..alice(0.0, "").device };
        Event { subject, session, address, place, device, asn: Some(64510), ..alice(now, "") }
    };
    for turn in 0..40 {
        for colleague in 0..7 {
            pass(&mut engine, &hotel(colleague, turn), Outcome::Denied);
        }
    }
    let nats = engine.assess(&hotel(7, 40)).evidence.nats(Term::Share);
    assert!((2.5..3.3).contains(&nats), "seven others: {nats}");
}

#[test]
fn whoever_asks_again_while_challenged_or_refused_is_not_kept_out_by_that() {
    for outcome in [Outcome::Challenged, Outcome::Denied] {
        let mut engine = acquainted();
        let at = |second: f64, session: &str| Event { now: MONDAY + second, ..alice(MONDAY, session) };
        let pace = |engine: &Engine, second: f64| {
            let evidence = engine.clone().assess(&at(second, "polls")).evidence;
            [Term::Rate, Term::Volume, Term::Behaviour].map(|term| evidence.nats(term))
        };
        let before = pace(&engine, 0.0);
        for second in 0..2000 {
            pass(&mut engine, &at(f64::from(second), "polls"), outcome);
        }
        let after = pace(&engine, 2000.0);
        // The request at hand counts itself.
        assert!(after.iter().zip(before).all(|(after, before)| *after <= before + 0.2), "{before:?}, {after:?}");
        // A flood that is let through, and teaches nothing, is seen.
        for _ in 0..200 {
            pass(&mut engine, &thief(MONDAY + 2000.0, "floods"), Outcome::Allowed);
        }
        assert!(pace(&engine, 2000.0)[1] > 2.0, "{:?}", pace(&engine, 2000.0));
    }
}

#[test]
fn what_a_refused_session_tries_counts_once_for_each_thing() {
    let mut engine = acquainted();
    let tries = |n: u32, turn: f64| Event {
        action: Action::of("DELETE", &format!("/vault/{}", ["keys", "users", "logs"][n as usize % 3])),
        ..alice(MONDAY + turn, "scan")
    };
    let surprise = |engine: &Engine| engine.clone().assess(&tries(0, 100.0)).evidence.nats(Term::Behaviour);
    let before = surprise(&engine);
    for n in 0..3 {
        pass(&mut engine, &tries(n, f64::from(n)), Outcome::Denied);
    }
    let once = surprise(&engine);
    assert!(once > before + 2.0, "{before}, {once}");
    for n in 3..60 {
        pass(&mut engine, &tries(n, f64::from(n)), Outcome::Denied);
    }
    assert!(surprise(&engine) < once + 0.01, "{once}, {}", surprise(&engine));
}

/// What becomes of a request by the lines alone.
fn judged(engine: &mut Engine, event: &Event) -> Advice {
    let scored = engine.assess(event);
    let advice = engine.advise(&scored);
    let outcome = match advice {
        Advice::Allow => Outcome::Allowed,
        Advice::Challenge => Outcome::Challenged,
        Advice::Refuse => Outcome::Denied,
    };
    engine.learn(event, &scored, outcome);
    advice
}

#[test]
fn a_page_that_goes_on_asking_while_its_user_is_challenged_is_not_refused_for_that() {
    // For a quarter of an hour.
    for (pause, turns) in [(2.0, 450), (1.0, 900), (0.5, 1800)] {
        let mut engine = acquainted();
        let asks = |turn: usize| {
            let action = Action::of("GET", ["/dashboards", "/alerts"][turn % 2]);
            Event { action, ..alice(MONDAY + pause * turn as f64, "s") }
        };
        let advised: Vec<_> = (0..turns).map(|turn| judged(&mut engine, &asks(turn))).collect();
        assert_eq!(advised[..2], [Advice::Allow, Advice::Challenge]);
        assert!(
            !advised.contains(&Advice::Refuse),
            "{:?}",
            advised.iter().position(|advice| *advice == Advice::Refuse)
        );
        pass(&mut engine, &asks(turns), Outcome::StepUpPassed);
        for path in &WORK[..3] {
            let event = Event { action: Action::of("GET", path), ..asks(turns + 1) };
            assert_ne!(judged(&mut engine, &event), Advice::Refuse, "{path}");
        }
    }
}

/// What others do, and Alice does not.
const KEPT: [&str; 8] = [
    "/kept/stock",
    "/kept/prices",
    "/kept/wages",
    "/kept/mail",
    "/kept/ledger",
    "/kept/tax",
    "/kept/refunds",
    "/kept/labels",
];

/// An engine that also knows services of such roles, each of which does four things each hour.
fn with_services(services: &[&str], roles: &[&str]) -> Engine {
    let mut engine = acquainted();
    for hour in 0..20 * 24 {
        for (turn, path) in KEPT.iter().take(4).enumerate() {
            let now = MONDAY - 20.0 * DAY + f64::from(hour) * 3600.0 + turn as f64 * 2.0;
            for name in services {
                pass(&mut engine, &service(name, roles, now, path), Outcome::Allowed);
            }
        }
    }
    engine
}

/// Each hour has a token of its own.
fn service(name: &str, roles: &[&str], now: f64, path: &str) -> Event {
    let subject = Key::of(name);
    Event {
        subject,
        session: subject.within(&format!("t{}", (now / 3600.0) as u64)),
        strength: Strength::Service,
        device: Device::default(),
        roles: roles_key(roles.iter().copied()),
        action: Action::of("GET", path),
        ..alice(now, "")
    }
}

/// The turns of rounds in which each of four usual things is followed by one of four that nobody has done, or follow on these.
fn release(rounds: usize) -> impl Iterator<Item = (f64, usize)> {
    let orders = [[0, 4, 1, 5, 2, 6, 3, 7], [4, 5, 6, 7, 0, 1, 2, 3]];
    let turn = move |n: usize| (MONDAY + (n / 8) as f64 * 600.0 + (n % 8) as f64 * 2.0, orders[n / 8 % 2][n % 8]);
    (0..8 * rounds).map(turn)
}

#[test]
fn a_service_whose_release_does_what_nobody_has_done_is_not_refused() {
    let known = with_services(&["worker"], &["worker"]);
    let unnamed = with_services(&["worker"], &[]);
    // A token for all of it, for an hour, and for a quarter of one.
    for life in [DAY, 3600.0, 900.0] {
        for (engine, roles) in [(&known, &["worker"][..]), (&unnamed, &[])] {
            let mut engine = engine.clone();
            for (now, which) in release(60) {
                let event = service("worker", roles, now, KEPT[which]);
                let session = event.subject.within(&format!("{}", (now / life) as u64));
                let advice = judged(&mut engine, &Event { session, ..event });
                assert_eq!(advice, Advice::Allow, "{which} at {now}, tokens of {life} s, {roles:?}");
            }
        }
    }
}

#[test]
fn services_of_a_role_that_take_up_a_release_one_after_another_are_not_refused() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut engine = with_services(&names, &["worker"]);
    let begins = |n: usize| n as f64 * 3600.0 + n as f64 * 0.1;
    let turns = |n: usize| release(60).map(move |(now, which)| (now + begins(n), n, which));
    let mut turns: Vec<_> = (0..names.len()).flat_map(turns).collect();
    turns.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (now, n, which) in turns {
        let advice = judged(&mut engine, &service(names[n], &["worker"], now, KEPT[which]));
        assert_eq!(advice, Advice::Allow, "{which} at {now} by {}", names[n]);
    }
}

#[test]
fn a_service_that_does_what_others_do_and_it_does_not_is_refused() {
    let advised = |engine: &mut Engine, roles: &[&str]| -> Vec<_> {
        let turn = |which| service("worker", roles, MONDAY + which as f64, KEPT[which]);
        (4..8).map(|which| judged(engine, &turn(which))).collect()
    };
    let mut engine = with_services(&["worker"], &["worker"]);
    keepers(&mut engine, &KEPT[4..]);
    let told = advised(&mut engine, &["worker"]);
    assert!(told.iter().any(|advice| *advice != Advice::Allow), "no challenge reaches a service: {told:?}");
    // Without roles nobody is of its kind.
    let mut engine = with_services(&["worker"], &[]);
    for n in 0..10 {
        for (turn, path) in KEPT[4..].iter().enumerate() {
            let now = MONDAY - DAY + turn as f64 * 6.0 * 3600.0 + f64::from(n);
            let other = service(&format!("other-{n}"), &[], now, path);
            pass(&mut engine, &other, Outcome::StepUpPassed);
        }
    }
    let told = advised(&mut engine, &[]);
    assert!(told.iter().any(|advice| *advice != Advice::Allow), "{told:?}");
}

#[test]
fn a_person_on_pages_that_nobody_has_seen_is_challenged_and_not_refused() {
    let mut engine = acquainted();
    let mut advised = Vec::new();
    for (now, which) in release(20) {
        let path = if which < 4 { WORK[which] } else { KEPT[which] };
        let event = Event { action: Action::of("GET", path), ..alice(now, "new") };
        let scored = engine.assess(&event);
        advised.push(engine.advise(&scored));
        // A second factor is in the token: a challenge is none.
        let refused = advised.last() == Some(&Advice::Refuse);
        engine.learn(&event, &scored, if refused { Outcome::Denied } else { Outcome::Allowed });
    }
    assert!(advised.contains(&Advice::Challenge) && !advised.contains(&Advice::Refuse), "{advised:?}");
}
