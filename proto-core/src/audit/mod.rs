//! One record per executed statement, and per session start, end and refusal.

pub mod mask;
