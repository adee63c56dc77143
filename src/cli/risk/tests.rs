//! Reading lines: what must be there, what may be missing, what is never looked at.

use super::{
    Input, RiskError,
    line::{Feedback, Id, Recorded},
    run,
};
use crate::risk::statistical::Event;

const FULL: &str = r#"{"id":7,"t":1767571277.548,"user":"u1","ip":"32.224.222.32","country":"SG","city":"Singapore","lat":1.35,
"lon":103.82,"asn":64512,"vpn":false,"device_id":"d1","device_compliant":true,"jailbroken":false,"user_agent":"curl/8.7.1",
"os":"linux","browser":"curl","method":"GET","path":"/api/metrics","roles":["service"],"amr":["mtls"],"auth_time":1767571200.0,
"jti":"21","label":"legit","campaign":null,"stepup_ok":true}"#;

#[test]
fn a_line_of_the_simulator_is_read_and_its_labels_are_not() {
    let one = Recorded::parse(FULL).unwrap().unwrap();
    let other =
        Recorded::parse(&FULL.replace("\"legit\"", "\"attack:x\"").replace("true}", "false}")).unwrap().unwrap();
    assert_eq!(one.event, other.event);
    assert_eq!(one.id, Id("7".into()));
    assert!(one.event.place.is_some() && one.event.device.id.is_some());
}

#[test]
fn what_a_log_does_not_have_is_unknown() {
    let bare = Recorded::parse(r#"{"id":"a-1","t":1.5,"user":"u"}"#).unwrap().unwrap();
    assert_eq!(bare.id, Id("a-1".into()));
    assert!(bare.event.place.is_none() && bare.event.address.is_none() && bare.event.device.id.is_none());
    let nulls = Recorded::parse(r#"{"id":1,"t":1,"user":"u","ip":null,"country":null,"device_id":null,"asn":null}"#)
        .unwrap()
        .unwrap();
    assert!(nulls.event.asn.is_none());
}

#[test]
fn a_bad_line_says_what_is_wrong_with_it() {
    let problem = |text: &str| Recorded::parse(text).unwrap_err();
    assert!(problem(r#"{"id":1,"user":"u"}"#).contains("`t`"));
    assert!(problem(r#"{"id":[],"t":1,"user":"u"}"#).contains("number or a string"));
    assert!(problem(r#"{"id":1,"t":-5,"user":"u"}"#).contains("Unix seconds"));
    assert!(problem(r#"{"id":1,"t":1,"user":"u","ip":"not-an-address"}"#).contains("IP address"));
}

#[test]
fn an_unanswered_challenge_is_neither_passed_nor_failed() {
    let read = |text: &str| serde_json::from_str::<Feedback>(text).unwrap().stepup_ok;
    assert_eq!(read(r#"{"id":1}"#), None);
    assert_eq!(read(r#"{"id":1,"stepup_ok":false}"#), Some(false));
}

#[test]
fn an_audit_record_is_scored_as_production_scored_it() {
    let Recorded { event, .. } = Recorded::parse(FULL).unwrap().unwrap();
    let record = serde_json::json!({
        "kind": "decision", "id": "d-9", "verdict": "allow", "risk_event": event, "risk_outcome": "step_up_passed",
    });
    let read = Recorded::parse(&record.to_string()).unwrap().unwrap();
    assert_eq!((read.id, read.event), (Id("d-9".into()), event));
    assert_eq!(read.outcome, Some(crate::risk::statistical::Outcome::StepUpPassed));
    // A record of today, and the same with the whole event written out as it once was.
    let older = include_str!("../../../tests/audit/before.jsonl");
    let whole = Recorded::parse(older).unwrap().unwrap();
    let mut newer: serde_json::Value = serde_json::from_str(older).unwrap();
    newer["risk_agent"] = newer["risk_event"]["agent"].take();
    newer.as_object_mut().unwrap().remove("risk_event");
    let newer = Recorded::parse(&newer.to_string()).unwrap().unwrap();
    // Older records told subjects and sessions apart by other keys.
    let same = Event { subject: newer.event.subject, session: newer.event.session, ..whole.event };
    assert_eq!((newer.id, newer.event, newer.outcome), (whole.id, same, whole.outcome));
    let of_log = r#"{"time":"2026-11-28T17:38:32.839Z","level":"warn","message":"slow","target":"countersign"}"#;
    for unscored in [r#"{"kind":"decision","id":"d-1","verdict":"allow"}"#, r#"{"kind":"checkpoint","seq":7}"#, of_log]
    {
        assert!(Recorded::parse(unscored).unwrap().is_none());
    }
}

#[test]
fn a_wrong_name_of_the_input_costs_no_earlier_scores() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("keep.csv");
    std::fs::write(&out, "id,score\n").unwrap();
    for events in ["nope", "."] {
        let input = Input { events: folder.path().join(events), feedback: None, quiet: true };
        assert!(matches!(run::replay(&input, &out), Err(RiskError::Read { .. })), "{events}");
    }
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "id,score\n");
}
