//! Connections that settings have left behind: where they lead, or what they were opened with, holds no more.

use std::sync::Arc;

use super::one::{PoolId, SlotState};
use super::pools::Pools;
use super::{Closing, PoolKey, PoolSettings};
use crate::time::Now;

impl Pools {
    /// Closes the idle connections of these pools now, and the others when they come back: whoever has one, or waits for
    /// one by what held before, keeps it to the end of its transaction or session. What a failed login has taught is forgotten. The work grows with the number
    /// of connections.
    pub fn retire(&mut self, is_stale: impl Fn(&PoolKey) -> bool) {
        let gone: Vec<PoolId> = self.ids.iter().filter(|(key, _)| is_stale(key)).map(|(_, id)| *id).collect();
        for id in &gone {
            self.end_backoff(*id);
            if let Some(pool) = self.pools.get_mut(id) {
                pool.unadaptable.clear();
            }
            for waiter in self.pools.get_mut(id).into_iter().flat_map(|pool| pool.waiters.values_mut()) {
                waiter.claim.reuse = false;
            }
        }
        for slot in self.slots.values_mut() {
            if matches!(slot.state, SlotState::Leased { .. }) && gone.contains(&slot.pool) {
                let before = slot.is_spent();
                slot.stale = true;
                // Who opens it again does so by what held before, too.
                slot.reuse = false;
                if let Some(pool) = self.pools.get_mut(&slot.pool) {
                    pool.count_spent(before, slot.is_spent());
                }
            }
        }
        for id in &gone {
            if let Some(pool) = self.pools.get_mut(id) {
                pool.outdated = true;
            }
        }
        self.renounce(&gone);
        self.close_idle_of(gone, Closing::Stale);
    }

