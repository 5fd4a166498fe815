//! What operators are shown of pools and their connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lease::SlotId;
use super::one::{PoolId, Slot, SlotState};
use super::pools::Pools;
use super::{Owner, PoolKey, PoolSettings};
use crate::session_id::SessionId;
use crate::time::Tick;

/// A pool as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolFacts<'a> {
    /// Which one.
    pub key: &'a PoolKey,
    /// What holds for it.
    pub settings: &'a Arc<PoolSettings>,
    /// Connections that a session uses.
    pub active: usize,
    /// Connections that are being reset or closed.
    pub tested: usize,
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections that are not yet logged in.
    pub opening: usize,
    /// Sessions in the queue.
    pub waiting: usize,
    /// Since when the first of them waits.
    pub oldest_wait: Option<Tick>,
    /// Whether nobody gets a connection until an operator says so.
    pub paused: bool,
    /// What has happened in it.
    pub totals: PoolTotals,
}

/// What has happened in a pool since its first request, or in all pools of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PoolTotals {
    /// Connections that were leased.
    pub leases: u64,
    /// How many of them had to be waited for in the queue.
    pub waits: u64,
    /// For how long, all together.
    pub waited: Duration,
    /// Logins that succeeded.
    pub opened: u64,
    /// Idle connections that were found dead or unfit when their turn came: new ones took their places.
    pub replaced: u64,
}

impl PoolTotals {
    pub(super) fn lease(&mut self, waited: Option<Duration>) {
        self.leases += 1;
        if let Some(waited) = waited {
            self.waits += 1;
            self.waited = self.waited.saturating_add(waited);
        }
    }
}

/// What a server connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ServerState {
    /// It is being connected or logged in.
    Opening,
    /// A session uses it.
    Active,
    /// It is being reset or closed, and no session has to do with it.
    Tested,
    /// Nobody uses it.
    Idle,
}

/// A server connection as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerFacts<'a> {
    /// Its number.
    pub slot: SlotId,
    /// Whose pool it belongs to.
    pub key: &'a PoolKey,
    /// What it is doing.
    pub state: ServerState,
    /// For whom.
    pub session: Option<SessionId>,
    /// Whose session state it may hold.
    pub owner: &'a Owner,
    /// When its login ended, or began where it has not ended.
    pub opened: Tick,
    /// When it was leased last.
    pub last_leased: Tick,
    /// It is closed at its return, because an operator wants it to be replaced.
    pub stale: bool,
}

impl Slot {
    fn is_tested(&self) -> bool {
        matches!(self.state, SlotState::Leased { session: None, opening: false, .. })
    }
}

impl Pools {
    /// All pools, in the order of their keys.
    pub fn snapshot(&self) -> impl Iterator<Item = PoolFacts<'_>> {
        let mut tested: BTreeMap<PoolId, usize> = BTreeMap::new();
        for slot in self.slots.values().filter(|slot| slot.is_tested()) {
            *tested.entry(slot.pool).or_default() += 1;
        }
        self.ids.iter().filter_map(move |(key, id)| {
            let pool = self.pools.get(id)?;
            let (counts, tested) = (pool.counts(), tested.get(id).copied().unwrap_or(0));
            Some(PoolFacts {
                key,
                settings: &pool.settings,
                active: counts.active.saturating_sub(tested),
                tested,
                idle: counts.idle,
                opening: counts.opening,
                waiting: counts.waiting,
                oldest_wait: pool.waiters.first_key_value().map(|(_, waiter)| waiter.since),
                paused: pool.paused,
                totals: pool.totals,
            })
        })
    }

    /// All server connections, in the order in which they were begun.
    pub fn servers(&self) -> impl Iterator<Item = ServerFacts<'_>> {
        self.slots.iter().filter_map(|(slot, it)| {
            let (state, session) = match &it.state {
                SlotState::Leased { session, opening: true, .. } => (ServerState::Opening, *session),
                SlotState::Leased { .. } if it.is_tested() => (ServerState::Tested, None),
                SlotState::Leased { session, opening: false, .. } => (ServerState::Active, *session),
                SlotState::Idle(_) => (ServerState::Idle, None),
            };
            Some(ServerFacts {
                slot: *slot,
                key: &self.pools.get(&it.pool)?.key,
                state,
                session,
                owner: &it.owner,
                opened: it.opened,
                last_leased: it.last_leased,
                stale: it.stale,
            })
        })
    }
}
