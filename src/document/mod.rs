//! Files that people write: read with the position of every key and value, so that each problem names its line.
//!
//! [`Document::parse`] makes a tree of [`Node`]s from YAML; [`Node::read`] makes typed values from it and reports *every*
//! problem, not the first; [`Diagnostic`] is how a problem is told. Used by `config` and by the loader of rules.
//! Pure: the caller brings the text. Nothing here opens a file.

mod diagnostic;
mod error;
mod gaps;
mod node;
mod parse;
mod read;
mod render;
mod secrets;
mod suggest;

pub use diagnostic::{Diagnostic, Mark, Problem, Severity, Source};
pub use node::{Document, Entry, Node, Value, key_step};
pub use render::{render, render_all};
pub use suggest::closest;

#[cfg(test)]
mod tests;
