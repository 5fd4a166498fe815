use super::*;
use crate::secret::Secret;
use crate::time::UnixMicros;

struct Seeded(fastrand::Rng);

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }
}

fn seeded(seed: u64) -> Seeded {
    Seeded(fastrand::Rng::with_seed(seed))
}

fn at(secs: u64) -> Now {
    Now { tick: Tick::from_nanos(secs * 1_000_000_000), unix: UnixMicros(0) }
}

fn target(slot: u64) -> Arc<BackendTarget> {
    target_with_key(slot, vec![7; 4])
}

fn target_with_key(slot: u64, key: Vec<u8>) -> Arc<BackendTarget> {
    Arc::new(BackendTarget {
        endpoint: Endpoint::Tcp { host: "db".into(), port: 5432 },
        tls: None,
        backend: BackendKey { pid: 4711, key: Arc::new(Secret::new(key)) },
        slot: SlotId(slot),
    })
}

fn forwarded(decision: Decision) -> CancelOrder {
    match decision {
        Decision::Forward(order) => order,
        other => panic!("not forwarded: {other:?}"),
    }
}

const ALICE: SessionId = SessionId(1);
const BOB: SessionId = SessionId(2);

#[test]
fn keys_have_the_width_of_the_protocol_and_differ() {
    let (mut registry, mut entropy) = (Registry::new(), seeded(1));
    let (narrow, wide) = (registry.enroll(ALICE, false, &mut entropy), registry.enroll(BOB, true, &mut entropy));
    assert_eq!((narrow.key().len(), wide.key().len()), (4, 32));
    assert_ne!(narrow.pid(), wide.pid());
    assert_ne!(narrow.key(), &wide.key()[..4]);
    assert!(wide.key()[4..].iter().any(|byte| *byte != 0));
}

#[test]
fn only_the_exact_key_hits() {
    for wide in [false, true] {
        let (mut registry, mut entropy) = (Registry::new(), seeded(2));
        let key = registry.enroll(ALICE, wide, &mut entropy);
        let whole = key.key().to_vec();
        let mut wrong = vec![vec![], whole[..whole.len() - 1].to_vec(), [&whole[..], &[0]].concat(), vec![0; 256]];
        // A narrow key padded to the width in which it is stored.
        wrong.push([&whole[..4], &[0; 28]].concat());
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            wrong.push(flipped);
        }
        for guess in wrong {
            assert!(matches!(registry.handle_request(key.pid(), &guess, at(0)), Decision::Unknown), "{guess:?}");
        }
        for pid in [0, key.pid() ^ 1, key.pid() | 0x8000_0000, u32::MAX] {
            assert!(matches!(registry.handle_request(pid, &whole, at(0)), Decision::Unknown));
        }
        assert!(matches!(registry.handle_request(key.pid(), &whole, at(0)), Decision::NotLeased(ALICE)));
    }
}

#[test]
fn follows_the_session_from_the_queue_to_its_connection_and_back() {
    let (mut registry, mut entropy) = (Registry::new(), seeded(3));
    let key = registry.enroll(ALICE, false, &mut entropy);
    registry.handle_waiting(ALICE);
    assert!(matches!(registry.handle_request(key.pid(), key.key(), at(0)), Decision::Waiting(ALICE)));
    registry.handle_lease(ALICE, target(9));
    let order = forwarded(registry.handle_request(key.pid(), key.key(), at(1)));
    assert_eq!((order.session, order.target.slot, order.target.backend.pid), (ALICE, SlotId(9), 4711));
    assert_eq!(registry.handle_finished(order.id, true, at(3)), Some(Duration::from_secs(2)));
    assert_eq!(registry.handle_finished(order.id, true, at(4)), None);
    assert!(registry.handle_unlease(ALICE));
    assert!(matches!(registry.handle_request(key.pid(), key.key(), at(5)), Decision::NotLeased(ALICE)));
}

#[test]
fn a_departed_sessions_key_hits_nothing() {
    let (mut registry, mut entropy) = (Registry::new(), seeded(4));
    let old = registry.enroll(ALICE, false, &mut entropy);
    registry.handle_lease(ALICE, target(9));
    registry.depart(ALICE);
    registry.depart(ALICE);
    // The connection goes to Bob; Alice's key must not reach it.
    let new = registry.enroll(BOB, false, &mut entropy);
    registry.handle_lease(BOB, target(9));
    assert!(matches!(registry.handle_request(old.pid(), old.key(), at(0)), Decision::Unknown));
    assert!(matches!(registry.handle_request(new.pid(), old.key(), at(0)), Decision::Unknown));
    // Late events of a departed session bring nothing back.
    registry.handle_lease(ALICE, target(9));
    registry.handle_waiting(ALICE);
    assert!(matches!(registry.handle_request(old.pid(), old.key(), at(0)), Decision::Unknown));
    assert_eq!(registry.enrolled(), 1);
}

#[test]
fn a_new_key_of_a_session_kills_its_old_one() {
    let (mut registry, mut entropy) = (Registry::new(), seeded(5));
    let old = registry.enroll(ALICE, true, &mut entropy);
    let new = registry.enroll(ALICE, true, &mut entropy);
    assert!(matches!(registry.handle_request(old.pid(), old.key(), at(0)), Decision::Unknown));
    assert!(matches!(registry.handle_request(new.pid(), new.key(), at(0)), Decision::NotLeased(ALICE)));
    assert_eq!(registry.enrolled(), 1);
}

/// Alice on slot 9, and a cancel on its way there.
fn under_way(registry: &mut Registry) -> CancelOrder {
    let key = registry.enroll(ALICE, false, &mut seeded(6));
    registry.handle_lease(ALICE, target(9));
    forwarded(registry.handle_request(key.pid(), key.key(), at(0)))
}

