//! A real Redis behind Countersign behind a real Envoy: what anybody writes there bites, what is broken there is 503.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::json;

use crate::support::{
    self, envoy,
    http::{Request, Response},
    ports,
    process::{Process, eventually},
    sample,
    stack::{Builder, Stack},
    tokens::{self, Token, now},
};

/// A redis-server of one test. Its port outlives the process, so that it can come back.
pub(crate) struct Redis {
    pub(crate) process: Process,
    pub(crate) port: u16,
}

impl Redis {
    pub(crate) fn start(folder: &Path) -> Self {
        let port = ports::free();
        let process = Self::run(folder, port);
        support::record_real("redis");
        let redis = Self { process, port };
        eventually("Redis answers", || (redis.try_cli(&["PING"])? == "PONG").then_some(()));
        redis
    }

    pub(crate) fn run(folder: &Path, port: u16) -> Process {
        let mut command = Command::new(support::tool("bin/redis-server"));
        let options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"];
        Process::start(folder, "redis", command.args(["--port", &port.to_string()]).args(options).current_dir(folder))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn try_cli(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(support::tool("bin/redis-cli"));
        let output = command.args(["-p", &self.port.to_string()]).args(arguments).output().expect("redis-cli runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        self.try_cli(arguments).unwrap_or_else(|| panic!("redis-cli {arguments:?} failed"))
    }

    /// `SET key value` of any size, over standard input.
    fn set_large(&self, key: &str, value: &[u8]) {
        let mut command = Command::new(support::tool("bin/redis-cli"));
        let mut child = command
            .args(["-p", &self.port.to_string(), "-x", "SET", key])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-cli runs");
        child.stdin.take().expect("piped").write_all(value).expect("redis-cli reads");
        assert!(child.wait().expect("it ends").success());
    }
}

fn start() -> (Redis, Stack) {
    let builder = Builder::new();
    let redis = Redis::start(builder.folder());
    let stack = builder.set("/store/url", redis.url()).start();
    (redis, stack)
}

fn hello(stack: &Stack, token: &str) -> Response {
    stack.get("/hello").bearer(token).send()
}

fn assert_unavailable(answer: &Response, reason: &str) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.reason(), reason, "{answer:?}");
    assert_eq!(answer.header("x-echo"), None);
    let seconds = answer.header("retry-after").expect("Retry-After");
    assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{seconds}");
}

#[test]
fn a_plain_set_revokes_token_session_subject_and_device() {
    let (redis, stack) = start();
    let cases: [(&str, Token, &str, &str); 4] = [
        ("jti", Token::person("a"), "jti", "token_revoked"),
        ("sid", Token::person("b"), "sid", "session_revoked"),
        ("sub", Token::person("c"), "sub", "subject_revoked"),
        ("device", Token::person("d").claim("device_id", "laptop-9"), "device_id", "device_revoked"),
    ];
    redis.cli(&["HSET", "cs:device:laptop-9", "user", "d", "compliant", "true"]);
    for (kind, token, claim, reason) in cases {
        let compact = token.mint();
        let get = || {
            let request = stack.get("/hello").bearer(&compact);
            // Somebody else's device would be a refusal of its own.
            let own = kind == "device";
            if own { request.header("X-Device-ID", "laptop-9").send() } else { request.send() }
        };
        assert_eq!(get().status, 200, "{kind}: {:?}", get());
        let written = Instant::now();
        redis.cli(&["SET", &format!("cs:revoked:{kind}:{}", token.value(claim)), "lost", "EX", "600"]);
        let answer = eventually("the revocation bites", || Some(get()).filter(|answer| answer.status != 200));
        // The promise is 25 ms at the 99th percentile; a test machine is given a second.
        assert!(written.elapsed().as_millis() < 1000, "{kind}: {:?}", written.elapsed());
        assert_eq!((answer.status, answer.reason().as_str()), (401, reason), "{kind}: {answer:?}");
        assert!(answer.all("www-authenticate").join(" ").contains("error=\"invalid_token\""), "{answer:?}");
    }
}

/// Commands that Redis ran for checks: without those of the feed (its pings, and one canary a second, which is written,
/// told of and read back) and without this question.
fn commands_of_checks(redis: &Redis) -> i64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = |name: &str| -> i64 {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
    };
    let names = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(':'));
    let all: i64 = names.map(|(name, _)| calls(name)).sum();
    let canaries = calls("set");
    all - calls("ping") - calls("info") - 3 * canaries
}

