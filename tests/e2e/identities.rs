//! Who asks, through real Envoys: tokens bound to keys and certificates, workloads, and resources that want both.

use serde_json::json;

use crate::support::{
    front::Front,
    http::{Request, Response},
    process::eventually,
    stack::{Builder, Stack},
    tls::ClientIdentity,
    tokens::{Token, now, proof, proof_with_nonce},
};

const RULES: &str = r#"
resources:
  - { id: any,      match: { paths: ["/any"] }, access: authenticated, min_trust_level: untrusted }
  - { id: user,     match: { paths: ["/user"] }, access: authenticated, min_trust_level: untrusted, authenticated_by: user }
  - { id: workload, match: { paths: ["/workload"] }, access: authenticated, min_trust_level: untrusted, authenticated_by: workload }
  - { id: both,     match: { paths: ["/both"] }, access: authenticated, min_trust_level: untrusted, authenticated_by: both }
"#;

const WEB: &str = "spiffe://cluster.test/ns/prod/sa/web";
const STRANGER: &str = "spiffe://elsewhere.test/ns/prod/sa/web";

fn builder() -> Builder {
    Builder::with_rules(RULES).set("/identity/workloads", json!({"trust_domains": ["cluster.test"]}))
}

fn start() -> Stack {
    builder().start()
}

fn outcome(request: &Request) -> (u16, String) {
    let answer: Response = request.send();
    let came_through = answer.header("x-echo").is_some();
    assert_eq!(came_through, answer.status == 200, "{}", answer.body);
    (answer.status, if came_through { "allow".to_owned() } else { answer.reason() })
}

#[test]
fn a_resource_says_whether_it_wants_a_user_a_workload_or_both() {
    let stack = start();
    let token = Token::person("alice").mint();
    let no_token = (401, "no_credentials");
    let no_workload = (403, "workload_required");
    let fine = (200, "allow");
    // Who asks: a token, a certificate; then what each resource says of it.
    for (who, has_token, certificate, any, user, workload, both) in [
        ("nobody", false, None, no_token, no_token, no_token, no_token),
        ("a user", true, None, fine, fine, no_workload, no_workload),
        ("a workload", false, Some(WEB), fine, no_token, fine, no_token),
        ("both", true, Some(WEB), fine, fine, fine, fine),
        ("a user behind a stranger", true, Some(STRANGER), fine, fine, no_workload, no_workload),
        ("a stranger", false, Some(STRANGER), no_token, no_token, no_token, no_token),
    ] {
        for (path, (status, reason)) in [("/any", any), ("/user", user), ("/workload", workload), ("/both", both)] {
            let request = stack.tls("GET", path, certificate);
            let request = if has_token { request.bearer(&token) } else { request };
            assert_eq!(outcome(&request), (status, reason.to_owned()), "{who} at {path}");
        }
    }
    let through = || stack.tls("GET", "/both", Some(WEB)).bearer(&token);
    let revoked =
        stack.countersign.admin("Revoke", &json!({"kind": "KIND_SUBJECT", "id": WEB, "reason": "taken over"}));
    revoked.expect("it is written down");
    let answer = eventually("the workload is out", || Some(outcome(&through())).filter(|answer| answer.0 != 200));
    assert_eq!(answer, (401, "subject_revoked".into()), "whoever's token it hands on");
    assert_eq!(
        outcome(&stack.tls("GET", "/user", Some(WEB)).bearer(&token)),
        (200, "allow".into()),
        "no workload asked"
    );
    let bare = stack.tls("GET", "/user", Some(WEB)).send();
    let challenge = bare.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer realm=") && !challenge.contains("error="), "{challenge}");
    let forged = format!("By=spiffe://a/b;URI={WEB}");
    let forged = stack.get("/both").bearer(&token).header("X-Forwarded-Client-Cert", forged);
    assert_eq!(outcome(&forged), (403, "workload_required".into()));
}

#[test]
fn a_certificate_bound_token_is_good_behind_its_own_certificate_only() {
    use base64::Engine as _;
    let stack = start();
    let own = ClientIdentity::named("https://client.test/own");
    let other = ClientIdentity::named("https://client.test/own");
    let sum = hex::decode(own.sha256()).expect("hexadecimal");
    let sum = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sum);
    let token = Token::person("alice").claim("cnf", json!({ "x5t#S256": sum })).mint();
    assert_eq!(stack.tls_as("GET", "/any", &own).bearer(&token).send().status, 200);
    let hash = format!("Hash={}", own.sha256());
    for (what, request) in [
        ("another certificate", stack.tls_as("GET", "/any", &other)),
        ("none", stack.tls("GET", "/any", None)),
        ("plain", stack.get("/any")),
        ("told by a header", stack.get("/any").header("X-Forwarded-Client-Cert", hash)),
    ] {
        let answer = request.bearer(&token).send();
        assert_eq!((answer.status, answer.reason().as_str()), (401, "proof_required"), "{what}");
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains("Bearer ") && challenge.contains("error=\"invalid_token\""), "{what}: {challenge}");
    }
}

