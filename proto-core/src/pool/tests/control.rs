//! What operators do to pools.

use super::*;

fn paused(room: &Room) -> bool {
    room.pools.is_paused(Some("app"))
}

#[test]
fn a_paused_database_gives_nothing_and_running_leases_go_on_to_their_end() {
    let mut room = Room::of_size(3);
    let (a, b) = (room.hold(1, b""), room.hold(2, b""));
    let idle = room.give_back(b);
    room.pools.pause(Some("app"), room.now);
    assert_eq!(room.closed(), idle, "nothing idle is kept");
    assert!(paused(&room));
    assert_eq!((room.pools.leased(Some("app")), room.pools.leased(Some("other"))), (1, 0));
    room.ask(3, b"");
    room.silent();
    assert_eq!(room.counts(), (0, 1, 0, 1));
    let slot = room.give_back(a);
    assert_eq!(room.closed(), slot, "what comes back is closed");
    room.silent();
    assert_eq!(room.pools.leased(None), 0, "the pause is complete");
    room.pools.resume(Some("app"), room.now);
    room.wake();
    let (lease, how) = room.lease(3);
    assert_eq!(how, How::Open);
    room.end([lease]);
}

#[test]
fn who_waits_in_a_pause_is_told_so_and_refused_in_the_end() {
    let mut room = Room::of_size(1);
    room.pools.pause(None, room.now);
    room.ask(1, b"");
    room.sleep(5);
    room.wake();
    let Some(PoolOutput::Notice { text, .. }) = room.pools.poll_output() else { panic!("no notice") };
    assert!(text.contains("an operator has paused it"), "{text}");
    room.sleep(115);
    room.wake();
    assert_eq!(room.refusal(1).code, SqlState::TOO_MANY_CONNECTIONS);
    room.pools.resume(None, room.now);
    assert!(room.pools.is_empty());
}

#[test]
fn a_database_is_paused_for_as_long_as_one_of_two_pauses_lasts() {
    let mut room = Room::of_size(1);
    room.pools.pause(None, room.now);
    room.pools.pause(Some("app"), room.now);
    room.ask(1, b"");
    room.pools.resume(None, room.now);
    assert!(paused(&room) && !room.pools.is_paused(None) && !room.pools.is_paused(Some("other")));
    room.wake();
    room.silent();
    room.pools.resume(Some("app"), room.now);
    room.wake();
    let (lease, _) = room.lease(1);
    room.end([lease]);
}

#[test]
fn a_failed_login_does_not_refuse_those_who_wait_for_the_end_of_a_pause() {
    let mut room = Room::of_size(1);
    room.ask(1, b"");
    let (lease, _) = room.lease(1);
    room.pools.pause(Some("app"), room.now);
    room.fail(lease, SqlState::CONNECTION_FAILURE);
    room.ask(2, b"");
    room.ask(3, b"");
    room.silent();
    assert_eq!(room.counts(), (0, 0, 0, 2));
    room.sleep(15);
    room.wake();
    for _ in 0..2 {
        assert!(matches!(room.pools.poll_output(), Some(PoolOutput::Notice { .. })));
    }
    room.pools.resume(Some("app"), room.now);
    room.wake();
    let (lease, _) = room.lease(2);
    room.end([lease]);
}

#[test]
fn a_disabled_database_refuses_new_sessions_only() {
    let mut room = Room::of_size(1);
    room.pools.disable("app");
    let refusal = room.pools.admit("app").unwrap_err();
    assert_eq!((refusal.code, &*refusal.message), (SqlState(*b"55000"), "database \"app\" is disabled"));
    assert!(room.pools.admit("other").is_ok());
    // Of a session that was there before.
    let lease = room.hold(1, b"");
    room.pools.enable("app");
    assert!(room.pools.admit("app").is_ok() && !room.pools.is_disabled("app"));
    room.end([lease]);
}

#[test]
fn nothing_of_before_a_reconnect_serves_anybody_after_it() {
    let mut room = Room::of_size(3);
    let (a, b) = (room.hold(1, b""), room.hold(2, b""));
    let idle = room.give_back(b);
    room.ask(3, b"");
    let (promised, _) = room.lease(3);
    assert_eq!(promised.slot(), idle);
    let idle = room.give_back(promised);
    room.pools.reconnect(Some("app"), room.now);
    assert_eq!(room.closed(), idle);
    let slot = room.give_back(a);
    assert_eq!(room.closed(), slot);
    let fresh = room.hold(4, b"");
    let fresh = room.give_back(fresh);
    room.silent();
    // Another database is another matter.
    room.pools.reconnect(Some("other"), room.now);
    room.silent();
    room.ask(5, b"");
    let (lease, how) = room.lease(5);
    assert_eq!((lease.slot(), how), (fresh, How::Reuse));
    room.end([lease]);
}

#[test]
fn a_promise_that_is_withdrawn_behind_a_reconnect_is_closed() {
    let mut room = Room::of_size(1);
    let lease = room.hold(1, b"");
    let slot = room.give_back(lease);
    room.ask(2, b"");
    room.pools.reconnect(None, room.now);
    room.pools.handle_gave_up(SessionId(2), room.now);
    assert_eq!(room.closed(), slot);
    assert!(room.pools.is_empty());
}

#[test]
fn facts_tell_who_has_what_and_who_waits_since_when() {
    let mut room = Room::of_size(1);
    let a = room.hold(1, b"");
    let asked = room.now.tick;
    room.ask(2, b"");
    room.sleep(2);
    let facts: Vec<_> = room.pools.snapshot().collect();
    let [pool] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!((pool.active, pool.idle, pool.opening, pool.waiting), (1, 0, 0, 1));
    assert_eq!((pool.oldest_wait, pool.paused), (Some(asked), false));
    let servers: Vec<_> = room.pools.servers().collect();
    let [server] = &servers[..] else { panic!("{servers:?}") };
    assert_eq!((server.slot, server.state, server.session), (a.slot(), ServerState::Active, Some(SessionId(1))));
    room.give_back(a);
    let (b, _) = room.lease(2);
    let facts: Vec<_> = room.pools.snapshot().collect();
    let totals = facts[0].totals;
    assert_eq!((totals.leases, totals.waits, totals.opened), (2, 1, 1));
    assert_eq!(totals.waited, Duration::from_secs(2));
    assert_eq!(room.pools.servers().next().map(|it| it.last_leased), Some(room.now.tick));
    room.end([b]);
}
