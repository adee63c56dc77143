//! Devices through a real Envoy that asks for client certificates: enrolled, shown, copied, withdrawn; and what is wrong
//! with an enrolment.

use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use serde_json::{Value, json};

use crate::{
    redis::Redis,
    support::{
        http::{Request, Response},
        process::eventually,
        stack::{Builder, Stack},
        tls::{self, ClientIdentity},
        tokens::{Token, now, unique},
    },
};

const RULES: &str = r#"
resources:
  - { id: hello, match: { paths: ["/hello"], methods: [GET] }, access: authenticated, min_trust_level: untrusted }
  - { id: vault, match: { paths: ["/vault"], methods: [GET] }, access: authenticated, min_trust_level: untrusted, device: always }
  - { id: key,   match: { paths: ["/key"], methods: [GET] }, access: authenticated, min_trust_level: untrusted, policy: key }
policies:
  - { id: key, conditions: { device_requirements: [{ proof: key }] }, actions: [{ type: allow }] }
"#;

/// Devices are enrolled by the authority that the listeners trust.
fn builder() -> Builder {
    let builder = Builder::with_rules(RULES);
    let authority = tls::write_device_authority(builder.folder());
    builder.set(
        "/devices",
        json!({
            "trust_domain": "devices.test",
            "enrollment": {"enabled": true, "authority": authority, "certificate_life": "1h", "overlap": "1s"},
        }),
    )
}

fn csr(key: &KeyPair) -> String {
    let params = CertificateParams::new(Vec::new()).expect("no names");
    params.serialize_request(key).and_then(|request| request.pem()).expect("a request can be made")
}

fn good_posture() -> Value {
    json!({"disk_encrypted": true, "screen_lock": true, "jailbroken": false, "patch_level": "current"})
}

/// A one-time code, made by the command line as an operator would.
fn code(stack: &Stack, user: &str) -> String {
    let arguments = ["device", "code", "--user", user, "--config", "countersign.yaml"];
    let (exit, output) = stack.countersign.command(&arguments);
    assert_eq!(exit, Some(0), "{output}");
    output.lines().next().unwrap_or_default().trim().to_owned()
}

fn post(stack: &Stack, path: &str, body: &Value) -> Response {
    Request::new(stack.countersign.http, "POST", path).body("application/json", body.to_string()).send()
}

fn enroll(stack: &Stack, code: &str, csr: &str, posture: &Value) -> Response {
    post(stack, "/devices/enroll", &json!({"code": code, "csr": csr, "device": posture}))
}

/// A device as its agent has it.
struct Device {
    id: String,
    key: KeyPair,
    certificate: String,
    shown: ClientIdentity,
}

impl Device {
    fn of(key: KeyPair, granted: &Value) -> Self {
        let text = |name: &str| granted[name].as_str().expect("text").to_owned();
        let certificate = text("certificate");
        Self { id: text("device_id"), shown: ClientIdentity::of(&certificate, &key), key, certificate }
    }

    /// Enrolled over HTTP with a code.
    fn enrolled(stack: &Stack, user: &str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let answer = enroll(stack, &code(stack, user), &csr(&key), &good_posture());
        assert_eq!(answer.status, 201, "{}", answer.body);
        Self::of(key, &answer.json())
    }

    /// What its agent sends to renew, signed at `time` for a request of `key`.
    fn wish(&self, time: i64, key: &KeyPair) -> Value {
        use base64::Engine as _;
        let request = csr(key);
        let der = pem_der(&request);
        let sum = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der));
        let message = format!("countersign-renew:v1:{}:{time}:{sum}", self.id);
        let signature = self.key.sign(message.as_bytes()).expect("it signs");
        let signature = base64::engine::general_purpose::STANDARD.encode(signature);
        json!({"certificate": self.certificate, "csr": request, "time": time, "signature": signature, "device": good_posture()})
    }
}

fn pem_der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).expect("PEM").to_vec()
}

fn fleet(stack: &Stack, method: &str, request: &Value) -> Value {
    stack.countersign.fleet(method, request).unwrap_or_else(|error| panic!("{method}: {error}"))
}

