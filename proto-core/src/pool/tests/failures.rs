//! Logins that fail, and whom that concerns.

use super::*;

#[test]
fn the_end_of_a_back_off_does_not_serve_those_whose_time_is_over() {
    let mut room = Room::of_size(2);
    room.settings.query_wait_timeout = Duration::from_secs(20);
    let held = room.hold(1, b"");
    room.ask(2, b"");
    let (failing, _) = room.lease(2);
    room.ask(3, b"");
    room.fail(failing, SqlState::CONNECTION_FAILURE);
    // Both the back-off and the wait are over before anything is handled; the back-off was over first.
    room.sleep(20);
    room.wake();
    assert_eq!(room.refusal(3).code, SqlState::TOO_MANY_CONNECTIONS);
    room.silent();
    room.end([held]);
}

#[test]
fn a_failed_login_makes_the_pool_back_off_and_says_why() {
    let mut room = Room::of_size(2);
    let held = room.hold(1, b"a");
    room.ask(2, b"b");
    let (failing, _) = room.lease(2);
    room.ask(3, b"b");
    room.fail(failing, SqlState::CONNECTION_FAILURE);
    room.silent();
    assert_eq!(room.counts(), (0, 1, 0, 1), "session 3 waits for the connection that may come back");
    room.sleep(3);
    room.ask(4, b"b");
    let refusal = room.refusal(4);
    assert_eq!((refusal.code, refusal.message.as_str()), (SqlState::CONNECTION_FAILURE, "the server said no"));
    let hint = refusal.hint.unwrap_or_default();
    assert!(hint.contains("failed 3 s ago; gprxy tries again in 12 s"), "{hint}");
    // It comes back and does not fit: now waiting on would help nobody.
    room.give_back(held);
    assert_eq!(room.refusal(3).code, SqlState::CONNECTION_FAILURE);
    // What is idle is served all the same.
    room.ask(5, b"a");
    let (lease, how) = room.lease(5);
    assert_eq!(how, How::Reuse);
    room.sleep(12);
    assert_eq!(room.pools.poll_timeout().map(|it| it.why), Some(Timer::ServerRetry));
    room.ask(6, b"b");
    let (retry, how) = room.lease(6);
    assert_eq!(how, How::Open);
    room.end([lease, retry]);
}

#[test]
fn the_last_failure_answers_everybody_who_waits() {
    let mut room = Room::of_size(1);
    room.ask(0, b"");
    let (failing, _) = room.lease(0);
    for session in 1..=100 {
        room.ask(session, b"");
    }
    room.fail(failing, SqlState::CANNOT_CONNECT_NOW);
    // In bounded steps, each of which is due at once.
    let mut told = 0;
    let mut calls = 0;
    loop {
        while let Some(output) = room.pools.poll_output() {
            assert!(matches!(output, PoolOutput::Refused { .. }));
            told += 1;
        }
        match room.pools.poll_timeout() {
            Some(due) if due.at <= room.now.tick => room.wake(),
            _ => break,
        }
        calls += 1;
    }
    assert_eq!((told, calls), (100, 3));
    // The failure itself is forgotten with its back-off and the caution behind it.
    for _ in 0..2 {
        assert_eq!(room.pools.snapshot().count(), 1);
        room.sleep(15);
        room.wake();
    }
    assert!(room.pools.is_empty());
}

#[test]
fn an_error_that_one_client_provoked_is_its_own() {
    for (code, reuse) in [(*b"22023", true), (*b"42704", true), (*b"28P01", false), (*b"57014", true)] {
        let mut room = Room::of_size(1);
        let request = room.request(1, b"TimeZone=nowhere", reuse);
        room.pools.handle_request(request, room.now);
        let (failing, _) = room.lease(1);
        room.ask(2, b"");
        room.fail(failing, SqlState(code));
        let (lease, how) = room.lease(2);
        assert_eq!(how, How::Open);
        room.end([lease]);
    }
}

#[test]
fn wrong_credentials_of_the_account_do_not_stop_a_persons_own() {
    let mut room = Room::of_size(1);
    room.ask(1, b"");
    let (failing, _) = room.lease(1);
    room.fail(failing, SqlState::INVALID_PASSWORD);
    room.ask(2, b"");
    assert_eq!(room.refusal(2).code, SqlState::INVALID_PASSWORD);
    let request = room.request(3, b"", false);
    room.pools.handle_request(request, room.now);
    let (lease, _) = room.lease(3);
    // A login that works ends the back-off.
    room.pools.handle_opened(&lease, room.now);
    room.pools.handle_release(lease, Returned::Broken, room.now);
    room.ask(4, b"");
    let (lease, _) = room.lease(4);
    room.end([lease]);
}

