//! Rate limits: each scope counts together what it names and nothing else, and replicas count as one.

use std::fs;

use crate::{
    redis::Redis,
    support::{
        countersign::{Countersign, Setup},
        http::Response,
        ports,
        stack::{Builder, Stack},
        tokens::{AUDIENCE, ISSUER, Token, unique},
    },
};

const RULES: &str = r#"
defaults: { min_trust_level: untrusted, device: when_present }
guards: []
resources:
  - { id: user,    match: { paths: [/user] },    access: authenticated, policy: by-user }
  - { id: session, match: { paths: [/session] }, access: authenticated, policy: by-session }
  - { id: device,  match: { paths: [/device] },  access: authenticated, policy: by-device }
  - { id: client,  match: { paths: [/client] },  access: authenticated, policy: by-client }
  - { id: ip,      match: { paths: [/ip] },      access: authenticated, policy: by-ip }
  - { id: global,  match: { paths: [/global] },  access: authenticated, policy: by-global }
  - { id: scope,   match: { paths: [/scope] },   access: authenticated, policy: by-scope }
  - { id: shared,  match: { paths: [/shared] },  access: authenticated, policy: shared }
policies:
  - { id: by-user,    rate_limits: [{ scope: user,    limit: 1, window: 1h }], actions: [{ type: allow }] }
  - { id: by-session, rate_limits: [{ scope: session, limit: 1, window: 1h }], actions: [{ type: allow }] }
  - { id: by-device,  rate_limits: [{ scope: device,  limit: 1, window: 1h }], actions: [{ type: allow }] }
  - { id: by-client,  rate_limits: [{ scope: client,  limit: 1, window: 1h }], actions: [{ type: allow }] }
  - { id: by-ip,      rate_limits: [{ scope: ip,      limit: 1, window: 1h }], actions: [{ type: allow }] }
  - { id: by-global,  rate_limits: [{ scope: global,  limit: 1, window: 1h }], actions: [{ type: allow }] }
  - { id: by-scope, conditions: { api_scopes: [read] }, rate_limits: [{ scope: read, limit: 1, window: 1h }], actions: [{ type: allow }] }
  - { id: shared, rate_limits: [{ scope: user, limit: 5, window: 1h }], actions: [{ type: allow }] }
"#;

