//! What pools share: the server connections of one database, and those of one account, over all pools.
//!
//! A pool whose next client may not open a connection because one of the two has no room is *starved*, and stands in the
//! line of that group. Whatever frees a place, or leaves an idle connection that can make room, looks at these lines: they
//! are in the order in which the clients came, proven ones before those that log in with a password of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::PoolKey;
use super::lease::SlotId;
use super::one::{Claim, Pool, PoolId, Since, Ticket, Turn};
use super::pools::Pools;
use super::timers::Due;
use crate::time::{Now, Tick};

/// Starved pools that one call serves; the rest is due at once.
const SHARES_PER_CALL: usize = 32;

/// What a limit is over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Database,
    Account,
}

const KINDS: [Kind; 2] = [Kind::Database, Kind::Account];

impl Kind {
    fn name(self, key: &PoolKey) -> &Arc<str> {
        match self {
            Self::Database => &key.database,
            Self::Account => &key.account,
        }
    }

    /// The limit that a pool has been told for its group.
    pub(super) fn limit(self, pool: &Pool) -> Option<usize> {
        let limit = match self {
            Self::Database => pool.settings.max_db_connections,
            Self::Account => pool.settings.max_user_connections,
        };
        (limit > 0).then(|| usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

/// A place in a group's line: proven clients first, then by their tickets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Standing {
    own_password: bool,
    ticket: Ticket,
}

#[derive(Default)]
struct Group {
    /// Server connections, those being opened and idle ones included.
    connections: usize,
    pools: BTreeSet<PoolId>,
    line: BTreeMap<Standing, PoolId>,
}

/// All groups that have a pool.
#[derive(Default)]
pub(super) struct Groups {
    databases: BTreeMap<Arc<str>, Group>,
    accounts: BTreeMap<Arc<str>, Group>,
    /// Pools that stand in a line.
    starved: usize,
    /// Groups in whose lines somebody may be served.
    freed: BTreeSet<(Kind, Arc<str>)>,
}

impl Groups {
    fn of(&self, kind: Kind) -> &BTreeMap<Arc<str>, Group> {
        match kind {
            Kind::Database => &self.databases,
            Kind::Account => &self.accounts,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut BTreeMap<Arc<str>, Group> {
        match kind {
            Kind::Database => &mut self.databases,
            Kind::Account => &mut self.accounts,
        }
    }

    pub(super) fn enter(&mut self, key: &PoolKey, id: PoolId) {
        for kind in KINDS {
            self.of_mut(kind).entry(kind.name(key).clone()).or_default().pools.insert(id);
        }
    }

    pub(super) fn leave(&mut self, key: &PoolKey, id: PoolId) {
        for kind in KINDS {
            let (name, groups) = (kind.name(key), self.of_mut(kind));
            if let Some(group) = groups.get_mut(name) {
                group.pools.remove(&id);
                if group.pools.is_empty() {
                    groups.remove(name);
                }
            }
        }
    }

    pub(super) fn opened(&mut self, key: &PoolKey) {
        for kind in KINDS {
            if let Some(group) = self.of_mut(kind).get_mut(kind.name(key)) {
                group.connections += 1;
            }
        }
    }

    fn closed(&mut self, key: &PoolKey) {
        for kind in KINDS {
            if let Some(group) = self.of_mut(kind).get_mut(kind.name(key)) {
                group.connections -= 1;
            }
        }
    }

    /// Somebody in these lines may be served now.
    fn free(&mut self, key: &PoolKey) {
        if self.starved > 0 {
            self.freed.extend(KINDS.map(|kind| (kind, kind.name(key).clone())));
        }
    }

    pub(super) fn any_starved(&self) -> bool {
        self.starved > 0
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn is_empty(&self) -> bool {
        self.databases.is_empty() && self.accounts.is_empty() && self.starved == 0 && self.freed.is_empty()
    }
}

impl Pools {
    /// A connection of this pool exists no more.
    pub(super) fn count_closed(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get(&id) else { return };
        self.groups.closed(&pool.key);
        self.groups.free(&pool.key);
    }

    /// A connection of this pool has become idle, or its limits have changed.
    pub(super) fn free(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get(&id) {
            self.groups.free(&pool.key);
        }
    }

    /// What the turn of a claim leads to, with what its pool shares with others.
    pub(super) fn turn(&self, pool: &Pool, claim: &Claim, since: Option<Since>, replaces: bool, now: Tick) -> Turn {
        let turn = pool.turn(claim, since, replaces, now);
        if turn != Turn::Open {
            return turn;
        }
        let mut evict = None;
        for kind in KINDS {
            let Some(limit) = kind.limit(pool) else { continue };
            let Some(group) = self.groups.of(kind).get(kind.name(&pool.key)) else { continue };
            let own_password = pool.key.own_password;
            let standing = Standing { own_password, ticket: since.map_or(Ticket::LAST, |it| it.ticket) };
            let is_first = group.line.first_key_value().is_none_or(|(first, _)| standing <= *first);
            if is_first && group.connections < limit {
                continue;
            }
            // Who is not proven before the server has let him in takes nothing away from those who are.
            let spare = (is_first && !own_password).then(|| self.spare(group)).flatten();
            match spare {
                Some(slot) => evict = evict.or(Some(slot)),
                None => return Turn::Starve(kind),
            }
        }
        match evict {
            Some(slot) => pool.adapt(claim, now).unwrap_or(Turn::Evict(slot)),
            None => Turn::Open,
        }
    }

    /// Whether a connection more would be within what its pool shares, with nobody before it.
    pub(super) fn has_room(&self, pool: &Pool) -> bool {
        KINDS.into_iter().all(|kind| {
            let group = self.groups.of(kind).get(kind.name(&pool.key));
            let has_room =
                |group: &Group| group.line.is_empty() && kind.limit(pool).is_none_or(|limit| group.connections < limit);
            group.is_none_or(has_room)
        })
    }

    /// The idle connection of a group that nobody has used for longest.
    fn spare(&self, group: &Group) -> Option<SlotId> {
        let idle = group.pools.iter().filter_map(|id| self.pools.get(id)?.idle.oldest());
        idle.min_by_key(|(stamp, _)| *stamp).map(|(_, slot)| slot)
    }

    /// The pool's first client waits for a place in that group.
    pub(super) fn starve(&mut self, id: PoolId, ticket: Ticket, kind: Kind) {
        let Some(pool) = self.pools.get_mut(&id) else { return };
        let standing = Standing { own_password: pool.key.own_password, ticket };
        pool.starved = Some((kind, standing));
        if let Some(group) = self.groups.of_mut(kind).get_mut(kind.name(&pool.key)) {
            group.line.insert(standing, id);
            self.groups.starved += 1;
        }
    }

    /// The pool's first client has not had its turn yet, and shares a limit with others.
    pub(super) fn stay_in_line(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get(&id) else { return };
        let shared = KINDS.into_iter().find(|kind| kind.limit(pool).is_some());
        if let (Some(kind), Some((&ticket, _))) = (shared, pool.waiters.first_key_value()) {
            self.starve(id, ticket, kind);
        }
    }

    /// The pool stands in no line any more. Those behind it may be served.
    pub(super) fn unstarve(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else { return };
        let Some((kind, standing)) = pool.starved.take() else { return };
        if let Some(group) = self.groups.of_mut(kind).get_mut(kind.name(&pool.key))
            && group.line.remove(&standing).is_some()
        {
            self.groups.starved -= 1;
            self.groups.freed.insert((kind, kind.name(&pool.key).clone()));
        }
    }

    /// Gives what has become free to those who stand in line for it.
    pub(super) fn share(&mut self, now: Now) {
        for _ in 0..SHARES_PER_CALL {
            let Some((kind, name)) = self.groups.freed.first() else { return };
            let first = self.groups.of(*kind).get(name).and_then(|group| group.line.first_key_value());
            let stuck = first.and_then(|(_, id)| {
                let pool = self.pools.get(id)?;
                let (ticket, waiter) = pool.waiters.first_key_value()?;
                let since = Some(waiter.stands(*ticket));
                Some((*id, self.turn(pool, &waiter.claim, since, false, now.tick) == Turn::Starve(*kind)))
            });
            match stuck {
                // It is served, or stands in the wrong line by now and must not hold up those behind it.
                Some((id, false)) => {
                    self.pump(id, now);
                    self.tidy(id);
                }
                Some((_, true)) | None => {
                    self.groups.freed.pop_first();
                }
            }
        }
        self.timers.set(now.tick, Due::Share);
    }
}
