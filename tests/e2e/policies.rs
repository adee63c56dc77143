//! Policies condition by condition through a real Envoy: a request that meets all, then the same request with one thing
//! changed, and the reason that it is refused for.

use std::fs;

use serde_json::{Value, json};

use super::mmdb;
use crate::support::{
    http::Response,
    stack::{Builder, Stack},
    tokens::{Token, now, proof},
};

const OFFICE: &str = "192.0.2.10";
const BRANCH: &str = "198.51.100.10";
const ABROAD: &str = "203.0.113.10";
const CLUSTER: &str = "spiffe://mesh.test/ns/shop/sa/robot";

fn start(builder: Builder) -> Stack {
    run(with_places(builder))
}

fn with_places(builder: Builder) -> Builder {
    let places = builder.folder().join("places.mmdb");
    let country = |code: &str| json!({"country": {"iso_code": code}});
    let rows = [("192.0.2.0/24", country("DE")), ("198.51.100.0/24", country("AT")), ("203.0.113.0/24", country("FR"))];
    fs::write(&places, mmdb::database("GeoLite2-City", &rows)).expect("the folder is writable");
    let location = json!({
        "databases": {"city": places},
        "corporate_networks": {"cidrs": ["192.0.2.0/24"]},
        "known_networks": {"branch": {"cidrs": ["198.51.100.0/24"]}, "lab": {"cidrs": ["203.0.113.64/26"]}},
    });
    let workloads = json!({"trust_domains": ["mesh.test"]});
    // The client is the address before the one that Envoy adds.
    builder.set("/location", location).set("/client", json!({"trusted_hops": 2})).set("/identity/workloads", workloads)
}

fn run(builder: Builder) -> Stack {
    let stack = builder.start();
    for device in devices() {
        stack.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
    }
    stack
}

/// One laptop with everything, and others that lack one thing each.
fn devices() -> Vec<Value> {
    let perfect = json!({
        "user": "ada", "fingerprint": "fp", "managed": true, "compliant": true, "patch_level": "current",
        "trust_score": 1.0, "jailbroken": false, "disk_encrypted": true, "os": "macOS",
    });
    let changes = [
        ("good", json!({})),
        ("unmanaged", json!({"managed": false})),
        ("unchecked", json!({"compliant": null})),
        ("unpatched", json!({"patch_level": "45"})),
        ("doubtful", json!({"trust_score": 0.1})),
        ("unbroken?", json!({"jailbroken": null})),
        ("in-the-clear", json!({"disk_encrypted": false})),
        ("other-system", json!({"os": "windows"})),
        ("someone-elses", json!({"user": "eve"})),
        ("jailbroken", json!({"jailbroken": true})),
        ("not-compliant", json!({"compliant": false})),
        ("suspended", json!({"status": "suspended"})),
        ("checked-long-ago", json!({"checked_at": "2020-01-01T00:00:00Z"})),
    ];
    let changed = |(id, changes): (&str, Value)| {
        let mut device = perfect.clone();
        device["id"] = json!(id);
        for (key, value) in changes.as_object().expect("a map") {
            device[key] = value.clone();
        }
        device.as_object_mut().expect("a map").retain(|_, value| !value.is_null());
        device
    };
    changes.into_iter().map(changed).collect()
}

/// A request that is about to be changed in one thing.
#[derive(Clone)]
struct Ask {
    path: &'static str,
    token: Option<Token>,
    from: &'static str,
    device: Option<&'static str>,
    fingerprint: bool,
    justification: Option<&'static str>,
    tls: bool,
    certificate: Option<&'static str>,
    signed: bool,
}

impl Ask {
    /// Ada, strongly authenticated just now, in the office, on her good laptop.
    fn new(path: &'static str) -> Self {
        Self {
            path,
            token: Some(ada()),
            from: OFFICE,
            device: Some("good"),
            fingerprint: true,
            justification: None,
            tls: false,
            certificate: None,
            signed: false,
        }
    }

