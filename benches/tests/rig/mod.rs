//! What both tests of the steady state need: an allocator that counts, a runtime that counts, scripted peers.

pub(crate) mod counting;
pub(crate) mod memory;
pub(crate) mod messages;
pub(crate) mod proxy;
