//! Second implementations, written from the profile (THREATS.md section 5) alone: slow, obvious, and sharing no code with
//! the first. Where the two disagree, one of them is wrong.

pub mod claims;
pub mod json;
pub mod path;
