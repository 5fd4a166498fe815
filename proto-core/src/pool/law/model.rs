//! What the reference model holds against every output, and against the counts once all is fetched.

use super::{Before, Chore, Connection, KEYS, Stand, Walk, Wish, key};
use crate::fault::SqlState;
use crate::pool::chores::LEFT_ALONE;
use crate::pool::{Counts, How, Lease, PoolKey, PoolOutput, SlotId};
use crate::session_id::SessionId;
use crate::time::Tick;

/// What a limit is over.
#[derive(Clone, Copy, Debug)]
enum Group {
    Database,
    Account,
}

impl Group {
    /// Whether two pools share it.
    const fn holds(self, one: usize, other: usize) -> bool {
        match self {
            Self::Database => one / 2 == other / 2,
            Self::Account => one % 2 == other % 2,
        }
    }
}

impl Walk {
    /// Does what is due, fetches everything, and compares with the model.
    pub(super) fn settle(&mut self) {
        self.fetch();
        while let Some(deadline) = self.pools.poll_timeout()
            && deadline.at <= self.now
        {
            self.pools.handle_timeout(self.now());
            self.twin.handle_timeout(self.now());
            self.fetch();
        }
        self.lagging = None;
        self.settled = self.now;
        self.check();
    }

    fn fetch(&mut self) {
        loop {
            match (self.pools.poll_output(), self.twin.poll_output()) {
                (None, None) => return,
                (
                    Some(PoolOutput::Granted { session, lease, how }),
                    Some(PoolOutput::Granted { session: twin_session, lease: twin, how: twin_how }),
                ) => {
                    let same = (twin_session, twin.slot(), twin.generation(), twin_how);
                    assert_eq!((session, lease.slot(), lease.generation(), how), same, "the twin differs");
                    self.granted(session, lease, twin, how);
                }
                (
                    Some(PoolOutput::Open { key: pool, lease, parameters }),
                    Some(PoolOutput::Open { key: twin_pool, lease: twin, .. }),
                ) => {
                    assert_eq!((&pool, lease.slot()), (&twin_pool, twin.slot()), "the twin differs");
                    self.opened_ahead(&pool, parameters[0].into(), lease, twin);
                }
                (Some(PoolOutput::Clean { lease }), Some(PoolOutput::Clean { lease: twin })) => {
                    assert_eq!(lease.slot(), twin.slot(), "the twin differs");
                    self.cleaned_ahead(lease, twin);
                }
                (Some(ours), Some(theirs)) => {
                    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"), "the twin differs");
                    self.told(ours);
                }
                (ours, theirs) => panic!("the twin differs: {ours:?}, {theirs:?}"),
            }
        }
    }

    fn granted(&mut self, session: SessionId, lease: Lease, twin: Lease, how: How) {
        let who = session.0 as usize;
        let stand = std::mem::replace(&mut self.sessions[who], Stand::Out);
        let Stand::Waiting { wish, order, since, noticed, .. } = stand else {
            panic!("session {session} got a connection and did not wait for one")
        };
        let before = Before { since, order, noticed };
        let earlier = self.sessions.iter().any(|it| {
            matches!(it, Stand::Waiting { wish: other, order: o, again, .. }
                // Whose place was given away while its login was still under way.
                if other.key == wish.key && *o < order && !(*again && self.lagging.is_some()))
        });
        assert!(!earlier, "session {session} overtook somebody");
        assert!(!self.is_paused(wish.key), "session {session} got a connection of a paused database");
        match how {
            How::Open | How::OpenBare => self.granted_new(wish, (since, order), lease.slot(), how),
            How::Reuse | How::Check | How::Reset => self.granted_idle(wish, lease.slot(), how),
        }
        self.replaced = None;
        self.seen.granted += 1;
        let opening = matches!(how, How::Open | How::OpenBare);
        self.sessions[who] = Stand::Holding { wish, lease, twin, opening, before };
    }

