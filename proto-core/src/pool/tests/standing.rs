//! Pools that are there without anybody: kept at their `min_pool_size`, or remembered for a while.

use super::*;

impl Room {
    fn stand(&mut self) {
        let (settings, parameters) = (Arc::new(self.settings.clone()), b"usual".as_slice().into());
        self.pools.stand(vec![(key("reader"), settings, parameters)], self.now);
    }

    fn ahead(&mut self) -> Lease {
        match self.pools.poll_output() {
            Some(PoolOutput::Open { lease, parameters, .. }) if *parameters == *b"usual" => lease,
            other => panic!("nothing is opened ahead: {other:?}"),
        }
    }

    fn fill(&mut self) -> SlotId {
        let lease = self.ahead();
        self.pools.handle_opened(&lease, self.now);
        self.give_back(lease)
    }
}

fn room(min_pool_size: u32) -> Room {
    let mut room = Room::of_size(5);
    room.settings.min_pool_size = min_pool_size;
    room
}

#[test]
fn a_standing_pool_is_filled_before_anybody_comes_and_stays_filled() {
    let mut room = room(2);
    room.stand();
    let slots = [room.fill(), room.fill()];
    room.silent();
    assert_eq!(room.counts(), (2, 0, 0, 0));
    // Long after `server_idle_timeout`: new ones take their places.
    room.sleep(1801);
    room.wake();
    let mut closed = Vec::new();
    for _ in 0..2 {
        closed.push(room.closed());
        room.fill();
    }
    closed.sort();
    assert_eq!(closed, slots);
    room.silent();
    // An operator wants new ones.
    room.pools.reconnect(None, room.now);
    room.closed();
    room.closed();
    room.wake();
    room.fill();
    room.fill();
    room.silent();
    room.pools.pause(None, room.now);
    room.closed();
    room.closed();
    room.silent();
    room.pools.resume(None, room.now);
    room.fill();
    room.fill();
    room.silent();
    room.pools.stand(Vec::new(), room.now);
    room.sleep(1801);
    room.wake();
    room.closed();
    room.closed();
    room.silent();
    assert!(room.pools.is_empty());
}

#[test]
fn a_standing_pool_tries_on_while_its_server_is_down() {
    let mut room = room(1);
    room.stand();
    for _ in 0..3 {
        let lease = room.ahead();
        assert!(!room.down(lease), "there is no session that could wait");
        room.silent();
        room.sleep(15);
        room.wake();
    }
    room.fill();
    room.silent();
    // Whoever comes gets what is there, if it fits.
    room.ask(1, b"usual");
    let (lease, how) = room.lease(1);
    assert_eq!(how, How::Reuse);
    room.end([lease]);
}

#[test]
fn an_empty_pool_is_forgotten_after_its_time_or_when_there_are_many() {
    let mut room = Room::of_size(1);
    room.settings.pool_idle_timeout = Some(Duration::from_secs(10));
    let lease = room.hold(1, b"");
    room.pools.handle_release(lease, Returned::Broken, room.now);
    room.wake();
    room.sleep(9);
    room.wake();
    assert_eq!(room.pools.snapshot().count(), 1);
    // Somebody comes: its time begins anew.
    let lease = room.hold(2, b"");
    room.sleep(9);
    room.wake();
    room.pools.handle_release(lease, Returned::Broken, room.now);
    room.wake();
    room.sleep(9);
    room.wake();
    assert_eq!(room.pools.snapshot().count(), 1);
    room.sleep(1);
    room.wake();
    assert!(room.pools.is_empty());

    room.settings.pool_idle_timeout = None;
    let lease = room.hold(3, b"");
    room.pools.handle_release(lease, Returned::Broken, room.now);
    room.sleep(1_000_000);
    room.wake();
    assert_eq!((room.pools.snapshot().count(), room.pools.poll_timeout()), (1, None));
    for session in 10..3_000 {
        let mut request = room.request(session, b"", true);
        request.key.database = format!("any{session}").into();
        room.pools.handle_request(request, room.now);
        let (lease, _) = room.lease(session);
        room.pools.handle_release(lease, Returned::Broken, room.now);
    }
    assert_eq!(room.pools.snapshot().count(), 1024);
    // Databases that are there no more, or elsewhere.
    room.pools.retire(|key| *key.database != *"app");
    assert_eq!(room.pools.snapshot().count(), 1);
    let others = Arc::new(PoolSettings { pool_idle_timeout: Some(Duration::from_secs(1)), ..room.settings.clone() });
    room.pools.resettle(|_| Some(others.clone()), room.now);
    room.wake();
    room.sleep(1);
    room.wake();
    assert!(room.pools.is_empty());
}
