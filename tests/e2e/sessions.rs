//! Sessions through real Envoys: what one replica learns all know, what was ended stays ended, and operators see it.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;

use super::mmdb;
use crate::{
    redis::Redis,
    support::{
        http::Response,
        process::{eventually, pause},
        stack::{Builder, Stack},
        tokens::{Token, now, unique},
    },
};

const RULES: &str = "resources: [{ id: all, access: authenticated, min_trust_level: untrusted, match: { paths: [\"/**\"], methods: [GET, POST] } }]\n";
const HOME: &str = "192.0.2.1";
const ABROAD: &str = "198.51.100.1";

/// Replicas that share a Redis, each behind an Envoy of its own; addresses at home are Norwegian, abroad Chilean.
fn replicas(count: usize, rules: &str, change: impl Fn(Builder) -> Builder) -> (Redis, Vec<Stack>) {
    let rules = format!("{RULES}{rules}");
    let first = Builder::with_rules(&rules);
    let redis = Redis::start(first.folder());
    let builders = std::iter::once(first).chain((1..count).map(|_| Builder::with_rules(&rules)));
    let start = |builder: Builder| change(with_places(builder).set("/store/url", redis.url())).start();
    let stacks = builders.map(start).collect();
    (redis, stacks)
}

fn with_places(builder: Builder) -> Builder {
    let places = builder.folder().join("places.mmdb");
    let country = |code: &str| json!({"country": {"iso_code": code}});
    let rows = [("192.0.2.0/24", country("NO")), ("198.51.100.0/24", country("CL"))];
    fs::write(&places, mmdb::database("GeoLite2-City", &rows)).expect("the folder is writable");
    builder
        .set("/location", json!({"databases": {"city": places}, "expected_countries": ["NO"]}))
        .set("/client", json!({"trusted_hops": 2}))
}

fn ask(stack: &Stack, token: &str, from: &str) -> Response {
    eventually("a check ends in time", || {
        Some(stack.get("/x").bearer(token).header("X-Forwarded-For", from).send()).filter(|answer| answer.status != 503)
    })
}

fn told(stack: &Stack, token: &str, from: &str) -> (u16, String) {
    let answer = ask(stack, token, from);
    let reason = if answer.status == 200 { String::new() } else { answer.reason() };
    (answer.status, reason)
}

fn ended() -> (u16, String) {
    (401, "session_ended".to_owned())
}

fn allowed() -> (u16, String) {
    (200, String::new())
}

#[test]
fn a_step_up_passed_at_one_replica_is_known_at_the_others_also_after_a_restart() {
    let (redis, mut stacks) =
        replicas(2, "guards: [{ id: abroad, when: { location: unusual }, action: step_up }]\n", |b| b);
    let sid = unique("sid");
    let person = || Token::person("alice").claim("sid", sid.clone());
    let old = person().claim("auth_time", now() - 60).mint();
    let challenged = (401, "location_step_up".to_owned());
    assert_eq!(told(&stacks[0], &old, HOME), allowed());
    let answer = ask(&stacks[0], &old, ABROAD);
    assert_eq!(answer.reason(), "location_step_up", "{answer:?}");
    assert!(answer.all("www-authenticate").join(" ").contains("max_age="), "{answer:?}");
    pause(Duration::from_millis(1100));
    assert_eq!(told(&stacks[1], &old, ABROAD), challenged, "nobody has answered");
    let new = person().mint();
    assert_eq!(
        told(&stacks[1], &new, ABROAD),
        allowed(),
        "the question of the first replica is answered at the second"
    );
    eventually("the first knows of it", || (told(&stacks[0], &old, ABROAD) == allowed()).then_some(()));
    assert_eq!(told(&stacks[1], &old, ABROAD), allowed(), "quiet from here on");

    let first = stacks.remove(0);
    first.countersign.process.signal("KILL");
    let stack = with_places(Builder::with_rules(&format!(
        "{RULES}guards: [{{ id: abroad, when: {{ location: unusual }}, action: step_up }}]\n"
    )))
    .set("/store/url", redis.url())
    .start();
    assert_eq!(told(&stack, &old, ABROAD), allowed(), "a replica that never saw the session reads it");
}

