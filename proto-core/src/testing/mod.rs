//! Help for tests, also for those of other people (feature `testing`).

#[cfg(feature = "driver")]
pub mod conformance;
pub mod fuzz;
pub mod tokens;
