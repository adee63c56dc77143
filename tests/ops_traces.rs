//! Traces against a real OTLP/gRPC receiver: joined to Envoy's trace, sampled as configured, harmless when it is away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "support/otlp.rs"]
mod otlp;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use countersign::{
    clock::Clock,
    domain::{DecisionId, UnixTime},
    telemetry::{
        TraceSettings,
        trace::{TraceParent, Tracer},
    },
};

use self::otlp::Collector;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn settings(address: SocketAddr) -> TraceSettings {
    TraceSettings { endpoint: Some(format!("http://{address}")), ratio: 0.0, ..TraceSettings::default() }
}

/// Ends it; says how many spans were sent and lost.
async fn close(tracer: Arc<Tracer>) -> (u64, u64) {
    let close = move || {
        tracer.close(Duration::from_secs(5));
        (tracer.counters().sent.get(), tracer.counters().lost.get())
    };
    tokio::task::spawn_blocking(close).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sampled_check_joins_envoys_trace_with_its_stages_and_decision_id() {
    let collector = Collector::default();
    let tracer = Arc::new(Tracer::start(&settings(collector.listen().await), Clock::system()).unwrap());
    let id = DecisionId::new(1, 0xabc);
    let mut span = tracer.begin(TraceParent::parse(PARENT), id).unwrap();
    span.note("countersign.verdict", "deny");
    drop(span.child("authenticate"));
    drop(span);
    assert_eq!(close(tracer).await, (2, 0));

    let spans = collector.spans();
    let check = spans.iter().find(|span| span.name == "check").expect("the check arrives");
    let stage = spans.iter().find(|span| span.name == "authenticate").expect("its stage arrives");
    assert_eq!(hex::encode(&check.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(hex::encode(&check.parent_span_id), "00f067aa0ba902b7");
    assert_eq!((&stage.trace_id, &stage.parent_span_id), (&check.trace_id, &check.span_id));
    let noted = |key: &str| {
        check.attributes.iter().find(|noted| noted.key == key).and_then(|noted| noted.value.clone()).unwrap().text
    };
    assert_eq!(noted("countersign.decision_id"), id.to_string());
    assert_eq!(noted("countersign.verdict"), "deny");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_unsampled_check_has_no_span_and_the_limit_bounds_the_sampled_ones() {
    let collector = Collector::default();
    let address = collector.listen().await;
    let clock = Clock::manual(UnixTime::from_secs(100));
    let tracer = Tracer::start(&TraceSettings { max_per_second: 3, ..settings(address) }, clock.clone()).unwrap();
    let unsampled = PARENT.replace("-01", "-00");
    assert!(tracer.begin(TraceParent::parse(&unsampled), DecisionId::new(1, 1)).is_none());
    assert!(tracer.begin(None, DecisionId::new(1, 1)).is_none());
    let begun = |count: u32| {
        (0..count)
            .filter(|n| tracer.begin(TraceParent::parse(PARENT), DecisionId::new(1, u128::from(*n))).is_some())
            .count()
    };
    assert_eq!(begun(10), 3);
    clock.advance(Duration::from_secs(1));
    assert_eq!(begun(10), 3);
    assert_eq!(tracer.counters().limited.get(), 14);
    close(Arc::new(tracer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_ratio_decides_where_nobody_sampled_before() {
    let collector = Collector::default();
    let address = collector.listen().await;
    let settings = TraceSettings { ratio: 0.25, max_per_second: 100_000, ..settings(address) };
    let tracer = Tracer::start(&settings, Clock::system()).unwrap();
    let sampled = (0..4000_u128)
        .filter(|n| tracer.begin(None, DecisionId::new(1, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).is_some())
        .count();
    assert!((800..1200).contains(&sampled), "{sampled} of 4000");
    close(Arc::new(tracer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let tracer = Arc::new(Tracer::start(&settings(address), Clock::system()).unwrap());
    let begun = Instant::now();
    drop(tracer.begin(TraceParent::parse(PARENT), DecisionId::new(1, 1)).unwrap());
    assert_eq!(close(tracer).await, (0, 1));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn without_an_endpoint_nothing_is_sampled() {
    let tracer = Tracer::off(Clock::system());
    assert!(tracer.begin(TraceParent::parse(PARENT), DecisionId::new(1, 1)).is_none());
}

#[test]
fn a_traceparent_that_is_none_is_not_followed() {
    let parsed = TraceParent::parse(PARENT).unwrap();
    assert_eq!(parsed.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    assert!(parsed.sampled);
    assert!(TraceParent::parse(&format!("cc{}-what-the-future-brings", &PARENT[2..])).is_some());
    for text in [
        "",
        "00",
        "00-",
        &PARENT[..54],
        &format!("{PARENT}-more"),
        &format!("ff{}", &PARENT[2..]),
        &PARENT.to_uppercase(),
        &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
        &PARENT.replace("00f067aa0ba902b7", "0000000000000000"),
        &PARENT.replace('-', "_"),
        "00-é",
        "é0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        assert_eq!(TraceParent::parse(text), None, "{text}");
    }
}
