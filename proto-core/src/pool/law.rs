//! The law of the pools: a walk of chosen operations beside a plain reference model, for seeded tests and fuzzing.
//!
//! One owner for each lease; never more connections than the limit; first come, first served; the most recently used
//! match; every waiter answered by its deadline; nothing for a session that gave up; nobody waits while something could
//! be done for it; nothing left at the end. Beside the pools walks a twin that is also woken early and repeatedly, and
//! must say exactly the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Counts, How, Lease, PoolKey, PoolOutput, PoolSettings, Pools, Request, Returned, SlotId};
use crate::fault::{Refusal, SqlState};
use crate::session_id::SessionId;
use crate::time::{Now, Tick, UnixMicros};

const SESSIONS: usize = 48;
const KEYS: usize = 3;
const PARAMETERS: usize = 3;

/// Walks until `choices` are used up, then brings everything to its end. Panics when a law is broken.
///
/// Returns how many requests were granted and how many refused, so that a caller can see that something happened.
#[must_use]
pub fn walk(choices: &[u8]) -> (usize, usize) {
    let mut choices = Choices(choices);
    let mut walk = Walk::new(&mut choices);
    while walk.step(&mut choices).is_some() {}
    walk.finish();
    (walk.granted, walk.refused)
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
    Waiting { wish: Wish, since: Tick, order: u64, noticed: bool },
    Holding { wish: Wish, lease: Lease, twin: Lease, opening: bool },
}

#[derive(Clone, Copy)]
struct Wish {
    key: usize,
    parameters: usize,
    reuse: bool,
}

struct Connection {
    wish: Wish,
    opened: Tick,
    /// Since when, and in which order.
    idle: Option<(Tick, u64)>,
}

#[derive(Clone, Copy)]
struct Failure {
    until: Tick,
    shared_only: bool,
    over: bool,
}

struct Walk {
    pools: Pools,
    twin: Pools,
    now: Tick,
    settings: Arc<PoolSettings>,
    /// The size that each pool has been told last.
    sizes: [usize; KEYS],
    sessions: Vec<Stand>,
    connections: BTreeMap<SlotId, Connection>,
    failures: [Option<Failure>; KEYS],
    order: u64,
    /// Since when outputs may be waiting in the queue, if they may.
    lagging: Option<Tick>,
    granted: usize,
    refused: usize,
}

fn key(index: usize) -> PoolKey {
    PoolKey { account: format!("account{}", index % 2).into(), database: format!("database{index}").into() }
}

fn secs(n: usize) -> Duration {
    Duration::from_secs(n as u64)
}

