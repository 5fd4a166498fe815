//! Several people in one pool: connections that are reset ahead of who comes next, and those that their session has left.

use super::*;

/// Somebody's session, from its request to its return with state.
fn use_one(room: &mut Room, session: u64, owner: &str) -> How {
    let mut request = room.request(session, b"utc", true);
    request.owner = Some(owner.into());
    room.pools.handle_request(request, room.now);
    let (lease, how) = room.lease(session);
    room.pools.handle_opened(&lease, room.now);
    room.pools.handle_release(lease, Returned::Kept, room.now);
    how
}

fn cleaned(room: &mut Room) -> Lease {
    match room.pools.poll_output() {
        Some(PoolOutput::Clean { lease }) => lease,
        other => panic!("nothing was cleaned: {other:?}"),
    }
}

fn sleep_ms(room: &mut Room, millis: u64) {
    room.now.tick = room.now.tick.after(Duration::from_millis(millis));
    room.wake();
}

#[test]
fn one_person_alone_keeps_everything_as_it_was() {
    let mut room = Room::of_size(2);
    for session in 1..5 {
        let how = use_one(&mut room, session, "ada");
        assert_eq!(how, if session == 1 { How::Open } else { How::Reuse });
        sleep_ms(&mut room, 500);
        room.silent();
    }
    room.end([]);
}

#[test]
fn who_comes_next_finds_one_that_nobody_owns() {
    let mut room = Room::of_size(1);
    use_one(&mut room, 1, "ada");
    assert_eq!(use_one(&mut room, 2, "bob"), How::Reset, "nobody could know");
    sleep_ms(&mut room, 99);
    room.silent();
    assert_eq!(use_one(&mut room, 3, "bob"), How::Reuse, "he comes back soon");
    sleep_ms(&mut room, 99);
    room.silent();
    sleep_ms(&mut room, 1);
    let lease = cleaned(&mut room);
    assert_eq!(room.counts(), (0, 1, 0, 0));
    let facts = room.pools.servers().next().map(|it| (it.state, it.session));
    assert_eq!(facts, Some((ServerState::Tested, None)));
    room.give_back(lease);
    assert_eq!(use_one(&mut room, 4, "ada"), How::Reuse);
    room.end([]);
}

#[test]
fn one_that_is_ready_is_enough() {
    let mut room = Room::of_size(3);
    let leases: Vec<Lease> = (1..=3).map(|session| room.hold(session, b"utc")).collect();
    for lease in leases {
        room.give_back(lease);
    }
    use_one(&mut room, 4, "ada");
    use_one(&mut room, 5, "bob");
    sleep_ms(&mut room, 300);
    room.silent();
    // The last one that nobody owned is taken.
    use_one(&mut room, 6, "cy");
    let lease = cleaned(&mut room);
    let owners: Vec<_> = room.pools.servers().map(|it| it.owner.clone()).collect();
    assert!(owners.contains(&Some("bob".into())) && owners.contains(&Some("cy".into())), "{owners:?}");
    room.silent();
    room.give_back(lease);
    sleep_ms(&mut room, 300);
    room.silent();
    room.end([]);
}

#[test]
fn who_waits_gets_it_when_it_is_clean_and_a_new_one_when_it_cannot_be_cleaned() {
    for works in [true, false] {
        let mut room = Room::of_size(1);
        use_one(&mut room, 1, "ada");
        use_one(&mut room, 2, "bob");
        sleep_ms(&mut room, 100);
        let lease = cleaned(&mut room);
        let mut request = room.request(3, b"utc", true);
        request.owner = Some("ada".into());
        room.pools.handle_request(request, room.now);
        room.silent();
        let returned = if works { Returned::Clean } else { Returned::Broken };
        room.pools.handle_release(lease, returned, room.now);
        let (lease, how) = room.lease(3);
        assert_eq!(how, if works { How::Reuse } else { How::Open });
        room.end([lease]);
    }
}

#[test]
fn after_a_minute_of_one_person_it_is_that_persons_pool() {
    let mut room = Room::of_size(1);
    use_one(&mut room, 1, "ada");
    use_one(&mut room, 2, "bob");
    room.sleep(60);
    use_one(&mut room, 3, "bob");
    sleep_ms(&mut room, 500);
    room.silent();
    room.end([]);
}

#[test]
fn a_session_that_has_left_its_connection_may_ask_for_another_one() {
    let mut room = Room::of_size(2);
    let lease = room.hold(1, b"utc");
    room.pools.handle_parted(&lease);
    room.pools.handle_parted(&lease);
    let other = room.hold(1, b"utc");
    assert_ne!(lease.slot(), other.slot());
    // It comes back without disturbing what the session has now.
    room.give_back(lease);
    assert_eq!(room.counts(), (1, 1, 0, 0));
    room.ask(1, b"utc");
    room.silent();
    room.end([other]);
}
