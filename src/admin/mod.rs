//! The admin API (gRPC): revocations, devices, explanations, status; for people, scripts and our own command line.
//!
//! Off loopback it listens only where a client certificate or a token with a role is asked for. Every write needs one of
//! them, is tried at most once, and leaves an audit record, also when it was refused. What it administers is behind the
//! traits in [`ports`]; nothing here knows a store.

mod access;
mod behavior;
mod connections;
mod devices;
mod fleet;
pub mod ports;
mod server;
mod service;
mod sessions;
mod settings;
mod token;

pub use self::{
    access::{Access, Counters},
    fleet::Fleet,
    server::{Error, Port},
    service::Administration,
    sessions::{SessionDesk, counts},
    settings::{ClientSettings, Role, Settings, TokenSettings},
    token::{MadeToken, find_token, holds_token, make_token, read_token, state_dir},
};
