//! The decision: a pure function of facts and rules. No clock, no I/O, no globals, nothing that waits.
//!
//! Every rule that speaks against a request adds a [`Finding`]; the first [`Class`] with a member answers, its first
//! finding names the reason. Allow needs a positive [`Grant`] *and* no finding, so an empty result never allows.
//! [`decide`] judges and mints nothing; only [`assess`] and [`authorize`] mint a [`Permit`], from [`LiveFacts`] alone.

mod authorize;
pub mod cases;
mod conditions;
mod evidence;
mod guards;
mod inputs;
mod judge;
mod notices;
mod outcome;
mod permission;
pub mod posture;
pub mod reason;
mod scene;
mod sessions;
mod step_up;
mod target;
mod verification;

pub use authorize::{LiveFacts, Outcome, Pending, Permit, assess, authorize};
pub use evidence::evidence;
pub use inputs::authenticated_at;
pub use judge::decide;
pub use outcome::{
    Decision, Detail, DeviceProblem, Finding, Findings, Grant, PolicyLimits, QuotaWanted, Risk, SessionEffect, StepUp,
    StepUpLevel, Trust, Verdict,
};
pub use reason::{ActionRequired, Class, Reason};
pub use scene::known_device;
pub use target::{Needs, Target};
