//! Start, readiness, reload, drain, death: what an operator lives through, seen through Envoy.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use crate::support::{
    countersign::{Countersign, binary},
    envoy::{self, Envoy},
    http::Request,
    key_sets::KeySets,
    ports,
    process::{Process, eventually, pause},
    stack::{Builder, RULES, Stack},
    tokens::{self, Token},
};

#[test]
fn with_countersign_dead_nothing_is_let_through() {
    let mut stack = Builder::new().both_envoys().start();
    stack.countersign.process.signal("KILL");
    stack.countersign.process.wait();
    let token = Token::person("alice").mint();
    for (door, to) in stack.doors() {
        for path in ["/hello", "/public/x"] {
            let answer = Request::new(to, "GET", path).bearer(&token).send();
            assert!(matches!(answer.status, 403 | 503), "{door}: {answer:?}");
            assert_eq!(answer.header("x-echo"), None, "{door}: it reached the upstream");
        }
    }
}

#[test]
fn sigterm_finishes_what_is_under_way_and_ends_with_zero() {
    let keys = KeySets::start();
    let check = serde_json::json!({"deadline": "4s", "drain_delay": "200ms"});
    let mut stack = Builder::new().set("/identity/issuers/0/jwks", keys.url()).set("/check", check).start();
    let token = Token::person("alice").algorithm("RS256").mint();
    // By a key that nobody has yet: its check waits for it.
    let held = Token::person("bob").algorithm("ES256").mint();
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let answer = stack.get("/hello").bearer(&token).send();
                // While it drains and once it is gone: an answer of Envoy's own, never the upstream's without a check.
                assert!(answer.status == 200 || answer.status == 403 || answer.status == 503, "{answer:?}");
                if answer.status == 200 {
                    answered.fetch_add(1, Ordering::AcqRel);
                    assert_eq!(answer.upstream().expect("reached").header("x-zt-decision"), "allow");
                }
            }
        });
        eventually("requests flow", || (answered.load(Ordering::Acquire) > 20).then_some(()));
        let slow = scope.spawn(|| stack.get("/hello").bearer(&held).send());
        eventually("a check waits for a key", || keys.is_awaited().then_some(()));
        stack.countersign.process.signal("TERM");
        eventually("it says that it is not ready, or is gone", || {
            (stack.countersign.ready() != Some(200)).then_some(())
        });
        // Until connections have been asked to end.
        pause(Duration::from_millis(500));
        assert!(!slow.is_finished(), "it was held up when draining began");
        keys.let_go();
        let answer = slow.join().expect("it is answered");
        assert_eq!((answer.status, answer.header("x-echo").is_some()), (200, true), "{answer:?}");
        eventually("it ends", || {
            fs::read_to_string(format!("/proc/{}/stat", stack.countersign.process.id()))
                .map_or(Some(()), |stat| stat.contains(") Z ").then_some(()))
        });
        stop.store(true, Ordering::Release);
        client.join().expect("the client saw nothing wrong");
    });
    let status = stack.countersign.process.wait();
    assert_eq!(status.code(), Some(0), "{}", stack.countersign.process.output());
}

#[test]
fn new_rules_take_effect_while_it_runs() {
    let stack = Stack::start();
    let token = Token::person("alice").mint();
    assert_eq!(stack.get("/new").bearer(&token).send().status, 403);
    let more = "  - { id: new, match: { paths: [\"/new\"], methods: [GET] }, access: authenticated, min_trust_level: untrusted }\n";
    stack.countersign.write_rules(&RULES.replace("roles:\n", &format!("{more}roles:\n")));
    eventually("the new rule is followed", || (stack.get("/new").bearer(&token).send().status == 200).then_some(()));
    assert_eq!(stack.get("/hello").bearer(&token).send().status, 200, "the others are as before");
}

#[test]
fn a_broken_reload_keeps_the_last_good_rules_and_says_so() {
    let stack = Stack::start();
    let token = Token::person("alice").mint();
    stack.countersign.write_rules("resources:\n  - { id: x, match: { paths: [\"/hello\"] }, acess: public }\n");
    eventually("a log line names the mistake", || stack.countersign.process.output().contains("acess").then_some(()));
    assert_eq!(stack.get("/hello").bearer(&token).send().status, 200);
    assert_eq!(stack.get("/hello").send().status, 401, "the broken rule makes nothing public");
    assert!(stack.countersign.metric("countersign_rules_reloads_total", "failed") >= 1.0);
    assert!(stack.countersign.metric("countersign_rules_current", "") < 1.0, "the files cannot be used");
}

#[test]
fn sighup_during_the_start_does_not_end_it() {
    // Takes connections and says nothing: the start waits for a moment.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/jwks", silent.local_addr().expect("bound"));
    let builder = Builder::new().set("/identity/issuers/0/jwks", url);
    let mut countersign = Countersign::start(builder.folder(), &builder.countersign);
    eventually("its ports are open", || TcpStream::connect(countersign.http).ok());
    countersign.process.signal("HUP");
    countersign.process.wait_for_output("serves");
    countersign.process.signal("HUP");
    countersign.process.wait_for_output("rules reloaded");
}

