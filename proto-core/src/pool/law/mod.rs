//! The law of the pools: a walk of chosen operations beside a plain reference model, for seeded tests and fuzzing.
//!
//! One owner for each lease; never more connections than the limit; first come, first served; the most recently used
//! match; every waiter answered by its deadline; nothing for a session that gave up; nobody waits while something could
//! be done for it; nothing for those whom an operator has paused, and nothing old after a reconnect; nothing reset ahead
//! whose owner may still come; a connection with other parameters only where it can be brought to them, and no other fits; nothing left at the end. Beside the pools walks a twin that is also woken early and
//! repeatedly, and must say exactly the same.

mod deeds;
mod model;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Lease, OpenError, PoolKey, PoolSettings, Pools, Request, Returned, SlotId};
use crate::fault::{Refusal, SqlState};
use crate::session_id::SessionId;
use crate::time::{Now, Tick, UnixMicros};

const SESSIONS: usize = 48;
/// Two accounts and two databases, of which two pools share one each.
const KEYS: usize = 3;
const DATABASES: usize = 2;
const PARAMETERS: usize = 3;
const OWNERS: usize = 3;

/// Walks until `choices` are used up, then brings everything to its end. Panics when a law is broken.
///
/// Returns what happened how often, so that a caller can see that anything did.
#[must_use]
pub fn walk(choices: &[u8]) -> Seen {
    let mut choices = Choices(choices);
    let mut walk = Walk::new(&mut choices);
    while walk.step(&mut choices).is_some() {}
    walk.finish();
    walk.seen
}

/// What happened how often.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Seen {
    /// Requests that were granted.
    pub granted: usize,
    /// Requests that were refused.
    pub refused: usize,
    /// Connections that were reset ahead of who came next.
    pub cleaned: usize,
    /// Connections that were opened without startup parameters.
    pub bare: usize,
    /// Connections that were brought to other startup parameters.
    pub adapted: usize,
}

struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> Option<usize> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(usize::from(*first) % n)
    }
}

/// What the model knows about a session.
enum Stand {
    Out,
    Waiting { wish: Wish, since: Tick, order: u64, noticed: bool, again: bool },
    Holding { wish: Wish, lease: Lease, twin: Lease, opening: bool, before: Before },
}

/// Where a session stood before it got a connection.
#[derive(Clone, Copy)]
struct Before {
    since: Tick,
    order: u64,
    noticed: bool,
}

/// What is done without a session, in which pool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chore {
    Opening(usize),
    Cleaning(usize),
    /// Its session has left it.
    Parted(usize),
}

#[derive(Clone, Copy)]
struct Wish {
    key: usize,
    parameters: usize,
    owner: usize,
    reuse: bool,
    adapts: bool,
}

struct Connection {
    wish: Wish,
    /// It can be brought to other parameters.
    bare: bool,
    /// Whose state it holds.
    owner: Option<usize>,
    opened: Tick,
    /// An operator wants it to be replaced.
    stale: bool,
    /// Since when, and in which order.
    idle: Option<(Tick, u64)>,
}

#[derive(Clone, Copy)]
struct Failure {
    until: Tick,
    shared_only: bool,
    is_down: bool,
    over: bool,
}

struct Walk {
    pools: Pools,
    twin: Pools,
    now: Tick,
    /// When nothing was due any more, last.
    settled: Tick,
    settings: Arc<PoolSettings>,
    /// The size that each pool has been told last.
    sizes: [usize; KEYS],
    sessions: Vec<Stand>,
    connections: BTreeMap<SlotId, Connection>,
    failures: [Option<Failure>; KEYS],
    /// By its own pause, and by that of all.
    paused: [bool; DATABASES],
    all_paused: bool,
    order: u64,
    /// What is done for no session in particular, with the leases of both.
    ahead: Vec<(Chore, Lease, Lease)>,
    /// Whose connection was closed since the last grant.
    replaced: Option<usize>,
    /// Who asked last.
    last: usize,
    /// Since when outputs may be waiting in the queue, if they may.
    lagging: Option<Tick>,
    seen: Seen,
}

