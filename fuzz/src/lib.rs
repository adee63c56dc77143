//! What each fuzz target does with an input, and what must hold afterwards. No fuzzer is needed to run it:
//! `tests/fuzz_targets.rs` includes this folder, feeds it the corpus and random variants, and runs with every `make test`.
//!
//! A target panics when something that must hold does not. It never looks at what a refusal says, only that it is one.

pub mod check;
pub mod key_set;
pub mod path;
pub mod policy;
pub mod record;
pub mod reference;
pub mod token;
pub mod xfcc;

/// Takes an input; panics when something that must hold does not.
pub type Target = fn(&[u8]);

/// Every target: its name is that of its file, its corpus, and its dictionary.
pub const TARGETS: [(&str, Target); 7] = [
    ("token", token::run),
    ("key_set", key_set::run),
    ("check", check::run),
    ("path", path::run),
    ("xfcc", xfcc::run),
    ("record", record::run),
    ("policy", policy::run),
];
