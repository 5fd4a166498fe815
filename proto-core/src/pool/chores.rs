//! Connections that no session asks for: a pool that is in use is kept at `min_pool_size`.
//!
//! They are opened one at a time, with the parameters of the connection that was opened last for somebody, and only as
//! long as sessions use the pool: one that nobody has asked for within `server_idle_timeout` may run empty.

use super::lease::Lease;
use super::one::{Opening, Pool, PoolId};
use super::pools::Pools;
use crate::time::{Now, Tick};

impl Pool {
    /// Whether it is in use and has fewer connections than it should.
    fn is_short(&self, now: Tick) -> bool {
        let settings = &self.settings;
        let wanted = usize::try_from(settings.min_pool_size).unwrap_or(usize::MAX).min(self.size());
        let kept = match settings.server_idle_timeout {
            never if never.is_zero() => settings.server_lifetime,
            some => some.min(settings.server_lifetime),
        };
        let in_use = now.since(self.last_asked) < kept;
        // After a failed login it is a session's turn to try: its client learns why.
        let trouble = self.backoff.is_some() || self.caution.is_some() || self.paused;
        self.total() < wanted && in_use && !trouble && self.opening == 0 && self.waiters.is_empty()
    }
}

impl Pools {
    /// Begins to open a connection for nobody in particular, where there should be one more.
    pub(super) fn fill(&mut self, id: PoolId, now: Now) {
        let Some(pool) = self.pools.get(&id).filter(|pool| pool.settings.min_pool_size > 0) else { return };
        let Some(parameters) = pool.template.clone().filter(|_| pool.is_short(now.tick)) else { return };
        if !self.has_room(pool) {
            return;
        }
        self.begin_slot(id, None, Opening { parameters, owner: None, reuse: true }, now);
    }

    /// The connection of a [`super::PoolOutput::Open`] cannot be opened, for a reason that is no server's. No other is tried
    /// before a session has opened one.
    pub fn handle_chore_failed(&mut self, lease: Lease, now: Now) {
        let slot = self.slots.get(&lease.slot());
        if let Some(pool) = slot.map(|slot| slot.pool).and_then(|id| self.pools.get_mut(&id)) {
            pool.template = None;
        }
        self.handle_release(lease, super::Returned::Broken, now);
    }
}
