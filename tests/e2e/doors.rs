//! The other ways to reach 9191: TLS that asks for a certificate, and a Unix socket.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::support::{
    countersign::Countersign,
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

/// Whether somebody who shows this certificate, or none, gets a word of HTTP/2.
fn is_heard(stack: &Stack, uri: Option<&str>) -> bool {
    let stream = TcpStream::connect(stack.countersign.authz).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    let identity = uri.map(tls::ClientIdentity::named);
    let mut client = tls::client(identity.as_ref(), stream);
    let mut octets = [0; 9];
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").is_ok()
        && client.read_exact(&mut octets).is_ok()
}

#[test]
fn with_mutual_tls_only_who_shows_a_certificate_is_heard() {
    let stack = Builder::new().both_envoys().mutual_tls(true).start();
    assert_it_decides(&stack);
    assert!(is_heard(&stack, Some("spiffe://mesh.test/edge")));
    assert!(!is_heard(&stack, None));
    assert!(stack.countersign.check(&serde_json::json!({})).is_err(), "plaintext");

    let stack = Builder::new().mutual_tls(false).start();
    let answer = stack.get("/public/logo.svg").send();
    assert!(matches!(answer.status, 403 | 503) && answer.header("x-echo").is_none(), "{answer:?}");
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
