//! Rows H1 to H4, H6 and H12 as far as identity decides them, and workloads.

use countersign::{
    domain::{CredentialProblem, Fact, Possession, SubjectKind, UnixTime},
    identity::{Credentials, Detail, HeaderValues, settings::XfccTrust},
};

use crate::{
    possession::encoded,
    rig::{Outcome, Rig, outcome},
};

const SEVERAL: Outcome = Outcome::Refused(CredentialProblem::Ambiguous, Detail::SeveralCredentials);

#[tokio::test(flavor = "multi_thread")]
async fn h01_two_credentials_are_never_narrowed_to_one() {
    let rig = Rig::new().await;
    let good = format!("Bearer {}", rig.token());
    for other in [good.as_str(), "Basic eDp5", "Bearer x", ""] {
        for lines in [[good.as_str(), other], [other, good.as_str()]] {
            let mut authorization = HeaderValues::NONE;
            lines.iter().for_each(|line| authorization.push(line.as_bytes()));
            let credentials = Credentials { authorization, ..Credentials::default() };
            assert_eq!(rig.ask(&credentials).await, SEVERAL, "two lines, {other:?}");
            assert_eq!(rig.authorization(&lines.join(",")).await, SEVERAL, "joined, {other:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h02_the_scheme_is_compared_without_case() {
    let rig = Rig::new().await;
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        assert!(rig.authorization(&format!("{scheme} {}", rig.token())).await.is_allowed(), "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h03_anything_but_one_bearer_token_is_refused() {
    let rig = Rig::new().await;
    let token = rig.token();
    for value in [
        format!("Bearer \"{token}\""),
        format!("Bearer Bearer {token}"),
        "Bearer".into(),
        "Bearer ".into(),
        format!("Bearer {token} x"),
        format!("Bearer {token};x"),
        format!("Bearer {token}\u{0}"),
        format!("Bearer {token}="),
    ] {
        let outcome = rig.authorization(&value).await;
        assert!(matches!(outcome, Outcome::Refused(CredentialProblem::Invalid, _)), "{value:?}: {outcome:?}");
    }
    for value in [
        format!("Bearer\t{token}"),
        format!("Bearer\u{a0}{token}"),
        format!("Bearer: {token}"),
        String::new(),
        "Basic eDp5".into(),
        "Negotiate".into(),
        token.clone(),
        format!("Bearer%20{token}"),
        format!("Token {token}"),
        format!("JWT {token}"),
        format!("bearer\r\n {token}"),
    ] {
        let foreign = Outcome::Refused(CredentialProblem::Unsupported, Detail::UnknownScheme);
        assert_eq!(rig.authorization(&value).await, foreign, "{value:?}");
    }
    let octets = [b"Bearer ".as_slice(), &[0xff, 0xfe]].concat();
    let credentials = Credentials { authorization: HeaderValues::one(&octets), ..Credentials::default() };
    assert!(rig.ask(&credentials).await.is_refused(), "octets that are no text");
}

#[tokio::test(flavor = "multi_thread")]
async fn h04_a_token_in_the_query_is_none_and_beside_a_header_malformed() {
    let rig = Rig::new().await;
    let (token, value) = (rig.token(), format!("Bearer {}", rig.token()));
    let query = format!("a=1&access_token={token}");
    let only = Credentials { query: Some(query.as_bytes()), ..Credentials::default() };
    assert_eq!(rig.ask(&only).await, Outcome::Nothing);
    let both = Credentials { authorization: HeaderValues::one(value.as_bytes()), ..only };
    assert_eq!(rig.ask(&both).await, SEVERAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credentials_are_absent_and_ask_nobody() {
    let rig = Rig::new().await;
    let before = rig.issuer.all_hits();
    let answer = rig.authenticate(&Credentials::default()).await;
    assert_eq!(outcome(&answer), Outcome::Nothing);
    assert_eq!(answer.workload, Fact::Absent);
    assert_eq!(rig.issuer.all_hits(), before);
}

const ID: &str = "spiffe://td.example/ns/shop/sa/cart";

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_of_a_trusted_domain_is_an_identity_by_itself() {
    let rig = Rig::with(|settings| {
        settings.workloads.trust_domains = vec!["td.example".into()];
        settings.workloads.roles.insert("spiffe://td.example/ns/shop/*".into(), vec!["shop".into()]);
    })
    .await;
    let answer = rig.authenticate(&Credentials { principal: ID.as_bytes(), ..Credentials::default() }).await;
    assert_eq!(outcome(&answer), Outcome::Allowed(Some(Possession::Certificate)));
    let identity = &answer.entry.unwrap().identity;
    assert_eq!((identity.subject.as_str(), identity.kind), (ID, SubjectKind::Service));
    assert!(identity.issue_unstated, "no certificate says");
    assert_eq!(identity.issuer.as_str(), "spiffe://td.example");
    assert_eq!(identity.roles.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shop"]);
    for other in
        ["spiffe://td.example.evil/x", "spiffe://other/x", "CN=td.example", "spiffe://td.example", "td.example"]
    {
        let credentials = Credentials { principal: other.as_bytes(), ..Credentials::default() };
        assert_eq!(rig.ask(&credentials).await, Outcome::Nothing, "{other}");
    }
    // A bad token is not rescued by a good certificate.
    let bad = Credentials {
        principal: ID.as_bytes(),
        authorization: HeaderValues::one(b"Bearer a.b.c"),
        ..Credentials::default()
    };
    assert!(rig.ask(&bad).await.is_refused());
}

#[tokio::test(flavor = "multi_thread")]
async fn h06_a_forged_client_certificate_header_makes_no_workload() {
    let forged = format!("By=spiffe://td.example/edge;URI={ID}");
    let credentials = Credentials { xfcc: HeaderValues::one(forged.as_bytes()), ..Credentials::default() };
    let never = Rig::with(|settings| settings.workloads.trust_domains = vec!["td.example".into()]).await;
    assert_eq!(never.authenticate(&credentials).await.workload, Fact::Absent);
    assert_eq!(never.ask(&credentials).await, Outcome::Nothing);
    let trusting = Rig::with(|settings| settings.workloads.xfcc = XfccTrust::SanitizeSet).await;
    let workload = trusting.authenticate(&credentials).await.workload;
    assert_eq!(workload.value().map(|workload| &*workload.principal), Some(ID));
    let two = format!("{forged},{forged}");
    let credentials = Credentials { xfcc: HeaderValues::one(two.as_bytes()), ..Credentials::default() };
    assert_eq!(trusting.authenticate(&credentials).await.workload, Fact::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn h06_a_name_of_a_certificate_that_is_no_uri_makes_no_workload_of_a_trust_domain() {
    let rig = Rig::with(|settings| {
        settings.workloads.trust_domains = vec!["td.example".into()];
        settings.workloads.xfcc = XfccTrust::SanitizeSet;
    })
    .await;
    let signed = |name| {
        let mut asked = rcgen::CertificateParams::default();
        asked.subject_alt_names = vec![name];
        encoded(&asked.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()).0
    };
    let (dns, uri) = (ID.try_into().unwrap(), ID.try_into().unwrap());
    let (dns, uri) = (signed(rcgen::SanType::DnsName(dns)), signed(rcgen::SanType::URI(uri)));
    let shown = |certificate| Credentials { principal: ID.as_bytes(), certificate, ..Credentials::default() };
    let identity = rig.authenticate(&shown(uri.as_bytes())).await.entry.unwrap().identity.clone();
    assert!(!identity.issue_unstated && identity.issued_at > UnixTime::EPOCH, "it is as old as its certificate");
    for certificate in [&*dns, "garbage"] {
        assert_eq!(rig.ask(&shown(certificate.as_bytes())).await, Outcome::Nothing, "{certificate}");
    }
    for header in [format!("By=x;URI=;DNS={ID}"), format!("By=x;URI=;DNS=x;URI={ID}"), format!("By=x;Subject={ID}")] {
        let credentials = Credentials { xfcc: HeaderValues::one(header.as_bytes()), ..Credentials::default() };
        assert_eq!(rig.ask(&credentials).await, Outcome::Nothing, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h06_behind_a_proxy_with_mutual_tls_the_element_named_is_the_peer_or_nobody_is() {
    const FRONT: &str = "spiffe://td.example/front";
    let rig = |count| {
        Rig::with(move |settings| {
            settings.workloads.trust_domains = vec!["td.example".into()];
            settings.workloads.xfcc = XfccTrust::Hops { count, by: FRONT.into() };
        })
    };
    let (appending, forwarding) = (rig(2).await, rig(1).await);
    let client = format!("By={FRONT};Hash={};URI={ID}", "ab".repeat(32));
    let front = format!("By=spiffe://td.example/inner;Hash={};URI={FRONT}", "cd".repeat(32));
    let anyone = format!("By={FRONT};URI=spiffe://td.example/anyone");
    let workload = async |rig: &Rig, principal: &str, header: &str| {
        let xfcc = if header.is_empty() { HeaderValues::NONE } else { HeaderValues::one(header.as_bytes()) };
        let credentials = Credentials { principal: principal.as_bytes(), xfcc, ..Credentials::default() };
        let answer = rig.authenticate(&credentials).await;
        let peer = answer.workload.value().map(|workload| (workload.principal.to_string(), workload.is_trusted()));
        let expected = if peer.as_ref().is_some_and(|(_, trusted)| *trusted) {
            Outcome::Allowed(Some(Possession::Certificate))
        } else {
            Outcome::Nothing
        };
        assert_eq!(outcome(&answer), expected, "{header}");
        peer.map(|(principal, _)| principal)
    };
    let is = |principal: &str| Some(principal.to_owned());
    assert_eq!(workload(&appending, FRONT, &format!("{client},{front}")).await, is(ID));
    assert_eq!(workload(&appending, FRONT, &format!("{anyone},{client},{front}")).await, is(ID), "from the right");
    assert_eq!(workload(&forwarding, FRONT, &client).await, is(ID));
    let unnamed = client.replace(&format!("By={FRONT};"), "");
    let no_uri = client.replace(&format!(";URI={ID}"), "");
    let of_another = client.replace(FRONT, "spiffe://td.example/other");
    for (what, principal, header) in [
        ("no header", FRONT, String::new()),
        ("no certificate of the client", FRONT, front.clone()),
        ("malformed", FRONT, format!("{client},{front};Hash=zz")),
        ("without By", FRONT, format!("{unnamed},{front}")),
        ("without a name", FRONT, format!("{no_uri},{front}")),
        ("written by another", FRONT, format!("{of_another},{front}")),
        ("a header that no proxy added to", FRONT, format!("{anyone},{client}")),
        ("another proxy calls", "spiffe://td.example/other", format!("{client},{front}")),
        ("a client that calls directly", ID, format!("{anyone},{}", front.replace(FRONT, ID))),
        ("the same without a header", ID, String::new()),
        ("nobody's certificate", "", format!("{client},{front}")),
    ] {
        assert_eq!(workload(&appending, principal, &header).await, None, "{what}");
    }
    assert_eq!(workload(&forwarding, FRONT, &format!("{client},{front}")).await, None, "never the proxy itself");
}
