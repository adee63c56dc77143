//! Before anything is measured: what must be refused is refused from a warm cache. Speed that comes from not looking
//! would show here.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::json;

use super::{
    compare::enrol,
    load::{self, Load, Plan},
    redis::Redis,
    request::{self, DEVICE, Issuer},
    servers::{self, Contestant, Scope, Store},
    support::process::eventually,
};

/// Proves it of both stores; panics where a request is allowed that must not be.
pub fn run(folder: &Path, issuer: &Issuer, redis: &Redis) -> io::Result<()> {
    for (name, store) in [("proof, embedded", Store::Embedded), ("proof, Redis", Store::Redis(redis))] {
        let server = servers::countersign(folder, name, Scope::Everything, store, &issuer.key_set());
        enrol(&server);
        let home = servers::home(folder, name);
        let took = [
            ("revoked", revoked(&server, issuer)?),
            ("expired", expired(&server, issuer)?),
            ("re-ruled", reruled(&server, issuer)?),
            ("re-deviced", redeviced(&server, issuer)?),
            ("re-keyed", rekeyed(&server, issuer, &home)?),
        ];
        for (what, took) in took {
            println!("{name}: a warm request is refused once {what}, {} ms after the change", took.as_millis());
        }
    }
    Ok(())
}

fn revoked(server: &Contestant, issuer: &Issuer) -> io::Result<Duration> {
    let warm = warm(server, issuer, 1_000_001, 3600)?;
    let claims = request::claims(1_000_001, 3600);
    server.admin("Revoke", &json!({"kind": "KIND_TOKEN", "id": claims["jti"], "reason": "bench"}));
    refused(server, &warm, Instant::now())
}

fn expired(server: &Contestant, issuer: &Issuer) -> io::Result<Duration> {
    let ends = request::now() + 3;
    let warm = warm(server, issuer, 1_000_002, 3)?;
    eventually("the token has expired", || (request::now() >= ends).then_some(()));
    refused(server, &warm, Instant::now())
}

/// The resource asks for another permission.
fn reruled(server: &Contestant, issuer: &Issuer) -> io::Result<Duration> {
    let warm = warm(server, issuer, 1_000_003, 3600)?;
    let rules = include_str!("rules/everything.yaml");
    server.server().write_rules(&rules.replace("permission: \"orders:read\"", "permission: \"orders:shred\""));
    let took = refused(server, &warm, Instant::now())?;
    server.server().write_rules(rules);
    eventually("the rules are back", || (ask(server, &warm).ok()?.allowed == 1).then_some(()));
    Ok(took)
}

fn redeviced(server: &Contestant, issuer: &Issuer) -> io::Result<Duration> {
    let warm = warm(server, issuer, 1_000_004, 3600)?;
    server.admin("PutDevice", &json!({"device": {"id": DEVICE, "status": "suspended"}}));
    let took = refused(server, &warm, Instant::now())?;
    enrol(server);
    Ok(took)
}

/// The issuer's key set no longer holds the key.
fn rekeyed(server: &Contestant, issuer: &Issuer, home: &Path) -> io::Result<Duration> {
    let warm = warm(server, issuer, 1_000_005, 3600)?;
    let others = countersign::identity::mint::key_set([&issuer.es256, &issuer.eddsa]);
    fs::write(home.join("jwks.json"), others)?;
    refused(server, &warm, Instant::now())
}

/// A message whose token is in memory: allowed three times over.
fn warm(server: &Contestant, issuer: &Issuer, number: u64, life: u64) -> io::Result<Bytes> {
    let token = issuer.rs256.token(&request::claims(number, life)).expect("a token can be signed");
    let message = request::check(&token);
    for _ in 0..3 {
        let load = ask(server, &message)?;
        assert_eq!(load.allowed, 1, "allowed while nothing speaks against it (the audit files say why not): {load:?}");
    }
    Ok(message)
}

/// Asks until it is refused; fails when it still is not after a minute.
fn refused(server: &Contestant, message: &Bytes, since: Instant) -> io::Result<Duration> {
    eventually("the request is refused", || (ask(server, message).ok()?.denied == 1).then_some(()));
    let took = since.elapsed();
    let load = ask(server, message)?;
    assert_eq!(load.denied, 1, "and stays refused: {load:?}");
    Ok(took)
}

fn ask(server: &Contestant, message: &Bytes) -> io::Result<Load> {
    let plan = Plan { connections: 1, streams: 1, time: None, rate: None };
    load::run(server.address, plan, &load::each(vec![message.clone()]))
}
