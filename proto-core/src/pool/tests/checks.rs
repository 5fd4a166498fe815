//! Connections that nobody has used for a while.

use super::*;

fn room(query: &str) -> Room {
    let mut room = Room::of_size(2);
    room.settings.server_check_delay = Duration::from_secs(30);
    room.settings.server_check_query = query.into();
    room
}

/// How the next session gets the connection.
fn next(room: &mut Room, session: u64, owner: Option<&str>) -> (Lease, How) {
    let mut request = room.request(session, b"utc", true);
    request.owner = owner.map(Arc::from);
    room.pools.handle_request(request, room.now);
    room.lease(session)
}

#[test]
fn it_is_checked_when_nobody_has_used_it_for_the_delay() {
    let mut room = room(PoolSettings::NO_QUERY);
    let first = room.hold(1, b"utc");
    room.give_back(first);
    room.sleep(29);
    let (lease, how) = next(&mut room, 2, None);
    assert_eq!(how, How::Reuse);
    room.sleep(60);
    room.give_back(lease);
    let (lease, how) = next(&mut room, 3, None);
    assert_eq!(how, How::Reuse, "it was in use meanwhile");
    room.give_back(lease);
    room.sleep(30);
    let (lease, how) = next(&mut room, 4, None);
    assert_eq!(how, How::Check);
    room.give_back(lease);
    let (lease, how) = next(&mut room, 5, None);
    assert_eq!(how, How::Reuse, "only just checked");
    room.end([lease]);
}

#[test]
fn none_is_checked_without_a_query_and_each_without_a_delay() {
    let mut room = room("");
    let first = room.hold(1, b"utc");
    room.give_back(first);
    room.sleep(300);
    let (lease, how) = next(&mut room, 2, None);
    assert_eq!(how, How::Reuse);
    room.give_back(lease);
    (room.settings.server_check_query, room.settings.server_check_delay) = ("select 1".into(), Duration::ZERO);
    let (lease, how) = next(&mut room, 3, None);
    assert_eq!(how, How::Check);
    room.end([lease]);
}

#[test]
fn a_reset_checks_by_itself() {
    let mut room = room("select 1");
    let (lease, _) = next(&mut room, 1, Some("ada"));
    room.pools.handle_opened(&lease, room.now);
    room.pools.handle_release(lease, Returned::Kept, room.now);
    room.sleep(100);
    let (lease, how) = next(&mut room, 2, Some("bob"));
    assert_eq!(how, How::Reset);
    room.pools.handle_release(lease, Returned::Kept, room.now);
    room.sleep(100);
    let (lease, how) = next(&mut room, 3, Some("bob"));
    assert_eq!(how, How::Check, "it is his own state, and stays");
    room.end([lease]);
}

#[test]
fn who_changes_their_mind_leaves_it_as_old_as_it_was() {
    let mut room = room("select 1");
    let first = room.hold(1, b"utc");
    room.give_back(first);
    room.sleep(40);
    room.ask(2, b"utc");
    room.pools.handle_gave_up(SessionId(2), room.now);
    room.silent();
    let (lease, how) = next(&mut room, 3, None);
    assert_eq!(how, How::Check);
    room.end([lease]);
}

#[test]
fn one_that_fails_is_replaced_under_the_same_lease_and_counted() {
    let mut room = room("select 1");
    let first = room.hold(1, b"utc");
    room.give_back(first);
    room.sleep(40);
    let (lease, how) = next(&mut room, 2, None);
    assert_eq!(how, How::Check);
    room.pools.handle_reopen(&lease, room.now);
    assert_eq!(room.counts(), (0, 0, 1, 0));
    room.pools.handle_opened(&lease, room.now);
    assert_eq!(room.counts(), (0, 1, 0, 0));
    let totals: Vec<_> = room.pools.snapshot().map(|it| (it.totals.replaced, it.totals.opened)).collect();
    assert_eq!(totals, [(1, 2)]);
    room.end([lease]);
}
