//! What happens in a walk without a session's doing: chores end, and operators do what they may.

use super::{Chore, DATABASES, Walk, key};
use crate::fault::{Refusal, SqlState};
use crate::pool::{Lease, OpenError, Returned};
use crate::time::{Now, UnixMicros};

impl Walk {
    /// A session goes on without its connection, which comes back later.
    pub(super) fn part(&mut self, who: usize) {
        if let Some((wish, lease, twin)) = self.take_lease(who, false) {
            self.pools.handle_parted(&lease);
            self.twin.handle_parted(&twin);
            self.ahead.push((Chore::Parted(wish.key), lease, twin));
        }
    }

    /// What is done without a session has come to its end, or has failed.
    pub(super) fn end_ahead(&mut self, how: usize) {
        match self.ahead.pop() {
            Some((Chore::Opening(key), lease, twin)) => self.end_opening(key, lease, twin, how),
            Some((Chore::Cleaning(_) | Chore::Parted(_), lease, twin)) => self.end_cleaning(lease, twin, how),
            None => {}
        }
    }

    fn end_cleaning(&mut self, lease: Lease, twin: Lease, how: usize) {
        self.order += 1;
        let returned = if how == 0 { Returned::Broken } else { Returned::Clean };
        if how == 0 {
            self.connections.remove(&lease.slot());
        } else if let Some(connection) = self.connections.get_mut(&lease.slot()) {
            (connection.owner, connection.idle) = (None, Some((self.now, self.order)));
        }
        let now = self.now();
        self.pools.handle_release(lease, returned, now);
        self.twin.handle_release(twin, returned, now);
    }

    fn end_opening(&mut self, key: usize, lease: Lease, twin: Lease, how: usize) {
        let (slot, now) = (lease.slot(), self.now());
        if how == 0 {
            self.connections.remove(&slot);
            self.pools.handle_chore_failed(lease, now);
            self.twin.handle_chore_failed(twin, now);
            return;
        }
        if how == 1 {
            self.connections.remove(&slot);
            self.failed(key, false, true);
            let refusal = Refusal::new(SqlState::CONNECTION_FAILURE, format!("down {key}"));
            let error = OpenError { refusal, is_down: true };
            assert!(!self.pools.handle_open_failed(lease, error.clone(), now), "nobody waits with it");
            assert!(!self.twin.handle_open_failed(twin, error, now), "the twin differs");
            return;
        }
        self.order += 1;
        if let Some(failure) = &mut self.failures[key] {
            failure.over = true;
        }
        if let Some(connection) = self.connections.get_mut(&slot) {
            (connection.opened, connection.idle) = (self.now, Some((self.now, self.order)));
        }
        for (pools, lease) in [(&mut self.pools, lease), (&mut self.twin, twin)] {
            pools.handle_opened(&lease, now);
            pools.handle_release(lease, Returned::Clean, now);
        }
    }

    pub(super) fn close_idle(&mut self) {
        self.pools.close_idle(None);
        self.twin.close_idle(None);
        self.settle();
        assert!(self.connections.values().all(|it| it.idle.is_none()), "an idle connection survived close_idle");
    }

    /// An operator pauses or resumes one database, or all of them.
    pub(super) fn switch(&mut self, who: usize) {
        self.settle();
        let index = who % (DATABASES + 1);
        let (database, paused) = match self.paused.get_mut(index) {
            Some(paused) => (Some(key(2 * index).database), paused),
            None => (None, &mut self.all_paused),
        };
        // Pauses are short, so that there is something to see between them.
        *paused = !*paused && who.is_multiple_of(5);
        let (now, paused) = (Now { tick: self.now, unix: UnixMicros(0) }, *paused);
        for pools in [&mut self.pools, &mut self.twin] {
            match paused {
                true => pools.pause(database.as_deref(), now),
                false => pools.resume(database.as_deref(), now),
            }
        }
        // The pools of several databases go on in no particular order.
        self.lagging = Some(self.now);
        self.settle();
    }

    pub(super) fn is_paused(&self, index: usize) -> bool {
        self.all_paused || self.paused[index / 2]
    }

    pub(super) fn reconnect(&mut self, who: usize) {
        self.settle();
        let (index, now) = (who % (DATABASES + 1), self.now());
        let database = (index < DATABASES).then(|| key(2 * index).database);
        for pools in [&mut self.pools, &mut self.twin] {
            pools.reconnect(database.as_deref(), now);
        }
        for connection in self.connections.values_mut().filter(|it| index == DATABASES || it.wish.key / 2 == index) {
            connection.stale = true;
        }
        self.settle();
    }
}
