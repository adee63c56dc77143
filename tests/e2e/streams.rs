//! Streams through `envoy/streams.yaml`, on the oldest and the newest Envoy: each ends when its token or its session does, within
//! a second and not before, whatever the client says; whoever comes back is judged anew.

use std::{net::SocketAddr, thread, time::Duration};

use crate::support::{
    envoy,
    http::Request,
    ports,
    process::Process,
    sample,
    stack::{Builder, Stack},
    streams::{self, Kind, Outcome, now_ms, watch},
    tokens::{Token, now},
};

const RULES: &str = r#"
resources:
  - { id: public, match: { paths: ["/public/**"], methods: [GET] }, access: public }
  - { id: live, match: { paths: ["/live"], methods: [GET] }, access: authenticated, min_trust_level: untrusted }
  - { id: feed, match: { paths: ["/live/feed"], methods: [GET] }, access: authenticated, min_trust_level: untrusted, streaming: true }
  - { id: short, match: { paths: ["/live/short"], methods: [GET] }, access: authenticated, min_trust_level: untrusted, policy: short }
  - { id: grpc, match: { paths: ["/grpc.health.v1.Health/Watch"], methods: [POST] }, access: authenticated, min_trust_level: untrusted }
policies:
  - { id: short, name: Short, actions: [{ type: allow, constraints: { session_duration: 5s } }] }
"#;

const LIMIT: &str = "x-envoy-upstream-stream-duration-ms";
/// Longer than any stream of these tests may live.
const LONG: Duration = Duration::from_secs(20);
const KINDS: [Kind; 3] = [Kind::WebSocket, Kind::Events, Kind::Grpc];

/// Countersign, an upstream of each protocol, and the sample on both Envoys.
struct Edge {
    _stack: Stack,
    envoys: Vec<(&'static str, SocketAddr, Process)>,
}

impl Edge {
    fn start() -> Self {
        Self::with(&[])
    }

    /// With these changes to the sample.
    fn with(changes: &[(&str, &str)]) -> Self {
        let stack = Builder::with_rules(RULES).no_envoy().set("/identity/issuers/0/leeway", "0s").start();
        let upstreams = [ports::free(), ports::free()];
        streams::serve_http(ports::local(upstreams[0]));
        streams::serve_grpc(ports::local(upstreams[1]));
        let envoys = [envoy::NEW, envoy::OLD].map(|version| {
            let grpc = format!("port_value: {}", upstreams[1]);
            let changes: Vec<_> = changes.iter().copied().chain([("port_value: 8081", &*grpc)]).collect();
            let to = ports::local(upstreams[0]);
            let (process, door) =
                sample::start(&stack.folder, ("streams", version), stack.countersign.authz, to, &changes);
            (version, door, process)
        });
        Self { _stack: stack, envoys: envoys.into() }
    }

    /// Runs `of` for each Envoy and each of `kinds` at the same time.
    fn each<T: Send>(&self, kinds: &[Kind], of: impl Fn(Kind, SocketAddr) -> T + Sync) -> Vec<(String, T)> {
        let cases =
            self.envoys.iter().flat_map(|(version, door, _)| kinds.iter().map(move |kind| (version, *door, *kind)));
        thread::scope(|scope| {
            let of = &of;
            let running: Vec<_> = cases
                .map(|(version, door, kind)| {
                    (format!("{kind:?}, Envoy {version}"), scope.spawn(move || of(kind, door)))
                })
                .collect();
            running.into_iter().map(|(what, run)| (what, run.join().expect("no stream panics"))).collect()
        })
    }
}

fn path(kind: Kind) -> &'static str {
    if kind == Kind::Chunks { "/live/feed" } else { "/live" }
}

fn begun(kind: Kind) -> u16 {
    if kind == Kind::WebSocket { 101 } else { 200 }
}

/// Ended within a second of `due` (Unix milliseconds), not before, and flowing until then.
fn assert_ended(what: &str, outcome: &Outcome, due: u64) {
    let Outcome { last, ended, pieces, .. } = *outcome;
    let after = |at: u64| i128::from(at) - i128::from(due);
    println!("{what}: the last piece {} ms and the end {} ms after it was due", after(last), after(ended));
    assert!(pieces > 5, "{what}: it never flowed: {outcome:?}");
    assert!((-500..=500).contains(&after(last)), "{what}: data until {} ms", after(last));
    assert!((-10..=1000).contains(&after(ended)), "{what}: ended {} ms after it was due", after(ended));
}

#[test]
fn a_stream_ends_with_its_token_and_whoever_comes_back_is_refused() {
    let edge = Edge::start();
    let expires = now() + 4;
    let token = Token::person("alice").claim("exp", expires).mint();
    let bearer = format!("Bearer {token}");
    let due = u64::try_from(expires).expect("after 1970") * 1000;
    let open = |kind, door| {
        // A client's own limit, longer than ours: it must count for nothing.
        watch(kind, door, path(kind), &[("authorization", &bearer), (LIMIT, "999999999")], LONG)
    };
    for (what, outcome) in edge.each(&[Kind::WebSocket, Kind::Events, Kind::Chunks, Kind::Grpc], |kind, door| {
        let outcome = open(kind, door);
        assert_eq!(outcome.status, begun(kind), "{kind:?}");
        outcome
    }) {
        assert_ended(&what, &outcome, due);
    }
    for (what, outcome) in edge.each(&KINDS, open) {
        assert_eq!(outcome.status, 401, "{what}: coming back with the same token");
    }
    let fresh = format!("Bearer {}", Token::person("alice").mint());
    for (what, outcome) in edge.each(&KINDS, |kind, door| {
        (watch(kind, door, path(kind), &[("authorization", &fresh)], Duration::from_secs(1)), begun(kind))
    }) {
        assert_eq!(outcome.0.status, outcome.1, "{what}: coming back with a fresh token");
    }
}