    fn opened_ahead(&mut self, pool: &PoolKey, parameters: usize, lease: Lease, twin: Lease) {
        let Some(index) = (0..KEYS).find(|index| key(*index) == *pool) else { panic!("no such pool: {pool}") };
        let wanted = self.sizes[index].min(self.settings.min_pool_size as usize);
        assert!(self.total(index) < wanted, "opened ahead although there are enough");
        assert!(self.lagging.is_some() || self.count(index).opening == 0, "more than one at a time");
        assert!(self.lagging.is_some() || self.first_waiter(index).is_none(), "ahead of somebody who waits");
        for group in [Group::Database, Group::Account] {
            assert!(!self.is_full(group, index), "above the limit of the {group:?}");
        }
        let wish = Wish { key: index, parameters, owner: 0, reuse: true, adapts: false };
        let fresh = Connection { wish, bare: false, owner: None, opened: self.now, stale: false, idle: None };
        assert!(self.connections.insert(lease.slot(), fresh).is_none(), "a slot was used twice");
        self.ahead.push((Chore::Opening(index), lease, twin));
    }

    fn cleaned_ahead(&mut self, lease: Lease, twin: Lease) {
        let Some(connection) = self.connections.get(&lease.slot()) else { panic!("there is no {}", lease.slot()) };
        let Some((since, order)) = connection.idle else { panic!("{} is not idle", lease.slot()) };
        let (owner, wish) = (connection.owner, connection.wish);
        assert!(owner.is_some(), "it is clean already");
        assert!(self.now.since(since) >= LEFT_ALONE, "its owner may still come");
        let same = |it: &&Connection| it.idle.is_some() && it.wish.key == wish.key;
        let is_ready = |it: &Connection| it.wish.parameters == wish.parameters && it.owner.is_none();
        let older = |it: &Connection| it.owner.is_some() && it.idle.is_some_and(|(_, other)| other < order);
        let others = || self.connections.values().filter(same);
        assert!(self.lagging.is_some() || !others().any(is_ready), "a clean one is there already");
        assert!(self.lagging.is_some() || !others().any(older), "another one has been left alone for longer");
        let key = wish.key;
        assert!(self.ahead.iter().all(|(chore, ..)| *chore != Chore::Cleaning(key)), "more than one at a time");
        assert!(self.lagging.is_some() || self.first_waiter(key).is_none(), "while somebody waits");
        if let Some(connection) = self.connections.get_mut(&lease.slot()) {
            connection.idle = None;
        }
        self.seen.cleaned += 1;
        self.ahead.push((Chore::Cleaning(key), lease, twin));
    }

    fn granted_new(&mut self, wish: Wish, (since, order): (Tick, u64), slot: SlotId, how: How) {
        let fits = |it: &&Connection| it.idle.is_some() && serves(it, wish);
        let missed = wish.reuse && self.connections.values().any(|it| fits(&it));
        assert!(self.lagging.is_some() || !missed, "missed a match");
        let (total, settings) = (self.total(wish.key), &self.settings);
        let may_use_reserve = self.now.since(since) >= settings.reserve_pool_timeout || self.replaced == Some(wish.key);
        assert!(total < self.sizes[wish.key] + self.reserve(), "the pool is above its limit");
        assert!(total < self.sizes[wish.key] || may_use_reserve, "the reserve is used too early");
        for group in [Group::Database, Group::Account] {
            assert!(!self.is_full(group, wish.key), "above the limit of the {group:?}");
        }
        assert!(self.lagging.is_some() || !self.is_cautious(wish.key), "more than one login behind a failure");
        let overtaken = (0..KEYS).find(|&other| other != wish.key && self.could_open(other, wish.key, order));
        assert!(self.lagging.is_some() || overtaken.is_none(), "a client of pool {overtaken:?} was overtaken");
        let bare = how == How::OpenBare;
        if bare {
            assert!(wish.adapts && wish.reuse, "a bare connection for somebody who needs a login of his own");
            assert_eq!(self.replaced, Some(wish.key), "a bare connection although there was room");
            self.seen.bare += 1;
        }
        let fresh = Connection { wish, bare, owner: None, opened: self.now, stale: false, idle: None };
        assert!(self.connections.insert(slot, fresh).is_none(), "a slot was used twice");
    }

