//! Our own cancel keys, and who may cancel what.
//!
//! A client never sees the server's key: it gets one of ours, which names its session and nothing else. A
//! CancelRequest is looked up here and reaches only the server connection that this session runs on at that moment. Behind
//! one address with other processes, its peers, it also names the process, and what is another's is passed on to that one.
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

mod key;
mod passing;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::entropy::Entropy;
use crate::policy::{Endpoint, PeerId, TlsTerms};
use crate::pool::SlotId;
use crate::session_id::SessionId;
use crate::time::{Now, Tick};
use crate::upstream::BackendKey;

pub use key::CancelKey;
pub use passing::{PeerLoad, PeerOrder};

use key::{KeyBytes, NUMBERS, valid_pid};
use passing::Passing;

/// Cancel connections to servers at one time: a flood of valid requests must not use up sockets.
const MAX_ORDERS: usize = 1000;
/// Process ids are drawn at random so that they do not count sessions; after so many collisions the next free one is it.
const DRAWS: u32 = 8;

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
    /// To be passed on to the process that made the key.
    PassOn(PeerOrder),
    /// Too many are on their way there.
    PeerBusy {
        /// Whose session is meant.
        peer: PeerId,
        /// So many in a row came to nothing.
        failures: u64,
    },
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
    /// The number of this process among its peers; `None`: it has none, and its keys are good here only.
    own: Option<PeerId>,
    passing: Passing,
}

impl Registry {
    /// Nobody is enrolled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the key of a session. `wide`: the client speaks protocol 3.2. An earlier key of the session is dead.
    ///
    /// A process with peers has 131072 process ids. Sessions beyond that get a key that reaches nothing.
    pub fn enroll(&mut self, session: SessionId, wide: bool, entropy: &mut dyn Entropy) -> CancelKey {
        self.depart(session);
        let pid = self.free_pid(entropy);
        let key = KeyBytes::draw(wide, self.own.is_some(), entropy);
        let told = CancelKey { pid: pid.unwrap_or_else(|| valid_pid(0, self.own)), key: key.copy() };
        let Some(pid) = pid else { return told };
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
        if self.own.is_some_and(|own| key::maker(pid) != Some(own)) {
            return self.pass_on(pid, key);
        }
        let Some(entry) = self.by_pid.get(&pid).filter(|entry| entry.key.is(key)) else { return Decision::Unknown };
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

    /// The server connections that cancels are on their way to.
    pub fn cancelled_slots(&self) -> impl Iterator<Item = SlotId> {
        self.by_slot.keys().copied()
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

    /// A process id that no living session has; `None`: all are taken.
    fn free_pid(&self, entropy: &mut dyn Entropy) -> Option<u32> {
        // Looked at first, because the search below would go through all of them.
        if self.own.is_some() && self.by_pid.len() >= NUMBERS {
            return None;
        }
        let mut pid = valid_pid(entropy.next_u32(), self.own);
        for _ in 0..DRAWS {
            if !self.by_pid.contains_key(&pid) {
                return Some(pid);
            }
            pid = valid_pid(entropy.next_u32(), self.own);
        }
        // A broken source of randomness comes here, hundreds of millions of sessions, or more than half as many as a process
        // with peers has ids for. There is a free one, so the search ends.
        while self.by_pid.contains_key(&pid) {
            pid = valid_pid(pid.wrapping_add(1), self.own);
        }
        Some(pid)
    }
}

#[cfg(test)]
mod tests;
