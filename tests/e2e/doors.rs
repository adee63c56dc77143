//! The other ways to reach 9191: TLS that asks for a certificate, and a Unix socket.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::support::{
    countersign::Countersign,
    ports,
    process::eventually,
    stack::{Builder, Stack},
    tls,
    tokens::Token,
};

fn assert_it_decides(stack: &Stack) {
    let token = Token::person("alice").mint();
    assert_eq!(stack.get("/hello").bearer(&token).send().status, 200);
    let refused = stack.get("/hello").send();
    assert_eq!((refused.status, refused.reason().as_str()), (401, "no_credentials"));
}

/// The certificate that is shown to somebody who shows this one, or none, where he gets a word of HTTP/2.
fn heard(stack: &Stack, identity: Option<&tls::ClientIdentity>) -> Option<Vec<u8>> {
    let stream = TcpStream::connect(stack.countersign.authz).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    let mut client = tls::client(identity, stream);
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").ok()?;
    client.read_exact(&mut [0; 9]).ok()?;
    client.conn.peer_certificates().map(|chain| chain[0].to_vec())
}

#[test]
fn with_mutual_tls_only_who_shows_a_certificate_is_heard() {
    let stack = Builder::new().both_envoys().mutual_tls(true).start();
    assert_it_decides(&stack);
    assert!(heard(&stack, Some(&tls::ClientIdentity::named("spiffe://mesh.test/edge"))).is_some());
    assert!(heard(&stack, None).is_none());
    assert!(stack.countersign.check(&serde_json::json!({})).is_err(), "plaintext");

    let stack = Builder::new().mutual_tls(false).start();
    let answer = stack.get("/public/logo.svg").send();
    assert!(matches!(answer.status, 403 | 503) && answer.header("x-echo").is_none(), "{answer:?}");
}

#[test]
fn a_port_shows_the_certificate_and_asks_for_the_authority_that_its_files_hold_now() {
    let stack = Builder::new().mutual_tls(true).start();
    let edge = tls::ClientIdentity::named("spiffe://mesh.test/edge");
    let first = heard(&stack, Some(&edge)).expect("it is heard");
    let failed = || stack.countersign.metric("countersign_tls_reloads_total", "port=\"authz\",outcome=\"failed\"");
    let expiry = || stack.countersign.metric("countersign_tls_expiry_timestamp_seconds", "port=\"authz\"");
    assert!(expiry() > 1.7e9);

    // Half of a change: nothing changes, and it is told.
    fs::write(stack.folder.join("tls-server.pem"), "no PEM").expect("the folder is writable");
    eventually("it is told", || (failed() >= 1.0).then_some(()));
    assert_eq!(heard(&stack, Some(&edge)).as_ref(), Some(&first));

    tls::write_server(&stack.folder);
    eventually("the new certificate is shown", || heard(&stack, Some(&edge)).filter(|new| *new != first));
    assert_it_decides(&stack);

    // Whom it lets in changes as well, for connections to come.
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let other = rcgen::CertificateParams::new(vec!["other.test".into()]).and_then(|params| params.self_signed(&key));
    fs::write(stack.folder.join("tls-ca.pem"), other.expect("it signs itself").pem()).expect("the folder is writable");
    stack.countersign.process.signal("HUP");
    eventually("the old authority is not trusted", || heard(&stack, Some(&edge)).is_none().then_some(()));
}

#[test]
fn a_unix_socket_serves_survives_a_kill_and_goes_with_a_stop() {
    let builder = Builder::new().unix_socket();
    let setup = builder.countersign.clone();
    let mut stack = builder.start();
    assert_it_decides(&stack);
    let socket = stack.folder.join("authz.sock");
    // Left behind by a kill, it is in nobody's use.
    stack.countersign.process.signal("KILL");
    stack.countersign.process.wait();
    assert!(socket.exists());
    stack.countersign = Countersign::start(&stack.folder, &setup);
    stack.countersign.wait_ready();
    // Envoy notices the old connection's end when it gets to it.
    eventually("Envoy asks again", || (stack.get("/public/logo.svg").send().status == 200).then_some(()));
    assert_it_decides(&stack);
    stack.countersign.process.signal("TERM");
    assert!(stack.countersign.process.wait().success());
    assert!(!socket.exists());
}

#[test]
fn the_socket_of_the_next_process_outlives_the_one_before() {
    let check = serde_json::json!({"deadline": "1s", "drain_delay": "0s", "drain_timeout": "4s"});
    let builder = Builder::new().unix_socket().set("/check", check);
    let mut setup = builder.countersign.clone();
    for port in ["admin", "http"] {
        setup.config["listen"][port] = ports::local(ports::free()).to_string().into();
    }
    let mut stack = builder.start();
    let socket = stack.folder.join("authz.sock");
    // Somebody who never says goodbye: draining takes as long as it may.
    let mut silent = UnixStream::connect(&socket).expect("it listens");
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("it is read");
    silent.read_exact(&mut [0; 9]).expect("it is answered");
    stack.countersign.process.signal("TERM");
    let next = eventually("the next one has the socket", || {
        let mut next = Countersign::start(&stack.folder, &setup);
        let stands = eventually("it stands or falls", || match next.ready() {
            Some(200) => Some(true),
            _ => (!next.process.is_running()).then_some(false),
        });
        stands.then_some(next)
    });
    assert!(stack.countersign.process.is_running(), "the one before is still about to end");
    assert!(stack.countersign.process.wait().success());
    assert!(socket.exists(), "the socket of the next one was removed");
    stack.countersign = next;
    eventually("Envoy asks the next one", || (stack.get("/public/logo.svg").send().status == 200).then_some(()));
    assert_it_decides(&stack);
}