    fn send(&self, stack: &Stack) -> Response {
        let request = if self.tls { stack.tls("GET", self.path, self.certificate) } else { stack.get(self.path) };
        let mut request = request.header("X-Forwarded-For", self.from);
        if let Some(token) = &self.token {
            let compact = token.mint();
            request = if self.signed {
                let url = format!("http{}://shop.example{}", if self.tls { "s" } else { "" }, self.path);
                let proof = proof(&compact, "GET", &url);
                request.header("Authorization", format!("DPoP {compact}")).header("DPoP", proof)
            } else {
                request.bearer(&compact)
            };
        }
        if let Some(device) = self.device {
            request = request.header("X-Device-ID", device);
        }
        if self.fingerprint {
            request = request.header("X-Device-Fingerprint", "fp");
        }
        if let Some(text) = self.justification {
            request = request.header("X-Access-Justification", text);
        }
        request.send()
    }
}

fn ada() -> Token {
    Token::person("ada").claim("amr", vec!["pwd", "hwk"]).roles(&["clerk"])
}

/// What is changed, and the status and reason of the answer; 200 has none.
type Row = (&'static str, fn(&mut Ask), u16, &'static str);

fn assert_rows(stack: &Stack, good: &Ask, rows: &[Row]) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(what, change, status, reason)| {
            let mut ask = good.clone();
            change(&mut ask);
            let answer = ask.send(stack);
            let told = if answer.status == 200 { String::new() } else { answer.reason() };
            let right = answer.status == *status && told == *reason;
            (!right).then(|| format!("{what}: {} {told}, not {status} {reason}\n    {}", answer.status, answer.body))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn rules() -> Builder {
    Builder::with_rules(include_str!("policies.yaml"))
}

#[test]
fn privileged_access_condition_by_condition() {
    let stack = start(rules());
    let good = Ask { justification: Some("ticket 4711: reset a password"), ..Ask::new("/admin/users") };
    let answer = good.send(&stack);
    let upstream = answer.upstream().unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!(upstream.header("x-zt-policy"), "privileged-access");
    assert_eq!(upstream.header("x-zt-restrictions"), "enable_session_recording");
    let ttl: u64 = upstream.header("x-zt-session-ttl").parse().expect("seconds");
    assert!((1700..=1800).contains(&ttl), "session_duration bounds it: {ttl}");
    assert_rows(
        &stack,
        &good,
        &[
            // Ada has shown the strongest there is: no further authentication would help, so none is asked for.
            ("min_trust_score", |ask| ask.device = Some("doubtful"), 403, "trust_too_low"),
            (
                "required_auth_methods",
                |ask| ask.token = Some(ada().claim("amr", vec!["pwd", "otp", "fpt"])),
                401,
                "authentication_method_required",
            ),
            ("a known secure location is as good", |ask| ask.from = BRANCH, 200, ""),
            ("allowed_locations", |ask| ask.from = ABROAD, 403, "location_not_allowed"),
            ("managed", |ask| ask.device = Some("unmanaged"), 403, "device_requirement_unmet"),
            ("compliant", |ask| ask.device = Some("unchecked"), 403, "device_requirement_unmet"),
            ("patch_level: current", |ask| ask.device = Some("unpatched"), 403, "device_requirement_unmet"),
            ("an unknown device", |ask| ask.device = Some("nobody-knows-it"), 403, "device_not_registered"),
            ("no device", |ask| ask.device = None, 403, "device_not_registered"),
            ("require_justification", |ask| ask.justification = None, 403, "justification_required"),
            (
                "a justification of nine characters",
                |ask| ask.justification = Some("too short"),
                403,
                "justification_required",
            ),
            (
                "session_duration",
                |ask| ask.token = Some(ada().claim("auth_time", now() - 1900).claim("iat", now() - 1900)),
                401,
                "session_too_old",
            ),
        ],
    );
}

#[test]
fn sensitive_data_condition_by_condition() {
    let stack = start(rules());
    let good = Ask { tls: true, ..Ask::new("/records/7") };
    let answer = good.send(&stack);
    let upstream = answer.upstream().unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!(upstream.header("x-zt-restrictions"), "encrypt_at_rest,prevent_download");
    assert_rows(
        &stack,
        &good,
        &[
            ("min_trust_score", |ask| ask.token = Some(ada().claim("amr", vec!["pwd"])), 401, "trust_too_low"),
            ("data_classification", |ask| ask.path = "/secrets/7", 403, "classification_not_covered"),
            ("compliant", |ask| ask.device = Some("unchecked"), 403, "device_requirement_unmet"),
            ("encrypt_in_transit", |ask| ask.tls = false, 403, "encryption_required"),
            ("the permission", |ask| ask.token = Some(ada().roles(&["visitor"])), 403, "permission_missing"),
            (
                "the permission itself, without a role",
                |ask| ask.token = Some(ada().roles(&[]).claim("permissions", vec!["records:read"])),
                200,
                "",
            ),
        ],
    );
    let unrecorded = start(rules().set("/audit", json!({"sink": "none"})));
    assert_rows(&unrecorded, &good, &[("audit_all_access", |_| (), 503, "audit_unavailable")]);
    assert_eq!(unrecorded.countersign.metric("countersign_quota", ""), 0.0, "and uses up none of a rate limit");
    assert_eq!(Ask::new("/country").send(&unrecorded).status, 200, "what needs no record goes on");
}

#[test]
fn api_access_condition_by_condition() {
    let stack = start(rules());
    let app = || ada().claim("scope", "read:data write:data").bound();
    let good = Ask { token: Some(app()), signed: true, ..Ask::new("/v1/items") };
    assert_rows(
        &stack,
        &good,
        &[
            (
                "min_trust_level",
                |ask| {
                    let weak = ada().claim("scope", "read:data write:data").claim("amr", vec!["pwd"]).bound();
                    *ask = Ask { token: Some(weak), device: None, from: ABROAD, ..ask.clone() };
                },
                401,
                "trust_too_low",
            ),
            ("api_scopes", |ask| ask.token = Some(ada().claim("scope", "read:data").bound()), 403, "scope_missing"),
            (
                "require_signed_requests",
                |ask| {
                    *ask =
                        Ask { token: Some(ada().claim("scope", "read:data write:data")), signed: false, ..ask.clone() }
                },
                403,
                "signed_request_required",
            ),
            ("a bound token without its proof", |ask| ask.signed = false, 401, "proof_required"),
            (
                "a workload by its certificate: it holds no scopes",
                |ask| {
                    *ask = Ask { token: None, tls: true, certificate: Some(CLUSTER), device: None, ..ask.clone() };
                },
                403,
                "scope_missing",
            ),
        ],
    );
    let upstream = good.send(&stack).upstream().expect("allowed");
    assert_eq!(upstream.header("x-zt-restrictions"), "monitor_usage");
    for _ in 0..2 {
        assert_eq!(good.send(&stack).status, 200);
    }
    let answer = good.send(&stack);
    assert_eq!((answer.status, answer.reason().as_str()), (429, "rate_limited"));
    let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=3600).contains(&seconds) && answer.header("ratelimit").is_some(), "{:?}", answer.headers);
    let answer = Ask { token: Some(ada().claim("scope", "read:data").bound()), ..good }.send(&stack);
    let challenge = answer.all("www-authenticate").join(" ");
    assert!(challenge.starts_with("DPoP error=\"insufficient_scope\""), "the scheme that was tried: {challenge}");
    assert!(challenge.contains("scope=\"write:data\""), "{challenge}");
}

