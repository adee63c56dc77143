//! The statistical risk model: what is likelier, this request from its user or from an attacker? Pure.
//!
//! One request becomes an [`Event`]. [`assess`] compares it with the subject's [`Profile`], with everyone's
//! [`Globals`] and with the session's [`Binding`]; what comes out is [`Evidence`]: nats per named term, three
//! hypotheses, one score. [`learn`] then teaches what may be taught and returns it as [`Learned`], which other
//! replicas merge. [`Engine`] ties these together within bounded memory. `docs/risk.md` explains the model.

pub mod action;
pub mod addresses;
pub mod agent;
pub mod assess;
pub mod binding;
pub mod bounded;
pub mod calibrate;
pub mod delta;
pub mod engine;
pub mod epoch;
pub mod event;
pub mod evidence;
pub mod familiar;
pub mod globals;
pub mod hash;
pub mod learn;
pub mod model;
pub mod profile;
pub mod shared;
pub mod slots;
pub mod summary;
pub mod terms;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use self::{
    action::Action,
    agent::{Agent, Family},
    assess::{Scored, assess},
    binding::Binding,
    calibrate::Lines,
    engine::{Advice, Capacity, Engine},
    event::{Event, Key},
    evidence::{Evidence, Hypothesis, Reason, Term},
    familiar::Familiar,
    globals::Globals,
    learn::{Learned, Outcome, Past, learn},
    model::Model,
    profile::Profile,
    summary::{ACQUAINTED, behavior_score, summary},
};