    fn granted_idle(&mut self, wish: Wish, slot: SlotId, how: How) {
        assert!(wish.reuse, "somebody with an own password got a used connection");
        let Some((since, order)) = self.connections.get(&slot).and_then(|it| it.idle) else {
            panic!("connection {slot} has two owners, or does not exist")
        };
        if self.connections.get(&slot).is_some_and(|it| !serves(it, wish)) {
            return self.adapted(wish, slot, how);
        }
        let owner = self.connections.get(&slot).and_then(|it| it.owner);
        let foreign = owner.is_some_and(|owner| owner != wish.owner);
        assert_eq!(how == How::Reset, foreign, "somebody else's state, or a reset for nothing");
        let unused = self.now.since(since) >= self.settings.server_check_delay;
        let is_checked = !foreign && unused && !self.settings.server_check_query.is_empty();
        assert!(self.lagging.is_some() || (how == How::Check) == is_checked, "no check, or one for nothing");
        // An own one before a clean one before a foreign one; the newest of the first two, the oldest of the last.
        let rank = |owner: Option<usize>| match owner {
            Some(owner) if owner == wish.owner => 0,
            None => 1,
            Some(_) => 2,
        };
        let better = |it: &Connection| {
            let Some((_, other)) = it.idle else { return false };
            let newer = if foreign || self.settings.server_round_robin { other < order } else { other > order };
            serves(it, wish) && (rank(it.owner) < rank(owner) || rank(it.owner) == rank(owner) && newer)
        };
        assert!(self.lagging.is_some() || !self.connections.values().any(better), "not the best one");
        let (decided, lifetime) = (self.lagging.unwrap_or(self.now), self.settings.server_lifetime);
        let Some(connection) = self.connections.get_mut(&slot) else { return };
        assert!(serves(connection, wish), "a connection of another kind");
        assert!(!connection.stale, "a connection that was to be replaced");
        assert!(connection.opened.after(lifetime) > decided, "a connection beyond its lifetime");
        connection.idle = None;
    }

    /// A bare connection is brought to other parameters.
    fn adapted(&mut self, wish: Wish, slot: SlotId, how: How) {
        let fits = self.connections.values().any(|it| it.idle.is_some() && serves(it, wish));
        assert!(self.lagging.is_some() || !fits, "missed a match");
        let no_room = self.total(wish.key) >= self.sizes[wish.key]
            || self.is_backing_off(wish.key, wish.reuse)
            || [Group::Database, Group::Account].into_iter().any(|group| self.is_full(group, wish.key));
        assert!(self.lagging.is_some() || no_room, "a connection of its own would have been possible");
        let (decided, lifetime) = (self.lagging.unwrap_or(self.now), self.settings.server_lifetime);
        let Some(connection) = self.connections.get_mut(&slot) else { return };
        assert!(connection.bare && wish.adapts && how == How::Reset, "a connection of another kind");
        assert!(connection.wish.key == wish.key && connection.wish.reuse && !connection.stale, "a foreign connection");
        assert!(connection.opened.after(lifetime) > decided, "a connection beyond its lifetime");
        connection.wish.parameters = wish.parameters;
        connection.idle = None;
        self.seen.adapted += 1;
    }

