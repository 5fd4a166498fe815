//! What is due when, in one table.

use std::collections::BTreeSet;

use super::lease::SlotId;
use super::one::{PoolId, Ticket};
use crate::time::{Deadline, Tick, Timer};

/// What an entry of the table is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// Tell a waiter that it waits.
    Notice(PoolId, Ticket),
    /// The reserve is there for a waiter.
    Reserve(PoolId, Ticket),
    /// Refuse a waiter.
    Wait(PoolId, Ticket),
    /// Close an idle connection.
    Retire(SlotId),
    /// End a pool's back-off, and then its caution.
    Retry(PoolId),
    /// See whether an idle connection should be reset ahead of who comes next.
    Clean(PoolId),
    /// See whether a pool is to be forgotten.
    Forget(PoolId),
    /// Go on with a queue where the last call stopped because it had done enough.
    Continue(PoolId),
    /// Go on with what pools share.
    Share,
}

impl Due {
    const fn why(self) -> Timer {
        match self {
            Self::Notice(..) => Timer::QueueNotice,
            Self::Wait(..) | Self::Reserve(..) | Self::Continue(_) | Self::Share => Timer::QueueWait,
            Self::Retire(_) | Self::Forget(_) => Timer::ServerRetire,
            Self::Retry(_) => Timer::ServerRetry,
            Self::Clean(_) => Timer::ServerReset,
        }
    }
}

/// One table for all pools: the earliest entry is the only one that the driver needs to know.
#[derive(Default)]
pub(super) struct Timers(BTreeSet<(Tick, Due)>);

impl Timers {
    pub(super) fn set(&mut self, at: Tick, due: Due) {
        self.0.insert((at, due));
    }

    /// Removes an entry if it is there.
    pub(super) fn unset(&mut self, at: Option<Tick>, due: Due) {
        if let Some(at) = at {
            self.0.remove(&(at, due));
        }
    }

    /// Takes the earliest entry out when its time has come.
    pub(super) fn pop(&mut self, now: Tick) -> Option<Due> {
        self.0.first().is_some_and(|(at, _)| *at <= now).then(|| self.0.pop_first())?.map(|(_, due)| due)
    }

    pub(super) fn earliest(&self) -> Option<Deadline> {
        self.0.first().map(|(at, due)| Deadline { at: *at, why: due.why() })
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
