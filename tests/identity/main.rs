//! Authentication against a real issuer over HTTP: key sets and their outages, caches and clocks, headers, proofs of
//! possession, certificates, introspection, status lists.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod caches;
mod headers;
mod issuers;
mod key_sets;
mod log;
mod opaque;
mod possession;
#[path = "../support/redis.rs"]
mod redis;
mod rig;
