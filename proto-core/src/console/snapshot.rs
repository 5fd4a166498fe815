//! What the console shows, as it is at one moment. The driver takes it; nothing here changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::{HostOrder, OwnPool};
use crate::pool::{PoolKey, PoolMode, PoolSettings};
use crate::relay::pins::Pins;
use crate::session_id::SessionId;
use crate::time::UnixMicros;

/// A line of `SHOW CONFIG`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Its name, PgBouncer's where there is one.
    pub key: String,
    /// Its value as it would stand in a configuration file; never a secret.
    pub value: String,
    /// What holds where nothing is configured.
    pub default: String,
    /// Whether it can be changed while the process runs.
    pub changeable: bool,
}

/// Everything that a table may need; what one does not is empty.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Sessions of clients.
    pub clients: Vec<ClientFacts>,
    /// Server connections.
    pub servers: Vec<ServerFacts>,
    /// Pools.
    pub pools: Vec<PoolFacts>,
    /// Databases.
    pub databases: Vec<DatabaseFacts>,
    /// Other processes that cancel requests are passed on to.
    pub peers: Vec<PeerFacts>,
    /// Names that may log in, or have a connection.
    pub users: Vec<UserFacts>,
    /// What has happened in each database.
    pub statistics: Vec<DatabaseStatistics>,
    /// Settings.
    pub settings: Vec<Setting>,
    /// Whether something is switched off.
    pub state: State,
    /// Memory.
    pub memory: Vec<MemoryFacts>,
}

/// What a session is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientState {
    /// It has not said who it is, or that is not decided.
    #[default]
    Login,
    /// It has no server connection and needs none.
    Idle,
    /// It has one.
    Active,
    /// It waits for one.
    Waiting,
    /// It is at the console.
    Console,
    /// It passes a cancel request on.
    Cancelling,
    /// It has ended and its last bytes are on their way.
    Closing,
}

/// A session.
#[derive(Clone, Debug, Default)]
pub struct ClientFacts {
    /// Its number, as in logs and audit records.
    pub session: u64,
    /// What it is doing.
    pub state: ClientState,
    /// The user of its startup packet.
    pub user: Option<Arc<str>>,
    /// The database of its startup packet.
    pub database: Option<Arc<str>>,
    /// Address and port, or `unix`.
    pub address: Option<Arc<str>>,
    /// Our end of it.
    pub local: Option<SocketAddr>,
    /// When it connected.
    pub connected: UnixMicros,
    /// When it asked for something last.
    pub requested: Option<UnixMicros>,
    /// How long it has been waiting for its server connection.
    pub waiting: Option<Duration>,
    /// Its server connection.
    pub server: Option<u64>,
    /// How it is encrypted; empty when it is not.
    pub tls: Option<Arc<str>>,
    /// `application_name` of the startup packet.
    pub application: Option<Arc<str>>,
    /// Statements that it has prepared.
    pub prepared: u64,
    /// The process id that it was told with its cancel key.
    pub pid: u32,
    /// Who it is.
    pub identity: Option<Arc<str>>,
    /// Who says so.
    pub issuer: Option<Arc<str>>,
    /// Their roles.
    pub roles: Option<Arc<str>>,
    /// What they run as.
    pub account: Option<Arc<str>>,
    /// When the token ends that they came with.
    pub expires: Option<UnixMicros>,
    /// What ties it to its server connection between transactions.
    pub pinned: Pins,
}

/// What a server connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerState {
    /// It is being opened or logged in.
    New,
    /// A session has it.
    Active,
    /// Nobody has it.
    Idle,
    /// It is being reset or checked.
    Tested,
}

/// A server connection.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Its number among server connections.
    pub number: u64,
    /// Its number among all connections; zero while it is being opened.
    pub id: u64,
    /// Our end of it.
    pub local: Option<SocketAddr>,
    /// What it logged in as, and to which database.
    pub key: PoolKey,
    /// What it is doing.
    pub state: ServerState,
    /// Where the server is; empty while it is being opened.
    pub address: Option<Arc<str>>,
    /// The server's process.
    pub pid: u32,
    /// How it is encrypted.
    pub tls: Option<Arc<str>>,
    /// When it was opened.
    pub connected: UnixMicros,
    /// When it was leased last.
    pub requested: UnixMicros,
    /// It is closed when it comes back.
    pub stale: bool,
    /// Whose it is.
    pub session: Option<SessionId>,
    /// The name of the application of that session.
    pub application: Option<Arc<str>>,
    /// Whose state it holds.
    pub identity: Option<Arc<str>>,
    /// Statements that are prepared there.
    pub prepared: u64,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct PoolFacts {
    /// Which one.
    pub key: PoolKey,
    /// When connections come back.
    pub mode: PoolMode,
    /// Which of its database's hosts is tried first; `None` when there is only one.
    pub host_order: Option<HostOrder>,
    /// Sessions that use it and do not wait.
    pub clients: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// Cancel requests that are being passed on.
    pub cancels: usize,
    /// Connections that a session has.
    pub active: usize,
    /// Connections that nobody has.
    pub idle: usize,
    /// Connections that are being reset or checked.
    pub tested: usize,
    /// Connections that are being opened.
    pub opening: usize,
    /// How long the first of those who wait has waited.
    pub oldest_wait: Duration,
    /// Nobody gets a connection until an operator says so.
    pub paused: bool,
    /// Idle connections that were found dead or unfit when their turn came: new ones took their places.
    pub replaced: u64,
}

