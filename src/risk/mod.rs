//! Risk of a request, 0 to 10, and its reasons. Pure.
//!
//! Two models: [`fixed`], a table of points that anybody can check by hand, and [`statistical`], which learns what is
//! usual. Which of them counts is a setting; `decision` asks, nobody else.

pub mod fixed;
pub mod statistical;
