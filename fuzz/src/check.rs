//! Any octets as a CheckRequest, through the whole service: there is always an answer, it is a CheckResponse that others
//! can read, and it is OK only where there was a permit, on a public route or with a token that the issuer signed.

use std::sync::LazyLock;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign::{
    app::probe::Probe,
    config,
    domain::{Unavailable, UnixTime},
    identity::mint::key_set,
    wire::{
        Malformed,
        check::{CheckView, HttpView},
    },
};
use envoy_types::pb::envoy::{
    config::core::v3::HeaderValueOption,
    service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse, check_response::HttpResponse},
};
use prost::Message as _;
use serde_json::json;

use super::token::{AUDIENCE, ISSUER, NOW, key};

const RULES: &str = r#"
resources:
  - { id: static, match: { paths: ["/public/**"], methods: [GET, HEAD] }, access: public }
  - { id: hello,  match: { paths: ["/hello"], methods: [GET, POST] }, access: authenticated, min_trust_level: untrusted }
  - { id: orders, match: { hosts: [shop.example], paths: ["/orders/{id}"], methods: [GET] }, permission: "orders:read", min_trust_level: untrusted }
  - { id: pay,    match: { paths: ["/pay"], methods: [POST] }, access: authenticated, policy: second }
roles: { clerk: ["orders:read"] }
policies:
  - { id: second, name: A second factor, conditions: { required_auth_methods: [hardware_key] }, actions: [{ type: allow }] }
"#;

/// Whether a header carries a compact JWS that the issuer's key signed; by the cryptographic library alone.
fn carries_signed_token(http: &HttpView<'_>) -> bool {
    let public = URL_SAFE_NO_PAD.decode(key().public()["x"].as_str().unwrap_or_default()).expect("base64url");
    let public = UnparsedPublicKey::new(&ED25519, public);
    http.values("authorization").iter().any(|value| {
        let token = String::from_utf8_lossy(value.get(7..).unwrap_or_default());
        let Some((input, signature)) = token.rsplit_once('.') else { return false };
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        value[..7].eq_ignore_ascii_case(b"bearer ") && public.verify(input.as_bytes(), &signature).is_ok()
    })
}

struct Service {
    probe: Probe,
    _folder: tempfile::TempDir,
}

fn service() -> &'static Service {
    static SERVICE: LazyLock<Service> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (keys, rules) = (folder.path().join("jwks.json"), folder.path().join("rules.yaml"));
        std::fs::write(&keys, key_set([key()])).expect("writable");
        std::fs::write(&rules, RULES).expect("writable");
        let text = json!({
            "identity": { "issuers": [{ "issuer": ISSUER, "audiences": [AUDIENCE], "jwks": keys }] },
            "rules": [rules], "risk": { "model": "fixed" }, "audit": { "sink": "none" },
        });
        let (config, _) = config::parse("fuzz", &text.to_string(), &Default::default()).expect("a configuration");
        let probe = Probe::start(config, UnixTime::from_secs(NOW)).expect("it starts");
        Service { probe, _folder: folder }
    });
    &SERVICE
}

pub fn run(data: &[u8]) {
    let walked = CheckView::parse(data);
    let decoded = CheckRequest::decode(data);
    assert!(walked.is_ok() || decoded.is_err(), "prost reads what the walk does not");
    let probe = &service().probe;
    assert_answer(&walked, probe.check(data), "checked");
    assert_answer(&walked, probe.shed(data), "one too many");
    let (permitted, answer) = probe.refuse(Unavailable::Internal);
    let answer = CheckResponse::decode(&*answer).expect("an answer that others can read");
    let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else { panic!("no refusal: {answer:?}") };
    assert!(!permitted && denied.status.is_some_and(|status| status.code == 503));
}

fn assert_answer(walked: &Result<CheckView<'_>, Malformed>, (permitted, answer): (bool, Vec<u8>), what: &str) {
    let answer = CheckResponse::decode(&*answer).expect("an answer that others can read");
    let code = answer.status.as_ref().map_or(0, |status| status.code);
    match answer.http_response.as_ref() {
        Some(HttpResponse::OkResponse(ok)) => {
            assert!(permitted && code == 0, "OK without a permit");
            assert!(ok.response_headers_to_add.is_empty() && ok.query_parameters_to_set.is_empty());
            headers(&ok.headers, true);
            let set = |name: &String| ok.headers.iter().filter_map(|one| one.header.as_ref()).any(|h| h.key == *name);
            assert!(!ok.headers_to_remove.iter().any(set), "set and removed: {ok:?}");
            nothing_that_routes(ok);
            let view = walked.as_ref().expect("read");
            let http = view.http().expect("an HTTP request");
            let public = http.path.starts_with(b"/public/") && [&b"GET"[..], b"HEAD"].contains(&http.method);
            assert!(public || carries_signed_token(http), "allowed for nothing");
            for header in http.headers() {
                let Ok(name) = std::str::from_utf8(header.name) else { continue };
                let name = name.to_ascii_lowercase();
                let ours = name.to_ascii_lowercase().replace('_', "-").starts_with("x-zt-") || name == "x-original-url";
                assert!(!ours || set(&name) || ok.headers_to_remove.contains(&name), "{what}: {name} is let through");
            }
        }
        Some(HttpResponse::DeniedResponse(denied)) => {
            assert!(!permitted && code != 0, "denied with code {code}");
            let status = denied.status.as_ref().map_or(0, |status| status.code);
            assert!([400, 401, 403, 429, 431, 503].contains(&status), "{status}");
            headers(&denied.headers, false);
        }
        // Plain TCP is told by the code alone; these rules have nothing for it.
        _ => assert!(!permitted && code != 0, "no answer: {answer:?}"),
    }
}

/// Headers by which a client might name another path, method or time.
const OVERRIDES: [&str; 9] = [
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-envoy-upstream-stream-duration-ms",
];

/// No header that is set or removed makes the request that was judged another one, or sends it elsewhere.
fn nothing_that_routes(ok: &OkHttpResponse) {
    for header in ok.headers.iter().filter_map(|option| option.header.as_ref()) {
        let ours = header.key.starts_with("x-zt-") || header.key == "x-envoy-upstream-stream-duration-ms";
        assert!(ours, "set: {header:?}");
    }
    for name in &ok.headers_to_remove {
        let ours = name.replace('_', "-").starts_with("x-zt-") || OVERRIDES.contains(&&**name);
        assert!(ours, "removed: {name}");
    }
}

/// Every header may stand in HTTP as it is, and replaces what a client may have sent.
fn headers(headers: &[HeaderValueOption], allowed: bool) {
    for option in headers {
        let header = option.header.as_ref().expect("a header");
        assert!(header.key.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'), "{header:?}");
        assert!(!header.key.is_empty() && header.value.bytes().all(|c| (0x20..=0x7e).contains(&c)), "{header:?}");
        assert_eq!(option.append_action, 2, "{header:?}");
    }
    let verdict = headers.iter().filter_map(|one| one.header.as_ref()).find(|header| header.key == "x-zt-decision");
    assert_eq!(verdict.map(|header| header.value == "allow"), Some(allowed));
}
