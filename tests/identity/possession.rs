//! DPoP (RFC 9449) and certificate-bound tokens (RFC 8705): each check by itself, replay, nonces.

use countersign::{
    domain::{CredentialProblem, Possession, UnixTime},
    identity::{Credentials, Detail, HeaderValues, mint::SigningKey, settings::XfccTrust},
};
use serde_json::{Value, json};

use crate::rig::{ED, NOW, Outcome, P256, RSA, Rig, changed, outcome};

fn bound(rig: &Rig, key: &SigningKey) -> String {
    rig.token_with(json!({ "cnf": { "jkt": key.thumbprint() } }))
}

fn proof_claims(id: &str) -> Value {
    json!({ "jti": id, "htm": "GET", "htu": "https://api.example.com/orders", "iat": NOW })
}

fn request<'a>(authorization: &'a str, proof: &'a str) -> Credentials<'a> {
    Credentials {
        authorization: HeaderValues::one(authorization.as_bytes()),
        dpop: HeaderValues::one(proof.as_bytes()),
        method: b"GET",
        scheme: b"https",
        host: b"api.example.com",
        path: b"/orders",
        query: Some(b"page=2"),
        ..Credentials::default()
    }
}

/// A proof by [`ED`] with another header.
fn proof_with(token: &str, id: &str, changes: Value) -> String {
    let head = changed(json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": ED.public() }), changes);
    let good = ED.dpop(proof_claims(id), Some(token)).unwrap();
    let payload = good.split('.').nth(1).unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
    ED.sign_text(&head.to_string(), std::str::from_utf8(&payload).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_may_call_its_algorithm_by_either_name_of_ed25519() {
    let rig = Rig::new().await;
    let token = bound(&rig, &ED);
    let value = format!("DPoP {token}");
    for alg in ["EdDSA", "Ed25519"] {
        assert!(rig.ask(&request(&value, &proof_with(&token, alg, json!({ "alg": alg })))).await.is_allowed(), "{alg}");
    }
    for alg in ["Ed448", "ed25519", "ES256"] {
        let refused = rig.ask(&request(&value, &proof_with(&token, alg, json!({ "alg": alg })))).await;
        assert_eq!(refused.detail(), Some(Detail::ProofSignature), "{alg}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_the_tokens_key_is_accepted_once() {
    let rig = Rig::new().await;
    let token = bound(&rig, &ED);
    let (value, proof) = (format!("DPoP {token}"), ED.dpop(proof_claims("p-1"), Some(&token)).unwrap());
    let answer = rig.authenticate(&request(&value, &proof)).await;
    assert_eq!(outcome(&answer), Outcome::Allowed(Some(Possession::Dpop)));
    assert_eq!(answer.jkt.as_deref(), Some(ED.thumbprint().as_str()));
    assert!(answer.by_dpop);
    let again = rig.ask(&request(&value, &proof)).await;
    assert_eq!(again, Outcome::Refused(CredentialProblem::ProofInvalid, Detail::ProofReplayed));
    let next = ED.dpop(proof_claims("p-2"), Some(&token)).unwrap();
    assert!(rig.ask(&request(&value, &next)).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn j25_a_bound_token_without_its_proof_is_refused_under_either_scheme() {
    let rig = Rig::new().await;
    let token = bound(&rig, &ED);
    let bearer = format!("Bearer {token}");
    let proof = ED.dpop(proof_claims("p-1"), Some(&token)).unwrap();
    let required = Outcome::Refused(CredentialProblem::ProofRequired, Detail::ProofMissing);
    assert_eq!(rig.ask(&request(&bearer, &proof)).await, required, "a bound token is no bearer token, proof or not");
    let no_proof = Outcome::Refused(CredentialProblem::ProofInvalid, Detail::ProofMalformed);
    assert_eq!(rig.authorization(&format!("DPoP {token}")).await, no_proof, "for `invalid_dpop_proof`");
    let unbound = format!("DPoP {}", rig.token());
    assert_eq!(rig.ask(&request(&unbound, &proof)).await.detail(), Some(Detail::ProofKeyMismatch));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_check_of_rfc_9449_refuses_by_itself() {
    let rig = Rig::new().await;
    let token = bound(&rig, &ED);
    let value = format!("DPoP {token}");
    let ath = json!({ "ath": null });
    let with = |changes: Value| ED.dpop(changed(proof_claims("p"), changes), Some(&token)).unwrap();
    let header = |changes: Value| proof_with(&token, "p", changes);
    let mut private = ED.public();
    private["d"] = "AAAA".into();
    let good = with(json!({}));
    let another = P256.dpop(proof_claims("p"), Some(&token)).unwrap();
    let cases = [
        ("not a JWT", "x".to_owned(), Detail::ProofMalformed),
        ("two, joined", format!("{good},{good}"), Detail::ProofMalformed),
        ("typ JWT", header(json!({ "typ": "JWT" })), Detail::ProofMalformed),
        ("typ at+jwt", header(json!({ "typ": "at+jwt" })), Detail::ProofMalformed),
        ("no typ", header(json!({ "typ": null })), Detail::ProofMalformed),
        ("alg none", header(json!({ "alg": "none" })), Detail::ProofSignature),
        ("alg HS256", header(json!({ "alg": "HS256" })), Detail::ProofSignature),
        ("an algorithm not offered", RSA.dpop(proof_claims("p"), Some(&token)).unwrap(), Detail::ProofSignature),
        ("no jwk", header(json!({ "jwk": null })), Detail::ProofMalformed),
        ("a private jwk", header(json!({ "jwk": private })), Detail::ProofSignature),
        ("another's jwk", header(json!({ "jwk": P256.public() })), Detail::ProofSignature),
        ("crit", header(json!({ "crit": ["x"] })), Detail::ProofMalformed),
        ("signature changed", format!("{}AAAA", &good[..good.len() - 4]), Detail::ProofSignature),
        ("another key's proof", another, Detail::ProofKeyMismatch),
        ("no jti", with(json!({ "jti": null })), Detail::ProofMalformed),
        ("jti no text", with(json!({ "jti": 7 })), Detail::ProofMalformed),
        ("htm of another method", with(json!({ "htm": "POST" })), Detail::ProofOtherRequest),
        ("htm in lower case", with(json!({ "htm": "get" })), Detail::ProofOtherRequest),
        ("htu of another path", with(json!({ "htu": "https://api.example.com/admin" })), Detail::ProofOtherRequest),
        ("htu of another host", with(json!({ "htu": "https://evil.example/orders" })), Detail::ProofOtherRequest),
        ("htu over http", with(json!({ "htu": "http://api.example.com/orders" })), Detail::ProofOtherRequest),
        ("no htu", with(json!({ "htu": null })), Detail::ProofMalformed),
        ("too old", with(json!({ "iat": NOW - 61 })), Detail::ProofTime),
        ("from the future", with(json!({ "iat": NOW + 6 })), Detail::ProofTime),
        ("no iat", with(json!({ "iat": null })), Detail::ProofMalformed),
        ("no ath", ED.dpop(changed(proof_claims("p"), ath), None).unwrap(), Detail::ProofOtherToken),
        ("ath of another token", ED.dpop(proof_claims("p"), Some("another")).unwrap(), Detail::ProofOtherToken),
    ];
    for (what, proof, detail) in cases {
        assert_eq!(rig.ask(&request(&value, &proof)).await.detail(), Some(detail), "{what}");
    }
    assert!(rig.ask(&request(&value, &good)).await.is_allowed(), "none of them used up the good one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_compared_after_normalisation_and_as_the_client_sees_it() {
    let rig = Rig::with(|settings| settings.dpop.external_host = Some("public.example".into())).await;
    let token = bound(&rig, &ED);
    let value = format!("DPoP {token}");
    let claims = changed(proof_claims("p-1"), json!({ "htu": "HTTPS://Public.Example:443/orders?x=1#y" }));
    let proof = ED.dpop(claims, Some(&token)).unwrap();
    assert!(rig.ask(&request(&value, &proof)).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_browsers_send_raw_is_the_one_that_envoy_encodes() {
    let rig = Rig::new().await;
    let token = bound(&rig, &ED);
    let value = format!("DPoP {token}");
    let claims = changed(proof_claims("p-1"), json!({ "htu": "https://api.example.com/q|r^s" }));
    let proof = ED.dpop(claims, Some(&token)).unwrap();
    assert!(rig.ask(&Credentials { path: b"/q%7Cr%5Es", ..request(&value, &proof) }).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_tells_whether_the_scheme_was_dpop() {
    let rig = Rig::new().await;
    let token = bound(&rig, &ED);
    rig.clock.set(UnixTime::from_secs(NOW + 86_400));
    for (value, by_dpop) in [
        (format!("DPoP {token}"), true),
        (format!("dpop {token}"), true),
        ("DPoP {}".to_owned(), true),
        (format!("Bearer {token}"), false),
        ("Basic eDp5".to_owned(), false),
    ] {
        let answer = rig.authenticate(&request(&value, "")).await;
        assert!(outcome(&answer).is_refused(), "{value}");
        assert_eq!(answer.by_dpop, by_dpop, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_is_demanded_given_and_accepted_for_its_time() {
    let rig = Rig::with(|settings| settings.dpop.nonce = true).await;
    let token = bound(&rig, &ED);
    let value = format!("DPoP {token}");
    let proof = ED.dpop(proof_claims("p-1"), Some(&token)).unwrap();
    let answer = rig.authenticate(&request(&value, &proof)).await;
    assert_eq!(outcome(&answer), Outcome::Refused(CredentialProblem::NonceRequired, Detail::ProofNonce));
    let nonce = answer.nonce.unwrap();
    let proof = ED.dpop(changed(proof_claims("p-2"), json!({ "nonce": *nonce })), Some(&token)).unwrap();
    assert!(rig.ask(&request(&value, &proof)).await.is_allowed());
    rig.clock.set(UnixTime::from_secs(NOW + 301));
    let late = changed(proof_claims("p-3"), json!({ "nonce": *nonce, "iat": NOW + 301 }));
    let proof = ED.dpop(late, Some(&token)).unwrap();
    assert_eq!(rig.ask(&request(&value, &proof)).await.detail(), Some(Detail::ProofNonce));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_dpop_off_its_scheme_is_unknown_and_a_bound_token_useless() {
    let rig = Rig::with(|settings| settings.dpop.enabled = false).await;
    let token = bound(&rig, &ED);
    let proof = ED.dpop(proof_claims("p-1"), Some(&token)).unwrap();
    let unsupported = Outcome::Refused(CredentialProblem::Unsupported, Detail::UnknownScheme);
    for value in [&*format!("DPoP {token}"), "DPoP", "DPoP {}", "dpop a b"] {
        assert_eq!(rig.ask(&request(value, &proof)).await, unsupported, "{value}");
    }
    assert_eq!(rig.authorization("Bearer {}").await.detail(), Some(Detail::NotOneToken));
    assert!(rig.bearer(&token).await.is_refused());
    assert_eq!(rig.authenticator.challenges().dpop_algorithms, None);
}

fn certificate() -> (String, [u8; 32]) {
    encoded(&rcgen::generate_simple_self_signed(vec!["client.example".to_owned()]).unwrap().cert)
}

pub fn encoded(certificate: &rcgen::Certificate) -> (String, [u8; 32]) {
    let pem = percent_encoding::utf8_percent_encode(&certificate.pem(), percent_encoding::NON_ALPHANUMERIC).to_string();
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
    (pem, sum.as_ref().try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_connection_that_outlives_its_certificate_a_bound_token_is_good_and_certifies_nobody() {
    let rig = Rig::new().await;
    let mut asked = rcgen::CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
    // Some six hours after NOW.
    asked.not_after = rcgen::date_time_ymd(2030, 3, 18);
    let (pem, sum) = encoded(&asked.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap());
    let thumbprint = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, sum);
    let token = rig.token_with(json!({ "exp": NOW + 50_000, "cnf": { "x5t#S256": thumbprint } }));
    let value = format!("Bearer {token}");
    let credentials = Credentials {
        authorization: HeaderValues::one(value.as_bytes()),
        principal: b"client.example",
        certificate: pem.as_bytes(),
        ..Credentials::default()
    };
    let out_of_time = async || rig.authenticate(&credentials).await.workload.value().map(|peer| peer.out_of_time);
    assert_eq!(rig.ask(&credentials).await, Outcome::Allowed(Some(Possession::Certificate)));
    assert_eq!(out_of_time().await, Some(false));
    rig.clock.advance(std::time::Duration::from_secs(30_000));
    assert_eq!(rig.ask(&credentials).await, Outcome::Allowed(None));
    assert_eq!(out_of_time().await, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_bound_token_is_good_on_its_own_connection_only() {
    let rig = Rig::with(|settings| settings.workloads.xfcc = XfccTrust::SanitizeSet).await;
    let ((pem, sum), (other, _)) = (certificate(), certificate());
    let thumbprint = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, sum);
    let value = format!("Bearer {}", rig.token_with(json!({ "cnf": { "x5t#S256": thumbprint } })));
    let base = Credentials { authorization: HeaderValues::one(value.as_bytes()), ..Credentials::default() };
    let with = |certificate| Credentials { certificate, ..base };
    assert_eq!(rig.ask(&with(pem.as_bytes())).await, Outcome::Allowed(Some(Possession::Certificate)));
    assert_eq!(rig.ask(&with(other.as_bytes())).await.detail(), Some(Detail::CertificateMismatch));
    assert_eq!(rig.ask(&base).await, Outcome::Refused(CredentialProblem::ProofRequired, Detail::CertificateMissing));
    assert_eq!(rig.ask(&with(b"garbage")).await.detail(), Some(Detail::CertificateMissing));
    let header = format!("Hash={};URI=spiffe://td/x", hex::encode(sum));
    let by_header = Credentials { xfcc: HeaderValues::one(header.as_bytes()), ..base };
    assert_eq!(rig.ask(&by_header).await, Outcome::Allowed(Some(Possession::Certificate)));
    let dpop = format!("DPoP {}", &value[7..]);
    assert_eq!(rig.authorization(&dpop).await.detail(), Some(Detail::ProofKeyMismatch));
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_with_mutual_tls_a_token_is_bound_to_the_clients_certificate_and_never_to_the_proxys() {
    const FRONT: &str = "spiffe://td.example/front";
    let hops = XfccTrust::Hops { count: 2, by: FRONT.into() };
    let rig = Rig::with(|settings| settings.workloads.xfcc = hops).await;
    let ((pem, proxys), (_, own)) = (certificate(), certificate());
    let bound = |sum: [u8; 32]| {
        let thumbprint = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, sum);
        format!("Bearer {}", rig.token_with(json!({ "cnf": { "x5t#S256": thumbprint } })))
    };
    let header = format!("By={FRONT};Hash={},By=spiffe://td.example/inner;URI={FRONT}", hex::encode(own));
    let alone = format!("By=spiffe://td.example/inner;Hash={};URI={FRONT}", hex::encode(proxys));
    let (own, proxys) = (bound(own), bound(proxys));
    for (what, value, header, expected) in [
        ("its own", &own, &header, None),
        ("the proxy's", &proxys, &header, Some(Detail::CertificateMismatch)),
        ("the proxy's, and the client has none", &proxys, &alone, Some(Detail::CertificateMissing)),
    ] {
        let credentials = Credentials {
            authorization: HeaderValues::one(value.as_bytes()),
            xfcc: HeaderValues::one(header.as_bytes()),
            principal: FRONT.as_bytes(),
            certificate: pem.as_bytes(),
            ..Credentials::default()
        };
        assert_eq!(rig.ask(&credentials).await.detail(), expected, "{what}");
        assert!(rig.authenticator.certificate(&credentials).is_empty(), "it says nothing of the client's device");
    }
}
