//! Requests for sessions of other processes.
//!
//! Whether such a request is worth anything only its peer can tell, so anybody can have requests passed on. What they cost
//! is bounded for each peer, and apart from the cancels of our own sessions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::key::{maker, passed_on};
use super::{Decision, OrderId, Registry};
use crate::policy::{PeerId, PeerSettings, Peers};
use crate::upstream::BackendKey;

/// A request on its way to a peer.
///
/// What the driver has to do: connect, send CancelRequest with this key, tell [`Registry::handle_sent_to_peer`], wait until
/// the peer closes, and then tell [`Registry::handle_peer_finished`], also when any of this failed or was given up.
#[must_use = "a request that is never finished takes a place for ever"]
#[non_exhaustive]
pub struct PeerOrder {
    /// To be named in what is told of it.
    pub id: OrderId,
    /// Whose session is meant.
    pub peer: PeerId,
    /// The way there.
    pub settings: Arc<PeerSettings>,
    /// Process id and key, as the peer made them, with a hop less.
    pub key: BackendKey,
}

impl fmt::Debug for PeerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, peer, settings, .. } = self;
        write!(f, "PeerOrder({} for peer {peer} at {})", id.0, settings.endpoint)
    }
}

/// The peers of this process, and what is on its way to them.
#[derive(Default)]
pub(super) struct Passing {
    peers: Arc<Peers>,
    /// Requests in a row that came to nothing.
    failures: BTreeMap<PeerId, u64>,
    /// Whether each of them has been sent.
    under_way: BTreeMap<PeerId, BTreeMap<OrderId, bool>>,
}

/// A peer, and what is on its way there.
#[derive(Clone, Debug)]
pub struct PeerLoad {
    /// Its number.
    pub id: PeerId,
    /// The way there.
    pub settings: Arc<PeerSettings>,
    /// Requests for which a connection is being opened.
    pub connecting: usize,
    /// Requests that were sent, and that it has not answered by closing.
    pub sent: usize,
}

impl Registry {
    /// A registry of a process with peers, whose keys say that they are its own. Nobody is enrolled.
    #[must_use]
    pub fn of_peer(own: Option<PeerId>) -> Self {
        Self { own, ..Self::default() }
    }

    /// Where the peers are from here on; a process without a number has none. Requests that are on their way go on.
    pub fn set_peers(&mut self, peers: Arc<Peers>) {
        self.passing.failures.retain(|id, _| peers.contains_key(id));
        self.passing.peers = peers;
    }

    /// The peers, its own number aside, and what is on its way to them.
    pub fn peers(&self) -> impl Iterator<Item = PeerLoad> {
        let others = self.passing.peers.iter().filter(|(id, _)| self.own.is_some_and(|own| own != **id));
        others.map(|(id, settings)| {
            let under_way = self.passing.under_way.get(id);
            let all = under_way.map_or(0, BTreeMap::len);
            let sent = under_way.map_or(0, |orders| orders.values().filter(|sent| **sent).count());
            PeerLoad { id: *id, settings: settings.clone(), connecting: all - sent, sent }
        })
    }

    /// A request with a key that another process made, or nobody.
    pub(super) fn pass_on(&mut self, pid: u32, key: &[u8]) -> Decision {
        let peer = maker(pid).and_then(|id| Some((id, self.passing.peers.get(&id)?.clone())));
        let (Some((peer, settings)), Some(key)) = (peer, passed_on(key)) else { return Decision::Unknown };
        let under_way = self.passing.under_way.entry(peer).or_default();
        if under_way.len() >= usize::try_from(settings.pool_size).unwrap_or(usize::MAX) {
            return Decision::PeerBusy { peer, failures: self.handle_peer_failed(peer) };
        }
        self.last_order += 1;
        let id = OrderId(self.last_order);
        under_way.insert(id, false);
        Decision::PassOn(PeerOrder { id, peer, settings, key: BackendKey { pid, key: Arc::new(key) } })
    }

    /// The request is out.
    pub fn handle_sent_to_peer(&mut self, peer: PeerId, id: OrderId) {
        if let Some(sent) = self.passing.under_way.get_mut(&peer).and_then(|orders| orders.get_mut(&id)) {
            *sent = true;
        }
    }

    /// A request came to nothing. How many in a row, for a log that anybody could fill.
    pub fn handle_peer_failed(&mut self, peer: PeerId) -> u64 {
        let failures = self.passing.failures.entry(peer).or_default();
        *failures += 1;
        *failures
    }

    /// The peer has taken a request.
    pub fn handle_peer_reached(&mut self, peer: PeerId) {
        self.passing.failures.remove(&peer);
    }

    /// The peer has closed the connection, or it failed or timed out.
    pub fn handle_peer_finished(&mut self, peer: PeerId, id: OrderId) {
        if let Some(orders) = self.passing.under_way.get_mut(&peer) {
            orders.remove(&id);
            if orders.is_empty() {
                self.passing.under_way.remove(&peer);
            }
        }
    }

    /// How many requests are on their way to peers.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn passed_on(&self) -> usize {
        self.passing.under_way.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests;
