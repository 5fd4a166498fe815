//! What follows from each event: whose turn it is, what a queue does, where a connection goes.

use super::idle::{Rest, Stamp};
use super::lease::SlotId;
use super::one::{Before, Claim, Hold, Opening, PoolId, Since, Slot, SlotState, Ticket, Turn, Waiter};
use super::pools::{Pending, Place, Pools};
use super::timers::Due;
use super::{Closing, How, words};
use crate::fault::Refusal;
use crate::session_id::SessionId;
use crate::time::{Now, Tick};

/// Waiters that one call serves or refuses; the rest is due at once.
const TURNS_PER_CALL: usize = 32;

impl Pools {
    /// A claim has come: it is served, refused, or queued behind those that came before.
    pub(super) fn handle_claim(&mut self, id: PoolId, claim: Claim, now: Now) {
        let Some(pool) = self.pools.get(&id) else { return };
        if pool.waiters.is_empty() {
            if let Some(claim) = self.serve(id, claim, None, now) {
                self.enqueue(id, claim, now);
                // Into the line of what it waits for.
                self.pump(id, now);
            }
            return;
        }
        // Nobody joins the queue of a pool that cannot open connections: a queue means that none is idle either.
        if !pool.paused
            && let Some(backoff) = pool.backoff_for(claim.reuse, now.tick)
            && !pool.has_hope(backoff, None)
        {
            let refusal = words::backing_off(pool, backoff, now.tick);
            self.refuse(claim.session, refusal);
        } else {
            self.enqueue(id, claim, now);
        }
        // New settings may have made room.
        self.pump(id, now);
    }

    /// Serves waiters from the front as long as their turn leads to something.
    pub(super) fn pump(&mut self, id: PoolId, now: Now) {
        self.unstarve(id);
        for _ in 0..TURNS_PER_CALL {
            let Some(pool) = self.pools.get(&id) else { return };
            let Some((&ticket, waiter)) = pool.waiters.first_key_value() else { return };
            if waiter.is_overdue(now.tick) {
                self.refuse_overdue(id, ticket, now);
                continue;
            }
            let since = Some(waiter.stands(ticket));
            match self.turn(pool, &waiter.claim, since, false, now.tick) {
                Turn::Wait => return,
                Turn::Starve(kind) => return self.starve(id, ticket, kind),
                Turn::Reuse { .. } | Turn::Open | Turn::Evict(_) | Turn::Refuse => {}
            }
            let Some(waiter) = self.take_waiter(id, ticket) else { return };
            if let Some(claim) = self.serve(id, waiter.claim, since, now) {
                // Making room has led to nothing because there are more than a limit that was lowered: back to the front.
                self.requeue(id, ticket, Waiter { claim, ..waiter });
            }
        }
        self.timers.set(now.tick, Due::Continue(id));
        // Until then nobody of another pool gets before those who are left.
        self.stay_in_line(id);
    }

    /// Gives the claim what its turn leads to; hands it back when it has to wait. `since`: it waits already.
    fn serve(&mut self, id: PoolId, claim: Claim, since: Option<Since>, now: Now) -> Option<Claim> {
        let mut replaces = false;
        loop {
            let Some(pool) = self.pools.get(&id) else { return Some(claim) };
            match self.turn(pool, &claim, since, replaces, now.tick) {
                Turn::Evict(slot) => {
                    let (before, whose) = (pool.total(), self.close_slot(slot, Closing::Evicted));
                    // Where a limit was lowered, a place is not filled again.
                    replaces |= whose == Some(id) && self.pools.get(&id).is_some_and(|it| before <= it.capacity());
                    if let Some(other) = whose.filter(|whose| *whose != id) {
                        self.tidy(other);
                    }
                }
                Turn::Reuse { slot, how } => {
                    self.count_lease(id, since, now);
                    self.grant_idle(slot, how, claim, since, now);
                    return None;
                }
                Turn::Open => {
                    if pool.total() >= pool.size() && !replaces {
                        log::info!("{}: taking connection from reserve_pool for session {}", pool.key, claim.session);
                    }
                    self.count_lease(id, since, now);
                    let bare = replaces && claim.adapts;
                    self.grant_new(id, claim, since, bare, now);
                    return None;
                }
                Turn::Refuse => {
                    let refusal = pool
                        .backoff_for(claim.reuse, now.tick)
                        .map(|backoff| words::backing_off(pool, backoff, now.tick));
                    if let Some(refusal) = refusal {
                        self.refuse(claim.session, refusal);
                    }
                    return None;
                }
                Turn::Wait | Turn::Starve(_) => return Some(claim),
            }
        }
    }