fn trust(answer: &Response) -> f64 {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.upstream().expect("it came through").header("x-zt-trust-score").parse().expect("a number")
}

fn refused(answer: &Response) -> (u16, String) {
    assert!(answer.header("x-echo").is_none(), "it reached the upstream");
    (answer.status, answer.reason())
}

#[test]
fn an_enrolled_device_opens_by_its_certificate_what_no_header_opens() {
    let stack = builder().start();
    let device = Device::enrolled(&stack, "alice");
    let token = Token::person("alice").mint();
    let with_certificate = |path| stack.tls_as("GET", path, &device.shown).bearer(&token);
    let without = |path| stack.tls("GET", path, None).bearer(&token);
    let named = |path| without(path).header("X-Device-ID", device.id.as_str());

    let proven = with_certificate("/vault").send();
    assert_eq!(proven.status, 200, "{}", proven.body);
    let upstream = proven.upstream().expect("it came through");
    assert_eq!(upstream.header("x-zt-device"), device.id, "named by its certificate alone");
    assert_eq!(with_certificate("/key").send().status, 200);
    let found = eventually("the device was seen", || {
        let found = fleet(&stack, "Search", &json!({"user": "alice"}));
        found["devices"][0]["lastSeen"].is_string().then_some(found)
    });
    assert_eq!(found["devices"][0]["state"], "provisional", "{found}");

    assert_eq!(refused(&without("/vault").send()), (403, "device_not_registered".into()));
    assert_eq!(refused(&named("/vault").send()), (403, "device_not_proven".into()));
    let shown = json!({"device": {"id": device.id, "fingerprint": "fp-of-alice"}});
    stack.countersign.admin("PutDevice", &shown).expect("an operator adds the fingerprint");
    let copied = |path| named(path).header("X-Device-Fingerprint", "fp-of-alice").send();
    assert_eq!(refused(&copied("/key")), (403, "device_requirement_unmet".into()), "a fingerprint is no key");
    let (key, fingerprint) = (trust(&with_certificate("/vault").send()), trust(&copied("/vault")));
    let (id, nothing) = (trust(&named("/hello").send()), trust(&without("/hello").send()));
    assert!(key > fingerprint && fingerprint > id && id > nothing, "{key} {fingerprint} {id} {nothing}");
}

#[test]
fn another_devices_id_a_withdrawn_and_a_revoked_certificate_are_refused() {
    let stack = builder().start();
    let (mut own, other) = (Device::enrolled(&stack, "alice"), Device::enrolled(&stack, "alice"));
    let bobs = Device::enrolled(&stack, "bob");
    let token = Token::person("alice").mint();
    let get = |shown: &ClientIdentity| stack.tls_as("GET", "/vault", shown).bearer(&token).send();

    let borrowed = stack.tls_as("GET", "/vault", &own.shown).bearer(&token).header("X-Device-ID", other.id.as_str());
    assert_eq!(refused(&borrowed.send()), (403, "device_untrusted".into()), "her own other device");
    assert_eq!(refused(&get(&bobs.shown)), (403, "device_other_owner".into()));
    let stranger = ClientIdentity::named("spiffe://devices.test/device/unheard-of");
    assert_eq!(refused(&get(&stranger)), (403, "device_not_registered".into()));

    let key = KeyPair::generate().expect("a key can be made");
    let renewed = post(&stack, "/devices/renew", &own.wish(now(), &key));
    assert_eq!(renewed.status, 201, "{}", renewed.body);
    let before = std::mem::replace(&mut own, Device::of(key, &renewed.json()));
    assert_eq!(get(&own.shown).status, 200);
    let withdrawn =
        eventually("the certificate before is over", || Some(get(&before.shown)).filter(|answer| answer.status != 200));
    assert_eq!(refused(&withdrawn), (403, "device_untrusted".into()));

    let id = |device: &Device, reason: &str| json!({"id": device.id, "reason": reason});
    stack.countersign.admin("SuspendDevice", &id(&own, "lost")).expect("suspended");
    assert_eq!(refused(&get(&own.shown)), (403, "device_suspended".into()));
    fleet(&stack, "ActivateDevice", &id(&own, "found"));
    assert_eq!(get(&own.shown).status, 200, "not sticky");
    fleet(&stack, "RevokeDevice", &id(&own, "stolen"));
    assert_eq!(refused(&get(&own.shown)), (401, "device_revoked".into()));
    let again = post(&stack, "/devices/renew", &own.wish(now(), &KeyPair::generate().expect("a key")));
    assert_eq!((again.status, again.json()["error"].as_str()), (403, Some("device_barred")));
    let who: Vec<_> =
        stack.countersign.audit().into_iter().filter(|record| record["action"] == "device.revoke").collect();
    assert_eq!(who.len(), 1, "the write is audited, with who did it: {who:?}");
    assert!(!who[0]["actor"].as_str().unwrap_or_default().is_empty() && who[0]["detail"] == "stolen", "{who:?}");
}

