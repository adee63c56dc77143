//! The upstream may believe our headers: none of them can come from a client, in any spelling, once or twice.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::support::{
    http::{Request, Upstream},
    key_sets::KeySets,
    process::eventually,
    stack::{Builder, Stack},
    tokens::{self, Token},
};

/// Every name of the contract, and one that is only ours by its beginning.
const OURS: &[&str] = &[
    "decision",
    "subject",
    "roles",
    "device",
    "session",
    "risk-score",
    "trust-score",
    "trust-level",
    "restrictions",
    "session-ttl",
    "policy",
    "decision-id",
    "assertion",
    "something-new",
];

/// Names that proxies and frameworks read as another path, method or time limit.
pub(crate) const OVERRIDES: [&str; 9] = [
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-envoy-upstream-stream-duration-ms",
];

const SPOOFED: &str = "spoofed";

/// Spellings of one name that some server takes for the same.
fn spellings(name: &str) -> [String; 4] {
    let under = name.replace('-', "_");
    [format!("x-zt-{name}"), format!("X-ZT-{name}"), format!("x_zt_{under}"), format!("X_ZT_{under}")]
}

fn with_spoofed(mut request: Request, times: usize) -> Request {
    for name in OURS {
        for spelling in spellings(name) {
            for _ in 0..times {
                request = request.header(&spelling, SPOOFED);
            }
        }
    }
    for name in OVERRIDES {
        request = request.header(name, "/admin");
    }
    request
}

fn assert_only_ours(upstream: &Upstream, what: &str) {
    let mut seen = Vec::new();
    for (name, value) in &upstream.headers {
        assert!(!value.contains(SPOOFED), "{what}: the upstream got {name}: {value}");
        assert!(!name.starts_with("x_zt_"), "{what}: the upstream got {name}: {value}");
        if name.starts_with("x-zt-") {
            assert!(!seen.contains(name), "{what}: {name} is there twice");
            seen.push(name.clone());
        }
    }
    for name in OVERRIDES {
        assert_eq!(upstream.all(name), Vec::<&str>::new(), "{what}: {name} reached the upstream");
    }
    assert_eq!(upstream.header("x-zt-decision"), "allow", "{what}");
}

#[test]
fn the_page_names_every_header_that_is_taken_off() {
    let page = include_str!("../../docs/decision.md");
    let line = page.lines().find(|line| line.starts_with("| `x-original-url`")).expect("a row of them");
    let named: Vec<_> = line.split('`').skip(1).step_by(2).collect();
    assert_eq!(named, OVERRIDES);
}

fn on_every_door(stack: &Stack, path: &str, token: Option<&str>, check: impl Fn(&Upstream, &str)) {
    for (door, to) in stack.doors() {
        for times in [1, 2] {
            let what = format!("{path} by {door}, each {times} times");
            let mut request = Request::new(to, "GET", path);
            if let Some(token) = token {
                request = request.bearer(token);
            }
            let answer = with_spoofed(request, times).send();
            assert_eq!(answer.status, 200, "{what}: {answer:?}");
            let upstream = answer.upstream().expect("it reached the upstream");
            assert_only_ours(&upstream, &what);
            check(&upstream, &what);
        }
    }
}

#[test]
fn no_spoofed_header_reaches_the_upstream_on_an_allowed_route() {
    let stack = Builder::new().both_envoys().start();
    let token = Token::person("alice").roles(&["clerk"]).mint();
    on_every_door(&stack, "/orders/7", Some(&token), |upstream, what| {
        assert_eq!(upstream.header("x-zt-subject"), "alice", "{what}");
        assert_eq!(upstream.header("x-zt-roles"), "clerk", "{what}");
    });
}

#[test]
fn no_spoofed_header_reaches_the_upstream_on_a_public_route() {
    let stack = Builder::new().both_envoys().start();
    on_every_door(&stack, "/public/logo.svg", None, |upstream, what| {
        for name in ["x-zt-subject", "x-zt-roles", "x-zt-device", "x-zt-trust-level", "x-zt-assertion"] {
            assert_eq!(upstream.all(name), Vec::<&str>::new(), "{what}: {name} of nobody");
        }
    });
}

#[test]
fn no_spoofed_header_reaches_the_upstream_on_a_public_route_under_overload() {
    let keys = KeySets::start();
    let check = serde_json::json!({"deadline": "20s", "max_in_flight": 1});
    let builder = Builder::new().set("/identity/issuers/0/jwks", keys.url()).set("/check", check).both_envoys();
    let stack = builder.set("/identity/key_sets", serde_json::json!({"timeout": "20s"})).start();
    // Asked without an Envoy, which would not wait so long: the one check that may be under way.
    let held = format!("Bearer {}", Token::person("bob").algorithm("ES256").mint());
    let question = serde_json::json!({"attributes": {"request": {"http": {"method": "GET", "scheme": "http",
        "host": "shop.example", "path": "/hello", "headers": {"authorization": held}}}}});
    let shed = || stack.countersign.metric("countersign_shed_total", "");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| stack.countersign.check(&question).expect("answered"));
        eventually("it waits for a key", || keys.is_awaited().then_some(()));
        eventually("others are shed", || {
            stack.get("/public/logo.svg").send();
            (shed() > 0.0).then_some(())
        });
        let before = shed();
        let token = Token::person("alice").algorithm("RS256").mint();
        on_every_door(&stack, "/public/logo.svg", Some(&token), |upstream, what| {
            for name in ["x-zt-subject", "x-zt-roles", "x-zt-assertion"] {
                assert_eq!(upstream.all(name), Vec::<&str>::new(), "{what}: {name} of nobody");
            }
        });
        assert!(shed() >= before + 8.0, "each was shed: {before}, {}", shed());
        keys.let_go();
        assert!(waiting.join().expect("it was held").get("okResponse").is_some());
    });
}

