//! Our own cancel keys, and who may cancel what.
//!
//! A client never sees the server's key: it gets one of ours, which names its session and nothing else. A
//! CancelRequest is looked up here and reaches only the server connection that this session runs on at that moment.
//!
//! ```text
//!             handle_waiting              handle_lease
//!   enrolled ────────────────▶ waiting ────────────────▶ leased          depart: from anywhere, the key is dead
//!       ▲                         │                         │
//!       └─────────────────────────┴── handle_unlease ───────┘
//! ```
//!
//! A cancel interrupts whatever the server process runs when the signal arrives, and PostgreSQL closes the cancel
//! connection only after it has sent the signal (manual, "Canceling Requests in Progress"). So [`Registry::handle_unlease`]
//! says whether the connection may be reset and handed on: not while a cancel is on its way to it, and not after one
//! whose end nobody has seen. Otherwise a late signal would hit the reset, or the next client's query.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::entropy::Entropy;
use crate::policy::{Endpoint, TlsTerms};
use crate::pool::SlotId;
use crate::secret::{Secret, equal_in_constant_time};
use crate::session_id::SessionId;
use crate::time::{Now, Tick};
use crate::upstream::BackendKey;

/// The key of protocol 3.0 (manual, "Message Formats", BackendKeyData).
const NARROW_KEY: usize = 4;
/// The key of protocol 3.2: what PostgreSQL 18 itself issues; the protocol allows up to 256 bytes.
const WIDE_KEY: usize = 32;
/// Cancel connections to servers at one time: a flood of valid requests must not use up sockets.
const MAX_ORDERS: usize = 1000;
/// Process ids are drawn at random so that they do not count sessions; after so many collisions the next free one is it.
const DRAWS: u32 = 8;

/// What BackendKeyData tells a client.
pub struct CancelKey {
    pid: u32,
    key: KeyBytes,
}

impl CancelKey {
    /// The process id: 1 to `i32::MAX`, because drivers read it as a signed number.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// 4 bytes for protocol 3.0, 32 for 3.2. For the wire only.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.expose()
    }
}

/// A key in one of its two widths.
struct KeyBytes {
    bytes: Secret<[u8; WIDE_KEY]>,
    wide: bool,
}

impl KeyBytes {
    fn draw(wide: bool, entropy: &mut dyn Entropy) -> Self {
        let mut key = Self { bytes: Secret::new([0; WIDE_KEY]), wide };
        let length = key.length();
        entropy.fill(&mut key.bytes.expose_mut()[..length]);
        key
    }

    const fn length(&self) -> usize {
        if self.wide { WIDE_KEY } else { NARROW_KEY }
    }

    fn expose(&self) -> &[u8] {
        &self.bytes.expose()[..self.length()]
    }

    fn copy(&self) -> Self {
        Self { bytes: Secret::new(*self.bytes.expose()), wide: self.wide }
    }
}

/// A server process that runs a session's queries, and the way to it.
pub struct BackendTarget {
    /// The very address that the connection was opened to, not another of the same database.
    pub endpoint: Endpoint,
    /// `None`: the connection is not encrypted.
    pub tls: Option<TlsTerms>,
    /// The server's own key.
    pub backend: BackendKey,
    /// The connection in its pool.
    pub slot: SlotId,
}

/// One cancel on its way to a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OrderId(u64);

/// What the driver has to do: connect, send CancelRequest with the target's key, wait until the server closes, and then
/// tell [`Registry::handle_finished`], also when any of this failed or was given up.
#[must_use = "an order that is never finished blocks its server connection"]
#[non_exhaustive]
pub struct CancelOrder {
    /// To be named in `handle_finished`.
    pub id: OrderId,
    /// Whose query it is.
    pub session: SessionId,
    /// Where it runs.
    pub target: Arc<BackendTarget>,
}

impl fmt::Debug for CancelOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, session, target } = self;
        write!(f, "CancelOrder({} for {session}: {} slot {})", id.0, target.endpoint, target.slot)
    }
}

/// The answer to a CancelRequest. The client is told nothing in any case: its connection is closed.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Decision {
    /// No living session has this key.
    Unknown,
    /// The session is queued for a server connection, or its connection is being opened: the pool must let it give up,
    /// and its client gets 57014.
    Waiting(SessionId),
    /// The session runs on no server connection, or on one whose server gave no key: nothing to cancel.
    NotLeased(SessionId),
    /// To be forwarded.
    Forward(CancelOrder),
    /// A cancel for the same server connection is on its way already and answers this request too.
    InFlight(OrderId),
    /// Too many cancels are on their way.
    Overloaded(SessionId),
}

/// Where an enrolled session's queries run.
enum Runs {
    Nowhere,
    Queued,
    On {
        target: Arc<BackendTarget>,
        /// A cancel was sent there whose end was not seen: its signal may still come.
        haunted: bool,
    },
}

struct Entry {
    session: SessionId,
    key: KeyBytes,
    runs: Runs,
}

struct Order {
    session: SessionId,
    slot: SlotId,
    since: Tick,
}

