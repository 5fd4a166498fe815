//! Leases, waiters, sizes, lifetimes: who may use which server connection, and when.
//!
//! [`Pools`] decides and never touches a socket. A session asks with [`Pools::handle_request`] and later finds
//! [`PoolOutput::Granted`] in the output queue, with a [`Lease`] that it must give back. The life of a connection:
//!
//! ```text
//!              Granted Open            handle_opened             handle_release(Clean)
//!   (nothing) ──────────────▶ opening ───────────────▶ active ─────────────────────────▶ idle
//!       ▲                        │                      │  ▲        Granted Reuse        │
//!       │   handle_open_failed   │   release(Broken)    │  └─────────────────────────────┤
//!       └────────────────────────┴──────────────────────┴── Close ───────────────────────┘
//! ```
//!
//! Rules that the rest of the house relies on:
//!
//! - A connection is opened with the client's own startup parameters in its startup packet, so that `DISCARD ALL`
//!   returns to exactly what that client asked for. Therefore an idle connection serves only a request whose
//!   encoded parameters are byte-equal. Of several it is the most recently used one, so that the others can time out.
//! - A full pool whose clients have different parameters would log in again and again. So what is opened there in another
//!   one's place is bare ([`How::OpenBare`]): without parameters in its startup packet, and brought to those of each
//!   request by a reset.
//! - A connection that comes back with its owner's state serves that owner again as it is, before all others, and anybody
//!   else only after a reset ([`How::Reset`]); one that nobody owns is preferred to that. Where several people come, one
//!   idle connection is reset ahead ([`PoolOutput::Clean`]).
//! - No pool holds more than `default_pool_size` connections, those being opened and idle ones included, and
//!   `reserve_pool_size` more when somebody has waited for long. When a full pool has only idle connections with other
//!   parameters, the least recently used one makes room; so it is with the limits of a database and of an account
//!   (`max_db_connections`, `max_user_connections`), where the idle connection of another pool makes room.
//! - First come, first served: nobody overtakes an earlier request of the same pool, not even to a better match, nor
//!   one of another pool that waits for the same limit.
//! - A login that fails for a reason that others would meet too makes the pool back off for `server_login_retry`:
//!   who needs a new connection meanwhile is told that reason at once. Then one login is tried, and the others wait for
//!   how it ends. With `wait_for_server`, who met that his server is down goes back to his place and waits for the next
//!   try, and so do those who waited with him, or came to a pool that has never had a connection.
//! - A connection that nobody has used for `server_check_delay` is checked before it serves again ([`How::Check`]); a
//!   reset checks by itself.
//! - A paused pool gives nobody anything: those who ask wait in the queue, and what comes back is closed.
//! - A session that gave up gets no output any more, not even one that was already queued.
//! - Work per call is bounded. What is left over is due at once: [`Pools::poll_timeout`] then names a past tick.

mod chores;
mod control;
mod facts;
mod forgetting;
mod groups;
mod idle;
mod lease;
mod one;
mod pools;
mod retire;
mod timers;
mod turns;
mod words;

#[cfg(any(test, feature = "testing"))]
pub mod law;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::Refusal;
use crate::session_id::SessionId;

pub use facts::{PoolFacts, PoolTotals, ServerFacts, ServerState};
pub use lease::{Lease, SlotId};
pub use pools::Pools;

/// When a server connection goes back to its pool, with PgBouncer's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PoolMode {
    /// When the client leaves.
    #[default]
    Session,
    /// When a transaction ends.
    Transaction,
    /// When a statement ends; transaction blocks are refused.
    Statement,
}

/// Who may find what somebody has left in a session on a server connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Isolation {
    /// Nobody but the same verified identity: in between, the session is reset.
    #[default]
    Identity,
    /// Everybody in the pool, as with PgBouncer: for clients that trust each other.
    PgBouncer,
}