#[test]
fn a_thousand_warm_checks_cost_no_command_and_no_signature_and_new_tokens_of_a_session_no_look_up() {
    let (redis, stack) = start();
    redis.cli(&["HSET", "cs:device:d7", "user", "nora", "compliant", "true", "fingerprint", "fp"]);
    let token = Token::person("nora").claim("sid", "one-login").mint();
    let get = |token: &str| {
        let request =
            stack.get("/vault").bearer(token).header("X-Device-ID", "d7").header("X-Device-Fingerprint", "fp");
        assert_eq!(request.send().status, 200);
    };
    get(&token);
    let verified = || stack.countersign.metric("countersign_tokens_total", "outcome=\"verified\"");
    let asked = || stack.countersign.metric("countersign_revocation_checks_total", "outcome=\"asked\"");
    let (commands, signatures, questions) = (commands_of_checks(&redis), verified(), asked());
    let began = Instant::now();
    // A canary may be between its writing and its reading at either end; and what was learned is written once a second,
    // whatever the number of requests that taught it.
    let rest = || 6 + 12 * (1 + began.elapsed().as_secs() as i64);
    for _ in 0..1000 {
        get(&token);
    }
    assert!(verified() - signatures < 0.5, "{} signatures were verified", verified() - signatures);
    let cost = commands_of_checks(&redis) - commands;
    assert!(cost.abs() <= rest(), "{cost} commands for 1,000 warm checks: {}", redis.cli(&["INFO", "commandstats"]));

    for _ in 0..100 {
        get(&Token::person("nora").claim("sid", "one-login").mint());
    }
    assert!((verified() - signatures - 100.0).abs() < 0.5, "each new token is verified once");
    let cost = commands_of_checks(&redis) - commands;
    assert!(cost.abs() <= rest(), "{cost} commands for 100 new tokens: the feed is live, nothing need be asked");
    assert!(asked() - questions < 0.5, "{} revocation look-ups", asked() - questions);
}

#[test]
fn a_subject_revoked_up_to_a_time_gets_in_with_a_later_token() {
    let (redis, stack) = start();
    let old = Token::person("erin").claim("iat", now() - 100).mint();
    let new = Token::person("erin").claim("iat", now() - 10).mint();
    assert_eq!(hello(&stack, &old).status, 200);
    redis.cli(&["SET", "cs:revoked:sub:erin", &(now() - 50).to_string(), "EX", "600"]);
    eventually("the old token is refused", || (hello(&stack, &old).status == 401).then_some(()));
    assert_eq!(hello(&stack, &new).status, 200);
}

#[test]
fn deleting_the_key_takes_nothing_back_and_reinstating_does() {
    let (redis, stack) = start();
    let token = Token::person("frank");
    let compact = token.mint();
    let key = format!("cs:revoked:jti:{}", token.value("jti"));
    redis.cli(&["SET", &key, "x", "EX", "600"]);
    eventually("it is refused", || (hello(&stack, &compact).status == 401).then_some(()));
    redis.cli(&["DEL", &key]);
    support::process::pause(std::time::Duration::from_millis(300));
    assert_eq!(hello(&stack, &compact).status, 401, "a key that is gone takes no revocation back");
    redis.cli(&["SET", &format!("cs:reinstated:jti:{}", token.value("jti")), "x", "EX", "600"]);
    eventually("it is allowed again", || (hello(&stack, &compact).status == 200).then_some(()));
}

#[test]
fn a_key_that_cannot_be_read_is_503_for_whom_it_concerns_alone() {
    let (redis, stack) = start();
    let unreadable = |token: &str| {
        eventually("it is known to be unreadable", || Some(hello(&stack, token)).filter(|answer| answer.status != 200))
    };
    let token = Token::person("grace");
    redis.cli(&["LPUSH", &format!("cs:revoked:jti:{}", token.value("jti")), "x"]);
    assert_unavailable(&unreadable(&token.mint()), "revocation_unknown");
    redis.cli(&["SET", "cs:notice:account:sub:victor", "neither disabled nor enabled"]);
    assert_unavailable(&unreadable(&Token::person("victor").mint()), "signals_unknown");
    assert_eq!(hello(&stack, &Token::person("heidi").mint()).status, 200);

    let limited = |subject: &str| stack.get("/limited").bearer(&Token::person(subject).mint()).send();
    assert_eq!(limited("grace").status, 200);
    let count = redis.cli(&["--scan", "--pattern", "cs:rate:*"]);
    redis.cli(&["DEL", &count]);
    redis.cli(&["LPUSH", &count, "x"]);
    assert_unavailable(&limited("grace"), "quota_unknown");
    assert_eq!(limited("heidi").status, 200);
}

