//! Protocol messages: what tonic generates for the admin API, and Envoy's Check read without copying.
//!
//! Nothing here decides anything. The descriptor sets serve reflection.

pub mod check;
mod protobuf;
pub mod writer;

pub use protobuf::Malformed;

#[allow(
    clippy::all,
    clippy::unwrap_used,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}

/// Messages and services of `countersign.admin.v1`, generated at build time.
pub use generated::countersign::admin::v1 as admin;

/// Messages of `envoy.service.auth.v3` with owned fields: for the admin API and for tests, never for the hot path, which
/// walks the bytes instead ([`check`]).
pub use generated::envoy::service::auth::v3 as owned;

/// Encoded `FileDescriptorSet` of `countersign.admin.v1`.
pub const ADMIN_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/admin.bin"));

/// Encoded `FileDescriptorSet` of `envoy.service.auth.v3`, as far as Countersign reads and fills it.
pub const AUTHZ_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/external_auth.bin"));