impl Walk {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut pick = |n| choices.below(n).unwrap_or(1);
        let settings = PoolSettings {
            default_pool_size: 1 + pick(4) as u32,
            server_lifetime: secs(pick(60)),
            server_idle_timeout: secs(pick(20)),
            query_wait_timeout: secs(pick(15)),
            query_wait_notify: secs(pick(6)),
            server_login_retry: secs(pick(8)),
        };
        Self {
            pools: Pools::new(),
            twin: Pools::new(),
            now: Tick::from_nanos(1),
            sizes: [settings.default_pool_size as usize; KEYS],
            settings: Arc::new(settings),
            sessions: (0..SESSIONS).map(|_| Stand::Out).collect(),
            connections: BTreeMap::new(),
            failures: [None; KEYS],
            order: 0,
            lagging: None,
            granted: 0,
            refused: 0,
        }
    }

    fn now(&self) -> Now {
        Now { tick: self.now, unix: UnixMicros(0) }
    }

    fn step(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let (what, who) = (choices.below(32)?, choices.below(SESSIONS)?);
        let before = self.now;
        self.nudge_twin(self.now);
        let holder = self.holder_from(who);
        match what {
            0..=7 => self.request(who, choices)?,
            8..=9 => self.give_up(who),
            10..=15 => self.opened(holder),
            16 if who.is_multiple_of(4) => self.open_failed(holder, choices.below(4)?),
            16..=22 => self.release(holder, Returned::Clean),
            23 => self.release(holder, Returned::Broken),
            24 => self.reopen(holder),
            25 => self.idle_lost(who),
            26 if who.is_multiple_of(8) => self.close_all_idle(),
            26 | 27 => self.resize(1 + who % 4),
            28 => self.advance(Duration::from_millis(100 * who as u64)),
            29 => self.advance(secs(who % 8)),
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
        let wish =
            Wish { key: choices.below(KEYS)?, parameters: choices.below(PARAMETERS)?, reuse: choices.below(8)? != 0 };
        if !matches!(self.sessions[who], Stand::Out) {
            return Some(());
        }
        let size = self.settings.default_pool_size as usize;
        if self.sizes[wish.key] != size {
            self.settle();
            self.sizes[wish.key] = size;
        }
        let request = Request {
            session: SessionId(who as u64),
            key: key(wish.key),
            parameters: vec![wish.parameters as u8; 8].into(),
            reuse: wish.reuse,
            settings: self.settings.clone(),
        };
        self.order += 1;
        self.sessions[who] = Stand::Waiting { wish, since: self.now, order: self.order, noticed: false };
        let now = self.now();
        self.pools.handle_request(request.clone(), now);
        self.twin.handle_request(request, now);
        Some(())
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
        if let Stand::Holding { wish, lease, twin, opening: opening @ true } = &mut self.sessions[who] {
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
        let Some((wish, lease, twin)) = self.take_lease(who, true) else { return };
        let (code, shared_only) = [
            (SqlState::CONNECTION_FAILURE, false),
            (SqlState::CANNOT_CONNECT_NOW, false),
            (SqlState::INVALID_PASSWORD, true),
            (SqlState(*b"22023"), false),
        ][how];
        let concerns_others = how < 2 || (how == 2 && wish.reuse);
        if concerns_others && !self.settings.server_login_retry.is_zero() {
            let until = self.now.after(self.settings.server_login_retry);
            self.failures[wish.key] = Some(Failure { until, shared_only, over: false });
        }
        self.connections.remove(&lease.slot());
        let (refusal, now) = (Refusal::new(code, format!("down {}", wish.key)), self.now());
        self.pools.handle_open_failed(lease, refusal.clone(), now);
        self.twin.handle_open_failed(twin, refusal, now);
    }

    fn release(&mut self, who: usize, returned: Returned) {
        let Some((_, lease, twin)) = self.take_lease(who, returned == Returned::Broken && self.order.is_multiple_of(2))
        else {
            return;
        };
        self.order += 1;
        let (now, order) = (self.now(), self.order);
        match returned {
            Returned::Broken => {
                self.connections.remove(&lease.slot());
            }
            Returned::Clean => {
                if let Some(connection) = self.connections.get_mut(&lease.slot()) {
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
            Stand::Holding { wish, lease, twin, opening } if opening == phase => Some((wish, lease, twin)),
            other => {
                self.sessions[who] = other;
                None
            }
        }
    }

    fn reopen(&mut self, who: usize) {
        let now = self.now();
        if let Stand::Holding { lease, twin, opening, .. } = &mut self.sessions[who] {
            *opening = true;
            self.pools.handle_reopen(lease, now);
            self.twin.handle_reopen(twin, now);
        }
    }

    fn idle_lost(&mut self, nth: usize) {
        // The driver knows of sockets what it has been told: that is exact only when it has fetched everything.
        self.settle();
        let idle = |connection: &Connection| connection.idle.is_some();
        let slot = self.connections.iter().filter(|(_, it)| idle(it)).map(|(slot, _)| *slot).nth(nth % 4);
        let slot = slot.inspect(|slot| drop(self.connections.remove(slot))).unwrap_or(SlotId(u64::MAX));
        let now = self.now();
        for pools in [&mut self.pools, &mut self.twin] {
            pools.handle_idle_lost(slot, now);
            pools.handle_idle_lost(slot, now);
        }
    }

    fn close_all_idle(&mut self) {
        self.pools.close_all_idle();
        self.twin.close_all_idle();
        self.settle();
        assert!(self.connections.values().all(|it| it.idle.is_none()), "an idle connection survived close_all_idle");
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

    /// Does what is due, fetches everything, and compares with the model.
    fn settle(&mut self) {
        self.fetch();
        while let Some(deadline) = self.pools.poll_timeout()
            && deadline.at <= self.now
        {
            self.pools.handle_timeout(self.now());
            self.twin.handle_timeout(self.now());
            self.fetch();
        }
        self.lagging = None;
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
        let Stand::Waiting { wish, order, .. } = std::mem::replace(&mut self.sessions[who], Stand::Out) else {
            panic!("session {session} got a connection and did not wait for one")
        };
        let earlier = self.sessions.iter().any(
            |it| matches!(it, Stand::Waiting { wish: other, order: o, .. } if other.key == wish.key && *o < order),
        );
        assert!(!earlier, "session {session} overtook somebody");
        match how {
            How::Open => self.granted_new(wish, lease.slot()),
            How::Reuse => self.granted_idle(wish, lease.slot()),
        }
        self.granted += 1;
        self.sessions[who] = Stand::Holding { wish, lease, twin, opening: how == How::Open };
    }

    fn granted_new(&mut self, wish: Wish, slot: SlotId) {
        let fits = |it: &&Connection| it.idle.is_some() && serves(it, wish);
        let missed = wish.reuse && self.connections.values().any(|it| fits(&it));
        assert!(self.lagging.is_some() || !missed, "missed a match");
        assert!(self.total(wish.key) < self.sizes[wish.key], "the pool is above its limit");
        let fresh = Connection { wish, opened: self.now, idle: None };
        assert!(self.connections.insert(slot, fresh).is_none(), "a slot was used twice");
    }

    fn granted_idle(&mut self, wish: Wish, slot: SlotId) {
        assert!(wish.reuse, "somebody with an own password got a used connection");
        let Some((_, order)) = self.connections.get(&slot).and_then(|it| it.idle) else {
            panic!("connection {slot} has two owners, or does not exist")
        };
        let fits = |it: &&Connection| serves(it, wish);
        let newer = self.connections.values().filter(fits).filter_map(|it| it.idle).any(|(_, other)| other > order);
        assert!(self.lagging.is_some() || !newer, "not the most recently used one");
        let (decided, lifetime) = (self.lagging.unwrap_or(self.now), self.settings.server_lifetime);
        let Some(connection) = self.connections.get_mut(&slot) else { return };
        assert!(serves(connection, wish), "a connection of another kind");
        assert!(connection.opened.after(lifetime) > decided, "a connection beyond its lifetime");
        connection.idle = None;
    }

    fn told(&mut self, output: PoolOutput) {
        match output {
            PoolOutput::Granted { .. } => unreachable!("handled by the caller"),
            PoolOutput::Close { slot } => {
                let closed = self.connections.remove(&slot);
                assert!(closed.is_some_and(|it| it.idle.is_some()), "closed {slot}, which is not idle");
            }
            PoolOutput::Notice { session, .. } => {
                let Stand::Waiting { since, noticed, .. } = &mut self.sessions[session.0 as usize] else {
                    panic!("a notice for {session}, which does not wait")
                };
                assert!(!std::mem::replace(noticed, true), "a second notice");
                assert!(self.now.since(*since) >= self.settings.query_wait_notify, "a notice too early");
            }
            PoolOutput::Refused { session, refusal } => {
                self.refused += 1;
                let stand = std::mem::replace(&mut self.sessions[session.0 as usize], Stand::Out);
                let Stand::Waiting { wish, since, .. } = stand else {
                    panic!("a refusal for {session}, which does not wait")
                };
                if refusal.code == SqlState::TOO_MANY_CONNECTIONS {
                    assert!(self.now.since(since) >= self.settings.query_wait_timeout, "refused too early");
                } else {
                    assert_eq!(refusal.message, format!("down {}", wish.key), "a foreign reason");
                    assert!(self.failures[wish.key].is_some_and(|it| it.until > since), "refused without a reason");
                }
            }
        }
    }

    fn total(&self, key: usize) -> usize {
        self.connections.values().filter(|it| it.wish.key == key).count()
    }

    fn check(&self) {
        let settings = &self.settings;
        for index in 0..KEYS {
            let counts = self.count(index);
            assert_eq!(self.pools.counts(&key(index)), counts, "the counts of pool {index}");
            let waiting = |stand: &Stand| match stand {
                Stand::Waiting { wish, order, since, .. } if wish.key == index => Some((*order, *since, wish.reuse)),
                _ => None,
            };
            let Some((_, since, reuse)) = self.sessions.iter().filter_map(waiting).min() else { continue };
            let limit = settings.query_wait_timeout;
            assert!(limit.is_zero() || self.now.since(since) < limit, "somebody waits beyond the deadline");
            let backing_off =
                self.failures[index].is_some_and(|it| !it.over && it.until > self.now && (reuse || !it.shared_only));
            assert_eq!(counts.idle, 0, "somebody waits beside an idle connection");
            let leased = counts.active + counts.opening;
            assert!(leased >= self.sizes[index] || (backing_off && leased > 0), "somebody waits for nothing");
        }
        for connection in self.connections.values() {
            let Some((since, _)) = connection.idle else { continue };
            assert!(connection.wish.reuse, "a person's own connection was kept");
            assert!(self.now.since(connection.opened) < settings.server_lifetime, "kept beyond its lifetime");
            let unused = settings.server_idle_timeout;
            assert!(unused.is_zero() || self.now.since(since) < unused, "kept beyond its idle timeout");
        }
    }

    fn count(&self, index: usize) -> Counts {
        let mut counts = Counts::default();
        counts.idle = self.connections.values().filter(|it| it.wish.key == index && it.idle.is_some()).count();
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

    /// Every lease comes back, so everybody who waits must be answered, and nothing may be left in the end.
    fn finish(&mut self) {
        self.settle();
        for _ in 0..4 * SESSIONS {
            let (mut held, mut waiting) = (false, false);
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
        }
        assert!(self.pools.is_empty() && self.twin.is_empty(), "something is left");
    }
}

fn serves(connection: &Connection, wish: Wish) -> bool {
    let Wish { key, parameters, reuse } = connection.wish;
    key == wish.key && parameters == wish.parameters && reuse
}