/// A database.
#[derive(Clone, Debug)]
pub struct DatabaseFacts {
    /// As clients name it.
    pub name: Arc<str>,
    /// Where it is: the hosts, with commas between them.
    pub host: String,
    /// The port of the first.
    pub port: u16,
    /// Which of its hosts is tried first; `None` when there is only one.
    pub host_order: Option<HostOrder>,
    /// Its name there.
    pub dbname: Arc<str>,
    /// Whom everybody runs as there.
    pub user: Option<Arc<str>>,
    /// Limits.
    pub settings: Arc<PoolSettings>,
    /// Server connections.
    pub connections: usize,
    /// Sessions.
    pub clients: usize,
    /// Nobody gets a connection.
    pub paused: bool,
    /// Nobody begins a session.
    pub disabled: bool,
}

/// Another process that cancel requests are passed on to.
#[derive(Clone, Debug)]
pub struct PeerFacts {
    /// Its number.
    pub id: u16,
    /// Where it is: a host, or the directory of its socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Requests that may be on their way there at one time.
    pub pool_size: u32,
    /// Requests for which a connection is being opened.
    pub connecting: usize,
    /// Requests that were sent, and are not over.
    pub sent: usize,
}

/// A name that clients log in as, or server connections do.
#[derive(Clone, Debug)]
pub struct UserFacts {
    /// The name.
    pub name: Arc<str>,
    /// What it has of its own, and not as everybody has it.
    pub own: OwnPool,
    /// Server connections that it may have; zero: any number.
    pub max_connections: u32,
    /// Its server connections.
    pub connections: usize,
    /// Sessions that it may have; zero: any number.
    pub max_clients: u32,
    /// Its sessions.
    pub clients: usize,
}

/// What has been done, in a session or in a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Server connections that were given to sessions.
    pub assignments: u64,
    /// Transactions.
    pub transactions: u64,
    /// Queries: what ends with a ReadyForQuery.
    pub queries: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
    /// Time in transactions.
    pub transaction_time: Duration,
    /// Time in queries.
    pub query_time: Duration,
    /// Time in which sessions waited for a server connection.
    pub wait_time: Duration,
    /// Statements that clients prepared.
    pub client_parses: u64,
    /// Statements that were prepared on servers.
    pub server_parses: u64,
    /// Statements that were bound.
    pub binds: u64,
    /// Logins that succeeded.
    pub logins: u64,
    /// Times that a session began to keep its server connection, because of state that cannot follow it.
    pub pins: u64,
}

impl Figures {
    /// Nothing.
    pub const EMPTY: Self = Self {
        assignments: 0,
        transactions: 0,
        queries: 0,
        received: 0,
        sent: 0,
        transaction_time: Duration::ZERO,
        query_time: Duration::ZERO,
        wait_time: Duration::ZERO,
        client_parses: 0,
        server_parses: 0,
        binds: 0,
        logins: 0,
        pins: 0,
    };

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.assignments += other.assignments;
        self.transactions += other.transactions;
        self.queries += other.queries;
        self.received += other.received;
        self.sent += other.sent;
        self.transaction_time += other.transaction_time;
        self.query_time += other.query_time;
        self.wait_time += other.wait_time;
        self.client_parses += other.client_parses;
        self.server_parses += other.server_parses;
        self.binds += other.binds;
        self.logins += other.logins;
        self.pins += other.pins;
    }
}

/// What has happened in a database.
#[derive(Clone, Debug)]
pub struct DatabaseStatistics {
    /// As clients name it.
    pub name: Arc<str>,
    /// Since the process began.
    pub now: Figures,
    /// The same as it was when the period began that the averages are of.
    pub before: Figures,
    /// How long ago that was.
    pub period: Duration,
}

/// Whether something is switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// PAUSE without a database.
    pub paused: bool,
    /// SUSPEND.
    pub suspended: bool,
    /// The process is being stopped.
    pub draining: bool,
}

/// A kind of memory.
#[derive(Clone, Debug)]
pub struct MemoryFacts {
    /// Of what.
    pub name: &'static str,
    /// Bytes of one.
    pub size: usize,
    /// How many are in use.
    pub used: usize,
    /// How many are kept for later.
    pub free: usize,
}