    /// Other limits hold for the pools that these are known for: who waits need not wait for somebody else to ask by them.
    pub fn resettle(&mut self, settings_of: impl Fn(&PoolKey) -> Option<Arc<PoolSettings>>, now: Now) {
        self.handle_timeout(now);
        let all: Vec<(PoolId, Arc<PoolSettings>)> =
            self.ids.iter().filter_map(|(key, id)| Some((*id, settings_of(key)?))).collect();
        for (id, settings) in all {
            let Some(pool) = self.pools.get_mut(&id).filter(|pool| pool.settings != settings) else { continue };
            pool.settings = settings;
            self.free(id);
            self.pump(id, now);
            self.fill(id, now);
            self.reconsider(id);
        }
        self.share(now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{How, PoolOutput, Request, Returned};
    use super::*;
    use crate::session_id::SessionId;
    use crate::testing::corp;
    use crate::time::Tick;

    fn request(session: u64, database: &str) -> Request {
        Request {
            session: SessionId(session),
            key: PoolKey { account: "a".into(), database: database.into(), own_password: false },
            parameters: Arc::new([]),
            owner: None,
            reuse: true,
            adapts: false,
            settings: Arc::new(PoolSettings { default_pool_size: 1, ..PoolSettings::default() }),
        }
    }

    fn granted(pools: &mut Pools) -> (super::super::Lease, How) {
        match pools.poll_output() {
            Some(PoolOutput::Granted { lease, how, .. }) => (lease, how),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_idle_goes_at_once_and_what_is_leased_when_it_comes_back() {
        let now = corp::at(Tick::default());
        let mut pools = Pools::new();
        for (session, database) in [(1, "old"), (2, "stays")] {
            pools.handle_request(request(session, database), now);
            let (lease, _) = granted(&mut pools);
            pools.handle_opened(&lease, now);
            pools.handle_release(lease, Returned::Clean, now);
        }
        pools.handle_request(request(3, "busy"), now);
        let (busy, _) = granted(&mut pools);
        pools.handle_opened(&busy, now);
        // Behind it somebody waits, and gets a new connection instead of the one that comes back.
        pools.handle_request(request(4, "busy"), now);
        pools.retire(|key| &*key.database != "stays");
        assert!(matches!(pools.poll_output(), Some(PoolOutput::Close { .. })), "the idle one");
        assert!(pools.poll_output().is_none());
        pools.handle_release(busy, Returned::Kept, now);
        assert!(matches!(pools.poll_output(), Some(PoolOutput::Close { .. })), "the leased one");
        let (next, how) = granted(&mut pools);
        assert_eq!(how, How::Open);
        pools.handle_opened(&next, now);
        pools.handle_release(next, Returned::Clean, now);
        assert!(matches!(pools.poll_output(), Some(PoolOutput::Close { .. })), "opened by what held before, too");
        pools.handle_request(request(5, "stays"), now);
        let (kept, how) = granted(&mut pools);
        assert_eq!(how, How::Reuse, "a pool that nothing has changed for");
        pools.handle_release(kept, Returned::Broken, now);
        assert!(pools.is_empty());
    }

    #[test]
    fn a_connection_that_is_opened_again_by_what_held_before_is_no_way_back_either() {
        let now = corp::at(Tick::default());
        let mut pools = Pools::new();
        pools.handle_request(request(1, "old"), now);
        let (lease, _) = granted(&mut pools);
        pools.handle_opened(&lease, now);
        pools.retire(|_| true);
        // Its reset has failed, and its holder logs in once more.
        pools.handle_reopen(&lease, now);
        pools.handle_opened(&lease, now);
        pools.handle_release(lease, Returned::Kept, now);
        assert!(matches!(pools.poll_output(), Some(PoolOutput::Close { .. })));
        assert!(pools.is_empty());
    }

    #[test]
    fn a_promise_that_is_withdrawn_is_no_way_back() {
        let now = corp::at(Tick::default());
        let mut pools = Pools::new();
        pools.handle_request(request(1, "old"), now);
        let (lease, _) = granted(&mut pools);
        pools.handle_opened(&lease, now);
        pools.handle_release(lease, Returned::Clean, now);
        pools.handle_request(request(2, "old"), now);
        pools.retire(|_| true);
        pools.handle_gave_up(SessionId(2), now);
        assert!(matches!(pools.poll_output(), Some(PoolOutput::Close { .. })));
        assert!(pools.is_empty());
    }

    #[test]
    fn who_waits_is_served_when_the_pool_becomes_larger() {
        let now = corp::at(Tick::default());
        let mut pools = Pools::new();
        pools.handle_request(request(1, "app"), now);
        let (first, _) = granted(&mut pools);
        pools.handle_request(request(2, "app"), now);
        assert!(pools.poll_output().is_none(), "it waits");
        let larger = Arc::new(PoolSettings { default_pool_size: 2, ..PoolSettings::default() });
        pools.resettle(|key| (&*key.database == "other").then(|| larger.clone()), now);
        assert!(pools.poll_output().is_none(), "nothing is known of its pool");
        pools.resettle(|_| Some(larger.clone()), now);
        let (second, how) = granted(&mut pools);
        assert_eq!(how, How::Open);
        for lease in [first, second] {
            pools.handle_release(lease, Returned::Broken, now);
        }
    }

    #[test]
    fn what_is_overdue_when_other_limits_come_leaves_no_pool_behind() {
        let mut now = corp::at(Tick::default());
        let mut pools = Pools::new();
        let none = Arc::new(PoolSettings { default_pool_size: 0, ..PoolSettings::default() });
        pools.handle_request(Request { settings: none.clone(), ..request(1, "app") }, now);
        assert!(pools.is_served(SessionId(1)), "it waits");
        now.tick = now.tick.after(none.query_wait_timeout);
        let more = Arc::new(PoolSettings { default_pool_size: 1, ..PoolSettings::default() });
        pools.resettle(|_| Some(more.clone()), now);
        assert!(pools.is_served(SessionId(1)), "its refusal was not fetched");
        assert!(matches!(pools.poll_output(), Some(PoolOutput::Refused { .. })));
        assert!(!pools.is_served(SessionId(1)) && pools.poll_output().is_none() && pools.is_empty());
    }
}