#[test]
fn each_other_condition_is_enforced() {
    let stack = start(rules());
    let good = Ask::new("/root");
    assert_rows(
        &stack,
        &good,
        &[
            ("privileged, by a hardware key", |_| (), 200, ""),
            (
                "as much trust, no hardware key",
                |ask| ask.token = Some(ada().claim("amr", vec!["pwd", "otp", "fpt"])),
                401,
                "trust_too_low",
            ),
            ("the branch by name", |ask| (ask.path, ask.from) = ("/branch", BRANCH), 200, ""),
            (
                "another known network",
                |ask| (ask.path, ask.from) = ("/branch", "203.0.113.70"),
                403,
                "location_not_allowed",
            ),
            ("one of the countries", |ask| (ask.path, ask.from) = ("/country", BRANCH), 200, ""),
            ("another country", |ask| (ask.path, ask.from) = ("/country", ABROAD), 403, "location_not_allowed"),
            ("no country at all", |ask| (ask.path, ask.from) = ("/country", "100.64.0.1"), 403, "location_not_allowed"),
            ("within the network", |ask| (ask.path, ask.from) = ("/network", "203.0.113.200"), 200, ""),
            (
                "just outside of it",
                |ask| (ask.path, ask.from) = ("/network", "203.0.113.127"),
                403,
                "location_not_allowed",
            ),
            ("a private address", |ask| (ask.path, ask.from) = ("/private", "10.1.2.3"), 200, ""),
            ("a public address", |ask| (ask.path, ask.from) = ("/private", ABROAD), 403, "location_not_allowed"),
            ("a hardened laptop", |ask| ask.path = "/hardened", 200, ""),
            (
                "jailbroken: false",
                |ask| (ask.path, ask.device) = ("/hardened", Some("unbroken?")),
                403,
                "device_requirement_unmet",
            ),
            (
                "disk_encrypted",
                |ask| (ask.path, ask.device) = ("/hardened", Some("in-the-clear")),
                403,
                "device_requirement_unmet",
            ),
            ("os", |ask| (ask.path, ask.device) = ("/hardened", Some("other-system")), 403, "device_requirement_unmet"),
            (
                "patch_level in days",
                |ask| (ask.path, ask.device) = ("/hardened", Some("unpatched")),
                403,
                "device_requirement_unmet",
            ),
            (
                "the device's own trust",
                |ask| (ask.path, ask.device) = ("/hardened", Some("doubtful")),
                403,
                "device_requirement_unmet",
            ),
            ("proof", |ask| (ask.path, ask.fingerprint) = ("/hardened", false), 403, "device_requirement_unmet"),
            (
                "a posture that nobody has looked at for too long",
                |ask| (ask.path, ask.device) = ("/hardened", Some("checked-long-ago")),
                403,
                "device_posture_stale",
            ),
            ("deny", |ask| ask.path = "/closed", 403, "policy_denied"),
            ("device: always", |ask| ask.path = "/managed", 200, ""),
            (
                "always, by its name alone",
                |ask| (ask.path, ask.fingerprint) = ("/managed", false),
                403,
                "device_not_proven",
            ),
            (
                "always, never checked",
                |ask| (ask.path, ask.device) = ("/managed", Some("unchecked")),
                403,
                "device_not_compliant",
            ),
            (
                "always, checked too long ago",
                |ask| (ask.path, ask.device) = ("/managed", Some("checked-long-ago")),
                403,
                "device_posture_stale",
            ),
            (
                "always, somebody else's",
                |ask| (ask.path, ask.device) = ("/managed", Some("someone-elses")),
                403,
                "device_other_owner",
            ),
            (
                "always, jailbroken",
                |ask| (ask.path, ask.device) = ("/managed", Some("jailbroken")),
                403,
                "device_jailbroken",
            ),
            (
                "always, not compliant",
                |ask| (ask.path, ask.device) = ("/managed", Some("not-compliant")),
                403,
                "device_not_compliant",
            ),
            (
                "always, suspended",
                |ask| (ask.path, ask.device) = ("/managed", Some("suspended")),
                403,
                "device_suspended",
            ),
        ],
    );
}

