//! Pools of which nothing is left.
//!
//! With `pool_idle_timeout` they are still shown for a while, and known to have had a server. There are never too many of
//! them: where clients may name any database, somebody could otherwise fill the memory.

use std::time::Duration;

use super::one::PoolId;
use super::pools::{POOLS_WITH_MEMORY, Pools};
use super::timers::Due;
use crate::time::{Now, Tick};

impl Pools {
    /// Forgets a pool of which nothing is left, or sees to it that it will be forgotten.
    pub(super) fn tidy(&mut self, id: PoolId) {
        let many = self.pools.len() > POOLS_WITH_MEMORY;
        let Some(pool) = self.pools.get_mut(&id).filter(|pool| pool.is_empty()) else { return };
        match pool.settings.pool_idle_timeout {
            _ if many || pool.outdated => self.forget(id),
            Some(Duration::ZERO) => self.forget(id),
            Some(_) if pool.forget.is_none() => {
                // Due at once: it has only just become empty, and there it is known when that is.
                pool.forget = Some(Tick::default());
                self.timers.set(Tick::default(), Due::Forget(id));
            }
            Some(_) | None => {}
        }
    }

    /// The timeout of a pool has passed, or begins.
    pub(super) fn expire(&mut self, id: PoolId, now: Now) {
        let Some(pool) = self.pools.get_mut(&id) else { return };
        let (due, timeout) = (pool.forget.take(), pool.settings.pool_idle_timeout);
        let Some(timeout) = timeout.filter(|_| pool.is_empty()) else { return };
        if due == Some(Tick::default()) {
            let at = now.tick.after(timeout);
            pool.forget = Some(at);
            return self.timers.set(at, Due::Forget(id));
        }
        let (account, database, age) = (&pool.key.account, &pool.key.database, timeout.as_secs());
        log::info!(
            "cleaning up idle pool for user {account} on db {database} because: pool idle timeout (age= {age}s)"
        );
        self.forget(id);
    }

    /// Other settings hold for it: the time that it is kept begins anew.
    pub(super) fn reconsider(&mut self, id: PoolId) {
        let due = self.pools.get_mut(&id).and_then(|pool| pool.forget.take());
        self.timers.unset(due, Due::Forget(id));
        self.tidy(id);
    }

    fn forget(&mut self, id: PoolId) {
        let Some(pool) = self.pools.remove(&id) else { return };
        self.timers.unset(pool.company.look, Due::Clean(id));
        self.timers.unset(pool.forget, Due::Forget(id));
        self.ids.remove(&pool.key);
        self.groups.leave(&pool.key, id);
    }
}