    fn count_lease(&mut self, id: PoolId, since: Option<Since>, now: Now) {
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.totals.lease(since.map(|since| now.tick.since(since.tick)));
        }
    }

    fn grant_new(&mut self, id: PoolId, claim: Claim, since: Option<Since>, bare: bool, now: Now) {
        let Claim { session, parameters, owner, reuse, adapts } = claim;
        let asked = self.stood(id, since, now);
        let slot = self.begin_slot(id, Some(session), Opening { parameters, owner, reuse, bare }, now);
        if let Some(slot) = self.slots.get_mut(&slot) {
            (slot.asked, slot.adapts) = (asked, adapts);
        }
        self.places.insert(session, Place::Leased(slot));
    }

    /// Where a session is to stand if it has to wait on: who is served at once has come behind all others.
    fn stood(&mut self, id: PoolId, since: Option<Since>, now: Now) -> Option<Since> {
        let settings = &self.pools.get(&id)?.settings;
        if !settings.wait_for_server {
            return None;
        }
        let told = settings.query_wait_notify.is_zero();
        since.or_else(|| Some(Since { tick: now.tick, ticket: Ticket(self.next_serial()), told }))
    }

    /// A connection is to be opened: for a session, or ahead of whoever comes next.
    pub(super) fn begin_slot(&mut self, id: PoolId, session: Option<SessionId>, what: Opening, now: Now) -> SlotId {
        let slot = SlotId(self.next_serial());
        let Opening { parameters, owner, reuse, bare } = what;
        let how = if bare { How::OpenBare } else { How::Open };
        let state = SlotState::Leased { session, opening: true, how, hold: Hold::Promised(None) };
        let (opened, last_leased) = (now.tick, now.tick);
        let (stale, generation, asked, adapts) = (false, 0, None, false);
        let connection = Slot {
            pool: id,
            parameters,
            bare,
            adapts,
            owner,
            opened,
            last_leased,
            asked,
            stale,
            generation,
            reuse,
            state,
        };
        self.slots.insert(slot, connection);
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.opening += 1;
            self.groups.opened(&pool.key);
        }
        self.outputs.push_back(Pending::Granted(slot, generation));
        slot
    }

    fn grant_idle(&mut self, id: SlotId, how: How, claim: Claim, since: Option<Since>, now: Now) {
        let Some(rest) = self.leave_idle(id) else { return };
        let asked = self.slots.get(&id).map(|slot| slot.pool).and_then(|pool| self.stood(pool, since, now));
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let session = claim.session;
        (slot.asked, slot.adapts) = (asked, claim.adapts);
        self.places.insert(session, Place::Leased(id));
        slot.generation = slot.generation.wrapping_add(1);
        slot.last_leased = now.tick;
        let owner = std::mem::replace(&mut slot.owner, claim.owner);
        let parameters = std::mem::replace(&mut slot.parameters, claim.parameters);
        let (session, hold) = (Some(session), Hold::Promised(Some(Before { rest, owner, parameters })));
        slot.state = SlotState::Leased { session, opening: false, how, hold };
        self.outputs.push_back(Pending::Granted(id, slot.generation));
        if let Some(pool) = self.pools.get_mut(&slot.pool) {
            pool.active += 1;
        }
    }

    pub(super) fn refuse(&mut self, session: SessionId, refusal: Refusal) {
        let ticket = Ticket(self.next_serial());
        self.places.insert(session, Place::Refused(ticket));
        self.outputs.push_back(Pending::Refused(session, ticket, refusal));
    }

    fn refuse_overdue(&mut self, id: PoolId, ticket: Ticket, now: Now) {
        let Some(waiter) = self.take_waiter(id, ticket) else { return };
        let Some(pool) = self.pools.get(&id) else { return };
        let refusal = match pool.backoff_for(waiter.claim.reuse, now.tick) {
            Some(backoff) => words::backing_off(pool, backoff, now.tick),
            None => words::waited_too_long(pool, now.tick.since(waiter.since)),
        };
        self.refuse(waiter.claim.session, refusal);
    }

    fn enqueue(&mut self, id: PoolId, claim: Claim, now: Now) {
        let ticket = Ticket(self.next_serial());
        self.queue(id, claim, Since { tick: now.tick, ticket, told: false });
    }

    /// Into the queue, at the place that it has by its ticket.
    pub(super) fn queue(&mut self, id: PoolId, claim: Claim, since: Since) {
        let Some(pool) = self.pools.get(&id) else { return };
        let after = |span: std::time::Duration| (!span.is_zero()).then(|| since.tick.after(span));
        let (notice, deadline) = (after(pool.settings.query_wait_notify), after(pool.settings.query_wait_timeout));
        let reserve = after(pool.settings.reserve_pool_timeout).filter(|_| pool.settings.reserve_pool_size > 0);
        let notice = notice.filter(|_| !since.told);
        self.requeue(id, since.ticket, Waiter { claim, since: since.tick, notice, reserve, deadline });
    }

    fn requeue(&mut self, id: PoolId, ticket: Ticket, waiter: Waiter) {
        let Some(pool) = self.pools.get_mut(&id) else { return };
        self.places.insert(waiter.claim.session, Place::Waiting(id, ticket));
        if let Some(at) = waiter.notice {
            self.timers.set(at, Due::Notice(id, ticket));
        }
        if let Some(at) = waiter.reserve {
            self.timers.set(at, Due::Reserve(id, ticket));
        }
        if let Some(at) = waiter.deadline {
            self.timers.set(at, Due::Wait(id, ticket));
        }
        pool.waiters.insert(ticket, waiter);
    }

    /// Takes a waiter out of its queue, with its timers and its session's place.
    pub(super) fn take_waiter(&mut self, id: PoolId, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.pools.get_mut(&id)?.waiters.remove(&ticket)?;
        self.timers.unset(waiter.notice, Due::Notice(id, ticket));
        self.timers.unset(waiter.reserve, Due::Reserve(id, ticket));
        self.timers.unset(waiter.deadline, Due::Wait(id, ticket));
        self.places.remove(&waiter.claim.session);
        Some(waiter)
    }

    /// A returned, clean connection: idle, or closed when it may not be used again.
    pub(super) fn park(&mut self, id: SlotId, slot: Slot, now: Now) {
        let stamp = Stamp(self.next_serial());
        let Some(pool) = self.pools.get(&slot.pool) else { return };
        let settings = &pool.settings;
        let age = now.tick.since(slot.opened);
        let never_opened = matches!(slot.state, SlotState::Leased { opening: true, .. });
        if never_opened || !slot.reuse || age >= settings.server_lifetime {
            self.outputs.push_back(Pending::Close(id, Closing::Lifetime));
            return self.count_closed(slot.pool);
        }
        let end = slot.opened.after(settings.server_lifetime);
        let unused = settings.server_idle_timeout;
        let retire = if unused.is_zero() { end } else { end.min(now.tick.after(unused)) };
        self.rest(id, slot, Rest { stamp, since: now.tick, retire });
    }

    /// Puts a connection among the idle ones, unless the pool has become too small for it.
    fn rest(&mut self, id: SlotId, mut slot: Slot, rest: Rest) {
        let Some(pool) = self.pools.get_mut(&slot.pool) else { return };
        // `end_lease` has taken it off the books already: with it there would be one more.
        let why = match (slot.stale, pool.paused) {
            (true, _) => Some(Closing::Stale),
            (false, true) => Some(Closing::Paused),
            (false, false) => (pool.total() >= pool.capacity()).then_some(Closing::Surplus),
        };
        if let Some(why) = why {
            self.outputs.push_back(Pending::Close(id, why));
            return self.count_closed(slot.pool);
        }
        self.timers.set(rest.retire, Due::Retire(id));
        pool.idle.insert(id, &slot, rest);
        slot.state = SlotState::Idle(rest);
        let pool = slot.pool;
        self.slots.insert(id, slot);
        self.free(pool);
    }

    /// An idle connection is idle no more; the caller puts it to use or takes it off the books.
    pub(super) fn leave_idle(&mut self, id: SlotId) -> Option<Rest> {
        let slot = self.slots.get(&id)?;
        let SlotState::Idle(rest) = slot.state else { return None };
        self.timers.unset(Some(rest.retire), Due::Retire(id));
        if let Some(pool) = self.pools.get_mut(&slot.pool) {
            pool.idle.remove(rest.stamp);
        }
        Some(rest)
    }

    pub(super) fn close_slot(&mut self, id: SlotId, why: Closing) -> Option<PoolId> {
        self.leave_idle(id)?;
        let slot = self.slots.remove(&id)?;
        self.outputs.push_back(Pending::Close(id, why));
        self.count_closed(slot.pool);
        Some(slot.pool)
    }

    /// Takes a leased connection off the books, and its session's place with it.
    pub(super) fn end_lease(&mut self, id: SlotId) -> Option<Slot> {
        let slot = self.slots.get(&id)?;
        let SlotState::Leased { session, opening, .. } = slot.state else { return None };
        if let Some(pool) = self.pools.get_mut(&slot.pool) {
            *pool.leased(opening) -= 1;
            pool.count_spent(slot.is_spent(), false);
            pool.company.cleaning.take_if(|cleaning| *cleaning == id);
        }
        if let Some(session) = session {
            self.places.remove(&session);
        }
        self.slots.remove(&id)
    }

    /// Moves a leased connection between being opened and being in use.
    pub(super) fn set_opening(&mut self, id: SlotId, value: bool, now: Now) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let was_spent = slot.is_spent();
        let SlotState::Leased { opening, .. } = &mut slot.state else { return };
        let before = std::mem::replace(opening, value);
        if before == value {
            return;
        }
        slot.opened = now.tick;
        // A new connection is what the operator wanted.
        slot.stale &= !value;
        if let Some(pool) = self.pools.get_mut(&slot.pool) {
            *pool.leased(before) -= 1;
            *pool.leased(value) += 1;
            pool.count_spent(was_spent, slot.is_spent());
        }
    }

    /// The session does not want what it was promised. What it has in its hands already, it returns itself.
    pub(super) fn withdraw(&mut self, id: SlotId, now: Now) {
        let Some(slot) = self.slots.get(&id) else { return };
        if !matches!(slot.state, SlotState::Leased { hold: Hold::Promised(_), .. }) {
            return;
        }
        let Some(mut slot) = self.end_lease(id) else { return };
        let pool = slot.pool;
        if let SlotState::Leased { hold: Hold::Promised(before), opening: false, .. } = &mut slot.state
            && let Some(Before { rest, owner, parameters }) = before.take()
        {
            (slot.owner, slot.parameters) = (owner, parameters);
            self.rest(id, slot, rest);
        } else {
            self.count_closed(pool);
        }
        self.pump(pool, now);
        self.share(now);
        self.tidy(pool);
    }

    pub(super) fn handle_due(&mut self, due: Due, now: Now) {
        match due {
            Due::Notice(id, ticket) => self.notify(id, ticket, now.tick),
            Due::Wait(id, ticket) => {
                self.refuse_overdue(id, ticket, now);
                self.pump(id, now);
                self.tidy(id);
            }
            Due::Retire(slot) => {
                let why = if self.has_lived(slot, now.tick) { Closing::Lifetime } else { Closing::Unused };
                if let Some(id) = self.close_slot(slot, why) {
                    self.pump(id, now);
                    self.fill(id, now);
                    self.tidy(id);
                }
            }
            Due::Reserve(id, ticket) => {
                if let Some(waiter) = self.pools.get_mut(&id).and_then(|pool| pool.waiters.get_mut(&ticket)) {
                    waiter.reserve = None;
                }
                self.pump(id, now);
                self.tidy(id);
            }
            Due::Clean(id) => {
                if let Some(pool) = self.pools.get_mut(&id) {
                    pool.company.look = None;
                }
                self.clean(id, now);
            }
            Due::Share => {}
            Due::Forget(id) => self.expire(id, now),
            Due::Retry(id) => {
                self.retry(id, now);
                self.pump(id, now);
                self.fill(id, now);
                self.tidy(id);
            }
            Due::Continue(id) => {
                self.pump(id, now);
                self.fill(id, now);
                self.tidy(id);
            }
        }
    }

    /// Whether a connection has had its `server_lifetime`.
    fn has_lived(&self, id: SlotId, now: Tick) -> bool {
        let Some(slot) = self.slots.get(&id) else { return false };
        self.pools.get(&slot.pool).is_some_and(|pool| now.since(slot.opened) >= pool.settings.server_lifetime)
    }

    fn notify(&mut self, id: PoolId, ticket: Ticket, now: Tick) {
        let Some(pool) = self.pools.get_mut(&id) else { return };
        let Some(waiter) = pool.waiters.get_mut(&ticket) else { return };
        waiter.notice = None;
        let (session, waited) = (waiter.claim.session, now.since(waiter.since));
        let text = words::notice(pool, ticket, waited, now);
        self.outputs.push_back(Pending::Notice(session, Place::Waiting(id, ticket), text));
    }
}