#[test]
fn failures_of_many_databases_do_not_fill_the_memory() {
    let mut room = Room::of_size(1);
    for session in 0..3_000 {
        let mut request = room.request(session, b"", true);
        request.key.database = format!("guess{session}").into();
        room.pools.handle_request(request, room.now);
        let (lease, _) = room.lease(session);
        room.fail(lease, SqlState::INVALID_CATALOG_NAME);
    }
    assert_eq!(room.pools.snapshot().count(), 1024);
}

#[test]
fn who_waits_for_a_server_that_is_down_goes_on_waiting_in_the_same_place() {
    let mut room = Room::of_size(2);
    room.settings.wait_for_server = true;
    room.ask(1, b"");
    let (failing, _) = room.lease(1);
    room.ask(2, b"");
    let (second, _) = room.lease(2);
    room.ask(3, b"");
    assert!(room.down(failing));
    assert!(room.down(second));
    // Nobody has ever been in this pool: the server may be about to start.
    room.ask(4, b"");
    room.silent();
    assert_eq!(room.counts(), (0, 0, 0, 4));
    room.sleep(5);
    room.wake();
    for session in 1..=4 {
        let Some(PoolOutput::Notice { session: told, text }) = room.pools.poll_output() else { panic!("no notice") };
        assert_eq!(told, SessionId(session));
        assert!(text.contains("the last login failed (no route), the next try is in 10 s"), "{text}");
    }
    room.sleep(10);
    room.wake();
    // One tries, and the others wait for how it ends.
    let (retry, _) = room.lease(1);
    room.silent();
    assert!(room.down(retry));
    room.sleep(15);
    room.wake();
    let (retry, _) = room.lease(1);
    room.pools.handle_opened(&retry, room.now);
    let (next, _) = room.lease(2);
    room.silent();
    // A server that has been there: whoever comes newly is told.
    room.pools.handle_release(retry, Returned::Broken, room.now);
    let (third, _) = room.lease(3);
    assert!(room.down(third));
    assert!(room.down(next));
    room.ask(5, b"");
    assert_eq!(room.refusal(5).message, "no route");
    room.silent();
    // What the server says itself is for all who wait.
    room.sleep(15);
    room.wake();
    let (retry, _) = room.lease(2);
    room.fail(retry, SqlState::INVALID_PASSWORD);
    for session in [3, 4] {
        assert_eq!(room.refusal(session).code, SqlState::INVALID_PASSWORD);
    }
    assert_eq!(room.counts(), (0, 0, 0, 0));
}

#[test]
fn who_waits_for_a_server_that_is_down_is_told_why_when_its_time_is_over() {
    let mut room = Room::of_size(1);
    room.settings.wait_for_server = true;
    room.settings.query_wait_timeout = Duration::from_secs(20);
    room.settings.query_wait_notify = Duration::ZERO;
    for round in 0..2 {
        if round == 0 {
            room.ask(1, b"");
        }
        let (failing, _) = room.lease(1);
        assert!(room.down(failing));
        room.silent();
        room.sleep(if round == 0 { 15 } else { 5 });
        room.wake();
    }
    // Its time has gone on while it tried.
    assert_eq!(room.refusal(1).message, "no route");
    room.silent();
}

#[test]
fn a_connection_that_is_to_be_replaced_is_nothing_to_wait_for() {
    let mut room = Room::of_size(2);
    let held = room.hold(1, b"");
    room.ask(2, b"");
    let (failing, _) = room.lease(2);
    room.ask(3, b"");
    room.pools.reconnect(None, room.now);
    room.fail(failing, SqlState::INVALID_PASSWORD);
    assert_eq!(room.refusal(3).code, SqlState::INVALID_PASSWORD);
    // The other way round: the failure is known, and somebody hopes, when an operator wants new connections.
    room.give_back(held);
    assert!(matches!(room.pools.poll_output(), Some(PoolOutput::Close { why: Closing::Stale, .. })));
    room.sleep(15);
    room.wake();
    let held = room.hold(4, b"");
    room.ask(5, b"");
    let (failing, _) = room.lease(5);
    room.ask(6, b"");
    room.fail(failing, SqlState::INVALID_PASSWORD);
    room.silent();
    room.pools.reconnect(None, room.now);
    room.wake();
    assert_eq!(room.refusal(6).code, SqlState::INVALID_PASSWORD);
    room.end([held]);
}

#[test]
fn who_is_to_be_told_that_he_waits_is_told_although_the_next_try_is_due_at_the_same_moment() {
    let mut room = Room::of_size(1);
    room.settings.wait_for_server = true;
    room.settings.server_login_retry = room.settings.query_wait_notify;
    room.ask(1, b"");
    let (failing, _) = room.lease(1);
    assert!(room.down(failing));
    room.sleep(5);
    room.wake();
    assert!(matches!(room.pools.poll_output(), Some(PoolOutput::Notice { session: SessionId(1), .. })));
    let (retry, _) = room.lease(1);
    room.end([retry]);
}
