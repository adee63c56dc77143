//! The decision: everyday cases, one behaviour each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "decision/world.rs"]
mod world;

#[path = "decision/basics.rs"]
mod basics;

#[path = "decision/tightening.rs"]
mod tightening;

#[path = "decision/limits.rs"]
mod limits;

#[path = "decision/rules_files.rs"]
mod rules_files;

#[path = "decision/attributes.rs"]
mod attributes;

#[path = "decision/golden.rs"]
mod golden;

#[path = "decision/broken.rs"]
mod broken;
