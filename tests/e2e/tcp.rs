//! Plain TCP, where Envoy sends no HTTP attributes: refused, with a reason, until segments exist.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::support::{process::eventually, record_reason, stack::Builder};

#[test]
fn a_plain_tcp_connection_is_refused_with_a_reason() {
    let stack = Builder::new().both_envoys().start();
    for (number, envoy) in stack.envoys.iter().enumerate() {
        let mut stream = TcpStream::connect(envoy.tcp).expect("Envoy listens");
        // Envoy may have closed already; then writing fails, which is what is wanted.
        let _ = stream.write_all(b"GET /public/x HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "the upstream answered: {}", answer.escape_ascii());
        let record = eventually("the refusal is in the audit", || {
            let refused = |record: &serde_json::Value| record["findings"].to_string().contains("segment");
            stack.countersign.audit().into_iter().filter(refused).nth(number)
        });
        assert!(!record.to_string().contains("\"allow\""), "{record}");
        assert_eq!(
            (record["reason"].as_str(), record["status"].as_u64()),
            (Some("segment_denied"), Some(403)),
            "{record}"
        );
        // There is no answer that a client could read it in.
        record_reason("segment_denied");
    }
}
