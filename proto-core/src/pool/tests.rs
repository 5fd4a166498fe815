mod bare;
mod checks;
mod company;
mod control;
mod failures;
mod lifetimes;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use super::one::{Ticket, Waiter};
use super::pools::Place;
use super::timers::Due;
use super::*;
use crate::fault::SqlState;
use crate::time::{Now, Tick, Timer, UnixMicros};

/// Pools with one clock and one set of settings.
struct Room {
    pools: Pools,
    now: Now,
    settings: PoolSettings,
}

fn key(account: &str) -> PoolKey {
    PoolKey { account: account.into(), database: "app".into(), own_password: false }
}

impl Room {
    fn of_size(size: u32) -> Self {
        let settings = PoolSettings { default_pool_size: size, ..PoolSettings::default() };
        Self { pools: Pools::new(), now: Now { tick: Tick::from_nanos(7), unix: UnixMicros(0) }, settings }
    }

    fn request(&self, session: u64, parameters: &[u8], reuse: bool) -> Request {
        let settings = Arc::new(self.settings.clone());
        Request {
            session: SessionId(session),
            key: key("reader"),
            parameters: parameters.into(),
            owner: None,
            reuse,
            adapts: false,
            settings,
        }
    }

    fn ask(&mut self, session: u64, parameters: &[u8]) {
        let request = self.request(session, parameters, true);
        self.pools.handle_request(request, self.now);
    }

    fn sleep(&mut self, secs: u64) {
        self.now.tick = self.now.tick.after(Duration::from_secs(secs));
    }

    fn wake(&mut self) {
        self.pools.handle_timeout(self.now);
    }

    /// The lease of a session that must be the next output.
    fn lease(&mut self, expected: u64) -> (Lease, How) {
        match self.pools.poll_output() {
            Some(PoolOutput::Granted { session: SessionId(session), lease, how }) if session == expected => {
                (lease, how)
            }
            other => panic!("session {expected} was not granted: {other:?}"),
        }
    }

    /// Asks, opens and holds.
    fn hold(&mut self, session: u64, parameters: &[u8]) -> Lease {
        self.ask(session, parameters);
        let (lease, how) = self.lease(session);
        assert_eq!(how, How::Open);
        self.pools.handle_opened(&lease, self.now);
        lease
    }

    fn refusal(&mut self, expected: u64) -> Refusal {
        match self.pools.poll_output() {
            Some(PoolOutput::Refused { session: SessionId(session), refusal }) if session == expected => refusal,
            other => panic!("session {expected} was not refused: {other:?}"),
        }
    }

    fn give_back(&mut self, lease: Lease) -> SlotId {
        let slot = lease.slot();
        self.pools.handle_release(lease, Returned::Clean, self.now);
        slot
    }

    fn fail(&mut self, lease: Lease, code: SqlState) {
        let error = OpenError { refusal: Refusal::new(code, "the server said no"), is_down: false };
        assert!(!self.pools.handle_open_failed(lease, error, self.now));
    }

    /// Its server is not there; whether its session goes on waiting.
    fn down(&mut self, lease: Lease) -> bool {
        let error = OpenError { refusal: Refusal::new(SqlState::CONNECTION_FAILURE, "no route"), is_down: true };
        self.pools.handle_open_failed(lease, error, self.now)
    }

    fn closed(&mut self) -> SlotId {
        match self.pools.poll_output() {
            Some(PoolOutput::Close { slot, .. }) => slot,
            other => panic!("nothing was closed: {other:?}"),
        }
    }

    fn silent(&mut self) {
        if let Some(output) = self.pools.poll_output() {
            panic!("unexpected {output:?}");
        }
    }

    fn counts(&self) -> (usize, usize, usize, usize) {
        let Counts { idle, active, opening, waiting } = self.pools.counts(&key("reader"));
        (idle, active, opening, waiting)
    }

    /// Breaks what is still held, so that no lease is lost.
    fn end(mut self, leases: impl IntoIterator<Item = Lease>) {
        for lease in leases {
            self.pools.handle_release(lease, Returned::Broken, self.now);
        }
    }
}

