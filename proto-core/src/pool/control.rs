//! What an operator does to pools, under the names that PgBouncer's admin console gives it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Closing;
use super::groups::Kind;
use super::lease::SlotId;
use super::one::{PoolId, Slot, SlotState, Ticket};
use super::pools::Pools;
use super::timers::Due;
use super::words;
use crate::fault::{Refusal, SqlState};
use crate::time::{Now, Tick};

/// What is switched off. Entries come from operators only, and go when they say nothing any more.
#[derive(Default)]
pub(super) struct Switches {
    all_paused: bool,
    /// For good.
    pub(super) closed: bool,
    databases: BTreeMap<Arc<str>, Switch>,
}

#[derive(Clone, Copy, Default)]
struct Switch {
    paused: bool,
    disabled: bool,
}

impl Switches {
    pub(super) fn is_paused(&self, database: &str) -> bool {
        self.all_paused || self.databases.get(database).is_some_and(|it| it.paused)
    }

    fn is_disabled(&self, database: &str) -> bool {
        self.databases.get(database).is_some_and(|it| it.disabled)
    }

    fn change(&mut self, database: &str, change: impl FnOnce(&mut Switch)) {
        let mut switch = self.databases.get(database).copied().unwrap_or_default();
        change(&mut switch);
        if switch.paused || switch.disabled {
            self.databases.insert(database.into(), switch);
        } else {
            self.databases.remove(database);
        }
    }
}

impl Pools {
    /// Nobody gets a server connection of this database, or of any, until [`Self::resume`]: who needs one waits, and
    /// `query_wait_timeout` goes on. Idle connections are closed now, leased ones when they come back; the pause is
    /// complete when [`Self::leased`] is zero.
    pub fn pause(&mut self, database: Option<&str>, now: Now) {
        self.handle_timeout(now);
        match database {
            Some(name) => self.switches.change(name, |it| it.paused = true),
            None => self.switches.all_paused = true,
        }
        self.switched(database, now);
    }

    /// Nobody gets a server connection any more, to the end of the process: who waits for one, or asks for one, is told so.
    /// Like a pause, it is complete when [`Self::leased`] is zero.
    pub fn close(&mut self, now: Now) {
        self.pause(None, now);
        self.switches.closed = true;
        let waiting: Vec<(PoolId, Ticket)> =
            self.pools.iter().flat_map(|(id, pool)| pool.waiters.keys().map(|ticket| (*id, *ticket))).collect();
        for (id, ticket) in waiting {
            if let Some(waiter) = self.take_waiter(id, ticket) {
                self.refuse(waiter.claim.session, words::closed());
            }
            self.tidy(id);
        }
    }

    /// Ends a pause: of one database, or the one that was for all. One stays paused for as long as it was paused by either.
    pub fn resume(&mut self, database: Option<&str>, now: Now) {
        self.handle_timeout(now);
        match database {
            Some(name) => self.switches.change(name, |it| it.paused = false),
            None => self.switches.all_paused = false,
        }
        self.switched(database, now);
    }

    /// Whether nobody gets a connection of this database; `None`: whether all were paused together.
    #[must_use]
    pub fn is_paused(&self, database: Option<&str>) -> bool {
        database.map_or(self.switches.all_paused, |name| self.switches.is_paused(name))
    }

    /// New sessions in this database are refused from now on; those that are there go on.
    pub fn disable(&mut self, database: &str) {
        self.switches.change(database, |it| it.disabled = true);
    }

    /// Ends [`Self::disable`].
    pub fn enable(&mut self, database: &str) {
        self.switches.change(database, |it| it.disabled = false);
    }

    /// Whether new sessions in this database are refused.
    #[must_use]
    pub fn is_disabled(&self, database: &str) -> bool {
        self.switches.is_disabled(database)
    }