    fn told(&mut self, output: PoolOutput) {
        match output {
            PoolOutput::Granted { .. } | PoolOutput::Open { .. } | PoolOutput::Clean { .. } => {
                unreachable!("handled by the caller")
            }
            PoolOutput::Close { slot, .. } => {
                let closed = self.connections.remove(&slot);
                let Some(closed) = closed.filter(|it| it.idle.is_some()) else {
                    panic!("closed {slot}, which is not idle")
                };
                self.replaced = Some(closed.wish.key);
            }
            PoolOutput::Notice { session, .. } => {
                let Stand::Waiting { since, noticed, .. } = &mut self.sessions[session.0 as usize] else {
                    panic!("a notice for {session}, which does not wait")
                };
                assert!(!std::mem::replace(noticed, true), "a second notice");
                assert!(self.now.since(*since) >= self.settings.query_wait_notify, "a notice too early");
            }
            PoolOutput::Refused { session, refusal } => {
                self.seen.refused += 1;
                let stand = std::mem::replace(&mut self.sessions[session.0 as usize], Stand::Out);
                let Stand::Waiting { wish, since, .. } = stand else {
                    panic!("a refusal for {session}, which does not wait")
                };
                if refusal.code == SqlState::TOO_MANY_CONNECTIONS {
                    assert!(self.now.since(since) >= self.settings.query_wait_timeout, "refused too early");
                } else {
                    assert_eq!(refusal.message, format!("down {}", wish.key), "a foreign reason");
                    let Some(failure) = self.failures[wish.key].filter(|it| it.until > since) else {
                        panic!("refused without a reason")
                    };
                    let overdue = self.now.since(since) >= self.settings.query_wait_timeout;
                    let waited = since < self.now && !overdue && self.count(wish.key).idle == 0;
                    let waits = waited && self.settings.wait_for_server && failure.is_down;
                    assert!(self.lagging.is_some() || !waits, "refused although the server may come back");
                }
            }
        }
    }

    fn total(&self, key: usize) -> usize {
        self.connections.values().filter(|it| it.wish.key == key).count()
    }

    fn reserve(&self) -> usize {
        if self.settings.reserve_pool_timeout.is_zero() { 0 } else { self.settings.reserve_pool_size as usize }
    }

    fn group(&self, group: Group, key: usize) -> impl Iterator<Item = &Connection> {
        self.connections.values().filter(move |it| group.holds(it.wish.key, key))
    }

    fn limit(&self, group: Group) -> usize {
        match group {
            Group::Database => self.settings.max_db_connections as usize,
            Group::Account => self.settings.max_user_connections as usize,
        }
    }

    fn is_full(&self, group: Group, key: usize) -> bool {
        let limit = self.limit(group);
        limit > 0 && self.group(group, key).count() >= limit
    }

    /// Full, and nothing in it can make room.
    fn is_closed(&self, group: Group, key: usize) -> bool {
        self.is_full(group, key) && self.group(group, key).all(|it| it.idle.is_none())
    }

    /// The server is only just back: one login is under way, and the others wait for it.
    fn is_cautious(&self, key: usize) -> bool {
        let retry = self.settings.server_login_retry;
        let failed =
            self.failures[key].is_some_and(|it| !it.over && it.until <= self.now && self.now < it.until.after(retry));
        failed && self.count(key).opening > 0
    }

    fn is_backing_off(&self, key: usize, reuse: bool) -> bool {
        self.failures[key].is_some_and(|it| !it.over && it.until > self.now && (reuse || !it.shared_only))
    }

    /// Who waits in that pool first: the order, since when, and whether for any connection.
    fn first_waiter(&self, key: usize) -> Option<(u64, Tick, bool)> {
        let waiting = |stand: &Stand| match stand {
            Stand::Waiting { wish, order, since, .. } if wish.key == key => Some((*order, *since, wish.reuse)),
            _ => None,
        };
        self.sessions.iter().filter_map(waiting).min()
    }

