//! Our part of Envoy's traces: an Envoy that traces tells its span with the call, not in the headers it lets us look at.

use serde_json::json;

use crate::support::{
    http::Request,
    otlp::{Collector, Span},
    process::eventually,
    stack::Builder,
    tokens::Token,
};

#[test]
fn a_check_is_part_of_the_trace_of_the_envoy_that_asks() {
    let collector = Collector::default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = runtime.block_on(collector.listen());
    // Nothing is sampled but what Envoy samples.
    let traces = json!({"traces": {"endpoint": format!("http://{address}"), "ratio": 0.0}});
    let stack = Builder::new().set("/telemetry", traces).traced(address).start();
    // What the client says of itself is the trace's parent by Envoy's leave only: this Envoy goes on with it.
    let client = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for traceparent in [None, Some(client)] {
        let before = collector.spans().len();
        let mut request = stack.get("/hello").bearer(&Token::person("alice").mint());
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        assert_eq!(request.send().status, 200);
        let (check, parent): (Span, Span) = eventually("the check and what it is part of arrive", || {
            let spans = collector.spans().split_off(before);
            let check = spans.iter().find(|span| span.name == "check")?;
            let parent = spans.iter().find(|span| span.span_id == check.parent_span_id)?;
            Some((check.clone(), parent.clone()))
        });
        assert_eq!(hex::encode(&check.trace_id), hex::encode(&parent.trace_id));
        // Envoy's name for a question of its own.
        assert!(parent.name.starts_with("async"), "{parent:?}");
        if traceparent.is_some() {
            assert_eq!(hex::encode(&check.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        }
    }
}

#[test]
fn a_tracestate_as_long_as_envoy_takes_it_is_no_reason_not_to_be_answered() {
    let collector = Collector::default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = runtime.block_on(collector.listen());
    let stack = Builder::new().both_envoys().traced(address).start();
    let token = Token::person("alice").mint();
    for (door, to) in stack.doors() {
        // Envoy takes 60 KiB of headers, and tells its tracestate with each question, outside of the request's headers.
        for octets in [1, 40 * 1024, 55 * 1024] {
            let ask = || {
                let request =
                    Request::new(to, "GET", "/hello").header("tracestate", format!("v={}", "1".repeat(octets)));
                request.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            };
            assert_eq!(ask().bearer(&token).send().status, 200, "{octets} octets by {door}");
            assert_eq!(ask().send().reason(), "no_credentials", "{octets} octets by {door}");
        }
    }
}
