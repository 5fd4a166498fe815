//! Who may connect as what, from where, and to which server. Settings only: they are read once and shared.

mod peers;
mod sockets;
mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::secret::Secret;

pub use peers::{PeerId, PeerSettings, Peers};
pub use sockets::SocketOptions;
pub use terms::{LogTerms, OwnPool, OwnTimeouts, SessionState, SessionTerms, StartupRules, Timeouts, Users};

/// Whether a password or token may be asked for on a connection without TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AllowPlaintext {
    /// Not even from this machine.
    Never,
    /// From loopback addresses and Unix sockets only.
    #[default]
    Loopback,
    /// From anywhere: only behind something else that encrypts.
    Always,
}

impl AllowPlaintext {
    /// Whether a client at such an address may send its secret in clear.
    #[must_use]
    pub const fn allows(self, peer_is_local: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Loopback => peer_is_local,
            Self::Always => true,
        }
    }
}

/// How a client proves itself with a password that the proxy can check: PgBouncer's `auth_type`, same names and meanings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthType {
    /// By nothing; the user has to be known.
    Trust,
    /// By the password in clear.
    Plain,
    /// By the password under MD5, or by SCRAM where a verifier is kept.
    Md5,
    /// By SCRAM-SHA-256.
    ScramSha256,
}

/// A PostgreSQL account that roles map to, with its own credentials.
pub struct Account {
    /// The PostgreSQL role name.
    pub name: Arc<str>,
    /// Its password; `None` where the server trusts the proxy (trust, peer or certificate authentication).
    pub password: Option<Arc<Secret<Vec<u8>>>>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("name", &self.name).finish_non_exhaustive()
    }
}

/// libpq's `sslmode`, same names and meanings (PostgreSQL manual, section 34.19).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS when the server offers it, not verified.
    #[default]
    Prefer,
    /// TLS or nothing, not verified.
    Require,
    /// TLS whose certificate a known authority signed.
    VerifyCa,
    /// The same, and it names this host.
    VerifyFull,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Endpoint {
    /// Host name or address (IPv6 without brackets) and port.
    Tcp {
        /// Name or address.
        host: Arc<str>,
        /// 5432 by default.
        port: u16,
    },
    /// The path of a Unix socket, the file itself (`/var/run/postgresql/.s.PGSQL.5432`).
    Unix(Arc<str>),
}

impl Endpoint {
    /// Whether what is sent there stays on this machine. `localhost` is always loopback (RFC 6761 section 6.3).
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback())
            }
            Self::Unix(_) => true,
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

/// How a user is looked up whom the list of users does not have: PgBouncer's `auth_user`, `auth_query`, `auth_dbname`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthQuery {
    /// The PostgreSQL role that asks. What it logs in with stands in the list of users.
    pub user: Arc<str>,
    /// SQL with the name as `$1`, which gives one row of name and password.
    pub query: Arc<str>,
    /// The database, as clients name it, where it is asked; `None`: the one that the client wants.
    pub database: Option<Arc<str>>,
}

/// Which of several hosts a new connection tries first; the others follow in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostOrder {
    /// The first of the list.
    #[default]
    Listed,
    /// The next one each time (PgBouncer's `load_balance_hosts = round-robin`).
    RoundRobin,
    /// The one that worked the last time (PgBouncer's `load_balance_hosts = disable`).
    LastGood,
}

/// A database as clients name it, and where it is.
#[derive(Clone, Debug)]
pub struct Database {
    /// The name on the server; `None`: the name that the client asked for (the `*` entry).
    pub dbname: Option<Arc<str>>,
    /// Whom everybody runs as there; `None`: as their own account. Only where somebody else than tokens says who is let in.
    pub account: Option<Arc<Account>>,
    /// How its users are looked up whom the list does not have; `None`: they are not.
    pub auth_query: Option<Arc<AuthQuery>>,
    /// Tried until one accepts the connection.
    pub endpoints: Arc<[Endpoint]>,
    /// Which of them is tried first.
    pub host_order: HostOrder,
    /// How TLS to the server is handled.
    pub sslmode: SslMode,
    /// The PEM file with the authorities for `verify-ca` and `verify-full`; `None`: those of the system.
    pub sslrootcert: Option<Arc<str>>,
    /// How long opening and logging in to one endpoint may take.
    pub connect_timeout: Duration,
    /// Pool limits of this database.
    pub pool: Arc<crate::pool::PoolSettings>,
    /// What holds for its sessions.
    pub session: Arc<SessionTerms>,
}