#[test]
fn a_connection_is_not_handed_on_before_its_cancel_is_over() {
    let mut registry = Registry::new();
    let _ = under_way(&mut registry);
    assert!(!registry.handle_unlease(ALICE));
    assert!(registry.handle_unlease(ALICE), "no connection, nothing to say about one");

    let mut registry = Registry::new();
    let order = under_way(&mut registry);
    let _ = registry.handle_finished(order.id, true, at(1));
    assert_eq!(registry.orders(), 0);
    assert!(registry.handle_unlease(ALICE));
}

#[test]
fn a_connection_whose_cancel_may_still_strike_is_never_handed_on() {
    let mut registry = Registry::new();
    let order = under_way(&mut registry);
    let _ = registry.handle_finished(order.id, false, at(5));
    assert!(!registry.handle_unlease(ALICE));
    // It is the connection's fate, not the session's.
    registry.handle_lease(ALICE, target(10));
    assert!(registry.handle_unlease(ALICE));
}

#[test]
fn a_cancel_that_ends_behind_its_lease_haunts_nobody_else() {
    let mut registry = Registry::new();
    let order = under_way(&mut registry);
    assert!(!registry.handle_unlease(ALICE), "closed for that reason");
    registry.handle_lease(ALICE, target(10));
    let _ = registry.handle_finished(order.id, false, at(5));
    assert!(registry.handle_unlease(ALICE));
    registry.depart(ALICE);
    assert_eq!((registry.orders(), registry.enrolled()), (0, 0));
}

#[test]
fn a_later_cancel_that_is_over_does_not_end_the_wait_for_an_earlier_one() {
    let mut registry = Registry::new();
    let key = registry.enroll(ALICE, false, &mut seeded(6));
    registry.handle_lease(ALICE, target(9));
    for over in [false, true] {
        let order = forwarded(registry.handle_request(key.pid(), key.key(), at(0)));
        let _ = registry.handle_finished(order.id, over, at(5));
    }
    assert!(!registry.handle_unlease(ALICE));
}

#[test]
fn a_second_cancel_is_answered_by_the_first_unless_the_session_has_moved() {
    let (mut registry, mut entropy) = (Registry::new(), seeded(7));
    let key = registry.enroll(ALICE, false, &mut entropy);
    registry.handle_lease(ALICE, target(9));
    let first = forwarded(registry.handle_request(key.pid(), key.key(), at(0)));
    for _ in 0..100 {
        let again = registry.handle_request(key.pid(), key.key(), at(0));
        assert!(matches!(again, Decision::InFlight(id) if id == first.id));
    }
    assert_eq!(registry.orders(), 1);
    registry.handle_lease(ALICE, target(10));
    let second = forwarded(registry.handle_request(key.pid(), key.key(), at(0)));
    assert_eq!(second.target.slot, SlotId(10));
    assert!(registry.handle_finished(first.id, true, at(0)).is_some());
    assert!(!registry.handle_unlease(ALICE), "the second one is still on its way");
    let _ = registry.handle_finished(second.id, true, at(0));
}

#[test]
fn a_server_without_a_key_cannot_be_cancelled() {
    let (mut registry, mut entropy) = (Registry::new(), seeded(8));
    let key = registry.enroll(ALICE, false, &mut entropy);
    registry.handle_lease(ALICE, target_with_key(9, vec![]));
    assert!(matches!(registry.handle_request(key.pid(), key.key(), at(0)), Decision::NotLeased(ALICE)));
    assert!(registry.handle_unlease(ALICE));
}

#[test]
fn the_number_of_orders_is_bounded() {
    let (mut registry, mut entropy) = (Registry::new(), seeded(9));
    let mut keys = Vec::new();
    for n in 0..=MAX_ORDERS as u64 {
        keys.push(registry.enroll(SessionId(n), false, &mut entropy));
        registry.handle_lease(SessionId(n), target(n));
    }
    let mut first = None;
    for key in &keys[..MAX_ORDERS] {
        let order = forwarded(registry.handle_request(key.pid(), key.key(), at(0)));
        first.get_or_insert(order.id);
    }
    let last = &keys[MAX_ORDERS];
    assert!(matches!(registry.handle_request(last.pid(), last.key(), at(0)), Decision::Overloaded(_)));
    let _ = first.and_then(|id| registry.handle_finished(id, true, at(0)));
    let _ = forwarded(registry.handle_request(last.pid(), last.key(), at(0)));
}

#[test]
fn process_ids_are_valid_and_unique_even_without_randomness() {
    struct Stuck(u8);
    impl Entropy for Stuck {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }
    for byte in [0x00, 0x80, 0xff] {
        let mut registry = Registry::new();
        let mut pids: Vec<u32> =
            (0..50).map(|n| registry.enroll(SessionId(n), false, &mut Stuck(byte)).pid()).collect();
        assert!(pids.iter().all(|pid| i32::try_from(*pid).is_ok_and(|pid| pid > 0)));
        pids.sort_unstable();
        pids.dedup();
        assert_eq!((pids.len(), registry.enrolled()), (50, 50));
    }
}

#[test]
fn an_order_shows_no_key() {
    let (mut registry, mut entropy) = (Registry::new(), seeded(10));
    let key = registry.enroll(ALICE, false, &mut entropy);
    registry.handle_lease(ALICE, target_with_key(9, b"hush".to_vec()));
    let shown = format!("{:?}", registry.handle_request(key.pid(), key.key(), at(0)));
    assert_eq!(shown, "Forward(CancelOrder(1 for 0000000000000001: db:5432 slot 9))");
}
