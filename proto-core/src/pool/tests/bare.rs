//! A full pool whose clients have different startup parameters: connections that can be brought to those of each.

use super::*;

fn ask(room: &mut Room, session: u64, parameters: &[u8]) {
    let request = Request { adapts: true, ..room.request(session, parameters, true) };
    room.pools.handle_request(request, room.now);
}

/// A session that comes and goes.
fn use_one(room: &mut Room, session: u64, parameters: &[u8]) -> How {
    ask(room, session, parameters);
    let (lease, how) = room.lease(session);
    if matches!(how, How::Open | How::OpenBare) {
        room.pools.handle_opened(&lease, room.now);
    }
    room.pools.handle_release(lease, Returned::Kept, room.now);
    how
}

/// A pool of one, whose connection is bare and was brought to `gmt` last.
fn with_bare_one() -> Room {
    let mut room = Room::of_size(1);
    assert_eq!(use_one(&mut room, 1, b"utc"), How::Open, "a pool with room opens what was asked for");
    ask(&mut room, 2, b"gmt");
    room.closed();
    let (lease, how) = room.lease(2);
    assert_eq!(how, How::OpenBare);
    room.pools.handle_opened(&lease, room.now);
    room.pools.handle_release(lease, Returned::Kept, room.now);
    room
}

#[test]
fn it_is_opened_once_and_serves_everybody() {
    let mut room = with_bare_one();
    assert_eq!(use_one(&mut room, 3, b"gmt"), How::Reuse);
    for session in 4..8 {
        let parameters: &[u8] = if session % 2 == 0 { b"utc" } else { b"cet" };
        assert_eq!(use_one(&mut room, session, parameters), How::Reset);
    }
    room.end([]);
}

#[test]
fn who_needs_a_login_gets_one_in_its_place() {
    let mut room = with_bare_one();
    room.ask(3, b"utc");
    room.closed();
    let (lease, how) = room.lease(3);
    assert_eq!(how, How::Open);
    room.end([lease]);
}

#[test]
fn what_the_server_refuses_is_not_tried_again() {
    let mut room = with_bare_one();
    ask(&mut room, 3, b"odd");
    let (lease, how) = room.lease(3);
    assert_eq!(how, How::Reset);
    room.pools.handle_unadaptable(&lease);
    room.pools.handle_reopen(&lease, room.now);
    room.pools.handle_opened(&lease, room.now);
    room.pools.handle_release(lease, Returned::Kept, room.now);
    assert_eq!(use_one(&mut room, 4, b"odd"), How::Reuse, "it was opened with that");
    ask(&mut room, 5, b"utc");
    room.closed();
    let (lease, how) = room.lease(5);
    assert_eq!(how, How::OpenBare, "the one before cannot be brought to anything");
    room.pools.handle_opened(&lease, room.now);
    room.pools.handle_release(lease, Returned::Kept, room.now);
    ask(&mut room, 6, b"odd");
    room.closed();
    let (lease, how) = room.lease(6);
    assert_eq!(how, How::Open);
    room.end([lease]);
}

#[test]
fn a_promise_that_is_withdrawn_leaves_it_as_it_was() {
    let mut room = with_bare_one();
    ask(&mut room, 3, b"utc");
    room.pools.handle_gave_up(SessionId(3), room.now);
    room.silent();
    assert_eq!(use_one(&mut room, 4, b"gmt"), How::Reuse);
    room.end([]);
}

#[test]
fn one_that_is_there_serves_while_the_server_lets_nobody_in() {
    let mut room = with_bare_one();
    room.settings.default_pool_size = 2;
    room.ask(3, b"new");
    let (lease, how) = room.lease(3);
    assert_eq!(how, How::Open);
    room.fail(lease, SqlState::CANNOT_CONNECT_NOW);
    assert_eq!(use_one(&mut room, 4, b"utc"), How::Reset);
    room.sleep(60);
    room.wake();
    room.end([]);
}