/// Limits of one pool, with PgBouncer's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// When a server connection comes back.
    pub pool_mode: PoolMode,
    /// Whom it may serve then without a reset.
    pub isolation: Isolation,
    /// Server connections per [`PoolKey`], open or being opened. With zero every request waits in vain.
    pub default_pool_size: u32,
    /// A pool that is in use is kept at so many, at most `default_pool_size`.
    pub min_pool_size: u32,
    /// So many more when a client has waited for `reserve_pool_timeout`.
    pub reserve_pool_size: u32,
    /// See `reserve_pool_size`; zero: the reserve is never used.
    pub reserve_pool_timeout: Duration,
    /// Server connections to the database, over all accounts; zero: any number.
    pub max_db_connections: u32,
    /// Server connections of the account, over all databases; zero: any number.
    pub max_user_connections: u32,
    /// Clients of the database; zero: any number.
    pub max_db_client_connections: u32,
    /// Clients that run as the account; zero: any number.
    pub max_user_client_connections: u32,
    /// Of several idle connections, the one is taken that was used longest ago, and not the last one.
    pub server_round_robin: bool,
    /// Prepared statements that a server connection keeps for those who share it; zero: a session that prepares any by
    /// name keeps its connection.
    pub max_prepared_statements: u32,
    /// A server connection older than this is closed instead of reused; zero: each is used once.
    pub server_lifetime: Duration,
    /// An unused server connection is closed after this; zero: never.
    pub server_idle_timeout: Duration,
    /// A pool that has nothing left is forgotten after this; `None`: never, as far as there are not too many of them.
    pub pool_idle_timeout: Option<Duration>,
    /// A server connection that nobody has used for this long is checked before somebody gets it.
    pub server_check_delay: Duration,
    /// By this query; [`PoolSettings::NO_QUERY`]: only by the proof that every check ends with. Empty: none is checked.
    pub server_check_query: Arc<str>,
    /// What runs on a connection when its session ends; with `server_reset_query_always` also when a transaction does. What
    /// [`Isolation::Identity`] asks for happens in any case.
    pub server_reset_query: Arc<str>,
    /// See `server_reset_query`.
    pub server_reset_query_always: bool,
    /// What runs on a new connection, and again when everything was discarded.
    pub connect_query: Option<Arc<str>>,
    /// Parameters that are to follow a session. All that the server reports do; of these the operator wants to know if the
    /// server does not.
    pub track_extra_parameters: Arc<[Box<str>]>,
    /// A client that waits longer for a server connection is refused (53300); zero: never.
    pub query_wait_timeout: Duration,
    /// A client that waits this long is told so once by a NOTICE; zero: never.
    pub query_wait_notify: Duration,
    /// After a failed login to the server, the next try waits this long; zero: not at all.
    pub server_login_retry: Duration,
    /// Who waits for a connection of a server that is down goes on waiting, as with PgBouncer, and is not told at once.
    pub wait_for_server: bool,
}

impl PoolSettings {
    /// PgBouncer's word for a check without a query of the operator's.
    pub const NO_QUERY: &str = "<empty>";

    /// The query that is part of a check, if one is.
    #[must_use]
    pub fn check_query(&self) -> Option<Arc<str>> {
        let query = &self.server_check_query;
        (!query.is_empty() && **query != *Self::NO_QUERY).then(|| query.clone())
    }
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            pool_mode: PoolMode::default(),
            isolation: Isolation::default(),
            default_pool_size: 5,
            min_pool_size: 0,
            reserve_pool_size: 0,
            reserve_pool_timeout: Duration::from_secs(5),
            max_db_connections: 0,
            max_user_connections: 0,
            max_db_client_connections: 0,
            max_user_client_connections: 0,
            server_round_robin: false,
            max_prepared_statements: 200,
            server_lifetime: Duration::from_secs(3600),
            server_idle_timeout: Duration::from_secs(1800),
            pool_idle_timeout: Some(Duration::ZERO),
            server_check_delay: Duration::from_secs(30),
            server_check_query: Self::NO_QUERY.into(),
            server_reset_query: "DISCARD ALL".into(),
            server_reset_query_always: false,
            connect_query: None,
            track_extra_parameters: ["IntervalStyle".into()].into(),
            query_wait_timeout: Duration::from_secs(120),
            query_wait_notify: Duration::from_secs(5),
            server_login_retry: Duration::from_secs(15),
            wait_for_server: false,
        }
    }
}

/// What connections are pooled by. Not a person: the account is the one that the queries run as.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PoolKey {
    /// The PostgreSQL role that the server connection logs in as.
    pub account: Arc<str>,
    /// The database, as clients name it.
    pub database: Arc<str>,
    /// Whether those in it log in with the account's password themselves, or are looked up first. They are not proven before
    /// the server has let them in, or told of them, so they must not take a place, or an idle connection, from those who are.
    pub own_password: bool,
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.own_password { " by its own password" } else { "" };
        write!(f, "account {:?}{how} to database {:?}", self.account, self.database)
    }
}

/// Whose session state a connection may hold: an identity in one canonical spelling, compared and never read. `None`:
/// nobody's. People who trust each other are one owner.
pub type Owner = Option<Arc<str>>;