#[test]
fn a_policy_may_ask_for_a_step_up_or_a_token() {
    let text = include_str!("policies.yaml")
        .replace("actions: [{ type: deny }]", "actions: [{ type: allow, constraints: { validate_jwt: true } }]");
    let stack = start(Builder::with_rules(&text));
    let robot = Ask { token: None, tls: true, certificate: Some(CLUSTER), device: None, ..Ask::new("/country") };
    let aged = Ask { token: Some(ada().claim("auth_time", now() - 900)), ..Ask::new("/again") };
    assert_rows(
        &stack,
        &robot,
        &[
            ("a workload by its certificate", |_| (), 200, ""),
            ("validate_jwt", |ask| ask.path = "/closed", 403, "token_required"),
            ("a service cannot step up", |ask| ask.path = "/again", 403, "step_up_impossible"),
        ],
    );
    assert_rows(&stack, &aged, &[("the action `step_up`", |_| (), 401, "step_up_required")]);
}

#[test]
fn a_place_that_must_be_known_and_is_not_is_503() {
    // One database of two is not there: half an answer is none.
    let stack = run(with_places(rules()).set("/location/databases/asn", "nowhere.mmdb"));
    let answer = Ask { from: "198.51.100.20", ..Ask::new("/country") }.send(&stack);
    assert_eq!((answer.status, answer.reason().as_str()), (503, "location_unknown"), "{answer:?}");
    assert_eq!(answer.json()["action_required"], "retry_later");
    let seconds = answer.header("retry-after").expect("Retry-After");
    assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{seconds}");
    let elsewhere: &[Row] = &[
        ("an address is no place", |ask| (ask.path, ask.from) = ("/network", "203.0.113.200"), 200, ""),
        ("nobody asks for the place", |ask| ask.path = "/managed", 200, ""),
        ("a network of our own needs no database", |_| (), 200, ""),
    ];
    assert_rows(&stack, &Ask::new("/country"), elsewhere);
}

