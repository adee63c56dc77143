//! The borrowed walk and the hand-written answer against prost's generated types: they must agree on any message.

#![expect(deprecated, reason = "Envoy deprecates `append`; older ones still read it")]

use std::collections::HashMap;

use countersign::wire::{check::CheckView, writer::Writer};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress, address, socket_address::PortSpecifier},
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse,
            attribute_context::{HttpRequest, Peer, Request, TlsSession},
            check_response::HttpResponse,
        },
    },
    google::protobuf::value::Kind,
};
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

fn peer() -> impl Strategy<Value = Peer> {
    (any::<Option<(String, u32)>>(), any::<[String; 3]>()).prop_map(|(socket, [service, principal, certificate])| {
        Peer {
            address: socket.map(|(address, port)| Address {
                address: Some(address::Address::SocketAddress(SocketAddress {
                    address,
                    port_specifier: Some(PortSpecifier::PortValue(port)),
                    ..Default::default()
                })),
            }),
            service,
            labels: HashMap::from([("app".into(), "shop".into())]),
            principal,
            certificate,
        }
    })
}

fn http() -> impl Strategy<Value = HttpRequest> {
    let lines = vec(("[a-z-]{1,12}", any::<String>(), any::<Option<Vec<u8>>>()), 0..6);
    let texts = any::<[String; 6]>();
    (texts, any::<HashMap<String, String>>(), proptest::option::of(lines), any::<Vec<u8>>(), any::<i64>()).prop_map(
        |([id, method, path, host, scheme, protocol], headers, lines, raw_body, size)| HttpRequest {
            id,
            method,
            headers,
            path,
            host,
            scheme,
            protocol,
            raw_body,
            size,
            header_map: lines.map(|lines| HeaderMap {
                headers: lines
                    .into_iter()
                    .map(|(key, value, raw)| HeaderValue { key, value, raw_value: raw.unwrap_or_default() })
                    .collect(),
            }),
            ..Default::default()
        },
    )
}

fn check_request() -> impl Strategy<Value = CheckRequest> {
    let peers = (proptest::option::of(peer()), proptest::option::of(peer()));
    let http = proptest::option::of(proptest::option::of(http()));
    (peers, http, any::<HashMap<String, String>>(), any::<Option<String>>()).prop_map(
        |((source, destination), http, context_extensions, sni)| CheckRequest {
            attributes: Some(AttributeContext {
                source,
                destination,
                request: http.map(|http| Request { time: None, http }),
                context_extensions,
                tls_session: sni.map(|sni| TlsSession { sni }),
                ..Default::default()
            }),
        },
    )
}

