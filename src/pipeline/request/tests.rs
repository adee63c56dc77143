//! What is read of a message, case by case.

use std::collections::{BTreeSet, HashMap};

use prost::Message as _;

use super::{AccessRequest, Message};
use crate::{
    domain::{DecisionId, path::PathProblem},
    wire::owned::{self, attribute_context as wire},
};

/// A message with these headers in the map.
fn with_headers(headers: impl IntoIterator<Item = (String, String)>) -> wire::HttpRequest {
    wire::HttpRequest {
        method: "GET".into(),
        path: "/hello".into(),
        host: "shop.example".into(),
        headers: headers.into_iter().collect(),
        ..wire::HttpRequest::default()
    }
}

fn pairs<const N: usize>(headers: [(&str, &str); N]) -> HashMap<String, String> {
    headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn context(http: wire::HttpRequest) -> owned::AttributeContext {
    let request = Some(wire::Request { time: None, http: Some(http) });
    owned::AttributeContext { request, ..owned::AttributeContext::default() }
}

/// Hands what is read to `look`: it borrows the octets.
fn read<T>(context: owned::AttributeContext, look: impl FnOnce(Message<'_>) -> T) -> T {
    let octets = owned::CheckRequest { attributes: Some(context) }.encode_to_vec();
    look(Message::read(&octets, DecisionId::new(1, 1), None).unwrap())
}

fn request(http: wire::HttpRequest) -> AccessRequest {
    read(context(http), |message| message.request)
}

#[test]
fn a_hundred_thousand_headers_of_ours_are_removed_each_once() {
    let names = (0..100_000).map(|i| (format!("x-zt-{i}"), String::new()));
    let http = with_headers(names.chain([("X-Zt-7".to_owned(), String::new())]));
    // Compared each with each, this would take minutes.
    let removed = read(context(http), |message| message.remove);
    assert_eq!(removed.len(), 100_000);
    assert_eq!(removed.iter().collect::<BTreeSet<_>>().len(), 100_000);
}

#[test]
fn what_is_removed_is_named_once_in_lower_case() {
    let names = ["X-ZT-Subject", "x-zt-subject", "x_zt_roles", "X-Original-URL", "x-other", "accept"];
    let http = with_headers(names.map(|name| (name.to_owned(), "v".to_owned())));
    let removed: BTreeSet<_> = read(context(http), |message| message.remove.into_iter().collect());
    assert_eq!(removed, BTreeSet::from(["x-zt-subject", "x_zt_roles", "x-original-url"].map(Box::from)));
}

#[test]
fn a_scheme_that_the_client_wrote_is_not_encryption() {
    let of = |scheme: &str, lines: &[&str], principal: &str| {
        let header = |line: &&str| owned::HeaderValue {
            key: "x-forwarded-proto".into(),
            value: (*line).into(),
            ..Default::default()
        };
        let header_map = Some(owned::HeaderMap { headers: lines.iter().map(header).collect() });
        let http = wire::HttpRequest { scheme: scheme.into(), header_map, ..with_headers([]) };
        let source = Some(wire::Peer { principal: principal.into(), ..wire::Peer::default() });
        // Envoy sends `tls_session` without TLS as well.
        let tls_session = Some(wire::TlsSession { sni: "shop.example".into() });
        read(owned::AttributeContext { source, tls_session, ..context(http) }, |message| message.request.encrypted)
    };
    assert!(of("https", &["https"], ""));
    assert!(of("http", &["http"], "spiffe://td.example/cart"));
    for (scheme, lines) in [
        ("https", &["http"][..]),
        ("http", &["https"]),
        ("https", &[]),
        ("https", &["https", "http"]),
        ("https", &["https,http"]),
        ("https", &[""]),
    ] {
        assert!(!of(scheme, lines, ""), "{scheme} {lines:?}");
    }
    let mapped = |proto| with_headers(pairs([("x-forwarded-proto", proto)]));
    assert!(request(wire::HttpRequest { scheme: "https".into(), ..mapped("https") }).encrypted);
    assert!(!request(wire::HttpRequest { scheme: "https".into(), ..mapped("http") }).encrypted);
}

#[test]
fn an_event_stream_may_stand_anywhere_in_the_list_of_what_is_accepted() {
    let is_stream = |accept: &str| request(with_headers(pairs([("accept", accept)]))).long_lived;
    for accept in [
        "text/event-stream",
        "application/json, text/event-stream",
        "application/json,Text/Event-Stream",
        "text/html;q=0.9, text/event-stream; q=0.8 , */*",
        "text/event-stream;charset=utf-8",
    ] {
        assert!(is_stream(accept), "{accept}");
    }
    for accept in ["", "*/*", "text/*", "text/event-streams", "application/json; x=text/event-stream"] {
        assert!(!is_stream(accept), "{accept}");
    }
    let lines = |values: [&str; 2]| {
        let line = |value: &str| owned::HeaderValue { key: "accept".into(), value: value.into(), ..Default::default() };
        wire::HttpRequest {
            header_map: Some(owned::HeaderMap { headers: values.map(line).into() }),
            ..with_headers([])
        }
    };
    assert!(request(lines(["text/event-stream", "application/json"])).long_lived);
    assert!(request(lines(["application/json", "text/event-stream"])).long_lived);
}

#[test]
fn with_raw_headers_the_path_is_judged_as_it_came() {
    let of = |raw: &[u8]| {
        let line = owned::HeaderValue { key: ":path".into(), raw_value: raw.to_vec(), ..Default::default() };
        let header_map = Some(owned::HeaderMap { headers: vec![line] });
        // What Envoy makes of it as text.
        request(wire::HttpRequest { path: "/files/a!b".into(), header_map, ..with_headers([]) }).path
    };
    assert_eq!(of(b"/files/a!b?q").as_deref(), Ok("/files/a!b"));
    for raw in [&b"/files/a\xffb"[..], b"/files/a\xc3\xa9b", b"/files/a\x7fb", b"/files/a b"] {
        assert_eq!(of(raw), Err(PathProblem::RawOctet), "{raw:?}");
    }
    assert_eq!(of(b""), Err(PathProblem::NotAbsolute));
    let mapped = request(with_headers(pairs([(":path", "/other")]))).path;
    assert_eq!(mapped.as_deref(), Ok("/hello"), "only a line of its own is octet by octet");
}

#[test]
fn an_empty_extension_is_an_unknown_name() {
    let of = |name: &str, value: &str| {
        let context_extensions = pairs([(name, value)]);
        read(owned::AttributeContext { context_extensions, ..context(with_headers([])) }, |message| {
            message.request.extensions
        })
    };
    for name in ["policy", "resource", "segment", "data_classification", "min_trust_level"] {
        assert_eq!(of(name, "").malformed.as_deref(), Some(name));
    }
    assert_eq!(of("min_trust_level", "hihg").malformed.as_deref(), Some("min_trust_level"));
    assert_eq!(of("data_classification", "sercet").malformed.as_deref(), Some("data_classification"));
    for (name, value) in
        [("policy", "p"), ("min_trust_level", "high"), ("data_classification", "confidential"), ("other", "")]
    {
        assert_eq!(of(name, value).malformed, None, "{name}");
    }
    assert_eq!(of("policy", "p").policy.as_deref(), Some("p"));
}

#[test]
fn a_justification_is_ten_characters_that_somebody_can_read() {
    let of = |text: &str| request(with_headers(pairs([("x-access-justification", text)]))).justification;
    for text in ["ticket 123", "Störung im Lager", "  ticket 4711  ", &"x".repeat(512), "顧客からの問い合わせ対応"]
    {
        assert_eq!(of(text).as_deref(), Some(text.trim()), "{text}");
    }
    for unseen in
        ['\u{200b}', '\u{202e}', '\u{3164}', '\u{e0041}', '\u{2800}', '\u{ad}', '\u{fe0f}', '\u{115f}', '\t', '\0']
    {
        assert_eq!(of(&unseen.to_string().repeat(12)), None, "{unseen:?}");
    }
    for text in ["", "too short", "a            b", "ticket\u{200b} 12345", "ticket \u{202e}12345", &"x".repeat(513)] {
        assert_eq!(of(text), None, "{text:?}");
    }
}