#[test]
fn a_stream_ends_where_a_policy_ends_the_session() {
    let edge = Edge::start();
    let began = now();
    let token = Token::person("alice").claim("auth_time", began).claim("iat", began).mint();
    let bearer = format!("Bearer {token}");
    let due = u64::try_from(began + 5).expect("after 1970") * 1000;
    let open = |kind, door| watch(kind, door, "/live/short", &[("authorization", &bearer)], LONG);
    for (what, outcome) in edge.each(&[Kind::WebSocket, Kind::Events], open) {
        assert_ended(&what, &outcome, due);
    }
    for (what, outcome) in edge.each(&[Kind::WebSocket, Kind::Events], open) {
        assert!(matches!(outcome.status, 401 | 403), "{what}: coming back to a session that is over: {outcome:?}");
    }
}

#[test]
fn a_client_cannot_limit_what_nobody_limits_and_the_upstream_never_sees_it_try() {
    let edge = Edge::start();
    let start = now_ms();
    for (what, outcome) in edge.each(&[Kind::WebSocket, Kind::Events], |kind, door| {
        watch(kind, door, "/public/live", &[(LIMIT, "300")], Duration::from_secs(2))
    }) {
        assert!(outcome.last >= start + 1500, "{what}: a client's own limit was heeded: {outcome:?}");
    }
    let echo = Builder::new().both_envoys().start();
    let bearer = format!("Bearer {}", Token::person("alice").mint());
    for (door, to) in echo.doors() {
        for (path, more) in [("/hello", None), ("/public/x", None), ("/hello", Some("text/event-stream"))] {
            for times in [1, 2] {
                let mut request = Request::new(to, "GET", path).header("Authorization", &*bearer);
                request = more.iter().fold(request, |request, accept| request.header("Accept", *accept));
                request = (0..times).fold(request, |request, _| request.header(LIMIT, "999999999"));
                let upstream = request.send().upstream().expect("it reached the upstream");
                let seen = upstream.all(LIMIT);
                assert!(seen.iter().all(|value| !value.contains("999999999")), "{door}, {path}: {seen:?}");
                assert!(more.is_some() || seen.is_empty(), "{door}, {path}: {seen:?}");
            }
        }
    }
}

#[test]
fn only_what_the_rules_call_streaming_is_limited_without_being_asked_for_as_a_stream() {
    let edge = Edge::start();
    let expires = now() + 3;
    let bearer = format!("Bearer {}", Token::person("alice").claim("exp", expires).mint());
    let due = u64::try_from(expires).expect("after 1970") * 1000;
    let longest = Duration::from_secs(5);
    let open = |path: &'static str| {
        let bearer = &bearer;
        move |kind, door| watch(kind, door, path, &[("authorization", bearer)], longest)
    };
    thread::scope(|scope| {
        let feed = scope.spawn(|| edge.each(&[Kind::Chunks], open("/live/feed")));
        for (what, outcome) in edge.each(&[Kind::Chunks], open("/live")) {
            assert!(outcome.last > due + 500, "{what}: nobody said that it is a stream: {outcome:?}");
        }
        for (what, outcome) in feed.join().expect("no stream panics") {
            assert_ended(&what, &outcome, due);
        }
    });
}

#[test]
fn a_bound_of_the_route_holds_beside_the_answers_and_where_there_is_none() {
    let edge = Edge::with(&[("max_stream_duration: 3600s", "max_stream_duration: 2s")]);
    let bearer = format!("Bearer {}", Token::person("alice").mint());
    let (start, longest) = (now_ms(), Duration::from_secs(6));
    for (what, outcome) in edge.each(&[Kind::WebSocket, Kind::Chunks, Kind::Grpc], |kind, door| {
        watch(kind, door, "/live", &[("authorization", &bearer)], longest)
    }) {
        assert!((start + 1900..start + 4500).contains(&outcome.ended), "{what}: {outcome:?}, begun at {start}");
    }
}

#[test]
fn a_stream_ends_when_its_session_must_be_verified_again() {
    let edge = Edge::start();
    // Evidence lasts an hour at most where the token lives for two.
    let began = now() - 3596;
    let token =
        |issued: i64| Token::person("alice").claim("iat", issued).claim("auth_time", issued).claim("sid", "one");
    let bearer = format!("Bearer {}", token(began).claim("exp", now() + 3600).mint());
    let due = u64::try_from(began + 3600).expect("after 1970") * 1000;
    let open = |kind, door| watch(kind, door, path(kind), &[("authorization", &bearer)], LONG);
    for (what, outcome) in edge.each(&KINDS, open) {
        assert_ended(&what, &outcome, due);
    }
    for (what, outcome) in edge.each(&KINDS, open) {
        assert_eq!(outcome.status, 401, "{what}: coming back with the same evidence");
    }
    let renewed = format!("Bearer {}", token(now()).mint());
    for (what, outcome) in edge.each(&KINDS, |kind, door| {
        (watch(kind, door, path(kind), &[("authorization", &renewed)], Duration::from_secs(1)), begun(kind))
    }) {
        assert_eq!(outcome.0.status, outcome.1, "{what}: coming back with a token from after it");
    }
}
