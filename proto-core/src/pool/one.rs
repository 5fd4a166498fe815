//! One pool: its queue, its idle connections, its back-off, and whose turn leads to what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chores::Company;
use super::facts::PoolTotals;
use super::groups::{Kind, Standing};
use super::idle::{Idle, Match, Rest};
use super::lease::SlotId;
use super::{Counts, How, Owner, PoolKey, PoolSettings};
use crate::fault::{Refusal, SqlState};
use crate::session_id::SessionId;
use crate::time::Tick;

/// A pool, as long as it exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PoolId(pub(super) u64);

/// A place in a queue. Later requests have greater tickets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticket(pub(super) u64);

impl Ticket {
    /// Behind everybody who waits.
    pub(super) const LAST: Self = Self(u64::MAX);
}

/// Since when somebody waits, and where.
#[derive(Clone, Copy)]
pub(super) struct Since {
    pub(super) tick: Tick,
    pub(super) ticket: Ticket,
    /// Its client has been told, or never is.
    pub(super) told: bool,
}

/// What a session asked for, without the key that its pool knows already.
pub(super) struct Claim {
    pub(super) session: SessionId,
    pub(super) parameters: Arc<[u8]>,
    pub(super) owner: Owner,
    pub(super) reuse: bool,
    pub(super) adapts: bool,
}

/// A claim in the queue.
pub(super) struct Waiter {
    pub(super) claim: Claim,
    pub(super) since: Tick,
    /// When it is told that it waits; `None` once that is done, and when it never is.
    pub(super) notice: Option<Tick>,
    /// When it may use the reserve.
    pub(super) reserve: Option<Tick>,
    /// When it is refused.
    pub(super) deadline: Option<Tick>,
}

impl Waiter {
    pub(super) fn stands(&self, ticket: Ticket) -> Since {
        Since { tick: self.since, ticket, told: self.notice.is_none() }
    }

    pub(super) fn is_overdue(&self, now: Tick) -> bool {
        self.deadline.is_some_and(|at| at <= now)
    }
}

/// What a new connection is opened as.
pub(super) struct Opening {
    pub(super) parameters: Arc<[u8]>,
    pub(super) owner: Owner,
    pub(super) reuse: bool,
    pub(super) bare: bool,
}

/// A server connection.
pub(super) struct Slot {
    pub(super) pool: PoolId,
    /// What it was opened with, or brought to.
    pub(super) parameters: Arc<[u8]>,
    /// It was opened without them, and can be brought to others.
    pub(super) bare: bool,
    /// The one that it was opened for can do with such a one.
    pub(super) adapts: bool,
    /// Whose state it may hold.
    pub(super) owner: Owner,
    /// When its login ended; until then, when its opening began.
    pub(super) opened: Tick,
    /// When it was leased last.
    pub(super) last_leased: Tick,
    /// Where the session stood that it was leased to last: it may have to go back there.
    pub(super) asked: Option<Since>,
    /// An operator wants it to be replaced: it is closed at its return.
    pub(super) stale: bool,
    /// Counts its leases.
    pub(super) generation: u32,
    /// Whether it may serve a second request.
    pub(super) reuse: bool,
    pub(super) state: SlotState,
}

impl Slot {
    /// It is in use, and serves nobody when it comes back.
    pub(super) const fn is_spent(&self) -> bool {
        matches!(self.state, SlotState::Leased { opening: false, .. }) && (self.stale || !self.reuse)
    }
}

pub(super) enum SlotState {
    Leased {
        /// `None`: it is opened or cleaned for no session in particular.
        session: Option<SessionId>,
        /// Not yet logged in.
        opening: bool,
        /// How the holder began with it.
        how: How,
        hold: Hold,
    },
    Idle(Rest),
}

/// How firmly a session has a connection.
pub(super) enum Hold {
    /// The output queue holds the grant. A change of mind costs nothing: an idle connection goes back to its old place.
    Promised(Option<Before>),
    /// The driver has got the lease.
    HandedOut,
}

/// What an idle connection was before it was promised.
pub(super) struct Before {
    pub(super) rest: Rest,
    pub(super) owner: Owner,
    pub(super) parameters: Arc<[u8]>,
}

/// Whom a failed login concerns beside the session that met it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Concerns {
    /// Every new connection of the pool.
    Everyone,
    /// Every login with the account's own credentials; not those with a person's password.
    Shared,
}

impl Concerns {
    /// Decides by SQLSTATE class (PostgreSQL manual, appendix A). An error that a client's own startup parameters
    /// provoked (22, 42, 55, ...) must not lock out the others; so must not a person's mistyped password.
    pub(super) fn of(refusal: &Refusal, shared_credentials: bool) -> Option<Self> {
        // A client's cancel while the connection was being opened says nothing about the server.
        if refusal.code == SqlState::QUERY_CANCELED {
            return None;
        }
        match &refusal.code.0[..2] {
            b"08" => (refusal.code != SqlState::PROTOCOL_VIOLATION).then_some(Self::Everyone),
            b"3D" | b"53" | b"57" | b"58" | b"XX" => Some(Self::Everyone),
            b"28" => shared_credentials.then_some(Self::Shared),
            _ => None,
        }
    }
}

