//! The rules: what they say (`model`), whether they fit together (`build`), and the snapshot in force (`Rules`). Pure.
//!
//! Never reads a file: whoever loads hands the text in, and gets rules or every problem of it.

pub mod attribute;
mod build;
mod callers;
mod load;
pub mod model;
mod roles;
mod route;
mod rules;

pub use attribute::{AttributePolicies, AttributeVerdict, Question, SCHEMA as CEDAR_SCHEMA, Untold};
pub use build::{List, Part, Problem};
pub use load::{Loaded, OF_CASES, SourceFile, country_warning, load};
pub use model::{Options, RateLimit, RateScope, Restrictions, RuleSet};
pub use route::{PatternProblem, Route};
pub use rules::Rules;
