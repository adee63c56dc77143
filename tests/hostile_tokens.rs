//! Hostile tokens against the real authenticator before a real issuer: rows J1 to J25 of the threat catalogue, each with
//! its variants, and a generator that makes many more out of good tokens. What is asserted of every one: refused, and as
//! the same class of answer. `HOSTILE_TOKENS=1000000` makes the generator try that many.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "identity/rig.rs"]
mod rig;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign::{
    domain::CredentialProblem,
    identity::{Algorithm, Detail, mint::SigningKey},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rig::{AUDIENCE, ED, FOREIGN, FOREIGN_RSA, NOW, Outcome, P256, P384, RSA, Rig, changed, claims};
use serde_json::{Value, json};

/// A hostile token, with words that say what is wrong with it.
type Case = (String, String);

fn encode(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn header(key: &SigningKey, changes: Value) -> Value {
    changed(json!({ "alg": key.algorithm().as_str(), "kid": key.kid(), "typ": "at+jwt" }), changes)
}

/// Signed by a good key, with the header as it is written.
fn with_header(key: &SigningKey, text: &str, issuer: &str) -> String {
    key.sign_text(text, &claims(issuer).to_string()).unwrap()
}

/// Signed by a good key, with the payload as it is written.
fn with_payload(text: &str) -> String {
    P256.sign_text(&header(&P256, json!({})).to_string(), text).unwrap()
}

/// The payload of a good token with one member written as it is.
fn raw(issuer: &str, name: &str, value: &str) -> String {
    let mut members = claims(issuer);
    members.as_object_mut().unwrap().remove(name);
    let text = members.to_string();
    with_payload(&format!("{},\"{name}\":{value}}}", &text[..text.len() - 1]))
}

async fn all_refused(rig: &Rig, cases: Vec<Case>) {
    assert!(rig.bearer(&rig.token()).await.is_allowed(), "the control must pass");
    for (what, token) in cases {
        for round in ["cold", "warm"] {
            let outcome = rig.bearer(&token).await;
            assert!(
                matches!(outcome, Outcome::Refused(problem, _) if problem != CredentialProblem::Ambiguous),
                "{what} ({round}): {outcome:?}"
            );
        }
    }
}

fn named<T: std::fmt::Debug>(items: impl IntoIterator<Item = T>, make: impl Fn(&T) -> String) -> Vec<Case> {
    items.into_iter().map(|item| (format!("{item:?}"), make(&item))).collect()
}

fn j01(issuer: &str) -> Vec<Case> {
    let payload = encode(claims(issuer).to_string());
    let signature = encode([1; 64]);
    let good = P256.token(&claims(issuer)).unwrap();
    let good_signature = good.rsplit('.').next().unwrap().to_owned();
    let mut cases = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE", "none ", " none", "none\0", "", "null", "n\u{f6}ne"] {
        for kid in [json!({ "kid": "p256" }), json!({})] {
            let head = encode(changed(json!({ "alg": alg, "typ": "at+jwt" }), kid).to_string());
            for end in ["", signature.as_str(), good_signature.as_str()] {
                cases.push((format!("alg {alg:?} and signature {end:?}"), format!("{head}.{payload}.{end}")));
            }
            cases.push((format!("alg {alg:?}, two segments"), format!("{head}.{payload}")));
        }
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j01_no_algorithm_in_any_spelling_is_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j01(&rig.issuer.url)).await;
}

fn j02(issuer: &str) -> Vec<Case> {
    use aws_lc_rs::hmac;
    let mut secrets: Vec<Vec<u8>> = vec![vec![], b"secret".to_vec(), b"p256".to_vec()];
    for key in [&*RSA, &*P256, &*ED] {
        let jwk = key.public();
        secrets.push(jwk.to_string().into_bytes());
        secrets.push(key.jwk().to_string().into_bytes());
        for member in ["n", "x", "y", "e"] {
            if let Some(text) = jwk.get(member).and_then(Value::as_str) {
                secrets.push(text.as_bytes().to_vec());
                secrets.push(URL_SAFE_NO_PAD.decode(text).unwrap());
            }
        }
        secrets.push(
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", encode(jwk.to_string())).into_bytes(),
        );
    }
    let mut cases = Vec::new();
    for (alg, hash) in [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)] {
        for (i, secret) in secrets.iter().enumerate() {
            for kid in ["rsa", "p256", "ed", "oct"] {
                let head = encode(json!({ "alg": alg, "kid": kid, "typ": "at+jwt" }).to_string());
                let input = format!("{head}.{}", encode(claims(issuer).to_string()));
                let tag = hmac::sign(&hmac::Key::new(hash, secret), input.as_bytes());
                cases.push((format!("{alg} with secret {i} and kid {kid}"), format!("{input}.{}", encode(tag))));
            }
        }
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j02_a_public_key_used_as_an_hmac_secret_is_refused() {
    let rig = Rig::new().await;
    // Even an oct key that the issuer itself serves is no key here.
    let mut set: Value = serde_json::from_str(&countersign::identity::mint::key_set([&*RSA, &*P256, &*ED])).unwrap();
    set["keys"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "kty": "oct", "kid": "oct", "k": encode("secret"), "alg": "HS256" }));
    rig.issuer.serve("/jwks", rig::Answer::ok(set.to_string()));
    all_refused(&rig, j02(&rig.issuer.url)).await;
}