#[test]
fn a_malformed_device_record_is_503_and_a_mended_one_is_an_allow() {
    let (redis, stack) = start();
    let token = Token::person("ivan").mint();
    let get = || stack.get("/vault").bearer(&token).header("X-Device-ID", "d1").send();
    redis.cli(&["SET", "cs:device:d1", "not a hash"]);
    assert_unavailable(&get(), "device_unknown");
    redis.cli(&["DEL", "cs:device:d1"]);
    redis.cli(&["HSET", "cs:device:d1", "user", "ivan", "compliant", "true", "trust_score", "very high"]);
    eventually("the record is read and malformed", || {
        let answer = get();
        (answer.status == 503).then(|| assert_unavailable(&answer, "device_unknown"))
    });
    redis.cli(&["HSET", "cs:device:d1", "trust_score", "0.7", "fingerprint", "fp"]);
    eventually("the mended record is followed", || {
        let answer =
            stack.get("/vault").bearer(&token).header("X-Device-ID", "d1").header("X-Device-Fingerprint", "fp").send();
        (answer.status == 200).then_some(())
    });
}

#[test]
fn a_value_of_50_megabytes_is_refused_and_holds_nobody_up() {
    let (redis, stack) = start();
    let (large, other) = (Token::person("judy"), Token::person("karl").mint());
    assert_eq!(hello(&stack, &other).status, 200);
    redis.set_large(&format!("cs:revoked:jti:{}", large.value("jti")), &vec![b'x'; 50 * 1024 * 1024]);
    redis.set_large("cs:device:large", &vec![b'x'; 50 * 1024 * 1024]);
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(hello(&stack, &other).status, 200);
        let fresh = Token::person("karl").mint();
        assert_eq!(hello(&stack, &fresh).status, 200);
    }
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    let compact = large.mint();
    let answer = eventually("it is refused", || Some(hello(&stack, &compact)).filter(|answer| answer.status != 200));
    assert!(matches!(answer.status, 401 | 503), "{answer:?}");
    let answer = stack.get("/vault").bearer(&other).header("X-Device-ID", "large").send();
    assert_unavailable(&answer, "device_unknown");
}

#[test]
fn with_redis_gone_steady_traffic_goes_on_for_a_while_however_long_ago_its_session_and_device_were_read() {
    let builder = Builder::with_rules(
        "defaults: { device: always }\nresources: [{ id: all, access: authenticated, match: { paths: [\"/**\"] } }]\n",
    );
    let mut redis = Redis::start(builder.folder());
    let staleness = json!({ "max_staleness": "2s" });
    let builder = builder.set("/store/url", redis.url()).set("/revocation", staleness.clone());
    let stack = builder.set("/devices", staleness).start();
    let device = json!({"id": "laptop", "user": "leo", "compliant": true, "fingerprint": "fp"});
    stack.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
    let token = Token::person("leo").claim("amr", ["pwd", "otp"]).mint();
    let ask = || {
        let request = stack.get("/work").bearer(&token).header("X-Device-ID", "laptop");
        request.header("X-Device-Fingerprint", "fp").send()
    };
    let begun = Instant::now();
    while begun.elapsed().as_secs() < 3 {
        assert_eq!(ask().status, 200);
        support::process::pause(std::time::Duration::from_millis(50));
    }
    redis.process.signal("KILL");
    redis.process.wait();
    let gone = Instant::now();
    while gone.elapsed().as_millis() < 1_000 {
        let answer = ask();
        assert_eq!(answer.status, 200, "{answer:?}");
        support::process::pause(std::time::Duration::from_millis(20));
    }
    let refused = eventually("it was too long ago", || Some(ask()).filter(|answer| answer.status != 200));
    assert_eq!(refused.status, 503, "{refused:?}");
}

#[test]
fn with_redis_late_it_is_ready_with_its_signing_keys_and_not_before() {
    let port = ports::free();
    let builder = Builder::new().set("/store/url", format!("redis://127.0.0.1:{port}/0"));
    let folder = builder.folder().to_owned();
    let stack = builder.start_unready();
    eventually("it answers, not ready", || (stack.countersign.ready()? == 503).then_some(()));
    let missing = stack.countersign.get("/readyz").body;
    assert!(missing.contains("assertion"), "{missing}");

    let _redis = Redis::run(&folder, port);
    stack.countersign.wait_ready();
    let published: serde_json::Value = stack.countersign.get("/.well-known/jwks.json").json();
    assert_eq!(published["keys"].as_array().map(Vec::len), Some(2), "{published}");
    let answer = hello(&stack, &Token::person("alice").mint());
    let upstream = answer.upstream().expect("allowed");
    assert!(!upstream.header("x-zt-assertion").is_empty(), "{answer:?}");
}

