//! The face of the pools: what comes in, what goes out. What follows from it is in [`super::turns`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::control::Switches;
use super::groups::Groups;
use super::lease::{Lease, SlotId};
use super::one::{Backoff, Claim, Concerns, Hold, Pool, PoolId, Slot, SlotState, Ticket};
use super::timers::{Due, Timers};
use super::{Closing, Counts, How, OpenError, PoolKey, PoolOutput, PoolSettings, Request, Returned, words};
use crate::fault::Refusal;
use crate::session_id::SessionId;
use crate::time::{Deadline, Now};

/// Due timers that one call works off; the rest is due at once.
const TIMERS_PER_CALL: usize = 64;

/// Beyond so many pools nothing is remembered of a pool that has nothing else, be it a failed login: where clients may name any
/// database, somebody could otherwise fill the memory with failures.
pub(super) const POOLS_WITH_MEMORY: usize = 1024;

/// Startup parameters of one pool of which it is remembered that only a login can give them.
const MAX_UNADAPTABLE: usize = 64;

/// All pools of one process. See the [module](super) for the rules.
#[derive(Default)]
pub struct Pools {
    pub(super) ids: BTreeMap<PoolKey, PoolId>,
    pub(super) pools: BTreeMap<PoolId, Pool>,
    pub(super) slots: BTreeMap<SlotId, Slot>,
    pub(super) places: BTreeMap<SessionId, Place>,
    pub(super) timers: Timers,
    pub(super) outputs: VecDeque<Pending>,
    pub(super) switches: Switches,
    pub(super) groups: Groups,
    /// Numbers everything that needs an order or a name; a new one for each.
    serial: u64,
}

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In the queue.
    Waiting(PoolId, Ticket),
    /// It has a lease, or the output queue holds one for it.
    Leased(SlotId),
    /// The output queue holds its refusal.
    Refused(Ticket),
}

/// An output that has not been fetched. It is dropped on the way out when its session has changed its mind.
pub(super) enum Pending {
    Granted(SlotId, u32),
    Notice(SessionId, Place, String),
    Refused(SessionId, Ticket, Refusal),
    Close(SlotId, Closing),
}