#[test]
fn reuses_the_most_recent_connection_with_equal_parameters() {
    let mut room = Room::of_size(4);
    let (a, b, c) = (room.hold(1, b"utc"), room.hold(2, b"utc"), room.hold(3, b"cet"));
    let (a, b, _) = (room.give_back(a), room.give_back(b), room.give_back(c));
    room.ask(4, b"utc");
    let (first, how) = room.lease(4);
    assert_eq!((first.slot(), first.generation(), how), (b, 1, How::Reuse));
    room.ask(5, b"utc");
    let (second, how) = room.lease(5);
    assert_eq!((second.slot(), how), (a, How::Reuse));
    room.ask(6, b"utc");
    let (third, how) = room.lease(6);
    assert_eq!(how, How::Open, "another client's parameters are no match");
    assert_eq!(room.counts(), (1, 2, 1, 0));
    room.end([first, second, third]);
}

#[test]
fn closes_the_least_recently_used_idle_connection_for_other_parameters() {
    let mut room = Room::of_size(2);
    let (a, b) = (room.hold(1, b"a"), room.hold(2, b"b"));
    let (b, _) = (room.give_back(b), room.give_back(a));
    room.ask(3, b"c");
    assert_eq!(room.closed(), b);
    let (lease, how) = room.lease(3);
    assert_eq!(how, How::Open);
    assert_eq!(room.counts(), (1, 0, 1, 0));
    room.end([lease]);
}

#[test]
fn serves_strictly_in_the_order_of_arrival() {
    let mut room = Room::of_size(1);
    let held = room.hold(1, b"a");
    room.ask(2, b"b");
    room.ask(3, b"a");
    room.silent();
    let slot = room.give_back(held);
    assert_eq!(room.closed(), slot, "session 3 would fit, but session 2 came first");
    let (lease, how) = room.lease(2);
    assert_eq!(how, How::Open);
    room.silent();
    room.pools.handle_release(lease, Returned::Broken, room.now);
    let (lease, _) = room.lease(3);
    room.end([lease]);
}

#[test]
fn pools_of_other_keys_do_not_wait_for_each_other() {
    let mut room = Room::of_size(1);
    let held = room.hold(1, b"");
    let mut request = room.request(2, b"", true);
    request.key = key("writer");
    room.pools.handle_request(request, room.now);
    let (other, _) = room.lease(2);
    let names: Vec<_> = room.pools.snapshot().map(|it| (it.key.account.clone(), it.opening)).collect();
    assert_eq!(names, [("reader".into(), 0), ("writer".into(), 1)]);
    room.end([held, other]);
}

#[test]
fn a_personal_login_is_always_fresh_and_never_kept() {
    let mut room = Room::of_size(2);
    let shared = room.hold(1, b"");
    room.give_back(shared);
    let request = room.request(2, b"", false);
    room.pools.handle_request(request, room.now);
    let (lease, how) = room.lease(2);
    assert_eq!(how, How::Open);
    room.pools.handle_opened(&lease, room.now);
    let slot = room.give_back(lease);
    assert_eq!(room.closed(), slot);
    assert_eq!(room.counts(), (1, 0, 0, 0));
}

#[test]
fn tells_a_waiter_once_and_refuses_it_at_its_deadline() {
    let mut room = Room::of_size(1);
    let held = room.hold(1, b"");
    room.ask(2, b"");
    room.ask(3, b"");
    assert_eq!(room.pools.poll_timeout().map(|it| it.why), Some(Timer::QueueNotice));
    room.sleep(5);
    room.wake();
    for (who, ahead) in [(2, "you are next"), (3, "1 client is ahead of you")] {
        let Some(PoolOutput::Notice { session, text }) = room.pools.poll_output() else { panic!("no notice") };
        assert_eq!(session, SessionId(who));
        assert_eq!(
            text,
            format!(
                "waiting for a server connection of account \"reader\" to database \"app\" for 5 s: \
                 its only connection is in use, {ahead}"
            )
        );
    }
    assert_eq!(room.pools.poll_timeout().map(|it| it.why), Some(Timer::QueueWait));
    room.sleep(114);
    room.wake();
    room.silent();
    room.sleep(1);
    room.wake();
    let refusal = room.refusal(2);
    assert_eq!(refusal.code, SqlState::TOO_MANY_CONNECTIONS);
    assert_eq!(
        refusal.message,
        "no server connection of account \"reader\" to database \"app\" became free within 120 s: \
         its only connection is in use"
    );
    let hint = refusal.hint.unwrap_or_default();
    assert!(hint.contains("default_pool_size (now 1)") && hint.contains("query_wait_timeout (now 120 s)"), "{hint}");
    room.refusal(3);
    room.end([held]);
}