/// What the walk should have read, taken from prost's reading.
fn assert_same(view: &CheckView<'_>, expected: &CheckRequest) {
    let attributes = expected.attributes.clone().unwrap_or_default();
    for (seen, peer) in [(&view.source, attributes.source), (&view.destination, attributes.destination)] {
        let peer = peer.unwrap_or_default();
        let socket = match peer.address.and_then(|address| address.address) {
            Some(address::Address::SocketAddress(socket)) => Some(socket),
            _ => None,
        };
        if let Some(socket) = socket {
            assert_eq!(seen.address, socket.address.as_bytes());
        }
        assert_eq!(seen.principal, peer.principal.as_bytes());
        assert_eq!(seen.certificate, peer.certificate.as_bytes());
    }
    for (key, value) in &attributes.context_extensions {
        assert_eq!(view.extension(key), Some(value.as_bytes()));
    }

    let http = attributes.request.and_then(|request| request.http);
    assert_eq!(view.http().is_some(), http.is_some());
    let (Some(seen), Some(http)) = (view.http(), http) else { return };
    let texts = [&http.method, &http.path, &http.host, &http.scheme];
    for (octets, text) in [seen.method, seen.path, seen.host, seen.scheme].into_iter().zip(texts) {
        assert_eq!(octets, text.as_bytes());
    }
    for (name, value) in &http.headers {
        let mapped = seen.headers().iter().rev().find(|header| !header.line && header.name == name.as_bytes());
        assert_eq!(mapped.map(|header| header.value), Some(value.as_bytes()));
    }
    let lines: Vec<_> = seen.headers().iter().filter(|header| header.line).collect();
    let expected = http.header_map.unwrap_or_default().headers;
    assert_eq!(lines.len(), expected.len());
    for (line, header) in lines.iter().zip(expected) {
        assert_eq!(line.name, header.key.as_bytes());
        let value = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
        assert_eq!(line.value, value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn walk_and_generated_types_read_the_same(request in check_request()) {
        let bytes = request.encode_to_vec();
        assert_same(&CheckView::parse(&bytes).unwrap(), &request);
    }

    #[test]
    fn two_messages_in_a_row_merge_as_protobuf_says(first in check_request(), second in check_request()) {
        let mut bytes = first.encode_to_vec();
        bytes.extend(second.encode_to_vec());
        let merged = CheckRequest::decode(&bytes[..]).unwrap();
        assert_same(&CheckView::parse(&bytes).unwrap(), &merged);
    }

    #[test]
    fn what_prost_reads_the_walk_reads_and_neither_panics(
        request in check_request(),
        cut in any::<prop::sample::Index>(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = request.encode_to_vec();
        bytes.truncate(cut.index(bytes.len() + 1));
        for (at, octet) in flips.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        let walked = CheckView::parse(&bytes);
        if let Ok(read) = CheckRequest::decode(&bytes[..]) {
            assert_same(&walked.expect("prost reads it"), &read);
        }
    }
}

#[test]
fn of_a_name_in_the_map_and_in_lines_every_line_counts() {
    let http = HttpRequest {
        headers: HashMap::from([("authorization".into(), "one".into())]),
        header_map: Some(HeaderMap {
            headers: vec![
                HeaderValue { key: "Authorization".into(), raw_value: b"two".to_vec(), ..Default::default() },
                HeaderValue { key: "authorization".into(), value: "three".into(), ..Default::default() },
            ],
        }),
        ..Default::default()
    };
    let request = Some(Request { http: Some(http), time: None });
    let attributes = Some(AttributeContext { request, ..Default::default() });
    let bytes = CheckRequest { attributes }.encode_to_vec();
    let view = CheckView::parse(&bytes).unwrap();
    let values = view.http().unwrap().values("authorization");
    assert_eq!(values.as_slice(), [&b"two"[..], b"three", b"one"]);
}

#[test]
fn written_answers_decode_with_the_generated_types() {
    let long = "x".repeat(20_000);
    for value in ["", "short", &"y".repeat(127), &"z".repeat(128), &long] {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer);
        writer.nested(1, |status| status.number(1, 7));
        writer.nested(3, |ok| {
            ok.header(2, "x-zt-subject", value.as_bytes());
            ok.bytes(5, b"x-zt-roles");
        });
        writer.nested(4, |metadata| {
            metadata.text_entry("reason", value.as_bytes());
            metadata.number_entry("risk", 1.5);
            metadata.list_entry("roles", ["a", "b"].into_iter());
        });
        let response = CheckResponse::decode(&buffer[..]).unwrap();
        assert_eq!(response.status.unwrap().code, 7);
        let Some(HttpResponse::OkResponse(ok)) = response.http_response else { panic!("not an OK response") };
        let option = &ok.headers[0];
        assert_eq!(option.header.as_ref().unwrap().key, "x-zt-subject");
        assert_eq!(option.header.as_ref().unwrap().value, value);
        assert_eq!(option.append.as_ref().map(|append| append.value), Some(false));
        assert_eq!(option.append_action, 2);
        assert_eq!(ok.headers_to_remove, ["x-zt-roles"]);
        let fields = response.dynamic_metadata.unwrap().fields;
        assert_eq!(fields["reason"].kind, Some(Kind::StringValue(value.into())));
        assert_eq!(fields["risk"].kind, Some(Kind::NumberValue(1.5)));
    }
}

#[test]
fn octets_that_no_header_may_hold_are_left_out() {
    let mut buffer = Vec::new();
    Writer::new(&mut buffer).nested(3, |ok| ok.header(2, "x-zt-subject", b"a\r\nb\0c"));
    let response = CheckResponse::decode(&buffer[..]).unwrap();
    let Some(HttpResponse::OkResponse(ok)) = response.http_response else { panic!("not an OK response") };
    assert_eq!(ok.headers[0].header.as_ref().unwrap().value, "abc");
}