fn j03(issuer: &str) -> Vec<Case> {
    let values = [
        "null",
        "[]",
        "[\"ES256\"]",
        "{}",
        "1",
        "true",
        "\"es256\"",
        "\"ES256\\u0000\"",
        "\"ES256 \"",
        "\"\"",
        "\"ES512\"",
        "\"ES256K\"",
        "\"Ed448\"",
        "\"dir\"",
        "\"RSA1_5\"",
        "\"A128GCMKW\"",
    ];
    let mut cases =
        named(values, |value| with_header(&P256, &format!(r#"{{"alg":{value},"kid":"p256","typ":"at+jwt"}}"#), issuer));
    cases.push(("missing".into(), with_header(&P256, r#"{"kid":"p256","typ":"at+jwt"}"#, issuer)));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j03_an_algorithm_that_is_not_exactly_one_of_ours_is_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j03(&rig.issuer.url)).await;
}

fn j04(issuer: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for signer in [&*RSA, &*P256, &*P384, &*ED] {
        for alg in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519", "Ed448"]
        {
            for kid in ["rsa", "p256", "p384", "ed"] {
                if kid != signer.kid() || Algorithm::parse(alg) != Some(signer.algorithm()) {
                    let head = header(signer, json!({ "alg": alg, "kid": kid }));
                    let token = signer.sign(&head, &claims(issuer)).unwrap();
                    cases.push((format!("{signer:?} as {alg} of {kid}"), token));
                }
            }
        }
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j04_an_algorithm_of_another_family_curve_or_key_is_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j04(&rig.issuer.url)).await;
}

fn j05(issuer: &str) -> Vec<Case> {
    let long = format!("\"{}\"", "k".repeat(9 * 1024));
    let mut values = vec![
        "\"../../../../dev/null\"",
        "\"/etc/passwd\"",
        "\"' OR 1=1 --\"",
        "\"*\"",
        "\"p25?\"",
        "\"p256\\r\\nX: y\"",
        "\"http://127.0.0.1/key\"",
        "\"file:///etc/passwd\"",
        "256",
        "[\"p256\"]",
        "{}",
        "null",
        "true",
        "\"\"",
        "\"P256\"",
        "\"p256 \"",
        "\"p256\\u0000\"",
        "\"p2\\u202e56\"",
        "\"cs:revoked:*\"",
    ];
    values.push(&long);
    let mut cases = named(values, |value| {
        with_header(&P256, &format!(r#"{{"alg":"ES256","kid":{value},"typ":"at+jwt"}}"#), issuer)
    });
    cases.push(("missing".into(), with_header(&P256, r#"{"alg":"ES256","typ":"at+jwt"}"#, issuer)));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j05_a_kid_is_only_ever_a_map_key() {
    let rig = Rig::new().await;
    all_refused(&rig, j05(&rig.issuer.url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j06_a_key_of_one_issuer_signs_nothing_for_another() {
    let other = rig::Issuer::start().await;
    other.serve_keys([&*FOREIGN]);
    let settings = other.settings();
    let rig = Rig::with(|all| all.issuers.push(settings)).await;
    let theirs = FOREIGN.token(&claims(&other.url)).unwrap();
    assert!(rig.bearer(&theirs).await.is_allowed(), "the same kid at two issuers is two keys");
    let crossed = FOREIGN.token(&claims(&rig.issuer.url)).unwrap();
    assert_eq!(rig.bearer(&crossed).await.detail(), Some(Detail::BadSignature));
    let crossed = P256.token(&claims(&other.url)).unwrap();
    assert_eq!(rig.bearer(&crossed).await.detail(), Some(Detail::BadSignature));
}

fn j07(issuer: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for kid in [json!("p256"), json!("unheard-of"), Value::Null] {
        for jwk in [FOREIGN.public(), FOREIGN.jwk(), json!({ "kty": "oct", "k": "AAAA" })] {
            let head = header(&FOREIGN, json!({ "kid": kid, "jwk": jwk }));
            cases.push((format!("kid {kid}, jwk {jwk}"), FOREIGN.sign(&head, &claims(issuer)).unwrap()));
        }
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j07_embedded_jwk_is_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j07(&rig.issuer.url)).await;
    // It is ignored, not a failure: a good signature with a foreign jwk beside it is still the issuer's.
    let beside = P256.sign(&header(&P256, json!({ "jwk": FOREIGN.public() })), &rig.claims()).unwrap();
    assert!(rig.bearer(&beside).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn j08_addresses_in_a_token_are_never_fetched() {
    let trap = rig::Issuer::start().await;
    trap.serve_keys([&*FOREIGN]);
    let document = json!({ "issuer": trap.url, "jwks_uri": format!("{}/jwks", trap.url) });
    trap.serve("/.well-known/openid-configuration", rig::Answer::ok(document.to_string()));
    let rig = Rig::new().await;
    let keys = format!("{}/jwks", trap.url);
    let mut cases = Vec::new();
    for (name, value) in [
        ("jku", json!(keys)),
        ("x5u", json!(keys)),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
        ("url", json!(keys)),
    ] {
        let head = header(&FOREIGN, json!({ name: value }));
        cases.push((name.to_owned(), FOREIGN.sign(&head, &rig.claims()).unwrap()));
    }
    cases.push(("foreign issuer".into(), FOREIGN.token(&claims(&trap.url)).unwrap()));
    all_refused(&rig, cases).await;
    assert_eq!(trap.all_hits(), 0, "nothing that a token names is ever asked");
}

fn j09(issuer: &str) -> Vec<Case> {
    let mut cases = named(
        [
            r#""crit":["exp"]"#,
            r#""crit":[]"#,
            r#""crit":"exp""#,
            r#""crit":["b64"],"b64":false"#,
            r#""b64":false"#,
            r#""b64":true"#,
            r#""crit":null"#,
            r#""crit":["alg"]"#,
            r#""crit":["http://x"],"http://x":1"#,
            r#""crit":{}"#,
            r#""c\u0072it":["x"]"#,
        ],
        |member| with_header(&P256, &format!(r#"{{"alg":"ES256","kid":"p256","typ":"at+jwt",{member}}}"#), issuer),
    );
    // RFC 7797: the payload not encoded at all.
    let head = encode(r#"{"alg":"ES256","kid":"p256","typ":"at+jwt","b64":false,"crit":["b64"]}"#);
    let input = format!("{head}.{}", claims(issuer));
    let signature = encode(P256.signature(input.as_bytes()).unwrap());
    cases.push(("unencoded payload".into(), format!("{head}.{}.{signature}", encode(claims(issuer).to_string()))));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j09_what_a_header_calls_critical_is_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j09(&rig.issuer.url)).await;
}

fn j10(issuer: &str) -> Vec<Case> {
    let inner = P256.token(&claims(issuer)).unwrap();
    let parts: Vec<&str> = inner.split('.').collect();
    let json_form = json!({ "payload": parts[1], "protected": parts[0], "signature": parts[2] });
    let general = json!({ "payload": parts[1], "signatures": [{ "protected": parts[0], "signature": parts[2] }] });
    let nested_header = header(&P256, json!({ "cty": "JWT" })).to_string();
    vec![
        ("cty".into(), P256.sign_text(&nested_header, &inner).unwrap()),
        ("cty on plain claims".into(), P256.sign_text(&nested_header, &claims(issuer).to_string()).unwrap()),
        ("a token as payload".into(), with_payload(&inner)),
        ("a token as a JSON string".into(), with_payload(&format!("\"{inner}\""))),
        ("JWE, five parts".into(), format!("{}.AA.AA.AA.AA", encode(r#"{"alg":"dir","enc":"A128GCM"}"#))),
        ("JWE zipped".into(), format!("{}.AA.AA.AA.AA", encode(r#"{"alg":"dir","enc":"A128GCM","zip":"DEF"}"#))),
        ("five parts of a good one".into(), format!("{inner}.AA.AA")),
        ("four parts".into(), format!("{inner}.AA")),
        ("JSON serialization, base64url".into(), encode(json_form.to_string())),
        ("general JSON, base64url".into(), encode(general.to_string())),
        ("array payload".into(), with_payload("[]")),
        ("string payload".into(), with_payload("\"x\"")),
        ("null payload".into(), with_payload("null")),
        ("empty object".into(), with_payload("{}")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn j10_nested_encrypted_and_json_forms_are_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j10(&rig.issuer.url)).await;
    let inner = rig.token();
    let parts: Vec<&str> = inner.split('.').collect();
    let json_form = json!({ "payload": parts[1], "protected": parts[0], "signature": parts[2] }).to_string();
    assert!(rig.authorization(&format!("Bearer {json_form}")).await.is_refused());
}

fn j11(issuer: &str) -> Vec<Case> {
    let good = claims(issuer).to_string();
    let body = &good[..good.len() - 1];
    let mut cases = named(
        [
            r#""sub":"admin""#,
            r#""sub":"alice""#,
            r#""s\u0075b":"admin""#,
            r#""exp":99999999999"#,
            r#""roles":["admin"]"#,
            r#""\u0072oles":["admin"]"#,
            r#""aud":"x""#,
            r#""iss":"x""#,
            r#""jti":"t-2""#,
            r#""x":{"a":1,"a":2}"#,
            r#""x":[{"a":1,"\u0061":2}]"#,
        ],
        |member| with_payload(&format!("{body},{member}}}")),
    );
    cases.extend(named(
        [
            r#""alg":"ES256""#,
            r#""alg":"none""#,
            r#""\u0061lg":"none""#,
            r#""kid":"rsa""#,
            r#""typ":"x""#,
            r#""x":{"a":1,"a":1}"#,
        ],
        |member| with_header(&P256, &format!(r#"{{"alg":"ES256","kid":"p256","typ":"at+jwt",{member}}}"#), issuer),
    ));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j11_a_member_that_stands_twice_is_refused_in_any_spelling() {
    let rig = Rig::new().await;
    all_refused(&rig, j11(&rig.issuer.url)).await;
}

fn j12(issuer: &str) -> Vec<Case> {
    let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(1500), "}".repeat(1500));
    vec![
        ("64 KiB".into(), P256.token(&changed(claims(issuer), json!({ "x": "a".repeat(64 * 1024) }))).unwrap()),
        ("just over 16 KiB".into(), P256.token(&changed(claims(issuer), json!({ "x": "a".repeat(12_300) }))).unwrap()),
        ("8000 dots".into(), ".".repeat(8000)),
        ("dots and text".into(), "a.".repeat(4000)),
        ("5000 deep".into(), raw(issuer, "x", &deep(5000))),
        ("100 deep".into(), raw(issuer, "x", &deep(100))),
        ("1500 objects deep".into(), raw(issuer, "x", &objects)),
        (
            "deep header".into(),
            with_header(&P256, &format!(r#"{{"alg":"ES256","kid":"p256","x":{}}}"#, deep(1000)), issuer),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn j12_size_and_depth_are_bounded() {
    let rig = Rig::new().await;
    let began = std::time::Instant::now();
    all_refused(&rig, j12(&rig.issuer.url)).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "bounded work");
    let huge = "a".repeat(17 * 1024);
    assert_eq!(rig.bearer(&huge).await, Outcome::Refused(CredentialProblem::TooLarge, Detail::TooLarge));
}

fn j13(issuer: &str) -> Vec<Case> {
    let past = (NOW - 31).to_string();
    let millis = format!("{}000", NOW + 600);
    let text = format!("\"{}\"", NOW + 600);
    let list = format!("[{}]", NOW + 600);
    let values = [
        "null",
        &text,
        &list,
        "-1",
        "0",
        "0.0",
        "-0.0",
        "NaN",
        "Infinity",
        "1e400",
        "18446744073709551616",
        "18446744073709551615",
        "9223372036854775808",
        "1e300",
        &millis,
        &past,
        "true",
        "{}",
        "\"\"",
        "1e-400",
        "\"never\"",
    ];
    let mut cases = named(values, |value| raw(issuer, "exp", value));
    cases.push(("missing".into(), P256.token(&changed(claims(issuer), json!({ "exp": null }))).unwrap()));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j13_an_expiry_that_is_no_future_date_is_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j13(&rig.issuer.url)).await;
    let fraction = raw(&rig.issuer.url, "exp", &format!("{}.5", NOW + 600));
    assert!(rig.bearer(&fraction).await.is_allowed(), "a fraction of a second is legal");
    let exponent = raw(&rig.issuer.url, "exp", "1.9000006e9");
    assert!(rig.bearer(&exponent).await.is_allowed(), "and so is an exponent");
}

#[tokio::test(flavor = "multi_thread")]
async fn j14_a_token_that_lives_for_years_is_refused() {
    let rig = Rig::new().await;
    for life in [86_400 + 31, 7 * 86_400, 10 * 365 * 86_400] {
        let token = rig.token_with(json!({ "exp": NOW + life }));
        assert_eq!(rig.bearer(&token).await.detail(), Some(Detail::LifetimeTooLong), "{life}");
    }
    assert!(rig.bearer(&rig.token_with(json!({ "exp": NOW + 86_400 }))).await.is_allowed());
}

fn j15(issuer: &str) -> Vec<Case> {
    let ahead = (NOW + 31).to_string();
    let text = format!("\"{}\"", NOW - 10);
    let values = [ahead.as_str(), &text, "null", "[]", "-1", "NaN", "1e400", "true", "{}"];
    let mut cases = named(values, |value| raw(issuer, "nbf", value));
    cases.extend(named(values, |value| raw(issuer, "iat", value)));
    cases.push(("iat 0".into(), raw(issuer, "iat", "0")));
    cases.push(("iat missing".into(), P256.token(&changed(claims(issuer), json!({ "iat": null }))).unwrap()));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j15_a_token_from_the_future_is_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j15(&rig.issuer.url)).await;
    let ahead = Outcome::Refused(CredentialProblem::NotYetValid, Detail::NotYetValid);
    assert_eq!(rig.bearer(&rig.token_with(json!({ "nbf": NOW + 31 }))).await, ahead);
    assert!(rig.bearer(&rig.token_with(json!({ "nbf": NOW + 30 }))).await.is_allowed(), "clocks differ a little");
    for zero in ["0", "0.0"] {
        let token = raw(&rig.issuer.url, "nbf", zero);
        assert!(rig.bearer(&token).await.is_allowed(), "{zero}: since ever, as older Keycloak writes");
    }
}

fn j16(issuer: &str) -> Vec<Case> {
    let mut cases = named(
        [
            json!("api.example.co"),
            json!("api.example.com.evil"),
            json!("API.example.com"),
            json!("api.example.com "),
            json!("api"),
            json!("*"),
            json!(["*"]),
            json!([]),
            json!(["other"]),
            json!([[AUDIENCE]]),
            json!([AUDIENCE, 1]),
            json!([AUDIENCE, null]),
            json!({ "aud": AUDIENCE }),
            json!(1),
            json!(true),
            json!(""),
            json!([AUDIENCE, [AUDIENCE]]),
            json!("api.example.com,other"),
            json!("api.example.com other"),
        ],
        |aud| P256.token(&changed(claims(issuer), json!({ "aud": aud }))).unwrap(),
    );
    cases.push(("null".into(), raw(issuer, "aud", "null")));
    cases.push(("missing".into(), P256.token(&changed(claims(issuer), json!({ "aud": null }))).unwrap()));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j16_an_audience_that_does_not_name_us_exactly_is_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j16(&rig.issuer.url)).await;
    assert!(rig.bearer(&rig.token_with(json!({ "aud": ["other", AUDIENCE] }))).await.is_allowed());
}

fn j17(issuer: &str) -> Vec<Case> {
    let host = issuer.trim_start_matches("http://");
    let mut cases = named(
        [
            json!(format!("{issuer}/")),
            json!(issuer.to_uppercase()),
            json!(format!("{issuer}.evil.example")),
            json!(format!("http://user@{host}")),
            json!(format!("https://{host}")),
            json!(format!(" {issuer}")),
            json!(format!("{issuer}\0")),
            json!(issuer.replace("http", "h\u{442}tp")),
            json!([issuer]),
            json!({ "iss": issuer }),
            json!(""),
            json!(1),
            json!(format!("{issuer}#x")),
            json!(format!("{issuer}?x")),
            json!(&issuer[..issuer.len() - 1]),
        ],
        |iss| P256.token(&changed(claims(issuer), json!({ "iss": iss }))).unwrap(),
    );
    cases.push(("null".into(), raw(issuer, "iss", "null")));
    cases.push(("missing".into(), P256.token(&changed(claims(issuer), json!({ "iss": null }))).unwrap()));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j17_an_issuer_that_is_not_ours_byte_for_byte_is_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j17(&rig.issuer.url)).await;
}

fn j18(issuer: &str) -> Vec<Case> {
    let events = json!({ "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} });
    let mut cases = named(
        [
            json!({ "events": events }),
            json!({ "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
            json!({ "events": {} }),
            json!({ "htm": "GET", "htu": "https://x/" }),
            json!({ "at_hash": "x" }),
            json!({ "c_hash": "x" }),
            json!({ "s_hash": "x" }),
            json!({ "typ": "ID" }),
            json!({ "typ": "Refresh" }),
            json!({ "typ": "Logout" }),
            json!({ "token_use": "id" }),
            json!({ "token_use": "refresh" }),
            json!({ "token_use": 1 }),
            json!({ "status_list": { "bits": 1, "lst": "AA" } }),
        ],
        |extra| P256.token(&changed(claims(issuer), extra.clone())).unwrap(),
    );
    for typ in [
        "id+jwt",
        "secevent+jwt",
        "logout+jwt",
        "dpop+jwt",
        "rt+jwt",
        "statuslist+jwt",
        "application/dpop+jwt",
        "at-jwt",
        "jose",
        "JOSE+JSON",
        "",
        "at+jwt;x",
        "application/application/at+jwt",
    ] {
        let token = P256.sign(&header(&P256, json!({ "typ": typ })), &claims(issuer)).unwrap();
        cases.push((format!("typ {typ:?}"), token));
    }
    for typ in ["null", "1", "[\"at+jwt\"]", "{}"] {
        let head = format!(r#"{{"alg":"ES256","kid":"p256","typ":{typ}}}"#);
        cases.push((format!("typ {typ}"), with_header(&P256, &head, issuer)));
    }
    let id_token = header(&P256, json!({ "typ": "JWT" }));
    let nonce = changed(claims(issuer), json!({ "nonce": "n" }));
    cases.push(("nonce under JWT".into(), P256.sign(&id_token, &nonce).unwrap()));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j18_tokens_of_another_kind_are_not_access_tokens() {
    let rig = Rig::new().await;
    all_refused(&rig, j18(&rig.issuer.url)).await;
    for typ in [json!("at+jwt"), json!("AT+JWT"), json!("application/at+jwt"), json!("JWT"), json!("jwt"), Value::Null]
    {
        let token = P256.sign(&header(&P256, json!({ "typ": typ })), &rig.claims()).unwrap();
        assert!(rig.bearer(&token).await.is_allowed(), "{typ}");
    }
    for usage in ["access", "access_token"] {
        assert!(rig.bearer(&rig.token_with(json!({ "token_use": usage }))).await.is_allowed(), "{usage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_clock_that_is_ahead_was_issued_now_at_the_latest() {
    let rig = Rig::new().await;
    let ahead = rig.token_with(json!({ "iat": NOW + 20, "exp": NOW + 600 }));
    assert_eq!(rig.identity(&ahead).await.issued_at.as_secs(), NOW);
}

fn j19(issuer: &str) -> Vec<Case> {
    let values = [
        "\"\"",
        "\" \"",
        "\"\\u3000\"",
        "7",
        "null",
        "[]",
        "[\"alice\"]",
        "{}",
        "true",
        "\"alice\\u0000\"",
        "\"a\\r\\nX-Admin: 1\"",
        "\"\\u202ealice\"",
        "\"\\u001b[31m\"",
        "\"a\\u200bb\"",
        "\"\\ufeffalice\"",
        "\"a\\u0085b\"",
        "\"a\\u2028b\"",
        "\"a\\u00adb\"",
        "\"\\udb40\\udc41\"",
    ];
    let long = format!("\"{}\"", "a".repeat(8 * 1024));
    let longer = format!("\"{}\"", "a".repeat(1025));
    let mut cases = Vec::new();
    for name in ["sub", "jti", "sid", "device_id", "client_id"] {
        for value in values.iter().copied().chain([long.as_str(), longer.as_str()]) {
            cases.push((format!("{name} {value:.40}"), raw(issuer, name, value)));
        }
    }
    for name in ["sub", "jti"] {
        cases.push((format!("{name} missing"), P256.token(&changed(claims(issuer), json!({ name: null }))).unwrap()));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j19_h12_names_that_a_log_or_header_would_obey_are_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j19(&rig.issuer.url)).await;
    let longest = rig.token_with(json!({ "sub": "a".repeat(1024) }));
    assert!(rig.bearer(&longest).await.is_allowed());
}

fn with_signature(token: &str, signature: impl AsRef<[u8]>) -> String {
    let (input, _) = token.rsplit_once('.').unwrap();
    format!("{input}.{}", encode(signature))
}

fn signature_of(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.rsplit('.').next().unwrap()).unwrap()
}

fn j21(issuer: &str) -> Vec<Case> {
    let n256 = hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    let good = P256.token(&claims(issuer)).unwrap();
    let (r, s) = signature_of(&good).split_at(32).into_owned();
    let zero = vec![0; 32];
    let one = [vec![0; 31], vec![1]].concat();
    let max = vec![0xff; 32];
    let mut cases = Vec::new();
    for (first, a) in [("0", &zero), ("n", &n256), ("1", &one), ("max", &max), ("r", &r)] {
        for (second, b) in [("0", &zero), ("n", &n256), ("1", &one), ("max", &max), ("s", &s)] {
            if (first, second) != ("r", "s") {
                cases.push((format!("r={first} s={second}"), with_signature(&good, [a.as_slice(), b].concat())));
            }
        }
    }
    let der_integer = |v: &[u8]| [&[2, v.len() as u8 + 1, 0], v].concat();
    let body = [der_integer(&r), der_integer(&s)].concat();
    cases.push(("DER".into(), with_signature(&good, [&[0x30, body.len() as u8], body.as_slice()].concat())));
    cases.push(("63 octets".into(), with_signature(&good, [r.as_slice(), &s[..31]].concat())));
    cases.push(("65 octets".into(), with_signature(&good, [r.as_slice(), &s, &[0]].concat())));
    cases.push(("96 octets".into(), with_signature(&good, [&zero[..16], r.as_slice(), &zero[..16], &s].concat())));
    cases.push(("swapped".into(), with_signature(&good, [s.as_slice(), &r].concat())));
    cases
}

trait IntoOwned {
    fn into_owned(self) -> (Vec<u8>, Vec<u8>);
}

impl IntoOwned for (&[u8], &[u8]) {
    fn into_owned(self) -> (Vec<u8>, Vec<u8>) {
        (self.0.to_vec(), self.1.to_vec())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j21_degenerate_ecdsa_signatures_are_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j21(&rig.issuer.url)).await;
}

fn j22(issuer: &str) -> Vec<Case> {
    let good = ED.token(&claims(issuer)).unwrap();
    let (r, s) = signature_of(&good).split_at(32).into_owned();
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut carry = 0_u16;
    let s_plus_order: Vec<u8> = s
        .iter()
        .zip(&order)
        .map(|(a, b)| {
            carry += u16::from(*a) + u16::from(*b);
            let octet = carry as u8;
            carry >>= 8;
            octet
        })
        .collect();
    let identity = [vec![1], vec![0; 31]].concat();
    let mut cases = vec![
        ("S + L".into(), with_signature(&good, [r.as_slice(), &s_plus_order].concat())),
        ("S = 0".into(), with_signature(&good, [r.as_slice(), &[0; 32]].concat())),
        ("R of small order, S = 0".into(), with_signature(&good, [identity.as_slice(), &[0; 32]].concat())),
        ("R of small order".into(), with_signature(&good, [identity.as_slice(), &s].concat())),
        ("all zero".into(), with_signature(&good, [0; 64])),
        ("114 octets".into(), with_signature(&good, [0; 114])),
        ("short".into(), with_signature(&good, &signature_of(&good)[..63])),
    ];
    for alg in ["Ed448", "ED25519", "ed25519", "EDDSA", "eddsa"] {
        let head = header(&ED, json!({ "alg": alg }));
        cases.push((alg.into(), ED.sign(&head, &claims(issuer)).unwrap()));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j22_malleable_eddsa_signatures_are_refused() {
    let rig = Rig::new().await;
    all_refused(&rig, j22(&rig.issuer.url)).await;
}

fn j23(issuer: &str) -> Vec<Case> {
    let good = RSA.token(&claims(issuer)).unwrap();
    let signature = signature_of(&good);
    let modulus = URL_SAFE_NO_PAD.decode(RSA.public()["n"].as_str().unwrap()).unwrap();
    let mut sum = vec![0; modulus.len() + 1];
    let mut carry = 0_u16;
    for i in (0..modulus.len()).rev() {
        carry += u16::from(modulus[i]) + u16::from(signature[i]);
        sum[i + 1] = carry as u8;
        carry >>= 8;
    }
    sum[0] = carry as u8;
    let mut cases = vec![
        ("cut".into(), with_signature(&good, &signature[1..])),
        ("cut at the end".into(), with_signature(&good, &signature[..255])),
        ("a zero before".into(), with_signature(&good, [&[0], signature.as_slice()].concat())),
        ("a zero after".into(), with_signature(&good, [signature.as_slice(), &[0]].concat())),
        ("plus the modulus".into(), with_signature(&good, sum)),
        ("one".into(), with_signature(&good, [vec![0; 255], vec![1]].concat())),
        ("zero".into(), with_signature(&good, vec![0; 256])),
        ("the modulus itself".into(), with_signature(&good, &modulus)),
        ("one octet".into(), with_signature(&good, [1])),
    ];
    for alg in ["RS384", "RS512", "PS256", "PS384", "PS512", "RS1", "RS224"] {
        let token = RSA.sign(&header(&RSA, json!({ "alg": alg })), &claims(issuer)).unwrap();
        cases.push((format!("PKCS#1 with SHA-256 labelled {alg}"), token));
    }
    cases.push(("another key".into(), FOREIGN_RSA.token(&claims(issuer)).unwrap()));
    cases.push((
        "another's signature".into(),
        with_signature(&good, signature_of(&FOREIGN_RSA.token(&claims(issuer)).unwrap())),
    ));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j23_bent_rsa_signatures_are_refused() {
    let rig = Rig::new().await;
    assert!(rig.bearer(&RSA.token(&rig.claims()).unwrap()).await.is_allowed());
    all_refused(&rig, j23(&rig.issuer.url)).await;
}

/// Spellings of a good token that decode to the same octets.
fn j24(issuer: &str) -> Vec<Case> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut cases = Vec::new();
    // Claims of different lengths, so that every segment has left-over bits in some token.
    for pad in ["", "x", "xx"] {
        let good = P256.token(&changed(claims(issuer), json!({ "pad": pad }))).unwrap();
        let segments: Vec<&str> = good.split('.').collect();
        for (i, segment) in segments.iter().enumerate() {
            let mut spell = |what: &str, twin: String| {
                let mut all: Vec<String> = segments.iter().map(|s| (*s).to_owned()).collect();
                all[i] = twin;
                cases.push((format!("segment {i}: {what}"), all.join(".")));
            };
            spell("padded", format!("{segment}="));
            spell("padded twice", format!("{segment}=="));
            spell("standard alphabet", segment.replace('-', "+").replace('_', "/") + "+");
            if segment.len() % 4 != 0 {
                let last = segment.as_bytes()[segment.len() - 1];
                let index = ALPHABET.iter().position(|b| *b == last).unwrap();
                let spare = if segment.len() % 4 == 2 { 16 } else { 4 };
                for bits in 1..spare {
                    let twin = format!("{}{}", &segment[..segment.len() - 1], ALPHABET[index ^ bits] as char);
                    spell("left-over bits", twin);
                }
            }
        }
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn j24_a_token_has_one_spelling() {
    let rig = Rig::new().await;
    let cases = j24(&rig.issuer.url);
    assert!(cases.iter().any(|(what, _)| what.contains("left-over")));
    all_refused(&rig, cases).await;
}

fn j25(issuer: &str) -> Vec<Case> {
    let thumbprint = ED.thumbprint();
    named(
        [
            json!({ "jkt": thumbprint }),
            json!({ "x5t#S256": encode([7; 32]) }),
            json!({ "jkt": thumbprint, "x5t#S256": encode([7; 32]) }),
            json!({ "jwk": ED.public() }),
            json!({ "kid": "x" }),
            json!({ "jku": "https://x" }),
            json!({}),
            json!("x"),
            json!(1),
            json!({ "jkt": 1 }),
            json!({ "jkt": "" }),
            json!({ "jkt": "AA" }),
            json!({ "x5t#S256": "AA" }),
            json!([]),
            json!({ "x5t": "AA" }),
            json!({ "jwe": "x" }),
        ],
        |cnf| P256.token(&changed(claims(issuer), json!({ "cnf": cnf }))).unwrap(),
    )
    .into_iter()
    .chain([("null".to_owned(), raw(issuer, "cnf", "null"))])
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn j25_a_bound_token_is_no_bearer_token() {
    let rig = Rig::new().await;
    all_refused(&rig, j25(&rig.issuer.url)).await;
}

/// The whole table.
fn table(issuer: &str) -> Vec<Case> {
    let rows =
        [j01, j02, j03, j04, j05, j07, j09, j10, j11, j12, j13, j15, j16, j17, j18, j19, j21, j22, j23, j24, j25];
    rows.iter().flat_map(|row| row(issuer)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_the_whole_table_shuffled_and_64_at_once_beside_good_tokens_makes_no_mistake() {
    let rig = std::sync::Arc::new(Rig::with(|settings| settings.queue = 4096).await);
    let mut cases: Vec<(bool, String, String)> =
        table(&rig.issuer.url).into_iter().map(|(what, token)| (false, what, token)).collect();
    assert!(cases.len() > 500, "{} hostile tokens", cases.len());
    for i in 0..cases.len() / 4 {
        cases.push((true, "good".into(), rig.token_with(json!({ "jti": format!("g-{i}") }))));
    }
    let mut random = StdRng::seed_from_u64(7);
    rand::seq::SliceRandom::shuffle(cases.as_mut_slice(), &mut random);
    let cases = std::sync::Arc::new(cases);
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..64 {
        let (rig, cases) = (rig.clone(), cases.clone());
        tasks.spawn(async move {
            for (good, what, token) in cases.iter().skip(worker).step_by(64) {
                let outcome = rig.bearer(token).await;
                let right = if *good { outcome.is_allowed() } else { outcome.is_refused() };
                assert!(right, "{what}: {outcome:?}");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Makes one hostile token out of good ones, nearly always under a signature that was of another. Never returns a good one.
/// What is signed again is tried in `tests/fuzz_targets.rs`, beside a reference that knows what is right.
fn mutate(good: &[String], issuer: &str, random: &mut StdRng) -> String {
    let token = good.choose(random).unwrap().clone();
    let mut segments: Vec<String> = token.split('.').map(str::to_owned).collect();
    match random.random_range(0..9) {
        0 => {
            // One character.
            let mut octets = token.clone().into_bytes();
            let i = random.random_range(0..octets.len());
            octets[i] = random.random_range(0x21..0x7f);
            String::from_utf8(octets).unwrap()
        }
        1 | 2 => {
            // One bit of what a segment holds.
            let i = random.random_range(0..3);
            let mut octets = URL_SAFE_NO_PAD.decode(&segments[i]).unwrap();
            let at = random.random_range(0..octets.len());
            octets[at] ^= 1 << random.random_range(0..8);
            segments[i] = encode(octets);
            segments.join(".")
        }
        3 => {
            // Segments of another token.
            let other: Vec<&str> = good.choose(random).unwrap().split('.').collect();
            let i = random.random_range(0..3);
            segments[i] = other[i].to_owned();
            segments.join(".")
        }
        4 => {
            // Cut, or something in the middle doubled.
            let (a, b) = (random.random_range(0..token.len()), random.random_range(0..token.len()));
            let (a, b) = (a.min(b), a.max(b));
            if random.random() { token[..b].to_owned() } else { format!("{}{}", &token[..b], &token[a..]) }
        }
        5 => {
            // Other claims under the old signature.
            let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&segments[1]).unwrap()).unwrap();
            let names: Vec<String> = claims.as_object().unwrap().keys().cloned().collect();
            let name = names.choose(random).unwrap().clone();
            claims[name] = json!(random.random_range(0..u32::MAX));
            segments[1] = encode(claims.to_string());
            segments.join(".")
        }
        6 => {
            // Other headers under the old signature.
            let name = ["alg", "kid", "typ", "crit", "jwk", "b64", "x"].choose(random).unwrap();
            let mut head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&segments[0]).unwrap()).unwrap();
            head[*name] = json!(["none", "HS256", "rsa", "p256", ""].choose(random).unwrap());
            segments[0] = encode(head.to_string());
            segments.join(".")
        }
        7 => {
            // JSON with an octet changed, under the old signature.
            let mut text = URL_SAFE_NO_PAD.decode(&segments[1]).unwrap();
            let at = random.random_range(0..text.len());
            text[at] = random.random();
            segments[1] = encode(text);
            segments.join(".")
        }
        _ => {
            // A good signature over a claim that must not pass.
            let bad = [
                json!({ "exp": NOW - random.random_range(31..1_000_000) }),
                json!({ "exp": null }),
                json!({ "sub": "" }),
                json!({ "aud": format!("x{}", random.random::<u32>()) }),
                json!({ "iat": NOW + random.random_range(31..99_999) }),
                json!({ "iss": format!("{issuer}{}", random.random::<u8>()) }),
                json!({ "jti": null }),
                json!({ "cnf": { "jkt": encode(random.random::<[u8; 32]>()) } }),
                json!({ "nbf": NOW + random.random_range(31..99_999) }),
                json!({ "events": {} }),
                json!({ "exp": NOW + random.random_range(86_431..u64::from(u32::MAX)) }),
            ];
            let bad = changed(claims(issuer), bad.choose(random).unwrap().clone());
            P256.token(&bad).unwrap()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t2_no_variant_of_a_good_token_is_ever_allowed() {
    let wanted: usize = std::env::var("HOSTILE_TOKENS").ok().and_then(|text| text.parse().ok()).unwrap_or(50_000);
    let rig = std::sync::Arc::new(
        Rig::with(|settings| {
            settings.verifiers = 2;
            settings.queue = 4096;
            // Unknown issuers and keys may not ask again and again.
            settings.key_sets.cooldown = std::time::Duration::from_secs(600).into();
        })
        .await,
    );
    let mut good = Vec::new();
    for i in 0..40 {
        let claims = changed(rig.claims(), json!({ "jti": format!("t-{i}"), "sub": format!("user-{i}") }));
        let key = [&*RSA, &*P256, &*P384, &*ED][i % 4];
        good.push(key.token(&claims).unwrap());
    }
    for token in &good {
        assert!(rig.bearer(token).await.is_allowed());
    }
    let good = std::sync::Arc::new(good);
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..16 {
        let (rig, good) = (rig.clone(), good.clone());
        tasks.spawn(async move {
            let mut random = StdRng::seed_from_u64(worker);
            let (mut tried, mut refused) = (0, 0);
            while tried < wanted / 16 {
                let token = mutate(&good, &rig.issuer.url, &mut random);
                if good.contains(&token) {
                    continue;
                }
                tried += 1;
                match rig.bearer(&token).await {
                    Outcome::Refused(..) => refused += 1,
                    other => panic!("{other:?}: {token}"),
                }
            }
            (tried, refused)
        });
    }
    let mut total = 0;
    while let Some(ended) = tasks.join_next().await {
        let (tried, refused) = ended.unwrap();
        assert_eq!(tried, refused);
        total += tried;
    }
    println!("{total} hostile variants of good tokens tried, 0 allowed");
    for token in good.iter() {
        assert!(rig.bearer(token).await.is_allowed(), "good tokens are not displaced or confused");
    }
}