#[test]
fn at_a_gateway_of_istio_a_certificate_bound_token_is_good_where_the_header_may_be_believed() {
    use base64::Engine as _;
    let own = ClientIdentity::named("https://client.test/own");
    let other = ClientIdentity::named("https://client.test/own");
    let sum = hex::decode(own.sha256()).expect("hexadecimal");
    let sum = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sum);
    let token = Token::person("alice").claim("cnf", json!({ "x5t#S256": sum })).mint();
    for (xfcc, status) in [("sanitize_set", 200), ("never", 401)] {
        let stack = builder().both_envoys().istio().set("/identity/workloads", json!({ "xfcc": xfcc })).start();
        for envoy in &stack.envoys {
            let ask = |shown: &ClientIdentity| Request::new(envoy.tls, "GET", "/any").tls_as(shown).bearer(&token);
            assert_eq!(ask(&own).send().status, status, "{xfcc}");
            let claimed = format!("Hash={};URI=https://client.test/own", own.sha256());
            let answer = ask(&other).header("X-Forwarded-Client-Cert", claimed).send();
            assert_eq!((answer.status, answer.reason().as_str()), (401, "proof_required"), "{xfcc}");
        }
    }
}

#[test]
fn behind_a_proxy_with_mutual_tls_each_client_is_itself_and_nobody_the_proxy() {
    use base64::Engine as _;
    const FRONT: &str = "spiffe://cluster.test/front";
    let xfcc = json!({"hops": {"count": 2, "by": FRONT}});
    let workloads = json!({"trust_domains": ["cluster.test"], "xfcc": xfcc});
    let stack = Builder::with_rules(RULES).set("/identity/workloads", workloads).appends().start();
    let front = Front::start(&stack, FRONT);
    let through = |path: &str| Request::new(front.tls, "GET", path);
    let (web, stranger) = (ClientIdentity::named(WEB), ClientIdentity::named(STRANGER));
    let (fine, nobody) = ((200, "allow".to_owned()), (401, "no_credentials".to_owned()));
    assert_eq!(outcome(&through("/workload").tls_as(&web)), fine);
    assert_eq!(outcome(&through("/workload").tls_as(&stranger)), nobody);
    assert_eq!(outcome(&through("/workload").tls(None)), nobody, "the proxy's certificate is not the client's");
    let written = format!("By={FRONT};Hash={};URI={WEB}", web.sha256());
    let forged = |request: Request| request.header("X-Forwarded-Client-Cert", written.clone());
    assert_eq!(outcome(&forged(through("/workload").tls(None))), nobody);
    for identity in [&stranger, &web] {
        assert_eq!(outcome(&forged(stack.tls_as("GET", "/workload", identity))), nobody, "past the proxy");
    }

    let bound = |to: &ClientIdentity| {
        let sum = hex::decode(to.sha256()).expect("hexadecimal");
        let sum = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sum);
        Token::person("alice").claim("cnf", json!({ "x5t#S256": sum })).mint()
    };
    let refused = (401, "proof_required".to_owned());
    let (own, proxys) = (bound(&web), bound(&front.identity));
    assert_eq!(outcome(&through("/any").tls_as(&web).bearer(&own)), fine);
    assert_eq!(outcome(&through("/any").tls_as(&stranger).bearer(&own)), refused);
    assert_eq!(outcome(&through("/any").tls_as(&web).bearer(&proxys)), refused);
    assert_eq!(outcome(&through("/any").tls(None).bearer(&proxys)), refused);
}

