//! The process-wide facade: who is connected, who waits for what, who may cancel whom, which keys are trusted.
//!
//! One `Hub` serves all sessions. It has no socket and no clock; what it wants done comes out of
//! [`Hub::poll_output`].

use std::sync::Arc;

use crate::auth::jwks::{Fetch, KeySets};
use crate::cancel::Registry;
use crate::entropy::Entropy;
use crate::fault::{Refusal, SqlState};
use crate::policy::Limits;
use crate::pool::{PoolOutput, Pools};
use crate::session_id::SessionId;
use crate::time::{Deadline, Now, earliest};

/// What the hub wants done.
#[must_use]
pub enum HubOutput {
    /// For a session, or for an idle server connection.
    Pool(PoolOutput),
    /// An HTTP GET for an issuer's keys.
    Fetch(Fetch),
}

/// How many clients beyond the limit are listened to for the time of a login.
const fn room_to_refuse(max_clients: u32) -> u32 {
    max_clients / 10 + 10
}

/// Everything that sessions share.
pub struct Hub {
    /// Server connections.
    pub pools: Pools,
    /// Cancel keys.
    pub cancels: Registry,
    /// Issuers' keys.
    pub keys: KeySets,
    entropy: Box<dyn Entropy + Send>,
    clients: u32,
    max_clients: u32,
    last_session: u64,
}

impl Hub {
    /// A hub without clients.
    #[must_use]
    pub fn new(keys: KeySets, limits: &Limits, mut entropy: Box<dyn Entropy + Send>) -> Self {
        // The upper half tells one run of the process from another in logs and audit trails.
        let last_session = u64::from(entropy.next_u32()) << 32;
        Self {
            pools: Pools::default(),
            cancels: Registry::default(),
            keys,
            entropy,
            clients: 0,
            max_clients: limits.max_client_conn,
            last_session,
        }
    }

    /// Clients connected now.
    #[must_use]
    pub const fn clients(&self) -> u32 {
        self.clients
    }

    /// A client has connected.
    ///
    /// # Errors
    /// When there are as many as `max_client_conn` allows.
    pub fn handle_arrival(&mut self) -> Result<SessionId, Refusal> {
        if self.clients >= self.max_clients {
            return Err(Refusal::new(
                SqlState::TOO_MANY_CONNECTIONS,
                format!("no more connections allowed: gprxy has its {} clients (max_client_conn)", self.max_clients),
            )
            .hint("Try again later, or ask the operator to raise max_client_conn."));
        }
        Ok(self.admit())
    }

    /// A number for a client for whom [`Hub::handle_arrival`] has no room, while there are not too many of these, too:
    /// it may send a cancel request, and is refused only when it asks for a session. libpq shows no error that comes in
    /// place of an answer to its SSLRequest (CVE-2024-10977), so the refusal has to come over TLS.
    pub fn handle_surplus(&mut self) -> Option<SessionId> {
        (self.clients < self.max_clients.saturating_add(room_to_refuse(self.max_clients))).then(|| self.admit())
    }

    fn admit(&mut self) -> SessionId {
        self.clients += 1;
        self.last_session += 1;
        SessionId(self.last_session)
    }

    /// A client has left, for whatever reason.
    pub fn handle_departure(&mut self, session: SessionId, now: Now) {
        self.clients -= 1;
        self.pools.handle_gave_up(session, now);
        self.cancels.depart(session);
    }

    /// A cancel key for a session that is proven, or about to be.
    pub fn enroll(&mut self, session: SessionId, wide: bool) -> crate::cancel::CancelKey {
        self.cancels.enroll(session, wide, &mut *self.entropy)
    }

    /// Random bytes for a SCRAM nonce.
    pub fn nonce(&mut self) -> [u8; 18] {
        let mut nonce = [0; 18];
        self.entropy.fill(&mut nonce);
        nonce
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.pools.handle_timeout(now);
        self.keys.handle_timeout(now);
    }

    /// When [`Hub::handle_timeout`] will have something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        earliest(self.pools.poll_timeout(), self.keys.poll_timeout())
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<HubOutput> {
        match self.pools.poll_output() {
            Some(output) => Some(HubOutput::Pool(output)),
            None => self.keys.poll_output().map(HubOutput::Fetch),
        }
    }

    /// The trusted keys as they are now.
    #[must_use]
    pub fn keyring(&self) -> Arc<crate::auth::jwt::Keyring> {
        self.keys.keyring().clone()
    }
}