#[test]
fn evidence_that_is_too_old_is_renewed_by_a_new_token_of_the_same_login() {
    let stack = with_places(Builder::with_rules(RULES)).start();
    let then = now() - 4000;
    let login = Token::person("nina").claim("auth_time", then).claim("exp", now() + 3200);
    let answer = ask(&stack, &login.clone().claim("iat", then).mint(), HOME);
    assert_eq!((answer.status, answer.reason().as_str()), (401, "reverification_due"), "{answer:?}");
    assert_eq!(answer.header("x-zt-decision"), Some("step-up"));
    let (error, action) = (&answer.json()["error"], &answer.json()["action_required"]);
    assert_eq!((error, action), (&json!("step_up_required"), &json!("reauthenticate")));
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("error=\"insufficient_user_authentication\""), "{challenge}");
    assert!(challenge.contains("max_age=\"300\""), "{challenge}");
    let renewed = login.claim("jti", unique("jti"));
    assert_eq!(told(&stack, &renewed.mint(), HOME), allowed(), "evidence, not the person");
}

#[test]
fn an_end_bites_every_replica_and_neither_redis_nor_a_restart_revives() {
    let rules = "guards: []\nsessions: [{ id: moved, when: { place_changed: true }, outcome: end_session }]\n";
    let (mut redis, stacks) = replicas(3, rules, |b| b);
    let (token, other) = (Token::person("bob").mint(), Token::person("bob").mint());
    for stack in &stacks {
        assert_eq!(told(stack, &token, HOME), allowed());
        assert_eq!(told(stack, &other, HOME), allowed());
    }
    assert_eq!(told(&stacks[0], &token, ABROAD), ended());
    let at = Instant::now();
    for stack in &stacks {
        eventually("the end has come round", || (told(stack, &token, HOME) == ended()).then_some(()));
        assert_eq!(told(stack, &other, HOME), allowed(), "that session only");
    }
    assert!(at.elapsed() < Duration::from_secs(2), "{:?}", at.elapsed());

    redis.process.signal("KILL");
    redis.process.wait();
    assert_eq!(stacks[1].get("/x").bearer(&token).header("X-Forwarded-For", HOME).send().status / 100, 4, "known here");
    redis.process = Redis::run(stacks[0].folder.as_path(), redis.port);
    eventually("an empty Redis is given back what was ended", || {
        (redis.try_cli(&["--scan", "--pattern", "cs:notice:end:*"])?.contains("cs:notice")).then_some(())
    });
    for stack in &stacks {
        eventually("it serves again", || (told(stack, &other, HOME) == allowed()).then_some(()));
        assert_eq!(told(stack, &token, HOME), ended(), "no session revives");
    }
    let restored: f64 =
        stacks.iter().map(|stack| stack.countersign.metric("countersign_session_events_total", "restored")).sum();
    assert!(restored >= 1.0, "running sessions were written back, and counted");

    let fresh = with_places(Builder::with_rules(&format!("{RULES}{rules}"))).set("/store/url", redis.url()).start();
    assert_eq!(told(&fresh, &token, HOME), ended(), "not at a new replica either");
    assert_eq!(told(&fresh, &other, ABROAD), ended(), "where it began was not forgotten");
}