/// Why and how long no new connection is tried.
pub(super) struct Backoff {
    pub(super) since: Tick,
    pub(super) until: Tick,
    pub(super) concerns: Concerns,
    /// The server is not there, or not yet.
    pub(super) is_down: bool,
    pub(super) refusal: Refusal,
}

/// What happens to the claim whose turn it is.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It takes this idle connection.
    Reuse {
        slot: SlotId,
        /// As it is, or after a check or a reset.
        how: How,
    },
    /// It opens a new one; there is room.
    Open,
    /// This idle connection is in the way or too old: close it and look again.
    Evict(SlotId),
    /// A new connection would be needed, and the server has just refused one.
    Refuse,
    /// All are in use.
    Wait,
    /// There is room in its own pool, and none in what this is over.
    Starve(Kind),
}

pub(super) struct Pool {
    pub(super) key: PoolKey,
    pub(super) settings: Arc<PoolSettings>,
    pub(super) waiters: BTreeMap<Ticket, Waiter>,
    pub(super) idle: Idle,
    pub(super) opening: usize,
    pub(super) active: usize,
    /// So many of the active ones serve nobody again when they come back.
    pub(super) spent: usize,
    /// A login has succeeded since it is there, or since an operator has wanted new connections.
    pub(super) welcomed: bool,
    pub(super) backoff: Option<Backoff>,
    /// The server has refused a login not long ago, and none has succeeded since: one is tried at a time, until then.
    pub(super) caution: Option<Tick>,
    /// What its last connection for a session was opened with.
    pub(super) template: Option<Arc<[u8]>>,
    /// When somebody asked for a connection last.
    pub(super) last_asked: Tick,
    /// Who has come to it.
    pub(super) company: Company,
    /// In which line it stands, and where.
    pub(super) starved: Option<(Kind, Standing)>,
    /// Nobody gets anything until an operator says so.
    pub(super) paused: bool,
    /// It is there without anybody who asks for it.
    pub(super) standing: bool,
    /// When it is forgotten if nobody comes, or whether that is so is looked at.
    pub(super) forget: Option<Tick>,
    /// By other settings it is not what it was: it is forgotten as soon as nothing is left, unless somebody comes.
    pub(super) outdated: bool,
    /// Parameters that only a login can give.
    pub(super) unadaptable: BTreeSet<Arc<[u8]>>,
    pub(super) totals: PoolTotals,
}