/// All cancel keys of one process, and the cancels on their way.
#[derive(Default)]
pub struct Registry {
    by_pid: BTreeMap<u32, Entry>,
    pids: BTreeMap<SessionId, u32>,
    orders: BTreeMap<OrderId, Order>,
    /// At most one order per server connection.
    by_slot: BTreeMap<SlotId, OrderId>,
    last_order: u64,
}

impl Registry {
    /// Nobody is enrolled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the key of a session. `wide`: the client speaks protocol 3.2. An earlier key of the session is dead.
    pub fn enroll(&mut self, session: SessionId, wide: bool, entropy: &mut dyn Entropy) -> CancelKey {
        self.depart(session);
        let pid = self.free_pid(entropy);
        let key = KeyBytes::draw(wide, entropy);
        let told = CancelKey { pid, key: key.copy() };
        self.by_pid.insert(pid, Entry { session, key, runs: Runs::Nowhere });
        self.pids.insert(session, pid);
        told
    }

    /// The session waits for a server connection, until [`Self::handle_lease`] or [`Self::handle_unlease`].
    pub fn handle_waiting(&mut self, session: SessionId) {
        self.set(session, Runs::Queued);
    }

    /// The session's queries run there from now on.
    pub fn handle_lease(&mut self, session: SessionId, target: Arc<BackendTarget>) {
        self.set(session, Runs::On { target, haunted: false });
    }

    /// The session gives its connection back: no new cancel will be aimed at it. Whether the connection may be reset
    /// and handed on: `false` while a cancel is on its way to it, or when one may still strike.
    #[must_use = "a cancel that comes late hits whoever has the connection then"]
    pub fn handle_unlease(&mut self, session: SessionId) -> bool {
        match self.set(session, Runs::Nowhere) {
            Some(Runs::On { target, haunted }) => !haunted && !self.by_slot.contains_key(&target.slot),
            Some(Runs::Nowhere | Runs::Queued) | None => true,
        }
    }

    /// The session is over, and its key with it.
    pub fn depart(&mut self, session: SessionId) {
        if let Some(pid) = self.pids.remove(&session) {
            self.by_pid.remove(&pid);
        }
    }

    /// A CancelRequest has come, from anybody.
    pub fn handle_request(&mut self, pid: u32, key: &[u8], now: Now) -> Decision {
        let Some(entry) = self.by_pid.get(&pid) else { return Decision::Unknown };
        if !equal_in_constant_time(entry.key.expose(), key) {
            return Decision::Unknown;
        }
        let session = entry.session;
        let target = match &entry.runs {
            Runs::Nowhere => return Decision::NotLeased(session),
            Runs::Queued => return Decision::Waiting(session),
            Runs::On { target, .. } if target.backend.key.expose().is_empty() => return Decision::NotLeased(session),
            Runs::On { target, .. } => target.clone(),
        };
        if let Some(&order) = self.by_slot.get(&target.slot) {
            return Decision::InFlight(order);
        }
        if self.orders.len() >= MAX_ORDERS {
            return Decision::Overloaded(session);
        }
        self.last_order += 1;
        let id = OrderId(self.last_order);
        self.orders.insert(id, Order { session, slot: target.slot, since: now.tick });
        self.by_slot.insert(target.slot, id);
        Decision::Forward(CancelOrder { id, session, target })
    }

    /// The server has closed the cancel connection, or it failed or timed out. Returns how long it took; `None` when
    /// the order had been finished before.
    ///
    /// `over`: the signal has been given, or never will be. When it may still come, the connection that it was meant for
    /// goes on serving its session, and is not handed on to another one.
    pub fn handle_finished(&mut self, id: OrderId, over: bool, now: Now) -> Option<Duration> {
        let order = self.orders.remove(&id)?;
        self.by_slot.remove(&order.slot);
        if !over
            && let Some(entry) = self.pids.get(&order.session).and_then(|pid| self.by_pid.get_mut(pid))
            && let Runs::On { target, haunted } = &mut entry.runs
        {
            *haunted |= target.slot == order.slot;
        }
        Some(now.tick.since(order.since))
    }

    /// How many sessions have a key.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn enrolled(&self) -> usize {
        self.pids.len()
    }

    /// How many cancels are on their way.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn orders(&self) -> usize {
        self.orders.len()
    }

    /// Where the session ran before; `None` when it has no key.
    fn set(&mut self, session: SessionId, runs: Runs) -> Option<Runs> {
        let entry = self.pids.get(&session).and_then(|pid| self.by_pid.get_mut(pid))?;
        Some(std::mem::replace(&mut entry.runs, runs))
    }

    /// A process id that no living session has.
    fn free_pid(&self, entropy: &mut dyn Entropy) -> u32 {
        let mut pid = valid_pid(entropy.next_u32());
        for _ in 0..DRAWS {
            if !self.by_pid.contains_key(&pid) {
                return pid;
            }
            pid = valid_pid(entropy.next_u32());
        }
        // Only a broken source of randomness or hundreds of millions of sessions come here. There are more ids than
        // sessions that fit into memory, so the search ends.
        while self.by_pid.contains_key(&pid) {
            pid = valid_pid(pid.wrapping_add(1));
        }
        pid
    }
}

/// Brings any number into 1 to `i32::MAX`.
fn valid_pid(number: u32) -> u32 {
    (number & 0x7fff_ffff).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