#[test]
fn an_agents_renewal_takes_back_nothing_that_an_operator_said() {
    let stack = builder().start();
    let device = Device::enrolled(&stack, "alice");
    let token = Token::person("alice").mint();
    let get = || stack.tls_as("GET", "/vault", &device.shown).bearer(&token).send();
    assert_eq!(get().status, 200);
    let put = |field: &str, value: bool| {
        let device = json!({"id": device.id, field: value});
        stack.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
    };
    for (field, bad, reason) in [
        ("compliant", false, Some("device_not_compliant")),
        ("jailbroken", true, Some("device_jailbroken")),
        ("disk_encrypted", false, None),
    ] {
        put(field, bad);
        let renewed = post(&stack, "/devices/renew", &device.wish(now(), &device.key));
        assert_eq!(
            (renewed.status, renewed.json()["error"].as_str()),
            (403, Some("not_compliant")),
            "{}",
            renewed.body
        );
        if let Some(reason) = reason {
            assert_eq!(refused(&get()), (403, reason.into()));
        }
        put(field, !bad);
        assert_eq!(get().status, 200, "not sticky: {field}");
    }
}

#[test]
fn what_an_agent_said_is_its_word_also_after_an_export_and_an_import() {
    let stack = builder().start();
    let device = Device::enrolled(&stack, "alice");
    let token = Token::person("alice").mint();
    let get = || stack.tls_as("GET", "/vault", &device.shown).bearer(&token).send();
    let renew = |posture: &Value| {
        let mut wish = device.wish(now(), &device.key);
        wish["device"] = posture.clone();
        post(&stack, "/devices/renew", &wish).status
    };
    let mut bad = good_posture();
    bad["screen_lock"] = json!(false);
    assert_eq!(renew(&bad), 403);
    for format in ["jsonl", "csv"] {
        let run = |words: &[&str]| stack.countersign.command(&[words, &["--config", "countersign.yaml"]].concat());
        let (exit, exported) = run(&["device", "export", "--format", format]);
        assert_eq!(exit, Some(0), "{exported}");
        let file = stack.folder.join(format!("devices.{format}"));
        std::fs::write(&file, &exported).expect("the folder is writable");
        assert!(stack.countersign.admin("DeleteDevice", &json!({"id": device.id})).is_ok());
        let (exit, output) = run(&["device", "import", file.to_str().expect("a path")]);
        assert_eq!((exit, output.contains("1 written, 0 refused")), (Some(0), true), "{output}\n{exported}");
        assert_eq!(refused(&get()), (403, "device_not_compliant".into()), "{exported}");
    }
    assert_eq!(renew(&good_posture()), 201, "it takes its own word back");
}

#[test]
fn a_connection_that_outlives_its_certificate_proves_no_device_any_more() {
    let stack = builder().start();
    let token = Token::person("alice").mint();
    // The handshake is done while the certificate lasts: on a busy machine, with the next one.
    let answer = eventually("a handshake within three seconds", || {
        let id = unique("laptop");
        let ends = now() + 3;
        let shown = ClientIdentity::until(&format!("spiffe://devices.test/device/{id}"), ends);
        let device = json!({"id": id, "user": "alice", "compliant": true, "cert_sha256": shown.sha256()});
        stack.countersign.admin("PutDevice", &json!({ "device": device })).expect("put");
        let ask = || stack.tls_as("GET", "/vault", &shown).bearer(&token);
        ask().try_send().ok().filter(|answer| answer.status == 200)?;
        let over = || eventually("the certificate is over", || (now() > ends).then_some(()));
        ask().try_send_after(over).ok()
    });
    assert_eq!(refused(&answer), (403, "device_certificate_expired".into()));
    assert_eq!(answer.json()["action_required"], "device_enrollment");
}