#[test]
fn operators_list_show_and_end_sessions() {
    let (_redis, stacks) = replicas(2, "", |b| b);
    let (one, two, other) = (Token::person("carol"), Token::person("carol"), Token::person("dave"));
    for token in [&one, &two, &other] {
        assert_eq!(told(&stacks[0], &token.mint(), HOME), allowed());
    }
    let at = ["--config", "countersign.yaml"];
    let run = |arguments: &[&str]| stacks[1].countersign.command(&[arguments, &at].concat());
    let listed = eventually("all are listed", || {
        let (code, text) = run(&["session", "list", "--subject", "carol"]);
        assert_eq!(code, Some(0), "{text}");
        (text.lines().count() == 2).then_some(text)
    });
    assert!(listed.contains(one.value("sid")) && listed.contains("medium") && listed.contains("from NO"), "{listed}");

    let (code, shown) = run(&["session", "show", one.value("sid")]);
    assert_eq!(code, Some(0), "{shown}");
    for wanted in ["carol", "password, mfa_totp", "risk_ceiling", "verified"] {
        assert!(shown.contains(wanted), "{shown}");
    }
    let (code, text) = run(&["session", "end", one.value("sid"), "--reason", "ticket 7"]);
    assert_eq!((code, text.contains(one.value("sid"))), (Some(0), true), "{text}");
    for stack in &stacks {
        eventually("it is refused", || (told(stack, &one.mint(), HOME) == ended()).then_some(()));
        assert_eq!(told(stack, &two.mint(), HOME), allowed());
    }
    let (_, shown) = run(&["session", "show", one.value("sid")]);
    assert!(shown.contains("ticket 7"), "{shown}");
    assert_eq!(run(&["session", "end", "--subject", "carol"]).0, Some(0));
    eventually("all of hers are", || (told(&stacks[0], &two.mint(), HOME) == ended()).then_some(()));
    assert_eq!(told(&stacks[0], &other.mint(), HOME), allowed());
    assert_eq!(run(&["session", "end", "nobody's"]).0, Some(1));
    assert_eq!(run(&["session", "show", "nobody's"]).0, Some(1));

    let (code, page) = stacks[0].countersign.command(&["session", "watch", "--once", at[0], at[1]]);
    assert_eq!(code, Some(0), "{page}");
    for wanted in ["feed live", "session_ended", "sessions by level of trust", "`countersign explain --decision ID`"] {
        assert!(page.contains(wanted), "{page}");
    }
    let told = stacks[1].countersign.audit();
    assert!(told.iter().any(|record| record["action"] == "session.end" && record["outcome"] == "done"), "{told:?}");
}

#[test]
fn outcomes_of_rules_reach_clients_and_upstreams() {
    let rules = |outcome: &str| {
        format!("guards: []\nsessions: [{{ id: moved, when: {{ place_changed: true }}, outcome: {outcome} }}]\n")
    };
    let stack = with_places(Builder::with_rules(&format!("{RULES}{}", rules("reauthenticate")))).start();
    for (outcome, reason, action) in [
        ("reauthenticate", "session_changed", "reauthenticate"),
        ("verify_identity", "identity_unverified", "verify_identity"),
        ("verify_location", "location_unverified", "verify_location"),
        ("step_up_authentication", "session_step_up", "step_up_authentication"),
    ] {
        stack.countersign.write_rules(&format!("{RULES}{}", rules(outcome)));
        let sid = unique("sid");
        let person = || Token::person("erin").claim("sid", sid.clone());
        let old = person().claim("auth_time", now() - 60).mint();
        assert_eq!(told(&stack, &old, HOME), allowed());
        let answer = eventually("the rule is followed", || {
            Some(ask(&stack, &old, ABROAD)).filter(|answer| answer.status == 401 && answer.reason() == reason)
        });
        assert!(answer.body.contains(&format!("\"action_required\":\"{action}\"")), "{answer:?}");
        pause(Duration::from_millis(1100));
        assert_eq!(told(&stack, &person().mint(), ABROAD), allowed(), "{outcome}: a new login is the answer");
    }
    stack.countersign.write_rules(&format!("{RULES}{}", rules("{ reduce_privileges: [read_only, prevent_download] }")));
    let token = Token::person("erin").mint();
    assert_eq!(told(&stack, &token, HOME), allowed());
    let upstream = eventually("the session shrinks", || {
        ask(&stack, &token, ABROAD).upstream().filter(|seen| !seen.all("x-zt-restrictions").is_empty())
    });
    assert_eq!(upstream.header("x-zt-restrictions"), "prevent_download,read_only");
    let next: i64 = upstream.header("x-zt-next-verification").parse().expect("Unix seconds");
    assert!((next - now() - 3600).abs() <= 5, "{next}");
    let post = stack.request("POST", "/x").bearer(&token).header("X-Forwarded-For", ABROAD).send();
    assert_eq!((post.status, post.reason().as_str()), (403, "privileges_reduced"), "{post:?}");
    let home = stack.request("POST", "/x").bearer(&token).header("X-Forwarded-For", HOME).send();
    assert_eq!(home.status, 200, "at home nothing is reduced");
}

