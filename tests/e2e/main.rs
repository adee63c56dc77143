//! The whole service through real Envoys, a file for each behaviour, and the everyday situations.

#![expect(unreachable_pub, reason = "support is written as other test programs could use it")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../ordinary/mod.rs"]
mod ordinary;
#[path = "../support/mod.rs"]
mod support;

mod administration;
mod answers;
mod behavior;
mod demo;
mod devices;
mod doors;
mod exhaustion;
mod grpc;
mod guards;
mod hostile;
mod identities;
mod lifecycle;
#[path = "../location/mmdb.rs"]
#[allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "shared with another test program")]
mod mmdb;
mod policies;
mod quotas;
mod redis;
mod requests;
mod rolling;
mod samples;
mod secrets;
mod sessions;
mod shadow;
mod signals;
mod spoofing;
mod status;
mod streams;
mod tcp;
mod telling;
mod traces;
mod transmitter;
