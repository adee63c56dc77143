//! Countersign: an Envoy external-authorization service. Zero trust, verified on every request, from memory.
//!
//! Two halves. *Gathering* is async and touches the world; every stage returns a [`domain::Fact`]. *Deciding* is a pure
//! function of facts and rules. The main path: `main` → `app` → `extauthz` → `pipeline` → `decision::decide` → response.
//!
//! Layers, top to bottom; an arrow may only point down, and inside a layer there are none (`tests/architecture.rs`):
//!
//! ```text
//!  8  cli            7  app            6  config
//!  5  extauthz · admin · signals · ops · replay · idp · enrollment
//!  4  pipeline
//!  3  identity · revocation · device · notice · location · behavior · session · quota · assertion · telemetry
//!  2  decision
//!  1  risk · trust · policy · segment · store · clock · tls · private · stamp
//!  0  domain · document · wire
//! ```

pub mod app;
pub mod cli;
pub mod config;

pub mod admin;
pub mod enrollment;
pub mod extauthz;
pub mod ops;
pub mod replay;
pub mod signals;

pub mod pipeline;

pub mod assertion;
pub mod behavior;
pub mod device;
pub mod identity;
pub mod location;
pub mod notice;
pub mod quota;
pub mod revocation;
pub mod session;
pub mod telemetry;

pub mod decision;

pub mod clock;
pub mod policy;
pub mod private;
pub mod risk;
pub mod segment;
pub mod stamp;
pub mod store;
pub mod tls;
pub mod trust;

pub mod document;
pub mod domain;
pub mod wire;
