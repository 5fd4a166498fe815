//! Help for tests, also for those of other people (feature `testing`).

pub mod fuzz;
pub mod tokens;
