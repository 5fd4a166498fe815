//! The right to use one server connection.

use std::fmt;

/// One server connection, from its opening to its end. A value is never used for a second connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(pub(crate) u64);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The right to use the server connection of one slot, until it is returned.
///
/// Only [`super::Pools`] makes one, and it cannot be copied. It goes back by `handle_release` or
/// `handle_open_failed`; dropping it anywhere else would lose a connection for good, so it complains loudly.
#[must_use = "a lease that is not returned blocks a server connection for ever"]
pub struct Lease {
    slot: SlotId,
    generation: u32,
    settled: bool,
}

impl Lease {
    pub(super) const fn new(slot: SlotId, generation: u32) -> Self {
        Self { slot, generation, settled: false }
    }

    /// The connection that it is about.
    #[must_use]
    pub const fn slot(&self) -> SlotId {
        self.slot
    }

    /// How often this connection had been leased before: tells this lease from earlier ones of the same slot.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Ends the lease in order.
    pub(super) fn settle(mut self) -> (SlotId, u32) {
        self.settled = true;
        (self.slot, self.generation)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({}#{})", self.slot, self.generation)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.settled {
            log::error!("{self:?} was dropped and not returned: its server connection is lost to the pool");
            // Not a second panic on top of one that unwinds through the holder.
            debug_assert!(std::thread::panicking(), "{self:?} was dropped and not returned");
        }
    }
}