impl Pool {
    pub(super) fn new(key: PoolKey, settings: Arc<PoolSettings>) -> Self {
        let (waiters, idle) = (BTreeMap::new(), Idle::default());
        let (backoff, caution, starved) = (None, None, None);
        let (opening, active, spent, totals) = (0, 0, 0, PoolTotals::default());
        let (welcomed, paused, standing, forget, outdated) = (false, false, false, None, false);
        let (template, last_asked, company) = (None, Tick::default(), Company::default());
        Self {
            key,
            settings,
            waiters,
            idle,
            opening,
            active,
            spent,
            welcomed,
            backoff,
            caution,
            template,
            last_asked,
            company,
            starved,
            paused,
            standing,
            forget,
            outdated,
            unadaptable: BTreeSet::new(),
            totals,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { idle: self.idle.len(), active: self.active, opening: self.opening, waiting: self.waiters.len() }
    }

    pub(super) fn size(&self) -> usize {
        usize::try_from(self.settings.default_pool_size).unwrap_or(usize::MAX)
    }

    /// With the reserve.
    pub(super) fn capacity(&self) -> usize {
        let reserve = if self.settings.reserve_pool_timeout.is_zero() { 0 } else { self.settings.reserve_pool_size };
        self.size().saturating_add(usize::try_from(reserve).unwrap_or(usize::MAX))
    }

    /// Whether somebody has waited long enough for the reserve.
    fn opens_reserve(&self, since: Option<Since>, now: Tick) -> bool {
        since.is_some_and(|since| since.tick.after(self.settings.reserve_pool_timeout) <= now)
    }

    /// Connections of all kinds.
    pub(super) fn total(&self) -> usize {
        self.idle.len() + self.opening + self.active
    }

    /// One that was in use has become one that serves nobody again, or the other way round.
    pub(super) fn count_spent(&mut self, before: bool, after: bool) {
        self.spent = self.spent + usize::from(after) - usize::from(before);
    }

    pub(super) fn leased(&mut self, opening: bool) -> &mut usize {
        if opening { &mut self.opening } else { &mut self.active }
    }

    /// Nothing would be lost with it, a remembered failure aside.
    pub(super) fn is_unused(&self) -> bool {
        self.total() == 0 && self.waiters.is_empty() && !self.standing
    }

    /// Nothing is left but what it remembers for `pool_idle_timeout`.
    pub(super) fn is_empty(&self) -> bool {
        self.is_unused() && self.backoff.is_none() && self.caution.is_none()
    }

    /// The back-off that stands in the way of such a claim, if one does.
    pub(super) fn backoff_for(&self, reuse: bool, now: Tick) -> Option<&Backoff> {
        self.backoff.as_ref().filter(|it| now < it.until && (reuse || it.concerns == Concerns::Everyone))
    }

    /// A back-off is over, and nobody has logged in since; its timer may not have been handled yet.
    fn is_cautious(&self, now: Tick) -> bool {
        self.caution.is_some() || self.backoff.as_ref().is_some_and(|it| it.until <= now)
    }

    /// Whether somebody who needs a new connection waits while none is tried. Who waits already stays while somebody may
    /// return a connection that serves again; but when one has come back and does not fit, waiting on would only hold up
    /// those behind.
    pub(super) fn has_hope(&self, backoff: &Backoff, since: Option<Since>) -> bool {
        let patient = self.settings.wait_for_server;
        let comes_back = self.opening + self.active > self.spent;
        self.idle.is_empty()
            && match since {
                Some(_) => comes_back || patient && backoff.is_down,
                // A server that has been there is known to be down now; where none has, it may be about to start.
                None => patient && (comes_back || backoff.is_down && !self.welcomed),
            }
    }

    /// What has to be done with an idle connection before it serves.
    fn how(&self, rest: Rest, foreign: bool, now: Tick) -> How {
        let settings = &self.settings;
        let is_checked =
            !settings.server_check_query.is_empty() && now.since(rest.since) >= settings.server_check_delay;
        match (foreign, is_checked) {
            (true, _) => How::Reset,
            (false, true) => How::Check,
            (false, false) => How::Reuse,
        }
    }

    /// Decides about the claim that is first in line. `since`: unless it has only just come and has not waited yet.
    /// `replaces`: a connection was closed for it, in whose place it may open another.
    pub(super) fn turn(&self, claim: &Claim, since: Option<Since>, replaces: bool, now: Tick) -> Turn {
        if self.paused {
            return Turn::Wait;
        }
        if claim.reuse
            && let Some(Match { slot, rest, foreign }) =
                self.idle.best(&claim.parameters, &claim.owner, claim.adapts, self.settings.server_round_robin)
        {
            // Its timer may not have been handled yet.
            return match rest.retire <= now {
                true => Turn::Evict(slot),
                false => Turn::Reuse { slot, how: self.how(rest, foreign, now) },
            };
        }
        if let Some(backoff) = self.backoff_for(claim.reuse, now) {
            let hope = || if self.has_hope(backoff, since) { Turn::Wait } else { Turn::Refuse };
            return self.adapt(claim, now).unwrap_or_else(hope);
        }
        // What is kept for nobody in particular is there for whoever comes.
        if self.standing
            && let Some(turn) = self.adapt(claim, now)
        {
            return turn;
        }
        let total = self.total();
        if total < self.size() || (total < self.capacity() && (replaces || self.opens_reserve(since, now))) {
            // Everybody at once would fall upon a server that is only just back.
            return if self.is_cautious(now) && self.opening > 0 { Turn::Wait } else { Turn::Open };
        }
        let evict = || self.idle.oldest().map_or(Turn::Wait, |(_, slot)| Turn::Evict(slot));
        self.adapt(claim, now).unwrap_or_else(evict)
    }

    /// The turn of a claim that no connection fits and that must not have another one, where there is one that can be
    /// brought to what it asks for.
    pub(super) fn adapt(&self, claim: &Claim, now: Tick) -> Option<Turn> {
        let (slot, rest) = self.idle.bare().filter(|_| claim.adapts)?;
        Some(if rest.retire <= now { Turn::Evict(slot) } else { Turn::Reuse { slot, how: How::Reset } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_off_is_over_at_its_tick_even_before_its_timer_is_handled() {
        let key = PoolKey { account: "reader".into(), database: "app".into(), own_password: false };
        let mut pool = Pool::new(key, Arc::default());
        let refusal = Refusal::new(SqlState::CONNECTION_FAILURE, "no");
        let (since, until) = (Tick::from_nanos(1), Tick::from_nanos(10));
        pool.backoff = Some(Backoff { since, until, concerns: Concerns::Everyone, is_down: false, refusal });
        assert!(pool.backoff_for(true, Tick::from_nanos(9)).is_some());
        assert!(pool.backoff_for(true, Tick::from_nanos(10)).is_none());
    }
}