/// A path; who asks a second time there, and from which device; who else asks, and from which.
type Row = (&'static str, Token, Option<&'static str>, Token, Option<&'static str>);

fn person(name: &str) -> Token {
    Token::person(name).claim("sid", format!("sid-of-{name}")).claim("client_id", "web").claim("scope", "read")
}

fn ask(stack: &Stack, path: &str, token: &Token, device: Option<&str>) -> Response {
    let request = stack.get(path).bearer(&token.mint());
    let Some(id) = device else { return request.send() };
    request.header("X-Device-ID", id).send()
}

#[test]
fn each_scope_counts_together_what_it_names() {
    let builder = Builder::with_rules(RULES);
    let keys = builder.folder().join("jwks.json");
    let issuer = |name: &str| serde_json::json!({ "issuer": name, "audiences": [AUDIENCE], "jwks": keys });
    let issuers = serde_json::json!([issuer(ISSUER), issuer("https://partner.test")]);
    let stack = builder.set("/identity/issuers", issuers).start();
    for id in ["d1", "d2"] {
        let (code, output) =
            stack.countersign.command(&["device", "put", id, "--set", "user=ada", "--config", "countersign.yaml"]);
        assert_eq!(code, Some(0), "{output}");
    }
    let ada = || person("ada");
    // The first is let in; the second is one more of the same, the third is somebody or something else.
    let rows: [Row; 6] = [
        ("/user", ada().claim("sid", "another"), None, person("bob"), None),
        ("/session", ada().claim("client_id", "app"), None, ada().claim("sid", "another"), None),
        ("/client", person("bob"), None, ada().claim("client_id", "app"), None),
        ("/scope", ada().claim("scope", "read write"), None, person("bob"), None),
        ("/device", ada(), Some("d1"), ada(), Some("d2")),
        ("/ip", person("bob"), None, person("eve"), None),
    ];
    for (path, same, device, other, other_device) in rows {
        assert_eq!(ask(&stack, path, &ada(), device).status, 200, "{path}: the first");
        let refused = ask(&stack, path, &same, device);
        assert_eq!((refused.status, refused.reason().as_str()), (429, "rate_limited"), "{path}: one more");
        // All of them come from one address.
        let expected = if path == "/ip" { 429 } else { 200 };
        assert_eq!(ask(&stack, path, &other, other_device).status, expected, "{path}: another");
    }
    // The same names with another issuer are another's.
    for path in ["/user", "/session", "/client", "/scope"] {
        let theirs = || ada().claim("iss", "https://partner.test");
        assert_eq!(ask(&stack, path, &theirs(), None).status, 200, "{path}: of another issuer");
        assert_eq!(ask(&stack, path, &theirs(), None).status, 429, "{path}: once more");
    }
    // Without a client id each subject is counted.
    let nameless = |name: &str| person(name).without("client_id");
    assert_eq!(ask(&stack, "/client", &nameless("ada"), None).status, 200);
    assert_eq!(ask(&stack, "/client", &nameless("ada"), None).status, 429);
    assert_eq!(ask(&stack, "/client", &nameless("bob"), None).status, 200);
    // Of an IPv6 address the half that a client cannot choose.
    let from = |address: &str| {
        let bearer = format!("Bearer {}", ada().mint());
        let answer = stack.countersign.check(&serde_json::json!({"attributes": {
            "source": {"address": {"socketAddress": {"address": address, "portValue": 4711}}},
            "request": {"http": {"method": "GET", "scheme": "http", "host": "shop.example", "path": "/ip",
                                 "headers": {"authorization": bearer}}},
        }}));
        answer.expect("answered")["deniedResponse"]["status"]["code"].as_u64()
    };
    assert_eq!(from("2001:db8:1:2::3"), None);
    assert_eq!(from("2001:db8:1:2:ffff::4"), Some(429));
    assert_eq!(from("2001:db8:1:3::3"), None);

    assert_eq!(ask(&stack, "/global", &ada(), None).status, 200);
    assert_eq!(ask(&stack, "/global", &person("bob"), Some("d9")).status, 429);

    // An id that anybody can make up is no device: without one, the person is counted.
    let mallory = || person("mallory");
    assert_eq!(ask(&stack, "/device", &mallory(), Some("made-up-1")).status, 200);
    assert_eq!(ask(&stack, "/device", &mallory(), Some("made-up-2")).status, 429);
    assert_eq!(ask(&stack, "/device", &mallory(), None).status, 429);
    assert_eq!(ask(&stack, "/device", &person("trent"), None).status, 200);
}

#[test]
fn replicas_count_as_one() {
    let builder = Builder::with_rules(RULES);
    let redis = Redis::start(builder.folder());
    // How fast it answers on a busy machine is not the point.
    let url = format!("{}?timeout=5s", redis.url());
    let stack = builder.set("/store/url", url.clone()).set("/check/deadline", "5s").start();
    let folder = stack.folder.join("second");
    fs::create_dir(&folder).expect("the folder is writable");
    let mut setup = Setup::new(&folder, RULES);
    setup.config["store"]["url"] = url.into();
    setup.config["check"]["deadline"] = "5s".into();
    let second = Countersign::start(&folder, &setup);
    second.wait_ready();
    let bearer = format!("Bearer {}", person(&unique("rated")).mint());
    let question = serde_json::json!({"attributes": {
        "source": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": ports::free()}}},
        "request": {"http": {"method": "GET", "scheme": "http", "host": "shop.example", "path": "/shared",
                             "headers": {"authorization": bearer}}},
    }});
    let allowed = |replica: &Countersign| {
        let answer = replica.check(&question).expect("answered");
        match answer["deniedResponse"]["status"]["code"].as_u64() {
            None => true,
            Some(status) => {
                assert_eq!(status, 429, "{answer}");
                false
            }
        }
    };
    let taken = (0..10).filter(|turn| allowed(if turn % 2 == 0 { &stack.countersign } else { &second })).count();
    assert_eq!(taken, 5);
    assert!(!allowed(&stack.countersign) && !allowed(&second));
}