#[test]
fn a_connection_that_comes_back_after_the_deadline_is_too_late() {
    // The driver was slow: the deadline has passed and nobody has handled it.
    let mut room = Room::of_size(1);
    let held = room.hold(1, b"");
    room.ask(2, b"");
    room.sleep(120);
    room.give_back(held);
    assert_eq!(room.refusal(2).code, SqlState::TOO_MANY_CONNECTIONS);
    room.silent();
}

#[test]
fn nothing_comes_out_for_a_session_that_gave_up() {
    let mut room = Room::of_size(1);
    // While its grant lies in the output queue: the connection was never opened, so the next one opens it.
    room.ask(1, b"");
    room.ask(2, b"");
    room.pools.handle_gave_up(SessionId(1), room.now);
    let (lease, how) = room.lease(2);
    assert_eq!((how, lease.generation()), (How::Open, 0));
    room.silent();
    room.pools.handle_opened(&lease, room.now);
    // In the queue.
    room.ask(3, b"");
    room.pools.handle_gave_up(SessionId(3), room.now);
    // Promised an idle connection: it stays idle.
    let slot = room.give_back(lease);
    room.ask(4, b"");
    room.pools.handle_gave_up(SessionId(4), room.now);
    room.silent();
    assert_eq!(room.counts(), (1, 0, 0, 0));
    room.ask(5, b"");
    let (lease, how) = room.lease(5);
    assert_eq!((lease.slot(), lease.generation(), how), (slot, 2, How::Reuse));
    // With a notice and then a refusal in the output queue.
    room.ask(6, b"");
    room.sleep(5);
    room.wake();
    room.sleep(115);
    room.wake();
    room.pools.handle_gave_up(SessionId(6), room.now);
    room.silent();
    // With the lease in its hands: that comes back as every other.
    room.pools.handle_gave_up(SessionId(5), room.now);
    assert_eq!(room.counts(), (0, 1, 0, 0));
    room.end([lease]);
}

#[test]
fn who_is_not_proven_takes_nothing_from_the_accounts_pool() {
    let mut room = Room::of_size(1);
    let lease = room.hold(1, b"");
    let kept = room.give_back(lease);
    let mut stranger = room.request(2, b"other", false);
    stranger.key.own_password = true;
    assert_eq!(stranger.key.to_string(), "account \"reader\" by its own password to database \"app\"");
    room.pools.handle_request(stranger, room.now);
    let (theirs, how) = room.lease(2);
    assert_eq!((how, room.counts()), (How::Open, (1, 0, 0, 0)), "the idle connection stays");
    room.ask(3, b"");
    let (lease, how) = room.lease(3);
    assert_eq!((lease.slot(), how), (kept, How::Reuse));
    room.end([theirs, lease]);
}

#[test]
fn new_settings_hold_from_the_next_request_on() {
    let mut room = Room::of_size(1);
    let a = room.hold(1, b"");
    room.ask(2, b"");
    room.silent();
    room.settings.default_pool_size = 3;
    room.ask(3, b"");
    let (b, _) = room.lease(2);
    let (c, _) = room.lease(3);
    room.pools.handle_opened(&b, room.now);
    room.settings.default_pool_size = 1;
    room.ask(4, b"");
    let slot = room.give_back(b);
    assert_eq!(room.closed(), slot, "one above the new limit");
    room.pools.handle_release(c, Returned::Broken, room.now);
    room.silent();
    let slot = room.give_back(a);
    let (lease, how) = room.lease(4);
    assert_eq!((lease.slot(), how), (slot, How::Reuse));
    room.end([lease]);
}

#[test]
fn a_second_request_of_a_session_changes_nothing() {
    let mut room = Room::of_size(2);
    room.ask(1, b"");
    room.ask(1, b"");
    let (lease, _) = room.lease(1);
    room.ask(1, b"");
    room.silent();
    assert_eq!(room.counts(), (0, 0, 1, 0));
    room.end([lease]);
}

