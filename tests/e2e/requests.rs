//! Requests that are large, odd or long: each is answered by a `CheckResponse`, never by a gRPC error, which
//! `failure_mode_allow` could turn into an allow.

use serde_json::{Value, json};

use crate::support::{
    stack::Stack,
    tokens::{Token, now},
};

#[expect(clippy::needless_pass_by_value, reason = "the headers are made in the call")]
fn question(method: &str, path: &str, headers: Value) -> Value {
    json!({"attributes": {
        "source": {"address": {"socketAddress": {"address": "192.0.2.7", "portValue": 40000}}},
        "request": {"http": {"method": method, "scheme": "https", "host": "shop.example", "path": path,
                             "protocol": "HTTP/2", "headers": headers}},
    }})
}

/// The HTTP status of a refusal; 200 where it is an allow.
fn status(answer: &Value) -> u64 {
    answer["deniedResponse"]["status"]["code"].as_u64().unwrap_or(200)
}

fn header(answer: &Value, name: &str) -> Option<String> {
    let headers = answer["okResponse"]["headers"].as_array()?;
    let found = headers.iter().find(|option| option["header"]["key"] == name)?;
    Some(found["header"]["value"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn whatever_is_asked_the_answer_is_a_check_response() {
    let stack = Stack::start();
    let bearer = format!("Bearer {}", Token::person("alice").mint());
    let large = |octets: usize| "a".repeat(octets);
    let cases = [
        ("a path of 9 KiB", question("GET", &format!("/{}", large(9 * 1024)), json!({"authorization": bearer}))),
        ("a token of 17 KiB", question("GET", "/hello", json!({"authorization": format!("Bearer {}", large(17_000))}))),
        (
            "a token of 3.5 MiB",
            question("GET", "/hello", json!({"authorization": format!("Bearer {}", large(3_500_000))})),
        ),
        ("no path", question("GET", "", json!({"authorization": bearer}))),
        ("no leading slash", question("GET", "hello", json!({"authorization": bearer}))),
        ("absolute form", question("GET", "http://shop.example/hello", json!({"authorization": bearer}))),
        ("an asterisk", question("OPTIONS", "*", json!({"authorization": bearer}))),
        ("CONNECT", question("CONNECT", "", json!({"authorization": bearer}))),
        ("TRACE", question("TRACE", "/hello", json!({"authorization": bearer}))),
        ("a method in lower case", question("get", "/hello", json!({"authorization": bearer}))),
        ("8000 dots", question("GET", "/hello", json!({"authorization": format!("Bearer {}", ".".repeat(8000))}))),
        ("no attributes", json!({})),
        ("no request", json!({"attributes": {"source": {}}})),
    ];
    for (what, request) in cases {
        let answer = stack.countersign.check(&request).unwrap_or_else(|error| panic!("{what}: a gRPC error: {error}"));
        let refused =
            [400, 401, 403, 431].contains(&status(&answer)) || answer["status"]["code"].as_i64().unwrap_or(0) != 0;
        assert!(refused, "{what}: {answer}");
    }
}

#[test]
fn a_long_header_is_refused_where_it_is_the_token_and_of_no_concern_elsewhere() {
    let stack = Stack::start();
    let answer = stack.get("/hello").bearer(&"a".repeat(17_000)).send();
    assert_eq!((answer.status, answer.reason().as_str()), (431, "token_too_large"), "{answer:?}");
    assert_eq!((answer.json()["error"].as_str(), answer.header("x-echo")), (Some("bad_request"), None), "{answer:?}");
    assert_eq!(answer.json()["action_required"], "authenticate");
    assert_eq!(answer.header("www-authenticate"), None, "no challenge says how long a token may be");
    let cookie = stack.get("/hello").bearer(&Token::person("alice").mint()).header("Cookie", "x".repeat(40_000));
    assert_eq!(cookie.send().status, 200);
    let bearer = format!("Bearer {}", Token::person("alice").mint());
    let request = question("GET", "/hello", json!({"authorization": bearer, "cookie": "x".repeat(3_500_000)}));
    assert_eq!(status(&stack.countersign.check(&request).expect("answered")), 200);
}

#[test]
fn a_stream_is_told_when_it_must_end() {
    let stack = Stack::start();
    let token = Token::person("alice").claim("exp", now() + 100).mint();
    let ask = |more: Value| {
        let mut headers = json!({"authorization": format!("Bearer {token}")});
        for (name, value) in more.as_object().expect("headers") {
            headers[name] = value.clone();
        }
        let answer = stack.countersign.check(&question("GET", "/hello", headers)).expect("answered");
        assert_eq!(status(&answer), 200, "{answer}");
        header(&answer, "x-envoy-upstream-stream-duration-ms").map(|value| value.parse::<u64>().expect("milliseconds"))
    };
    for (what, headers) in [
        ("an upgrade", json!({"upgrade": "websocket", "connection": "upgrade"})),
        ("gRPC", json!({"content-type": "application/grpc"})),
        ("an event stream", json!({"accept": "text/event-stream"})),
        ("an event stream among others", json!({"accept": "application/json, text/event-stream"})),
    ] {
        let left = ask(headers).unwrap_or_else(|| panic!("{what} has no end"));
        assert!((1..=100_000).contains(&left), "{what}: {left} ms");
    }
    assert_eq!(ask(json!({})), None, "an ordinary request needs none");
}

#[test]
fn every_header_of_an_allow_overwrites_in_both_ways_of_saying_so() {
    let stack = Stack::start();
    let bearer = format!("Bearer {}", Token::person("alice").roles(&["clerk"]).mint());
    let answer =
        stack.countersign.check(&question("GET", "/hello", json!({"authorization": bearer}))).expect("answered");
    let headers = answer["okResponse"]["headers"].as_array().expect("headers");
    assert!(headers.len() > 5, "{answer}");
    for option in headers {
        // The wrapper is there and holds `false`, which JSON leaves out. Without it `append` would mean its default.
        assert_eq!(option["append"], json!({}), "{option}");
        assert_eq!(option["appendAction"], 2, "OVERWRITE_IF_EXISTS_OR_ADD: {option}");
    }
}
