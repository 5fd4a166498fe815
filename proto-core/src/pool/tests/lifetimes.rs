//! How long a connection that nobody uses is kept.

use super::*;

#[test]
fn idle_connections_retire_by_timeout_and_by_age() {
    let mut room = Room::of_size(2);
    let (a, b) = (room.hold(1, b"a"), room.hold(2, b"b"));
    let a = room.give_back(a);
    assert_eq!(room.pools.poll_timeout().map(|it| it.why), Some(Timer::ServerRetire));
    room.sleep(1799);
    room.wake();
    let b_slot = room.give_back(b);
    room.silent();
    room.sleep(1);
    room.wake();
    assert_eq!(room.closed(), a);
    // The second one reaches 3600 s of age before 1800 s of idleness, and no timeout has been handled since.
    room.sleep(1800);
    room.ask(3, b"b");
    assert_eq!(room.closed(), b_slot);
    let (lease, how) = room.lease(3);
    assert_eq!(how, How::Open);
    room.pools.handle_opened(&lease, room.now);
    room.sleep(3600);
    let slot = room.give_back(lease);
    assert_eq!(room.closed(), slot);
    assert!(room.pools.is_empty());
}

#[test]
fn an_overdue_idle_connection_is_not_granted_even_when_its_timer_is_still_queued() {
    // More connections than one call retires: the request must not get one of the rest.
    let mut room = Room::of_size(100);
    let leases: Vec<_> = (0..100).map(|session| room.hold(session, b"")).collect();
    for lease in leases {
        room.give_back(lease);
    }
    room.sleep(1800);
    room.ask(200, b"");
    let mut closed = 0;
    let lease = loop {
        match room.pools.poll_output() {
            Some(PoolOutput::Close { .. }) => closed += 1,
            Some(PoolOutput::Granted { lease, how: How::Open, .. }) => break lease,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((closed, room.counts()), (100, (0, 0, 1, 0)));
    room.end([lease]);
}

#[test]
fn zero_means_what_pgbouncer_means() {
    let mut room = Room::of_size(1);
    let zero = Duration::ZERO;
    room.settings.server_lifetime = zero;
    let lease = room.hold(1, b"");
    let slot = room.give_back(lease);
    assert_eq!(room.closed(), slot, "used once");
    room.settings = PoolSettings {
        default_pool_size: 1,
        reserve_pool_size: 1,
        server_lifetime: Duration::from_secs(9999),
        server_idle_timeout: zero,
        query_wait_timeout: zero,
        query_wait_notify: zero,
        server_login_retry: zero,
        reserve_pool_timeout: zero,
        ..PoolSettings::default()
    };
    let lease = room.hold(2, b"");
    room.ask(3, b"");
    assert_eq!(room.pools.poll_timeout(), None, "waits without end, and is not told");
    room.give_back(lease);
    let (lease, _) = room.lease(3);
    room.give_back(lease);
    room.sleep(9998);
    room.wake();
    room.silent();
    room.ask(4, b"other");
    room.closed();
    let (failing, _) = room.lease(4);
    room.ask(5, b"");
    room.fail(failing, SqlState::CONNECTION_FAILURE);
    let (lease, how) = room.lease(5);
    assert_eq!(how, How::Open, "no back-off");
    room.end([lease]);
}

#[test]
fn an_idle_connection_that_died_is_opened_anew_in_its_place() {
    let mut room = Room::of_size(1);
    let lease = room.hold(1, b"");
    let slot = room.give_back(lease);
    room.ask(2, b"");
    let (lease, how) = room.lease(2);
    assert_eq!((lease.slot(), how, room.counts()), (slot, How::Reuse, (0, 1, 0, 0)));
    room.pools.handle_reopen(&lease, room.now);
    assert_eq!(room.counts(), (0, 0, 1, 0));
    room.fail(lease, SqlState::CONNECTION_FAILURE);
    assert_eq!(room.counts(), (0, 0, 0, 0));
}

#[test]
fn close_idle_spares_what_is_in_use() {
    let mut room = Room::of_size(3);
    let (a, b) = (room.hold(1, b""), room.hold(2, b""));
    let slot = room.give_back(a);
    room.pools.close_idle(None);
    assert_eq!(room.closed(), slot);
    room.silent();
    assert_eq!(room.counts(), (0, 1, 0, 0));
    room.end([b]);
}