#[test]
fn a_taken_port_is_one_clear_line_and_exit_1() {
    let builder = Builder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for name in ["authz", "admin", "http"] {
        let pointer = format!("/listen/{name}");
        let mut config = builder.countersign.config.clone();
        *config.pointer_mut(&pointer).expect("a listener") = address.clone().into();
        let (code, output) = serve_to_its_end(builder.folder(), &config.to_string());
        assert_eq!(code, Some(1), "{name}: {output}");
        let lines: Vec<_> = output.lines().filter(|line| line.contains(&address)).collect();
        assert_eq!(lines.len(), 1, "{name}: one line names {address}: {output}");
        assert!(!output.contains(r#""kind":"start""#), "{name}: an audit of a start that was none: {output}");
        assert!(!output.contains("panicked"), "{output}");
    }
}

#[test]
fn an_unknown_key_in_the_configuration_is_refused_with_its_place() {
    let builder = Builder::new().set("/listne", "x");
    let (code, output) = serve_to_its_end(builder.folder(), &builder.countersign.config.to_string());
    assert_eq!(code, Some(64), "{output}");
    assert!(output.contains("listne") && output.contains("countersign.yaml"), "{output}");
}

#[test]
fn an_issuer_without_audiences_is_refused() {
    let builder = Builder::new().set("/identity/issuers/0/audiences", Vec::<String>::new());
    let (code, output) = serve_to_its_end(builder.folder(), &builder.countersign.config.to_string());
    assert_eq!(code, Some(64), "{output}");
    assert!(output.contains("audiences"), "{output}");
}

#[test]
fn every_problem_of_a_configuration_is_told_at_once() {
    let builder = Builder::new()
        .set("/identity/issuers/0/audiences", Vec::<String>::new())
        .set("/identity/issuers/0/algorithms", vec!["HS256"])
        .set("/risk/model", "guess")
        .set("/listne", "x");
    let folder = builder.folder();
    let file = folder.join("countersign.yaml");
    fs::write(&file, builder.countersign.config.to_string()).expect("writable");
    let output = binary().arg("check-config").arg("--config").arg(&file).output().expect("it runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    for wanted in ["audiences", "HS256", "guess", "listne"] {
        assert!(text.contains(wanted), "`{wanted}` is not told: {text}");
    }
}

#[test]
fn with_its_key_set_out_of_reach_it_is_not_ready_and_recovers() {
    let port = ports::free();
    let stack = Builder::new().set("/identity/issuers/0/jwks", format!("http://127.0.0.1:{port}/jwks")).start_unready();
    let token = Token::person("alice").mint();
    eventually("it answers, not ready", || (stack.countersign.ready()? == 503).then_some(()));
    let answer = stack.get("/hello").bearer(&token).send();
    assert_eq!((answer.status, answer.reason().as_str()), (503, "credentials_unknown"), "{answer:?}");
    assert_eq!(answer.header("x-echo"), None);
    assert_eq!(
        stack.countersign.health().as_deref(),
        Some("NOT_SERVING"),
        "Envoys that ask after its health look away"
    );

    let server = TcpListener::bind(ports::local(port)).expect("the port is still free");
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let body = tokens::key_set().to_string();
        for mut stream in server.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    stack.countersign.wait_ready();
    eventually("Envoys are told", || (stack.countersign.health()? == "SERVING").then_some(()));
    eventually("the token is accepted", || (stack.get("/hello").bearer(&token).send().status == 200).then_some(()));
}

#[test]
fn nothing_is_written_into_the_working_directory() {
    let stack = Stack::start();
    stack.get("/hello").bearer(&Token::person("alice").mint()).send();
    let known = ["countersign.yaml", "rules.yaml", "jwks.json", "state"];
    let stray: Vec<String> = fs::read_dir(&stack.folder)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| !known.contains(&name.as_str()))
        // The harness's own files, and what lies under HOME.
        .filter(|name| !["echo.", "envoy-", "tls-", "countersign.", "."].iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert_eq!(stray, Vec::<String>::new());
}

fn serve_to_its_end(folder: &std::path::Path, config: &str) -> (Option<i32>, String) {
    let file = folder.join("countersign.yaml");
    fs::write(&file, config).expect("the folder is writable");
    fs::write(folder.join("rules.yaml"), RULES).expect("the folder is writable");
    let name = tokens::unique("serve");
    let mut command: Command = binary();
    let mut process =
        Process::start(folder, &name, command.arg("serve").arg("--config").arg(&file).env("HOME", folder));
    pause(Duration::ZERO);
    let status = process.wait();
    (status.code(), process.output())
}

#[test]
fn an_envoy_whose_countersign_never_started_lets_nothing_through() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let upstream = ports::local(ports::free());
    let mut command = binary();
    let _echo = Process::start(folder.path(), "echo", command.args(["echo", "--listen", &upstream.to_string()]));
    for version in [envoy::NEW, envoy::OLD] {
        let setup = envoy::Setup {
            version,
            authz: ports::local(ports::free()),
            upstream,
            extensions: Vec::new(),
            authority: None,
            appends: false,
            istio: false,
            door: envoy::Door::Plain,
            traces: None,
        };
        let envoy = Envoy::start(folder.path(), &setup);
        for to in [envoy.http, envoy.raw] {
            let answer = Request::new(to, "GET", "/public/x").send();
            assert!(matches!(answer.status, 403 | 503), "{version}: {answer:?}");
            assert_eq!(answer.header("x-echo"), None, "{version}");
        }
    }
}

#[test]
fn a_collector_of_traces_that_is_not_there_is_told_of_and_counted() {
    let nobody = format!("http://{}", ports::local(ports::free()));
    let traces = serde_json::json!({"traces": {"endpoint": nobody, "ratio": 1.0}});
    let stack = Builder::new().set("/telemetry", traces).start();
    assert_eq!(stack.get("/public/logo.svg").send().status, 200);
    let lost = || stack.countersign.metric("countersign_traces_spans_total", "outcome=\"lost\"");
    eventually("lost spans are counted", || (lost() > 0.0).then_some(()));
    let told =
        || stack.countersign.process.stderr().lines().find(|line| line.contains("traces cannot be")).map(str::to_owned);
    let told = eventually("the log tells of it", told);
    assert!(told.contains("\"level\":\"warn\"") && told.contains("onnection refused"), "{told}");
}