#[test]
fn a_foreign_lease_is_ignored() {
    let (mut here, mut there) = (Room::of_size(1), Room::of_size(1));
    let ours = here.hold(1, b"");
    here.give_back(ours);
    here.ask(2, b"");
    let (ours, _) = here.lease(2);
    let theirs = there.hold(1, b"");
    assert_eq!(theirs.slot(), ours.slot(), "the generation alone tells them apart");
    here.pools.handle_release(theirs, Returned::Clean, here.now);
    assert_eq!(here.counts(), (0, 1, 0, 0));
    here.end([ours]);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "was dropped and not returned")]
fn a_lost_lease_complains() {
    let mut room = Room::of_size(1);
    let lease = room.hold(1, b"");
    drop(lease);
}

#[test]
fn a_storm_of_waiters_that_give_up_leaves_nothing() {
    let mut room = Room::of_size(1);
    let held = room.hold(0, b"");
    for session in 1..=20_000 {
        room.ask(session, b"");
    }
    assert_eq!(room.pools.timers.len(), 40_000);
    // From the middle outwards.
    for session in (1..=10_000).rev().chain(10_001..=20_000) {
        room.pools.handle_gave_up(SessionId(session), room.now);
    }
    assert_eq!((room.counts(), room.pools.timers.len()), ((0, 1, 0, 0), 0));
    room.pools.handle_release(held, Returned::Broken, room.now);
    assert!(room.pools.is_empty());
}

/// The laws end with "nothing is left": that must look at every table.

#[test]
fn emptiness_looks_at_every_table() {
    assert!(Pools::new().is_empty());
    let (id, slot) = (one::PoolId(1), SlotId(2));
    let fill: [fn(&mut Pools, one::PoolId, SlotId); 6] = [
        |pools, id, _| {
            pools.ids.insert(key("reader"), id);
        },
        |pools, id, _| drop(pools.pools.insert(id, one::Pool::new(key("reader"), Arc::default()))),
        |pools, id, slot| {
            let rest = idle::Rest { stamp: idle::Stamp(3), since: Tick::default(), retire: Tick::default() };
            let (parameters, opened, state) = ([].into(), Tick::default(), one::SlotState::Idle(rest));
            pools.slots.insert(
                slot,
                one::Slot {
                    pool: id,
                    parameters,
                    bare: false,
                    adapts: false,
                    owner: None,
                    opened,
                    last_leased: opened,
                    asked: None,
                    stale: false,
                    generation: 0,
                    reuse: true,
                    state,
                },
            );
        },
        |pools, _, slot| {
            pools.places.insert(SessionId(4), Place::Leased(slot));
        },
        |pools, _, slot| pools.timers.set(Tick::default(), Due::Retire(slot)),
        |pools, _, slot| pools.outputs.push_back(super::pools::Pending::Close(slot, super::Closing::Surplus)),
    ];
    for (n, fill) in fill.into_iter().enumerate() {
        let mut pools = Pools::new();
        fill(&mut pools, id, slot);
        assert!(!pools.is_empty(), "table {n}");
    }
}

#[test]
fn a_waiter_and_a_connection_are_small() {
    // What the tables hold for each, their own slack and the shared parameters aside.
    let place = size_of::<(SessionId, Place)>();
    let waiter = size_of::<(Ticket, Waiter)>() + 2 * size_of::<(Tick, Due)>() + place;
    let slot = size_of::<(SlotId, one::Slot)>() + size_of::<(Tick, Due)>() + place;
    println!("a waiter takes {waiter} bytes, a connection {slot}");
    assert!(waiter <= 208 && slot <= 248, "a waiter takes {waiter} bytes, a connection {slot}");
    assert!(size_of::<Lease>() <= 16);
}

#[test]
fn obeys_the_law_on_random_walks() {
    let (mut granted, mut refused, mut cleaned, mut bare, mut adapted) = (0, 0, 0, 0, 0);
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let choices: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(8_000).collect();
        let seen = std::panic::catch_unwind(|| law::walk(&choices)).unwrap_or_else(|_| panic!("seed {seed}"));
        granted += seen.granted;
        refused += seen.refused;
        cleaned += seen.cleaned;
        bare += seen.bare;
        adapted += seen.adapted;
    }
    assert!(granted > 10_000 && refused > 10_000, "{granted} granted, {refused} refused: the walk avoids the work");
    assert!(cleaned > 500, "only {cleaned} were reset ahead");
    assert!(bare > 500 && adapted > 250, "only {bare} were opened bare, {adapted} adapted");
}