#[test]
fn a_session_that_was_ended_on_a_public_route_is_nobody_either() {
    let stack = Stack::start();
    let token = Token::person(&tokens::unique("guest"));
    let (sid, minted) = (token.value("sid").to_owned(), token.mint());
    let seen = || {
        let answer = stack.get("/public/logo.svg").bearer(&minted).send();
        answer.upstream().expect("a public route lets it through")
    };
    // A session is one that was seen where somebody asks who it is.
    assert_eq!(stack.get("/hello").bearer(&minted).send().status, 200);
    assert_eq!(seen().header("x-zt-subject"), token.value("sub"));
    eventually("it is ended", || {
        let end = ["session", "end", &sid, "--reason", "test", "--config", "countersign.yaml"];
        (stack.countersign.command(&end).0 == Some(0)).then_some(())
    });
    eventually("it is refused", || (stack.get("/hello").bearer(&minted).send().status == 401).then_some(()));
    let ended = seen();
    for name in ["x-zt-subject", "x-zt-session", "x-zt-roles", "x-zt-assertion"] {
        assert_eq!(ended.all(name), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_bad_token_on_a_public_route_is_nobody() {
    let stack = Stack::start();
    let answer = stack.get("/public/logo.svg").bearer("not.a.token").send();
    let upstream = answer.upstream().expect("a public route lets it through");
    assert_eq!(upstream.all("x-zt-subject"), Vec::<&str>::new());
}

#[test]
fn a_revoked_token_on_a_public_route_is_nobody_either() {
    let stack = Stack::start();
    let token = Token::person(&tokens::unique("guest"));
    let minted = token.mint();
    let seen = || {
        let answer = stack.get("/public/logo.svg").bearer(&minted).send();
        answer.upstream().expect("a public route lets it through")
    };
    let known = seen();
    assert_eq!(known.header("x-zt-subject"), token.value("sub"));
    // Nobody was scored, so no score is told.
    for name in ["x-zt-trust-level", "x-zt-trust-score", "x-zt-risk-score"] {
        assert_eq!(known.all(name), Vec::<&str>::new(), "{name}");
    }
    stack.countersign.command(&["revoke", "token", token.value("jti"), "--config", "countersign.yaml"]);
    let revoked = seen();
    for name in ["x-zt-subject", "x-zt-session", "x-zt-roles", "x-zt-assertion"] {
        assert_eq!(revoked.all(name), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_subject_outside_printable_ascii_is_percent_encoded() {
    let stack = Stack::start();
    let token = Token::person("jörg müller").mint();
    let answer = stack.get("/hello").bearer(&token).send();
    let upstream = answer.upstream().expect("allowed");
    assert_eq!(upstream.header("x-zt-subject"), "j%C3%B6rg%20m%C3%BCller");
}

#[test]
fn where_nobody_asks_for_a_device_none_is_told_that_contradicts_the_request() {
    let stack = Stack::start();
    for (id, owner) in [("laptop", "alice"), ("bobs", "bob")] {
        let owner = format!("user={owner}");
        let set = ["device", "put", id, "--set", &owner, "--set", "fingerprint=f", "--config", "countersign.yaml"];
        assert_eq!(stack.countersign.command(&set).0, Some(0));
    }
    let told = |owed: &str, named: &str, fingerprint: &str| {
        let token = Token::person("alice").claim("device_id", owed).mint();
        let request = stack.get("/ext/any").bearer(&token).header("X-Device-ID", named);
        let upstream = request.header("X-Device-Fingerprint", fingerprint).send().upstream().expect("allowed");
        let payload = upstream.header("x-zt-assertion").split('.').nth(1).expect("a JWT");
        let claims = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
        let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
        let header = upstream.all("x-zt-device").join(",");
        assert_eq!(claims["device"].as_str().unwrap_or_default(), header, "the header and the assertion agree");
        header
    };
    assert_eq!(told("laptop", "laptop", "f"), "laptop");
    assert_eq!(told("laptop", "bobs", "f"), "", "another device than the token's");
    assert_eq!(told("bobs", "bobs", "f"), "", "somebody else's");
    assert_eq!(told("laptop", "laptop", "g"), "", "another fingerprint");
}