#[test]
fn with_redis_gone_nothing_unchecked_is_allowed_and_all_is_well_when_it_returns() {
    let (mut redis, stack) = start();
    let token = Token::person("leo");
    let compact = token.mint();
    assert_eq!(hello(&stack, &compact).status, 200);
    redis.process.signal("KILL");
    redis.process.wait();
    let fresh = Token::person("leo").mint();
    let answer = eventually("a token never checked is not let in", || {
        Some(hello(&stack, &fresh)).filter(|answer| answer.status != 200)
    });
    assert_unavailable(&answer, "revocation_unknown");
    let answer = eventually("a token checked long ago is not let in either", || {
        Some(hello(&stack, &compact)).filter(|answer| answer.status != 200)
    });
    assert_unavailable(&answer, "revocation_unknown");
    assert_eq!(stack.countersign.ready(), Some(200), "readiness does not follow Redis");

    redis.process = Redis::run(&stack.folder, redis.port);
    let back = Instant::now();
    eventually("it is let in again", || (hello(&stack, &compact).status == 200).then_some(()));
    assert!(back.elapsed().as_secs() < 5, "recovery took {:?}", back.elapsed());
}

#[test]
fn e07_with_redis_stalled_our_answer_is_there_before_envoys_shipped_patience_ends() {
    let builder = Builder::new().no_envoy();
    let redis = Redis::start(builder.folder());
    // As shipped: our deadline, and Envoy's of the sample. Only the store would wait for longer.
    let builder = builder.set("/check", json!({})).set("/store/url", format!("{}?timeout=5s", redis.url()));
    let stack = builder.start();
    let shipped = [
        ("timeout: 5s\n                        # A replica", "timeout: 0.2s\n                        # A replica"),
        ("max_interval: 5s", "max_interval: 0.2s"),
    ];
    let (authz, upstream) = (stack.countersign.authz, stack.upstream);
    let (_envoy, door) = sample::start(&stack.folder, ("edge-http", envoy::NEW), authz, upstream, &shipped);
    let ask = || {
        let bearer = Token::person(&tokens::unique("hasty")).mint();
        Request::new(door, "GET", "/limited").bearer(&bearer).send()
    };
    // Each time the first that has to wait. A machine may be too busy to be in time once, not always.
    let in_time = (0..5).any(|_| {
        eventually("it is let in", || (ask().status == 200).then_some(()));
        redis.process.signal("STOP");
        let answer = ask();
        redis.process.signal("CONT");
        assert_eq!(answer.status, 503, "{answer:?}");
        answer.header("x-zt-decision-id").is_some()
    });
    assert!(in_time, "each 503 was Envoy's own");
}

#[test]
fn with_memory_for_revocations_full_the_service_stays_in_and_refuses_what_is_revoked() {
    let builder = Builder::new();
    let redis = Redis::start(builder.folder());
    let stack =
        builder.set("/store", json!({"url": redis.url()})).set("/revocation", json!({"max_entries": 3})).start();
    let tokens: Vec<_> = (0..4).map(|i| Token::person(&format!("user-{i}"))).collect();
    for token in &tokens {
        redis.cli(&["SET", &format!("cs:revoked:jti:{}", token.value("jti")), "x", "EX", "600"]);
    }
    let full = || stack.countersign.metric("countersign_revocations_full", "");
    eventually("memory is full", || (full() > 0.0).then_some(()));
    assert!(stack.countersign.metric("countersign_revocation_limit", "") == 3.0);
    // The other replicas, with the same revocations, are full as well: nobody else would be there to ask.
    assert_eq!(stack.countersign.ready(), Some(200));
    assert!(stack.countersign.get("/readyz").body.contains("revocation.max_entries"));
    assert_eq!(stack.get("/public/logo.svg").send().status, 200);
    for token in &tokens {
        assert_eq!(hello(&stack, &token.mint()).reason(), "token_revoked");
    }
    assert_eq!(hello(&stack, &Token::person("alice").mint()).status, 200);
}
