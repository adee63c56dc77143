//! `docs/issuers.md`: its configurations load as they stand, and tokens with the claims that it shows verify under them.

use std::fs;

use countersign::{
    config::{self, Environment},
    domain::SubjectKind::{Person, Service},
    identity::IssuerSettings,
};
use serde_json::{Value, json};

use crate::rig::{NOW, RSA, Rig, changed};

const PAGE: &str = include_str!("../../docs/issuers.md");

enum Block {
    Settings(Box<IssuerSettings>),
    Claims(Value),
}

/// The blocks of the page, in their order.
fn blocks() -> Vec<Block> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("countersign.yaml");
    let mut found = Vec::new();
    for part in PAGE.split("\n```").skip(1).step_by(2) {
        let (kind, text) = part.split_once('\n').unwrap();
        if kind == "json" {
            found.push(Block::Claims(serde_json::from_str(text).unwrap()));
            continue;
        }
        fs::write(&file, text).unwrap();
        let (config, warnings) =
            config::load(&file, &Environment::new()).unwrap_or_else(|found| panic!("{text}: {found:#?}"));
        assert!(warnings.iter().all(|warning| !warning.path.starts_with("identity")), "{text}: {warnings:#?}");
        let [issuer] = <[IssuerSettings; 1]>::try_from(config.identity.issuers).unwrap();
        found.push(Block::Settings(Box::new(issuer)));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_about_issuers_shows_is_read_as_it_says() {
    // Kind, roles, whether a second factor was used, the id where it is not the token's hash.
    let expected: [(_, &[&str], _, _); 10] = [
        (Person, &["clerk", "offline_access"], true, "onrtac:3f0d2c9e-7b1a"),
        (Service, &["reader"], false, "trrtcc:77aa01"),
        (Person, &["clerk"], true, "73WakrfVbNJBaAmhQtEeDv"),
        (Service, &[], false, "9TqkzUa2"),
        (Person, &["clerk"], false, "fqiBqXLPj0eQa82S-IYFAA"),
        (Service, &["reader"], false, "zzzBqXLPj0eQa82S-IYFAA"),
        (Person, &["clerk"], true, "fqiBqXLPj0eQa82S-IYFAA"),
        (Person, &["clerk"], true, "AT.MNAoEQ_jbKqoinrQo1D0"),
        (Service, &["reader"], false, "AT.service"),
        (Service, &[], false, ""),
    ];
    let (mut settings, mut read) = (None, Vec::new());
    for block in blocks() {
        match block {
            Block::Settings(issuer) => settings = Some(issuer),
            Block::Claims(claims) => {
                let issuer = settings.clone().unwrap();
                let rig = Rig::with(|all| {
                    let jwks = all.issuers[0].jwks.clone();
                    all.issuers = vec![IssuerSettings { jwks, ..*issuer }];
                })
                .await;
                let claims = changed(claims, json!({ "iat": NOW - 10, "exp": NOW + 600 }));
                let token = RSA.sign(&json!({ "alg": "RS256", "kid": "rsa", "typ": "JWT" }), &claims).unwrap();
                read.push((rig.identity(&token).await, token));
            }
        }
    }
    assert_eq!(read.len(), expected.len());
    for ((identity, token), (kind, roles, strong, id)) in read.iter().zip(expected) {
        let told = format!("{identity:#?}");
        assert_eq!(identity.kind, kind, "{told}");
        assert!(identity.roles.iter().map(countersign::domain::Role::as_str).eq(roles.iter().copied()), "{told}");
        assert_eq!(identity.methods.is_multi_factor(), strong, "{told}");
        let hash = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()));
        assert_eq!(identity.token_id.as_str(), if id.is_empty() { &hash } else { id }, "{told}");
    }
}