    /// Whether somebody who came before could have had the place that a client of another pool has got.
    fn could_open(&self, pool: usize, instead_of: usize, order: u64) -> bool {
        let Some((earlier, ..)) = self.first_waiter(pool) else { return false };
        let shared = |group: &Group| group.holds(pool, instead_of) && self.limit(*group) > 0;
        let shares = [Group::Database, Group::Account].iter().any(shared);
        // The end of a back-off is told to its own pool in its turn, and time may have leapt over several turns.
        let retry = self.settings.server_login_retry;
        let failed = self.failures[pool].is_some_and(|it| !it.over && it.until.after(retry) >= self.settled);
        let held_up = self.is_paused(pool) || failed;
        let no_room = self.total(pool) >= self.sizes[pool]
            || [Group::Database, Group::Account].into_iter().any(|group| self.is_closed(group, pool));
        // Whoever came before that may be about to take the place in the other group.
        let behind = |group: &Group| {
            let older = |other: usize| self.first_waiter(other).is_some_and(|(order, ..)| order < earlier);
            self.limit(*group) > 0 && (0..KEYS).any(|other| other != pool && group.holds(other, pool) && older(other))
        };
        let is_first = ![Group::Database, Group::Account].iter().any(behind);
        earlier < order && shares && !held_up && !no_room && is_first
    }

    fn check(&self) {
        let settings = &self.settings;
        for index in 0..KEYS {
            let counts = self.count(index);
            assert_eq!(self.pools.counts(&key(index)), counts, "the counts of pool {index}");
            assert!(counts.idle == 0 || !self.is_paused(index), "a paused database keeps idle connections");
            let Some((_, since, reuse)) = self.first_waiter(index) else { continue };
            let limit = settings.query_wait_timeout;
            assert!(limit.is_zero() || self.now.since(since) < limit, "somebody waits beyond the deadline");
            if self.is_paused(index) || self.is_cautious(index) {
                continue;
            }
            let leased = counts.active + counts.opening;
            let comes_back = |it: &Connection| it.idle.is_none() && it.wish.key == index && !it.stale && it.wish.reuse;
            let waits_for_it = settings.wait_for_server && self.failures[index].is_some_and(|it| it.is_down);
            let has_hope = waits_for_it || counts.opening > 0 || self.connections.values().any(comes_back);
            let shut_out = [Group::Database, Group::Account].into_iter().any(|group| self.is_closed(group, index));
            assert!(counts.idle == 0 || shut_out, "somebody waits beside an idle connection");
            let reserve = settings.reserve_pool_timeout;
            let has_reserve = self.reserve() > 0 && self.now.since(since) >= reserve;
            let size = self.sizes[index] + if has_reserve { self.reserve() } else { 0 };
            let hope = self.is_backing_off(index, reuse) && has_hope;
            assert!(leased >= size || shut_out || hope, "somebody waits for nothing");
        }
        for connection in self.connections.values() {
            let Some((since, _)) = connection.idle else { continue };
            assert!(!connection.stale, "kept although it was to be replaced");
            assert!(connection.wish.reuse, "a person's own connection was kept");
            assert!(self.now.since(connection.opened) < settings.server_lifetime, "kept beyond its lifetime");
            let unused = settings.server_idle_timeout;
            assert!(unused.is_zero() || self.now.since(since) < unused, "kept beyond its idle timeout");
        }
    }

    fn count(&self, index: usize) -> Counts {
        let idle = self.connections.values().filter(|it| it.wish.key == index && it.idle.is_some()).count();
        let ahead = |chore: Chore| self.ahead.iter().filter(|it| it.0 == chore).count();
        let active = ahead(Chore::Cleaning(index)) + ahead(Chore::Parted(index));
        let mut counts = Counts { idle, active, opening: ahead(Chore::Opening(index)), ..Counts::default() };
        for stand in &self.sessions {
            match stand {
                Stand::Waiting { wish, .. } if wish.key == index => counts.waiting += 1,
                Stand::Holding { wish, opening: true, .. } if wish.key == index => counts.opening += 1,
                Stand::Holding { wish, opening: false, .. } if wish.key == index => counts.active += 1,
                _ => {}
            }
        }
        counts
    }
}

fn serves(connection: &Connection, wish: Wish) -> bool {
    let Wish { key, parameters, reuse, .. } = connection.wish;
    key == wish.key && parameters == wish.parameters && reuse && (wish.adapts || !connection.bare)
}
