//! What the process tells of itself: audit records, traces, logs. Numbers stay with their modules (`domain::metric`).
//!
//! Nothing here may hold up a request, and nothing here may ever write a token or a secret.

pub mod audit;
pub mod explain;
pub mod log;
mod settings;
pub mod shadow;
pub mod trace;

pub use settings::{LogSettings, Settings, TraceSettings};
