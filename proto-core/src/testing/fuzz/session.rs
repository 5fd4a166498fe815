//! A whole session.

/// Follows.
pub fn session(_data: &[u8]) {}