impl Pools {
    /// No pools yet: each comes with its first request and goes with its last connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A session wants a server connection. It gets exactly one of `Granted` and `Refused`, unless it gives up.
    ///
    /// A second request of a session that has one already, or a lease, is the caller's mistake: it is logged and
    /// changes nothing.
    pub fn handle_request(&mut self, request: Request, now: Now) {
        self.handle_timeout(now);
        let Request { session, key, parameters, owner, reuse, adapts, settings } = request;
        if let Some(place) = self.places.get(&session) {
            log::error!("session {session} asked for a second server connection while it is {place:?}: ignored");
            return;
        }
        if self.switches.closed {
            return self.refuse(session, words::closed());
        }
        let id = self.pool_of(key, settings);
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.last_asked = now.tick;
            pool.company.note(&owner, now.tick);
        }
        let unadaptable = self.pools.get(&id).is_some_and(|pool| pool.unadaptable.contains(&parameters));
        let claim = Claim { session, parameters, owner, reuse, adapts: adapts && reuse && !unadaptable };
        self.handle_claim(id, claim, now);
        self.share(now);
        self.clean(id, now);
        self.tidy(id);
    }

    /// The client vanished, or cancelled, while it waited for a connection: nothing will come out for it any more.
    ///
    /// When the session holds the lease already (its connection is being opened), this changes nothing: the driver
    /// returns the lease, `Broken` when it has stopped the opening, `Clean` when it has let it finish for the next one.
    pub fn handle_gave_up(&mut self, session: SessionId, now: Now) {
        self.handle_timeout(now);
        match self.places.get(&session) {
            Some(&Place::Waiting(id, ticket)) => {
                self.take_waiter(id, ticket);
                self.pump(id, now);
                self.share(now);
                self.tidy(id);
            }
            Some(Place::Refused(_)) => {
                self.places.remove(&session);
            }
            Some(&Place::Leased(slot)) => self.withdraw(slot, now),
            None => {}
        }
    }

    /// The holder of an `Open` lease has logged in.
    pub fn handle_opened(&mut self, lease: &Lease, now: Now) {
        self.handle_timeout(now);
        if !self.is_current(lease.slot(), lease.generation(), "opened") {
            return;
        }
        self.set_opening(lease.slot(), false, now);
        let Some(slot) = self.slots.get(&lease.slot()) else { return };
        let (id, template) = (slot.pool, slot.reuse.then(|| slot.parameters.clone()));
        let for_somebody = matches!(slot.state, SlotState::Leased { session: Some(_), .. });
        self.end_backoff(id);
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.welcomed = true;
            pool.totals.opened += 1;
            // A standing one goes on with what it was given.
            pool.template = template.filter(|_| !pool.standing).or(pool.template.take());
        }
        // What was opened ahead comes back at once, and may be what the first one waits for.
        if for_somebody {
            self.pump(id, now);
            self.share(now);
            self.fill(id, now);
        }
    }

    /// The server has refused to bring a bare connection to what its holder asked for: what is opened for that from now on
    /// is not bare, nor is what the holder has opened instead, or opens next. Of any other connection it says nothing.
    pub fn handle_unadaptable(&mut self, lease: &Lease) {
        if !self.is_current(lease.slot(), lease.generation(), "unadaptable") {
            return;
        }
        let Some(slot) = self.slots.get_mut(&lease.slot()).filter(|slot| slot.bare) else { return };
        slot.bare = false;
        if let Some(pool) = self.pools.get_mut(&slot.pool) {
            if pool.unadaptable.len() == MAX_UNADAPTABLE {
                pool.unadaptable.pop_first();
            }
            pool.unadaptable.insert(slot.parameters.clone());
        }
    }

    /// The holder of an idle connection has found it dead, or unfit by its check or reset, before it used it, and opens a
    /// new one in its place. It goes on as with an `Open` lease.
    pub fn handle_reopen(&mut self, lease: &Lease, now: Now) {
        self.handle_timeout(now);
        if self.is_current(lease.slot(), lease.generation(), "to be reopened") {
            self.set_opening(lease.slot(), true, now);
            let slot = self.slots.get_mut(&lease.slot()).map(|slot| {
                slot.bare = false;
                slot.pool
            });
            if let Some(pool) = slot.and_then(|id| self.pools.get_mut(&id)) {
                pool.totals.replaced += 1;
            }
        }
    }

    /// The holder of an `Open` lease could not connect or log in. Its own client gets the error from its own driver, unless
    /// the answer is `true`: then it waits again, where it stood before.
    ///
    /// When others would meet the same error, the pool backs off; who needs a new connection until then is refused.
    #[must_use = "the session may still wait"]
    pub fn handle_open_failed(&mut self, lease: Lease, error: OpenError, now: Now) -> bool {
        self.handle_timeout(now);
        let (slot_id, generation) = lease.settle();
        if !self.is_current(slot_id, generation, "failed to open") {
            return false;
        }
        let Some(slot) = self.end_lease(slot_id) else { return false };
        let (id, is_down) = (slot.pool, error.is_down);
        let begun = Concerns::of(&error.refusal, slot.reuse)
            .is_some_and(|concerns| self.begin_backoff(id, concerns, error, now));
        let waits = begun && is_down && self.wait_on(slot);
        self.count_closed(id);
        self.pump(id, now);
        self.share(now);
        self.tidy(id);
        waits
    }

    /// A session goes back to where it stood before it was given what has led to nothing.
    fn wait_on(&mut self, slot: Slot) -> bool {
        let Slot { pool, parameters, adapts, owner, reuse, state, asked: Some(since), .. } = slot else { return false };
        let SlotState::Leased { session: Some(session), .. } = state else { return false };
        if self.switches.closed {
            return false;
        }
        self.queue(pool, Claim { session, parameters, owner, reuse, adapts }, since);
        true
    }

    /// A lease comes back. No cancel may be in flight for its connection (see [`crate::cancel`]).
    pub fn handle_release(&mut self, lease: Lease, returned: Returned, now: Now) {
        self.handle_timeout(now);
        let (slot_id, generation) = lease.settle();
        if !self.is_current(slot_id, generation, "returned") {
            return;
        }
        let Some(mut slot) = self.end_lease(slot_id) else { return };
        let id = slot.pool;
        match returned {
            Returned::Clean => {
                slot.owner = None;
                self.park(slot_id, slot, now);
            }
            Returned::Kept => self.park(slot_id, slot, now),
            Returned::Broken => self.count_closed(id),
        }
        self.make_way(id, slot_id, now);
        self.pump(id, now);
        self.share(now);
        self.fill(id, now);
        self.clean(id, now);
        self.tidy(id);
    }

    /// The holder's session has nothing to do with the connection any more, and may ask for another one; the lease comes back
    /// when the connection has been cleaned or closed.
    pub fn handle_parted(&mut self, lease: &Lease) {
        if self.is_current(lease.slot(), lease.generation(), "left")
            && let Some(slot) = self.slots.get_mut(&lease.slot())
            && let SlotState::Leased { session, .. } = &mut slot.state
            && let Some(session) = session.take()
        {
            self.places.remove(&session);
        }
    }

    /// Does what is due. Calls at any other time change nothing; every other `handle_*` catches up by itself.
    pub fn handle_timeout(&mut self, now: Now) {
        for _ in 0..TIMERS_PER_CALL {
            let Some(due) = self.timers.pop(now.tick) else { break };
            self.handle_due(due, now);
            // A queue that needs another go takes it in another call.
            if matches!(due, Due::Continue(_) | Due::Share) {
                break;
            }
        }
        self.share(now);
    }

    /// When [`Self::handle_timeout`] has work to do. A tick in the past means: again, now.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.timers.earliest()
    }

    /// The next thing to do, in order. To be called until it is `None`.
    pub fn poll_output(&mut self) -> Option<PoolOutput> {
        while let Some(pending) = self.outputs.pop_front() {
            match pending {
                Pending::Close(slot, why) => return Some(PoolOutput::Close { slot, why }),
                Pending::Granted(slot, generation) => {
                    if let Some(output) = self.hand_out(slot, generation) {
                        return Some(output);
                    }
                }
                Pending::Notice(session, place, text) => {
                    if self.waits_still(session, place) {
                        return Some(PoolOutput::Notice { session, text });
                    }
                }
                Pending::Refused(session, ticket, refusal) => {
                    if self.places.get(&session) == Some(&Place::Refused(ticket)) {
                        self.places.remove(&session);
                        return Some(PoolOutput::Refused { session, refusal });
                    }
                }
            }
        }
        None
    }

    /// Whether a session stands where it stood, or has been given something for it from which it may have to go back.
    fn waits_still(&self, session: SessionId, place: Place) -> bool {
        match (self.places.get(&session), place) {
            (Some(Place::Leased(slot)), Place::Waiting(_, ticket)) => {
                self.slots.get(slot).and_then(|slot| slot.asked).is_some_and(|since| since.ticket == ticket)
            }
            (now, before) => now == Some(&before),
        }
    }

    /// Whether the session has a request or a lease, or an answer that was not fetched. One that was fetched earlier and
    /// reaches it now is to a request of before.
    #[must_use]
    pub fn is_served(&self, session: SessionId) -> bool {
        self.places.contains_key(&session)
    }

    /// The counts of one pool; all zero when it does not exist.
    #[must_use]
    pub fn counts(&self, key: &PoolKey) -> Counts {
        self.ids.get(key).and_then(|id| self.pools.get(id)).map(Pool::counts).unwrap_or_default()
    }

    /// Whether there is nothing left: no connection, no waiter, no remembered failure, no timer.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let tables = self.ids.is_empty() && self.pools.is_empty() && self.slots.is_empty() && self.places.is_empty();
        tables && self.timers.len() == 0 && self.outputs.is_empty() && self.groups.is_empty()
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The pool of that key with these settings from now on.
    pub(super) fn pool_of(&mut self, key: PoolKey, settings: Arc<PoolSettings>) -> PoolId {
        if let Some(id) = self.ids.get(&key)
            && let Some(pool) = self.pools.get_mut(id)
        {
            pool.settings = settings;
            pool.outdated = false;
            let id = *id;
            self.timers.unset(pool.forget.take(), Due::Forget(id));
            self.free(id);
            return id;
        }
        let id = PoolId(self.next_serial());
        self.ids.insert(key.clone(), id);
        self.groups.enter(&key, id);
        let mut pool = Pool::new(key, settings);
        pool.paused = self.switches.is_paused(&pool.key.database);
        self.pools.insert(id, pool);
        id
    }

    /// Whether there is one then.
    fn begin_backoff(&mut self, id: PoolId, concerns: Concerns, error: OpenError, now: Now) -> bool {
        self.end_backoff(id);
        let many = self.pools.len() > POOLS_WITH_MEMORY;
        let Some(pool) = self.pools.get_mut(&id) else { return false };
        let retry = pool.settings.server_login_retry;
        if retry.is_zero() || (many && pool.is_unused()) {
            return false;
        }
        let OpenError { refusal, is_down } = error;
        let until = now.tick.after(retry);
        // Quoted: the text is the server's and may hold line breaks.
        let (wait, code, message) = (words::span(retry), refusal.code, &refusal.message);
        log::warn!("login of {} failed, next try in {wait}: {code} {message:?}", pool.key);
        pool.backoff = Some(Backoff { since: now.tick, until, concerns, is_down, refusal });
        self.timers.set(until, Due::Retry(id));
        true
    }

    /// Forgets that logins have failed.
    pub(super) fn end_backoff(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else { return };
        let until = pool.backoff.take().map(|backoff| backoff.until);
        self.timers.unset(until, Due::Retry(id));
        self.timers.unset(pool.caution.take(), Due::Retry(id));
    }

    /// A back-off is over, or the caution behind it.
    pub(super) fn retry(&mut self, id: PoolId, now: Now) {
        let Some(pool) = self.pools.get_mut(&id) else { return };
        let until = pool.backoff.take().map(|backoff| backoff.until.after(pool.settings.server_login_retry));
        pool.caution = until.filter(|until| *until > now.tick);
        if let Some(until) = pool.caution {
            self.timers.set(until, Due::Retry(id));
        }
    }

    /// Marks the promised connection as given to its session, if it still is.
    fn hand_out(&mut self, id: SlotId, expected: u32) -> Option<PoolOutput> {
        let slot = self.slots.get_mut(&id).filter(|it| it.generation == expected)?;
        match &mut slot.state {
            SlotState::Leased { session, how, hold: hold @ Hold::Promised(_), .. } => {
                *hold = Hold::HandedOut;
                let how = *how;
                let lease = Lease::new(id, expected);
                Some(match *session {
                    Some(session) => PoolOutput::Granted { session, lease, how },
                    None if matches!(how, How::Open | How::OpenBare) => {
                        let key = self.pools.get(&slot.pool)?.key.clone();
                        PoolOutput::Open { key, parameters: slot.parameters.clone(), lease }
                    }
                    None => PoolOutput::Clean { lease },
                })
            }
            SlotState::Leased { .. } | SlotState::Idle(_) => None,
        }
    }

    /// Whether a lease is the present one of its slot. Leases cannot be copied, so another one comes from elsewhere.
    fn is_current(&self, slot: SlotId, generation: u32, event: &str) -> bool {
        let current = self.slots.get(&slot).is_some_and(|it| {
            it.generation == generation && matches!(it.state, SlotState::Leased { hold: Hold::HandedOut, .. })
        });
        if !current {
            log::error!("lease {slot}#{generation} {event}, but it is not a current one: ignored");
        }
        current
    }
}