impl Database {
    /// At these endpoints, under the name that clients use; TLS where the server offers it, 5 seconds to log in, and the
    /// usual pool.
    #[must_use]
    pub fn new(endpoints: impl Into<Arc<[Endpoint]>>) -> Self {
        Self {
            dbname: None,
            account: None,
            auth_query: None,
            endpoints: endpoints.into(),
            host_order: HostOrder::default(),
            sslmode: SslMode::default(),
            sslrootcert: None,
            connect_timeout: Duration::from_secs(5),
            pool: Arc::default(),
            session: Arc::default(),
        }
    }

    /// Whether connections that were opened for the one serve the other as well.
    #[must_use]
    pub fn is_where(&self, other: &Self) -> bool {
        let login = |database: &Self| {
            let account = database.account.as_ref()?;
            Some((account.name.clone(), account.password.as_ref().map(|password| password.expose().clone())))
        };
        self.dbname == other.dbname
            && self.endpoints == other.endpoints
            && self.tls_terms() == other.tls_terms()
            && login(self) == login(other)
    }

    /// How TLS to its servers is verified.
    #[must_use]
    pub fn tls_terms(&self) -> TlsTerms {
        TlsTerms { sslmode: self.sslmode, sslrootcert: self.sslrootcert.clone() }
    }
}

/// What decides how TLS to a server is verified.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TlsTerms {
    /// How far the certificate is verified.
    pub sslmode: SslMode,
    /// The authorities that it is verified with; `None`: those of the system.
    pub sslrootcert: Option<Arc<str>>,
}

/// The databases that clients may name.
#[derive(Clone, Debug, Default)]
pub struct Databases {
    named: BTreeMap<Arc<str>, Arc<Database>>,
    any: Option<Arc<Database>>,
}

impl Databases {
    /// The entry for all other names in a configuration, as in PgBouncer.
    pub const ANY: &'static str = "*";

    /// From names, or [`Databases::ANY`], to databases.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (Arc<str>, Database)>) -> Self {
        let mut databases = Self::default();
        for (name, database) in entries {
            let database = Arc::new(database);
            if &*name == Self::ANY {
                databases.any = Some(database);
            } else {
                databases.named.insert(name, database);
            }
        }
        databases
    }

    /// Where the database of this name is.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Database>> {
        self.named.get(name).or(self.any.as_ref())
    }

    /// Whether there is an entry of its own for this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// All entries, the named ones first.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Arc<Database>)> {
        let any = self.any.iter().map(|database| (Self::ANY, database));
        self.named.iter().map(|(name, database)| (&**name, database)).chain(any)
    }
}

/// Bounds on what a client may make the proxy hold or wait for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Client connections, those before authentication included (PgBouncer's `max_client_conn`).
    pub max_client_conn: u32,
    /// Of one verified identity (issuer and subject); zero: any number.
    pub max_client_conn_per_identity: u32,
    /// So many of `max_client_conn` are kept for those who may administer the proxy.
    pub reserved_for_admins: u32,
    /// Startup and login together (PgBouncer's `client_login_timeout`).
    pub client_login_timeout: Duration,
    /// Token or password, in bytes.
    pub max_password_bytes: usize,
    /// How long a drain waits for running work.
    pub drain_timeout: Duration,
    /// How long forwarding a cancel request may take (PgBouncer's `cancel_wait_timeout`).
    pub cancel_wait_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_client_conn: 10_000,
            max_client_conn_per_identity: 0,
            reserved_for_admins: 0,
            client_login_timeout: Duration::from_secs(60),
            max_password_bytes: 65_536,
            drain_timeout: Duration::from_secs(30),
            cancel_wait_timeout: Duration::from_secs(10),
        }
    }
}
