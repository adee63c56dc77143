//! Who is asking, proved: tokens, key sets, proofs of possession, certificates, introspection.
//!
//! [`Authenticator`] is the only door. It answers with a [`Fact`](crate::domain::Fact): a verified identity, a refusal,
//! nothing there, or "could not look". It never lets a token through that it did not verify itself, and never says
//! "invalid" where it merely could not know. A token seen before is answered from memory without parking.

//!
//! The way of a token: [`credentials`] (which one is it) → `cache` → `flights` and `pool` (once, in place or on another thread) →
//! `jws`, `keys`, `verify`, `claims` → `cache` → proof of possession (`dpop`, `peer`).

pub mod algorithm;
mod authenticator;
mod cache;
mod challenges;
mod claims;
mod counters;
pub mod credentials;
mod detail;
mod dpop;
mod entry;
mod fetch;
mod flights;
mod introspection;
mod issuer;
mod json;
mod jwk;
mod jws;
mod key_set;
mod keys;
mod life;
mod methods;
pub mod mint;
mod outage;
mod peer;
mod pool;
#[doc(hidden)]
pub mod probe;
mod search;
pub mod settings;
mod signer;
mod status_list;
mod text;
mod turns;
mod verify;
mod workload;
pub mod xfcc;

pub use algorithm::Algorithm;
pub use authenticator::{Authentication, Authenticator, Error, KeySetState};
pub use challenges::Challenges;
pub use counters::Counters;
pub use credentials::{Credentials, HeaderValues};
pub use detail::Detail;
pub use entry::TokenEntry;
pub use fetch::{Answer, FetchProblem, Fetcher, MAX_BODY, Outgoing};
pub use jwk::KeyProblem;
pub use jws::MAX_TOKEN;
pub use key_set::KeySetProblem;
pub use peer::spiffe_trust_domain;
pub use settings::{IssuerSettings, KeySetSettings, Settings, check_address, key_file};
pub use signer::{Signed, Signer, SignerProblem, SignerSettings};
