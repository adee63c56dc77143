//! What Envoy talks to: `envoy.service.auth.v3.Authorization/Check` on one current-thread runtime per core.
//!
//! Every Check under Envoy's own limits is answered by a CheckResponse, never by a gRPC error: Envoy's
//! `failure_mode_allow` can turn an error into an allow, an answer it cannot.

mod connection;
mod message;
mod others;
mod places;
pub mod response;
mod server;
mod service;
mod settings;
mod worker;

pub use server::{Error, Place, Server};
pub use settings::{AnswerSettings, MetadataChoice, Settings};
