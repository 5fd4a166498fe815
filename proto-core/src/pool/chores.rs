//! What is done for no session in particular.
//!
//! A pool that is in use is kept at `min_pool_size`. Connections are opened one at a time, with the parameters of the
//! connection that was opened last for somebody, and only as long as sessions use the pool: one that nobody has asked for
//! within `server_idle_timeout` may run empty. A standing pool is kept whether anybody comes or not, and tries on after a
//! failed login.
//!
//! A pool that serves several people keeps one idle connection that nobody owns, so that whoever comes next finds it
//! without waiting for a reset. It is made of the one that its owner has left alone for longest, and not at once: who
//! comes back soon finds it as it was.

use std::sync::Arc;
use std::time::Duration;

use super::lease::Lease;
use super::one::{Hold, Opening, Pool, PoolId, SlotState};
use super::pools::{Pending, Pools};
use super::timers::Due;
use super::{How, Owner, PoolKey, PoolSettings};
use crate::time::{Now, Tick};

/// How long an owner is waited for before its idle connection is reset for somebody else.
pub(super) const LEFT_ALONE: Duration = Duration::from_millis(100);
/// A pool serves several people when one came behind another within this time.
const SERVES_SEVERAL: Duration = Duration::from_secs(60);

/// Who comes to a pool, and what is done ahead for others.
#[derive(Default)]
pub(super) struct Company {
    last: Owner,
    /// When somebody came behind somebody else.
    changed: Option<Tick>,
    /// The connection that is being reset.
    pub(super) cleaning: Option<super::SlotId>,
    /// When it is looked for the next one.
    pub(super) look: Option<Tick>,
}

impl Company {
    pub(super) fn note(&mut self, owner: &Owner, now: Tick) {
        let is_same = match (&self.last, owner) {
            (Some(last), Some(owner)) => Arc::ptr_eq(last, owner) || last == owner,
            _ => false,
        };
        if !is_same && owner.is_some() {
            self.changed = self.last.is_some().then_some(now);
            self.last.clone_from(owner);
        }
    }

    fn is_several(&self, now: Tick) -> bool {
        self.changed.is_some_and(|at| now.since(at) < SERVES_SEVERAL)
    }
}

impl Pool {
    /// Whether it is in use and has fewer connections than it should.
    fn is_short(&self, now: Tick) -> bool {
        let settings = &self.settings;
        let wanted = usize::try_from(settings.min_pool_size).unwrap_or(usize::MAX).min(self.size());
        let kept = match settings.server_idle_timeout {
            never if never.is_zero() => settings.server_lifetime,
            some => some.min(settings.server_lifetime),
        };
        let in_use = self.standing || now.since(self.last_asked) < kept;
        // After a failed login it is a session's turn to try, where one will come: its client learns why.
        let trouble = self.backoff.is_some() || self.paused || self.caution.is_some() && !self.standing;
        self.total() < wanted && in_use && !trouble && self.opening == 0 && self.waiters.is_empty()
    }
}

impl Pools {
    /// From now on these are the pools that are kept at their `min_pool_size` without anybody who asks for them; the
    /// parameters are those that their connections are opened with.
    pub fn stand(&mut self, pools: Vec<(PoolKey, Arc<PoolSettings>, Arc<[u8]>)>, now: Now) {
        self.handle_timeout(now);
        let before: Vec<PoolId> = self.pools.iter().filter(|(_, pool)| pool.standing).map(|(id, _)| *id).collect();
        for id in &before {
            if let Some(pool) = self.pools.get_mut(id) {
                pool.standing = false;
            }
        }
        for (key, settings, parameters) in pools {
            let id = self.pool_of(key, settings);
            if let Some(pool) = self.pools.get_mut(&id) {
                pool.standing = true;
                pool.template = Some(parameters);
            }
            self.fill(id, now);
        }
        for id in before {
            self.tidy(id);
        }
    }

    /// Begins to open a connection for nobody in particular, where there should be one more.
    pub(super) fn fill(&mut self, id: PoolId, now: Now) {
        let Some(pool) = self.pools.get(&id).filter(|pool| pool.settings.min_pool_size > 0) else { return };
        let Some(parameters) = pool.template.clone().filter(|_| pool.is_short(now.tick)) else { return };
        if !self.has_room(pool) {
            return;
        }
        // Without parameters it serves everybody who can be brought to others.
        let bare = pool.standing && parameters.is_empty();
        self.begin_slot(id, None, Opening { parameters, owner: None, reuse: true, bare }, now);
    }

    /// Begins to reset an idle connection for nobody in particular, where somebody else than its owner may come next.
    pub(super) fn clean(&mut self, id: PoolId, now: Now) {
        let Some(pool) = self.pools.get_mut(&id) else { return };
        if !pool.company.is_several(now.tick) || pool.company.cleaning.is_some() || !pool.waiters.is_empty() {
            return;
        }
        let Some((slot_id, since)) = pool.idle.to_be_cleaned() else { return };
        let due = since.after(LEFT_ALONE);
        if due > now.tick {
            self.timers.unset(pool.company.look.replace(due), Due::Clean(id));
            return self.timers.set(due, Due::Clean(id));
        }
        if self.leave_idle(slot_id).is_none() {
            return;
        }
        let (Some(pool), Some(slot)) = (self.pools.get_mut(&id), self.slots.get_mut(&slot_id)) else { return };
        pool.active += 1;
        pool.company.cleaning = Some(slot_id);
        slot.generation = slot.generation.wrapping_add(1);
        let hold = Hold::Promised(None);
        slot.state = SlotState::Leased { session: None, opening: false, how: How::Reset, hold };
        self.outputs.push_back(Pending::Granted(slot_id, slot.generation));
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