fn key(index: usize) -> PoolKey {
    let (account, database) = (format!("account{}", index % 2).into(), format!("database{}", index / 2).into());
    PoolKey { account, database, own_password: false }
}

fn secs(n: usize) -> Duration {
    Duration::from_secs(n as u64)
}

impl Walk {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut pick = |n| choices.below(n).unwrap_or(1);
        let default_pool_size = 1 + pick(4);
        let settings = PoolSettings {
            pool_mode: super::PoolMode::Transaction,
            isolation: super::Isolation::Identity,
            max_prepared_statements: 200,
            default_pool_size: default_pool_size as u32,
            min_pool_size: pick(4) as u32,
            reserve_pool_size: pick(3) as u32,
            reserve_pool_timeout: secs(pick(5)),
            max_db_connections: pick(5) as u32,
            max_user_connections: pick(6) as u32,
            max_db_client_connections: 0,
            max_user_client_connections: 0,
            server_round_robin: pick(3) == 0,
            server_lifetime: secs(pick(60)),
            server_idle_timeout: secs(pick(20)),
            // Drawn with another one.
            pool_idle_timeout: Some(secs(default_pool_size % 3)),
            server_check_delay: secs(pick(10)),
            server_check_query: ["", "select 1"][pick(2)].into(),
            server_reset_query: "".into(),
            server_reset_query_always: false,
            connect_query: None,
            track_extra_parameters: Arc::default(),
            query_wait_timeout: secs(pick(15)),
            query_wait_notify: secs(pick(6)),
            server_login_retry: secs(pick(8)),
            wait_for_server: pick(2) == 0,
        };
        Self {
            pools: Pools::new(),
            twin: Pools::new(),
            now: Tick::from_nanos(1),
            settled: Tick::from_nanos(1),
            sizes: [settings.default_pool_size as usize; KEYS],
            settings: Arc::new(settings),
            sessions: (0..SESSIONS).map(|_| Stand::Out).collect(),
            connections: BTreeMap::new(),
            failures: [None; KEYS],
            paused: [false; DATABASES],
            all_paused: false,
            order: 0,
            ahead: Vec::new(),
            replaced: None,
            last: 0,
            lagging: None,
            seen: Seen::default(),
        }
    }

    fn now(&self) -> Now {
        Now { tick: self.now, unix: UnixMicros(0) }
    }

    fn step(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let (what, who) = (choices.below(34)?, choices.below(SESSIONS)?);
        let before = self.now;
        self.nudge_twin(self.now);
        let holder = self.holder_from(who);
        if what % 3 == 0 {
            self.end_ahead(who % 6);
            self.settle();
        }
        match what {
            0..=7 => self.request(who, choices)?,
            8 => self.give_up(who),
            9 => self.change_hands(who),
            10..=15 => self.opened(holder),
            16 if who.is_multiple_of(4) => self.open_failed(holder, choices.below(4)?),
            16 | 17 => self.release(holder, Returned::Clean),
            18 => self.part(holder),
            19..=22 => self.release(holder, Returned::Kept),
            23 => self.release(holder, Returned::Broken),
            24 | 25 => self.reopen(holder),
            26 if who.is_multiple_of(8) => self.close_idle(),
            26 | 27 => self.resize(1 + who % 4),
            28 => self.advance(Duration::from_millis(100 * who as u64)),
            29 => self.advance(secs(who % 8)),
            30 => self.switch(who),
            31 if who.is_multiple_of(2) => self.reconnect(who),
            _ => self.advance_to_deadline(),
        }
        self.nudge_twin(self.now);
        // One time in four the driver is slow to fetch.
        if choices.below(4)? == 0 {
            self.lagging.get_or_insert(before);
        } else {
            self.settle();
        }
        Some(())
    }

    fn request(&mut self, who: usize, choices: &mut Choices<'_>) -> Option<()> {
        let wish = Wish {
            key: choices.below(KEYS)?,
            parameters: choices.below(PARAMETERS)?,
            owner: who % OWNERS,
            reuse: choices.below(8)? != 0,
            adapts: choices.below(4)? != 0,
        };
        self.ask(who, wish);
        Some(())
    }

    fn ask(&mut self, who: usize, wish: Wish) {
        if !matches!(self.sessions[who], Stand::Out) {
            return;
        }
        self.last = who;
        let size = self.settings.default_pool_size as usize;
        if self.sizes[wish.key] != size {
            self.settle();
            self.sizes[wish.key] = size;
        }
        let request = Request {
            session: SessionId(who as u64),
            key: key(wish.key),
            parameters: vec![wish.parameters as u8; 8].into(),
            owner: Some(format!("owner {}", wish.owner).into()),
            reuse: wish.reuse,
            adapts: wish.adapts,
            settings: self.settings.clone(),
        };
        self.order += 1;
        self.sessions[who] = Stand::Waiting { wish, since: self.now, order: self.order, noticed: false, again: false };
        let now = self.now();
        self.pools.handle_request(request.clone(), now);
        self.twin.handle_request(request, now);
    }

    /// Whoever asked last gives up, maybe before the grant was fetched, and somebody else asks for the same.
    fn change_hands(&mut self, who: usize) {
        if let Stand::Waiting { wish, .. } = self.sessions[self.last] {
            self.give_up(self.last);
            self.ask(who, wish);
        }
    }

    fn give_up(&mut self, who: usize) {
        let (session, now) = (SessionId(who as u64), self.now());
        for pools in [&mut self.pools, &mut self.twin] {
            pools.handle_gave_up(session, now);
            pools.handle_gave_up(session, now);
        }
        if matches!(self.sessions[who], Stand::Waiting { .. }) {
            self.sessions[who] = Stand::Out;
        }
    }

    fn opened(&mut self, who: usize) {
        let now = self.now();
        if let Stand::Holding { wish, lease, twin, opening: opening @ true, .. } = &mut self.sessions[who] {
            *opening = false;
            self.pools.handle_opened(lease, now);
            self.twin.handle_opened(twin, now);
            if let Some(connection) = self.connections.get_mut(&lease.slot()) {
                connection.opened = self.now;
            }
            if let Some(failure) = &mut self.failures[wish.key] {
                failure.over = true;
            }
        }
    }

    fn open_failed(&mut self, who: usize, how: usize) {
        let Stand::Holding { before, .. } = self.sessions[who] else { return };
        let Some((wish, lease, twin)) = self.take_lease(who, true) else { return };
        let (code, shared_only, is_down) = [
            (SqlState::CONNECTION_FAILURE, false, true),
            (SqlState::CANNOT_CONNECT, false, false),
            (SqlState::INVALID_PASSWORD, true, false),
            (SqlState(*b"22023"), false, false),
        ][how];
        let concerns_others = how < 2 || (how == 2 && wish.reuse);
        if concerns_others {
            self.failed(wish.key, shared_only, is_down);
        }
        self.connections.remove(&lease.slot());
        let error = OpenError { refusal: Refusal::new(code, format!("down {}", wish.key)), is_down };
        let settings = &self.settings;
        let waits = is_down && settings.wait_for_server && !settings.server_login_retry.is_zero();
        if waits {
            let Before { since, order, noticed } = before;
            self.sessions[who] = Stand::Waiting { wish, since, order, noticed, again: true };
        }
        let now = self.now();
        assert_eq!(self.pools.handle_open_failed(lease, error.clone(), now), waits, "who goes on waiting");
        assert_eq!(self.twin.handle_open_failed(twin, error, now), waits, "the twin differs");
    }

    fn failed(&mut self, key: usize, shared_only: bool, is_down: bool) {
        if !self.settings.server_login_retry.is_zero() {
            let until = self.now.after(self.settings.server_login_retry);
            self.failures[key] = Some(Failure { until, shared_only, is_down, over: false });
        }
    }

    fn release(&mut self, who: usize, returned: Returned) {
        let Some((wish, lease, twin)) =
            self.take_lease(who, returned == Returned::Broken && self.order.is_multiple_of(2))
        else {
            return;
        };
        self.order += 1;
        let (now, order) = (self.now(), self.order);
        match returned {
            Returned::Broken => {
                self.connections.remove(&lease.slot());
            }
            Returned::Clean | Returned::Kept => {
                if let Some(connection) = self.connections.get_mut(&lease.slot()) {
                    connection.owner = (returned == Returned::Kept).then_some(wish.owner);
                    connection.idle = Some((now.tick, order));
                }
            }
        }
        self.pools.handle_release(lease, returned, now);
        self.twin.handle_release(twin, returned, now);
    }

    /// The first session from there on that holds a lease, or the one named when none does.
    fn holder_from(&self, who: usize) -> usize {
        let mut all = (0..SESSIONS).map(|n| (who + n) % SESSIONS);
        all.find(|it| matches!(self.sessions[*it], Stand::Holding { .. })).unwrap_or(who)
    }

    /// The session's leases, when it holds some in that phase.
    fn take_lease(&mut self, who: usize, phase: bool) -> Option<(Wish, Lease, Lease)> {
        match std::mem::replace(&mut self.sessions[who], Stand::Out) {
            Stand::Holding { wish, lease, twin, opening, .. } if opening == phase => Some((wish, lease, twin)),
            other => {
                self.sessions[who] = other;
                None
            }
        }
    }

    fn reopen(&mut self, who: usize) {
        let now = self.now();
        if let Stand::Holding { lease, twin, opening, .. } = &mut self.sessions[who] {
            if !std::mem::replace(opening, true)
                && let Some(connection) = self.connections.get_mut(&lease.slot())
            {
                connection.stale = false;
            }
            if let Some(connection) = self.connections.get_mut(&lease.slot()) {
                connection.bare = false;
            }
            self.pools.handle_reopen(lease, now);
            self.twin.handle_reopen(twin, now);
        }
    }

    fn resize(&mut self, size: usize) {
        let settings = PoolSettings { default_pool_size: size as u32, ..(*self.settings).clone() };
        self.settings = Arc::new(settings);
    }

    fn advance(&mut self, span: Duration) {
        self.now = self.now.after(span);
        self.nudge_twin(self.now);
    }

    /// Wakes the twin although nothing is due: early, or once more.
    fn nudge_twin(&mut self, tick: Tick) {
        if self.twin.poll_timeout().is_none_or(|due| due.at > tick) {
            self.twin.handle_timeout(Now { tick, unix: UnixMicros(0) });
            self.twin.handle_timeout(Now { tick, unix: UnixMicros(0) });
        }
    }

    fn advance_to_deadline(&mut self) {
        if let Some(deadline) = self.pools.poll_timeout() {
            self.now = self.now.max(deadline.at);
        }
    }

    /// Every lease comes back, so everybody who waits must be answered, and nothing may be left in the end.
    fn finish(&mut self) {
        self.settle();
        for index in 0..=DATABASES {
            if self.paused.get(index).copied().unwrap_or(self.all_paused) {
                self.switch(index);
            }
        }
        for _ in 0..4 * SESSIONS {
            let (mut held, mut waiting) = (!self.ahead.is_empty(), false);
            while !self.ahead.is_empty() {
                self.end_ahead(2);
                self.settle();
            }
            for who in 0..SESSIONS {
                waiting |= matches!(self.sessions[who], Stand::Waiting { .. });
                if matches!(self.sessions[who], Stand::Holding { .. }) {
                    held = true;
                    self.opened(who);
                    self.settle();
                    self.release(who, Returned::Clean);
                    self.settle();
                }
            }
            if !held && !waiting {
                break;
            }
            if !held {
                assert!(self.pools.poll_timeout().is_some(), "somebody waits for ever");
                self.advance_to_deadline();
                self.settle();
            }
        }
        assert!(self.sessions.iter().all(|it| matches!(it, Stand::Out)), "somebody was never answered");
        while self.pools.poll_timeout().is_some() {
            self.advance_to_deadline();
            self.settle();
            while !self.ahead.is_empty() {
                self.end_ahead(2);
                self.settle();
            }
        }
        assert!(self.pools.is_empty() && self.twin.is_empty(), "something is left");
    }
}
