//! Help for tests, also for those of other people (feature `testing`).

pub mod tokens;