    /// Whether a new session may begin in this database.
    ///
    /// # Errors
    /// It is disabled.
    pub fn admit(&self, database: &str) -> Result<(), Refusal> {
        if !self.is_disabled(database) {
            return Ok(());
        }
        let refusal = Refusal::new(SqlState::NOT_IN_PREREQUISITE_STATE, format!("database \"{database}\" is disabled"));
        Err(refusal.hint("An operator has closed it to new sessions; ENABLE at the admin console opens it again."))
    }

    /// Every connection there is serves nobody any more after this: idle ones are closed now, leased ones when they come
    /// back. New ones take their places, maybe with another address behind the server's name.
    pub fn reconnect(&mut self, database: Option<&str>, now: Now) {
        self.handle_timeout(now);
        let pools = self.pools_of(database);
        let leased = |slot: &&mut Slot| matches!(slot.state, SlotState::Leased { .. }) && pools.contains(&slot.pool);
        for slot in self.slots.values_mut().filter(leased) {
            let before = slot.is_spent();
            slot.stale = true;
            if let Some(pool) = self.pools.get_mut(&slot.pool) {
                pool.count_spent(before, slot.is_spent());
            }
        }
        self.renounce(&pools);
        self.close_idle_of(pools, Closing::Stale);
    }

    /// What these pools have is to be replaced: who waits may have nothing more to wait for, and their servers may be others.
    pub(super) fn renounce(&mut self, pools: &[PoolId]) {
        for id in pools {
            let Some(pool) = self.pools.get_mut(id) else { continue };
            pool.welcomed = false;
            if !pool.waiters.is_empty() || pool.settings.min_pool_size > 0 {
                // Due at once.
                self.timers.set(Tick::default(), Due::Continue(*id));
            }
        }
    }

    /// Closes the idle connections of this database, or of all, for a drain or after a reload.
    pub fn close_idle(&mut self, database: Option<&str>) {
        let pools = self.pools_of(database);
        self.close_idle_of(pools, Closing::Shutdown);
    }

    /// Connections that are not idle, of this database or of all: what `PAUSE` and `WAIT_CLOSE` wait for.
    #[must_use]
    pub fn leased(&self, database: Option<&str>) -> usize {
        let wanted = self.pools.values().filter(|pool| database.is_none_or(|name| *pool.key.database == *name));
        wanted.map(|pool| pool.opening + pool.active).sum()
    }

    fn pools_of(&self, database: Option<&str>) -> Vec<PoolId> {
        let wanted = self.ids.iter().filter(|(key, _)| database.is_none_or(|name| *key.database == *name));
        wanted.map(|(_, id)| *id).collect()
    }

    fn switched(&mut self, database: Option<&str>, now: Now) {
        let pools = self.pools_of(database);
        for id in &pools {
            let Some(pool) = self.pools.get_mut(id) else { continue };
            pool.paused = self.switches.is_paused(&pool.key.database);
            let first = pool.waiters.first_key_value().map(|(ticket, _)| *ticket);
            match first.filter(|_| !pool.paused) {
                // Into a line with those of other pools: all of them in the order in which they came.
                Some(first) if pool.starved.is_none() => self.starve(*id, first, Kind::Database),
                Some(_) => {}
                None => self.unstarve(*id),
            }
            self.free(*id);
            self.fill(*id, now);
        }
        let paused = pools.into_iter().filter(|id| self.pools.get(id).is_some_and(|pool| pool.paused)).collect();
        self.close_idle_of(paused, Closing::Paused);
        self.share(now);
    }

    pub(super) fn close_idle_of(&mut self, pools: Vec<PoolId>, why: Closing) {
        for id in pools {
            let idle: Vec<SlotId> = self.pools.get(&id).into_iter().flat_map(|pool| pool.idle.slots()).collect();
            for slot in idle {
                self.close_slot(slot, why);
            }
            self.tidy(id);
        }
        if self.groups.any_starved() {
            // Due at once.
            self.timers.set(Tick::default(), Due::Share);
        }
    }
}
