//! The process-wide facade: who is connected, who waits for what, who may cancel whom, which keys are trusted.
//!
//! One `Hub` serves all sessions. It has no socket and no clock; what it wants done comes out of
//! [`Hub::poll_output`].

mod clients;

use std::sync::Arc;

use crate::auth::jwks::{Fetch, KeySets};
use crate::cancel::Registry;
use crate::entropy::Entropy;
use crate::fault::{Refusal, SqlState};
use crate::policy::Limits;
use crate::pool::{PoolOutput, Pools};
use crate::session_id::SessionId;
use crate::time::{Deadline, Now, earliest};

pub use clients::Applicant;

use clients::Clients;

/// What the hub wants done.
#[must_use]
#[non_exhaustive]
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
    admitted: Clients,
    limits: Limits,
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
            admitted: Clients::default(),
            limits: limits.clone(),
            last_session,
        }
    }

    /// Other bounds hold from here on. Clients beyond a lower one stay.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.limits = limits.clone();
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
        if self.clients >= self.limits.max_client_conn {
            return Err(Refusal::new(
                SqlState::TOO_MANY_CONNECTIONS,
                format!(
                    "no more connections allowed: gprxy has its {} clients (max_client_conn)",
                    self.limits.max_client_conn
                ),
            )
            .hint("Try again later, or ask the operator to raise max_client_conn."));
        }
        Ok(self.number())
    }

    /// A number for a client for whom [`Hub::handle_arrival`] has no room, while there are not too many of these, too:
    /// it may send a cancel request, and is refused only when it asks for a session. libpq shows no error that comes in
    /// place of an answer to its SSLRequest (CVE-2024-10977), so the refusal has to come over TLS.
    pub fn handle_surplus(&mut self) -> Option<SessionId> {
        let limit = self.limits.max_client_conn;
        (self.clients < limit.saturating_add(room_to_refuse(limit))).then(|| self.number())
    }

    fn number(&mut self) -> SessionId {
        self.clients += 1;
        self.last_session += 1;
        SessionId(self.last_session)
    }

    /// A number for a server connection that is logged in. At the console it stands among those of clients, so that each is
    /// given out once.
    pub fn number_server(&mut self) -> u64 {
        self.last_session += 1;
        SessionId(self.last_session).short()
    }

    /// A client wants to begin a session. Its place is free again with its departure.
    ///
    /// # Errors
    /// The database is closed to new sessions, or there are as many clients as a limit allows.
    pub fn admit(&mut self, session: SessionId, client: &Applicant<'_>) -> Result<(), Refusal> {
        self.pools.admit(client.database)?;
        self.admitted.admit(session, client, &self.limits, self.clients)
    }

    /// The same for a client that is not proven yet: it takes no place, so that it keeps out nobody whose name it gives.
    ///
    /// # Errors
    /// As for [`Hub::admit`].
    pub fn check(&self, client: &Applicant<'_>) -> Result<(), Refusal> {
        self.pools.admit(client.database)?;
        self.admitted.check(client, &self.limits, self.clients)
    }

    /// Clients that have a place in this database.
    #[must_use]
    pub fn clients_of(&self, database: &str) -> u32 {
        self.admitted.of_database(database)
    }

    /// A session has ended. Its place is free for another one, while its client reads the last bytes.
    pub fn handle_end(&mut self, session: SessionId) {
        self.admitted.depart(session);
    }

    /// Whether no client has a place any more.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.clients == 0 && self.admitted.is_empty()
    }

    /// A client has left, for whatever reason.
    pub fn handle_departure(&mut self, session: SessionId, now: Now) {
        self.clients -= 1;
        self.admitted.depart(session);
        self.pools.handle_gave_up(session, now);
        self.cancels.depart(session);
    }

    /// A cancel key for a session that is proven, or about to be.
    pub fn enroll(&mut self, session: SessionId, wide: bool) -> crate::cancel::CancelKey {
        self.cancels.enroll(session, wide, &mut *self.entropy)
    }

    /// Fresh random bytes, for a nonce.
    pub fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{PoolKey, Request};
    use crate::testing::corp;
    use crate::testing::dice::Dice;
    use crate::time::{Tick, Timer};

    fn hub(clients: u32) -> Hub {
        let limits = Limits { max_client_conn: clients, ..Limits::default() };
        let now = corp::at(Tick::default());
        Hub::new(corp::keys(now), &limits, Box::new(Dice::new(1)))
    }

    #[test]
    fn sessions_are_numbered_and_limited() {
        let now = corp::at(Tick::default());
        let mut hub = hub(2);
        let (first, second) = (hub.handle_arrival().unwrap(), hub.handle_arrival().unwrap());
        assert!(second > first);
        assert_eq!(hub.handle_arrival().unwrap_err().code, SqlState::TOO_MANY_CONNECTIONS);
        hub.handle_departure(first, now);
        let third = hub.handle_arrival().unwrap();
        assert!(third > second, "a number is never used again");
        assert_eq!(hub.clients(), 2);
    }

    #[test]
    fn whoever_departs_leaves_neither_key_nor_place_behind() {
        let now = corp::at(Tick::default());
        let mut hub = hub(10);
        let session = hub.handle_arrival().unwrap();
        let key = hub.enroll(session, true);
        assert_eq!(key.key().len(), 32);
        let request = Request {
            session,
            key: PoolKey { account: "a".into(), database: "d".into(), own_password: false },
            parameters: Arc::new([]),
            owner: None,
            reuse: true,
            adapts: false,
            settings: Arc::default(),
        };
        hub.pools.handle_request(request, now);
        hub.handle_departure(session, now);
        assert!(hub.poll_output().is_none(), "the grant was withdrawn");
        assert!(hub.pools.is_empty());
        assert_eq!((hub.cancels.enrolled(), hub.clients()), (0, 0));
    }

    #[test]
    fn the_earliest_deadline_counts_and_unfetched_keys_are_asked_for() {
        let now = corp::at(Tick::default());
        let limits = Limits::default();
        let mut hub = Hub::new(corp::unfetched_keys(now), &limits, Box::new(Dice::new(1)));
        let Some(HubOutput::Fetch(fetch)) = hub.poll_output() else { panic!("the keys are fetched first") };
        assert_eq!(fetch.url, corp::KEYS_URL);
        assert!(hub.poll_output().is_none());
        assert_eq!(hub.poll_timeout().map(|deadline| deadline.why), Some(Timer::KeyRefresh));
        // Early and repeated calls change nothing.
        for _ in 0..3 {
            hub.handle_timeout(now);
        }
        assert!(hub.poll_output().is_none());
    }

    #[test]
    fn nonces_and_keys_differ() {
        let mut hub = hub(10);
        assert_ne!(hub.random::<16>(), hub.random::<16>());
        let (first, second) = (hub.handle_arrival().unwrap(), hub.handle_arrival().unwrap());
        let (first, second) = (hub.enroll(first, false), hub.enroll(second, false));
        assert_ne!((first.pid(), first.key()), (second.pid(), second.key()));
    }
}