#[test]
fn a_token_that_names_a_device_owes_it() {
    let stack = builder().start();
    let device = Device::enrolled(&stack, "alice");
    let token = Token::person("alice").claim("device_id", device.id.as_str()).mint();
    assert_eq!(stack.tls_as("GET", "/hello", &device.shown).bearer(&token).send().status, 200);
    let without = stack.tls("GET", "/hello", None).bearer(&token);
    assert_eq!(refused(&without.send()), (403, "device_untrusted".into()), "leaving it out is a contradiction");
    let named = stack.tls("GET", "/hello", None).bearer(&token).header("X-Device-ID", device.id.as_str());
    assert_eq!(named.send().status, 200, "named, where no proof is asked for");
}

const WEAK: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIIBTjCBuAIBADAPMQ0wCwYDVQQDDAR3ZWFrMIGfMA0GCSqGSIb3DQEBAQUAA4GN
ADCBiQKBgQCy6wku8sfLIkG3pKpg9A3Mk05tv/9ZmOgZ2f+O1p3c1VeYnneLAgb5
GZNBG5rk/ay2A1eUxTDRr8MhLxSjAvXe2eMd+Tae41LgmClhQIpdvposvvz8FUpo
uiDXrDT59LirFGYe+XTECSJ8LCVOVA0sI8l0JSxBLbp6o8FKZ7/MIwIDAQABoAAw
DQYJKoZIhvcNAQELBQADgYEAEEhN7iSWDfKtcimYXDTNWVBfwOHvyssQSN3MA5FF
fKIUeb4gpavNfr9lQ80ab19D5ZKoRu2ywsgL7qDj2cvAGr+3FKjnW2neUH8dtDRl
3tv3Ar0bhLSaVe7JKVzwmBOcW2jlbDPST1etb7nca6ESU6ojcviSaryBpqA8O9hH
Ew0=
-----END CERTIFICATE REQUEST-----
";

#[test]
fn what_is_wrong_with_an_enrolment_is_told_and_uses_up_no_code() {
    let stack = builder().start();
    let key = KeyPair::generate().expect("a key can be made");
    let (request, code) = (csr(&key), code(&stack, "alice"));
    let error = |answer: &Response| (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned());
    let cut = &request[..request.len() / 2];
    for (what, csr) in [("malformed", "no request"), ("half", cut), ("RSA of 1024 bits", WEAK)] {
        let answer = enroll(&stack, &code, csr, &good_posture());
        assert_eq!(error(&answer), (400, "csr_refused".into()), "{what}: {}", answer.body);
        assert!(answer.json()["message"].as_str().is_some_and(|why| why.len() > 10), "{what}: {}", answer.body);
    }
    let bad = json!({"disk_encrypted": false, "screen_lock": true, "jailbroken": true, "patch_level": "400"});
    let answer = enroll(&stack, &code, &request, &bad);
    assert_eq!(error(&answer), (403, "not_compliant".into()));
    let issues = answer.json()["issues"].as_array().cloned().unwrap_or_default();
    assert_eq!(issues.len(), 3, "all at once: {}", answer.body);
    assert!(issues.iter().all(|issue| issue["remediation"].as_str().is_some_and(|how| how.len() > 5)), "{issues:?}");
    assert_eq!(error(&enroll(&stack, "AAAA-AAAA", &request, &good_posture())), (401, "code_invalid".into()));
    let unknown = post(&stack, "/devices/enroll", &json!({"code": code, "csr": request, "devcie": {}}));
    assert_eq!(error(&unknown), (400, "malformed".into()));

    let granted = enroll(&stack, &code, &request, &good_posture());
    assert_eq!(granted.status, 201, "the code is still good: {}", granted.body);
    let other = csr(&KeyPair::generate().expect("a key"));
    assert_eq!(error(&enroll(&stack, &code, &other, &good_posture())), (401, "code_invalid".into()), "once");

    let device = Device::of(key, &granted.json());
    let key = KeyPair::generate().expect("a key can be made");
    let renew = |wish: &Value| error(&post(&stack, "/devices/renew", wish));
    assert_eq!(renew(&device.wish(now() - 600, &key)), (401, "clock_skew".into()));
    assert_eq!(renew(&device.wish(now() + 600, &key)), (401, "clock_skew".into()));
    let mut forged = device.wish(now(), &key);
    forged["csr"] = json!(other);
    assert_eq!(renew(&forged), (401, "signature_invalid".into()), "signed for another request");
    let wish = device.wish(now(), &device.key);
    assert_eq!(post(&stack, "/devices/renew", &wish).status, 201);
    assert_ne!(renew(&wish).0, 201, "once");
}