#[test]
fn a_key_bound_token_needs_one_fresh_proof_for_this_request() {
    let stack = start();
    let token = Token::person("alice").bound().mint();
    let url = "http://shop.example/any";
    let with = |proofs: &[&str]| {
        let request = stack.get("/any").header("Authorization", format!("DPoP {token}"));
        proofs.iter().fold(request, |request, proof| request.header("DPoP", *proof))
    };
    let once = proof(&token, "GET", url);
    assert_eq!(outcome(&with(&[&once])), (200, "allow".into()));
    assert_eq!(outcome(&with(&[&once])), (401, "proof_invalid".into()), "replayed");
    for (what, proofs) in [
        ("none", vec![]),
        ("two", vec![proof(&token, "GET", url), proof(&token, "GET", url)]),
        ("another method", vec![proof(&token, "POST", url)]),
        ("another path", vec![proof(&token, "GET", "http://shop.example/both")]),
        ("another host", vec![proof(&token, "GET", "http://evil.example/any")]),
        ("another token", vec![proof("x", "GET", url)]),
    ] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let answer = with(&proofs).send();
        assert_eq!((answer.status, answer.reason().as_str()), (401, "proof_invalid"), "{what}");
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("DPoP error=\"invalid_dpop_proof\""), "{what}: {challenge}");
    }
    let bearer = stack.get("/any").bearer(&token).send();
    assert_eq!((bearer.status, bearer.reason().as_str()), (401, "proof_required"));
    let challenge = bearer.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer ") && challenge.contains("DPoP algs="), "{challenge}");
    let spelled = proof(&token, "GET", "HTTP://SHOP.example:80/%61ny?x=1#y");
    assert_eq!(outcome(&with(&[&spelled])), (200, "allow".into()), "the same target in another spelling");
}

#[test]
fn a_client_of_dpop_is_told_under_dpop_what_is_wrong_with_its_token() {
    let stack = start();
    let ask = |token: &str, path: &str| {
        let proof = proof(token, "GET", &format!("http://shop.example{path}"));
        stack.get(path).header("Authorization", format!("DPoP {token}")).header("DPoP", proof).send()
    };
    let expired = Token::person("alice").bound().claim("iat", now() - 7200).claim("exp", now() - 3600);
    let answer = ask(&expired.mint(), "/any");
    assert_eq!((answer.status, answer.reason().as_str()), (401, "token_expired"));
    let revoked = Token::person("alice").bound();
    let named = json!({"kind": "KIND_TOKEN", "id": revoked.value("jti"), "reason": "test"});
    stack.countersign.admin("Revoke", &named).expect("it is written down");
    let revoked =
        eventually("the token is out", || Some(ask(&revoked.mint(), "/any")).filter(|answer| answer.status != 200));
    assert_eq!((revoked.status, revoked.reason().as_str()), (401, "token_revoked"));
    for answer in [answer, revoked] {
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("DPoP error=\"invalid_token\""), "{challenge}");
        assert!(challenge.contains("algs=\""), "{challenge}");
    }
}

#[test]
fn a_proof_must_carry_our_nonce_where_one_is_asked_for() {
    let stack = builder().set("/identity/dpop", json!({"nonce": true})).start();
    let token = Token::person("alice").bound().mint();
    let ask = |nonce: Option<&str>| {
        let proof = proof_with_nonce(&token, "GET", "http://shop.example/any", nonce);
        stack.get("/any").header("Authorization", format!("DPoP {token}")).header("DPoP", proof)
    };
    for (what, nonce) in [("none", None), ("somebody else's", Some("MTIzNDU2Nzg5MDEyMzQ1Njc4OTA"))] {
        let answer = ask(nonce).send();
        assert_eq!((answer.status, answer.reason().as_str()), (401, "nonce_required"), "{what}: {answer:?}");
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("DPoP error=\"use_dpop_nonce\""), "{what}: {challenge}");
        assert_eq!(answer.json()["action_required"], "authenticate");
        let given = answer.header("dpop-nonce").expect("a nonce to use");
        assert_eq!(outcome(&ask(Some(given))), (200, "allow".into()), "{what}: with the nonce it is fine");
    }
}

#[test]
fn a_foreign_credential_with_commas_is_not_taken_for_two() {
    let stack = start();
    for (value, reason) in [
        ("Digest username=\"a\", realm=\"b\"", "no_credentials"),
        ("Bearer {\"payload\":\"a\",\"protected\":\"b\",\"signature\":\"c\"}", "token_invalid"),
    ] {
        let request = stack.get("/any").header("Authorization", value);
        let answer = request.send();
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert_eq!((answer.status, answer.reason().as_str()), (401, reason), "{value}");
        assert_eq!(challenge.contains("error="), reason == "token_invalid", "{value}: {challenge}");
    }
}

#[test]
fn with_dpop_off_whatever_follows_its_scheme_is_answered_as_no_credentials() {
    let stack = builder().set("/identity/dpop", json!({"enabled": false})).start();
    for value in ["DPoP {}", "DPoP", "DPoP a.b.c"] {
        let answer = stack.get("/any").header("Authorization", value).send();
        assert_eq!((answer.status, answer.reason().as_str()), (401, "no_credentials"), "{value}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"countersign\""), "{value}");
    }
}
