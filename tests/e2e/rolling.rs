//! Three replicas behind the sample Envoy, restarted one after the other under load: no request fails, none is wrong.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use crate::support::{
    self,
    countersign::{Countersign, Setup, binary},
    envoy,
    http::Request,
    ports,
    process::{Process, eventually, pause},
    stack::RULES,
    tokens::Token,
};

use super::redis::Redis;

const SAMPLE: &str = include_str!("../../envoy/edge-http.yaml");

/// The sample with the ports of this test, and with time to answer: the machine of a test run is busy.
fn edge(folder: &Path, replicas: &[Countersign], service: SocketAddr) -> (Process, SocketAddr) {
    let (listener, admin) = (ports::local(ports::free()), ports::local(ports::free()));
    let endpoint = |to: SocketAddr| {
        let at = format!("{{ address: {}, port_value: {} }}", to.ip(), to.port());
        format!("- endpoint: {{ address: {{ socket_address: {at} }} }}")
    };
    let replicas: Vec<_> = replicas.iter().map(|replica| endpoint(replica.authz)).collect();
    let text = [
        (endpoint(ports::local(9191)), replicas.join(&format!("\n{}", " ".repeat(14)))),
        (endpoint(ports::local(8080)), endpoint(service)),
        (
            "address: 127.0.0.1, port_value: 9901".to_owned(),
            format!("address: 127.0.0.1, port_value: {}", admin.port()),
        ),
        (
            "address: 0.0.0.0, port_value: 10000".to_owned(),
            format!("address: 127.0.0.1, port_value: {}", listener.port()),
        ),
        ("timeout: 0.2s".to_owned(), "timeout: 5s".to_owned()),
        ("max_interval: 0.2s".to_owned(), "max_interval: 5s".to_owned()),
        ("- timeout: 0.5s".to_owned(), "- timeout: 4s".to_owned()),
        ("interval: 1s, timeout: 1s".to_owned(), "interval: 1s, timeout: 10s".to_owned()),
    ]
    .into_iter()
    .fold(SAMPLE.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(&from).count(), 1, "`{from}` stands in the sample once");
        text.replace(&from, &to)
    });
    let file = folder.join("edge.yaml");
    fs::write(&file, text).expect("the folder is writable");
    let program = support::tool(&format!("envoy-{}/bin/envoy", envoy::NEW));
    let options = ["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "--file-flush-interval-msec", "50"];
    let process = Process::start(folder, "edge", Command::new(program).arg("-c").arg(&file).args(options));
    eventually("Envoy is ready", || {
        (Request::new(admin, "GET", "/ready").try_send().ok()?.status == 200).then_some(())
    });
    support::record_real(&format!("envoy-{}", envoy::NEW));
    (process, listener)
}

/// The end of Envoy's access log, but for what it should hold.
fn last_words(edge: &Process) -> String {
    pause(Duration::from_millis(500));
    let output = edge.output();
    let odd = output.lines().filter(|line| !line.contains(":200,") && !line.contains(":401,"));
    odd.collect::<Vec<_>>().join("\n")
}

#[test]
fn replicas_restarted_one_after_the_other_fail_no_request() {
    let folder = tempfile::TempDir::with_prefix("countersign-e2e-").expect("a temporary folder");
    let redis = Redis::start(folder.path());
    let start = |index: usize, setup: &Setup| {
        let own = folder.path().join(index.to_string());
        let replica = Countersign::start(&own, setup);
        replica.wait_ready();
        replica
    };
    let setups: Vec<_> = (0..3)
        .map(|index| {
            let own = folder.path().join(index.to_string());
            fs::create_dir(&own).expect("the folder is writable");
            let mut setup = Setup::new(&own, RULES);
            setup.config["store"]["url"] = redis.url().into();
            setup.config["check"]["deadline"] = "4s".into();
            setup
        })
        .collect();
    let mut replicas: Vec<_> = setups.iter().enumerate().map(|(index, setup)| start(index, setup)).collect();
    let upstream = ports::local(ports::free());
    let listen = upstream.to_string();
    let echo = Process::start(folder.path(), "echo", binary().args(["echo", "--listen", &listen, "--name", "service"]));
    eventually("the service answers", || Request::new(upstream, "GET", "/").try_send().ok());
    let (edge, door) = edge(folder.path(), &replicas, upstream);

    let (good, revoked) = (Token::person("alice").mint(), Token::person("mallory"));
    redis.cli(&["SET", &format!("cs:revoked:jti:{}", revoked.value("jti")), "x", "EX", "600"]);
    let revoked = revoked.mint();
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    let ask = |token: &str| Request::new(door, "GET", "/hello").bearer(token).send();
    eventually("requests pass", || (ask(&good).status == 200).then_some(()));
    eventually("the revocation is known", || (ask(&revoked).status == 401).then_some(()));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Acquire) {
                        let answer = ask(&good);
                        assert_eq!(answer.status, 200, "{answer:?}");
                        // A token that no replica has seen, too.
                        let answer = ask(&Token::person("bob").mint());
                        assert_eq!(answer.status, 200, "{answer:?}");
                        let answer = ask(&revoked);
                        assert_eq!((answer.status, answer.reason().as_str()), (401, "token_revoked"), "{answer:?}");
                        answered.fetch_add(3, Ordering::AcqRel);
                    }
                })
            })
            .collect();
        for (index, setup) in setups.iter().enumerate() {
            let before = answered.load(Ordering::Acquire);
            replicas[index].process.signal("TERM");
            let status = replicas[index].process.wait();
            assert_eq!(status.code(), Some(0), "{}", replicas[index].process.output());
            assert!(answered.load(Ordering::Acquire) > before, "requests were answered while it drained");
            replicas[index] = start(index, setup);
            // Until Envoy has asked after its health again.
            pause(Duration::from_millis(2500));
            if clients.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        stop.store(true, Ordering::Release);
        let joined: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        assert!(
            joined.iter().all(Result::is_ok),
            "a client saw something wrong; Envoy's last words:\n{}",
            last_words(&edge)
        );
    });
    assert!(answered.load(Ordering::Acquire) > 300, "{answered:?} answers");
    drop(echo);
}