/// A session's wish for a server connection.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks. A session has at most one request or lease at a time.
    pub session: SessionId,
    /// The pool.
    pub key: PoolKey,
    /// The client's startup parameters in one canonical encoding: compared byte by byte, never read.
    pub parameters: Arc<[u8]>,
    /// Whose session state the connection will hold if it comes back [`Returned::Kept`].
    pub owner: Owner,
    /// `false` for a login with a person's own password: always a fresh connection, closed at its return.
    pub reuse: bool,
    /// Whether a connection that was opened without startup parameters can be brought to these behind its login.
    pub adapts: bool,
    /// The limits of this pool. Those of the latest request hold for the whole pool, so a reload needs no extra call.
    pub settings: Arc<PoolSettings>,
}

/// What the holder of a granted lease has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Open a connection and log in, then tell [`Pools::handle_opened`] or [`Pools::handle_open_failed`].
    Open,
    /// The same, but log in without startup parameters and bring the connection to those that were asked for: others will
    /// want it with theirs. Where that is not possible, tell [`Pools::handle_unadaptable`] and open it as ever.
    OpenBare,
    /// Take the idle connection of the lease's slot.
    Reuse,
    /// Take the idle connection of the lease's slot, and check it before anything else: nobody has used it for
    /// `server_check_delay`.
    Check,
    /// Take the idle connection of the lease's slot, and reset it before anything else: somebody else's state is in it, or
    /// it is bare and was brought to other startup parameters.
    Reset,
}

/// Why a connection could not be opened.
#[derive(Clone, Debug)]
pub struct OpenError {
    /// What to tell those who meet the same.
    pub refusal: Refusal,
    /// The server is not there, or not yet, and has not refused anybody: a later try may succeed.
    pub is_down: bool,
}

/// In which state a leased connection comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Returned {
    /// Reset and provably clean. The driver has parked the socket under the lease's slot *before* it says so: the
    /// next output may grant or close it.
    Clean,
    /// Provably between transactions, and with whatever state its owner has left in the session. The driver has parked the
    /// socket as for `Clean`.
    Kept,
    /// Closed, or about to be closed by the driver: nobody uses it again.
    Broken,
}

/// What [`Pools`] wants done, in this order.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum PoolOutput {
    /// The session's turn has come.
    Granted {
        /// Who asked.
        session: SessionId,
        /// The right to use one connection, to be returned.
        lease: Lease,
        /// Whether that connection is there already.
        how: How,
    },
    /// Open a connection for nobody in particular, then tell [`Pools::handle_opened`] and return it `Clean`; or tell
    /// [`Pools::handle_open_failed`] or [`Pools::handle_chore_failed`].
    Open {
        /// The pool.
        key: PoolKey,
        /// What to open it with.
        parameters: Arc<[u8]>,
        /// The right to use it.
        lease: Lease,
    },
    /// Reset the idle connection of the lease's slot for nobody in particular, then return it `Clean`; or `Broken`.
    Clean {
        /// The right to use it.
        lease: Lease,
    },
    /// The session still waits, and its client should know why nothing happens.
    Notice {
        /// Who waits.
        session: SessionId,
        /// What to put into a NOTICE.
        text: String,
    },
    /// The session gets no connection. It may ask again.
    Refused {
        /// Who asked.
        session: SessionId,
        /// What to tell its client.
        refusal: Refusal,
    },
    /// The idle connection of this slot is to be closed.
    Close {
        /// Where the driver parked it.
        slot: SlotId,
        /// For the log.
        why: Closing,
    },
}

/// Why a connection is closed that nobody has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// It has lived for `server_lifetime`, or serves nobody but the one who has left.
    Lifetime,
    /// Nobody has used it for `server_idle_timeout`.
    Unused,
    /// It makes room for another one.
    Evicted,
    /// An operator or a reload wants new ones.
    Stale,
    /// Its pool is paused.
    Paused,
    /// Its pool has become smaller.
    Surplus,
    /// The process ends.
    Shutdown,
}

impl Closing {
    /// In PgBouncer's words, where it has some.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Lifetime => "server lifetime over",
            Self::Unused => "server idle timeout",
            Self::Evicted => "evicted",
            Self::Stale => "database configuration changed",
            Self::Paused => "pause mode",
            Self::Surplus => "too many servers in the pool",
            Self::Shutdown => "shutdown",
        }
    }
}

/// How many connections and clients a pool has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections that are leased and logged in.
    pub active: usize,
    /// Connections that are leased and not yet logged in.
    pub opening: usize,
    /// Sessions in the queue.
    pub waiting: usize,
}