#[test]
fn a_flood_of_wrong_codes_hides_no_other_refusal_from_the_audit() {
    let stack = builder().start();
    let request = csr(&KeyPair::generate().expect("a key can be made"));
    for _ in 0..100 {
        assert_eq!(enroll(&stack, "AAAA-AAAA", &request, &good_posture()).status, 401);
    }
    let refused = |why: &str| {
        let records = stack.countersign.audit();
        let told = |record: &Value| record["detail"].as_str().is_some_and(|detail| detail.contains(why));
        records.iter().filter(|record| record["action"] == "device.enroll" && told(record)).count()
    };
    let bad = json!({"disk_encrypted": false});
    assert_eq!(enroll(&stack, &code(&stack, "alice"), &request, &bad).status, 403);
    for _ in 0..100 {
        if refused("does not meet the requirements") == 1 {
            assert!((1..60).contains(&refused("the code is not known")), "of a flood, some");
            return;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    panic!("the device that is not compliant is nowhere in the audit");
}

#[test]
fn a_device_that_becomes_non_compliant_is_refused_at_three_replicas_within_the_bound() {
    const TRIALS: usize = 20;
    let first = builder();
    let redis = Redis::start(first.folder());
    let replicas: Vec<Stack> =
        [first, builder(), builder()].into_iter().map(|one| one.set("/store/url", redis.url()).start()).collect();
    let mut took = Vec::new();
    for _ in 0..TRIALS {
        let id = unique("laptop");
        let key = format!("cs:device:{id}");
        redis.cli(&["HSET", &key, "user", "alice", "fingerprint", "fp", "compliant", "1"]);
        let token = Token::person("alice").mint();
        let ask = |replica: &Stack| {
            let request = replica.get("/vault").bearer(&token).header("X-Device-ID", id.as_str());
            request.header("X-Device-Fingerprint", "fp")
        };
        for replica in &replicas {
            let warm = || (ask(replica).send().status == 200).then_some(());
            eventually("the device is good", warm);
            assert_eq!(ask(replica).send().status, 200);
        }
        redis.cli(&["HSET", &key, "compliant", "0"]);
        let told = Instant::now();
        std::thread::scope(|scope| {
            let waiting: Vec<_> =
                replicas.iter().map(|replica| scope.spawn(|| until_refused(&ask(replica), told))).collect();
            took.extend(waiting.into_iter().map(|thread| thread.join().expect("it ends")));
        });
    }
    took.sort();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!("compliance to refusal, {} times at 3 replicas: p50 {median:?}, worst {worst:?}", took.len());
    assert!(worst < Duration::from_secs(5), "{worst:?}: as a revocation, at the very worst");
}

fn until_refused(request: &Request, told: Instant) -> Duration {
    loop {
        let answer = request.send();
        if answer.status != 200 {
            assert_eq!(refused(&answer), (403, "device_not_compliant".into()));
            return told.elapsed();
        }
        assert!(told.elapsed() < Duration::from_secs(30), "still let in");
    }
}

#[test]
fn half_an_import_file_loses_nothing_and_goes_on_where_it_ended() {
    let stack = builder().start();
    let file = stack.folder.join("fleet.jsonl");
    let line = |i: usize| format!("{{\"id\": \"d{i}\", \"user\": \"u{i}\", \"compliant\": true}}\n");
    let whole: String = (1..=2500).map(line).collect();
    let import = |more: &[&str]| {
        let path = file.to_str().expect("a path");
        stack.countersign.command(&[&["device", "import", path, "--config", "countersign.yaml"], more].concat())
    };
    let get = |id: &str| stack.countersign.admin("GetDevice", &json!({"id": id}));

    std::fs::write(&file, &whole[..whole.len() - 20]).expect("the folder is writable");
    let (exit, output) = import(&[]);
    assert_eq!(exit, Some(1), "{output}");
    assert!(output.contains("line 2500") && output.contains("--resume"), "{output}");
    assert!(get("d2499").is_ok() && get("d2500").is_err(), "everything up to there");

    let long = format!("{{\"id\": \"long\", \"user\": \"{}\"}}\n", "x".repeat(70_000));
    std::fs::write(&file, format!("{whole}{long}no JSON\n{}", line(2501))).expect("the folder is writable");
    let (exit, output) = import(&["--resume"]);
    assert_eq!(exit, Some(1), "{output}");
    assert!(output.contains("going on after line 2499"), "{output}");
    assert!(output.contains("line 2501") && output.contains("line 2502"), "each bad line by its number: {output}");
    assert!(output.contains("2 written, 2 refused"), "{output}");
    assert!(get("d2500").is_ok() && get("d2501").is_ok() && get("long").is_err());

    std::fs::write(&file, format!("{}{}", line(9), &whole[line(1).len()..])).expect("the folder is writable");
    let (exit, output) = import(&["--resume"]);
    assert_eq!(exit, Some(64), "another file is not gone on with: {output}");
    let (exit, output) = import(&[]);
    assert_eq!((exit, output.contains("2500 written, 0 refused")), (Some(0), true), "{output}");
    assert!(!file.with_extension("jsonl.progress").exists(), "done");
}

#[test]
fn an_operator_enrols_renews_and_judges_a_device_by_the_command_line() {
    let stack = builder().start();
    let file = |name: &str| stack.folder.join(name).to_str().expect("a path").to_owned();
    let (request, certificate) = (file("laptop.csr"), file("laptop.pem"));
    let run = |arguments: &[&str]| stack.countersign.command(&[arguments, &["--config", "countersign.yaml"]].concat());
    let posture = ["--set", "disk_encrypted=true", "--set", "screen_lock=true", "--set", "jailbroken=false"];
    let patched = ["--set", "patch_level=current"];
    let token = Token::person("alice").mint();
    let shown =
        |key: &KeyPair| ClientIdentity::of(&std::fs::read_to_string(&certificate).expect("it was written"), key);
    let sign = |words: &[&str], key: &KeyPair| {
        std::fs::write(&request, csr(key)).expect("the folder is writable");
        run(&[words, &["--csr", &request, "--out", &certificate], &posture[..], &patched[..]].concat())
    };

    let key = KeyPair::generate().expect("a key can be made");
    std::fs::write(&request, csr(&key)).expect("the folder is writable");
    let enroll = ["device", "enroll", "--user", "alice", "--device", "laptop"];
    let (exit, output) = run(&[&enroll[..], &["--csr", &request], &posture[..]].concat());
    assert_eq!(exit, Some(1), "patches are asked about and not known: {output}");
    assert!(output.contains("patch"), "{output}");
    let (exit, output) = sign(&enroll, &key);
    assert_eq!(exit, Some(0), "{output}");
    assert_eq!(stack.tls_as("GET", "/vault", &shown(&key)).bearer(&token).send().status, 200);

    let next = KeyPair::generate().expect("a key can be made");
    let (exit, output) = sign(&["device", "renew", "laptop"], &next);
    assert_eq!(exit, Some(0), "{output}");
    assert_eq!(stack.tls_as("GET", "/vault", &shown(&next)).bearer(&token).send().status, 200);

    let (exit, output) = run(&["device", "posture", "laptop", "--set", "screen_lock=false"]);
    assert!(exit.is_some() && output.contains("screen"), "what it lacks is told: {output}");
    let answer = stack.tls_as("GET", "/vault", &shown(&next)).bearer(&token).send();
    assert_eq!(refused(&answer), (403, "device_not_compliant".into()));
}
