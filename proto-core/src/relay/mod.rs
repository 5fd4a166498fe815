//! What stands between two logged-in peers.

pub mod statements;