#[test]
fn attribute_policies_grant_forbid_and_fail_closed() {
    const CEDAR: &str = r#"
@id("auditors-read") permit (principal in Role::"auditor", action, resource == Resource::"records");
@id("not-from-france") forbid (principal, action, resource)
when { context has country && context.country == "FR" && principal != User::"grace" };
@id("overflow") forbid (principal, action, resource == Resource::"private")
when { context.trust + 9223372036854775807 > 0 };
"#;
    let builder = Builder::with_rules(&format!("{}cedar: {{ policies: cedar/ }}\n", include_str!("policies.yaml")));
    let folder = builder.folder().join("cedar");
    fs::create_dir(&folder).expect("the folder is writable");
    fs::write(folder.join("access.cedar"), CEDAR).expect("the folder is writable");
    let files = json!([builder.folder().join("rules.yaml"), folder]);
    let stack = start(builder.set("/rules", files));
    let good = Ask { tls: true, ..Ask::new("/records/7") };
    assert_rows(
        &stack,
        &good,
        &[
            ("by a role", |_| (), 200, ""),
            ("by an attribute policy", |ask| ask.token = Some(ada().roles(&["auditor"])), 200, ""),
            ("by neither", |ask| ask.token = Some(ada().roles(&["visitor"])), 403, "permission_missing"),
            ("a forbid, whoever holds the permission", |ask| ask.from = ABROAD, 403, "attribute_policy_forbids"),
            (
                "one that cannot be evaluated",
                |ask| (ask.path, ask.from) = ("/private", "10.1.2.3"),
                403,
                "attribute_policy_failed",
            ),
        ],
    );
    let forbidden = Ask { from: ABROAD, ..good }.send(&stack);
    assert_eq!(forbidden.json()["action_required"], "contact_admin");
    assert!(!forbidden.body.contains("france"), "which one is the audit's: {}", forbidden.body);
}