#[test]
fn limits_on_sessions_hold_across_replicas() {
    let limited =
        |excess: &str| json!({"max_concurrent": 2, "on_excess": excess, "idle": "2s", "write_interval": "500ms"});
    let (redis, stacks) = replicas(2, "", |builder| builder.set("/session", limited("end_oldest")));
    let tokens: Vec<String> = (0..3).map(|_| Token::person("frank").mint()).collect();
    for (i, token) in tokens.iter().enumerate() {
        assert_eq!(told(&stacks[i % 2], token, HOME), allowed());
        pause(Duration::from_millis(50));
    }
    for stack in &stacks {
        eventually("the oldest made room", || (told(stack, &tokens[0], HOME) == ended()).then_some(()));
        assert_eq!(told(stack, &tokens[2], HOME), allowed());
    }
    pause(Duration::from_millis(3200));
    assert_eq!(told(&stacks[1], &tokens[2], HOME), ended(), "nobody has used it for too long");
    assert_eq!(told(&stacks[0], &tokens[2], HOME), ended());

    let refusing = Builder::with_rules(RULES).set("/store/url", redis.url()).set("/session", limited("refuse")).start();
    let tokens: Vec<String> = (0..3).map(|_| Token::person("grace").mint()).collect();
    let answers: Vec<u16> = tokens.iter().map(|token| ask(&refusing, token, HOME).status).collect();
    assert_eq!(answers, [200, 200, 403]);
    assert_eq!(told(&refusing, &tokens[2], HOME), (403, "too_many_sessions".to_owned()));
}

#[test]
fn a_session_that_is_refused_ends_no_other_and_takes_no_place() {
    for (excess, expected) in [("end_oldest", allowed()), ("refuse", (403, "too_many_sessions".to_owned()))] {
        let stack = with_places(Builder::with_rules(RULES))
            .set("/session", json!({"max_concurrent": 1, "on_excess": excess}))
            .start();
        let person = || Token::person("judy");
        let (good, other) = (person().mint(), person().mint());
        let stolen = person().claim("device_id", "laptop").mint();
        let untrusted = (403, "device_untrusted".to_owned());
        for _ in 0..2 {
            assert_eq!(told(&stack, &stolen, HOME), untrusted);
            assert_eq!(told(&stack, &good, HOME), allowed(), "{excess}");
        }
        assert_eq!(told(&stack, &other, HOME), expected, "{excess}");
        let after = if excess == "refuse" { allowed() } else { ended() };
        assert_eq!(told(&stack, &good, HOME), after, "{excess}");
    }
}

#[test]
fn a_session_that_cannot_be_known_is_503_and_a_warm_one_passes_for_a_moment() {
    let (redis, stacks) = replicas(1, "", |builder| builder.set("/revocation", json!({"max_staleness": "3s"})));
    let warm = Token::person("heidi").mint();
    assert_eq!(told(&stacks[0], &warm, HOME), allowed());
    let broken = Token::person("ivan");
    redis.cli(&["SET", "cs:x", "y"]);
    assert_eq!(told(&stacks[0], &broken.mint(), HOME), allowed());
    let key = eventually("its record is there", || {
        let keys = redis.cli(&["--scan", "--pattern", "cs:session:*"]);
        let mut named = keys.lines().map(str::to_owned);
        named.find(|key| redis.cli(&["GET", key]).contains("ivan"))
    });
    redis.cli(&["SET", &key, "not a session"]);
    redis.cli(&["SET", &key.replace("cs:session:", "cs:session-mark:"), "1"]);
    let answer = eventually("what cannot be read is not a new session", || {
        let answer = stacks[0].get("/x").bearer(&broken.mint()).header("X-Forwarded-For", HOME).send();
        Some(answer).filter(|answer| answer.status == 503)
    });
    assert_eq!(answer.reason(), "session_unknown", "{answer:?}");
    assert_eq!(told(&stacks[0], &warm, HOME), allowed());
}
